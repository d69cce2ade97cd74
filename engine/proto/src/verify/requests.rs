//! Checks of client requests, several MACs at once: that is cheaper than one after the other.

use hybster_tss::Verifier;

use crate::config::GroupConfig;
use crate::mutants::{self, Mutant};
use crate::output::Reject;
use crate::wire::RequestRef;

/// Requests whose MACs are checked together.
const TOGETHER: usize = 32;

/// Whether a request is from a client of the group and no longer than allowed.
pub(crate) fn is_within_limits(config: &GroupConfig, request: &RequestRef<'_>) -> bool {
    request.session.client.0 < config.max_clients
        && request.operation.len() <= config.max_operation_bytes as usize
}

/// Takes requests and checks them in groups.
pub(crate) struct RequestChecks<'a, V> {
    verifier: &'a V,
    config: &'a GroupConfig,
    /// Client, what its MAC covers, and the MAC.
    group: [(u32, &'a [u8], &'a [u8; 16]); TOGETHER],
    filled: usize,
}

impl<'a, V: Verifier> RequestChecks<'a, V> {
    pub(crate) fn new(verifier: &'a V, config: &'a GroupConfig) -> Self {
        RequestChecks { verifier, config, group: [(0, &[], &[0; 16]); TOGETHER], filled: 0 }
    }

    /// Takes a request. An error may be about an earlier one.
    pub(crate) fn push(&mut self, request: &RequestRef<'a>) -> Result<(), Reject> {
        if !is_within_limits(self.config, request) {
            return Err(Reject::BadRequest);
        }
        self.group[self.filled] = (request.session.client.0, request.covered, request.mac);
        self.filled += 1;
        if self.filled == TOGETHER { self.check() } else { Ok(()) }
    }

    /// Checks what is left; nothing counts as checked before.
    pub(crate) fn finish(mut self) -> Result<(), Reject> {
        self.check()
    }

    fn check(&mut self) -> Result<(), Reject> {
        let group = &self.group[..std::mem::take(&mut self.filled)];
        match self.verifier.verify_client_batch(group) {
            Err(_) if !mutants::active(Mutant::RequestMac) => Err(Reject::BadRequest),
            _ => Ok(()),
        }
    }
}
