//! The trait of what checks the requests of clients.
//!
//! It is apart from [`Verifier`](crate::Verifier), because an ordering protocol without trusted
//! counters has requests to check and no certificates.

use alloc::boxed::Box;
use alloc::sync::Arc;
use core::fmt;

use crate::signature::{ClientPublicKeys, SIGNATURE_BYTES, SignedRequest};

/// Checks what proves that requests are their clients': MACs or signatures.
///
/// A request that one correct replica takes must be taken by all, else a faulty client splits the
/// group. Both forms have this property; see [`signature`](crate::signature) and
/// [`client_mac`](crate::client_mac).
pub trait RequestVerifier: Send {
    /// Whether `mac` is the MAC of `message` under the key of `client`
    /// (see [`ClientKey::tag`](crate::ClientKey::tag)).
    #[must_use]
    fn verify_client(&self, client: u32, message: &[u8], mac: &[u8; 16]) -> bool;

    /// [`verify_client`](RequestVerifier::verify_client) for many requests, given as (client, message,
    /// mac). Stops at the first bad one and returns its index.
    fn verify_client_batch(&self, requests: &[(u32, &[u8], &[u8; 16])]) -> Result<(), usize> {
        let bad = |&(client, message, mac): &(u32, &[u8], &[u8; 16])| {
            !self.verify_client(client, message, mac)
        };
        requests.iter().position(bad).map_or(Ok(()), Err)
    }

    /// Whether `signature` is the client's for `message`, in a group whose requests are signed.
    #[must_use]
    fn verify_signed(&self, client: u32, message: &[u8], signature: &[u8; SIGNATURE_BYTES])
    -> bool;

    /// Whether [`verify_signed`](RequestVerifier::verify_signed) holds for every request, given as
    /// (client, message, signature). It does not say which one is bad, because finding that out
    /// costs as much as checking each alone.
    #[must_use]
    fn verify_signed_batch(&self, requests: &[SignedRequest<'_>]) -> bool {
        requests
            .iter()
            .all(|&(client, message, signature)| self.verify_signed(client, message, signature))
    }
}

/// Checks signatures and takes no MAC: all that a host without a trusted subsystem needs. It holds
/// public keys only.
#[derive(Clone)]
pub struct SignedRequests(Arc<ClientPublicKeys>);

impl SignedRequests {
    /// A verifier for the requests of clients with these keys.
    #[must_use]
    pub const fn new(keys: Arc<ClientPublicKeys>) -> Self {
        Self(keys)
    }
}

impl RequestVerifier for SignedRequests {
    /// Who could check a MAC could make it, so none proves anything here.
    fn verify_client(&self, _: u32, _: &[u8], _: &[u8; 16]) -> bool {
        false
    }

    fn verify_signed(
        &self,
        client: u32,
        message: &[u8],
        signature: &[u8; SIGNATURE_BYTES],
    ) -> bool {
        self.0.verify(client, message, signature)
    }

    fn verify_signed_batch(&self, requests: &[SignedRequest<'_>]) -> bool {
        self.0.verify_batch(requests)
    }
}

impl fmt::Debug for SignedRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SignedRequests(..)")
    }
}

impl<V: RequestVerifier + ?Sized> RequestVerifier for Box<V> {
    fn verify_client(&self, client: u32, message: &[u8], mac: &[u8; 16]) -> bool {
        (**self).verify_client(client, message, mac)
    }

    fn verify_client_batch(&self, requests: &[(u32, &[u8], &[u8; 16])]) -> Result<(), usize> {
        (**self).verify_client_batch(requests)
    }

    fn verify_signed(
        &self,
        client: u32,
        message: &[u8],
        signature: &[u8; SIGNATURE_BYTES],
    ) -> bool {
        (**self).verify_signed(client, message, signature)
    }

    fn verify_signed_batch(&self, requests: &[SignedRequest<'_>]) -> bool {
        (**self).verify_signed_batch(requests)
    }
}
