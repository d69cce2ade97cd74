//! Whose requests are taken in next: each client has a lane of its own.
//!
//! What a client sends is handled at once while that is within its share of a round; what goes beyond
//! waits in its lane, and lanes take turns with equal shares. A round lasts from one
//! [`Intake::flush`](super::Intake::flush) to the next, so a client that is alone is hardly kept
//! waiting. A share is counted in bytes, of requests that are to be stored several times over, as they
//! cost that much more.
//!
//! A lane is not served while its client is *held*, since there is no room for more replies to it, or
//! has as many questions with the execution stage, or as many requests stored, as it may have. What is
//! stored and *ready*, as it was not executed, is ordered before what is in the lane, held or not: others
//! may suspect this leader for it. It counts against the same share. A client whose lane is long, or
//! held, is not read from; others are.
//!
//! What is stored costs time beside that: a client owes it, and pays by time as peers do for what is costly
//! (all that owe something have half of the time that passes, in equal parts, a quarter each at most). While it owes
//! more than [`CREDIT_NS`], its lane is not served: rounds pass quickly if others have little to do, and
//! it must not have the rest.
//!
//! | Who can fill it | Bound | Beyond it |
//! |---|---|---|
//! | a client | [`LANE_BYTES`], and what was read before it was paused up to [`MAX_LANE_BYTES`] | it is not read; then it is told to come later |
//! | all clients | [`MAX_LANES_BYTES`] | nobody is read; then they are told to come later |

use bytes::Bytes;
use std::collections::{BTreeSet, VecDeque};
use std::ops::Bound;

use crate::ids::{ClientId, RequestNumber, SessionId};
use crate::mutants::{self, Mutant};
use crate::output::{ClientLink, Output};
use crate::time::Time;

/// What is taken in of a client per round, in bytes.
pub(super) const SHARE_BYTES: usize = 256 << 10;
/// A request that is to be stored counts so many times: its proof is checked by itself, the execution
/// stage is asked, and perhaps the leader is told.
pub(super) const STORE_COST: usize = 8;
/// What storing a request and asking about it costs, in nanoseconds of work, here and in other stages:
/// estimated, not measured.
const STORE_NS: u64 = 4_000;
/// What a client may owe before it has to wait: a thousand sessions that ask again at once need not.
const CREDIT_NS: u64 = 4_000_000;
/// One of so many parts of the time pays for what a client owes,
const LEAST_PARTS: u64 = 4;
/// and one of so many for what all together owe.
const PARTS_OF_ALL: u64 = 2;
/// Questions about the requests of one client that the execution stage may have before it.
pub(crate) const MAX_QUESTIONS: u32 = 256;
/// Requests of one client that are stored, as far as it sends them itself. What it sends beyond waits until
/// some of them are executed: the leader must order them all before somebody suspects it.
const MAX_STORED_SHARE: u32 = 16_384;
/// A client is not read from while so many bytes wait in its lane.
const LANE_BYTES: usize = 1 << 20;
/// It is read from again when there are only so many.
const LANE_LOW_BYTES: usize = 256 << 10;
/// Bytes in a lane at most, one message of any length apart.
pub(crate) const MAX_LANE_BYTES: usize = 8 << 20;
/// No client is read from while so many bytes wait in all lanes.
pub(crate) const LANES_BYTES: usize = 64 << 20;
/// Bytes in all lanes at most, one message of any length apart.
pub(crate) const MAX_LANES_BYTES: usize = 256 << 20;
/// A message that waits counts so many bytes more.
const WAITING_BYTES: usize = 128;
/// A shorter message is copied to wait: it would keep the block that it was read into.
const COPIED_BYTES: usize = 16 << 10;

type Key = (SessionId, RequestNumber);

/// A message that waits.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) link: ClientLink,
    pub(crate) message: Bytes,
    /// Bytes of it that are dealt with.
    pub(crate) done: usize,
}

