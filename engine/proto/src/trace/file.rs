//! The trace format: a header, then blocks of records. `engine/proto/TRACE.md` shows the bytes.
//!
//! [`Records`] and [`Recording`] write the present version, [`Trace`] reads it. Only
//! [`Trace::read_version_1`] reads traces of version 1, as [`v1::Event`]s: so a checker that needs
//! what only the present version says is never given less by mistake.

use std::fmt;

use super::header;
use super::record::{self, TraceError};
use super::{TraceEvent, v1};
use crate::ids::ReplicaId;
use crate::time::Time;
use crate::wire::{Put, Reader, WireError};

pub use super::header::{HEADER_BYTES, Header, MAGIC, ProtocolName, VERSION, Writer};

/// Bytes of a block before its records.
pub const BLOCK_HEAD_BYTES: usize = 16;

/// A recording begins a new block when one has this many bytes.
const RECORDING_BLOCK_BYTES: usize = 1 << 20;

/// The records of a block under construction.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Records {
    bytes: Vec<u8>,
    count: u32,
    lost: u32,
}

impl Records {
    /// Appends an event.
    #[inline]
    pub fn push(&mut self, time: Time, event: &TraceEvent) {
        record::append(&mut self.bytes, time, event);
        self.count += 1;
        if let TraceEvent::Lost { events } = event {
            self.lost = self.lost.saturating_add(*events);
        }
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Events that the records say are missing.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.lost
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Moves all records of `other` behind these; takes the memory along if there are none here.
    pub fn append(&mut self, other: &mut Self) {
        if self.is_empty() {
            std::mem::swap(self, other);
        } else {
            self.bytes.append(&mut other.bytes);
            self.count += std::mem::take(&mut other.count);
            self.lost = self.lost.saturating_add(std::mem::take(&mut other.lost));
        }
    }

    /// Forgets all, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        (self.count, self.lost) = (0, 0);
    }

    /// What precedes these records in a trace.
    #[must_use]
    pub fn head(&self, replica: ReplicaId, stream: u16) -> [u8; BLOCK_HEAD_BYTES] {
        let length = u32::try_from(self.bytes.len()).expect("blocks are written early");
        let mut out = Vec::with_capacity(BLOCK_HEAD_BYTES);
        out.put_u32(length);
        out.put_u32(self.count);
        out.put_u32(self.lost);
        out.put_u16(replica.0);
        out.put_u16(stream);
        out.try_into().expect("the fields add up")
    }
}

/// A whole trace written into memory, event by event: what the simulator does.
#[derive(Clone, Debug)]
pub struct Recording {
    bytes: Vec<u8>,
    open: Option<ReplicaId>,
    records: Records,
}

impl Recording {
    /// An empty trace.
    #[must_use]
    pub fn new(header: &Header) -> Self {
        Self { bytes: header.encode().to_vec(), open: None, records: Records::default() }
    }

    /// Appends an event.
    pub fn push(&mut self, replica: ReplicaId, time: Time, event: &TraceEvent) {
        // The sum of losses in a block's head has 32 bits, as each loss has.
        let is_second_loss = self.records.lost > 0 && matches!(event, TraceEvent::Lost { .. });
        let is_full = self.records.bytes.len() >= RECORDING_BLOCK_BYTES || is_second_loss;
        if self.open != Some(replica) || is_full {
            self.close();
            self.open = Some(replica);
        }
        self.records.push(time, event);
    }

    fn close(&mut self) {
        if let Some(replica) = self.open.take() {
            self.bytes.extend_from_slice(&self.records.head(replica, 0));
            self.bytes.extend_from_slice(&self.records.bytes);
            self.records.clear();
        }
    }

    /// The bytes of the trace.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.close();
        self.bytes
    }
}

/// An event in a trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry<E = TraceEvent> {
    /// The replica.
    pub replica: ReplicaId,
    /// Which of its threads.
    pub stream: u16,
    /// When.
    pub time: Time,
    /// What.
    pub event: E,
}

/// How the records of a version are read.
struct Format<E> {
    decode: fn(&mut Reader<'_>) -> Result<(Time, E), WireError>,
    /// How many events are missing where an event says so; `None` if no event does.
    lost: Option<fn(&E) -> u32>,
}

impl<E> Clone for Format<E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Format<E> {}

/// Reads a trace. Ends at the first damaged block, and without an error where the file is cut off:
/// a replica that was killed leaves such a file.
#[derive(Clone)]
pub struct Trace<'a, E = TraceEvent> {
    header: Header,
    format: Format<E>,
    bytes: &'a [u8],
    offset: usize,
    block: Block<'a>,
    lost: u64,
    is_cut: bool,
    is_damaged: bool,
}

