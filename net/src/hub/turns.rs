//! How much of what arrived over a link one poll reports, and whether a link is read at all.
//!
//! Whoever uses the hub handles what a poll reports before it polls again. Without a share, whoever
//! sends most makes a turn long and has all others wait for its end. So a poll reports of one source at
//! most [`Limits::turn_bytes`](crate::Limits::turn_bytes) and what one read brought; a client counts as
//! one source, however many links it has. What is beyond it is reported by the next polls, undecrypted
//! until then, and a link with more than a quarter of a share of that is not read. Who has had more than
//! a share, as a read brought more, waits so many turns longer.
//!
//! What messages cost beyond that ([`Hub::charge_peer`], [`Hub::charge_client`]) is paid for by time, not
//! by turns: these pass quickly where nobody else has much to do, and whoever makes them long must not
//! gain by that. It is what some kinds cost to answer, and what it cost to read those that were of no
//! use ([`DROPPED_COST_NS`], [`DROPPED_KIB_NS`]): who floods a link must send something, and of what is
//! of use there is only so much. So a peer at full speed with what is needed owes nothing. Of the
//! time that passes, a half pays for all peers that owe something, in equal parts, of a quarter at most;
//! a quarter pays for clients, an eighth for one at most. Who owes more than [`CREDIT_NS`] has to wait.
//! So whatever is sent that is costly or useless, a quarter of the time is for the rest. What others
//! leave is not theirs either: the processor may have something else to do, and what correct ones owe
//! is far less.
//!
//! | Who can fill it | Bound | Beyond it |
//! |---|---|---|
//! | a source, by messages | a share of a turn, and what one read brought | the rest waits undecrypted, a quarter of a share; then the link is not read |
//! | a source, by what messages cost | [`CREDIT_NS`], and what one poll brought | as above, until it has paid; after [`MOST_OWED_NS`] nothing is added |
//!
//! A link is read unless one of three does not want it: all clients are paused, its owner paused it, or
//! it has arrears.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::event::{LinkId, Source};
use super::outbound::Live;
use super::{Hub, State, find, find_peer};
use crate::transport::{ConnectionId, Transport};

/// What a message counts beside its bytes, and so does a frame without any: handling one costs something
/// whatever its length.
const MESSAGE_COST: u64 = 1024;
/// What a source may owe before it has to wait, in nanoseconds of work: more than a correct one ever does.
pub(super) const CREDIT_NS: u64 = 100_000;
/// Nobody owes more than this, whatever it cost: also one that was charged wrongly must be heard again.
pub(super) const MOST_OWED_NS: u64 = 25_000_000;

/// What it costs to read a message that is dropped, in nanoseconds of work: an estimate,
const DROPPED_COST_NS: u64 = 500;
/// and each KiB of it: the system copies it, the hub decrypts it.
const DROPPED_KIB_NS: u64 = 600;

/// A link is not read while it has more in arrears than this part of a share.
const LONG: u64 = 4;

/// What arrived over a link and was not looked at.
#[derive(Debug, Default)]
pub(super) struct Arrears {
    blocks: VecDeque<BytesMut>,
    bytes: usize,
    /// Whether they are why the link is not read.
    are_long: bool,
}

impl Arrears {
    pub(super) fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// How many bytes.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn push(&mut self, data: BytesMut) {
        self.bytes += data.len();
        self.blocks.push_back(data);
    }

    pub(super) fn pop(&mut self) -> Option<BytesMut> {
        let block = self.blocks.pop_front()?;
        self.bytes -= block.len();
        Some(block)
    }
}

/// What each source has had of the present turn, and owes.
#[derive(Debug)]
pub(super) struct Turns {
    share: u64,
    /// By replica id.
    peers: Vec<Account>,
    /// Of those that had something of the present turn, or owe something.
    clients: HashMap<u32, Account, BuildHasherDefault<OfId>>,
    /// Links with arrears, each once, those first whose turn it is.
    pub(super) waiting: VecDeque<(ConnectionId, Source)>,
    peers_pay: Payers,
    clients_pay: Payers,
    /// When debts were paid last.
    paid_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Of the present turn, in bytes.
    spent: u64,
    /// Nanoseconds of work that are not paid for.
    owed_ns: u64,
}

impl Account {
    fn is_over(&self, share: u64) -> bool {
        self.spent >= share || self.owed_ns > CREDIT_NS
    }
}

/// Hashes the identity of a client. Each turn hashes it several times, and whoever sends cannot choose it:
/// the operator gives it.
#[derive(Debug, Default)]
struct OfId(u64);

impl Hasher for OfId {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }

    fn write_u32(&mut self, id: u32) {
        // The map takes the place from the low bits, and a mark from the high ones.
        let mixed = (self.0 ^ u64::from(id)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ mixed >> 32;
    }
}

/// Sources among which a part of the time is shared out.
#[derive(Debug)]
struct Payers {
    /// One of so many parts of the time pays for what one owes, at most,
    least_parts: u64,
    /// and one of so many for what all together owe.
    parts_of_all: u64,
    /// Those that owe something.
    debtors: u64,
}

