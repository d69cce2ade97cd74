//! What appenders, the gate and the owner share with the writer.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::doorbell::Doorbell;
use crate::format::{record_bytes, record_word};
use crate::gate::Gate;
use crate::options::{Options, WhenFull};
use crate::ring::Ring;
use crate::{AppendError, LogError};

/// How long somebody who waits for the writer sleeps before looking again by itself: a bound on what
/// a wake-up that got lost could cost, not a pace.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A position in the log, in bytes of records: behind a record. It is durable when [`Log::synced`]
/// has reached it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Cursor(pub u64);

/// Whether the log has room on disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Space {
    /// No more could be taken from the file system: truncate, and hold clients, never peers, when
    /// [`Log::lacks_room`] says so.
    pub is_short: bool,
    /// Bytes of what has been taken that are not written yet. A batch takes whole blocks: records of b
    /// bytes in all, in n batches, take at most b · 16/15 + n · 4,096. There are as many batches as records
    /// at worst, when nothing else is going on, and far fewer under load.
    pub left: u64,
}

/// What the writer has done since it was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Batches written.
    pub batches: u64,
    /// Syncs of segments.
    pub syncs: u64,
    /// Bytes written, those in front of sectors and behind batches included.
    pub bytes: u64,
    /// Segments begun.
    pub segments: u64,
    /// Appends that had to wait for room in the buffer.
    pub waits: u64,
}

/// What syncs of the log took since it was opened, in microseconds; 0 if there was none.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SyncTimes {
    /// Half of them took no longer, to a hundredth.
    pub p50_us: u64,
    /// 99 of 100 took no longer, to a hundredth.
    pub p99_us: u64,
    /// None took longer.
    pub longest_us: u64,
}

/// Shared by all handles of a log.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) ring: Ring,
    pub(crate) doorbell: Doorbell,
    /// Up to where records are in the page cache.
    pub(crate) written: AtomicU64,
    /// Up to where records are durable.
    pub(crate) synced: AtomicU64,
    /// What the owner needs no more.
    pub(crate) needed_from: AtomicU64,
    space_left: AtomicU64,
    /// The most that `space_left` has been.
    most_left: AtomicU64,
    /// What long records may still take once clients are held: [`Options::long_bytes`].
    long: AtomicU64,
    /// The same for those that were told of since [`Self::forget_long`].
    long_lately: AtomicU64,
    pub(crate) space_short: AtomicBool,
    pub(crate) stopping: AtomicBool,
    failed: AtomicBool,
    failure: OnceLock<Arc<LogError>>,
    pub(crate) batches: AtomicU64,
    pub(crate) syncs: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) segments: AtomicU64,
    sync_times: Mutex<Histogram<u32>>,
    waits: AtomicU64,
    /// Threads that sleep until something moves.
    waiting: AtomicU64,
    moved: (Mutex<()>, Condvar),
}

/// Up to an hour, in microseconds.
fn sync_times() -> Histogram<u32> {
    Histogram::new_with_max(3_600_000_000, 2).expect("the bounds are in order")
}

