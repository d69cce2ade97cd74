//! Egress: what leaves a replica, when, and on which way.
//!
//! The stages say what is to be sent to whom; this stage decides the rest, and the driver executes
//! it ([`Links`]). Every rule about sending, keeping and giving up is here, where the simulator
//! runs it:
//!
//! - **Durability.** What a replica with a log puts out comes here when the log has it (`gate.rs`).
//! - **Urgency.** A message leaves at the end of the turn, unless nobody waits for it: COMMITs that
//!   make no difference to their receiver, and the PREPAREs that a thrifty leader sends to the
//!   followers outside its preferred quorum. These go along with the next urgent message to the
//!   same peer, or when they have waited for [`EgressLimits::late_us`]; DEVIATIONS 20.
//! - **Queries.** A query wants equal answers of all replicas, and a replica that gets a PREPARE
//!   late gives the old answer. So no PREPARE is late while clients send queries.
//! - **Replies.** One message per link, view and turn. A follower's single reply may go through the
//!   leader ([`Trust`], DEVIATIONS 21), if something goes there anyway.
//! - **Pace.** A link is given what it carries in a round trip and a little more (`pace.rs`); how long
//!   the way to the peers takes, and whether it is full, the stages are told (`path.rs`).
//! - **Credit.** A peer's messages wait here until its link has room for them
//!   ([`EgressLimits::link_window_bytes`]), or is up at all. What waits here can be withdrawn when a
//!   checkpoint or view passes it (TR listing 9, remove).
//! - **Pacing.** No message waits twice for one peer. One that was handed to the present link is not
//!   handed over again while it is still on its way, nor before an answer to it could have arrived, nor before the
//!   link has carried so much else that repeating it is a small part.
//! - **Order.** What changes views or moves windows goes before batches that wait, in its own order: a slow
//!   wire may be full of batches of a view that is over.
//!
//! Invariants, checked by [`Egress::check_invariants`]: what waits for a peer is within
//! [`EgressLimits::queue_bytes`] and counted right; no two entries of a queue are equal; what goes ahead is in front; if
//! something waits for a peer, either the queue is due or it has a deadline.
//!
//! | Who can fill it | Bound | Beyond it |
//! |---|---|---|
//! | the stages, for one peer | `queue_bytes`; usually the order window, as the rest is withdrawn | the message is dropped and counted; the stage asks or sends again |
//! | the stages, with what nothing withdraws | `transient_bytes` for each peer | as above |
//! | one peer, by what it asks; clients, by what is forwarded | what each stage lets wait for it; dropped with its link | the stage gives no more until some have left ([`Egress::tell_stages`]) |
//! | clients, by replies | one message per link, closed at 64 KiB | the link's own limit, in the driver |

mod gate;
mod pace;
mod path;
mod peer;
mod relay_trust;
mod replies;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;

use crate::config::GroupConfig;
use crate::ids::{Peers, ReplicaId};
use crate::mutants::{self, Mutant};
use crate::output::{
    Answerer, ClientLink, Destination, Input, Network, Reject, Reply, ReplyQueue, SendTag,
    ToControl, ToIntake, ToPillar, ToState,
};
use crate::time::{Time, earliest};
use crate::wire::kind_of;
use crate::wire::relay::{RELAY_HEAD, begin_relay, parse_relay, relayed_head};

use path::Told;
use peer::{Outbound, Outgoing, Push, Urgency};
use replies::{ClientLinks, Ready};

pub use gate::{AGAIN_BYTES, Gate, Held};
pub use relay_trust::Trust;
pub use replies::reply_link_bytes;

/// PREPAREs that go to all peers at once after a query: the rate of queries is not known, but
/// who asked once asks again.
pub const PROMPT_PREPARES: u32 = 1024;

/// Room that sealing may add to an envelope, in bytes.
const ENVELOPE_BYTES: usize = 64;

/// What the driver knows about the link to a peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkState {
    /// Bytes handed over that have not reached the other host, as far as the driver can tell.
    pub outstanding_bytes: usize,
    /// The link's measured round trip, in microseconds; 0 if it was not measured.
    pub round_trip_us: u64,
}

