//! What waits for one peer, and what its present link was given.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::ids::ReplicaId;
use crate::mutants::{self, Mutant};
use crate::output::{Answerer, SendTag, Watermark};
use crate::time::{Time, earliest};

use super::pace::Pace;
use super::path::Way;
use super::{EgressCounters, EgressLimits, LinkState, Links};

/// How many of the messages handed to the present link are remembered, the latest ones. A copy of an
/// older one may leave early, which costs bytes and nothing else.
const REMEMBERED: usize = 1024;

/// Bytes of a message that tell it from others with its kind, tag and length: they hold the head
/// of every certified message, with its certificate.
const KEY_BYTES: usize = 128;

/// A message is sent again no sooner than the link carries so many times as much: what is repeated
/// must not take a slow wire from what is new.
const AGAIN: u64 = 16;

/// What framing adds to a message, in bytes.
const FRAMING_BYTES: usize = 4;

/// When a message leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Urgency {
    /// At the end of the turn.
    Now,
    /// Along with the next urgent one, or after a while.
    Late,
}

/// What became of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Push {
    /// It waits.
    Queued,
    /// An equal one waits.
    Duplicate,
    /// The link is bringing an equal one there.
    Coming,
    /// There is no room.
    Full,
}

/// A message for peers, with what the queues need to know about it.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    message: Bytes,
    tag: SendTag,
    /// Its [key](key_of), but for the lowest bit, which is 0 if the message is new. One word, so that
    /// the whole fits a cache line.
    key_and_is_new: u64,
}

impl Outgoing {
    /// `is_new`: this replica has never sent it.
    pub(super) fn new(message: Bytes, tag: SendTag, is_new: bool) -> Self {
        let key_and_is_new = key_of(&message, tag) | 1;
        Self { message, tag, key_and_is_new: key_and_is_new - u64::from(is_new) }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.message
    }

    pub(super) fn tag(&self) -> SendTag {
        self.tag
    }

    fn is_new(&self) -> bool {
        self.key_and_is_new & 1 == 0
    }

    fn key(&self) -> u64 {
        self.key_and_is_new | 1
    }

    /// What is withdrawn by nothing: it is counted, and has a bound of its own.
    fn transient_cost(&self) -> usize {
        if self.tag == SendTag::Transient { self.cost() } else { 0 }
    }

    fn cost(&self) -> usize {
        self.message.len() + FRAMING_BYTES
    }

    /// Whether it goes before what waits: nothing goes on without it, and it is short beside what would
    /// keep it waiting on a slow wire.
    fn goes_ahead(&self) -> bool {
        matches!(self.tag, SendTag::ViewChange(_) | SendTag::NewView(_) | SendTag::Checkpoint(_))
    }

    fn is_copy_of(&self, other: &Self) -> bool {
        self.key() == other.key() && self.message == other.message
    }
}

// Every message goes through the queue of each peer: one cache line for each.
const _: () = assert!(size_of::<Outgoing>() == 64);

/// The way to one peer.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    queue: VecDeque<Outgoing>,
    /// Those in front that go before the rest.
    ahead: usize,
    bytes: usize,
    /// Those of them that nothing withdraws, but for answers.
    transient_bytes: usize,
    /// Answers that wait, by the stage that gave them.
    answers: BTreeMap<Answerer, u32>,
    /// Answers that do not wait any more, and whose stages were not told so.
    left: BTreeMap<Answerer, u32>,
    /// When what is late leaves.
    late_at: Option<Time>,
    is_up: bool,
    /// Whether something in the queue is urgent. Then all of it leaves, in order, as room permits.
    is_due: bool,
    /// Whether the link had no room for what is due.
    is_blocked: bool,
    /// When the first message came to the empty queue, or the queue was last handed over.
    idle_since: Time,
    /// Bytes handed to the present link.
    handed_bytes: u64,
    pace: Pace,
    /// When to look again at a link that has been given its share.
    look_at: Option<Time>,
    /// The last messages that were handed to the present link, as a ring.
    handed: Vec<Handed>,
    /// Where the next one goes.
    handed_next: usize,
}

/// A message that the present link was given.
#[derive(Clone, Copy, Debug, Default)]
struct Handed {
    key: u64,
    at: Time,
    /// Bytes that the link was given up to its end.
    end: u64,
}

impl Handed {
    /// Whether the message is on its way still, or no answer to it can have come back yet.
    /// Or whether it came so lately that another one would take too much of the wire, which takes
    /// `carried_us` for one.
    fn is_on_its_way(
        &self,
        handed_bytes: u64,
        state: &LinkState,
        carried_us: u64,
        now: Time,
    ) -> bool {
        let after = handed_bytes - self.end;
        state.outstanding_bytes as u64 > after
            || now.since_us(self.at) < state.round_trip_us + AGAIN * carried_us
    }
}

