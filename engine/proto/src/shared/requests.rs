//! Checks of client requests, several at once, which is cheaper than one by one.

use bytes::BytesMut;
use hybster_tss::{RequestVerifier, SIGNATURE_BYTES};

use crate::config::GroupConfig;
use crate::mutants::{self, Mutant};
use crate::output::{ClientLink, Output, Reject};
use crate::wire::{RequestProof, RequestRef, Requests, kind};

/// Requests whose MACs are checked together.
const TOGETHER: usize = 32;

/// Whether a request is from a client of the group, no longer than allowed, and has a proof of the
/// form that the group requires.
pub(crate) fn is_admissible(config: &GroupConfig, request: &RequestRef<'_>) -> bool {
    request.session.client.0 < config.max_clients
        && request.operation.len() <= config.max_operation_bytes as usize
        && request.authenticator() == config.request_authenticator
}

/// Checks that a batch consists of exactly `count` authentic requests within the limits.
pub(crate) fn check_batch<V: RequestVerifier>(
    verifier: &V,
    config: &GroupConfig,
    body: &[u8],
    count: u32,
) -> Result<(), Reject> {
    let limit = config.batch_max_bytes as usize;
    if count == 0 || count > config.batch_max_requests || (body.len() > limit && count > 1) {
        return Err(Reject::BadBatch);
    }
    let mut left = count;
    let mut checks = RequestChecks::new(verifier, config);
    for request in Requests::new(body) {
        let request = request.map_err(|_| Reject::BadBatch)?;
        left = left.checked_sub(1).ok_or(Reject::BadBatch)?;
        checks.push(&request)?;
    }
    checks.finish()?;
    if left == 0 { Ok(()) } else { Err(Reject::BadBatch) }
}

/// Checks the requests of a batch, which follow `head` bytes, and cuts out forged ones, so that the
/// other clients in the batch do not suffer. That costs a copy, and a check of each request alone. The
/// client loses its link: a request in a batch was either stored, and checked then, or came over the
/// link of the session's own client, which the intake compares ([`Intake`](crate::intake::Intake)). So a
/// peer that forwards a forged request cannot make another client lose its link.
pub(crate) fn authentic_only<V: RequestVerifier>(
    verifier: &V,
    config: &GroupConfig,
    head: usize,
    buffer: BytesMut,
    requests: u32,
    out: &mut Output,
) -> Option<(BytesMut, u32)> {
    let body = &buffer[head..];
    if check_batch(verifier, config, body, requests).is_ok() {
        return Some((buffer, requests));
    }
    let mut kept = BytesMut::with_capacity(buffer.len());
    kept.resize(head, 0);
    let mut count = 0;
    for request in Requests::new(body).flatten() {
        let is_authentic = is_admissible(config, &request)
            && (is_proved(verifier, &request) || mutants::active(Mutant::RequestMac));
        if is_authentic {
            kept.extend_from_slice(request.record);
            count += 1;
        } else {
            let session = request.session;
            let (client, incarnation) = (session.client, session.incarnation());
            let link = ClientLink { client, incarnation };
            out.reject_client(link, &[kind::REQUESTS], Reject::BadRequest);
        }
    }
    (count > 0).then_some((kept, count))
}

/// Whether a request comes from its client. Its form has been checked already.
pub(crate) fn is_proved<V: RequestVerifier>(verifier: &V, request: &RequestRef<'_>) -> bool {
    let client = request.session.client.0;
    match request.proof() {
        RequestProof::Mac(mac) => verifier.verify_client(client, request.covered, mac),
        RequestProof::Signature(s) => verifier.verify_signed(client, request.covered, s),
    }
}

/// Takes requests and checks them in groups: MACs a few at a time, signatures all at the end,
/// because larger batches of them are cheaper.
pub(crate) struct RequestChecks<'a, V> {
    verifier: &'a V,
    config: &'a GroupConfig,
    /// Client, bytes that its MAC covers, and the MAC.
    group: [(u32, &'a [u8], &'a [u8; 16]); TOGETHER],
    filled: usize,
    /// Client, bytes that its signature covers, and the signature. Without signatures it allocates
    /// nothing.
    signed: Vec<(u32, &'a [u8], &'a [u8; SIGNATURE_BYTES])>,
}

impl<'a, V: RequestVerifier> RequestChecks<'a, V> {
    pub(crate) fn new(verifier: &'a V, config: &'a GroupConfig) -> Self {
        let group = [(0, &[][..], &[0; 16]); TOGETHER];
        RequestChecks { verifier, config, group, filled: 0, signed: Vec::new() }
    }

    /// Takes a request. An error may be about an earlier one.
    pub(crate) fn push(&mut self, request: &RequestRef<'a>) -> Result<(), Reject> {
        if !is_admissible(self.config, request) {
            return Err(Reject::BadRequest);
        }
        let client = request.session.client.0;
        match request.proof() {
            RequestProof::Mac(mac) => {
                self.group[self.filled] = (client, request.covered, mac);
                self.filled += 1;
                if self.filled == TOGETHER { self.check_macs() } else { Ok(()) }
            }
            RequestProof::Signature(signature) => {
                self.signed.push((client, request.covered, signature));
                Ok(())
            }
        }
    }

    /// Checks the rest. Before that, no request counts as checked.
    pub(crate) fn finish(mut self) -> Result<(), Reject> {
        self.check_macs()?;
        let good = self.signed.is_empty() || self.verifier.verify_signed_batch(&self.signed);
        if good || mutants::active(Mutant::RequestMac) { Ok(()) } else { Err(Reject::BadRequest) }
    }

    fn check_macs(&mut self) -> Result<(), Reject> {
        let group = &self.group[..std::mem::take(&mut self.filled)];
        match self.verifier.verify_client_batch(group) {
            Err(_) if !mutants::active(Mutant::RequestMac) => Err(Reject::BadRequest),
            _ => Ok(()),
        }
    }
}