/// The links of a replica, as its driver holds them. Nothing here decides anything.
///
/// `L` names a client's link in the driver.
pub trait Links<L> {
    /// Bytes handed over for a peer that the link has not taken yet: what it would keep in memory.
    fn unsent_bytes(&mut self, peer: ReplicaId) -> usize;

    /// What is known about the link to a peer; asked only when something is to be sent again.
    fn link_state(&mut self, peer: ReplicaId) -> LinkState;

    /// Sends a message to a peer whose link is up. False if the link cannot take it.
    fn send(&mut self, peer: ReplicaId, message: Bytes) -> bool;

    /// Sends a message to a client.
    fn send_to_client(&mut self, link: L, message: &[u8]);

    /// Seals a message to a client, for another replica to relay, and appends it. False, and
    /// nothing is appended, if the link is gone.
    fn seal_for_client(&mut self, link: L, message: &[u8], envelope: &mut Vec<u8>) -> bool;

    /// Sends to a client what another replica sealed for it, behind `head`. False if the link does
    /// not take it: another replica must not cost the client its link.
    fn relay_to_client(&mut self, link: L, head: &[u8], envelope: &[u8]) -> bool;

    /// Closes the link of a client that sent what no correct client sends.
    fn close_client(&mut self, link: L);
}

/// The limits of an [`Egress`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EgressLimits {
    /// Bytes that a link may hold unsent before more is kept back here. Default 1 MiB.
    pub link_window_bytes: usize,
    /// Bytes that may wait for one peer. Default 1 GiB; what really waits is bounded by the order
    /// window, as what a checkpoint passed is withdrawn.
    pub queue_bytes: usize,
    /// Bytes of them that nothing withdraws, but for answers and forwarded requests, which the stages
    /// bound: what asks, reminds or is relayed. Default 16 MiB; beyond, they are dropped, and sent again later.
    pub transient_bytes: usize,
    /// Longest wait of a message for another to go along with, in microseconds. Default 5,000.
    pub late_us: u64,
    /// A queue with this many bytes leaves, urgent or not. Default 128 KiB.
    pub full_bytes: usize,
}

impl Default for EgressLimits {
    fn default() -> Self {
        Self {
            link_window_bytes: 1 << 20,
            queue_bytes: 1 << 30,
            transient_bytes: 16 << 20,
            late_us: 5_000,
            full_bytes: 128 << 10,
        }
    }
}

/// What an [`Egress`] did so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct EgressCounters {
    /// Messages withdrawn before they left (TR listing 9, remove).
    pub withdrawn: u64,
    /// Messages that waited already when they were to be sent again.
    pub duplicates: u64,
    /// Messages that were not sent again because an earlier copy was still on its way.
    pub paced: u64,
    /// Messages to peers dropped for want of room, or because no frame can hold them.
    pub dropped: u64,
    /// Replies that went through the leader.
    pub relayed: u64,
    /// Replies, of this replica or to be relayed for others, whose client's link was gone or full.
    pub lost_replies: u64,
}

/// The egress stage of a replica. See the [module](self).
#[derive(Debug)]
pub struct Egress<L> {
    clients: ClientLinks<L>,
    /// PREPAREs that are not late because a client sent queries.
    prompt: u32,
    to_peers: ToPeers,
}

/// What goes to peers. Apart from the links of clients, as replies may go both ways.
#[derive(Debug)]
struct ToPeers {
    config: Arc<GroupConfig>,
    id: ReplicaId,
    limits: EgressLimits,
    /// By replica id; the entry of this replica stays empty.
    peers: Vec<Outbound>,
    counters: EgressCounters,
    path: Told,
}

impl<L: Copy + PartialEq> Egress<L> {
    /// The egress of a replica none of whose links is up.
    #[must_use]
    pub fn new(config: Arc<GroupConfig>, id: ReplicaId, limits: EgressLimits) -> Self {
        let peers = (0..config.replicas).map(|_| Outbound::default()).collect();
        let counters = EgressCounters::default();
        let path = Told::default();
        let to_peers = ToPeers { config, id, limits, peers, counters, path };
        Self { clients: ClientLinks::new(id), prompt: 0, to_peers }
    }