impl Outbound {
    pub(super) fn up(&mut self) {
        self.renew();
        self.is_up = true;
        // What has waited for the link need not wait for another message.
        self.is_due = !self.queue.is_empty();
    }

    /// Returns how many answers were dropped: their askers ask again over the next link.
    pub(super) fn down(&mut self) -> usize {
        self.renew();
        self.is_up = false;
        if self.answers.is_empty() {
            return 0;
        }
        let before = self.queue.len();
        self.retain(|waiting| !matches!(waiting.tag, SendTag::Answer(_)));
        for (by, count) in std::mem::take(&mut self.answers) {
            *self.left.entry(by).or_default() += count;
        }
        before - self.queue.len()
    }

    /// Answers that do not wait any more since the last call, by stage.
    pub(super) fn take_left(&mut self) -> BTreeMap<Answerer, u32> {
        std::mem::take(&mut self.left)
    }

    pub(super) fn has_left(&self) -> bool {
        !self.left.is_empty()
    }

    /// Bytes that nothing withdraws, and answers.
    pub(super) fn lasting_bytes(&self) -> (usize, usize) {
        let of_answers = |waiting: &&Outgoing| matches!(waiting.tag, SendTag::Answer(_));
        let answers = self.queue.iter().filter(of_answers).map(Outgoing::cost).sum();
        (self.transient_bytes, answers)
    }

    fn renew(&mut self) {
        self.handed_bytes = 0;
        self.handed.clear();
        self.handed_next = 0;
        self.is_blocked = false;
        self.pace.renew();
        self.look_at = None;
    }

    pub(super) fn is_up(&self) -> bool {
        self.is_up
    }

