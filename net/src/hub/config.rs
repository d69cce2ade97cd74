//! Configuration of a hub.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::address::PeerAddress;
use crate::cipher::LinkCipher;
use crate::handshake::Application;
use crate::keys::{Identity, KeyRing, StaticKey};
use crate::limits::Limits;

/// Configuration of a [`Hub`](super::Hub).
#[derive(Clone, Debug)]
pub struct HubConfig {
    /// The replica or client that this process is.
    pub identity: Identity,
    /// The secret half of its link key; the handshake proves `identity` with it.
    pub key: StaticKey,
    /// The public keys of everybody it accepts.
    pub keyring: Arc<KeyRing>,
    /// Digest of the group configuration; both ends of a link must have the same.
    pub group_digest: [u8; 32],
    /// P, the number of pillars; both ends of a link must have the same.
    pub pillars: u16,
    /// What runs over the links; both ends of one must go together, if both say what it is.
    pub application: Option<Application>,
    /// Of a client, tells several connections of it apart. Of a replica, its epoch: ends in different epochs have a link
    /// all the same, and are told.
    pub incarnation: u64,
    /// How frames are protected; both ends of a link must have the same.
    pub cipher: LinkCipher,
    /// Where to listen; `None` for a client.
    pub listen: Option<SocketAddr>,
    /// The other replicas. A replica connects to those with a lower id and waits for those with a
    /// higher one; a client connects to all. The name of a host is looked up before each attempt to
    /// connect, in a thread of its own.
    pub peers: Vec<(u16, PeerAddress)>,
    /// Bounds on bytes, counts and times, each with its unit in its name.
    pub limits: Limits,
    /// Seed of the back-off's jitter; `None` takes it from the operating system.
    pub jitter_seed: Option<u64>,
}

/// Why a hub could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The listening socket failed.
    #[error("cannot listen on {address}: {error}; is another replica running there?")]
    Listen {
        /// The address from the configuration.
        address: SocketAddr,
        /// The operating system's reason.
        error: std::io::Error,
    },
    /// A peer has no key.
    #[error("the key ring has no key for {0}; every peer needs one")]
    NoKey(Identity),
    /// A peer is listed twice, or is this replica itself.
    #[error("replica {0} is listed twice among the peers, or is this replica itself")]
    BadPeer(u16),
    /// This side's static key cannot be used.
    #[error("the static key cannot be used for TLS: {0}")]
    Key(String),
}
