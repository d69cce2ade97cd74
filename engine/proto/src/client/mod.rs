//! The client role of the invocation protocol (TR listings 11 and 14) for many sessions at once.
//!
//! A [`ClientCore`] holds thousands of sessions of one client identity. It is sans-IO: the driver
//! passes in requests, received messages and the time, and sends what it finds in the
//! [`ClientOutput`]. Once the buffers have grown, a request allocates nothing.
//!
//! # What differs from TR listing 14, and why
//! - *One outstanding request* becomes a window of W: the numbers of a session's outstanding
//!   requests span less than W, so the last W results that replicas keep cover all of them.
//! - *v_c* is not the highest view of an accepted certificate. One of its f+1 replies may be a
//!   liar's, and a made-up huge view would send every later request to a replica that does not
//!   lead. Here v_c is the (f+1)-th largest of the highest views that the replicas have reported in
//!   any reply: at least one correct replica has entered it or a later one; and once f+1 correct
//!   replicas have reported a view, v_c has reached it, whatever the f others say.
//! - *Retransmission* goes to all replicas as in the TR, again and again with growing waits, at a
//!   bounded rate. It does not wait for a timeout when the leader's link breaks, when it is back,
//!   and when the leader changes.
//! - *Late contradictions*: a second, different reply of one replica is counted against it and
//!   ignored, as in the TR. Only error statuses may come after a result: a session that was
//!   evicted in between makes a correct replica answer so. Each statement of a replica
//!   counts for that statement alone, so f+1 equal ones always include a correct replica's.
//!
//! # Read-only requests
//! A query goes to all replicas; it is accepted if all n answer equally (DEVIATIONS 18). Any other
//! answer, a replica that is not connected, or a timeout has it ordered. Then:
//! - Replies do not tell whether a query or an ordered request is answered, so both must not share
//!   a number: the late answer of a correct replica that lags, to the query, together with a
//!   liar's reply would make f+1 equal replies for the ordered request with a stale result.
//! - A query's record looks like a request's, so a faulty leader that could order it would have the
//!   operation executed besides the ordered request, and would use up a number of the session.
//!
//! So each read-only request reserves one ordinary number N for the case that it is ordered, and
//! the query itself carries N − F + 1, where F is the session's first ordinary number. These
//! numbers lie below F (which is at least [`FIRST_NUMBER_MIN`]): no reply to the one passes for a
//! reply to the other, and the window is not disturbed. And a query carries zeros in place of the
//! request's MAC: the link authenticates it to the replica that answers, and nobody can order it.
//!
//! # Errors
//! Evicted, Stale, TooLong, NumberTaken, ResultGone and StatesDiffer end a request like a result does:
//! when f+1 replicas say so, so that a correct one does.
//! Overloaded and DiskFull are the advice of one replica about its own buffers and its disk. They make the core wait
//! and ask again; after several rounds, if f+1 replicas say so since the last transmission, the request
//! ends with [`Outcome::Overloaded`], or [`Outcome::DiskFull`] if f+1 replicas have no room on disk. A single replica
//! can make no request fail.

mod output;
mod proofs;
mod replies;
mod resend;
mod table;
mod timing;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use hybster_tss::RequestKey;

use crate::config::GroupConfig;
use crate::ids::{ClientId, ReplicaId, RequestNumber, SessionId, View};
use crate::time::Time;
use crate::wire::request::{RequestRef, append_proved, append_request};
use crate::wire::{REQUEST_MAC, RequestTag};
use output::Lane;
use table::{QUERY, Table};
use timing::Timing;

pub use output::{
    ClientOutput, ClientStats, Completion, Completions, Outcome, RequestKind, SubmitError, pieces,
};

/// Ordinary request numbers begin here at least; those below are for queries.
pub const FIRST_NUMBER_MIN: u64 = 1 << 48;

