//! What writes the log: one owner, driven step by step, with at most one thing done in each.

mod housekeeping;
mod segment;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::format::{BLOCK_PAYLOAD, CLOSED, read_record_word, record_bytes, seed};
use crate::log::Shared;
use crate::mutants::{self, Mutant};
use crate::options::Durability;
use crate::recovery::Plan;
use crate::{Disk, LogError};

use housekeeping::Spares;
pub(crate) use housekeeping::create;
use segment::{Segment, Stamp};

/// Records that one batch takes before it is synced, in bytes; a single record may be longer.
const BATCH_BYTES: u64 = 4 << 20;
/// Blocks that one call of the system writes: they stay in the processor's cache.
const WRITE_BLOCKS: usize = 64;
/// Batches after which files are prepared and removed at the latest, in `None`, where no sync
/// makes a pause.
const BATCHES_BETWEEN: u32 = 64;

/// What a step has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// More has been released: look at the gate.
    Moved,
    /// Something else; there may be more to do.
    Worked,
    /// There is nothing to do, until something is appended, or after so many milliseconds.
    Idle {
        /// Milliseconds, if time alone brings work.
        again_ms: Option<u64>,
    },
}

/// Writes what appenders have finished, syncs it, and says how far it is.
///
/// It has no thread and no clock. [`crate::WriterThread`] drives it on a real disk, a simulator on its
/// own.
#[derive(Debug)]
pub struct Writer<D: Disk> {
    disk: D,
    shared: Arc<Shared>,
    id: [u8; 16],
    boot: [u8; 16],
    break_at: u64,
    /// Segments before the current one: number and first cursor.
    older: VecDeque<(u64, u64)>,
    current: Segment<D::File>,
    spares: Spares,
    /// Where the next record begins.
    cursor: u64,
    /// All sectors below this number are synced.
    synced_ordinal: u64,
    staging: Vec<u8>,
    turn: Turn,
    batches_since: u32,
    /// In `Async`: the time of the first batch that is not synced.
    unsynced_since: Option<u64>,
    /// The end of the log when long records were forgotten last.
    forgot_at: u64,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Turn {
    Write,
    Sync,
    Housekeeping,
}

impl<D: Disk> Writer<D> {
    /// Goes on behind what a recovery has found: `plan.file` is the new segment, durable.
    pub(crate) fn new(disk: D, shared: Arc<Shared>, plan: Plan<D::File>) -> Self {
        let Plan { file, header, older } = plan;
        let next_spare = header.segment + 1;
        let writer = Self {
            disk,
            id: header.id,
            boot: header.boot,
            break_at: header.break_at,
            older,
            cursor: header.first_cursor,
            synced_ordinal: header.first_ordinal,
            current: Segment::new(file, header),
            spares: Spares::new(next_spare),
            staging: Vec::with_capacity(WRITE_BLOCKS * crate::format::BLOCK),
            turn: Turn::Write,
            batches_since: 0,
            unsynced_since: None,
            forgot_at: header.first_cursor,
            shared,
        };
        writer.tell_space();
        writer
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether a step would write something.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.shared.failure().is_some()
            || self.shared.ring.finished(self.cursor).is_some()
            || self.can_truncate()
    }

    /// Does the next thing: writes a batch, syncs, or prepares or removes a file. `now_ms` never falls.
    ///
    /// # Errors
    /// The log has failed, now or before: it is final.
    pub fn step(&mut self, now_ms: u64) -> Result<Step, Arc<LogError>> {
        if let Some(error) = self.shared.failure() {
            return Err(Arc::clone(error));
        }
        self.do_step(now_ms).map_err(|error| self.shared.fail(error))
    }

    fn do_step(&mut self, now_ms: u64) -> Result<Step, LogError> {
        if self.turn == Turn::Sync && self.is_sync_due(now_ms) {
            self.sync()?;
            self.turn = Turn::Housekeeping;
            return Ok(Step::Moved);
        }
        if self.turn == Turn::Housekeeping {
            self.turn = Turn::Write;
            self.batches_since = 0;
            if self.keep_house(now_ms)? {
                return Ok(Step::Worked);
            }
        }
        if let Some(end) = self.finished() {
            self.write(end)?;
            self.unsynced_since.get_or_insert(now_ms);
            self.batches_since += 1;
            self.turn = match self.shared.options.durability {
                Durability::None if self.batches_since < BATCHES_BETWEEN => Turn::Write,
                Durability::None => Turn::Housekeeping,
                Durability::Sync | Durability::Async { .. } => Turn::Sync,
            };
            return Ok(match self.shared.options.durability {
                // A sync releases it.
                Durability::Sync => Step::Worked,
                Durability::Async { .. } | Durability::None => Step::Moved,
            });
        }
        if self.keep_house(now_ms)? {
            return Ok(Step::Worked);
        }
        Ok(Step::Idle { again_ms: self.next_time(now_ms) })
    }

    /// Writes and syncs what is finished, and then says that the log was closed.
    ///
    /// # Errors
    /// The log has failed, now or before.
    pub fn close(mut self) -> Result<(), Arc<LogError>> {
        if let Some(error) = self.shared.failure() {
            return Err(Arc::clone(error));
        }
        self.do_close().map_err(|error| self.shared.fail(error))
    }

