//! Replies that wait for room on the link of their client.
//!
//! A client may ask for more than its wire carries at once. The results are kept in the session table
//! anyway, so what waits here are names: which reply is owed to whom. It is recalled from the execution
//! stage when the link has room, so a reply is in memory twice only while it is on its way. As long as
//! a link is full, or something waits for it, its client is *held*: the request intake takes in no more
//! of its requests, and it is not read.
//!
//! A reply that was handed to a link arrives, or the link breaks. So a large one is not given again over
//! the same link only because its client asks again; it does so when its wire is slow, and copies would
//! make it slower.
//!
//! **Nothing waits for an event that does not come.** A link for which replies wait is one of three:
//! *listed*, so that a [`Backlog::flush`] recalls for it as soon as few enough are recalled in all;
//! *recalling*, with replies on their way from the execution stage, each of which lists it again when it
//! comes; or *registered* with the driver, which tells [`Backlog::client_room`], or that the link is
//! gone. It is registered when nothing is recalled for it and it has no room, by the same measure
//! that it is told by. After a flush, a link is listed only while replies are recalled. So there is always
//! something on its way that leads to the next flush; [`Backlog::check_all_invariants`] says so.
//!
//! The driver asks for each queue of replies whether [`Backlog::concerns`] it, as few do: then it hands
//! it to [`Backlog::sort`] in place of [`Egress::reply`](crate::egress::Egress::reply). It
//! tells what becomes of links, and calls [`Backlog::flush`] at the end of each turn.
//!
//! | Who can fill it | Bound | Beyond it |
//! |---|---|---|
//! | a client | [`LINK_NAMES`] names for a link | the reply is not sent: the client asks again |
//! | all clients | [`MAX_NAMES`] names, and as many replies that were sent lately | as above; the oldest of its link gives way |
//! | replies that were recalled | 8 MiB, one apart | recalled when those before have been sent |

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::config::GroupConfig;
use crate::ids::{ClientId, RequestNumber, SessionId};
use crate::mutants::{self, Mutant};
use crate::output::{
    Cause, ClientLink, Input, LARGE_REPLY_BYTES, Reply, ReplyQueue, ToExecution, ToIntake,
};
use crate::time::Time;
use crate::wire::{ReplyStatus, RequestTag};

/// Replies that may wait for one link.
pub const LINK_NAMES: usize = 16_384;
/// Replies that may wait for all links.
pub const MAX_NAMES: usize = 1 << 18;
/// Large replies that were sent lately and are remembered, for one link.
const LINK_SENT: usize = 1024;
/// Bytes of replies that are recalled at a time, if they are as long as they may be.
const RECALLED_BYTES: usize = 8 << 20;
/// A reply that was handed to the same link is not given again before that link has taken all, nor
/// within this time, in microseconds.
const SENT_US: u64 = 2_000_000;
/// What a reply that waits, or is remembered, takes in bytes, with its link's turn. A tree may be half empty.
pub const NAME_BYTES: u64 = (2 * size_of::<(Key, State)>()
    + size_of::<Name>()
    + size_of::<Key>()
    + size_of::<ClientLink>()) as u64;

type Key = (SessionId, RequestNumber);

/// The links of clients as the driver holds them.
pub trait ClientRoom {
    /// Bytes that may still wait for a client before its link is full; `None` if it is not up.
    fn room(&self, client: ClientLink) -> Option<usize>;

    /// Registers a link without room: the driver tells [`Backlog::client_room`] as soon as it has some, or
    /// [`Backlog::client_down`], whatever happens. It is not registered again before that.
    fn await_room(&mut self, client: ClientLink);

    /// Sends a reply.
    fn send(&mut self, reply: &Reply<'_>);
}

/// What it did so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BacklogCounters {
    /// Replies that waited.
    pub deferred: u64,
    /// Replies that were not given again, since they were on their way.
    pub repeated: u64,
    /// Replies without room even to wait.
    pub dropped: u64,
}

/// The replies that wait for room. See the [module](self).
#[derive(Debug)]
pub struct Backlog {
    max_reply_bytes: usize,
    /// Links for which something waits, that are full, or that had large replies.
    links: BTreeMap<ClientLink, Link>,
    /// How many links of a client hold it.
    holds: BTreeMap<ClientId, u32>,
    /// Links that are full, or for which something waits.
    busy: usize,
    /// Replies that wait for all links.
    names: usize,
    /// Replies that were sent lately and are remembered, over all links.
    remembered: usize,
    /// Replies that the execution stage was asked for and has not given.
    recalled: usize,
    /// Links that are listed, each once, in the order of their turns.
    turns: VecDeque<ClientLink>,
    /// Inputs that are to be handed over.
    tell: Vec<Input>,
    counters: BacklogCounters,
}

