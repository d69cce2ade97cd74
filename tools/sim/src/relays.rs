//! Envelopes of replies that go through the leader.
//!
//! Envelopes are not sealed here: what a replica sent in one is remembered instead, and a client
//! opens nothing else. A real envelope does not outlive its link, these do.

use std::collections::HashSet;

use bytes::Bytes;
use hybster_proto::ids::ReplicaId;
use hybster_proto::output::ClientLink;
use hybster_proto::wire::relay::{parse_relay, parse_relayed};
use hybster_proto::wire::{kind, kind_of};

/// What was sealed.
#[derive(Default)]
pub(crate) struct Relays {
    sealed: HashSet<(ReplicaId, ClientLink, Bytes)>,
}

impl Relays {
    /// Notes what a replica sends to a peer.
    pub(crate) fn leaves(&mut self, from: usize, message: &Bytes) {
        if kind_of(message) == kind::RELAY
            && let Ok((client, envelope)) = parse_relay(message)
        {
            self.sealed.insert((ReplicaId(from as u16), client, message.slice_ref(envelope)));
        }
    }

    /// What a client finds in a RELAYED, and whose it is.
    pub(crate) fn open(&self, client: ClientLink, message: &Bytes) -> Option<(ReplicaId, Bytes)> {
        let (from, envelope) = parse_relayed(message).ok()?;
        let it = (from, client, message.slice_ref(envelope));
        self.sealed.contains(&it).then_some((it.0, it.2))
    }
}
