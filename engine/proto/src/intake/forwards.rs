//! What a follower forwards to its leader (TR listing 15, forwardRequest), and when.
//!
//! A stored request is to be forwarded once the execution stage said that it has not been executed. It goes
//! over the link that this replica's COMMITs take, too, and the leader must check and order it. So no more
//! than a window is under way at a time, and what does not fit waits here; clients take turns, a
//! request each. A request is under way until it is executed, or has waited for as long as the leader
//! may take; then it waits for its turn again.
//!
//! The watch over the leader begins when the request has left this replica: a correct leader is not to be
//! suspected for what it was never told.
//!
//! | Who can fill it | Bound | Beyond it |
//! |---|---|---|
//! | clients, by what they send to a follower | [`FORWARDS_BYTES`] under way, and one request more, of [`FORWARDS_REQUESTS`] at most | it waits, stored as it is anyway |

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use hybster_tss::RequestVerifier;

use super::{FORWARD_CHUNK, Intake, Key};
use crate::ids::{ClientId, ReplicaId, RequestNumber, SessionId, View};
use crate::mutants::{self, Mutant};
use crate::output::{Answerer, Destination, Output, SendTag};
use crate::time::Time;
use crate::wire::kind;
use crate::wire::request::requests_head;

/// Bytes of forwarded requests that are under way at most, one request apart; fewer on a slow wire.
pub(crate) const FORWARDS_BYTES: usize = 128 << 10;
/// On no wire fewer bytes than this: so much at once tells what the wire carries.
const LEAST_BYTES: usize = 32 << 10;
/// Forwarded requests that are under way at most: each costs the leader something, however short it is.
pub(crate) const FORWARDS_REQUESTS: usize = 256;

/// How far the forwarding of a stored request is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Forwarding {
    /// It is not known yet whether it is needed.
    Unneeded,
    /// It waits for its turn.
    Waiting,
    /// It is under way, and has not left this replica.
    Unsent,
    /// It is under way, and has left.
    Sent,
}

impl Forwarding {
    pub(super) fn is_under_way(self) -> bool {
        matches!(self, Self::Unsent | Self::Sent)
    }
}

/// What is forwarded next, and what is under way.
#[derive(Debug, Default)]
pub(super) struct Forwards {
    waiting: BTreeSet<Key>,
    /// Whose turn it was last.
    last: Option<ClientId>,
    /// Requests under way, in the present view.
    requests: usize,
    bytes: usize,
    /// Messages that have not left, of earlier views too.
    unsent: VecDeque<Unsent>,
}

#[derive(Debug)]
struct Unsent {
    to: ReplicaId,
    view: View,
    keys: Vec<Key>,
    bytes: usize,
}

impl Forwards {
    pub(super) fn want(&mut self, key: Key) {
        self.waiting.insert(key);
    }

    /// A stored request need not be forwarded any more, or must be forwarded again.
    pub(super) fn forget(&mut self, key: Key, bytes: usize, forwarding: Forwarding) {
        match forwarding {
            Forwarding::Unneeded => {}
            Forwarding::Waiting => drop(self.waiting.remove(&key)),
            Forwarding::Unsent | Forwarding::Sent => {
                self.requests -= 1;
                self.bytes -= bytes;
            }
        }
    }

    /// Another view: nothing is under way in it, and nothing waits.
    pub(super) fn begin_view(&mut self) {
        self.waiting.clear();
        (self.requests, self.bytes) = (0, 0);
    }

    pub(super) fn is_any_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn has_room(&self, window: usize) -> bool {
        (self.bytes < window && self.requests < FORWARDS_REQUESTS)
            || mutants::active(Mutant::ForwardsUnlimited)
    }

    /// Bytes of messages for a replica that have not left since views before this one.
    fn left_over(&self, to: ReplicaId, view: View) -> usize {
        let left_over = self.unsent.iter().filter(|unsent| unsent.to == to && unsent.view < view);
        left_over.map(|unsent| unsent.bytes).sum()
    }

    /// The next one: each client with requests that wait has a turn.
    fn next(&mut self) -> Option<Key> {
        let first_of = |client| (SessionId { client, session: 0 }, RequestNumber(0));
        let after = self.last.and_then(|last| last.0.checked_add(1)).map(ClientId);
        let next = after.and_then(|after| self.waiting.range(first_of(after)..).next());
        let key = *next.or_else(|| self.waiting.first())?;
        self.waiting.remove(&key);
        self.last = Some(key.0.client);
        Some(key)
    }

    /// The oldest `messages` to a replica have left, or were dropped: the requests of this view in them.
    fn left(&mut self, to: ReplicaId, messages: u32, view: View) -> Vec<Key> {
        let mut left = messages;
        let mut keys = Vec::new();
        self.unsent.retain_mut(|unsent| {
            if left == 0 || unsent.to != to {
                return true;
            }
            left -= 1;
            if unsent.view == view {
                keys.append(&mut unsent.keys);
            }
            false
        });
        keys
    }

    /// What is counted: requests that wait, those under way, and bytes of these.
    pub(super) fn counts(&self) -> (usize, usize, usize) {
        (self.waiting.len(), self.requests, self.bytes)
    }
}

impl<V: RequestVerifier> Intake<V> {
    fn is_follower(&self) -> bool {
        self.stable && self.config.leader(self.view) != self.id
    }

    /// Whether the leader is watched only for what it was told: one that watches over itself needs not be.
    pub(super) fn must_be_told(&self) -> bool {
        self.is_follower() && !mutants::active(Mutant::SuspectsUnsent)
    }