    /// The link to a peer is up, perhaps in place of an earlier one. What was on its way over that
    /// is lost or not; what waits here goes over the new one.
    pub fn peer_up(&mut self, peer: ReplicaId) {
        self.to_peers.peers[usize::from(peer.0)].up();
    }

    /// The link to a peer is gone. What waits for it is kept, but for answers.
    pub fn peer_down(&mut self, peer: ReplicaId) {
        let ToPeers { peers, counters, .. } = &mut self.to_peers;
        counters.dropped += peers[usize::from(peer.0)].down() as u64;
    }

    /// Tells stages what they must know: that answers of theirs do not wait any more, so that they give
    /// others, and what the way to the peers is like. To be called after each [`Egress::flush`] and
    /// [`Egress::peer_down`], and the inputs are to be handed over.
    pub fn tell_stages(&mut self, mut tell: impl FnMut(Input)) {
        if let Some(path) = self.to_peers.path.take() {
            tell(Input::Intake(ToIntake::Path(path)));
            tell(Input::Control(ToControl::Path(path)));
            for pillar in self.to_peers.config.all_pillars() {
                tell(Input::Pillar(pillar, ToPillar::Path(path)));
            }
        }
        for (peer, outbound) in (0..).map(ReplicaId).zip(&mut self.to_peers.peers) {
            if !outbound.has_left() {
                continue;
            }
            for (by, answers) in outbound.take_left() {
                tell(match by {
                    Answerer::Pillar(pillar) => {
                        Input::Pillar(pillar, ToPillar::AnswersLeft { peer, answers })
                    }
                    Answerer::State => Input::State(ToState::AnswersLeft { peer, answers }),
                    Answerer::Intake => {
                        Input::Intake(ToIntake::ForwardsLeft { peer, messages: answers })
                    }
                });
            }
        }
    }

    /// A client's link is up; one of the same client and incarnation gives way to it.
    pub fn client_up(&mut self, client: ClientLink, link: L) {
        self.clients.up(client, link);
    }

    /// A client's link is gone. The replies under construction for it are lost; the client asks
    /// again.
    pub fn client_down(&mut self, client: ClientLink, link: L) {
        self.clients.down(client, link);
    }

    /// A client sent queries.
    pub fn queried(&mut self) {
        self.prompt = PROMPT_PREPARES;
    }

    /// Takes an effect of a stage.
    #[inline]
    pub fn apply(&mut self, effect: Network, now: Time, links: &mut impl Links<L>) {
        match effect {
            Network::Send { to: Destination::AllPeers, message, tag, is_new } => {
                self.to_peers.send_to_all(None, Outgoing::new(message, tag, is_new), now);
            }
            Network::Send { to: Destination::Thrifty(first), message, tag, is_new } => {
                let first = self.may_be_thrifty(first).then_some(first);
                self.to_peers.send_to_all(first, Outgoing::new(message, tag, is_new), now);
            }
            Network::Send { to: Destination::Peer(peer), message, tag, is_new } => {
                if peer != self.to_peers.id {
                    let message = Outgoing::new(message, tag, is_new);
                    self.to_peers.push(peer, message, Urgency::Now, now);
                }
            }
            Network::Send { to: Destination::Client(client), message, .. } => {
                match self.clients.find(client) {
                    Some(link) => links.send_to_client(link, &message),
                    None => self.to_peers.counters.lost_replies += 1,
                }
            }
            Network::Withdraw(mark) => {
                let ToPeers { peers, counters, .. } = &mut self.to_peers;
                for peer in peers {
                    counters.withdrawn += peer.withdraw(&mark) as u64;
                }
            }
            Network::CloseClient(client) => {
                if let Some(link) = self.clients.find(client) {
                    links.close_client(link);
                }
            }
        }
    }

    /// Takes replies; they leave with the next [`Self::flush`].
    #[inline]
    pub fn reply(&mut self, replies: &ReplyQueue, links: &mut impl Links<L>) {
        self.reply_all(replies.iter(), links);
    }

    /// As [`Self::reply`], for one.
    pub fn reply_one(&mut self, reply: &Reply<'_>, links: &mut impl Links<L>) {
        self.reply_all(std::iter::once(*reply), links);
    }