#[derive(Debug, Default)]
struct Link {
    waiting: VecDeque<Name>,
    /// Replies that were recalled and are not here.
    recalled: usize,
    states: BTreeMap<Key, State>,
    /// The large replies that were sent last, oldest first.
    sent: VecDeque<Key>,
    is_full: bool,
    /// Whether it holds its client.
    holds: bool,
    /// Whether it is in the list of turns.
    is_listed: bool,
    /// Whether the driver is to tell when it has room.
    is_registered: bool,
}

#[derive(Clone, Copy, Debug)]
struct Name {
    key: Key,
    tag: RequestTag,
}

/// What became of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Recalled,
    Sent(Time),
}

impl State {
    fn is_sent(self) -> bool {
        matches!(self, Self::Sent(_))
    }
}

impl Backlog {
    /// Of a replica without links.
    #[must_use]
    pub fn new(config: &Arc<GroupConfig>) -> Self {
        Self {
            max_reply_bytes: (config.max_reply_bytes as usize).max(1),
            links: BTreeMap::new(),
            holds: BTreeMap::new(),
            busy: 0,
            names: 0,
            remembered: 0,
            recalled: 0,
            turns: VecDeque::new(),
            tell: Vec::new(),
            counters: BacklogCounters::default(),
        }
    }

    /// Whether some of these replies may have to wait. Nearly always not.
    #[inline]
    #[must_use]
    pub fn concerns(&self, replies: &ReplyQueue) -> bool {
        self.busy > 0 || replies.has_large()
    }

    /// Sends those of these replies that have room, and lets the others wait.
    pub fn sort(&mut self, replies: &ReplyQueue, now: Time, links: &mut impl ClientRoom) {
        for reply in replies.iter() {
            self.one(&reply, now, links);
        }
    }

    fn one(&mut self, reply: &Reply<'_>, now: Time, links: &mut impl ClientRoom) {
        let (client, key) = (reply.link(), (reply.session, reply.number));
        let is_large = reply.result.len() > LARGE_REPLY_BYTES;
        if reply.cause == Cause::Recalled {
            assert!(self.recalled > 0, "what was recalled is given once");
            self.recalled -= 1;
            if let Some(link) = self.links.get_mut(&client) {
                link.recalled = link.recalled.saturating_sub(1);
                self.remembered += link.sent(key, now, self.remembered < MAX_NAMES);
                self.turns.extend(link.list(client));
            }
            return links.send(reply);
        }
        let waits = self.links.get(&client).is_some_and(Link::is_busy);
        if !is_large && !waits && reply.cause != Cause::Deferred {
            return links.send(reply);
        }
        let Some(room) = links.room(client) else {
            // Counted as lost.
            return links.send(reply);
        };
        if reply.cause == Cause::Queried {
            // Nobody keeps it, so it cannot wait: it is to be ordered.
            return if room > 0 && !waits || !is_large {
                links.send(reply);
            } else {
                links.send(&Reply { status: ReplyStatus::OrderIt, result: &[], ..*reply });
            };
        }
        let link = self.links.entry(client).or_default();
        match link.states.get(&key) {
            Some(State::Waiting | State::Recalled) => return self.counters.repeated += 1,
            Some(State::Sent(at)) if room == 0 || link.is_full || now.since_us(*at) < SENT_US => {
                return self.counters.repeated += 1;
            }
            _ => {}
        }
        if reply.cause != Cause::Deferred && room > 0 && link.waiting.is_empty() {
            self.remembered += link.sent(key, now, self.remembered < MAX_NAMES);
            return links.send(reply);
        }
        if link.waiting.len() >= LINK_NAMES || self.names >= MAX_NAMES {
            return self.counters.dropped += 1;
        }
        self.counters.deferred += 1;
        self.names += 1;
        link.waiting.push_back(Name { key, tag: reply.tag });
        link.states.insert(key, State::Waiting);
        self.turns.extend(link.list(client));
        self.note(client);
    }

    /// A client's link is up, in place of any that it had.
    pub fn client_up(&mut self, client: ClientLink) {
        self.client_down(client);
    }

    /// A client's link is gone; what waits for it is not sent.
    pub fn client_down(&mut self, client: ClientLink) {
        let Some(link) = self.links.get_mut(&client) else { return };
        self.names -= link.waiting.len();
        self.remembered -= link.sent.len();
        link.waiting.clear();
        link.is_full = false;
        if link.is_listed {
            self.turns.retain(|listed| *listed != client);
        }
        self.note(client);
        self.links.remove(&client);
    }

    /// A client's link is full.
    pub fn client_full(&mut self, client: ClientLink) {
        self.links.entry(client).or_default().is_full = true;
        self.note(client);
    }

    /// A client's link that was full, or is registered, has room again.
    pub fn client_room(&mut self, client: ClientLink) {
        let Some(link) = self.links.get_mut(&client) else { return };
        (link.is_full, link.is_registered) = (false, false);
        self.turns.extend(link.list(client));
        self.note(client);
    }

