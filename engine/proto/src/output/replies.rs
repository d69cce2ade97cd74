//! Replies to clients, as the execution stage hands them to egress.

use hybster_tss::Digest;

use crate::ids::{RequestNumber, SessionId, View};
use crate::input::ClientLink;
use crate::wire::{ReplyStatus, RequestTag, put_some};

/// Why a replica replies.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Cause {
    /// The request has just been executed.
    Executed,
    /// It is a query.
    Queried,
    /// The client asked before, or gets no result: what it is told must not depend on the leader.
    AskedAgain,
    /// There is a reply that is not in here, as it has no room: the session table keeps the result, and
    /// gives it when it is recalled ([`crate::input::ToExecution::Recall`]). No message is made of this.
    Deferred,
    /// It was deferred, and is given now.
    Recalled,
}

/// Replies with longer results, in bytes, are sent only when their link has room
/// ([`crate::backlog`]).
pub const LARGE_REPLY_BYTES: usize = 16 << 10;

/// Bytes that a [`ResultsDigest`] gathers before it hashes them.
const PIECES_BYTES: usize = 16 << 10;
/// Bytes before a result in it.
const RESULT_HEAD: usize = 5;
/// In a [`ResultsDigest`], beside the status: a result follows.
const HAS_RESULT: u8 = 0x80;
/// A queue that is emptied keeps memory for results of so many bytes.
const KEPT_RESULT_BYTES: usize = 8 << 20;
/// And memory for so many replies.
const KEPT_RECORDS: usize = 1 << 16;

/// Replies of one replica, kept flat so that pushing one allocates nothing.
#[derive(Default, Debug)]
pub struct ReplyQueue {
    entries: Vec<ReplyRecord>,
    results: Vec<u8>,
    /// Whether some may have to wait for room.
    is_large: bool,
}

/// Bytes that a reply takes in a [`ReplyQueue`] besides its result.
pub(crate) const REPLY_RECORD_BYTES: u64 = size_of::<ReplyRecord>() as u64;
/// Bytes that an emptied [`ReplyQueue`] keeps at most.
pub const SPARE_QUEUE_BYTES: u64 =
    KEPT_RESULT_BYTES as u64 + KEPT_RECORDS as u64 * REPLY_RECORD_BYTES;

#[derive(Debug, Clone, Copy)]
struct ReplyRecord {
    session: SessionId,
    number: RequestNumber,
    tag: RequestTag,
    view: View,
    cause: Cause,
    status: ReplyStatus,
    end: usize,
}

/// A reply in a [`ReplyQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The session; its client and incarnation tell the link.
    pub session: SessionId,
    /// The request's number.
    pub number: RequestNumber,
    /// What tells it from others with that number.
    pub tag: RequestTag,
    /// The replica's stable view.
    pub view: View,
    /// Why it is given.
    pub cause: Cause,
    /// What became of the request.
    pub status: ReplyStatus,
    /// The result.
    pub result: &'a [u8],
}

impl Reply<'_> {
    /// The link that the reply goes to.
    #[must_use]
    pub fn link(&self) -> ClientLink {
        ClientLink { client: self.session.client, incarnation: self.session.incarnation() }
    }
}

impl ReplyQueue {
    /// Appends a reply.
    pub fn push(&mut self, reply: &Reply<'_>) {
        let Reply { session, number, tag, view, cause, status, result } = *reply;
        self.is_large |= result.len() > LARGE_REPLY_BYTES || cause >= Cause::Deferred;
        put_some(&mut self.results, result);
        let end = self.results.len();
        self.entries.push(ReplyRecord { session, number, tag, view, cause, status, end });
    }

    /// Whether it has a reply that may have to wait for room: a large one, or one that was deferred.
    #[inline]
    #[must_use]
    pub fn has_large(&self) -> bool {
        self.is_large
    }

    /// Bytes of results.
    #[inline]
    #[must_use]
    pub fn result_bytes(&self) -> usize {
        self.results.len()
    }

