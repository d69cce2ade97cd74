//! What is taken in next, and of whom: the messages of clients in turn, and stored requests that are to be
//! ordered. See [`lanes`](super::lanes).

use bytes::Bytes;
use hybster_tss::RequestVerifier;

use super::lanes::{STORE_COST, Waiting};
use super::{Intake, Key, MAX_PENDING_BYTES, MAX_STORED, MAX_STORED_BYTES};
use crate::mutants::{self, Mutant};
use crate::output::{Cause, ClientLink, Output, Reject, Reply, Source};
use crate::time::Time;
use crate::wire::request::{REQUESTS_HEAD, is_retransmission, requests_body};
use crate::wire::{ReplyStatus, RequestRef, Requests};

/// Bytes of requests in batches that wait, at which those of clients wait in their lanes: a batch for each pillar and
/// two more, but at least so many unless batches are short for the sake of a slow wire,
const MIN_ROOM_BYTES: usize = 1 << 20;
/// and at most so many.
const MAX_ROOM_BYTES: usize = 16 << 20;

impl<V: RequestVerifier> Intake<V> {
    /// A client's message: it is handled at once, or waits in the client's lane.
    pub(super) fn client_requests(
        &mut self,
        link: ClientLink,
        message: Bytes,
        now: Time,
        out: &mut Output,
    ) {
        if self.disk_full && !is_retransmission(&message) {
            // One that is sent again may have been executed. Who has its result is told.
            return self.refuse(&message, ReplyStatus::DiskFull, out);
        }
        let waiting = Waiting::new(link, message);
        if self.has_room() && self.lanes.may_pass(link.client) {
            if let Some(rest) = self.take_in(waiting, now, out) {
                self.lanes.put_back(rest);
            }
        } else if let Err(refused) = self.lanes.push(waiting, out) {
            self.refuse(&refused.message, ReplyStatus::Overloaded, out);
        }
    }

    /// A round: each client that waits has its share taken in.
    pub(super) fn serve_lanes(&mut self, now: Time, out: &mut Output) {
        self.lanes.begin_round(now);
        for _ in 0..self.lanes.turns() {
            if !self.has_room() {
                break;
            }
            let Some(client) = self.lanes.next_turn() else { break };
            while self.has_room()
                && let Some(key) = self.lanes.take_ready(client)
            {
                self.propose_stored(key, out);
            }
            while self.has_room()
                && let Some(waiting) = self.lanes.take(client)
            {
                if let Some(rest) = self.take_in(waiting, now, out) {
                    self.lanes.put_back(rest);
                    break;
                }
            }
            self.lanes.end_turn(client, out);
        }
    }

    /// Handles a client's message, or as much of it as the client may ask for now. The rest comes back.
    fn take_in(&mut self, mut waiting: Waiting, now: Time, out: &mut Output) -> Option<Waiting> {
        let Waiting { link, ref message, ref mut done } = waiting;
        let before = *done;
        if let Err(reason) = self.requests(Source::Client(link), message, done, now, out) {
            out.reject_client(link, message, reason);
            *done = message.len();
        }
        let is_cheap = self.leads() && !is_retransmission(message);
        let cost = (*done - before) * if is_cheap { 1 } else { STORE_COST };
        // A message without requests costs something, too.
        self.lanes.charge(link.client, cost.max(REQUESTS_HEAD));
        (waiting.done < waiting.message.len()).then_some(waiting)
    }

    /// A client sent more than may wait, or than the disk has room for: it is told to come later.
    #[cold]
    fn refuse(&self, message: &[u8], status: ReplyStatus, out: &mut Output) {
        out.reject(None, message, Reject::Overload);
        let body = requests_body(message).unwrap_or_default();
        for request in Requests::new(body).flatten() {
            out.replies.push(&Reply {
                session: request.session,
                number: request.number,
                tag: request.tag(),
                view: self.view,
                cause: Cause::AskedAgain,
                status,
                result: &[],
            });
        }
    }

    /// Whether more requests of clients may be made batches of: as long as there are enough to keep the
    /// pillars busy, the others wait in the lanes of their clients, where they are taken from in turn.
    pub(super) fn has_room(&self) -> bool {
        let longest = self.config.batch_max_bytes.min(self.path.batch_bytes);
        let batches = u64::from(self.config.pillars + 2) * u64::from(longest);
        // What is in a batch comes before what a follower forwards, which must not wait for long.
        let is_slow = self.path.batch_bytes < self.config.batch_max_bytes;
        let least = if is_slow { 0 } else { MIN_ROOM_BYTES as u64 };
        let mut limit = batches.clamp(least, MAX_ROOM_BYTES as u64) as usize;
        if mutants::active(Mutant::ClientsUnlimited) {
            limit = MAX_PENDING_BYTES / 2;
        }
        self.pending_bytes < limit
    }

    /// A stored request has not been executed: a leader orders it, once in a view: what it has made a batch of
    /// is proposed as long as it leads the view, however long that takes. It comes before
    /// what its client sends now, but takes no more than its client's share.
    ///
    /// Asking the session table first keeps what peers or clients replay out of the order.
    pub(super) fn stored_is_new(&mut self, key: Key, out: &mut Output) {
        if !self.leads() {
            return;
        }
        let is_batched = self.is_batched(key);
        let Some(stored) = self.stored.get_mut(&key) else {
            return;
        };
        stored.is_proposed |= is_batched;
        if stored.is_proposed {
            return;
        }
        self.lanes.make_ready(key);
        if self.has_room()
            && let Some(key) = self.lanes.take_ready(key.0.client)
        {
            self.propose_stored(key, out);
        }
    }

    fn propose_stored(&mut self, key: Key, out: &mut Output) {
        let Some(stored) = self.stored.get_mut(&key) else {
            return;
        };
        stored.is_proposed = true;
        let record = stored.record.clone();
        if self.is_batched(key) {
            // It came from its client meanwhile.
            return;
        }
        // So that a round is short, whether the client or a follower brought it.
        self.lanes.charge(key.0.client, STORE_COST * record.len());
        if let Ok((request, _)) = RequestRef::split(&record) {
            self.append(&request);
        }
        // A follower may suspect this leader for what it forwards: there must always be room for more. What is
        // in a batch is ordered, watched or not.
        if self.stored.len() > MAX_STORED / 2 || self.stored_bytes > MAX_STORED_BYTES / 2 {
            self.displace(key, out);
        }
    }
}
