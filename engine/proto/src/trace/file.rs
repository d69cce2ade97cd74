//! The trace format: a header, then blocks of records. `engine/proto/TRACE.md` shows the bytes.
//!
//! A block holds events of one replica in the order in which one of its threads produced them, so
//! that each thread can fill blocks of its own. Events of different blocks are ordered by their
//! times; the simulator, which has one thread, writes its blocks in the order of events.

use hybster_tss::Digest;

use super::TraceEvent;
use super::record::{self, TraceError};
use crate::config::GroupConfig;
use crate::ids::ReplicaId;
use crate::time::Time;
use crate::wire::{Put, Reader, WireError};

/// What a trace begins with.
pub const MAGIC: [u8; 8] = *b"HYBTRACE";
/// The version of the format.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 80;
/// Bytes of a block before its records.
pub const BLOCK_HEAD_BYTES: usize = 16;

/// Who wrote a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// A running replica. Times are microseconds since its start.
    Replica,
    /// The simulator. Times are microseconds of simulated time.
    Simulator,
}

/// The header of a trace: what a checker must know of the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Who wrote it.
    pub writer: Writer,
    /// Number of replicas n.
    pub replicas: u16,
    /// Tolerated faults f.
    pub faults: u16,
    /// Number of pillars P.
    pub pillars: u16,
    /// Epoch of the TrInX instances.
    pub epoch: u32,
    /// Order window in order numbers.
    pub window: u64,
    /// Orders between two checkpoints.
    pub checkpoint_interval: u64,
    /// Digest of the group constants.
    pub group: Digest,
    /// The moment of time 0, in microseconds since 1970 (UTC); 0 in a simulation.
    pub started_unix_us: u64,
}

impl Header {
    /// The header of a trace of a group.
    #[must_use]
    pub fn new(writer: Writer, config: &GroupConfig, started_unix_us: u64) -> Header {
        Header {
            writer,
            replicas: config.replicas,
            faults: config.faults,
            pillars: config.pillars,
            epoch: config.epoch,
            window: config.window,
            checkpoint_interval: config.checkpoint_interval,
            group: config.digest(),
            started_unix_us,
        }
    }

    /// The bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.bytes(&MAGIC);
        out.put_u16(VERSION);
        out.put_u16(match self.writer {
            Writer::Replica => 0,
            Writer::Simulator => 1,
        });
        out.put_u16(self.replicas);
        out.put_u16(self.faults);
        out.put_u16(self.pillars);
        out.put_u16(0);
        out.put_u32(self.epoch);
        out.put_u64(self.window);
        out.put_u64(self.checkpoint_interval);
        out.bytes(&self.group.0);
        out.put_u64(self.started_unix_us);
        out.try_into().expect("the fields add up")
    }

    /// Reads the header at the start of a trace.
    ///
    /// # Errors
    /// If the bytes are no trace, or one of another version.
    pub fn parse(bytes: &[u8]) -> Result<Header, TraceError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(TraceError::NotATrace);
        }
        let mut reader = Reader::new(&bytes[MAGIC.len()..]);
        let found = reader.u16().map_err(TraceError::Header)?;
        if found != VERSION {
            return Err(TraceError::Version { found });
        }
        Self::read(&mut reader).map_err(TraceError::Header)
    }

    fn read(reader: &mut Reader<'_>) -> Result<Header, WireError> {
        let writer = match reader.u16()? {
            0 => Writer::Replica,
            1 => Writer::Simulator,
            _ => return Err(WireError::Field("writer")),
        };
        let (replicas, faults, pillars) = (reader.u16()?, reader.u16()?, reader.u16()?);
        reader.zeros(2)?;
        Ok(Header {
            writer,
            replicas,
            faults,
            pillars,
            epoch: reader.u32()?,
            window: reader.u64()?,
            checkpoint_interval: reader.u64()?,
            group: reader.digest()?,
            started_unix_us: reader.u64()?,
        })
    }
}