    /// Takes note of whether a link holds its client.
    fn note(&mut self, client: ClientLink) {
        let Some(link) = self.links.get_mut(&client) else { return };
        let holds = link.is_busy();
        if std::mem::replace(&mut link.holds, holds) == holds {
            return;
        }
        let count = self.holds.entry(client.client).or_insert(0);
        let is_held = if holds {
            self.busy += 1;
            *count += 1;
            *count == 1
        } else {
            self.busy -= 1;
            *count -= 1;
            *count == 0
        };
        if is_held {
            self.tell.push(Input::Intake(ToIntake::Held { client: client.client, is_held: holds }));
        }
        if *count == 0 {
            self.holds.remove(&client.client);
        }
    }

    /// Recalls replies for links that have room, and hands over inputs for stages. To be called at the
    /// end of each turn.
    pub fn flush(&mut self, links: &mut impl ClientRoom, tell: &mut Vec<Input>) {
        if !self.turns.is_empty() {
            self.recall(links);
        }
        tell.append(&mut self.tell);
    }

    /// Each link that can take one gets one, round and round.
    fn recall(&mut self, links: &mut impl ClientRoom) {
        let most = (RECALLED_BYTES / self.max_reply_bytes).max(1);
        while self.recalled < most {
            let Some(client) = self.turns.pop_front() else { break };
            let link = self.links.get_mut(&client).expect("a link that goes leaves the list");
            link.is_listed = false;
            let reserved = link.recalled * self.max_reply_bytes;
            let has_room = links.room(client).is_some_and(|room| room > reserved);
            let name = if has_room { link.waiting.pop_front() } else { None };
            let Some(Name { key, tag }) = name else {
                if !link.waiting.is_empty() && link.recalled == 0 {
                    link.is_registered = true;
                    if !mutants::active(Mutant::RoomNotAwaited) {
                        links.await_room(client);
                    }
                }
                continue;
            };
            link.recalled += 1;
            link.states.insert(key, State::Recalled);
            self.names -= 1;
            self.recalled += 1;
            let (session, number) = key;
            self.tell.push(Input::Execution(ToExecution::Recall { session, number, tag }));
            self.turns.extend(link.list(client));
            self.note(client);
        }
        assert!(
            self.turns.is_empty() || self.recalled > 0,
            "a turn that waits is woken by a reply"
        );
    }

    /// Replies that wait, over all links.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.names
    }

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> &BacklogCounters {
        &self.counters
    }

    /// Stops the program if an invariant does not hold.
    ///
    /// # Panics
    /// If an invariant is broken.
    pub fn check_all_invariants(&self) {
        let links = || self.links.values();
        assert_eq!(
            self.names,
            links().map(|it| it.waiting.len()).sum::<usize>(),
            "names are counted"
        );
        assert_eq!(self.busy, links().filter(|it| it.holds).count(), "busy links are counted");
        assert!(links().all(|it| it.holds == it.is_busy()), "a busy link holds its client");
        let remembered = links().map(|it| it.sent.len()).sum::<usize>();
        assert_eq!(self.remembered, remembered, "replies that are remembered are counted");
        assert!(links().all(|it| it.sent.len() <= LINK_SENT), "few replies are remembered");
        let listed: BTreeSet<_> = self.turns.iter().collect();
        assert_eq!(listed.len(), self.turns.len(), "a link is listed once");
        for (client, link) in &self.links {
            assert_eq!(link.is_listed, listed.contains(client), "links know whether they are");
            let is_woken = link.is_listed || link.recalled > 0 || link.is_registered;
            assert!(is_woken || link.waiting.is_empty(), "something wakes what waits");
        }
        let held: u32 = self.holds.values().sum();
        assert_eq!(self.busy, held as usize, "clients are held by their links");
    }
}

impl Link {
    fn is_busy(&self) -> bool {
        self.is_full || !self.waiting.is_empty()
    }

    /// Itself, if it is to be in the list of turns and is not.
    fn list(&mut self, client: ClientLink) -> Option<ClientLink> {
        let is_due = !self.waiting.is_empty() && !self.is_registered;
        (is_due && !std::mem::replace(&mut self.is_listed, true)).then_some(client)
    }

    /// A reply is handed to the link. By how many more replies are remembered than before.
    fn sent(&mut self, key: Key, now: Time, may_remember: bool) -> usize {
        if self.states.insert(key, State::Sent(now)).is_some_and(State::is_sent) {
            return 0;
        }
        let is_full = self.sent.len() >= LINK_SENT || !may_remember;
        self.sent.push_back(key);
        if !is_full {
            return 1;
        }
        // One that is to be given again is not forgotten.
        if let Some(oldest) = self.sent.pop_front()
            && self.states.get(&oldest).copied().is_some_and(State::is_sent)
        {
            self.states.remove(&oldest);
        }
        0
    }
}

#[cfg(test)]
mod tests;