    /// Whether something leaves at the end of the turn in any case.
    pub(super) fn is_due(&self) -> bool {
        self.is_up && self.is_due && !self.is_blocked
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    #[inline]
    pub(super) fn push(
        &mut self,
        message: Outgoing,
        urgency: Urgency,
        now: Time,
        limits: &EgressLimits,
    ) -> Push {
        if let SendTag::Answer(by) = message.tag {
            // Its stage knows what waits: there is no copy, and as many bytes as it may have here.
            if !self.is_up || self.bytes + message.cost() > limits.queue_bytes {
                *self.left.entry(by).or_default() += 1;
                return Push::Full;
            }
            *self.answers.entry(by).or_default() += 1;
        }
        let is_answer = matches!(message.tag, SendTag::Answer(_));
        let transient_bytes = self.transient_bytes + message.transient_cost();
        let is_again = !message.is_new() && !is_answer;
        let outcome = if is_again && self.holds(&message) {
            Push::Duplicate
        } else if is_again && self.is_coming(&message, now) {
            return Push::Coming;
        } else if self.bytes + message.cost() > limits.queue_bytes
            || transient_bytes > limits.transient_bytes
        {
            return Push::Full;
        } else {
            if self.queue.is_empty() {
                self.idle_since = now;
            }
            self.bytes += message.cost();
            self.transient_bytes = transient_bytes;
            if message.goes_ahead() && !mutants::active(Mutant::NothingAhead) {
                self.queue.insert(self.ahead, message);
                self.ahead += 1;
            } else {
                self.queue.push_back(message);
            }
            Push::Queued
        };
        match urgency {
            Urgency::Now => self.is_due = true,
            Urgency::Late if mutants::active(Mutant::LateNever) => {}
            Urgency::Late => {
                self.late_at.get_or_insert(now.after_us(limits.late_us));
            }
        }
        outcome
    }

    #[cold]
    fn holds(&self, message: &Outgoing) -> bool {
        let is_held = self.queue.iter().any(|waiting| waiting.is_copy_of(message));
        is_held && !mutants::active(Mutant::TwoCopies)
    }

    /// Whether the link was given this message already and has not brought it there, as far as can be
    /// told without asking. A copy that waited until it has would go out in vain.
    #[cold]
    fn is_coming(&self, message: &Outgoing, now: Time) -> bool {
        let known = || self.pace.state(now, self.handed_bytes);
        self.is_up && self.is_on_its_way(message, now, known)
    }

    /// TR listing 9, remove. Returns how many.
    pub(super) fn withdraw(&mut self, mark: &Watermark) -> usize {
        let before = self.queue.len();
        if before == 0 {
            return 0;
        }
        self.retain(|waiting| !waiting.tag.is_withdrawn(mark));
        before - self.queue.len()
    }

    fn retain(&mut self, keep: impl Fn(&Outgoing) -> bool) {
        let (mut bytes, mut at, mut ahead) = (0, 0, 0);
        self.queue.retain(|waiting| {
            let stays = keep(waiting);
            bytes += if stays { waiting.cost() } else { 0 };
            ahead += usize::from(stays && at < self.ahead);
            at += 1;
            stays
        });
        (self.bytes, self.ahead) = (bytes, ahead);
        self.note_empty();
    }

    #[inline]
    fn note_left(&mut self, tag: SendTag) {
        let SendTag::Answer(by) = tag else { return };
        *self.left.entry(by).or_default() += 1;
        if let Some(count) = self.answers.get_mut(&by) {
            *count -= 1;
            if *count == 0 {
                self.answers.remove(&by);
            }
        }
    }

    fn note_empty(&mut self) {
        if self.queue.is_empty() {
            self.is_due = false;
            self.is_blocked = false;
            self.late_at = None;
        }
    }

    /// What may go late is due.
    pub(super) fn hurry(&mut self, now: Time) {
        if let Some(late_at) = &mut self.late_at {
            *late_at = now.min(*late_at);
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        // What is due waits for room. A link that holds all it can take says when it has some.
        let late_at = self.late_at.filter(|_| !self.is_due);
        earliest(late_at, self.look_at).filter(|_| self.is_up)
    }

    /// Hands over what is due, as far as the link has room.
    pub(super) fn hand_over<L>(
        &mut self,
        peer: ReplicaId,
        now: Time,
        limits: &EgressLimits,
        counters: &mut EgressCounters,
        links: &mut impl Links<L>,
    ) {
        if !self.is_up {
            return;
        }
        if self.look_at.is_some_and(|at| at <= now) {
            self.pace.look(now, self.handed_bytes, &links.link_state(peer));
            self.look_at = self.pace.look_again(now, self.handed_bytes);
        }
        if self.queue.is_empty() {
            return;
        }
        let is_late = self.late_at.is_some_and(|at| at <= now);
        if !self.is_due && !is_late && self.bytes < limits.full_bytes {
            return;
        }
        self.is_due = true;
        self.idle_since = now;
        let in_link = limits.link_window_bytes.saturating_sub(links.unsent_bytes(peer));
        let share = self.pace.room(now, self.handed_bytes, || links.link_state(peer));
        let mut room = in_link.min(share as usize);
        while room > 0
            && let Some(waiting) = self.queue.pop_front()
        {
            let bytes = waiting.cost();
            self.ahead = self.ahead.saturating_sub(1);
            self.bytes -= bytes;
            self.transient_bytes -= waiting.transient_cost();
            self.note_left(waiting.tag);
            if !waiting.is_new() && self.is_on_its_way(&waiting, now, || links.link_state(peer)) {
                counters.paced += 1;
                continue;
            }
            room = room.saturating_sub(bytes);
            let (key, tag) = (waiting.key(), waiting.tag);
            if links.send(peer, waiting.message) {
                self.note_handed(key, tag, bytes, now);
            } else {
                counters.dropped += 1;
            }
        }
        self.is_blocked = !self.queue.is_empty();
        // If the link holds all it can take, it says when it has room.
        let look_at = self.pace.look_again(now, self.handed_bytes).filter(|_| in_link > 0);
        // Sooner if so planned: what is handed over later does not put it off.
        self.look_at = look_at.map(|at| self.look_at.map_or(at, |planned| planned.min(at)));
        self.note_empty();
    }

    /// What the way to the peer is like, if its link is up.
    pub(super) fn way(&self, now: Time) -> Option<Way> {
        let round_trip_us = self.pace.round_trip_us();
        let there_us = self.pace.takes_us(now, self.handed_bytes, self.bytes as u64);
        let takes_us = there_us + round_trip_us;
        self.is_up.then(|| Way {
            takes_us,
            round_trip_us,
            rate: self.pace.rate(),
            limit: self.pace.limit(),
        })
    }

    /// Whether the present link was given this message already and has not brought it there.
    #[cold]
    fn is_on_its_way(
        &self,
        message: &Outgoing,
        now: Time,
        state: impl FnOnce() -> LinkState,
    ) -> bool {
        // Whoever asks, or is asked, paces itself.
        if matches!(message.tag, SendTag::Transient | SendTag::Answer(_)) {
            return false;
        }
        let (newer, older) = (&self.handed[..self.handed_next], &self.handed[self.handed_next..]);
        let mut latest_first = newer.iter().rev().chain(older.iter().rev());
        latest_first.find(|handed| handed.key == message.key()).is_some_and(|handed| {
            let carried_us = self.pace.carries_us(message.cost() as u64);
            handed.is_on_its_way(self.handed_bytes, &state(), carried_us, now)
        })
    }

    fn note_handed(&mut self, key: u64, tag: SendTag, bytes: usize, now: Time) {
        self.pace.note_given(now, self.handed_bytes);
        self.handed_bytes += bytes as u64;
        if matches!(tag, SendTag::Transient | SendTag::Answer(_)) {
            return;
        }
        let handed = Handed { key, at: now, end: self.handed_bytes };
        if self.handed_next == self.handed.len() && self.handed.len() < REMEMBERED {
            self.handed.push(handed);
        } else {
            self.handed_next %= REMEMBERED;
            self.handed[self.handed_next] = handed;
        }
        self.handed_next += 1;
    }

    /// How long the link has taken nothing although something waits for it and there is room.
    pub(super) fn waiting_us(&self, now: Time) -> Option<u64> {
        let is_waiting = self.is_up && !self.is_blocked && !self.queue.is_empty();
        is_waiting.then(|| now.since_us(self.idle_since))
    }

    /// What does not hold, if something does not.
    #[inline]
    pub(super) fn broken_invariant(
        &self,
        limits: &EgressLimits,
        full: bool,
    ) -> Option<&'static str> {
        // Each turn asks this for each peer, so what is broken is looked for only if something is.
        let holds = self.quick_invariants(limits);
        if holds == [true; 5] && !full { None } else { self.find_broken(limits, full) }
    }

    #[inline]
    fn quick_invariants(&self, limits: &EgressLimits) -> [bool; 5] {
        let is_empty = self.queue.is_empty();
        [
            self.bytes <= limits.queue_bytes,
            self.transient_bytes <= limits.transient_bytes,
            (self.bytes == 0) == is_empty,
            self.ahead <= self.queue.len(),
            is_empty | self.is_due | self.late_at.is_some(),
        ]
    }

    #[cold]
    fn find_broken(&self, limits: &EgressLimits, full: bool) -> Option<&'static str> {
        let costly = || {
            let bytes: usize = self.queue.iter().map(Outgoing::cost).sum();
            let mut rest = self.queue.iter();
            let mut has_copies = false;
            while let Some(waiting) = rest.next() {
                has_copies |= rest.clone().any(|other| other.is_copy_of(waiting));
            }
            let transient: usize = self.queue.iter().map(Outgoing::transient_cost).sum();
            let is_answer = |waiting: &&Outgoing| matches!(waiting.tag, SendTag::Answer(_));
            let answers = self.queue.iter().filter(is_answer).count();
            let counted: u32 = self.answers.values().sum();
            let ahead = self.queue.iter().take_while(|waiting| waiting.goes_ahead()).count();
            let behind = self.queue.iter().skip(self.ahead).any(Outgoing::goes_ahead);
            [
                (bytes == self.bytes, "what waits is counted right"),
                (transient == self.transient_bytes, "what nothing withdraws is counted right"),
                (answers == counted as usize, "answers are counted right"),
                (ahead >= self.ahead && !behind, "what changes views or moves windows goes ahead"),
                (!has_copies, "no two copies of a message wait for one peer"),
            ]
        };
        let quick = [
            "what waits is within its bound",
            "what nothing withdraws is within its bound",
            "what waits is counted",
            "what goes ahead waits",
            "what waits is due or has a deadline",
        ];
        let broken = self.quick_invariants(limits).into_iter().zip(quick).find(|(holds, _)| !holds);
        let broken = match broken {
            None if full => costly().into_iter().find(|(holds, _)| !holds),
            broken => broken,
        };
        broken.map(|(_, invariant)| invariant)
    }
}

/// Tells messages apart, but for collisions that an adversary may find: who relies on it for more
/// than bytes compares the messages as well.
fn key_of(message: &[u8], tag: SendTag) -> u64 {
    let (class, view, order) = match tag {
        SendTag::Transient => (0, 0, 0),
        SendTag::Ordering(view, order) => (1, view.0, order.0),
        SendTag::Checkpoint(order) => (2, 0, order.0),
        SendTag::ViewChange(view) => (3, view.0, 0),
        SendTag::NewView(view) => (4, view.0, 0),
        SendTag::Answer(_) => (5, 0, 0),
    };
    let mut even = mix(message.len() as u64 ^ class, view);
    let mut odd = mix(class, order);
    // Two chains, so that the processor works on both at once.
    for chunk in message[..message.len().min(KEY_BYTES)].chunks(16) {
        let mut words = [0; 16];
        words[..chunk.len()].copy_from_slice(chunk);
        let words = u128::from_le_bytes(words);
        even = mix(even, words as u64);
        odd = mix(odd, (words >> 64) as u64);
    }
    mix(even, odd)
}

fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}
