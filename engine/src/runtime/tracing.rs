//! Writes protocol events to a trace file without delaying the agents.
//!
//! ```text
//!   agent 0: records ──(end of turn)──▶ slot 0 ─┐
//!   agent 1: records ──(end of turn)──▶ slot 1 ─┼─▶ writer thread ──▶ file
//! ```
//!
//! An agent encodes events into its own memory and hands them over once per turn, under a lock that
//! the writer holds only while it swaps two vectors. The writer sleeps while all slots are empty.
//! An agent that fills an empty slot wakes it, and then it lets records accumulate for [`GATHER`].
//! A full slot drops records and counts them; in their place the stream says how many are missing,
//! and so does the log.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::mem;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle, Thread};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossbeam::utils::CachePadded;
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::ReplicaId;
use hybster_proto::time::Time;
use hybster_proto::trace::TraceEvent;
use hybster_proto::trace::file::{Header, Records, Writer};
use parking_lot::Mutex;

/// Called with every protocol event.
pub(crate) type TraceHook = Arc<dyn Fn(Time, &TraceEvent) + Send + Sync>;

/// Most bytes of records that wait for the writer, per agent.
pub(crate) const SLOT_BYTES: usize = 8 << 20;
/// How long records accumulate before they are written together. Each time costs an agent the core for a
/// moment, whatever is written.
const GATHER: Duration = Duration::from_millis(50);
/// The same while there are [`MANY_BYTES`]: these should not have left the cache, nor fill the slot.
const GATHER_MANY: Duration = Duration::from_millis(10);
/// Bytes of records of one agent that are many to write at once.
const MANY_BYTES: usize = 512 << 10;

/// Where the protocol events of a replica go.
#[derive(Clone)]
pub(crate) enum TraceTarget {
    /// To a function.
    Hook(TraceHook),
    /// Into a file.
    File(Arc<Slots>),
}

/// Where the protocol events of one agent go.
pub(crate) enum Tracer {
    /// To a function.
    Hook(TraceHook),
    /// Into a file.
    File(Recorder),
}

impl TraceTarget {
    /// The end for an agent.
    pub(crate) fn tracer(&self, agent: usize) -> Tracer {
        match self {
            Self::Hook(hook) => Tracer::Hook(Arc::clone(hook)),
            Self::File(slots) => Tracer::File(Recorder {
                records: Records::default(),
                began: Time(0),
                slots: Arc::clone(slots),
                agent,
            }),
        }
    }
}

impl Tracer {
    /// Records an event.
    #[inline]
    pub(crate) fn record(&mut self, now: Time, event: &TraceEvent) {
        match self {
            Self::Hook(hook) => hook(now, event),
            Self::File(recorder) => recorder.record(now, event),
        }
    }

    /// Hands over the events of this turn.
    #[inline]
    pub(crate) fn end_turn(&mut self) {
        if let Self::File(recorder) = self
            && !recorder.records.is_empty()
        {
            recorder.hand_over();
        }
    }
}

/// The records of an agent's present turn.
pub(crate) struct Recorder {
    records: Records,
    /// The time of the first of them.
    began: Time,
    slots: Arc<Slots>,
    agent: usize,
}

impl Recorder {
    #[inline]
    fn record(&mut self, now: Time, event: &TraceEvent) {
        if self.records.is_empty() {
            self.began = now;
        }
        self.records.push(now, event);
    }

    fn hand_over(&mut self) {
        let mut slot = self.slots.slots[self.agent].lock();
        let was_idle = slot.records.is_empty() && slot.lost == 0;
        if slot.records.bytes().len() + self.records.bytes().len() > SLOT_BYTES {
            if slot.lost == 0 {
                slot.lost_from = self.began;
            }
            slot.lost = slot.lost.saturating_add(self.records.len());
        } else {
            slot.mark_loss();
            slot.records.append(&mut self.records);
        }
        drop(slot);
        self.records.clear();
        if was_idle {
            self.slots.writer.get().expect("the writer runs before the agents").unpark();
        }
    }
}

/// What waits for the writer.
pub(crate) struct Slots {
    slots: Vec<CachePadded<Mutex<Slot>>>,
    writer: std::sync::OnceLock<Thread>,
    closing: AtomicBool,
}

#[derive(Default)]
struct Slot {
    records: Records,
    /// Events dropped since the last of the records.
    lost: u32,
    /// When the first of these happened.
    lost_from: Time,
}

impl Slot {
    /// Says in the stream how many events are missing in this place, if any are.
    fn mark_loss(&mut self) {
        let events = mem::take(&mut self.lost);
        if events > 0 {
            self.records.push(self.lost_from, &TraceEvent::Lost { events });
        }
    }
}

/// A trace file that a thread writes. Dropping it writes the rest and ends the thread.
pub(crate) struct TraceFile {
    slots: Arc<Slots>,
    thread: Option<JoinHandle<Totals>>,
    path: PathBuf,
}

