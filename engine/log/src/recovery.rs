//! What is in a directory when a log is opened: all records in order, and where the log ends.
//!
//! Nothing is changed before [`Recovery::finish`], and a crash at any point of it leaves a directory that
//! recovers to the same records. `survey` decides whether what is missing at the end was lost by
//! a loss of power, or is damage; the front page of this crate says what can be told apart.

mod finish;
mod headers;
mod survey;

use std::collections::VecDeque;

use crate::format::{
    BLOCK, BLOCK_SECTORS, HEAD, Header, PAYLOAD, SECTOR, Sector, SectorHead, read_record_word,
    read_sector, record_bytes, seed, segment_name,
};
use crate::log::Cursor;
use crate::mutants::{self, Mutant};
use crate::options::Options;
use crate::{Damage, Disk, LogError};

pub(crate) use finish::Plan;

/// Sectors that are read at once.
const READ_SECTORS: usize = 256;

/// A record, as it was appended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Record<'a> {
    /// The kind that its appender gave.
    pub kind: u16,
    /// The number of the appender.
    pub writer: u16,
    /// Its content.
    pub content: &'a [u8],
    /// The cursor behind it: what [`crate::Appender::append`] returned.
    pub end: Cursor,
}

/// The end of the log was cut off: by a loss of power, as far as can be known.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The file, with its path.
    pub file: String,
    /// The first byte that was not written.
    pub offset: u64,
    /// Sectors behind it that were written, and are given up.
    pub sectors_behind: u64,
    /// Bytes in front of it that belong to a record that is not whole.
    pub partial_bytes: u64,
}

/// What a recovery has found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Report {
    /// The directory had no log.
    pub is_new: bool,
    /// The identity of the log.
    pub id: [u8; 16],
    /// Segments that are there.
    pub segments: u64,
    /// The first record begins here. What was truncated is below; whether that is what the owner
    /// has a checkpoint of, only the owner knows.
    pub first: Cursor,
    /// The end of the last record.
    pub end: Cursor,
    /// The log was last written under this boot of the system.
    pub is_same_boot: bool,
    /// The log says that its owner closed it.
    pub was_closed: bool,
    /// Where a recovery, this one or an earlier one, last found that something may be lost which had been
    /// released: the log was not closed, released things before they were synced, and the system has
    /// been booted since. Whoever relies on the log to be complete must have begun something
    /// new, and logged it, behind this cursor; a later start without a loss does not take it back.
    pub last_break: Option<Cursor>,
    /// What was cut off, if anything.
    pub cut: Option<Cut>,
}

/// Reads a log: first all records ([`Self::next`]), then [`Self::finish`].
#[derive(Debug)]
pub struct Recovery<D: Disk> {
    disk: D,
    options: Options,
    id: [u8; 16],
    boot: [u8; 16],
    /// Segments that continue each other, with their headers.
    chain: Vec<Header>,
    /// Numbers of files behind them: what is there does not continue the log.
    beyond: Vec<u64>,
    missing: Option<u64>,
    reader: Reader<D::File>,
    /// All sectors below this number were synced at some time.
    proven: u64,
    report: Option<Report>,
}

/// Where in the log the reading is.
#[derive(Debug)]
struct Reader<F> {
    /// The segment, as an index into the chain, and its file.
    segment: usize,
    file: Option<F>,
    /// The sector within the file.
    sector: u64,
    /// The sector behind the last one that may belong to this segment.
    limit: u64,
    buffer: Vec<u8>,
    /// The sector at the start of the buffer.
    buffered: u64,
    /// Bytes of records that were read and not handed out: from `taken` on.
    bytes: Vec<u8>,
    taken: usize,
    /// The end of the last record that was handed out.
    cursor: u64,
    was_closed: bool,
}