    /// Number of replies.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The replies in order.
    pub fn iter(&self) -> impl Iterator<Item = Reply<'_>> {
        let mut start = 0;
        self.entries.iter().map(move |e| {
            let result = &self.results[start..e.end];
            start = e.end;
            Reply {
                session: e.session,
                number: e.number,
                tag: e.tag,
                view: e.view,
                cause: e.cause,
                status: e.status,
                result,
            }
        })
    }

    /// Forgets all, keeps the memory unless it is much.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.entries.shrink_to(KEPT_RECORDS);
        self.results.clear();
        self.results.shrink_to(KEPT_RESULT_BYTES);
        self.is_large = false;
    }

    /// Moves all replies of `other` to the end of this queue.
    pub fn append(&mut self, other: &mut Self) {
        self.is_large |= std::mem::take(&mut other.is_large);
        let base = self.results.len();
        self.results.append(&mut other.results);
        self.entries.extend(other.entries.drain(..).map(|mut e| {
            e.end += base;
            e
        }));
    }
}

/// Digest of what the requests of a batch are answered: for each of them, in the order of the batch, its
/// status (a byte), to which 0x80 is added if there is a result; then follow the result's length (four
/// bytes, little-endian) and the result. Whose requests they are says the batch, so that is left out;
/// so are view and cause and whether a reply is deferred: the digest must not depend on them.
#[derive(Debug)]
pub struct ResultsDigest {
    hasher: blake3::Hasher,
    pieces: Vec<u8>,
}

impl ResultsDigest {
    /// Of no replies.
    #[must_use]
    pub fn new() -> Self {
        // Hashing many short pieces together is several times faster than one by one.
        let pieces = Vec::with_capacity(PIECES_BYTES + RESULT_HEAD);
        Self { hasher: blake3::Hasher::new(), pieces }
    }

    /// Adds a reply.
    pub fn add(&mut self, reply: &Reply<'_>) {
        let Self { hasher, pieces } = self;
        if reply.result.is_empty() {
            if pieces.len() >= PIECES_BYTES {
                hasher.update(pieces);
                pieces.clear();
            }
            pieces.push(reply.status as u8);
            return;
        }
        pieces.push(reply.status as u8 | HAS_RESULT);
        pieces.extend_from_slice(&(reply.result.len() as u32).to_le_bytes());
        if pieces.len() + reply.result.len() > PIECES_BYTES {
            hasher.update(pieces);
            hasher.update(reply.result);
            pieces.clear();
        } else {
            pieces.extend_from_slice(reply.result);
        }
    }

    /// The digest. Nothing is left of the replies.
    pub fn finish(&mut self) -> Digest {
        self.hasher.update(&self.pieces);
        let digest = Digest(*self.hasher.finalize().as_bytes());
        self.hasher.reset();
        self.pieces.clear();
        digest
    }
}

impl Default for ResultsDigest {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientId;

    /// As `TRACE.md` says, whatever is hashed together.
    #[test]
    fn the_digest_of_results_is_that_of_the_bytes_that_the_format_names() {
        let results: [&[u8]; 4] = [b"", b"result", &[7; 3 * PIECES_BYTES], b""];
        let (mut digest, mut bytes) = (ResultsDigest::new(), Vec::new());
        let gathers = digest.pieces.capacity();
        for round in 0..2 * PIECES_BYTES {
            // Mostly none, so that what is gathered is full of them now and then.
            let result = if round % 5_000 < 4 { results[round % 4] } else { b"" };
            digest.add(&Reply {
                session: SessionId::new(ClientId(3), 1, 0),
                number: RequestNumber(9),
                tag: RequestTag::new(5),
                view: View(2),
                cause: Cause::Executed,
                status: ReplyStatus::ResultGone,
                result,
            });
            assert_eq!(digest.pieces.capacity(), gathers, "nothing is allocated");
            let status = ReplyStatus::ResultGone as u8;
            if result.is_empty() {
                bytes.push(status);
            } else {
                bytes.push(status | 0x80);
                bytes.extend((result.len() as u32).to_le_bytes());
                bytes.extend(result);
            }
        }
        assert_eq!(digest.finish(), Digest::of(&bytes));
        assert_eq!(digest.finish(), Digest::of(b""), "nothing is left of them");
    }
}
