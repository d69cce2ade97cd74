//! What waits for one peer, and what its present link was given.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::ids::ReplicaId;
use crate::mutants::{self, Mutant};
use crate::output::{SendTag, Watermark};
use crate::time::Time;

use super::{EgressCounters, EgressLimits, LinkState, Links};

/// Messages handed to the present link that are remembered; a power of two. Two that fall on one
/// place forget each other, so that a copy may leave early: it costs bytes, nothing else.
const REMEMBERED: usize = 1024;

/// Bytes of a message that tell it from others with its kind, tag and length: they hold the head
/// of every certified message, with its certificate.
const KEY_BYTES: usize = 128;

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
    /// There is no room.
    Full,
}

/// The way to one peer.
#[derive(Debug, Default)]
pub(super) struct Outbound {
    is_up: bool,
    queue: VecDeque<Waiting>,
    /// The keys of `queue`, in its order: a search for a copy reads nothing else.
    keys: VecDeque<u64>,
    bytes: usize,
    /// Whether something in the queue is urgent. Then all of it leaves, in order, as room permits.
    is_due: bool,
    /// When what is late leaves.
    late_at: Option<Time>,
    /// Whether the link had no room for what is due.
    is_blocked: bool,
    /// Bytes handed to the present link.
    handed_bytes: u64,
    /// What was handed to the present link, by key.
    handed: Vec<Handed>,
}

#[derive(Debug)]
struct Waiting {
    message: Bytes,
    tag: SendTag,
    since: Time,
}

/// A message that the present link was given.
#[derive(Clone, Copy, Debug, Default)]
struct Handed {
    key: u64,
    at: Time,
    /// Bytes that the link was given up to its end; 0: no message.
    end: u64,
}

impl Handed {
    /// Whether the message is on its way still, or no answer to it can have come back yet.
    fn is_on_its_way(&self, handed_bytes: u64, state: &LinkState, now: Time) -> bool {
        let after = handed_bytes - self.end;
        state.outstanding_bytes as u64 > after || now.since_us(self.at) < state.round_trip_us
    }
}

impl Outbound {
    pub(super) fn up(&mut self) {
        self.renew();
        self.is_up = true;
        // What has waited for the link need not wait for another message.
        self.is_due = !self.queue.is_empty();
    }

    pub(super) fn down(&mut self) {
        self.renew();
        self.is_up = false;
    }