    #[inline(always)]
    fn reply_all<'a>(
        &mut self,
        replies: impl Iterator<Item = Reply<'a>>,
        links: &mut impl Links<L>,
    ) {
        let lost =
            self.clients.push(replies, |ready| links.send_to_client(ready.link, ready.message));
        self.to_peers.counters.lost_replies += lost;
    }

    /// The link of a client, if it is up.
    #[must_use]
    pub fn client_link(&self, client: ClientLink) -> Option<L> {
        self.clients.find(client)
    }

    /// Relays the sealed replies of a follower to a client (DEVIATIONS 21). What cannot go now is
    /// dropped: the client asks again.
    ///
    /// # Errors
    /// If the message is no RELAY.
    pub fn relay(
        &mut self,
        from: ReplicaId,
        message: &[u8],
        links: &mut impl Links<L>,
    ) -> Result<(), Reject> {
        let (client, envelope) = parse_relay(message)?;
        let relayed = self
            .clients
            .find(client)
            .is_some_and(|link| links.relay_to_client(link, &relayed_head(from), envelope));
        self.to_peers.counters.lost_replies += u64::from(!relayed);
        Ok(())
    }

    /// The end of a turn: closes all messages under construction and hands over what is due and
    /// has room. To be called at the end of each turn, when a link has taken something, and when
    /// [`Self::deadline`] has passed.
    ///
    /// Peers come before clients: a batch commits the sooner, the sooner they are woken, and no client
    /// can go on before.
    pub fn flush(&mut self, now: Time, links: &mut impl Links<L>) {
        let Self { clients, to_peers, .. } = self;
        if to_peers.is_any_due() {
            clients.relay(|ready| to_peers.relay_by_leader(ready, now, links));
        }
        let ToPeers { limits, peers, counters, .. } = &mut *to_peers;
        for (peer, outbound) in (0..).map(ReplicaId).zip(peers) {
            outbound.hand_over(peer, now, limits, counters, links);
        }
        let ToPeers { config, peers, path, .. } = to_peers;
        path.update(now, peers.iter().filter_map(|peer| peer.way(now)), config.quorum() - 1);
        clients.flush(|ready| links.send_to_client(ready.link, ready.message));
    }

    /// What may go late is due: this replica may be held up for longer than it may wait, by a service
    /// that takes long. To be called before [`Self::flush`].
    pub fn hurry(&mut self, now: Time) {
        for peer in &mut self.to_peers.peers {
            peer.hurry(now);
        }
    }

    /// When [`Self::flush`] is to be called at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        self.to_peers.peers.iter().fold(None, |first, peer| earliest(first, peer.deadline()))
    }

    /// What it did so far.
    #[must_use]
    pub fn counters(&self) -> &EgressCounters {
        &self.to_peers.counters
    }

    /// Client links that are up.
    #[must_use]
    pub fn client_links(&self) -> u64 {
        self.clients.live()
    }

    /// Bytes that wait here for a peer.
    #[must_use]
    pub fn queued_bytes(&self, peer: ReplicaId) -> usize {
        self.to_peers.peers.get(usize::from(peer.0)).map_or(0, Outbound::bytes)
    }

    /// Bytes that wait for a peer and that no checkpoint or view withdraws: what this replica asks
    /// or forwards, and what it answers.
    #[must_use]
    pub fn lasting_bytes(&self, peer: ReplicaId) -> (usize, usize) {
        let outbound = self.to_peers.peers.get(usize::from(peer.0));
        outbound.map_or((0, 0), Outbound::lasting_bytes)
    }

    /// An invariant that does not hold. `full`: the costly ones too, for the simulator.
    #[must_use]
    pub fn broken_invariant(&self, full: bool) -> Option<&'static str> {
        let ToPeers { limits, peers, .. } = &self.to_peers;
        peers.iter().find_map(|peer| peer.broken_invariant(limits, full))
    }

    /// Stops the program if an invariant does not hold.
    ///
    /// # Panics
    /// If an invariant is broken.
    pub fn check_invariants(&self, full: bool) {
        if let Some(invariant) = self.broken_invariant(full) {
            panic!("egress of replica {}: broken invariant: {invariant}", self.to_peers.id);
        }
    }

    /// How long the link to a peer has taken nothing although it is up, has room and something waits
    /// for it, in microseconds; for the simulator's oracles.
    #[must_use]
    pub fn waiting(&self, peer: ReplicaId, now: Time) -> Option<u64> {
        self.to_peers.peers.get(usize::from(peer.0))?.waiting_us(now)
    }

    /// Whether the PREPAREs of this replica go to all peers at once because of queries.
    #[must_use]
    pub fn is_prompt(&self) -> bool {
        self.prompt > 0
    }

    /// Whether a message may go to some peers first and to the others late.
    fn may_be_thrifty(&mut self, first: Peers) -> bool {
        let ToPeers { config, id, peers, .. } = &self.to_peers;
        if !config.rules().is_thrifty {
            return false;
        }
        if self.prompt > 0 {
            self.prompt -= 1;
            if !mutants::active(Mutant::ThriftyDuringQueries) {
                return false;
            }
        }
        // A peer without a link cannot be the first.
        let mut peers = (0..).map(ReplicaId).zip(peers);
        peers.all(|(peer, outbound)| outbound.is_up() || !first.contains(peer) || peer == *id)
    }
}

