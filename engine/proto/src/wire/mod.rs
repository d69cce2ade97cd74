//! The wire format of protocol messages: fixed little-endian layouts, parsed in place.
//!
//! Every message starts with its kind byte. All bytes are hostile until the message's authenticator
//! has been checked. Parsing never panics, and allocates no more than the length of the message
//! allows. The layouts are drawn in `engine/proto/WIRE.md`.

pub mod help;
pub mod relay;
pub mod reply;
pub mod request;
pub mod state;

pub use reply::{ReplyEntry, ReplyStatus};
pub use request::{
    REQUEST_HEADER, REQUEST_MAC, REQUEST_OVERHEAD_MAX, REQUEST_SIGNATURE, RequestProof, RequestRef,
    RequestTag, Requests,
};
pub use state::CheckpointId;

use hybster_tss::Digest;

use crate::ids::{OrderNumber, PillarId, ReplicaId, View};

/// Kind bytes of messages.
pub mod kind {
    /// Requests of a client, or forwarded by a replica.
    pub const REQUESTS: u8 = 1;
    /// Replies to a client.
    pub const REPLIES: u8 = 2;
    /// PREPARE (TR listing 16).
    pub const PREPARE: u8 = 3;
    /// COMMIT (TR listing 16).
    pub const COMMIT: u8 = 4;
    /// CHECKPOINT (TR listing 18).
    pub const CHECKPOINT: u8 = 5;
    /// VIEW-CHANGE (TR listing 19).
    pub const VIEW_CHANGE: u8 = 6;
    /// NEW-VIEW (TR listing 19).
    pub const NEW_VIEW: u8 = 7;
    /// NEW-VIEW-ACK (TR listing 19).
    pub const NEW_VIEW_ACK: u8 = 8;
    /// STATE-REQUEST (TR listing 20).
    pub const STATE_REQUEST: u8 = 9;
    /// STATE: the stable checkpoint's certificate. The rest of what TR listing 20 puts into STATE
    /// travels as messages of other kinds.
    pub const STATE: u8 = 10;
    /// Asks for ordering messages of one pillar (the ordering part of a STATE-REQUEST).
    pub const ORDER_REQUEST: u8 = 11;
    /// Asks for batches by digest.
    pub const BATCH_REQUEST: u8 = 12;
    /// A batch that was asked for.
    pub const BATCH: u8 = 13;
    /// Asks for nodes and pages of a checkpoint.
    pub const FETCH: u8 = 14;
    /// A node or page of a checkpoint.
    pub const FETCHED: u8 = 15;
    /// Read-only requests that are answered without ordering.
    pub const QUERIES: u8 = 16;
    /// Asks a replica for its status.
    pub const STATUS_REQUEST: u8 = 17;
    /// A replica's status as text lines.
    pub const STATUS: u8 = 18;
    /// A follower's replies, sealed for a client, that the leader is to pass on.
    pub const RELAY: u8 = 19;
    /// The same, from the leader to the client.
    pub const RELAYED: u8 = 20;
    /// The last certificate that the sender has had from the receiver.
    pub const LAST_SEEN: u8 = 21;
    /// Asks for the end of an epoch.
    pub const EPOCH_REQUEST: u8 = 22;
    /// The end of an epoch: its last checkpoint, and the next configuration.
    pub const EPOCH: u8 = 23;
}

/// Why bytes are not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The message ends early.
    #[error("the message is shorter than its layout needs")]
    Short,
    /// Bytes follow the end of the message.
    #[error("the message is longer than its layout says")]
    Trailing,
    /// A form that the format reserves and this program does not know.
    #[error("{0} cannot be checked by this program")]
    Unsupported(&'static str),
    /// A field has a value outside its range.
    #[error("field {0} is out of range")]
    Field(&'static str),
}

/// The kind byte of a message, 0 if it is empty.
#[must_use]
pub fn kind_of(message: &[u8]) -> u8 {
    message.first().copied().unwrap_or(0)
}

/// The pillar field of the kinds that are handled in pillars (offset 2).
#[must_use]
pub fn pillar_field(message: &[u8]) -> Option<PillarId> {
    let bytes = message.get(2..4)?;
    Some(PillarId(u16::from_le_bytes([bytes[0], bytes[1]])))
}

/// Reads fixed-size fields from the front of untrusted bytes.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes }
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.bytes.split_at_checked(length).ok_or(WireError::Short)?;
        self.bytes = rest;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        let (head, rest) = self.bytes.split_first_chunk::<N>().ok_or(WireError::Short)?;
        self.bytes = rest;
        Ok(*head)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16, WireError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, WireError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, WireError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn digest(&mut self) -> Result<Digest, WireError> {
        Ok(Digest(self.array()?))
    }

    pub(crate) fn view(&mut self) -> Result<View, WireError> {
        Ok(View(self.u64()?))
    }

    pub(crate) fn order(&mut self) -> Result<OrderNumber, WireError> {
        Ok(OrderNumber(self.u64()?))
    }

    pub(crate) fn replica(&mut self) -> Result<ReplicaId, WireError> {
        Ok(ReplicaId(self.u16()?))
    }

    pub(crate) fn pillar(&mut self) -> Result<PillarId, WireError> {
        Ok(PillarId(self.u16()?))
    }

    pub(crate) fn expect_kind(&mut self, kind: u8) -> Result<(), WireError> {
        if self.u8()? == kind { Ok(()) } else { Err(WireError::Field("kind")) }
    }

    /// Padding must be zero, so that certified headers have no bytes for a liar to choose.
    pub(crate) fn zeros(&mut self, count: usize) -> Result<(), WireError> {
        if self.take(count)?.iter().all(|b| *b == 0) {
            Ok(())
        } else {
            Err(WireError::Field("padding"))
        }
    }

    pub(crate) fn end(self) -> Result<(), WireError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(WireError::Trailing) }
    }

    /// A count of items that take at least `item` bytes each of what is left.
    pub(crate) fn count(&mut self, item: usize, name: &'static str) -> Result<usize, WireError> {
        let count = self.u32()? as usize;
        match count.checked_mul(item) {
            Some(bytes) if bytes <= self.left() => Ok(count),
            _ => Err(WireError::Field(name)),
        }
    }
}

/// Appends fixed-size fields.
pub(crate) trait Put {
    fn bytes(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    fn put_u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }
}

/// Appends bytes of which there are often none, as operations and results: then no copy is made.
#[inline]
pub(crate) fn put_some(out: &mut Vec<u8>, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.extend_from_slice(bytes);
    }
}

impl Put for Vec<u8> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// BLAKE3 of bytes that start with a kind byte, which separates the domains of certified messages.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    Digest(*blake3::hash(bytes).as_bytes())
}
