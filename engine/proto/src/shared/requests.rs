//! Checks of client requests, several at once, which is cheaper than one by one.

use hybster_tss::{RequestVerifier, SIGNATURE_BYTES};

use crate::config::GroupConfig;
use crate::mutants::{self, Mutant};
use crate::output::Reject;
use crate::wire::{RequestProof, RequestRef};

/// Requests whose MACs are checked together.
const TOGETHER: usize = 32;

/// Whether a request is from a client of the group, no longer than allowed, and has a proof of the
/// form that the group requires.
pub(crate) fn is_admissible(config: &GroupConfig, request: &RequestRef<'_>) -> bool {
    request.session.client.0 < config.max_clients
        && request.operation.len() <= config.max_operation_bytes as usize
        && request.authenticator() == config.request_authenticator
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
