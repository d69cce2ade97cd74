//! Replies to clients, as the execution stage hands them to egress.

use hybster_tss::Digest;

use crate::ids::{RequestNumber, SessionId, View};
use crate::input::ClientLink;
use crate::wire::{ReplyStatus, RequestTag};

/// Why a replica replies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// The request has just been executed.
    Executed,
    /// It is a query.
    Queried,
    /// The client asked before, or gets no result: what it is told must not depend on the leader.
    AskedAgain,
}

/// Bytes that [`ReplyQueue::digest_since`] gathers before it hashes them.
const PIECES_BYTES: usize = 16 << 10;

/// Replies of one replica, kept flat so that pushing one allocates nothing.
#[derive(Default, Debug)]
pub struct ReplyQueue {
    entries: Vec<ReplyRecord>,
    results: Vec<u8>,
}

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
        self.results.extend_from_slice(result);
        let end = self.results.len();
        self.entries.push(ReplyRecord { session, number, tag, view, cause, status, end });
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
        self.iter_from(0)
    }

    /// The replies from the one with an index on.
    fn iter_from(&self, index: usize) -> impl Iterator<Item = Reply<'_>> {
        let (before, entries) = self.entries.split_at(index);
        let mut start = before.last().map_or(0, |e| e.end);
        entries.iter().map(move |e| {
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

    /// Digest of the replies from the one with an index on: for each client, session, number,
    /// status, length of the result and the result, numbers as little-endian (4, 8, 8, 1 and 4
    /// bytes). View and cause are left out: what a request is answered must not depend on them.
    #[must_use]
    pub fn digest_since(&self, index: usize) -> Digest {
        let mut hasher = blake3::Hasher::new();
        // Hashing many short pieces together is several times faster than one by one.
        let mut pieces = Vec::with_capacity(PIECES_BYTES);
        for reply in self.iter_from(index) {
            pieces.extend_from_slice(&reply.session.client.0.to_le_bytes());
            pieces.extend_from_slice(&reply.session.session.to_le_bytes());
            pieces.extend_from_slice(&reply.number.0.to_le_bytes());
            pieces.push(reply.status as u8);
            pieces.extend_from_slice(&(reply.result.len() as u32).to_le_bytes());
            if pieces.len() + reply.result.len() > PIECES_BYTES {
                hasher.update(&pieces);
                hasher.update(reply.result);
                pieces.clear();
            } else {
                pieces.extend_from_slice(reply.result);
            }
        }
        hasher.update(&pieces);
        Digest(*hasher.finalize().as_bytes())
    }

    /// Forgets all, keeps the memory.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.results.clear();
    }

    /// Moves all replies of `other` to the end of this queue.
    pub fn append(&mut self, other: &mut Self) {
        let base = self.results.len();
        self.results.append(&mut other.results);
        self.entries.extend(other.entries.drain(..).map(|mut e| {
            e.end += base;
            e
        }));
    }
}
