//! Where the log ends, and why: torn by a loss of power, or damaged.
//!
//! Each sector says up to where everything had been synced when it was written. So a sector behind the
//! end that says more than the end is evidence that the end was synced once and is lost: damage. Without
//! such evidence what is missing was never synced, or nothing that is left can tell.

use super::{Class, Cut, Recovery, Report, class, headers, io, ordinal_of};
use crate::format::{BLOCK_SECTORS, Header, SECTOR, Sector, read_sector, seed, segment_name};
use crate::log::Cursor;
use crate::mutants::{self, Mutant};
use crate::options::Durability;
use crate::{Damage, Disk, LogError};

/// What was found behind the end.
#[derive(Debug, Default)]
struct Behind {
    /// Sectors of the log.
    sectors: u64,
    /// The most that one of them says was synced.
    synced: u64,
}

impl<D: Disk> Recovery<D> {
    /// Ends the reading at the present sector: what is there was not written, or it is behind the last one.
    pub(super) fn conclude(&mut self) -> Result<(), LogError> {
        let Some(header) = self.chain.get(self.reader.segment).copied() else {
            return self.conclude_empty();
        };
        let end = ordinal_of(&header, self.reader.sector);
        let behind = self.survey(&header)?;
        self.proven = self.proven.max(behind.synced);
        if self.proven > end && !mutants::active(Mutant::RotIsTorn) {
            return Err(match self.missing {
                Some(number) if number == header.segment + 1 => {
                    LogError::Missing { file: self.disk.path(&segment_name(number)) }
                }
                _ => self.damaged(Damage::LostSector),
            });
        }
        self.proven = self.proven.min(end);
        // What is behind the end no longer counts.
        self.chain.truncate(self.reader.segment + 1);
        let partial_bytes = (self.reader.bytes.len() - self.reader.taken) as u64;
        let cut = (behind.sectors > 0 || partial_bytes > 0).then(|| Cut {
            file: self.disk.path(&segment_name(header.segment)),
            offset: self.reader.sector * SECTOR as u64,
            sectors_behind: behind.sectors,
            partial_bytes,
        });
        if cut.is_some() && mutants::active(Mutant::TornIsRot) {
            return Err(self.damaged(Damage::LostSector));
        }
        self.make_report(&header, cut);
        Ok(())
    }

    /// A directory without a segment.
    fn conclude_empty(&mut self) -> Result<(), LogError> {
        // The first segment has its header before it has its name, and others are given up only while a
        // later one has.
        if let Some(number) = self.beyond.first() {
            return Err(self.damaged_at(*number, 0, Damage::LostHeader));
        }
        self.report = Some(Report {
            is_new: true,
            id: self.id,
            segments: 0,
            first: Cursor(0),
            end: Cursor(0),
            is_same_boot: true,
            was_closed: false,
            last_break: None,
            cut: None,
        });
        Ok(())
    }

    fn make_report(&mut self, last: &Header, cut: Option<Cut>) {
        let was_closed = self.reader.was_closed && cut.is_none();
        let is_same_boot = last.boot == self.boot;
        let end = self.reader.cursor;
        // A killed process leaves everything that it wrote, in order. If something is lost in between,
        // more than the process has failed.
        let in_order = cut.as_ref().is_none_or(|cut| cut.sectors_behind == 0);
        let is_exact =
            was_closed || last.mode == Durability::Sync.code() || (is_same_boot && in_order);
        let earlier = (last.break_at != u64::MAX).then_some(last.break_at);
        let last_break = if is_exact { earlier } else { Some(end) };
        self.report = Some(Report {
            is_new: false,
            id: self.id,
            segments: self.chain.len() as u64,
            first: Cursor(self.chain.first().map_or(0, |first| first.first_cursor)),
            end: Cursor(end),
            is_same_boot,
            was_closed,
            last_break: last_break.map(Cursor),
            cut,
        });
    }

    /// Looks at everything behind the present sector.
    fn survey(&mut self, header: &Header) -> Result<Behind, LogError> {
        let mut behind = Behind::default();
        let at = self.reader.sector;
        self.survey_sectors(header.segment, Some(header.first_ordinal), at, &mut behind)?;
        for header in self.chain.split_off(self.reader.segment + 1) {
            behind.synced = behind.synced.max(header.synced);
            behind.sectors += BLOCK_SECTORS;
            let first = Some(header.first_ordinal);
            self.survey_sectors(header.segment, first, BLOCK_SECTORS, &mut behind)?;
            self.beyond.push(header.segment);
        }
        for number in self.beyond.clone() {
            let name = segment_name(number);
            match headers::header(&mut self.disk, &name)? {
                Some(header) if header.segment == number => {
                    if header.id != self.id {
                        return Err(LogError::AnotherLog { file: self.disk.path(&name) });
                    }
                    behind.synced = behind.synced.max(header.synced);
                    behind.sectors += BLOCK_SECTORS;
                    let first = Some(header.first_ordinal);
                    self.survey_sectors(number, first, BLOCK_SECTORS, &mut behind)?;
                }
                Some(_) | None => self.survey_headless(number, &mut behind)?,
            }
        }
        self.beyond.sort_unstable();
        self.beyond.dedup();
        Ok(behind)
    }

    /// A segment without a header: its sectors say whether it had one.
    fn survey_headless(&mut self, number: u64, behind: &mut Behind) -> Result<(), LogError> {
        self.survey_sectors(number, None, BLOCK_SECTORS, behind)
    }

    fn survey_sectors(
        &mut self,
        number: u64,
        first: Option<u64>,
        from: u64,
        behind: &mut Behind,
    ) -> Result<(), LogError> {
        let name = segment_name(number);
        let file = self.disk.open(&name).map_err(|e| io(&self.disk, "opening", &name, e))?;
        let length = self.disk.length(&file).map_err(|e| io(&self.disk, "opening", &name, e))?;
        let seed = seed(&self.id);
        let mut buffer = std::mem::take(&mut self.reader.buffer);
        self.reader.buffered = u64::MAX;
        let mut at = from;
        while at * (SECTOR as u64) < length {
            if self.disk.read(&file, &mut buffer, at * SECTOR as u64).is_err() {
                // Larger reads than a sector fail for any of theirs; where is near enough.
                return Err(self.damaged_at(number, at, Damage::Unreadable));
            }
            for sector in buffer.chunks_exact(SECTOR) {
                let found = read_sector(sector, seed);
                let expected = match (first, found) {
                    (Some(first), _) => first + at - BLOCK_SECTORS,
                    (None, Sector::Sealed(head)) => head.ordinal,
                    (None, _) => 0,
                };
                match class(found, number, expected) {
                    Class::Old => {}
                    Class::Current(head) => {
                        behind.sectors += 1;
                        behind.synced = behind.synced.max(head.synced);
                        // All records of a segment come after the sync of its header.
                        let had = head.ordinal.checked_sub(at - BLOCK_SECTORS);
                        if first.is_none() && had.is_none_or(|first| head.synced >= first) {
                            return Err(self.damaged_at(number, 0, Damage::LostHeader));
                        }
                    }
                    Class::Garbage if mutants::active(Mutant::RotIsTorn) => {}
                    Class::Garbage => return Err(self.damaged_at(number, at, Damage::Checksum)),
                }
                at += 1;
            }
        }
        self.reader.buffer = buffer;
        Ok(())
    }
}