/// The client role of the invocation protocol for all sessions of one incarnation of a client.
///
/// The driver calls [`submit`](Self::submit), [`handle`](Self::handle), [`tick`](Self::tick) and
/// the link calls with a time that never goes back, and after each of them (or some of them) sends
/// what [`outgoing`](Self::outgoing) gives. [`deadline`](Self::deadline) says when the next tick is
/// due.
#[derive(Debug)]
pub struct ClientCore {
    config: Arc<GroupConfig>,
    client: ClientId,
    key: RequestKey,
    incarnation: u64,
    /// F: the first ordinary number.
    first: u64,
    sessions: Vec<Session>,
    /// Per session a ring of W cells (rounded up to a power of two): slot index + 1, or 0.
    ring: Vec<u32>,
    ring_bits: u32,
    table: Table,
    timing: Timing,
    give_up_us: Option<u64>,
    needed: Needed,
    /// The highest view that each replica has reported.
    views: Vec<View>,
    view: View,
    leader: usize,
    /// Bytes handed to the driver for each replica since its link came up.
    handed: Vec<u64>,
    /// Replicas whose link is up, and all of them, as bits.
    up: u64,
    all: u64,
    stats: ClientStats,
}

/// How many replicas must say the same, by the rules of the group's protocol.
#[derive(Debug, Clone, Copy)]
struct Needed {
    /// For the result of an ordered request.
    replies: u32,
    /// For the result of a query.
    answers: u32,
}

impl Needed {
    fn of(config: &GroupConfig) -> Self {
        Self { replies: config.replies_needed() as u32, answers: config.answers_needed() as u32 }
    }
}

#[derive(Debug, Clone, Copy)]
struct Session {
    /// The number of the next request.
    next: u64,
    /// The lowest outstanding number; `next` if there is none.
    oldest: u64,
    evicted: bool,
}

impl ClientCore {
    /// Sessions 0 to `sessions` − 1 of an incarnation of a client.
    ///
    /// A new incarnation must be higher than all earlier ones of the client identity (see
    /// [`SessionId`]). `first_number` is the number of every session's first request; it is raised
    /// to [`FIRST_NUMBER_MIN`]. All links count as up until [`Self::replica_down`] is called.
    ///
    /// # Panics
    /// If there are no sessions or more than [`SessionId`] can tell apart, or if the
    /// configuration has more than 64 replicas.
    #[must_use]
    pub fn new(
        config: Arc<GroupConfig>,
        client: ClientId,
        key: impl Into<RequestKey>,
        incarnation: u64,
        sessions: u32,
        first_number: u64,
    ) -> Self {
        assert!((1..=64).contains(&config.replicas), "1 to 64 replicas");
        assert!(sessions > 0, "a client has at least one session");
        // Checks the ranges of incarnation and index.
        let _ = SessionId::new(client, incarnation, sessions - 1);
        let first = first_number.max(FIRST_NUMBER_MIN);
        let ring_bits = config.session_window.next_power_of_two().trailing_zeros();
        let all = u64::MAX >> (64 - u32::from(config.replicas));
        Self {
            client,
            key: key.into(),
            incarnation,
            first,
            sessions: vec![
                Session { next: first, oldest: first, evicted: false };
                sessions as usize
            ],
            ring: vec![0; (sessions as usize) << ring_bits],
            ring_bits,
            table: Table::new(),
            timing: Timing::new(config.resend_us),
            give_up_us: None,
            needed: Needed::of(&config),
            views: vec![View(0); usize::from(config.replicas)],
            view: View(0),
            leader: usize::from(config.leader(View(0)).0),
            handed: vec![0; usize::from(config.replicas)],
            up: all,
            all,
            stats: ClientStats::new(config.replicas),
            config,
        }
    }

    /// Ends requests with [`Outcome::TimedOut`] that have no certificate after this many
    /// microseconds (up to an eighth later); `None`, as at first: never.
    pub fn give_up_after(&mut self, microseconds: Option<u64>) {
        self.give_up_us = microseconds;
        self.timing.limit(microseconds);
    }

