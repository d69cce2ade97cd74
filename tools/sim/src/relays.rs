//! Replies that go through the leader: what the network stages of replicas and clients do with them.
//!
//! Envelopes are not sealed here: what a replica sent in one is remembered instead, and a client
//! opens nothing else. A real envelope does not outlive its link, these do.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use hybster_proto::ids::{ReplicaId, View};
use hybster_proto::output::{Cause, ClientLink, SendTag};
use hybster_proto::relay_trust::Trust;
use hybster_proto::wire::relay::{
    RELAY_REPLIES_MAX, begin_relay, parse_relay, parse_relayed, relayed_head,
};
use hybster_proto::wire::{kind, kind_of};

use crate::world::World;

/// How often a reply goes through the leader that may, in millionths. In a real replica that
/// depends on what else there is to send.
const RELAYED_PPM: u32 = 600_000;

/// What replicas know of their clients, and what was sealed.
#[derive(Default)]
pub(crate) struct Relays {
    trust: HashMap<(usize, ClientLink), Trust>,
    sealed: HashSet<(ReplicaId, ClientLink, Bytes)>,
}

impl Relays {
    /// Whether a reply may go through the leader.
    pub(crate) fn permits(&mut self, replica: usize, client: ClientLink, cause: Cause) -> bool {
        self.trust.entry((replica, client)).or_default().permits(cause)
    }

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

impl World {
    /// Sends a REPLIES message that holds a single reply, if it may go through the leader.
    pub(crate) fn relay(
        &mut self,
        index: usize,
        client: ClientLink,
        view: View,
        message: &Bytes,
    ) -> bool {
        let leader = self.config.leader(view);
        if usize::from(leader.0) == index
            || message.len() > RELAY_REPLIES_MAX
            || !self.random.chance(RELAYED_PPM)
        {
            return false;
        }
        let mut relay = Vec::new();
        begin_relay(&mut relay, client);
        relay.extend_from_slice(message);
        self.send_peer(index, leader, relay.into(), SendTag::Transient);
        true
    }

    /// A replica carries a sealed reply to its client.
    pub(crate) fn carry(&mut self, index: usize, from: ReplicaId, message: &Bytes) {
        if let Ok((client, envelope)) = parse_relay(message) {
            let mut relayed = Vec::from(relayed_head(from));
            relayed.extend_from_slice(envelope);
            self.send_client(index, client, relayed.into());
        }
    }
}
