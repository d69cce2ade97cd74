//! Output of a [`ClientCore`](super::ClientCore) for its driver: messages, completions, counters.

use super::proofs::Unproved;
use crate::ids::{ReplicaId, RequestNumber};
use crate::time::Time;
use crate::wire::request::{REQUESTS_HEAD, RequestRef, requests_head, retransmission_head};
use crate::wire::{REQUEST_OVERHEAD_MAX, kind, put_some};

/// How a request is executed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum RequestKind {
    /// Agreed on and executed by all replicas.
    Ordered,
    /// Answered from each replica's present state if all n agree, and ordered otherwise. Only for
    /// operations that change nothing.
    ReadOnly,
}

/// The outcome of a request, for which f+1 replicas vouch (all n for an unordered answer).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Outcome {
    /// Executed; the completion has the result.
    Done,
    /// The session was evicted, so its requests are no longer known, and it is unknown whether this
    /// one was executed. The session refuses further requests.
    Evicted,
    /// The number is below the session's window: it was used long ago.
    Stale,
    /// Executed, but the result was longer than the group allows.
    TooLong,
    /// Another client has used the session and the number for another operation. This one was not
    /// executed, and never will.
    NumberTaken,
    /// Executed, but the replies were lost and the result is not kept any more: the group's clients
    /// have had more and larger results since than it keeps.
    ResultGone,
    /// f+1 replicas say that the states of the group's replicas differ, so that nothing can be ordered
    /// any more, in no view. It may still be executed if that comes to an end.
    StatesDiffer,
    /// f+1 replicas keep refusing it because their buffers are full.
    Overloaded,
    /// f+1 replicas keep refusing it because their disks are full. It may still be executed.
    DiskFull,
    /// No certificate within the limit that [`ClientCore::give_up_after`] set. It may still be
    /// executed.
    ///
    /// [`ClientCore::give_up_after`]: super::ClientCore::give_up_after
    TimedOut,
    /// The same, and replicas had given different results.
    RepliesDiffer,
}

/// A request was not taken; nothing was sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SubmitError {
    /// There is no such session.
    #[error("there is no session {session}; this client has sessions 0 to {}", sessions - 1)]
    NoSession {
        /// The index asked for.
        session: u32,
        /// Number of sessions.
        sessions: u32,
    },
    /// The numbers of the session's outstanding requests would span more than its window.
    #[error("session {session} has its window of {window} outstanding requests; wait for one")]
    WindowFull {
        /// The session.
        session: u32,
        /// The group's session window W.
        window: u32,
    },
    /// The group evicted the session.
    #[error("session {session} was evicted by the group; use a session of a new incarnation")]
    Evicted {
        /// The session.
        session: u32,
    },
    /// The operation is longer than the group allows.
    #[error("an operation of {length} bytes exceeds the group's limit of {limit} bytes")]
    TooLong {
        /// The operation's length in bytes.
        length: usize,
        /// The group's limit in bytes.
        limit: usize,
    },
}

/// A finished request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion<'a> {
    /// Index of the session.
    pub session: u32,
    /// The number that [`submit`](super::ClientCore::submit) returned.
    pub number: RequestNumber,
    /// How the request ended.
    pub outcome: Outcome,
    /// The service's result; empty unless `outcome` is [`Outcome::Done`].
    pub result: &'a [u8],
    /// When it was submitted.
    pub submitted_at: Time,
}

/// Finished requests, in flat memory, so that pushing one allocates nothing.
#[derive(Default, Debug)]
pub struct Completions {
    records: Vec<Record>,
    results: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    number: RequestNumber,
    submitted_at: Time,
    end: usize,
    session: u32,
    outcome: Outcome,
}

impl Completions {
    /// Number of finished requests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// The finished requests, in the order in which they finished.
    pub fn iter(&self) -> impl Iterator<Item = Completion<'_>> {
        let mut start = 0;
        self.records.iter().map(move |r| {
            let result = &self.results[start..r.end];
            start = r.end;
            Completion {
                session: r.session,
                number: r.number,
                outcome: r.outcome,
                result,
                submitted_at: r.submitted_at,
            }
        })
    }

    /// Removes all, but keeps the memory.
    pub fn clear(&mut self) {
        self.records.clear();
        self.results.clear();
    }

    #[inline]
    pub(super) fn push(
        &mut self,
        session: u32,
        number: RequestNumber,
        outcome: Outcome,
        result: &[u8],
        submitted_at: Time,
    ) {
        put_some(&mut self.results, result);
        let end = self.results.len();
        self.records.push(Record { number, submitted_at, end, session, outcome });
    }
}

/// Buffers for the effects of the core. The driver sends the messages that
/// [`ClientCore::outgoing`](super::ClientCore::outgoing) returns, reads the completions, clears
/// both and passes the same object in again.
#[derive(Debug)]
pub struct ClientOutput {
    /// Per replica a REQUESTS message, complete with its head; empty if there is nothing to send.
    pub(super) messages: Vec<Vec<u8>>,
    /// The same with requests that were sent before, which its head says.
    pub(super) retransmissions: Vec<Vec<u8>>,
    /// Per replica a QUERIES message, complete with its head; empty if there is nothing to send.
    pub(super) queries: Vec<Vec<u8>>,
    /// Finished requests.
    pub completions: Completions,
    pub(super) scratch: Vec<u8>,
    pub(super) unproved: Unproved,
}