#[derive(Clone, Copy, Default)]
struct Totals {
    written: u64,
    lost: u64,
}

impl TraceFile {
    /// Makes the file and starts the thread. Call it when the replica's clock starts.
    pub(crate) fn create(
        path: &Path,
        config: &GroupConfig,
        replica: ReplicaId,
        agents: usize,
    ) -> io::Result<Self> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let header = Header::new(Writer::Replica, config, started.as_micros() as u64);
        // A trace may be the only evidence of a fault, so it is never overwritten.
        let mut file = File::options().write(true).create_new(true).open(path)?;
        file.write_all(&header.encode())?;
        let slots = Arc::new(Slots {
            slots: (0..agents).map(|_| CachePadded::default()).collect(),
            writer: std::sync::OnceLock::new(),
            closing: AtomicBool::new(false),
        });
        let mut writing = Writing {
            slots: Arc::clone(&slots),
            file: BufWriter::new(file),
            replica,
            taken: Records::default(),
            totals: Totals::default(),
            failure: None,
        };
        let thread = thread::Builder::new()
            .name(format!("r{}-trace", replica.0))
            .spawn(move || writing.run())?;
        slots.writer.set(thread.thread().clone()).expect("set once");
        Ok(Self { slots, thread: Some(thread), path: path.to_owned() })
    }

    /// Where agents put their records.
    pub(crate) fn target(&self) -> TraceTarget {
        TraceTarget::File(Arc::clone(&self.slots))
    }
}

impl Drop for TraceFile {
    fn drop(&mut self) {
        self.slots.closing.store(true, Ordering::Release);
        let Some(thread) = self.thread.take() else { return };
        thread.thread().unpark();
        let path = self.path.display();
        match thread.join() {
            Ok(Totals { written, lost: 0 }) => log::info!("{path}: {written} events"),
            Ok(Totals { written, lost }) => log::warn!(
                "{path}: {written} events; {lost} more are missing, because the disk was too slow \
                 or failed"
            ),
            Err(_) => log::error!("{path}: the thread that writes the trace panicked"),
        }
    }
}

impl std::fmt::Debug for TraceFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TraceFile").field(&self.path).finish()
    }
}

/// The writer thread.
struct Writing<W: Write> {
    slots: Arc<Slots>,
    file: BufWriter<W>,
    replica: ReplicaId,
    /// Empty between two slots; swapped with them, so that memory is reused.
    taken: Records,
    totals: Totals,
    /// Since when nothing is written any more.
    failure: Option<io::Error>,
}

impl<W: Write> Writing<W> {
    fn run(&mut self) -> Totals {
        loop {
            // Read before the slots, so that everything handed over before the end is written.
            let closing = self.slots.closing.load(Ordering::Acquire);
            let most = self.write_all_slots();
            if closing {
                return self.totals;
            }
            match most {
                // If an agent has filled a slot since the scan, this returns at once.
                0 => thread::park(),
                1..MANY_BYTES => thread::sleep(GATHER),
                _ => thread::sleep(GATHER_MANY),
            }
        }
    }

    /// Returns the bytes of the slot that had the most.
    fn write_all_slots(&mut self) -> usize {
        let mut most = 0;
        for stream in 0..self.slots.slots.len() {
            let mut slot = self.slots.slots[stream].lock();
            slot.mark_loss();
            mem::swap(&mut slot.records, &mut self.taken);
            drop(slot);
            if !self.taken.is_empty() {
                most = most.max(self.taken.bytes().len());
                self.write(stream as u16);
            }
        }
        if most > 0 && self.failure.is_none() {
            self.failure = self.file.flush().err();
            self.report_failure();
        }
        most
    }

    fn write(&mut self, stream: u16) {
        let (records, lost) = (self.taken.len(), self.taken.lost());
        if lost > 0 && self.totals.lost == 0 {
            log::warn!("the trace lost events, because they are not written fast enough");
        }
        self.totals.lost += u64::from(lost);
        if self.failure.is_none() {
            let head = self.taken.head(self.replica, stream);
            let written =
                self.file.write_all(&head).and_then(|()| self.file.write_all(self.taken.bytes()));
            match written {
                Ok(()) => self.totals.written += u64::from(records),
                Err(error) => {
                    self.totals.lost += u64::from(records);
                    self.failure = Some(error);
                    self.report_failure();
                }
            }
        } else {
            self.totals.lost += u64::from(records);
        }
        self.taken.clear();
    }

    /// Logs why the trace ends here. The replica continues without it.
    fn report_failure(&self) {
        if let Some(error) = &self.failure {
            log::error!("the trace cannot be written any more: {error}; the replica goes on");
        }
    }
}

#[cfg(test)]
mod tests;
