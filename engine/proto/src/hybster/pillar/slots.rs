//! What a pillar knows about a slot (TR listing 16): PREPARE, COMMITs, and its own COMMIT.

use bytes::Bytes;
use hybster_tss::{Digest, Proof};

use crate::hybster::wire::ordering::{BATCH_DIGEST_AT, Commit, PREPARE_HEAD, PrepareHeader};
use crate::ids::{OrderNumber, Peers, ReplicaId, View};
use crate::output::Agreed;
use crate::shared::log::{Entry, Log};

/// A PREPARE whose certificate, batch and requests were checked.
#[derive(Clone, Debug)]
pub(super) struct StoredPrepare {
    pub header: PrepareHeader,
    /// [`PrepareHeader::digest`].
    pub digest: Digest,
    /// Head and batch.
    pub message: Bytes,
    /// It came too late for its time (`timing.rs`).
    pub late: bool,
    /// What the replica's log has of it.
    pub logged: Logged,
}

/// What a log has of a PREPARE.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Logged {
    Nothing,
    /// Its batch, because a message of a view change names it.
    Batch,
    /// All of it.
    Proposal,
}

impl StoredPrepare {
    pub(super) fn batch(&self) -> Bytes {
        self.message.slice(PREPARE_HEAD..)
    }

    pub(super) fn agreed(&self) -> Agreed {
        let message = self.message.clone();
        Agreed::new(message, PREPARE_HEAD, BATCH_DIGEST_AT, self.header.time_ms)
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
    pub(super) fn acknowledges(&self, prepare: &StoredPrepare) -> bool {
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
    /// Who is known to have voted for a PREPARE, its leader included: for traces.
    pub(super) fn voters(
        &self,
        prepare: &StoredPrepare,
        leader: ReplicaId,
        own: ReplicaId,
    ) -> Peers {
        let votes = self.votes.iter().filter(|vote| vote.acknowledges(prepare));
        let own = self.own.is_some().then_some(own);
        votes.map(|vote| vote.replica).chain([leader]).chain(own).collect()
    }
}

impl Entry for Slot {
    fn clear(&mut self) {
        self.prepare = None;
        self.votes.clear();
        self.own = None;
    }
}

/// What an empty slot takes.
pub(crate) const SLOT_BYTES: u64 = size_of::<Slot>() as u64;
/// What a COMMIT takes in a slot.
pub(crate) const VOTE_BYTES: u64 = size_of::<Vote>() as u64;

/// The log of a pillar.
pub(super) type Slots = Log<Slot>;

impl Log<Slot> {
    pub(crate) fn prepare(&self, slot: u64) -> Option<&StoredPrepare> {
        self.get(slot)?.prepare.as_ref()
    }

    /// Takes all PREPAREs out and forgets the rest: the view is left behind.
    pub(crate) fn drain(&mut self) -> Vec<StoredPrepare> {
        let mut prepares = Vec::new();
        for slot in self.base()..self.end() {
            let entry = self.get_mut(slot).expect("inside the log");
            prepares.extend(entry.prepare.take());
            entry.clear();
        }
        prepares
    }

    /// The PREPAREs of a view that follow one another from `from` on, before slot `end`.
    pub(crate) fn contiguous<'a>(
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
    pub(crate) fn all(&self) -> impl Iterator<Item = &StoredPrepare> {
        self.entries().filter_map(|slot| slot.prepare.as_ref())
    }
}
