//! The log of one pillar: what is known about each slot after the stable checkpoint.

use bytes::Bytes;
use hybster_tss::{Digest, Proof};

use crate::ids::{OrderNumber, ReplicaId, View};
use crate::wire::{Commit, PREPARE_HEAD, PrepareHeader};

/// A PREPARE whose certificate, batch and requests were checked.
#[derive(Clone, Debug)]
pub(super) struct StoredPrepare {
    pub header: PrepareHeader,
    /// [`PrepareHeader::digest`].
    pub digest: Digest,
    /// Head and batch.
    pub message: Bytes,
}

impl StoredPrepare {
    pub fn batch(&self) -> Bytes {
        self.message.slice(PREPARE_HEAD..)
    }
}

/// A COMMIT whose certificate was checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Vote {
    pub replica: ReplicaId,
    pub prepare: Digest,
    pub last: OrderNumber,
    pub proof: Proof,
}

impl Vote {
    /// Whether the COMMIT is for this PREPARE, certified at its last order number.
    pub fn acknowledges(&self, prepare: &StoredPrepare) -> bool {
        self.prepare == prepare.digest && self.last == prepare.header.last
    }
}

/// What is known about a slot. A no-op is stored at the first slot that it covers.
#[derive(Clone, Debug, Default)]
pub(super) struct Slot {
    pub prepare: Option<StoredPrepare>,
    /// At most one per replica, of the stable view.
    pub votes: Vec<Vote>,
    /// This replica's own COMMIT.
    pub own: Option<Commit>,
}

impl Slot {
    fn clear(&mut self) {
        self.prepare = None;
        self.votes.clear();
        self.own = None;
    }
}

/// A ring of slots from the window's base on.
pub(super) struct Slots {
    ring: Vec<Slot>,
    base: u64,
}

impl Slots {
    /// Room for `capacity` slots after the base.
    pub fn new(capacity: u64) -> Slots {
        let capacity = usize::try_from(capacity).expect("windows fit into memory");
        Slots { ring: vec![Slot::default(); capacity], base: 0 }
    }

    /// The first slot after the stable checkpoint.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The first slot that has no room.
    pub fn end(&self) -> u64 {
        self.base + self.ring.len() as u64
    }

    fn position(&self, slot: u64) -> Option<usize> {
        (self.base..self.end()).contains(&slot).then(|| (slot % self.ring.len() as u64) as usize)
    }

    pub fn get(&self, slot: u64) -> Option<&Slot> {
        self.position(slot).map(|at| &self.ring[at])
    }

    pub fn get_mut(&mut self, slot: u64) -> Option<&mut Slot> {
        self.position(slot).map(|at| &mut self.ring[at])
    }

    pub fn prepare(&self, slot: u64) -> Option<&StoredPrepare> {
        self.get(slot)?.prepare.as_ref()
    }

    /// Forgets the slots before a new base.
    pub fn forward(&mut self, base: u64) {
        debug_assert!(base >= self.base);
        for slot in self.base..base.min(self.end()) {
            let at = (slot % self.ring.len() as u64) as usize;
            self.ring[at].clear();
        }
        self.base = base;
    }

    /// Takes all PREPAREs out and forgets the rest: the view is left behind.
    pub fn drain(&mut self) -> Vec<StoredPrepare> {
        let mut prepares = Vec::new();
        for slot in self.base..self.end() {
            let at = (slot % self.ring.len() as u64) as usize;
            prepares.extend(self.ring[at].prepare.take());
            self.ring[at].clear();
        }
        prepares
    }

    /// The PREPAREs of a view that follow one another from `from` on, before slot `end`.
    pub fn contiguous<'a>(
        &'a self,
        from: u64,
        end: u64,
        view: View,
        slot_of: impl Fn(&PrepareHeader) -> u64 + 'a,
    ) -> impl Iterator<Item = &'a StoredPrepare> + 'a {
        let mut next = from;
        std::iter::from_fn(move || {
            let stored = self.prepare(next).filter(|p| p.header.view == view && next < end)?;
            next = slot_of(&stored.header) + 1;
            Some(stored)
        })
    }

    /// All PREPAREs held.
    pub fn all(&self) -> impl Iterator<Item = &StoredPrepare> {
        self.ring.iter().filter_map(|slot| slot.prepare.as_ref())
    }
}