impl Payers {
    /// One of so many parts of the time pays for each that owes something.
    fn parts(&self) -> u64 {
        self.least_parts.max(self.parts_of_all * self.debtors)
    }

    /// What each has paid when this much time has passed.
    fn paid_ns(&self, passed_ns: u64) -> u64 {
        (passed_ns / self.parts()).min(MOST_OWED_NS)
    }

    fn owe(&mut self, account: &mut Account, cost_ns: u64) {
        self.debtors += u64::from(account.owed_ns == 0 && cost_ns > 0);
        account.owed_ns = account.owed_ns.saturating_add(cost_ns).min(MOST_OWED_NS);
    }

    /// How long it takes until one that owes this much need not wait.
    fn wait(&self, account: Option<&Account>) -> Duration {
        let owed_ns = account.map_or(0, |it| it.owed_ns);
        Duration::from_nanos(owed_ns.saturating_sub(CREDIT_NS) * self.parts())
    }
}

impl Turns {
    pub(super) fn new(share: usize) -> Self {
        Self {
            share: share as u64,
            peers: Vec::new(),
            clients: HashMap::default(),
            waiting: VecDeque::new(),
            peers_pay: Payers { least_parts: 4, parts_of_all: 2, debtors: 0 },
            clients_pay: Payers { least_parts: 8, parts_of_all: 4, debtors: 0 },
            paid_at: None,
        }
    }

    /// How long it takes until a link with arrears has its turn, if there is one.
    #[inline]
    pub(super) fn next_turn(&self) -> Option<Duration> {
        if self.waiting.is_empty() {
            return None;
        }
        let wait = |source| match source {
            Source::Peer(peer) => self.peers_pay.wait(self.peers.get(usize::from(peer))),
            Source::Client { client, .. } => self.clients_pay.wait(self.clients.get(&client)),
        };
        self.waiting.iter().map(|(_, source)| wait(*source)).min()
    }

    /// A new turn begins. Who had more than a share waits the longer, and who owes something pays.
    #[inline]
    pub(super) fn begin(&mut self, now: Instant) {
        let share = self.share;
        self.peers.iter_mut().for_each(|it| it.spent = it.spent.saturating_sub(share));
        if self.peers_pay.debtors + self.clients_pay.debtors > 0 {
            self.pay(now);
        }
        self.paid_at = Some(now);
        if !self.clients.is_empty() {
            self.clients.retain(|_, it| {
                it.spent = it.spent.saturating_sub(share);
                it.spent > 0 || it.owed_ns > 0
            });
        }
    }

    fn pay(&mut self, now: Instant) {
        let Some(paid_at) = self.paid_at else { return };
        let passed = now.saturating_duration_since(paid_at);
        let passed_ns = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX);
        let pay = |accounts: &mut dyn Iterator<Item = &mut Account>, payers: &mut Payers| {
            let paid_ns = payers.paid_ns(passed_ns);
            payers.debtors = 0;
            for account in accounts {
                account.owed_ns = account.owed_ns.saturating_sub(paid_ns);
                payers.debtors += u64::from(account.owed_ns > 0);
            }
        };
        pay(&mut self.peers.iter_mut(), &mut self.peers_pay);
        pay(&mut self.clients.values_mut(), &mut self.clients_pay);
    }

    #[inline]
    fn account(&mut self, source: Source) -> &mut Account {
        match source {
            Source::Peer(peer) => account_of(&mut self.peers, peer),
            Source::Client { client, .. } => self.clients.entry(client).or_default(),
        }
    }

    /// Whether a source has had its share, or owes too much.
    #[inline]
    pub(super) fn is_over(&self, source: Source) -> bool {
        let account = match source {
            Source::Peer(peer) => self.peers.get(usize::from(peer)),
            Source::Client { client, .. } => self.clients.get(&client),
        };
        account.is_some_and(|it| it.is_over(self.share))
    }

    /// A frame of a source is reported.
    #[inline]
    pub(super) fn spend(&mut self, source: Source, bytes: usize, messages: usize) {
        let cost = bytes as u64 + MESSAGE_COST * messages.max(1) as u64;
        self.account(source).spent += cost;
    }

    pub(super) fn owe(&mut self, peer: u16, cost_ns: u64) {
        self.peers_pay.owe(account_of(&mut self.peers, peer), cost_ns);
    }

    pub(super) fn client_owes(&mut self, client: u32, cost_ns: u64) {
        self.clients_pay.owe(self.clients.entry(client).or_default(), cost_ns);
    }

    /// Whether nothing of anybody is left to pay.
    #[cfg(test)]
    pub(super) fn owes_nothing(&self) -> bool {
        let owed = |it: &Account| it.owed_ns > 0;
        !self.peers.iter().any(owed) && self.clients.is_empty()
    }

    /// A link has arrears.
    pub(super) fn wait(&mut self, link: ConnectionId, source: Source) {
        self.waiting.push_back((link, source));
    }
}

