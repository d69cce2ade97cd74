//! Files of segments: made ahead of need, taken into use, and removed or used again.
//!
//! What must be durable before what, so that a loss of power at any point leaves a log that a
//! recovery understands:
//!
//! 1. A segment is synced before the next one is begun (but in `None`).
//! 2. A name is synced before the file's content is made to depend on it: a recycled file before its
//!    header is written, a new segment before its first record is.
//! 3. Segments are given up from the oldest on, each synced before the next, so that no gap is left.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;

use super::Writer;
use crate::format::{BLOCK, Header, segment_name, spare_name};
use crate::mutants::{self, Mutant};
use crate::options::Durability;
use crate::{Disk, LogError};

/// How long to wait before asking a full file system again, in milliseconds.
const RETRY_MS: u64 = 1_000;

/// Files that wait to become segments.
#[derive(Debug)]
pub(super) struct Spares {
    names: VecDeque<String>,
    /// The number in the next name.
    next: u64,
    /// When to ask for space again, after it was refused.
    retry_at: Option<u64>,
}

impl Spares {
    pub(super) fn new(next: u64) -> Self {
        Self { names: VecDeque::new(), next, retry_at: None }
    }

    pub(super) fn retry_in(&self, now_ms: u64) -> Option<u64> {
        self.retry_at.map(|at| at.saturating_sub(now_ms).max(1))
    }
}

impl<D: Disk> Writer<D> {
    /// Removes or prepares one file, if there is one to.
    pub(super) fn keep_house(&mut self, now_ms: u64) -> Result<bool, LogError> {
        if self.can_truncate() {
            self.truncate()?;
            return Ok(true);
        }
        if self.spares.names.len() as u64 > self.shared.spares() {
            self.give_up_spare()?;
            return Ok(true);
        }
        let lacks = (self.spares.names.len() as u64) < self.shared.spares();
        if !lacks || self.spares.retry_at.is_some_and(|at| now_ms < at) {
            return Ok(false);
        }
        self.spares.retry_at = None;
        match self.prepare() {
            Ok(()) => self.shared.space_short.store(false, Ordering::Relaxed),
            Err(LogError::Full { .. }) => {
                self.shared.space_short.store(true, Ordering::Relaxed);
                self.spares.retry_at = Some(now_ms + RETRY_MS);
            }
            Err(error) => return Err(error),
        }
        self.tell_space();
        Ok(true)
    }

    pub(super) fn can_truncate(&self) -> bool {
        let needed_from = self.shared.needed_from.load(Ordering::Relaxed);
        let next = self.older.get(1).map(|(_, first)| *first);
        let next = next.unwrap_or(self.current.header.first_cursor);
        match self.older.front() {
            Some((_, first)) if mutants::active(Mutant::TruncatedTooFar) => *first < needed_from,
            Some(_) => next <= needed_from,
            None => false,
        }
    }

    /// Gives up the oldest segment: its file waits to be used again, if one is wanted.
    fn truncate(&mut self) -> Result<(), LogError> {
        let Some((number, _)) = self.older.pop_front() else { return Ok(()) };
        let name = segment_name(number);
        if self.is_wanted(&name)? {
            let spare = self.next_spare();
            self.disk.rename(&name, &spare).map_err(|e| self.io("renaming", &name, e))?;
            self.sync_names()?;
            self.spares.names.push_back(spare);
        } else {
            self.disk.remove(&name).map_err(|e| self.io("removing", &name, e))?;
            self.sync_names()?;
        }
        // What was given up may be what a full disk lacked.
        self.spares.retry_at = None;
        if self.shared.needed_from.load(Ordering::Relaxed) >= self.forgot_at {
            self.shared.forget_long();
            self.forgot_at = self.cursor;
        }
        let lacks = (self.spares.names.len() as u64) < self.shared.spares();
        self.shared.space_short.fetch_and(lacks, Ordering::Relaxed);
        self.tell_space();
        Ok(())
    }

