//! The disk below a replica: its log and its durable checkpoint, and what is lost when it stops.
//!
//! The log is the real one, on a virtual disk: a batch is written when the last one is synced, and synced a
//! while later. A replica that is killed loses what is not written; one that loses power loses what is not
//! synced, and of that keeps some sectors and tears others.

use std::collections::VecDeque;

use bytes::Bytes;
use hybster_disk::{Faults, VirtualDisk};
use hybster_log::{
    AppendError, Appender, Cursor, Log, LogError, Options, Recovery, Step, WhenFull, Writer,
};
use hybster_proto::egress::Gate;
use hybster_proto::ids::{OrderNumber, PillarId};
use hybster_proto::output::{DurableCheckpoint, LogRecord, TakenSnapshot};
use hybster_proto::service::{Pages, Snapshot};
use hybster_proto::state::TransferredState;
use hybster_proto::trace::TraceEvent;
use hybster_proto::truncation::Truncation;
use hybster_proto::wire::CheckpointId;

use crate::random::Random;
use crate::scenario::{DiskPlan, Scenario};
use crate::watched::Execution;

/// The longest record: a NEW-VIEW with what all replicas had prepared.
const LONGEST_RECORD: u64 = 1 << 20;
/// So much is logged between two rounds of summaries.
const ROUND_BYTES: u64 = 4 << 10;
/// A segment of a log that has little room, and twice the longest record in it.
const SHORT_BYTES: u64 = 1 << 20;
/// Steps of the writer within which it must have synced something, or have nothing to do.
const MOST_STEPS: u32 = 10_000;

/// What a replica did, which counts once nothing can take it back.
pub(crate) enum Deed {
    Event(TraceEvent),
    /// A pillar's window moved.
    Forwarded(PillarId, OrderNumber),
}

/// How a replica stops.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stop {
    /// The process: what it has written stays.
    Killed,
    /// The host.
    PowerLost,
    /// The process, and what it has written is replaced by the copy, if there is one.
    Replaced,
    /// The process, and something of what it has written changes, or can be read no more.
    Damaged,
}

/// A checkpoint on disk.
#[derive(Clone)]
struct Saved {
    id: CheckpointId,
    bookkeeping: Pages,
    service: Pages,
}

/// The log of a replica that runs.
struct Running {
    log: Log,
    appender: Appender,
    writer: Writer<VirtualDisk>,
}

/// A replica's disk, and what in its memory waits for it.
pub(crate) struct Disk {
    device: VirtualDisk,
    options: Options,
    /// None while the replica is down.
    running: Option<Running>,
    pub(crate) is_syncing: bool,
    saved: Option<Saved>,
    /// A copy of what was on it, and what was removed by then.
    copy: Option<(VirtualDisk, Option<Saved>, u64)>,
    /// Bytes that it has room for, if there is a limit.
    room: Option<u64>,
    /// The log may be used up: then the replica stops, and room is made.
    may_be_used_up: bool,
    is_used_up: bool,
    /// A sync is to fail.
    is_breaking: bool,
    /// The log has failed, and the replica is to stop for it.
    pub(crate) has_failed: bool,
    /// Something of it was changed while the replica was down.
    pub(crate) is_damaged: bool,
    /// What it has is an older copy.
    pub(crate) is_copy: bool,
    saving: Option<DurableCheckpoint>,
    next: Option<DurableCheckpoint>,
    /// Counts the times that the replica was started.
    pub(crate) life: u32,
    pub(crate) gate: Gate,
    /// So much is logged between two rounds of summaries.
    round_bytes: u64,
    /// When the beginning of the log is removed.
    pub(crate) truncation: Truncation,
    /// What was removed, though a segment may still have it.
    removed: u64,
    pillars: u16,
    /// Order numbers of a window.
    window: u64,
    /// What the replica did, each with the end of the log after which it counts.
    deeds: VecDeque<(u64, Deed)>,
    /// What its service executed with it.
    pub(crate) executions: Vec<Execution>,
}

fn options(plan: &DiskPlan) -> Options {
    let longest = if plan.segments.is_some() { SHORT_BYTES / 2 } else { LONGEST_RECORD };
    Options {
        buffer_bytes: 2 * longest,
        segment_bytes: 2 * longest,
        reserve_bytes: 2 * longest,
        longest_record: longest - 16,
        when_full: WhenFull::Refuse,
        ..Options::default()
    }
}

/// Changes one bit of what the log has, or makes a sector of it unreadable.
fn damage(device: &VirtualDisk, random: &mut Random) -> bool {
    let mut files = device.files();
    let last = |name: &str| device.content(name).iter().rposition(|byte| *byte != 0);
    files.retain(|(name, _)| last(name).is_some());
    if files.is_empty() {
        return false;
    }
    let (name, _) = random.pick(&files);
    let at = random.below(last(name).unwrap_or(0) as u64 + 1);
    if random.chance(500_000) {
        device.flip(name, 8 * at + random.below(8));
    } else {
        device.make_unreadable(name, at / hybster_disk::SECTOR as u64);
    }
    true
}