#[inline]
fn account_of(peers: &mut Vec<Account>, peer: u16) -> &mut Account {
    let index = usize::from(peer);
    if peers.len() <= index {
        peers.resize(index + 1, Account::default());
    }
    &mut peers[index]
}

/// What it cost to read a message of this many bytes that is dropped, in nanoseconds of work; an estimate
/// from profiles.
#[must_use]
pub const fn dropped_cost_ns(bytes: u64) -> u64 {
    DROPPED_COST_NS + bytes.saturating_mul(DROPPED_KIB_NS) / 1024
}

impl<T: Transport> Hub<T> {
    /// Begins a turn with what is left of the last one.
    pub(super) fn begin_turn(&mut self, now: Instant) {
        self.turns.begin(now);
        for _ in 0..self.turns.waiting.len() {
            let Some((id, _)) = self.turns.waiting.pop_front() else { break };
            self.take_arrears(id, false);
        }
    }

    /// Looks at what has arrived over a link earlier, up to its share or `all` of it.
    pub(super) fn take_arrears(&mut self, id: ConnectionId, all: bool) {
        loop {
            let Some(State::Live(live)) = find(&mut self.connections, id).map(|it| &mut it.state)
            else {
                return;
            };
            if !all && self.turns.is_over(live.source) && !live.arrears.is_empty() {
                self.turns.wait(id, live.source);
                break;
            }
            let Some(block) = live.arrears.pop() else { break };
            live.link.opener.push(block);
            self.open_frames(id);
        }
        self.read_or_not(id);
    }

    /// Takes what has arrived over a link now.
    pub(super) fn take_block(&mut self, id: ConnectionId, data: BytesMut) {
        let Some(State::Live(live)) = find(&mut self.connections, id).map(|it| &mut it.state)
        else {
            return;
        };
        if !live.arrears.is_empty() {
            live.arrears.push(data);
        } else if self.turns.is_over(live.source) {
            live.arrears.push(data);
            self.turns.wait(id, live.source);
        } else {
            live.link.opener.push(data);
            self.open_frames(id);
            return;
        }
        self.read_or_not(id);
    }

    /// Whether a link has so much in arrears that it is not to be read has changed, perhaps.
    fn read_or_not(&mut self, id: ConnectionId) {
        let Some(State::Live(live)) = find(&mut self.connections, id).map(|it| &mut it.state)
        else {
            return;
        };
        let arrears = &mut live.arrears;
        let are_long = match arrears.are_long {
            true => !arrears.is_empty(),
            false => arrears.bytes as u64 > self.turns.share / LONG,
        };
        if std::mem::replace(&mut arrears.are_long, are_long) != are_long {
            self.transport.pause_reading(id, is_paused(live, self.clients_paused));
        }
    }

    /// Stops or resumes reading from all clients, present and future. Messages that have arrived
    /// already are still reported.
    pub fn pause_clients(&mut self, paused: bool) {
        if self.clients_paused == paused {
            return;
        }
        self.clients_paused = paused;
        for &id in self.clients.values() {
            if let Some(State::Live(live)) = find(&mut self.connections, id).map(|it| &it.state) {
                self.transport.pause_reading(id, is_paused(live, paused));
            }
        }
    }

    /// Stops or resumes reading from one client's link. Messages that have arrived already are still
    /// reported.
    pub fn pause_client(&mut self, link: LinkId, paused: bool) {
        self.pause(link.0, paused);
    }

    /// What a peer sent costs more than its bytes say: this much more, in nanoseconds of work.
    pub fn charge_peer(&mut self, peer: u16, cost_ns: u64) {
        self.turns.owe(peer, cost_ns);
    }

    /// What a client sent costs more than its bytes say: this much more, in nanoseconds of work. All its
    /// links have to wait.
    pub fn charge_client(&mut self, client: u32, cost_ns: u64) {
        self.turns.client_owes(client, cost_ns);
    }

    /// Stops or resumes reading from a peer, until its link is another one. Messages that have arrived
    /// already are still reported.
    pub fn pause_peer(&mut self, peer: u16, paused: bool) {
        if let Some(id) = find_peer(&mut self.peers, peer).and_then(|peer| peer.link) {
            self.pause(id, paused);
        }
    }

    fn pause(&mut self, id: ConnectionId, paused: bool) {
        let Some(State::Live(live)) = find(&mut self.connections, id).map(|it| &mut it.state)
        else {
            return;
        };
        if std::mem::replace(&mut live.is_paused, paused) != paused {
            self.transport.pause_reading(id, is_paused(live, self.clients_paused));
        }
    }
}

/// Whether nothing is to be read from a link.
fn is_paused(live: &Live, clients_paused: bool) -> bool {
    let is_client = matches!(live.source, Source::Client { .. });
    live.is_paused || live.arrears.are_long || (is_client && clients_paused)
}