impl Waiting {
    pub(crate) fn new(link: ClientLink, message: Bytes) -> Self {
        Self { link, message, done: 0 }
    }

    fn bytes(&self) -> usize {
        self.message.len() + WAITING_BYTES
    }
}

#[derive(Debug, Default)]
struct Lane {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    /// Of its share of this round; a message may go beyond it.
    used: usize,
    /// Questions that the execution stage has not answered.
    questions: u32,
    /// Requests that are stored.
    stored: u32,
    /// Those of them that are ready.
    ready: u32,
    /// Nanoseconds of work that are not paid for.
    owed_ns: u64,
    /// Of those, the one that was ordered last.
    last: Option<Key>,
    /// There is no room for more replies.
    is_held: bool,
    /// Nothing is read from the client.
    is_paused: bool,
    /// Whether `turns` has it.
    is_listed: bool,
}

/// The lanes of all clients. Bounded as the [module](self) says.
#[derive(Debug, Default)]
pub(crate) struct Lanes {
    /// By client.
    lanes: Vec<Lane>,
    /// Clients with something that may go on, each once, whose turn is next in front.
    turns: VecDeque<ClientId>,
    /// Clients that have used some of their share.
    used: Vec<ClientId>,
    /// Clients that owe something.
    debtors: Vec<ClientId>,
    /// When they paid last.
    paid_at: Time,
    bytes: usize,
    /// Stored requests that are to be ordered.
    ready: BTreeSet<Key>,
}

impl Lanes {
    #[inline]
    fn lane(&mut self, client: ClientId) -> &mut Lane {
        let at = client.0 as usize;
        if at >= self.lanes.len() {
            self.lanes.resize_with(at + 1, Lane::default);
        }
        &mut self.lanes[at]
    }

    /// Whether a message of a client may be handled at once.
    #[inline]
    pub(crate) fn may_pass(&mut self, client: ClientId) -> bool {
        if mutants::active(Mutant::ClientsUnlimited) {
            return true;
        }
        let lane = self.lane(client);
        lane.waiting.is_empty() && !lane.is_held && !lane.owes_much() && lane.used < SHARE_BYTES
    }

    /// A client used some of its share.
    #[inline]
    pub(crate) fn charge(&mut self, client: ClientId, cost: usize) {
        let lane = self.lane(client);
        let is_first = lane.used == 0;
        lane.used += cost;
        if is_first && cost > 0 {
            self.used.push(client);
        }
    }

    /// A new round: everybody has a whole share again.
    pub(crate) fn begin_round(&mut self, now: Time) {
        if !self.debtors.is_empty() {
            self.pay(now);
        }
        self.paid_at = now;
        for client in self.used.drain(..) {
            self.lanes[client.0 as usize].used = 0;
        }
    }

    /// One of so many parts of the time pays for each client that owes something.
    fn parts(&self) -> u64 {
        LEAST_PARTS.max(PARTS_OF_ALL * self.debtors.len() as u64)
    }

    fn pay(&mut self, now: Time) {
        let paid_ns = now.since_us(self.paid_at).saturating_mul(1000) / self.parts();
        let lanes = &mut self.lanes;
        self.debtors.retain(|client| {
            let lane = &mut lanes[client.0 as usize];
            lane.owed_ns = lane.owed_ns.saturating_sub(paid_ns);
            lane.owed_ns > 0
        });
    }

    /// A request of a client was stored, or the execution stage asked about it.
    pub(crate) fn owe(&mut self, client: ClientId) {
        let lane = self.lane(client);
        lane.owed_ns += STORE_NS;
        if lane.owed_ns == STORE_NS {
            self.debtors.push(client);
        }
    }

