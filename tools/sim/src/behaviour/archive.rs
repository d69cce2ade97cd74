//! What the network remembers: an attacker keeps every message that it ever saw.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use hybster_proto::ids::ReplicaId;
use hybster_proto::wire::kind_of;

use crate::random::Random;

/// Messages of one kind that are kept; older ones make room.
const KEPT: usize = 192;

/// Messages between replicas, of all links. Faulty hosts work together: each knows all.
#[derive(Default)]
pub struct Archive {
    kinds: BTreeMap<u8, VecDeque<(ReplicaId, Bytes)>>,
}

impl Archive {
    /// Keeps a message; one that went to several peers is kept once.
    pub(crate) fn keep(&mut self, from: ReplicaId, message: &Bytes) {
        let kept = self.kinds.entry(kind_of(message)).or_default();
        if kept.back().is_some_and(|(_, last)| last.as_ptr() == message.as_ptr()) {
            return;
        }
        if kept.len() >= KEPT {
            // Some old ones survive for long.
            kept.remove(message.len() % (KEPT / 2));
        }
        kept.push_back((from, message.clone()));
    }

    /// The messages of a kind, oldest first, with their senders.
    pub fn of(&self, kind: u8) -> impl DoubleEndedIterator<Item = (ReplicaId, &Bytes)> {
        self.kinds.get(&kind).into_iter().flatten().map(|(from, message)| (*from, message))
    }

    /// Any message of a kind.
    pub fn any(&self, kind: u8, random: &mut Random) -> Option<(ReplicaId, Bytes)> {
        let kept = self.kinds.get(&kind).filter(|kept| !kept.is_empty())?;
        Some(kept[random.index(kept.len())].clone())
    }

    /// The kinds of which there are messages.
    #[must_use]
    pub fn kinds(&self) -> Vec<u8> {
        self.kinds.keys().copied().collect()
    }
}