impl<D: Disk> Recovery<D> {
    /// Takes the directory and reads the headers of its segments. `new_id` becomes the identity of the log
    /// if there is none: it must be drawn at random.
    ///
    /// # Errors
    /// The directory is in use, a header is damaged, or the system refuses.
    pub fn open(mut disk: D, options: Options, new_id: [u8; 16]) -> Result<Self, LogError> {
        options.validate()?;
        headers::lock(&mut disk)?;
        let boot = disk.boot().map_err(|e| io(&disk, "reading the boot of", "", e))?;
        let found = headers::read(&mut disk)?;
        let first = found.chain.first();
        let id = first.map_or(new_id, |header| header.id);
        let cursor = first.map_or(0, |header| header.first_cursor);
        let mut recovery = Self {
            disk,
            options,
            id,
            boot,
            proven: found.chain.iter().map(|header| header.synced).max().unwrap_or(0),
            chain: found.chain,
            beyond: found.beyond,
            missing: found.missing,
            reader: Reader {
                segment: 0,
                file: None,
                sector: 0,
                limit: 0,
                buffer: vec![0; READ_SECTORS * SECTOR],
                buffered: u64::MAX,
                bytes: Vec::new(),
                taken: 0,
                cursor,
                was_closed: false,
            },
            report: None,
        };
        recovery.enter(0)?;
        Ok(recovery)
    }

    /// The next record; `None` behind the last one, when [`Self::report`] has what was found. Whether
    /// the log is damaged is certain only then.
    ///
    /// # Errors
    /// The log is damaged, or the system refuses: nothing of it may be relied upon.
    #[allow(clippy::should_implement_trait, reason = "a record borrows from the reader")]
    pub fn next(&mut self) -> Result<Option<Record<'_>>, LogError> {
        loop {
            if let Some((kind, writer, length)) = self.parse()? {
                let reader = &mut self.reader;
                let start = reader.taken + 8;
                let bytes = record_bytes(length as u64);
                reader.taken += bytes as usize;
                reader.cursor += bytes;
                let content = &reader.bytes[start..start + length];
                return Ok(Some(Record { kind, writer, content, end: Cursor(reader.cursor) }));
            }
            if self.report.is_some() {
                return Ok(None);
            }
            self.advance()?;
        }
    }

    /// What was found, once all records have been read.
    #[must_use]
    pub fn report(&self) -> Option<&Report> {
        self.report.as_ref()
    }

    /// Kind, writer and length of the next record, if all of it has been read.
    fn parse(&mut self) -> Result<Option<(u16, u16, usize)>, LogError> {
        let reader = &self.reader;
        let Some(word) = reader.bytes[reader.taken..].first_chunk::<8>() else { return Ok(None) };
        let Some((kind, writer, length)) = read_record_word(u64::from_le_bytes(*word)) else {
            return Err(self.damaged(Damage::Records));
        };
        let (bytes, there) = (record_bytes(length.into()), reader.bytes.len() - reader.taken);
        if bytes <= there as u64 {
            return Ok(Some((kind, writer, length as usize)));
        }
        // So what is kept of a record that is not whole is never longer than its segment. It may be that the
        // segment was cut off in the record.
        let all = self.chain.get(reader.segment).map_or(0, |header| header.bytes / SECTOR as u64);
        if bytes - there as u64 > all.saturating_sub(reader.sector) * PAYLOAD as u64 {
            return Err(self.damaged(Damage::Records));
        }
        Ok(None)
    }

    /// Reads one sector, or goes to the next segment, or finds the end.
    fn advance(&mut self) -> Result<(), LogError> {
        let Some(header) = self.chain.get(self.reader.segment).copied() else {
            return self.conclude();
        };
        if self.reader.sector == self.reader.limit {
            return match self.chain.get(self.reader.segment + 1) {
                Some(next) if next.first_cursor != self.reader.cursor => {
                    Err(self.damaged_at(next.segment, 0, Damage::Joint))
                }
                Some(_) => self.enter(self.reader.segment + 1),
                None => self.conclude(),
            };
        }
        let (seed, at) = (seed(&self.id), self.reader.sector);
        let Some(sector) = self.reader.sector(&mut self.disk, at) else {
            return Err(self.damaged(Damage::Unreadable));
        };
        let ordinal = ordinal_of(&header, at);
        match class(read_sector(sector, seed), header.segment, ordinal) {
            Class::Current(head) => {
                self.proven = self.proven.max(head.synced);
                self.reader.take(&head);
                Ok(())
            }
            Class::Old => self.conclude(),
            Class::Garbage if mutants::active(Mutant::RotIsTorn) => self.conclude(),
            Class::Garbage => Err(self.damaged(Damage::Checksum)),
        }
    }

    /// Begins to read a segment of the chain.
    fn enter(&mut self, segment: usize) -> Result<(), LogError> {
        let Some(header) = self.chain.get(segment).copied() else { return Ok(()) };
        let next = self.chain.get(segment + 1).map(|next| next.first_ordinal);
        let name = segment_name(header.segment);
        let file = self.disk.open(&name).map_err(|e| io(&self.disk, "opening", &name, e))?;
        let length = self.disk.length(&file).map_err(|e| io(&self.disk, "opening", &name, e))?;
        // Behind the end of the file, and of the segment, there is nothing.
        let end = length.min(header.bytes).max(BLOCK as u64) / SECTOR as u64;
        let limit = match next {
            // Headers were checked to rise.
            Some(next) => BLOCK_SECTORS + (next - header.first_ordinal),
            None => end,
        };
        if limit > header.bytes / SECTOR as u64 {
            return Err(self.damaged_at(header.segment + 1, 0, Damage::Joint));
        }
        let reader = &mut self.reader;
        (reader.segment, reader.file) = (segment, Some(file));
        (reader.sector, reader.limit) = (BLOCK_SECTORS, limit);
        reader.buffered = u64::MAX;
        reader.bytes.clear();
        reader.taken = 0;
        reader.cursor = header.first_cursor;
        reader.was_closed = false;
        Ok(())
    }

    fn damaged(&self, damage: Damage) -> LogError {
        let number = self.chain.get(self.reader.segment).map_or(0, |header| header.segment);
        self.damaged_at(number, self.reader.sector, damage)
    }

    fn damaged_at(&self, number: u64, sector: u64, damage: Damage) -> LogError {
        let file = self.disk.path(&segment_name(number));
        LogError::Damaged { file, offset: sector * SECTOR as u64, damage }
    }
}

