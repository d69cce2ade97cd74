//! After the reading: makes what was read durable, gives up what is behind its end, and begins a new
//! segment.
//!
//! In this order, so that a crash at any point changes nothing of what the next recovery reads:
//!
//! 1. What may be only in the page cache is written once more, as it is, and synced. A sync alone would
//!    prove nothing: after one that failed the system calls pages clean that are not on disk.
//! 2. Files behind the end are removed, the last one first.
//! 3. The new segment is made under another name, synced, and renamed. From then on its header says
//!    where the one before it ends.

use std::sync::Arc;

use super::{Older, Recovery, Report, io};
use crate::format::{BLOCK, BLOCK_SECTORS, Header, SECTOR, is_spare, segment_name, spare_name};
use crate::log::{Log, Shared};
use crate::mutants::{self, Mutant};
use crate::writer::{Writer, create};
use crate::{Damage, Disk, LogError};

/// What a writer goes on from.
#[derive(Debug)]
pub(crate) struct Plan<F> {
    pub(crate) file: F,
    /// Of the new segment.
    pub(crate) header: Header,
    pub(crate) older: Older,
}

impl<D: Disk> Recovery<D> {
    /// Reads what is left, and makes the log ready: what was read is durable, and what is appended goes to a
    /// new segment.
    ///
    /// # Errors
    /// The log is damaged, or the system refuses. Nothing is lost by that: the next recovery reads
    /// the same.
    pub fn finish(mut self) -> Result<(Log, Writer<D>, Report), LogError> {
        while self.next()?.is_some() {}
        let Some(report) = self.report.take() else { return Err(LogError::Closed) };
        let header = self.next_header(&report)?;
        self.write_again()?;
        self.remove_spares()?;
        for number in std::mem::take(&mut self.beyond).into_iter().rev() {
            // The first of them is replaced.
            if number != header.segment {
                self.remove(&segment_name(number))?;
                self.sync_names()?;
            }
        }
        let file = self.begin(&header)?;
        let older = self.chain.iter().map(|old| (old.segment, old.first_cursor)).collect();
        let shared = Arc::new(Shared::new(self.options, header.first_cursor));
        let log = Log { shared: Arc::clone(&shared) };
        let writer = Writer::new(self.disk, shared, Plan { file, header, older });
        Ok((log, writer, report))
    }

    /// The header of the new segment.
    fn next_header(&self, report: &Report) -> Result<Header, LogError> {
        let last = self.chain.last();
        let segment = last.map_or(0, |last| last.segment).checked_add(1);
        let segment = segment.ok_or_else(|| self.damaged(Damage::Header))?;
        let first_ordinal = last.map_or(0, |last| super::ordinal_of(last, self.reader.sector));
        let break_at = report.last_break.map_or(u64::MAX, |cursor| cursor.0);
        let forgotten = mutants::active(Mutant::BreakForgotten);
        Ok(Header {
            id: self.id,
            boot: self.boot,
            segment,
            first_cursor: report.end.0,
            first_ordinal,
            synced: first_ordinal,
            bytes: self.options.segment_bytes,
            break_at: if forgotten { u64::MAX } else { break_at },
            mode: self.options.durability.code(),
        })
    }

    /// Writes what is not proven to be on disk once more.
    fn write_again(&mut self) -> Result<(), LogError> {
        if mutants::active(Mutant::UnprovenTrusted) {
            return Ok(());
        }
        for (index, header) in self.chain.clone().iter().enumerate() {
            let end = match self.chain.get(index + 1) {
                Some(next) => BLOCK_SECTORS + (next.first_ordinal - header.first_ordinal),
                None => self.reader.sector,
            };
            // A header is synced before the first sector behind it is written; a segment that is proven
            // to its first sector only may yet have lost it.
            let proven = self.proven.saturating_sub(header.first_ordinal);
            if proven == 0 || BLOCK_SECTORS + proven < end {
                self.write_sectors_again(header, BLOCK_SECTORS + proven, end)?;
            }
        }
        self.sync_names()
    }

    fn write_sectors_again(&mut self, header: &Header, from: u64, to: u64) -> Result<(), LogError> {
        let name = segment_name(header.segment);
        let file = self.disk.open(&name).map_err(|e| io(&self.disk, "opening", &name, e))?;
        if from == BLOCK_SECTORS {
            let written = self.disk.write(&file, &header.block(), 0);
            written.map_err(|e| io(&self.disk, "writing again", &name, e))?;
        }
        let mut at = from;
        while at < to {
            let sectors = (to - at).min((self.reader.buffer.len() / SECTOR) as u64);
            let buffer = &mut self.reader.buffer[..sectors as usize * SECTOR];
            let offset = at * SECTOR as u64;
            let read = self.disk.read(&file, buffer, offset);
            let written = read.and_then(|()| self.disk.write(&file, buffer, offset));
            written.map_err(|e| io(&self.disk, "writing again", &name, e))?;
            at += sectors;
        }
        self.disk.sync(&file).map_err(|e| io(&self.disk, "syncing", &name, e))
    }

    /// Files that wait to become segments are made again when they are needed: one may have a header
    /// that an earlier recovery wrote.
    fn remove_spares(&mut self) -> Result<(), LogError> {
        let names = self.disk.names().map_err(|e| io(&self.disk, "listing", "", e))?;
        let spares: Vec<String> = names.into_iter().filter(|name| is_spare(name)).collect();
        for name in &spares {
            self.remove(name)?;
        }
        if spares.is_empty() { Ok(()) } else { self.sync_names() }
    }

    /// Makes the new segment, in the place of what has its name.
    fn begin(&mut self, header: &Header) -> Result<D::File, LogError> {
        let (made, name) = (spare_name(header.segment), segment_name(header.segment));
        let file = create(&mut self.disk, &made, header.bytes)?;
        let written = self.disk.write(&file, &header.block(), 0);
        written.map_err(|e| io(&self.disk, "writing", &made, e))?;
        self.disk.sync(&file).map_err(|e| io(&self.disk, "syncing", &made, e))?;
        self.disk.rename(&made, &name).map_err(|e| io(&self.disk, "renaming", &made, e))?;
        self.sync_names()?;
        self.shorten()?;
        Ok(file)
    }

    /// Gives back the space that the segment before the new one has left over: else a replica that
    /// starts again and again would take a segment each time.
    fn shorten(&mut self) -> Result<(), LogError> {
        let Some(last) = self.chain.last() else { return Ok(()) };
        let name = segment_name(last.segment);
        let file = self.disk.open(&name).map_err(|e| io(&self.disk, "opening", &name, e))?;
        let used = (self.reader.sector * SECTOR as u64).next_multiple_of(BLOCK as u64);
        let length = self.disk.length(&file).map_err(|e| io(&self.disk, "opening", &name, e))?;
        if used >= length {
            return Ok(());
        }
        let cut = self.disk.set_length(&file, used);
        cut.map_err(|e| io(&self.disk, "shortening", &name, e))
    }

    fn remove(&mut self, name: &str) -> Result<(), LogError> {
        self.disk.remove(name).map_err(|e| io(&self.disk, "removing", name, e))
    }

    fn sync_names(&mut self) -> Result<(), LogError> {
        if mutants::active(Mutant::NoDirectorySync) {
            return Ok(());
        }
        self.disk.sync_directory().map_err(|e| io(&self.disk, "syncing the names in", "", e))
    }
}