    /// Starts a request in a session (TR listing 14, startInvocation).
    ///
    /// The returned number comes back with the completion.
    ///
    /// # Errors
    /// If it cannot be taken; then nothing was sent and no number was used.
    #[inline]
    pub fn submit(
        &mut self,
        session_index: u32,
        operation: &[u8],
        kind: RequestKind,
        now: Time,
        out: &mut ClientOutput,
    ) -> Result<RequestNumber, SubmitError> {
        let number = self.next_number(session_index)?;
        let limit = self.config.max_operation_bytes as usize;
        if operation.len() > limit {
            return Err(SubmitError::TooLong { length: operation.len(), limit });
        }
        self.sessions[session_index as usize].next = number.0 + 1;
        let slot = self.table.insert(session_index, number, operation, now);
        let cell = self.cell(session_index, number.0);
        debug_assert_eq!(self.ring[cell], 0, "numbers that span less than W share no cell");
        self.ring[cell] = slot + 1;
        self.stats.submitted += 1;

        let unordered = kind == RequestKind::ReadOnly;
        if unordered && self.may_query() && self.timing.queries_allowed(now) {
            self.send(slot, Lane::Query, self.up, out);
            self.table.push(slot, QUERY, now);
        } else {
            self.send(slot, Lane::Request, self.first_target(), out);
            self.table.push(slot, 0, now);
        }
        Ok(number)
    }

    /// The number of the session's next request, if it may have one.
    #[inline]
    fn next_number(&self, session: u32) -> Result<RequestNumber, SubmitError> {
        let Some(state) = self.sessions.get(session as usize) else {
            return Err(SubmitError::NoSession { session, sessions: self.sessions.len() as u32 });
        };
        if state.evicted {
            return Err(SubmitError::Evicted { session });
        }
        let window = self.config.session_window;
        if state.next - state.oldest >= u64::from(window) {
            return Err(SubmitError::WindowFull { session, window });
        }
        Ok(RequestNumber(state.next))
    }

    /// Whether a session can take a request.
    #[must_use]
    pub fn can_submit(&self, session: u32) -> bool {
        self.next_number(session).is_ok()
    }

    /// Whether the group evicted a session.
    #[must_use]
    pub fn is_evicted(&self, session: u32) -> bool {
        self.sessions.get(session as usize).is_some_and(|s| s.evicted)
    }

    /// The link to a replica is up (again).
    pub fn replica_up(&mut self, replica: ReplicaId, now: Time, out: &mut ClientOutput) {
        let Some(bit) = self.bit(replica) else { return };
        let leader_was_up = self.up & self.leader_bit() != 0;
        self.up |= bit;
        self.handed[usize::from(replica.0)] = 0;
        if bit == self.leader_bit() {
            self.timing.release();
        }
        // What was on its way to the leader when the last link broke is lost. A follower gets
        // requests only in the leader's stead.
        if bit == self.leader_bit() || !leader_was_up {
            self.table.flood(0..QUERY);
        }
        self.tick(now, out);
    }

    /// The link to a replica broke.
    pub fn replica_down(&mut self, replica: ReplicaId, now: Time, out: &mut ClientOutput) {
        let Some(bit) = self.bit(replica) else { return };
        self.up &= !bit;
        if bit == self.leader_bit() {
            self.table.flood(0..QUERY);
        }
        if !self.may_query() {
            // No query will get enough answers.
            self.table.flood(QUERY..QUERY + 1);
        }
        self.tick(now, out);
    }

    /// The group constants.
    #[must_use]
    pub fn config(&self) -> &Arc<GroupConfig> {
        &self.config
    }

    /// The number of each session's first ordinary request.
    #[must_use]
    pub fn first_number(&self) -> RequestNumber {
        RequestNumber(self.first)
    }

    /// The name of a session in the group.
    #[must_use]
    pub fn session_id(&self, session: u32) -> SessionId {
        SessionId::new(self.client, self.incarnation, session)
    }

    /// Number of sessions.
    #[must_use]
    pub fn sessions(&self) -> u32 {
        self.sessions.len() as u32
    }