impl ToPeers {
    /// To all peers; only to `first` at once, if it is given.
    fn send_to_all(&mut self, first: Option<Peers>, message: Outgoing, now: Time) {
        let own = self.id;
        for peer in (0..self.config.replicas).map(ReplicaId).filter(|peer| *peer != own) {
            let is_late = first.is_some_and(|first| !first.contains(peer));
            let urgency = match is_late || self.may_wait(peer, &message) {
                true => Urgency::Late,
                false => Urgency::Now,
            };
            self.push(peer, message.clone(), urgency, now);
        }
    }

    /// Whether a message makes no difference to a peer now. With a quorum of two a follower commits
    /// by the proposal and its own vote. The votes of other followers reach it all the same, for the
    /// case that the proposal does not.
    fn may_wait(&self, peer: ReplicaId, message: &Outgoing) -> bool {
        let SendTag::Ordering(view, _) = message.tag() else {
            return false;
        };
        self.config.rules().late_vote == Some(kind_of(message.bytes()))
            && self.config.quorum() <= 2
            && self.config.leader(view) != peer
    }

    #[inline]
    fn push(&mut self, peer: ReplicaId, message: Outgoing, urgency: Urgency, now: Time) {
        let Some(outbound) = self.peers.get_mut(usize::from(peer.0)) else {
            return;
        };
        match outbound.push(message, urgency, now, &self.limits) {
            Push::Queued => {}
            Push::Duplicate => self.counters.duplicates += 1,
            Push::Coming => self.counters.paced += 1,
            Push::Full => self.counters.dropped += 1,
        }
    }

    /// Whether something leaves for a peer at the end of the turn in any case.
    fn is_any_due(&self) -> bool {
        self.peers.iter().any(Outbound::is_due)
    }

    /// Sends a REPLIES message along with what goes to the leader, if there is something
    /// (DEVIATIONS 21). False if it has to go straight to the client.
    fn relay_by_leader<L: Copy>(
        &mut self,
        ready: Ready<'_, L>,
        now: Time,
        links: &mut impl Links<L>,
    ) -> bool {
        let leader = self.config.leader(ready.view);
        let relays = self.config.rules().relays_replies;
        if !relays || leader == self.id || !self.peers[usize::from(leader.0)].is_due() {
            return false;
        }
        let mut relay = Vec::with_capacity(RELAY_HEAD + ready.message.len() + ENVELOPE_BYTES);
        begin_relay(&mut relay, ready.client);
        if !links.seal_for_client(ready.link, ready.message, &mut relay) {
            return false;
        }
        let outbound = &mut self.peers[usize::from(leader.0)];
        let relay = Outgoing::new(relay.into(), SendTag::Transient, true);
        let is_queued = outbound.push(relay, Urgency::Now, now, &self.limits) == Push::Queued;
        self.counters.relayed += u64::from(is_queued);
        is_queued
    }
}