impl Shared {
    pub(crate) fn new(options: Options, cursor: u64) -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            options,
            ring: Ring::new(options.buffer_bytes, cursor),
            doorbell: Doorbell::default(),
            written: AtomicU64::new(cursor),
            synced: AtomicU64::new(cursor),
            needed_from: zero(),
            space_left: zero(),
            most_left: zero(),
            long: zero(),
            long_lately: zero(),
            space_short: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            failure: OnceLock::new(),
            batches: zero(),
            syncs: zero(),
            bytes: zero(),
            segments: zero(),
            sync_times: Mutex::new(sync_times()),
            waits: zero(),
            waiting: zero(),
            moved: (Mutex::new(()), Condvar::new()),
        }
    }

    /// The writer has so many bytes left.
    pub(crate) fn tell_left(&self, left: u64) {
        self.most_left.fetch_max(left, Ordering::Relaxed);
        self.space_left.store(left, Ordering::Relaxed);
    }

    /// With less than this left, clients are held if there is no more to be had.
    fn least_left(&self) -> u64 {
        let half = self.options.reserve_bytes / 2;
        let long = self.long.load(Ordering::Relaxed);
        // A disk that is too small for long records holds no clients for them from the start: it has half of what
        // there was for what makes room, and half for what cannot be held.
        let most = (self.most_left.load(Ordering::Relaxed) / 2).saturating_sub(half);
        half + long.min(most)
    }

    /// What was told of before the last call is not needed any more: less is to be taken ahead, an eighth at a
    /// time, so that a long record now and then does not have files made and removed each time. Of what was told
    /// of since then nothing is forgotten.
    pub(crate) fn forget_long(&self) {
        let lately = self.long_lately.swap(0, Ordering::AcqRel);
        let less = |long: u64| Some(lately.max(long - long.div_ceil(8)));
        let _ = self.long.fetch_update(Ordering::AcqRel, Ordering::Acquire, less);
        // Who told of more in between has noted it before.
        self.long.fetch_max(self.long_lately.load(Ordering::Acquire), Ordering::AcqRel);
    }

    /// How many segments are kept in reserve.
    pub(crate) fn spares(&self) -> u64 {
        let reserve = self.options.reserve_for(self.long.load(Ordering::Relaxed));
        reserve.div_ceil(self.options.segment_bytes).max(1)
    }

    fn sync_times(&self) -> MutexGuard<'_, Histogram<u32>> {
        self.sync_times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A sync has taken so long.
    pub(crate) fn has_synced_in(&self, time: Duration) {
        // Saturating: a longer one counts as the longest.
        self.sync_times().saturating_record(time.as_micros() as u64);
    }

    /// Stops everything, for the first reason that is given.
    pub(crate) fn fail(&self, error: LogError) -> Arc<LogError> {
        let error = Arc::clone(self.failure.get_or_init(|| Arc::new(error)));
        self.failed.store(true, Ordering::Release);
        self.wake_waiting();
        error
    }

    pub(crate) fn failure(&self) -> Option<&Arc<LogError>> {
        self.failure.get()
    }

    fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Wakes whoever sleeps in [`Self::wait_until`], after something has moved.
    pub(crate) fn wake_waiting(&self) {
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.waiting.load(Ordering::Relaxed) > 0 {
            drop(self.guard());
            self.moved.1.notify_all();
        }
    }

    fn guard(&self) -> MutexGuard<'_, ()> {
        self.moved.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps until the condition holds, the log has failed, or the time is over; tells whether the
    /// condition holds.
    fn wait_until(&self, deadline: Option<Instant>, holds: impl Fn() -> bool) -> bool {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.guard();
        let is_met = loop {
            if holds() {
                break true;
            }
            if self.has_failed() || deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break false;
            }
            self.doorbell.wake();
            let wait = self.moved.1.wait_timeout(guard, LOOK_AGAIN);
            guard = wait.unwrap_or_else(PoisonError::into_inner).0;
        };
        drop(guard);
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        is_met
    }
}

/// A log that is open: a handle for whoever wants to know how far it is. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Log {
    pub(crate) shared: Arc<Shared>,
}

impl Log {
    /// A handle to append by: one for each thread, with a number that its records carry.
    #[must_use]
    pub fn appender(&self, writer: u16) -> Appender {
        Appender { shared: Arc::clone(&self.shared), writer }
    }

    /// What decides which messages may leave.
    #[must_use]
    pub fn gate(&self) -> Gate {
        Gate::new(self.clone())
    }

    /// The cursor behind everything that has been appended, of which the calling thread could know.
    #[must_use]
    pub fn appended(&self) -> Cursor {
        Cursor(self.shared.ring.reserved())
    }

    /// Up to here records are in the page cache: a crash of the process does not lose them.
    #[must_use]
    pub fn written(&self) -> Cursor {
        Cursor(self.shared.written.load(Ordering::Acquire))
    }

    /// Up to here records are durable. Once the log has failed this stays where it is.
    #[must_use]
    pub fn synced(&self) -> Cursor {
        Cursor(self.shared.synced.load(Ordering::Acquire))
    }

    /// Whether the buffer is half full: time to hold clients back.
    #[must_use]
    pub fn is_congested(&self) -> bool {
        let ring = &self.shared.ring;
        ring.reserved().saturating_sub(ring.freed()) > ring.bytes() / 2
    }

    /// Room on disk.
    #[must_use]
    pub fn space(&self) -> Space {
        Space {
            is_short: self.shared.space_short.load(Ordering::Relaxed),
            left: self.shared.space_left.load(Ordering::Relaxed),
        }
    }

    /// Whether clients are to be held, so that what the log has taken from the disk is kept for what
    /// cannot be held: the disk has no more, and half of the reserve is used.
    ///
    /// Not as soon as the disk has no more: the owner may first have to take more from clients before it
    /// can truncate, and that makes room.
    #[must_use]
    pub fn lacks_room(&self) -> bool {
        let Space { is_short, left } = self.space();
        is_short && left < self.shared.least_left()
    }