    fn renew(&mut self) {
        self.handed_bytes = 0;
        self.handed.clear();
        self.is_blocked = false;
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

    pub(super) fn push(
        &mut self,
        message: Bytes,
        tag: SendTag,
        urgency: Urgency,
        now: Time,
        limits: &EgressLimits,
    ) -> Push {
        let key = key_of(&message, tag);
        let outcome = if self.holds(key, &message) && !mutants::active(Mutant::TwoCopies) {
            Push::Duplicate
        } else if self.bytes + cost(&message) > limits.queue_bytes {
            return Push::Full;
        } else {
            self.bytes += cost(&message);
            self.queue.push_back(Waiting { message, tag, since: now });
            self.keys.push_back(key);
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

    fn holds(&self, key: u64, message: &Bytes) -> bool {
        let mut alike = self.keys.iter().enumerate().filter(|(_, of)| **of == key);
        alike.any(|(at, _)| self.queue[at].message == *message)
    }

    /// TR listing 9, remove. Returns how many.
    pub(super) fn withdraw(&mut self, mark: &Watermark) -> usize {
        let before = self.queue.len();
        if before == 0 {
            return 0;
        }
        let mut bytes = 0;
        let mut kept = Vec::with_capacity(before);
        self.queue.retain(|waiting| {
            let stays = !waiting.tag.is_withdrawn(mark);
            bytes += if stays { cost(&waiting.message) } else { 0 };
            kept.push(stays);
            stays
        });
        let mut stays = kept.into_iter();
        self.keys.retain(|_| stays.next() == Some(true));
        self.bytes = bytes;
        self.note_empty();
        before - self.queue.len()
    }

    fn note_empty(&mut self) {
        if self.queue.is_empty() {
            self.is_due = false;
            self.is_blocked = false;
            self.late_at = None;
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        // What is due waits for room, and the link says when it has some.
        self.late_at.filter(|_| self.is_up && !self.is_due)
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
        if !self.is_up || self.queue.is_empty() {
            return;
        }
        let is_late = self.late_at.is_some_and(|at| at <= now);
        if !self.is_due && !is_late && self.bytes < limits.full_bytes {
            return;
        }
        self.is_due = true;
        let mut room = limits.link_window_bytes.saturating_sub(links.unsent_bytes(peer));
        while room > 0
            && let Some((waiting, key)) = self.queue.pop_front().zip(self.keys.pop_front())
        {
            let bytes = cost(&waiting.message);
            self.bytes -= bytes;
            if self.is_on_its_way(key, waiting.tag, now, || links.link_state(peer)) {
                counters.paced += 1;
                continue;
            }
            room = room.saturating_sub(bytes);
            if links.send(peer, waiting.message) {
                self.note_handed(key, waiting.tag, bytes, now);
            } else {
                counters.dropped += 1;
            }
        }
        self.is_blocked = !self.queue.is_empty();
        self.note_empty();
    }

    /// Whether the present link was given this message already and has not brought it there.
    fn is_on_its_way(
        &self,
        key: u64,
        tag: SendTag,
        now: Time,
        state: impl FnOnce() -> LinkState,
    ) -> bool {
        // Whoever asks, or is asked, paces itself.
        if tag == SendTag::Transient {
            return false;
        }
        let Some(handed) = self.handed.get(place_of(key)) else {
            return false;
        };
        handed.end > 0
            && handed.key == key
            && handed.is_on_its_way(self.handed_bytes, &state(), now)
    }

    fn note_handed(&mut self, key: u64, tag: SendTag, bytes: usize, now: Time) {
        self.handed_bytes += bytes as u64;
        if tag == SendTag::Transient {
            return;
        }
        if self.handed.is_empty() {
            self.handed.resize(REMEMBERED, Handed::default());
        }
        self.handed[place_of(key)] = Handed { key, at: now, end: self.handed_bytes };
    }

    pub(super) fn waiting_us(&self, now: Time) -> Option<u64> {
        let first = self.queue.front().filter(|_| self.is_up && !self.is_blocked)?;
        Some(now.since_us(first.since))
    }

    /// What does not hold, if something does not.
    pub(super) fn broken_invariant(
        &self,
        limits: &EgressLimits,
        full: bool,
    ) -> Option<&'static str> {
        let is_due_or_late = self.is_due || self.late_at.is_some();
        let quick = [
            (self.queue.len() == self.keys.len(), "every message that waits has a key"),
            (self.bytes <= limits.queue_bytes, "what waits is within its bound"),
            ((self.bytes == 0) == self.queue.is_empty(), "what waits is counted"),
            (self.queue.is_empty() || is_due_or_late, "what waits is due or has a deadline"),
        ];
        let costly = || {
            let bytes: usize = self.queue.iter().map(|waiting| cost(&waiting.message)).sum();
            let mut rest = self.queue.iter();
            let has_copy = |of: &Waiting, rest: &std::collections::vec_deque::Iter<'_, Waiting>| {
                rest.clone().any(|other| other.message == of.message)
            };
            let mut has_copies = false;
            while let Some(waiting) = rest.next() {
                has_copies |= has_copy(waiting, &rest);
            }
            [
                (bytes == self.bytes, "what waits is counted right"),
                (!has_copies, "no two copies of a message wait for one peer"),
            ]
        };
        let broken = quick.into_iter().find(|(holds, _)| !holds);
        let broken = match broken {
            None if full => costly().into_iter().find(|(holds, _)| !holds),
            broken => broken,
        };
        broken.map(|(_, invariant)| invariant)
    }
}

fn cost(message: &Bytes) -> usize {
    message.len() + FRAMING_BYTES
}

fn place_of(key: u64) -> usize {
    (key >> 32) as usize % REMEMBERED
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
    };
    let mut key = mix(mix(mix(message.len() as u64, class), view), order);
    for chunk in message[..message.len().min(KEY_BYTES)].chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        key = mix(key, u64::from_le_bytes(word));
    }
    key
}

fn mix(hash: u64, word: u64) -> u64 {
    (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}