    /// A stored request has not been executed: the leader is to know it.
    pub(super) fn forward_in_turn(&mut self, key: Key, now: Time) {
        if !self.is_follower() {
            return;
        }
        let delay_us = self.timeout.delay_us();
        if let Some(stored) = self.stored.get_mut(&key)
            && stored.forwarding == Forwarding::Unneeded
        {
            let enough_us = stored.wait.enough_us(delay_us, stored.record.len(), &self.path);
            if self.patience.need_not_tell(&stored.wait, enough_us, &self.path, now) {
                return;
            }
            stored.forwarding = Forwarding::Waiting;
            self.forwards.want(key);
        }
    }

    /// A request has been under way for as long as it may be: others have their turn.
    pub(super) fn forward_again(&mut self, key: Key) {
        if let Some(stored) = self.stored.get_mut(&key)
            && stored.forwarding.is_under_way()
        {
            self.forwards.forget(key, stored.record.len(), stored.forwarding);
            stored.forwarding = Forwarding::Waiting;
            self.forwards.want(key);
        }
    }

    /// Forwards what may be under way.
    pub(super) fn forward_waiting(&mut self, now: Time, out: &mut Output) {
        if !self.forwards.is_any_waiting() || !self.is_follower() {
            return;
        }
        let window = (self.path.batch_bytes as usize).clamp(LEAST_BYTES, FORWARDS_BYTES);
        let (to, view) = (self.config.leader(self.view), self.view);
        let window = window.saturating_sub(self.forwards.left_over(to, view));
        while self.forwards.has_room(window) {
            let mut message = Vec::from(requests_head(kind::REQUESTS));
            let mut keys = Vec::new();
            while keys.len() < FORWARD_CHUNK
                && self.forwards.has_room(window)
                && let Some(key) = self.forwards.next()
            {
                let stored = self.stored.get_mut(&key).expect("what waits is stored");
                (stored.forwarding, stored.forwarded) = (Forwarding::Unsent, now);
                message.extend_from_slice(&stored.record);
                self.forwards.requests += 1;
                self.forwards.bytes += stored.record.len();
                keys.push(key);
            }
            if keys.is_empty() {
                break;
            }
            let bytes = message.len();
            self.forwards.unsent.push_back(Unsent { to, view, keys, bytes });
            let tag = SendTag::Answer(Answerer::Intake);
            out.send(Destination::Peer(to), message.into(), tag);
        }
    }

    /// Messages with forwarded requests have left: the watch over the leader begins for these.
    pub(super) fn forwards_left(&mut self, to: ReplicaId, messages: u32, now: Time) {
        let due = now.after_us(self.timeout.delay_us() / 2);
        for key in self.forwards.left(to, messages, self.view) {
            let Some(stored) = self.stored.get_mut(&key) else { continue };
            if stored.forwarding != Forwarding::Unsent {
                continue;
            }
            stored.forwarding = Forwarding::Sent;
            self.watch.remove(&(stored.due, key.0, key.1));
            self.patience.begin_again(&mut stored.wait, now);
            stored.due = due;
            self.watch.insert((due, key.0, key.1));
        }
    }

    /// Reminds the leader of requests.
    pub(super) fn remind(&self, records: &[Bytes], out: &mut Output) {
        if !self.is_follower() {
            return;
        }
        let leader = self.config.leader(self.view);
        for chunk in records.chunks(FORWARD_CHUNK) {
            let mut message = Vec::from(requests_head(kind::REQUESTS));
            for record in chunk {
                message.extend_from_slice(record);
            }
            out.send(Destination::Peer(leader), message.into(), SendTag::Transient);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client: u32, session: u64) -> Key {
        (SessionId { client: ClientId(client), session }, RequestNumber(1))
    }

    #[test]
    fn clients_take_turns_whoever_wants_more() {
        let mut forwards = Forwards::default();
        (0..100).for_each(|session| forwards.want(key(1, session)));
        (0..2).for_each(|session| forwards.want(key(u32::MAX, session)));
        forwards.want(key(5, 0));
        let mut next = || forwards.next().map(|key| key.0.client.0);
        let order: Vec<u32> = std::iter::from_fn(&mut next).collect();
        assert_eq!(order[..7], [1, 5, u32::MAX, 1, u32::MAX, 1, 1]);
        assert_eq!(order.len(), 103);
    }

    #[test]
    fn what_is_under_way_is_bounded_in_requests_and_bytes() {
        let mut forwards =
            Forwards { bytes: 99, requests: FORWARDS_REQUESTS - 1, ..Forwards::default() };
        assert!(forwards.has_room(100) && !forwards.has_room(99));
        forwards.requests += 1;
        assert!(!forwards.has_room(100));
        forwards.forget(key(1, 1), 9, Forwarding::Sent);
        assert_eq!(forwards.counts(), (0, FORWARDS_REQUESTS - 1, 90));
    }

    #[test]
    fn the_oldest_messages_to_a_replica_leave_first() {
        let mut forwards = Forwards::default();
        for (to, view, session) in [(0, 0, 1), (1, 1, 2), (0, 3, 3), (0, 3, 4)] {
            let keys = vec![key(1, session)];
            forwards.unsent.push_back(Unsent {
                to: ReplicaId(to),
                view: View(view),
                keys,
                bytes: 10,
            });
        }
        assert_eq!(forwards.left_over(ReplicaId(0), View(3)), 10);
        // The first one was of an earlier view.
        assert_eq!(forwards.left(ReplicaId(0), 2, View(3)), [key(1, 3)]);
        assert_eq!(forwards.left_over(ReplicaId(0), View(3)), 0);
        assert_eq!(forwards.left(ReplicaId(0), 9, View(3)), [key(1, 4)]);
        assert_eq!(forwards.unsent.len(), 1);
    }
}