    /// Requests outstanding in all sessions.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        self.table.len()
    }

    /// v_c: a view that f+1 replicas vouch for.
    #[must_use]
    pub fn view(&self) -> View {
        self.view
    }

    /// The leader of [`Self::view`].
    #[must_use]
    pub fn leader(&self) -> ReplicaId {
        ReplicaId(self.leader as u16)
    }

    /// Figures so far.
    #[must_use]
    pub fn stats(&self) -> &ClientStats {
        &self.stats
    }

    /// The wait before a request that was sent once is sent to all replicas, in microseconds.
    #[must_use]
    pub fn retransmission_us(&self) -> u64 {
        self.timing.request_us(0)
    }

    /// Appends the record of a slot to the messages of some replicas; returns the bytes.
    #[inline]
    fn send(&mut self, slot: u32, lane: Lane, targets: u64, out: &mut ClientOutput) -> usize {
        if targets == 0 {
            return 0;
        }
        // No query can be ordered: replicas accept no request in a PREPARE without its proof.
        let query = lane == Lane::Query;
        let (session, number) = (self.table.slot(slot).session, self.table.slot(slot).number);
        let number = if query { self.query_number(number) } else { number };
        let name = SessionId {
            client: self.client,
            session: self.incarnation << SessionId::INDEX_BITS | u64::from(session),
        };
        let deferred = lane == Lane::Request && targets.is_power_of_two() && self.defers_proofs();
        if lane == Lane::Request && !deferred {
            // Records without their MACs must remain the last ones.
            self.prove(out);
        }
        let request = self.table.slot(slot);
        let append = |out: &mut Vec<u8>| {
            if query || deferred {
                append_request(out, name, number, &request.operation, |_| [0; REQUEST_MAC]);
            } else {
                append_proved(out, name, number, &request.operation, &self.key);
            }
        };
        if targets.is_power_of_two() {
            let to = targets.trailing_zeros() as usize;
            let buffer = out.buffer(lane, to);
            let start = buffer.len();
            append(buffer);
            let bytes = buffer.len() - start;
            self.table.slot_mut(slot).sent_end = self.handed[to] + buffer.len() as u64;
            if deferred {
                self.note_unproved(slot, to, start, out);
            } else {
                let tag = tag_of(&buffer[start..], query);
                self.table.slot_mut(slot).tag = tag;
            }
            return bytes;
        }
        let mut record = std::mem::take(&mut out.scratch);
        record.clear();
        append(&mut record);
        let mut left = targets;
        while left != 0 {
            out.buffer(lane, left.trailing_zeros() as usize).extend_from_slice(&record);
            left &= left - 1;
        }
        let bytes = record.len() * targets.count_ones() as usize;
        let to_leader = out.bytes(lane, self.leader) as u64;
        let request = self.table.slot_mut(slot);
        request.sent_end = self.handed[self.leader] + to_leader;
        request.tag = tag_of(&record, query);
        out.scratch = record;
        bytes
    }

    /// To whom a request goes at first: the leader, or all who can be reached in its stead.
    #[inline]
    fn first_target(&self) -> u64 {
        let leader = self.leader_bit();
        if self.up & leader != 0 { leader } else { self.up }
    }

    #[inline]
    fn leader_bit(&self) -> u64 {
        1 << self.leader
    }

    /// Whether enough replicas can be reached to answer a query.
    #[inline]
    fn may_query(&self) -> bool {
        // All of them are up nearly always.
        self.up == self.all || self.up.count_ones() >= self.needed.answers
    }

    fn bit(&self, replica: ReplicaId) -> Option<u64> {
        (replica.0 < self.config.replicas).then(|| 1 << replica.0)
    }

    /// The number that a query carries in place of the ordinary one reserved for it.
    #[inline]
    fn query_number(&self, number: RequestNumber) -> RequestNumber {
        RequestNumber(number.0 - self.first + 1)
    }

    #[inline]
    fn cell(&self, session: u32, number: u64) -> usize {
        let mask = (1 << self.ring_bits) - 1;
        (session as usize) << self.ring_bits | (number as usize & mask)
    }
}

/// The tag of a complete record.
fn tag_of(record: &[u8], is_query: bool) -> RequestTag {
    let (request, _) = RequestRef::split(record).expect("this core's own record");
    if is_query { RequestTag::of_query(request.covered) } else { request.tag() }
}