impl Disk {
    /// An empty disk.
    ///
    /// # Panics
    /// If the log cannot be made on it.
    pub(crate) fn new(scenario: &Scenario, plan: &DiskPlan, random: &mut Random) -> Self {
        let Scenario { group, logs_may_be_used_up: may_be_used_up, .. } = scenario;
        let may_be_used_up = *may_be_used_up;
        let (pillars, window) = (group.pillars, group.window);
        let device = VirtualDisk::new(random.next());
        let options = options(plan);
        let room = plan.segments.map(|segments| segments * options.segment_bytes);
        if let Some(bytes) = room {
            device.set_capacity(bytes);
        }
        // As in a replica, where less than a segment cannot be removed.
        let round_bytes = plan.segments.map_or(ROUND_BYTES, |_| options.segment_bytes);
        let mut disk = Self {
            device,
            options,
            round_bytes,
            running: None,
            is_syncing: false,
            saved: None,
            copy: None,
            room,
            may_be_used_up,
            is_used_up: false,
            is_breaking: false,
            has_failed: false,
            is_damaged: false,
            is_copy: false,
            saving: None,
            next: None,
            life: 0,
            gate: Gate::default(),
            truncation: Truncation::new(pillars, round_bytes, 0),
            removed: 0,
            pillars,
            window,
            deeds: VecDeque::new(),
            executions: Vec::new(),
        };
        let (records, is_whole) = disk.read(random).expect("an empty disk takes a log");
        assert!(records.is_empty() && is_whole, "an empty disk has no log");
        disk
    }

    /// Opens the log: its records, and whether they are all that it ever had. Segments are removed as a
    /// whole; half of the time more is, as if they were as short as they could be.
    fn read(&mut self, random: &mut Random) -> Result<(Vec<Bytes>, bool), String> {
        let removed = if random.chance(500_000) { self.removed } else { 0 };
        let story = |error: LogError| error.to_string();
        let id = u128::from(random.next()).to_le_bytes();
        let mut recovery = Recovery::open(self.device.clone(), self.options, id).map_err(story)?;
        let mut records = Vec::new();
        while let Some(record) = recovery.next().map_err(story)? {
            if record.end.0 > removed {
                records.push(Bytes::copy_from_slice(record.content));
            }
        }
        let (log, writer, report) = recovery.finish().map_err(story)?;
        let first = report.first.0.max(removed);
        self.truncation = Truncation::new(self.pillars, self.round_bytes, first);
        self.running = Some(Running { appender: log.appender(0), log, writer });
        Ok((records, report.first.0 == 0 && removed == 0))
    }

    /// The end of the log.
    pub(crate) fn end(&self) -> u64 {
        self.running.as_ref().map_or(0, |running| running.log.appended().0)
    }

    fn durable(&self) -> u64 {
        self.running.as_ref().map_or(0, |running| running.log.synced().0)
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.durable() == self.end()
    }

    /// # Panics
    /// If the log fails though the device works.
    pub(crate) fn append(&mut self, record: &LogRecord) {
        if let (Some(bytes), Some(running)) = (record.batch_bytes(), &self.running) {
            running.log.expect(self.window, bytes);
        }
        while let Some(Running { appender, .. }) = &self.running {
            match appender.append(0, &record.parts()) {
                Ok(_) => return,
                // A stage waits for the disk then.
                Err(AppendError::Full) => drop(self.step(0)),
                Err(AppendError::Failed) if self.is_breaking || self.is_used_up => return,
                Err(error) => panic!("the log takes no record: {error}"),
            }
        }
    }

    /// A step of the log's writer, unless there is none or it fails: that is told once.
    fn step(&mut self, now_ms: u64) -> Option<Step> {
        match self.running.as_mut()?.writer.step(now_ms) {
            Ok(step) => Some(step),
            Err(_) if self.is_breaking => {
                self.has_failed = true;
                None
            }
            Err(error) if self.may_be_used_up && matches!(*error, LogError::Full { .. }) => {
                (self.has_failed, self.is_used_up) = (true, true);
                None
            }
            Err(error) => panic!("the device works: {error}"),
        }
    }

    /// The next sync fails.
    pub(crate) fn breaks(&mut self) {
        self.is_breaking = true;
        self.device.set_faults(Faults { sync_fails_at: Some(1), ..Faults::default() });
    }

    /// Writes what was appended, to be synced later.
    pub(crate) fn write(&mut self) {
        self.is_syncing = true;
        self.step(0);
    }

    /// Whether the log has failed as the disk has no room for more.
    pub(crate) fn is_used_up(&self) -> bool {
        self.is_used_up
    }

    /// What was written is synced.
    ///
    /// # Panics
    /// If the writer never ends.
    pub(crate) fn synced(&mut self) {
        self.is_syncing = false;
        let before = self.durable();
        let has_ended = (0..MOST_STEPS).any(|_| {
            let step = self.step(0);
            self.durable() > before || matches!(step, None | Some(Step::Idle { .. }))
        });
        assert!(has_ended, "the writer syncs what it has");
        self.gate.durable(self.durable());
    }