    /// When the first lane that waits only as its client owes too much is to be served.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let lanes = self.debtors.iter().map(|client| &self.lanes[client.0 as usize]);
        let waits = lanes.filter(|lane| lane.owes_much() && lane.is_due());
        let owed_ns = waits.map(|lane| lane.owed_ns - CREDIT_NS).min()?;
        Some(self.paid_at.after_us((owed_ns * self.parts()).div_ceil(1000)))
    }

    /// Lets a message wait behind others of its client. Gives it back if there is no room.
    pub(crate) fn push(&mut self, mut waiting: Waiting, out: &mut Output) -> Result<(), Waiting> {
        let total = self.bytes;
        let client = waiting.link.client;
        let lane = self.lane(client);
        let is_full = lane.bytes >= MAX_LANE_BYTES || total >= MAX_LANES_BYTES;
        if is_full && !lane.waiting.is_empty() {
            return Err(waiting);
        }
        if waiting.message.len() < COPIED_BYTES {
            waiting.message = Bytes::copy_from_slice(&waiting.message);
        }
        let bytes = waiting.bytes();
        lane.bytes += bytes;
        lane.waiting.push_back(waiting);
        if lane.bytes >= LANE_BYTES {
            lane.pause(client, out);
        }
        self.bytes += bytes;
        self.list(client);
        Ok(())
    }

    /// As [`Self::push`], in front: the client's turn ended before the message did.
    pub(crate) fn put_back(&mut self, waiting: Waiting) {
        let (client, bytes) = (waiting.link.client, waiting.bytes());
        let lane = self.lane(client);
        lane.bytes += bytes;
        lane.waiting.push_front(waiting);
        self.bytes += bytes;
        self.list(client);
    }

    fn list(&mut self, client: ClientId) {
        let lane = self.lane(client);
        if !lane.is_listed && lane.is_due() {
            lane.is_listed = true;
            self.turns.push_back(client);
        }
    }

    /// Whose turn it is. [`Self::end_turn`] must follow.
    pub(crate) fn next_turn(&mut self) -> Option<ClientId> {
        let client = self.turns.pop_front()?;
        self.lane(client).is_listed = false;
        Some(client)
    }

    /// A stored request is to be ordered.
    pub(crate) fn make_ready(&mut self, key: Key) {
        if self.ready.insert(key) {
            self.lane(key.0.client).ready += 1;
            self.list(key.0.client);
        }
    }

    /// It is not, or not any more.
    pub(crate) fn not_ready(&mut self, key: Key) {
        if self.lane(key.0.client).ready > 0 && self.ready.remove(&key) {
            self.lane(key.0.client).ready -= 1;
        }
    }

    /// No stored request is to be ordered.
    pub(crate) fn none_ready(&mut self) {
        for (session, _) in std::mem::take(&mut self.ready) {
            self.lane(session.client).ready = 0;
        }
    }

    /// The next stored request of a client that is to be ordered now, round and round.
    pub(crate) fn take_ready(&mut self, client: ClientId) -> Option<Key> {
        let lane = self.lane(client);
        if lane.ready == 0 || lane.used >= SHARE_BYTES {
            return None;
        }
        let first = (SessionId { client, session: 0 }, RequestNumber(0));
        let after = lane.last.map_or(Bound::Included(first), Bound::Excluded);
        let end = (SessionId { client, session: u64::MAX }, RequestNumber(u64::MAX));
        let after = self.ready.range((after, Bound::Included(end))).next();
        let key = *after.or_else(|| self.ready.range(first..=end).next())?;
        self.ready.remove(&key);
        let lane = self.lane(client);
        lane.ready -= 1;
        lane.last = Some(key);
        Some(key)
    }

    /// How many clients have something that may go on.
    pub(crate) fn turns(&self) -> usize {
        self.turns.len()
    }

    /// The next message of a client, if it may be handled now.
    pub(crate) fn take(&mut self, client: ClientId) -> Option<Waiting> {
        let lane = self.lane(client);
        if lane.is_held || lane.used >= SHARE_BYTES || !lane.may_ask() {
            return None;
        }
        let waiting = lane.waiting.pop_front()?;
        let bytes = waiting.bytes();
        lane.bytes -= bytes;
        self.bytes -= bytes;
        Some(waiting)
    }

    /// A client's turn is over: it is in the list again if something is left.
    pub(crate) fn end_turn(&mut self, client: ClientId, out: &mut Output) {
        self.list(client);
        self.lane(client).resume(client, out);
    }

    /// Whether a turn would lead to something.
    pub(crate) fn may_serve(&self) -> bool {
        self.turns.iter().any(|client| self.lanes[client.0 as usize].may_go_on())
    }

    /// There is no room for more replies to a client, or there is again.
    pub(crate) fn hold(&mut self, client: ClientId, is_held: bool, out: &mut Output) {
        let lane = self.lane(client);
        lane.is_held = is_held;
        if is_held {
            lane.pause(client, out);
            if lane.is_listed && !lane.is_due() {
                lane.is_listed = false;
                self.turns.retain(|listed| *listed != client);
            }
        } else {
            lane.resume(client, out);
            self.list(client);
        }
    }

    /// Whether one more request of a client may be stored, and the execution stage be asked about it.
    #[inline]
    pub(crate) fn may_ask(&mut self, client: ClientId) -> bool {
        self.lane(client).may_ask() || mutants::active(Mutant::ClientsUnlimited)
    }

    /// A request of a client is stored.
    pub(crate) fn stored(&mut self, client: ClientId) {
        self.lane(client).stored += 1;
    }

    /// It is not any more.
    pub(crate) fn forgotten(&mut self, client: ClientId) {
        self.lane(client).stored -= 1;
    }

    /// It is asked one.
    pub(crate) fn asked(&mut self, client: ClientId) {
        self.lane(client).questions += 1;
    }

    /// It has answered one.
    pub(crate) fn answered(&mut self, client: ClientId) {
        let lane = self.lane(client);
        assert!(lane.questions > 0, "an answer has a question");
        lane.questions -= 1;
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// What does not hold, if anything.
    ///
    /// # Panics
    /// Then.
    pub(super) fn check(&self) {
        let lanes = || self.lanes.iter();
        assert_eq!(self.bytes, lanes().map(|lane| lane.bytes).sum::<usize>(), "lanes are counted");
        let ready: usize = lanes().map(|lane| lane.ready as usize).sum();
        assert_eq!(self.ready.len(), ready, "requests that are ready are counted");
        let listed = lanes().filter(|lane| lane.is_listed).count();
        assert_eq!(self.turns.len(), listed, "each lane has one turn");
        for lane in lanes() {
            let counted: usize = lane.waiting.iter().map(Waiting::bytes).sum();
            assert_eq!(lane.bytes, counted, "bytes in a lane are counted");
            assert!(lane.is_listed || !lane.is_due(), "whoever waits and is not held has a turn");
            assert!(lane.is_paused || !lane.is_held, "a client that is held is not read");
        }
    }
}

