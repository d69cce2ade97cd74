//! The disk below a replica: its log and its durable checkpoint, and what is lost when it stops.

use std::collections::VecDeque;

use bytes::Bytes;
use hybster_proto::egress::Gate;
use hybster_proto::ids::{OrderNumber, PillarId};
use hybster_proto::output::{DurableCheckpoint, LogRecord, TakenSnapshot};
use hybster_proto::service::{Pages, Snapshot};
use hybster_proto::state::TransferredState;
use hybster_proto::trace::TraceEvent;
use hybster_proto::wire::CheckpointId;

use crate::watched::Execution;

/// What a replica did, which counts once nothing can take it back.
pub(crate) enum Deed {
    Event(TraceEvent),
    /// A pillar's window moved.
    Forwarded(PillarId, OrderNumber),
}

/// A checkpoint on disk.
struct Saved {
    id: CheckpointId,
    bookkeeping: Pages,
    service: Pages,
}

/// A replica's disk, and what in its memory waits for it.
pub(crate) struct Disk {
    /// The bytes of each record.
    records: Vec<Bytes>,
    /// How many of them are durable.
    durable: u64,
    pub(crate) is_syncing: bool,
    saved: Option<Saved>,
    saving: Option<DurableCheckpoint>,
    next: Option<DurableCheckpoint>,
    /// Counts the times that the replica was started.
    pub(crate) life: u32,
    pub(crate) gate: Gate,
    /// What the replica did, each with the records after which it counts.
    deeds: VecDeque<(u64, Deed)>,
    /// What its service executed with it.
    pub(crate) executions: Vec<Execution>,
}

impl Disk {
    /// An empty disk.
    pub(crate) fn new() -> Self {
        Self {
            records: Vec::new(),
            durable: 0,
            is_syncing: false,
            saved: None,
            saving: None,
            next: None,
            life: 0,
            gate: Gate::default(),
            deeds: VecDeque::new(),
            executions: Vec::new(),
        }
    }

    /// The end of the log.
    pub(crate) fn end(&self) -> u64 {
        self.records.len() as u64
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.durable == self.end()
    }

    pub(crate) fn append(&mut self, record: &LogRecord) {
        self.records.push(record.parts().concat().into());
    }

    /// The log is durable up to here.
    pub(crate) fn synced(&mut self, cursor: u64) {
        self.durable = self.durable.max(cursor);
        self.is_syncing = false;
        self.gate.durable(cursor);
    }

    pub(crate) fn did(&mut self, deed: Deed) {
        self.deeds.push_back((self.end(), deed));
    }

    /// The next deed that counts.
    pub(crate) fn next_deed(&mut self) -> Option<Deed> {
        let durable = self.durable;
        self.deeds.pop_front_if(|(after, _)| *after <= durable).map(|(_, deed)| deed)
    }

    /// A checkpoint is to be made durable; whether the disk begins with one now.
    pub(crate) fn save(&mut self, checkpoint: DurableCheckpoint) -> bool {
        if self.saving.is_some() {
            self.next = Some(checkpoint);
            return false;
        }
        self.saving = Some(checkpoint);
        true
    }

    /// What is being saved is durable: its order number, and whether the disk begins with another.
    pub(crate) fn saved(&mut self) -> Option<(OrderNumber, bool)> {
        let DurableCheckpoint { id, taken: TakenSnapshot { bookkeeping, service, .. } } =
            self.saving.take()?;
        let pages = |of: &dyn Snapshot| Pages((0..of.page_count()).map(|i| of.page(i)).collect());
        let (bookkeeping, service) = (pages(&*bookkeeping), pages(&*service));
        self.saved = Some(Saved { id, bookkeeping, service });
        self.saving = self.next.take();
        Some((id.order, self.saving.is_some()))
    }

    /// The replica stops: of what is not durable, only the first `kept` records are there again.
    pub(crate) fn stop(&mut self, kept: u64) {
        self.records.truncate((self.durable + kept) as usize);
        self.durable = self.end();
        (self.saving, self.next, self.is_syncing) = (None, None, false);
    }

    /// Records that are not durable.
    pub(crate) fn unsynced(&self) -> u64 {
        self.end() - self.durable
    }

    /// The replica is started again.
    pub(crate) fn start(&mut self) {
        self.life += 1;
        self.gate = Gate::new(self.durable);
        self.deeds.clear();
        self.executions.clear();
    }

    pub(crate) fn records(&self) -> impl Iterator<Item = Bytes> {
        self.records.iter().cloned()
    }

    /// The durable checkpoint and its pages.
    pub(crate) fn checkpoint(&self) -> Option<(CheckpointId, TransferredState)> {
        let Saved { id, bookkeeping, service } = self.saved.as_ref()?;
        let (bookkeeping, service) = (bookkeeping.clone().into(), service.clone().into());
        Some((*id, TransferredState { bookkeeping, service }))
    }
}