#[derive(Clone, Copy, Debug)]
struct Block<'a> {
    start: usize,
    replica: ReplicaId,
    stream: u16,
    count: u32,
    /// Lost events that its records have not reported yet.
    lost: u32,
    records: &'a [u8],
}

impl<'a> Trace<'a> {
    /// Begins to read a trace of the present version.
    ///
    /// # Errors
    /// If the bytes are no trace of this version.
    pub fn read(bytes: &'a [u8]) -> Result<Self, TraceError> {
        let lost = |event: &TraceEvent| match event {
            TraceEvent::Lost { events } => *events,
            _ => 0,
        };
        let format = Format { decode: record::decode, lost: Some(lost) };
        Trace::begin(bytes, VERSION, HEADER_BYTES, format)
    }
}

impl<'a> Trace<'a, v1::Event> {
    /// Begins to read a trace of version 1, to show it.
    ///
    /// # Errors
    /// If the bytes are no trace of that version.
    pub fn read_version_1(bytes: &'a [u8]) -> Result<Self, TraceError> {
        let format = Format { decode: v1::decode, lost: None };
        Trace::begin(bytes, v1::VERSION, header::HEADER_BYTES_1, format)
    }
}

impl<'a, E> Trace<'a, E> {
    fn begin(
        bytes: &'a [u8],
        wanted: u16,
        offset: usize,
        format: Format<E>,
    ) -> Result<Self, TraceError> {
        let header = Header::parse(bytes)?;
        if header.version != wanted {
            return Err(TraceError::Version { found: header.version, wanted });
        }
        let (replica, records) = (ReplicaId(0), &[][..]);
        let block = Block { start: 0, replica, stream: 0, count: 0, lost: 0, records };
        let (lost, is_cut, is_damaged) = (0, false, false);
        Ok(Trace { header, format, bytes, offset, block, lost, is_cut, is_damaged })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Events that the writer had to drop, as far as blocks have been read. [`TraceEvent::Lost`]
    /// says where they are missing; in version 1, anywhere since the previous block of the stream.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether the file ended inside a block. Known at the end.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Goes to the next block that holds records; `None` at the end.
    fn next_block(&mut self) -> Option<Result<(), WireError>> {
        while self.block.count == 0 {
            if !self.block.records.is_empty() {
                return Some(Err(WireError::Trailing));
            }
            if self.block.lost != 0 && self.format.lost.is_some() {
                return Some(Err(WireError::Field("lost")));
            }
            let rest = &self.bytes[self.offset..];
            if rest.is_empty() {
                return None;
            }
            let start = self.offset;
            let Some((head, rest)) = rest.split_at_checked(BLOCK_HEAD_BYTES) else {
                self.is_cut = true;
                return None;
            };
            let mut reader = Reader::new(head);
            let mut head = || -> Result<_, WireError> {
                let sizes = (reader.u32()?, reader.u32()?, reader.u32()?);
                Ok((sizes, reader.replica()?, reader.u16()?))
            };
            let ((length, count, lost), replica, stream) = head().expect("the head is whole");
            let Some(records) = rest.get(..length as usize) else {
                self.is_cut = true;
                return None;
            };
            self.offset = start + BLOCK_HEAD_BYTES + length as usize;
            self.block = Block { start, replica, stream, count, lost, records };
            self.lost += u64::from(lost);
            // A later configuration may have members that the first one did not have.
            if replica.0 >= header::MAX_REPLICAS {
                return Some(Err(WireError::Field("replica")));
            }
        }
        Some(Ok(()))
    }

    fn next_record(&mut self) -> Result<(Time, E), WireError> {
        let mut reader = Reader::new(self.block.records);
        let (time, event) = (self.format.decode)(&mut reader)?;
        let left = reader.left();
        self.block.records = &self.block.records[self.block.records.len() - left..];
        self.block.count -= 1;
        let told = self.format.lost.map_or(0, |lost| lost(&event));
        self.block.lost = self.block.lost.checked_sub(told).ok_or(WireError::Field("lost"))?;
        Ok((time, event))
    }
}

impl<E> Iterator for Trace<'_, E> {
    type Item = Result<Entry<E>, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_damaged || self.is_cut {
            return None;
        }
        let read = self.next_block()?.and_then(|()| self.next_record());
        let Block { start, replica, stream, .. } = self.block;
        Some(match read {
            Ok((time, event)) => Ok(Entry { replica, stream, time, event }),
            Err(error) => {
                self.is_damaged = true;
                Err(TraceError::Block { offset: start as u64, error })
            }
        })
    }
}

impl<E> fmt::Debug for Trace<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Trace { header, offset, lost, is_cut, is_damaged, .. } = self;
        f.debug_struct("Trace")
            .field("header", header)
            .field("offset", offset)
            .field("lost", lost)
            .field("is_cut", is_cut)
            .field("is_damaged", is_damaged)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