impl Lane {
    #[inline]
    fn may_ask(&self) -> bool {
        self.questions < MAX_QUESTIONS && self.stored < MAX_STORED_SHARE && !self.owes_much()
    }

    #[inline]
    fn owes_much(&self) -> bool {
        self.owed_ns > CREDIT_NS
    }

    /// Whether it is to have a turn.
    fn is_due(&self) -> bool {
        self.ready > 0 || (!self.is_held && !self.waiting.is_empty())
    }

    /// Whether a turn would lead to something.
    fn may_go_on(&self) -> bool {
        self.ready > 0 || (!self.is_held && !self.waiting.is_empty() && self.may_ask())
    }

    fn pause(&mut self, client: ClientId, out: &mut Output) {
        if !self.is_paused {
            self.is_paused = true;
            out.pauses.push((client, true));
        }
    }

    fn resume(&mut self, client: ClientId, out: &mut Output) {
        if self.is_paused && !self.is_held && self.bytes <= LANE_LOW_BYTES {
            self.is_paused = false;
            out.pauses.push((client, false));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However often there is a round, and however many clients owe something, half of the time is others'.
    #[test]
    fn what_is_owed_is_paid_by_time() {
        for (debtors, parts) in [(1, 4), (2, 4), (5, 10)] {
            let (mut lanes, mut out) = (Lanes::default(), Output::default());
            let work_ns = CREDIT_NS + 1_000 * STORE_NS;
            lanes.begin_round(Time(7));
            for client in 0..debtors {
                (0..work_ns / STORE_NS).for_each(|_| lanes.owe(ClientId(client)));
                lanes.push(message(client, 10), &mut out).unwrap();
                assert!(!lanes.may_pass(ClientId(client)) && !lanes.may_ask(ClientId(client)));
            }
            lanes.push(message(99, 10), &mut out).unwrap();
            assert_eq!(round_at(Time(7), &mut lanes, &mut out).last(), Some(&(99, 10)));
            let due = Time(7).after_us(parts * STORE_NS);
            assert_eq!(lanes.deadline(), Some(due));
            assert!(!lanes.may_serve());
            let before = due.since_us(Time(7)) - 1;
            (1..=before).step_by(100).for_each(|us| lanes.begin_round(Time(7).after_us(us)));
            lanes.begin_round(Time(7).after_us(before));
            assert!(!lanes.may_serve(), "{debtors}");
            let served = round_at(due, &mut lanes, &mut out);
            assert_eq!(served, (0..debtors).map(|client| (client, 10)).collect::<Vec<_>>());
            assert_eq!(lanes.deadline(), None);
        }
    }

    fn message(client: u32, length: usize) -> Waiting {
        let link = ClientLink { client: ClientId(client), incarnation: 1 };
        Waiting::new(link, vec![0; length].into())
    }

    /// What a round gives to whom, in bytes.
    fn round(lanes: &mut Lanes, out: &mut Output) -> Vec<(u32, usize)> {
        round_at(Time(0), lanes, out)
    }

    fn round_at(now: Time, lanes: &mut Lanes, out: &mut Output) -> Vec<(u32, usize)> {
        lanes.begin_round(now);
        let mut served = Vec::new();
        for _ in 0..lanes.turns() {
            let client = lanes.next_turn().unwrap();
            let mut bytes = 0;
            while let Some(waiting) = lanes.take(client) {
                lanes.charge(client, waiting.message.len());
                bytes += waiting.message.len();
            }
            lanes.end_turn(client, out);
            lanes.check();
            served.push((client.0, bytes));
        }
        served
    }

    #[test]
    fn shares_are_equal_whoever_sends_more() {
        let (mut lanes, mut out) = (Lanes::default(), Output::default());
        for _ in 0..40 {
            lanes.push(message(1, 64 << 10), &mut out).unwrap();
        }
        for _ in 0..4_000 {
            lanes.push(message(2, 1 << 10), &mut out).unwrap();
        }
        lanes.push(message(3, 10), &mut out).unwrap();
        let share = SHARE_BYTES;
        assert_eq!(round(&mut lanes, &mut out), [(1, share), (2, share), (3, 10)]);
        assert_eq!(round(&mut lanes, &mut out), [(1, share), (2, share)]);
        assert!(!lanes.may_pass(ClientId(1)), "its messages stay in order");
        assert!(lanes.may_pass(ClientId(3)) && lanes.may_pass(ClientId(4)));
    }

    #[test]
    fn who_has_much_waiting_is_paused_and_nobody_else() {
        let (mut lanes, mut out) = (Lanes::default(), Output::default());
        lanes.push(message(2, 1 << 10), &mut out).unwrap();
        while lanes.push(message(1, 64 << 10), &mut out).is_ok() {}
        assert_eq!(out.pauses, [(ClientId(1), true)]);
        assert!(lanes.bytes() < MAX_LANE_BYTES + (70 << 10));
        lanes.push(message(2, 1 << 10), &mut out).unwrap();
        while !round(&mut lanes, &mut out).is_empty() {}
        assert_eq!(out.pauses, [(ClientId(1), true), (ClientId(1), false)]);
        assert_eq!(lanes.bytes(), 0);
    }

    #[test]
    fn who_is_held_waits_and_others_do_not() {
        let (mut lanes, mut out) = (Lanes::default(), Output::default());
        lanes.push(message(1, 100), &mut out).unwrap();
        lanes.hold(ClientId(1), true, &mut out);
        assert!(!lanes.may_pass(ClientId(1)) && lanes.may_pass(ClientId(2)));
        lanes.push(message(2, 100), &mut out).unwrap();
        assert_eq!(round(&mut lanes, &mut out), [(2, 100)]);
        assert_eq!(out.pauses, [(ClientId(1), true)]);
        lanes.hold(ClientId(1), false, &mut out);
        assert_eq!(round(&mut lanes, &mut out), [(1, 100)]);
        assert_eq!(out.pauses, [(ClientId(1), true), (ClientId(1), false)]);
    }

    /// What others may suspect the leader for is ordered, room for replies or not, in turn as well.
    #[test]
    fn what_is_ready_comes_first_and_has_no_more_than_the_share() {
        let (mut lanes, mut out) = (Lanes::default(), Output::default());
        let key = |client, session, number| {
            (SessionId { client: ClientId(client), session }, RequestNumber(number))
        };
        lanes.push(message(1, 100), &mut out).unwrap();
        lanes.hold(ClientId(1), true, &mut out);
        for (session, number) in [(1, 1), (1, 2), (7, 1)] {
            lanes.make_ready(key(1, session, number));
        }
        lanes.make_ready(key(2, 1, 1));
        lanes.check();
        assert!(lanes.may_serve());
        let client = lanes.next_turn().unwrap();
        assert_eq!(lanes.take_ready(client), Some(key(1, 1, 1)));
        lanes.charge(client, SHARE_BYTES);
        assert_eq!((lanes.take_ready(client), lanes.take(client).is_none()), (None, true));
        lanes.end_turn(client, &mut out);
        assert_eq!(lanes.next_turn(), Some(ClientId(2)));
        assert_eq!(lanes.take_ready(ClientId(2)), Some(key(2, 1, 1)));
        lanes.end_turn(ClientId(2), &mut out);
        lanes.begin_round(Time(0));
        // One that comes again does not put off those behind it.
        lanes.make_ready(key(1, 1, 1));
        assert_eq!(lanes.take_ready(client), Some(key(1, 1, 2)));
        lanes.not_ready(key(1, 1, 1));
        assert_eq!(lanes.take_ready(client), Some(key(1, 7, 1)));
        assert_eq!(lanes.take_ready(client), None);
        lanes.check();
        assert!(!lanes.may_serve());
    }

    #[test]
    fn questions_and_stored_requests_are_bounded_per_client() {
        let (mut lanes, mut out) = (Lanes::default(), Output::default());
        for client in [1, 2] {
            lanes.push(message(client, 100), &mut out).unwrap();
        }
        (0..MAX_QUESTIONS).for_each(|_| lanes.asked(ClientId(1)));
        assert!(!lanes.may_ask(ClientId(1)) && lanes.may_ask(ClientId(2)));
        assert_eq!(round(&mut lanes, &mut out), [(1, 0), (2, 100)]);
        assert!(!lanes.may_serve());
        lanes.answered(ClientId(1));
        assert!(lanes.may_serve());
        (0..MAX_STORED_SHARE).for_each(|_| lanes.stored(ClientId(1)));
        assert_eq!(round(&mut lanes, &mut out), [(1, 0)]);
        assert!(!lanes.may_serve());
        lanes.forgotten(ClientId(1));
        assert_eq!(round(&mut lanes, &mut out), [(1, 100)]);
    }
}