    fn do_close(&mut self) -> Result<(), LogError> {
        while let Some(end) = self.finished() {
            self.write(end)?;
        }
        let syncs = self.shared.options.durability != Durability::None;
        if syncs {
            self.sync()?;
        }
        if !self.current.has_room(0) {
            self.switch()?;
        }
        let mark = self.stamp(CLOSED);
        self.current.write(&mut self.disk, &mut self.staging, mark, |_| {}, 0)?;
        if syncs { self.sync() } else { Ok(()) }
    }

    /// The end of what appenders have finished without a gap, as far as one batch goes.
    fn finished(&self) -> Option<u64> {
        let mut end = self.cursor;
        // Behind a whole buffer would come its first word once more.
        let limit = BATCH_BYTES.min(self.shared.ring.bytes());
        while end - self.cursor < limit
            && let Some(word) = self.shared.ring.finished(end)
        {
            // Appenders write no other words.
            let (_, _, length) = read_record_word(word)?;
            let next = end + record_bytes(length.into());
            if next - self.cursor > BATCH_BYTES && end > self.cursor {
                break;
            }
            end = next;
        }
        (end > self.cursor).then_some(end)
    }

    /// Writes the records up to `end`: all of them, or those that the segment has room for.
    fn write(&mut self, end: u64) -> Result<(), LogError> {
        let end = match self.current.has_room(end - self.cursor) {
            true => end,
            false => match self.fitting(end) {
                Some(end) => end,
                None => {
                    self.switch()?;
                    // A segment has room for any record, but perhaps not for a whole batch.
                    self.fitting(end).unwrap_or(end)
                }
            },
        };
        while self.cursor < end {
            let bytes = (end - self.cursor).min((WRITE_BLOCKS * BLOCK_PAYLOAD) as u64);
            let (from, stamp) = (self.cursor, self.stamp(0));
            let ring = &self.shared.ring;
            let mut at = from;
            let copy = |out: &mut [u8]| {
                ring.copy(at, out);
                at += out.len() as u64;
            };
            self.current.write(&mut self.disk, &mut self.staging, stamp, copy, bytes)?;
            self.cursor += bytes;
            self.shared.ring.free(from, self.cursor);
            self.shared.wake_waiting();
        }
        self.shared.batches.fetch_add(1, Ordering::Relaxed);
        self.shared.bytes.store(self.current.written_in_all(), Ordering::Relaxed);
        self.shared.written.store(self.cursor, Ordering::Release);
        if mutants::active(Mutant::ReleaseBeforeSync) {
            self.shared.synced.store(self.cursor, Ordering::Release);
        }
        self.tell_space();
        Ok(())
    }

    /// The end of the last record before `end` that the segment still has room for.
    fn fitting(&self, end: u64) -> Option<u64> {
        let mut fitting = self.cursor;
        while fitting < end {
            let (_, _, length) = read_record_word(self.shared.ring.finished(fitting)?)?;
            let next = fitting + record_bytes(length.into());
            if !self.current.has_room(next - self.cursor) {
                break;
            }
            fitting = next;
        }
        (fitting > self.cursor).then_some(fitting)
    }

    fn stamp(&self, flags: u16) -> Stamp {
        Stamp { seed: seed(&self.id), synced: self.synced_ordinal, flags }
    }

    fn is_sync_due(&self, now_ms: u64) -> bool {
        match self.shared.options.durability {
            Durability::Sync => true,
            Durability::None => false,
            // A quarter of the window: the sync itself takes its time, too.
            Durability::Async { window_ms, window_bytes } => {
                let since = self.unsynced_since.unwrap_or(now_ms);
                let bytes = self.cursor - self.shared.synced.load(Ordering::Relaxed);
                now_ms.saturating_sub(since) >= window_ms / 4 || bytes >= window_bytes / 4
            }
        }
    }

    fn next_time(&self, now_ms: u64) -> Option<u64> {
        let sync = match (self.shared.options.durability, self.unsynced_since) {
            (Durability::Async { window_ms, .. }, Some(since)) if self.turn == Turn::Sync => {
                Some((since + window_ms / 4).saturating_sub(now_ms).max(1))
            }
            _ => None,
        };
        let spare = self.spares.retry_in(now_ms);
        sync.into_iter().chain(spare).min()
    }

    /// Everything that has been written is durable when this returns.
    fn sync(&mut self) -> Result<(), LogError> {
        match self.disk.sync(&self.current.file) {
            Err(_) if mutants::active(Mutant::ContinueAfterError) => {}
            Err(source) => return Err(self.io("syncing", &self.current.name(), source)),
            Ok(()) => {}
        }
        self.synced_ordinal = self.current.next_ordinal();
        self.unsynced_since = None;
        self.shared.syncs.fetch_add(1, Ordering::Relaxed);
        self.shared.synced.store(self.cursor, Ordering::Release);
        self.shared.wake_waiting();
        Ok(())
    }

    fn io(&self, action: &'static str, name: &str, source: std::io::Error) -> LogError {
        LogError::Io { action, file: self.disk.path(name), source }
    }
}

/// Without its writer a log takes nothing more, however it ended.
impl<D: Disk> Drop for Writer<D> {
    fn drop(&mut self) {
        self.shared.fail(LogError::Closed);
    }
}
