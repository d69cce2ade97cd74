//! Replies to clients. A message has the replies of one replica to the sessions of one link; the
//! link's MAC authenticates them.
//!
//! ```text
//!  head (16): | kind 0 replica:u16 | 0:u32 | view:u64 |
//!  entry:     | tag, index:u64 | number:u64 | len:u32 | status:u8 000 | result … |
//! ```
//! The link determines client and incarnation, so an entry has only the index of the session inside
//! the incarnation, in the lowest 14 bits. The other bits hold the [tag](RequestTag) of the
//! request.

use super::request::RequestTag;
use super::{Put, Reader, WireError, kind, put_some};
use crate::ids::{ReplicaId, RequestNumber, SessionId, View};

/// Bytes before the first entry.
pub const REPLIES_HEAD: usize = 16;
/// Bytes of an entry before its result.
pub const REPLY_ENTRY: usize = 24;

/// The outcome of a request at one replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum ReplyStatus {
    /// The service's result follows.
    Done = 0,
    /// The session is no longer known (evicted, or opened too late): open a new one.
    Evicted = 1,
    /// The number is below the session's window: it was used long ago.
    Stale = 2,
    /// The result was longer than the group allows.
    TooLong = 3,
    /// The service requires that this read-only query is ordered.
    OrderIt = 4,
    /// Refused without being ordered: the replica's buffers are full; try again later.
    Overloaded = 5,
    /// Another request with the same session and number ran. This one did not, and never will.
    NumberTaken = 6,
    /// Executed, but the result is not kept any more: the group bounds what it keeps.
    ResultGone = 7,
    /// Not executed so far, and nothing is: the states of the replicas differ, so that nothing can be
    /// ordered. It may still be executed if that comes to an end.
    StatesDiffer = 8,
    /// Refused without being ordered: the replica's disk is full; try again later.
    DiskFull = 9,
}

impl ReplyStatus {
    pub(crate) fn from_u8(value: u8) -> Option<Self> {
        Some(match value {
            0 => Self::Done,
            1 => Self::Evicted,
            2 => Self::Stale,
            3 => Self::TooLong,
            4 => Self::OrderIt,
            5 => Self::Overloaded,
            6 => Self::NumberTaken,
            7 => Self::ResultGone,
            8 => Self::StatesDiffer,
            9 => Self::DiskFull,
            _ => return None,
        })
    }
}

/// One reply inside a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyEntry<'a> {
    /// The index of the session; client and incarnation are the link's.
    pub index: u32,
    /// The request's tag.
    pub tag: RequestTag,
    /// The request's number.
    pub number: RequestNumber,
    /// How the request ended.
    pub status: ReplyStatus,
    /// The service's result.
    pub result: &'a [u8],
}

/// Starts a message.
pub fn begin(out: &mut Vec<u8>, replica: ReplicaId, view: View) {
    out.put_u8(kind::REPLIES);
    out.put_u8(0);
    out.put_u16(replica.0);
    out.put_u32(0);
    out.put_u64(view.0);
}

/// Appends an entry to a message.
#[inline]
pub fn append(out: &mut Vec<u8>, entry: &ReplyEntry<'_>) {
    let first = entry.tag.value() << SessionId::INDEX_BITS | u64::from(entry.index);
    let length = u32::try_from(entry.result.len()).expect("results are bounded");
    // Three words written at once: every reply of every replica goes through here.
    let last = u64::from(length) | u64::from(entry.status as u8) << 32;
    let mut head = [0; REPLY_ENTRY];
    head[..8].copy_from_slice(&first.to_le_bytes());
    head[8..16].copy_from_slice(&entry.number.0.to_le_bytes());
    head[16..].copy_from_slice(&last.to_le_bytes());
    out.extend_from_slice(&head);
    put_some(out, entry.result);
}

/// A REPLIES message parsed in place.
#[derive(Clone, Copy, Debug)]
pub struct Replies<'a> {
    /// The replica that claims to answer; the caller compares it with the link's peer.
    pub replica: ReplicaId,
    /// Its stable view.
    pub view: View,
    entries: &'a [u8],
}

impl<'a> Replies<'a> {
    /// Parses the head.
    ///
    /// # Errors
    /// If it is short or of another kind.
    pub fn parse(message: &'a [u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(message);
        reader.expect_kind(kind::REPLIES)?;
        reader.zeros(1)?;
        let replica = reader.replica()?;
        reader.zeros(4)?;
        let view = reader.view()?;
        let left = reader.left();
        Ok(Replies { replica, view, entries: reader.take(left)? })
    }
}

impl<'a> Iterator for Replies<'a> {
    type Item = Result<ReplyEntry<'a>, WireError>;

    // A client runs this for every reply. Out of line, the entry is written to memory and read back,
    // which took a third of the samples of the client's handling of replies.
    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.entries.is_empty() {
            return None;
        }
        let mut reader = Reader::new(self.entries);
        let mut parse = || -> Result<ReplyEntry<'a>, WireError> {
            let first = reader.u64()?;
            let number = RequestNumber(reader.u64()?);
            let length = reader.u32()? as usize;
            let status = ReplyStatus::from_u8(reader.u8()?).ok_or(WireError::Field("status"))?;
            reader.zeros(3)?;
            let tag = RequestTag::new(first >> SessionId::INDEX_BITS);
            let index = (first & ((1 << SessionId::INDEX_BITS) - 1)) as u32;
            Ok(ReplyEntry { index, tag, number, status, result: reader.take(length)? })
        };
        let entry = parse();
        let left = reader.left();
        self.entries = match entry {
            Ok(_) => &self.entries[self.entries.len() - left..],
            Err(_) => &[],
        };
        Some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_survive_the_round_trip() {
        let mut out = Vec::new();
        begin(&mut out, ReplicaId(2), View(9));
        let entries = [
            ReplyEntry {
                index: 5,
                tag: RequestTag::new(77),
                number: RequestNumber(1),
                status: ReplyStatus::Done,
                result: b"",
            },
            ReplyEntry {
                index: (1 << SessionId::INDEX_BITS) - 1,
                tag: RequestTag::new(u64::MAX),
                number: RequestNumber(2),
                status: ReplyStatus::Evicted,
                result: b"xyz",
            },
        ];
        for entry in &entries {
            append(&mut out, entry);
        }
        let replies = Replies::parse(&out).unwrap();
        assert_eq!((replies.replica, replies.view), (ReplicaId(2), View(9)));
        let parsed: Vec<_> = replies.collect::<Result<_, _>>().unwrap();
        assert_eq!(parsed, entries);
        for cut in REPLIES_HEAD + 1..out.len() {
            let replies = Replies::parse(&out[..cut]).unwrap();
            assert!(replies.clone().any(|r| r.is_err()) || cut == REPLIES_HEAD + REPLY_ENTRY);
        }
    }
}