    /// Tells that so many records as long as this one may have to be appended after clients are held. Where
    /// that is more than [`crate::Options::reserve_bytes`] has room for, more space is taken ahead, and clients are held
    /// earlier, for as long as such a record is needed and some time more. If the disk has not as much, half of
    /// what it has is kept.
    ///
    /// The log takes no more ahead than what it is told of: a group that allows long records and has none
    /// needs no space for them.
    pub fn expect(&self, records: u64, bytes: u64) {
        let Shared { options, long, long_lately, .. } = &*self.shared;
        let bytes = options.long_bytes(records, bytes);
        // In this order, see `forget_long`.
        for most in [long_lately, long] {
            if bytes > most.load(Ordering::Relaxed) {
                most.fetch_max(bytes, Ordering::AcqRel);
            }
        }
    }

    /// Why the log takes nothing more, if so. The owner must stop then.
    #[must_use]
    pub fn failure(&self) -> Option<Arc<LogError>> {
        self.shared.failure().cloned()
    }

    /// Records that end at or before the cursor are not needed any more. Segments that have only
    /// such are removed or used again, soon, by the writer.
    pub fn truncate_below(&self, cursor: Cursor) {
        self.shared.needed_from.fetch_max(cursor.0, Ordering::Relaxed);
        self.shared.doorbell.wake();
    }

    /// Waits until everything up to the cursor is durable; `false` if the log has failed or the time
    /// is over. Stages do not wait: they ask the [`Gate`].
    #[must_use]
    pub fn wait_synced(&self, cursor: Cursor, timeout: Duration) -> bool {
        let deadline = Instant::now().checked_add(timeout);
        self.shared.wait_until(deadline, || self.synced() >= cursor)
    }

    /// How long syncs took, where a [`crate::WriterThread`] writes.
    #[must_use]
    pub fn sync_times(&self) -> SyncTimes {
        let times = self.shared.sync_times();
        let (p50_us, p99_us) = (times.value_at_quantile(0.5), times.value_at_quantile(0.99));
        SyncTimes { p50_us, p99_us, longest_us: times.max() }
    }

    /// What the writer has done.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let shared = &self.shared;
        Counters {
            batches: shared.batches.load(Ordering::Relaxed),
            syncs: shared.syncs.load(Ordering::Relaxed),
            bytes: shared.bytes.load(Ordering::Relaxed),
            segments: shared.segments.load(Ordering::Relaxed),
            waits: shared.waits.load(Ordering::Relaxed),
        }
    }
}

/// Appends records: a handle of one thread.
#[derive(Clone, Debug)]
pub struct Appender {
    shared: Arc<Shared>,
    writer: u16,
}

impl Appender {
    /// Appends a record, whose content is the parts one behind the other. What comes back is the cursor
    /// that must have been released ([`Gate`]) before anything leaves that depends on the record.
    ///
    /// One addition to a shared counter and a copy; no lock, no allocation, no system call. Only if
    /// the buffer is full does it wait for the writer ([`WhenFull`]), and so for the disk. It does not
    /// wake the writer: [`Self::wake_writer`] does, once for all that a turn has appended.
    ///
    /// # Errors
    /// The record is too long, the log has failed, or the buffer is full and waiting was ruled out.
    pub fn append(&self, kind: u16, parts: &[&[u8]]) -> Result<Cursor, AppendError> {
        let length = parts.iter().map(|part| part.len() as u64).sum();
        let limit = self.shared.options.longest_record;
        if length > limit {
            return Err(AppendError::TooLong { bytes: length, limit });
        }
        let bytes = record_bytes(length);
        let start = match self.shared.options.when_full {
            WhenFull::Wait => self.shared.ring.reserve(bytes),
            WhenFull::Refuse => {
                self.shared.ring.try_reserve(bytes).ok_or_else(|| self.refusal())?
            }
        };
        let end = start + bytes;
        if !self.shared.ring.has_room(end) {
            self.wait_for_room(end)?;
        }
        // The limit is below 2^31.
        self.shared.ring.put(start, record_word(kind, self.writer, length as u32), parts);
        Ok(Cursor(end))
    }

    /// Wakes the writer if it sleeps: once a turn, after whatever was appended in it.
    #[inline]
    pub fn wake_writer(&self) {
        self.shared.doorbell.wake();
    }

    /// [`Log::appended`].
    #[must_use]
    #[inline]
    pub fn appended(&self) -> Cursor {
        Cursor(self.shared.ring.reserved())
    }

    fn refusal(&self) -> AppendError {
        if self.shared.has_failed() { AppendError::Failed } else { AppendError::Full }
    }

    /// Waits until the writer has freed the place. The place stays reserved if the log has failed:
    /// nothing behind it will ever be written, which is right.
    #[cold]
    fn wait_for_room(&self, end: u64) -> Result<(), AppendError> {
        self.shared.waits.fetch_add(1, Ordering::Relaxed);
        let has_room = self.shared.wait_until(None, || self.shared.ring.has_room(end));
        has_room.then_some(()).ok_or(AppendError::Failed)
    }
}
