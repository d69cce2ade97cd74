//! The header of a trace: what a checker must know of the group.

use hybster_tss::Digest;

use super::record::{self, TraceError};
use super::{Quorums, v1};
use crate::config::GroupConfig;
use crate::ids::{Peers, ReplicaId};
use crate::protocol::{Protocol, Threshold};
use crate::wire::{Put, Reader, WireError};

/// What a trace begins with.
pub const MAGIC: [u8; 8] = *b"HYBTRACE";
/// The version of the format.
pub const VERSION: u16 = 2;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 128;
/// Bytes of the header of version 1.
pub(super) const HEADER_BYTES_1: usize = 80;
/// Replicas that a set in the format has room for.
pub(super) const MAX_REPLICAS: u16 = 64;

/// Who wrote a trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Writer {
    /// A running replica. Times are microseconds since its start.
    Replica,
    /// The simulator. Times are microseconds of simulated time.
    Simulator,
}

/// Name of an ordering protocol: up to 16 small letters, digits and hyphens.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProtocolName([u8; 16]);

impl ProtocolName {
    fn of(protocol: Protocol) -> Self {
        let (name, mut bytes) = (protocol.name().as_bytes(), [0; 16]);
        bytes[..name.len()].copy_from_slice(name);
        Self(bytes)
    }

    fn parse(bytes: [u8; 16]) -> Option<Self> {
        let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let (name, rest) = bytes.split_at(length);
        let is_good = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let valid = !name.is_empty() && name.iter().all(is_good) && rest.iter().all(|b| *b == 0);
        valid.then_some(Self(bytes))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let length = self.0.iter().position(|byte| *byte == 0).unwrap_or(self.0.len());
        std::str::from_utf8(&self.0[..length]).expect("letters, digits and hyphens")
    }
}

impl std::fmt::Debug for ProtocolName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The header of a trace: what a checker must know of the group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The version of the format.
    pub version: u16,
    /// Who wrote it.
    pub writer: Writer,
    /// The ordering protocol.
    pub protocol: ProtocolName,
    /// Number of replicas n.
    pub replicas: u16,
    /// Tolerated faults f.
    pub faults: u16,
    /// Number of pillars P.
    pub pillars: u16,
    /// Epoch of the configuration.
    pub epoch: u32,
    /// Order window in order numbers.
    pub window: u64,
    /// Orders between two checkpoints.
    pub checkpoint_interval: u64,
    /// The members of the group.
    pub members: Peers,
    /// Members that the writer knows to be faulty, because it makes them so: the simulator's
    /// Byzantine hosts. Their own events prove nothing.
    pub faulty: Peers,
    /// The sizes of its quorums.
    pub quorums: Quorums,
    /// Digest of the group constants.
    pub group: Digest,
    /// The moment of time 0, in microseconds since 1970 (UTC); 0 in a simulation.
    pub started_unix_us: u64,
}

impl Header {
    /// The header of a trace of a group.
    #[must_use]
    pub fn new(writer: Writer, config: &GroupConfig, started_unix_us: u64) -> Self {
        Self {
            version: VERSION,
            writer,
            protocol: ProtocolName::of(config.protocol),
            replicas: config.replicas,
            faults: config.faults,
            pillars: config.pillars,
            epoch: config.epoch,
            window: config.window,
            checkpoint_interval: config.checkpoint_interval,
            members: config.all_replicas().collect(),
            faulty: Peers::default(),
            quorums: quorums(config.protocol, config.replicas, config.faults),
            group: config.digest(),
            started_unix_us,
        }
    }

    /// The bytes, in this version of the format.
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
        out.bytes(&self.protocol.0);
        out.put_u64(self.members.bits());
        out.put_u64(self.faulty.bits());
        record::put_quorums(&mut out, &self.quorums);
        out.put_u32(0);
        out.try_into().expect("the fields add up")
    }

    /// Reads the header at the start of a trace, of this version of the format or an older one.
    ///
    /// # Errors
    /// If the bytes are no trace, or one of a later version.
    pub fn parse(bytes: &[u8]) -> Result<Self, TraceError> {
        if !bytes.starts_with(&MAGIC) {
            return Err(TraceError::NotATrace);
        }
        let mut reader = Reader::new(&bytes[MAGIC.len()..]);
        let found = reader.u16().map_err(TraceError::Header)?;
        if found != VERSION && found != v1::VERSION {
            return Err(TraceError::Version { found, wanted: VERSION });
        }
        Self::read(found, &mut reader).map_err(TraceError::Header)
    }

    fn read(version: u16, reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let writer = match reader.u16()? {
            0 => Writer::Replica,
            1 => Writer::Simulator,
            _ => return Err(WireError::Field("writer")),
        };
        let (replicas, faults, pillars) = (reader.u16()?, reader.u16()?, reader.u16()?);
        reader.zeros(2)?;
        let mut header = Self {
            version,
            writer,
            // The only one that version 1 knows.
            protocol: ProtocolName::of(Protocol::Hybster),
            replicas,
            faults,
            pillars,
            epoch: reader.u32()?,
            window: reader.u64()?,
            checkpoint_interval: reader.u64()?,
            members: (0..replicas.min(MAX_REPLICAS)).map(ReplicaId).collect(),
            faulty: Peers::default(),
            quorums: quorums(Protocol::Hybster, replicas, faults),
            group: reader.digest()?,
            started_unix_us: reader.u64()?,
        };
        if version == v1::VERSION {
            return Ok(header);
        }
        let name = reader.take(16)?.try_into().expect("as long as asked for");
        header.protocol = ProtocolName::parse(name).ok_or(WireError::Field("protocol"))?;
        (header.members, header.faulty) = (record::peers(reader)?, record::peers(reader)?);
        header.quorums = record::quorums(reader)?;
        reader.zeros(4)?;
        header.check()?;
        Ok(header)
    }

    /// What a checker divides by and indexes with.
    fn check(&self) -> Result<(), WireError> {
        let is = |holds: bool, field| if holds { Ok(()) } else { Err(WireError::Field(field)) };
        is(self.members.len() == usize::from(self.replicas) && self.replicas > 0, "members")?;
        is(self.faulty.is_subset(self.members), "faulty")?;
        is(self.faults < self.replicas, "faults")?;
        is((1..=256).contains(&self.pillars), "pillars")?;
        is(self.checkpoint_interval > 0, "checkpoint interval")
    }
}

/// The quorums of a protocol, for n replicas of which f may be faulty.
fn quorums(protocol: Protocol, n: u16, f: u16) -> Quorums {
    let rules = protocol.rules();
    let (support, prepare) = match protocol {
        // The leader's counter grants one proposal per view and order number.
        Protocol::Hybster => (Threshold::OneCorrect.of(n, f), 1),
        // No view takes precedence; and votes see to it that there is one proposal.
        Protocol::Pbft => (rules.quorum.of(n, f), rules.quorum.of(n, f) as u16),
    };
    let number = |replicas: usize| u16::try_from(replicas).unwrap_or(u16::MAX);
    let quorum = number(rules.quorum.of(n, f));
    Quorums {
        elect: quorum,
        support: number(support),
        prepare,
        commit: quorum,
        stable: number(rules.stable.of(n, f)),
        reply: number(rules.reply.of(n, f)),
    }
}