    /// A pillar has its summary in the log.
    pub(crate) fn summarized(&mut self, order: OrderNumber) {
        self.truncation.summarized(order, self.end());
    }

    /// Removes the beginning of the log, if it is not needed any more. Tells whether it was, and
    /// whether a round of summaries begins.
    pub(crate) fn truncate(&mut self, now_ms: u64) -> (bool, bool) {
        let checkpoint = self.saved.as_ref().map_or(OrderNumber(0), |saved| saved.id.order);
        let durable = self.durable();
        let start = self.truncation.truncates(checkpoint, durable);
        self.removed = start.unwrap_or(self.removed);
        if let (Some(start), Some(running)) = (start, &self.running) {
            running.log.truncate_below(Cursor(start));
        }
        if self.is_synced() {
            // Nothing is to be written: files are removed, or prepared.
            let goes_on = |step| !matches!(step, None | Some(Step::Idle { .. }));
            let _ = (0..MOST_STEPS).any(|_| !goes_on(self.step(now_ms)));
        }
        let is_short = self.running.as_ref().is_some_and(|it| it.log.space().is_short);
        (start.is_some(), self.truncation.begins(self.end(), is_short))
    }

    /// Whether clients are not read, so that there is room for what peers send.
    pub(crate) fn holds_clients(&self) -> bool {
        self.running.as_ref().is_some_and(|running| running.log.lacks_room())
    }

    pub(crate) fn did(&mut self, deed: Deed) {
        self.deeds.push_back((self.end(), deed));
    }

    /// The next deed that counts.
    pub(crate) fn next_deed(&mut self) -> Option<Deed> {
        let durable = self.durable();
        self.deeds.pop_front_if(|(after, _)| *after <= durable).map(|(_, deed)| deed)
    }

    /// A checkpoint is to be made durable; whether the disk begins with one now.
    pub(crate) fn save(&mut self, checkpoint: DurableCheckpoint) -> bool {
        if checkpoint.is_there {
            let saved = self.saved.as_ref().map(|saved| saved.id);
            assert_eq!(saved, Some(checkpoint.id), "a replica begins with what its disk has");
            return false;
        }
        if self.saving.is_some() {
            self.next = Some(checkpoint);
            return false;
        }
        self.saving = Some(checkpoint);
        true
    }

    /// What is being saved is durable: its order number, and whether the disk begins with another.
    pub(crate) fn saved(&mut self) -> Option<(OrderNumber, bool)> {
        let DurableCheckpoint { id, taken: TakenSnapshot { bookkeeping, service, .. }, .. } =
            self.saving.take()?;
        let pages = |of: &dyn Snapshot| Pages((0..of.page_count()).map(|i| of.page(i)).collect());
        let (bookkeeping, service) = (pages(&*bookkeeping), pages(&*service));
        self.saved = Some(Saved { id, bookkeeping, service });
        self.saving = self.next.take();
        Some((id.order, self.saving.is_some()))
    }

    /// Copies what is on it, whatever goes on.
    pub(crate) fn copy(&mut self) {
        self.copy = Some((self.device.copy(), self.saved.clone(), self.removed));
    }

    /// The replica stops.
    pub(crate) fn stop(&mut self, how: Stop, random: &mut Random) {
        self.running = None;
        self.device = match how {
            Stop::Killed => self.device.kill(),
            Stop::PowerLost => self.device.lose_power(),
            Stop::Replaced => match self.copy.take() {
                Some((device, saved, removed)) => {
                    (self.saved, self.removed, self.is_copy) = (saved, removed, true);
                    device
                }
                None => self.device.kill(),
            },
            Stop::Damaged => {
                let device = self.device.kill();
                self.is_damaged = damage(&device, random);
                device
            }
        };
        if std::mem::take(&mut self.is_used_up)
            && let Some(room) = &mut self.room
        {
            // Somebody makes room before the replica is started again.
            *room *= 2;
            self.device.set_capacity(*room);
        }
        (self.is_breaking, self.has_failed) = (false, false);
        (self.saving, self.next, self.is_syncing) = (None, None, false);
    }

    /// The replica is started again: the records of its log. What it did before and is in them, counts.
    pub(crate) fn start(&mut self, random: &mut Random) -> Result<(Vec<Bytes>, bool), String> {
        let records = self.read(random)?;
        self.life += 1;
        self.gate = Gate::new(self.end());
        Ok(records)
    }

    /// Forgets what the replica did and its log does not have.
    pub(crate) fn forget(&mut self) {
        self.deeds.clear();
        self.executions.clear();
    }

    /// The durable checkpoint and its pages.
    pub(crate) fn checkpoint(&self) -> Option<(CheckpointId, TransferredState)> {
        let Saved { id, bookkeeping, service } = self.saved.as_ref()?;
        let (bookkeeping, service) = (bookkeeping.clone().into(), service.clone().into());
        Some((*id, TransferredState { bookkeeping, service }))
    }
}