impl ClientOutput {
    /// Empty buffers for a group of this many replicas.
    #[must_use]
    pub fn new(replicas: u16) -> Self {
        let buffers = || (0..replicas).map(|_| Vec::new()).collect();
        Self {
            messages: buffers(),
            retransmissions: buffers(),
            queries: buffers(),
            completions: Completions::default(),
            scratch: Vec::new(),
            unproved: Unproved::default(),
        }
    }

    pub(super) fn filled(&self) -> impl Iterator<Item = (ReplicaId, &[u8])> {
        self.lanes().into_iter().flat_map(|buffers| {
            let full = buffers.iter().enumerate().filter(|(_, m)| !m.is_empty());
            full.map(|(r, m)| (ReplicaId(r as u16), m.as_slice()))
        })
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn nothing_to_send(&self) -> bool {
        self.lanes().into_iter().flatten().all(Vec::is_empty)
    }

    /// Removes the messages, but keeps their memory.
    pub fn clear_messages(&mut self) {
        let lanes = [&mut self.messages, &mut self.retransmissions, &mut self.queries];
        lanes.into_iter().flatten().for_each(Vec::clear);
        self.unproved = Unproved::default();
    }

    /// Removes messages and completions, but keeps the memory.
    pub fn clear(&mut self) {
        self.clear_messages();
        self.completions.clear();
    }

    fn lanes(&self) -> [&Vec<Vec<u8>>; 3] {
        [&self.messages, &self.retransmissions, &self.queries]
    }

    /// Bytes that wait for a replica.
    pub(super) fn bytes(&self, lane: Lane, to: usize) -> usize {
        let [requests, retransmissions, queries] = self.lanes();
        match lane {
            Lane::Request => requests[to].len(),
            Lane::Retransmission => retransmissions[to].len(),
            Lane::Query => queries[to].len(),
        }
    }

    /// The buffer for records to a replica, with the head of its message in front.
    #[inline]
    pub(super) fn buffer(&mut self, lane: Lane, to: usize) -> &mut Vec<u8> {
        let buffer = match lane {
            Lane::Request => &mut self.messages[to],
            Lane::Retransmission => &mut self.retransmissions[to],
            Lane::Query => &mut self.queries[to],
        };
        if buffer.is_empty() {
            buffer.extend_from_slice(&match lane {
                Lane::Request => requests_head(kind::REQUESTS),
                Lane::Retransmission => retransmission_head(),
                Lane::Query => requests_head(kind::QUERIES),
            });
        }
        buffer
    }
}

/// The kinds of messages that a client sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// Requests that a replica has not been sent before, or has refused to take.
    Request,
    /// Requests that it may have been sent before.
    Retransmission,
    Query,
}

/// Cuts a REQUESTS or QUERIES message into runs of whole records, so that each run together with
/// the message's head ([`REQUESTS_HEAD`] bytes) has at most `limit` bytes, or is one record.
pub fn pieces(message: &[u8], limit: usize) -> impl Iterator<Item = &[u8]> {
    let mut rest = message.get(REQUESTS_HEAD..).unwrap_or_default();
    let room = limit.saturating_sub(REQUESTS_HEAD).max(REQUEST_OVERHEAD_MAX);
    std::iter::from_fn(move || {
        let mut end = rest.len();
        if end > room {
            end = 0;
            while let Ok((request, _)) = RequestRef::split(&rest[end..]) {
                if end > 0 && end + request.record.len() > room {
                    break;
                }
                end += request.record.len();
            }
        }
        let (piece, left) = rest.split_at(end);
        rest = left;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Counters of a client core since it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientStats {
    /// Requests taken by `submit`.
    pub submitted: u64,
    /// Requests that ended with [`Outcome::Done`].
    pub accepted: u64,
    /// Requests that ended otherwise.
    pub failed: u64,
    /// Read-only requests answered without ordering; they are accepted ones too.
    pub unordered: u64,
    /// Read-only requests that had to be ordered after all.
    pub fallbacks: u64,
    /// Requests sent again, each counted once per time and not per replica.
    pub retransmissions: u64,
    /// Replies that say [`Overloaded`](crate::wire::ReplyStatus::Overloaded) or
    /// [`DiskFull`](crate::wire::ReplyStatus::DiskFull).
    pub overloads: u64,
    /// Replies about requests of another client that uses this one's sessions and numbers. There
    /// should be none: see [`Outcome::NumberTaken`].
    pub foreign: u64,
    /// How often f+1 replicas vouched for a higher view.
    pub view_changes: u64,
    /// Replies after their request had ended: the replicas beyond the first f+1, mostly.
    pub late: u64,
    /// Replies that a replica had given before.
    pub duplicates: u64,
    /// Per replica: replies that contradict the accepted result or the replica's own earlier
    /// reply. A correct replica has none ("r is faulty", TR listing 14).
    pub mismatching: Vec<u64>,
    /// Per replica: replies to a session or number that was never used. A correct one has none.
    pub unknown: Vec<u64>,
    /// Per replica: messages that are malformed or lie about their sender. A correct one has none.
    pub malformed: Vec<u64>,
}

impl ClientStats {
    pub(super) fn new(replicas: u16) -> Self {
        let zeros = vec![0; usize::from(replicas)];
        Self {
            mismatching: zeros.clone(),
            unknown: zeros.clone(),
            malformed: zeros,
            ..Self::default()
        }
    }
}