/// The records of a block under construction.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Records {
    bytes: Vec<u8>,
    count: u32,
}

impl Records {
    /// Appends an event.
    #[inline]
    pub fn push(&mut self, time: Time, event: &TraceEvent) {
        record::append(&mut self.bytes, time, event);
        self.count += 1;
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

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Moves all records of `other` behind these; takes the memory along if there are none here.
    pub fn append(&mut self, other: &mut Records) {
        if self.is_empty() {
            std::mem::swap(self, other);
        } else {
            self.bytes.append(&mut other.bytes);
            self.count += std::mem::take(&mut other.count);
        }
    }

    /// Forgets all, keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.count = 0;
    }

    /// What stands before these records in a trace.
    #[must_use]
    pub fn head(&self, replica: ReplicaId, stream: u16, lost: u32) -> [u8; BLOCK_HEAD_BYTES] {
        let length = u32::try_from(self.bytes.len()).expect("blocks are written early");
        let mut out = Vec::with_capacity(BLOCK_HEAD_BYTES);
        out.put_u32(length);
        out.put_u32(self.count);
        out.put_u32(lost);
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
    pub fn new(header: &Header) -> Recording {
        Recording { bytes: header.encode().to_vec(), open: None, records: Records::default() }
    }

    /// Appends an event.
    pub fn push(&mut self, replica: ReplicaId, time: Time, event: &TraceEvent) {
        if self.open != Some(replica) || self.records.bytes.len() >= RECORDING_BLOCK_BYTES {
            self.close();
            self.open = Some(replica);
        }
        self.records.push(time, event);
    }

    fn close(&mut self) {
        if let Some(replica) = self.open.take() {
            self.bytes.extend_from_slice(&self.records.head(replica, 0, 0));
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

/// A recording begins a new block when one has this many bytes.
const RECORDING_BLOCK_BYTES: usize = 1 << 20;

/// An event in a trace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The replica.
    pub replica: ReplicaId,
    /// Which of its threads.
    pub stream: u16,
    /// When.
    pub time: Time,
    /// What.
    pub event: TraceEvent,
}

/// Reads a trace. Ends at the first damaged block, and without an error where the file is cut off:
/// a replica that was killed leaves such a file.
#[derive(Clone, Debug)]
pub struct Trace<'a> {
    header: Header,
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
    records: &'a [u8],
}

impl<'a> Trace<'a> {
    /// Begins to read.
    ///
    /// # Errors
    /// If the bytes are no trace of this version.
    pub fn read(bytes: &'a [u8]) -> Result<Trace<'a>, TraceError> {
        let block = Block { start: 0, replica: ReplicaId(0), stream: 0, count: 0, records: &[] };
        Ok(Trace {
            header: Header::parse(bytes)?,
            bytes,
            offset: HEADER_BYTES,
            block,
            lost: 0,
            is_cut: false,
            is_damaged: false,
        })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Events that the writer had to drop, as far as blocks have been read.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// Whether the file ended inside a block. Known at the end.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Goes to the next block that holds records. `None`: that was all.
    fn next_block(&mut self) -> Option<Result<(), WireError>> {
        while self.block.count == 0 {
            if !self.block.records.is_empty() {
                return Some(Err(WireError::Trailing));
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
            self.block = Block { start, replica, stream, count, records };
            self.lost += u64::from(lost);
            if replica.0 >= self.header.replicas {
                return Some(Err(WireError::Field("replica")));
            }
        }
        Some(Ok(()))
    }
}

impl Iterator for Trace<'_> {
    type Item = Result<Entry, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_damaged || self.is_cut {
            return None;
        }
        let read = match self.next_block()? {
            Ok(()) => {
                let mut reader = Reader::new(self.block.records);
                let read = record::read(&mut reader);
                let left = reader.left();
                self.block.records = &self.block.records[self.block.records.len() - left..];
                self.block.count -= 1;
                read
            }
            Err(error) => Err(error),
        };
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

#[cfg(test)]
mod tests;