    /// Removes a file that is taken ahead no more, since no long records come any more.
    fn give_up_spare(&mut self) -> Result<(), LogError> {
        let Some(name) = self.spares.names.pop_back() else { return Ok(()) };
        self.disk.remove(&name).map_err(|e| self.io("removing", &name, e))?;
        self.sync_names()?;
        self.tell_space();
        Ok(())
    }

    /// Whether a segment's file is to be used again: only one that has all of its space.
    fn is_wanted(&mut self, name: &str) -> Result<bool, LogError> {
        let options = &self.shared.options;
        if self.spares.names.len() as u64 >= self.shared.spares() {
            return Ok(false);
        }
        let length = self.disk.open(name).and_then(|file| self.disk.length(&file));
        Ok(length.map_err(|e| self.io("opening", name, e))? == options.segment_bytes)
    }

    /// Takes space for one more segment.
    fn prepare(&mut self) -> Result<(), LogError> {
        let name = self.next_spare();
        let file = create(&mut self.disk, &name, self.shared.options.segment_bytes)?;
        self.disk.sync(&file).map_err(|e| self.io("syncing", &name, e))?;
        self.spares.names.push_back(name);
        Ok(())
    }

    /// Begins the next segment.
    pub(super) fn switch(&mut self) -> Result<(), LogError> {
        let syncs = self.shared.options.durability != Durability::None;
        if syncs && !mutants::active(Mutant::SegmentLeftUnsynced) {
            self.sync()?;
        }
        while self.spares.names.is_empty() && self.can_truncate() {
            self.truncate()?;
        }
        if self.spares.names.is_empty() {
            self.prepare()?;
        }
        let Some(spare) = self.spares.names.pop_front() else { return Ok(()) };
        let header = Header {
            id: self.id,
            boot: self.boot,
            segment: self.current.header.segment + 1,
            first_cursor: self.cursor,
            first_ordinal: self.current.next_ordinal(),
            synced: self.synced_ordinal,
            bytes: self.shared.options.segment_bytes,
            break_at: self.break_at,
            mode: self.shared.options.durability.code(),
        };
        let name = segment_name(header.segment);
        self.disk.rename(&spare, &name).map_err(|e| self.io("renaming", &spare, e))?;
        let file = self.disk.open(&name).map_err(|e| self.io("opening", &name, e))?;
        let written = self.disk.write(&file, &header.block(), 0);
        written.map_err(|e| self.io("writing", &name, e))?;
        if syncs {
            self.disk.sync(&file).map_err(|e| self.io("syncing", &name, e))?;
            self.sync_names()?;
        }
        let first = self.current.header.first_cursor;
        self.older.push_back((self.current.header.segment, first));
        self.current = self.current.successor(file, header);
        self.shared.segments.fetch_add(1, Ordering::Relaxed);
        self.tell_space();
        Ok(())
    }

    fn sync_names(&mut self) -> Result<(), LogError> {
        if mutants::active(Mutant::NoDirectorySync) {
            return Ok(());
        }
        self.disk.sync_directory().map_err(|e| self.io("syncing the names in", "", e))
    }

    fn next_spare(&mut self) -> String {
        let number = self.spares.next;
        self.spares.next += 1;
        spare_name(number)
    }

    pub(super) fn tell_space(&self) {
        let spares = self.spares.names.len() as u64;
        let left =
            self.current.left() + spares * (self.shared.options.segment_bytes - BLOCK as u64);
        self.shared.tell_left(left);
    }
}

/// Makes a file of zeros that has its space.
pub(crate) fn create<D: Disk>(disk: &mut D, name: &str, bytes: u64) -> Result<D::File, LogError> {
    let made = disk.create(name);
    let outcome = made.and_then(|file| disk.preallocate(&file, bytes).map(|()| file));
    outcome.map_err(|source| {
        let file = disk.path(name);
        if source.kind() != io::ErrorKind::StorageFull {
            return LogError::Io { action: "making", file, source };
        }
        // What it got it must not keep. If this fails the next recovery removes it.
        let _ = disk.remove(name);
        LogError::Full { file, bytes }
    })
}