impl<F> Reader<F> {
    /// A sector of the segment's file.
    fn sector<D: Disk<File = F>>(&mut self, disk: &mut D, at: u64) -> Option<&[u8]> {
        let held = at.checked_sub(self.buffered).filter(|at| *at < READ_SECTORS as u64);
        let index = match held {
            Some(index) => index as usize,
            None => {
                disk.read(self.file.as_ref()?, &mut self.buffer, at * SECTOR as u64).ok()?;
                self.buffered = at;
                0
            }
        };
        Some(&self.buffer[index * SECTOR..(index + 1) * SECTOR])
    }

    /// Takes over the records of the sector that [`Self::sector`] has just returned.
    fn take(&mut self, head: &SectorHead) {
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        let start = (self.sector - self.buffered) as usize * SECTOR + HEAD;
        self.bytes.extend_from_slice(&self.buffer[start..start + usize::from(head.used)]);
        self.was_closed = head.flags & crate::format::CLOSED != 0;
        self.sector += 1;
    }
}

/// What a sector is to the place where it was found.
enum Class {
    /// What was written there last.
    Current(SectorHead),
    /// What was there before.
    Old,
    /// Neither.
    Garbage,
}

fn class(sector: Sector, segment: u64, ordinal: u64) -> Class {
    match sector {
        Sector::Empty => Class::Old,
        Sector::Sealed(head) if mutants::active(Mutant::OldReadAsNew) => Class::Current(head),
        Sector::Sealed(head) if head.segment == segment && head.ordinal == ordinal => {
            Class::Current(head)
        }
        // A recycled file has sectors of an older segment.
        Sector::Sealed(head) if head.segment < segment => Class::Old,
        Sector::Sealed(_) | Sector::Garbage => Class::Garbage,
    }
}

/// The number in the log of a sector of a segment's file.
fn ordinal_of(header: &Header, sector: u64) -> u64 {
    header.first_ordinal + sector - BLOCK_SECTORS
}

fn io<D: Disk>(disk: &D, action: &'static str, name: &str, source: std::io::Error) -> LogError {
    LogError::Io { action, file: disk.path(name), source }
}

/// Segments before a given one: number and first cursor.
type Older = VecDeque<(u64, u64)>;
