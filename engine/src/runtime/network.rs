//! The network of a replica: a thin adapter between the hub and the stages. Events of the hub become
//! inputs; what leaves goes through [`Egress`], which decides when and how, and which the simulator
//! runs too. Nothing is decided here.

mod elsewhere;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hybster_net::hub::Traffic;
use hybster_net::{
    DownReason, Event, Hub, LinkId, Messages, Reason, SendError, Source, Transport, TransportError,
    Waker,
};
use hybster_proto::admission::{Admission, Cost, Totals};
use hybster_proto::backlog::{Backlog, ClientRoom};
use hybster_proto::egress::{Egress, EgressLimits, LinkState, Links};
use hybster_proto::ids::{ClientId, PillarId, ReplicaId};
use hybster_proto::output::{
    ClientLink, Input, Network as Effect, Reject, Rejection, Reply, ReplyQueue, ToControl,
    ToPillar, route_client_message, route_peer_message,
};
use hybster_proto::time::Time;
use hybster_proto::wire::{kind, kind_of};

use super::Shared;
use super::counters::{FAULT_COST_NS, cost_ns};
use super::epochs::OtherEpochs;
use super::gate::LogGate;
use super::timing::Recorder;

/// When to look again whether a peer that is not read can be read: nobody tells.
const BEHIND: Duration = Duration::from_millis(1);
/// Log lines per second about messages that could not be sent.
const LOG_LINES_PER_SECOND: u32 = 10;
/// Status requests answered per second; more are dropped and counted.
const STATUSES_PER_SECOND: u32 = 200;
/// What the log says of a client whose link is closed for its requests.
const FORGED: &str = "it sent a request that is malformed, not its own, or not proved by its key";
/// Log lines per second about peers that send more than they may have in flight, over all peers.
const THROTTLED_LINES_PER_SECOND: u32 = 1;

/// The network of a replica. It belongs to agent 0.
pub(crate) struct Network<T: Transport> {
    egress: Egress<LinkId>,
    admission: Admission,
    backlog: Backlog,
    wires: Wires<T>,
    shared: Arc<Shared>,
    peers: Vec<u16>,
    /// By [`LinkId::slot`], the live links of clients.
    clients: Vec<Option<(LinkId, ClientLink)>>,
    /// The live links of each client.
    links_of: BTreeMap<ClientId, Vec<LinkId>>,
    /// Clients that are not read.
    paused: BTreeSet<ClientId>,
    events: Vec<Event>,
    statuses: RateLimit,
    throttled: RateLimit,
    /// How many dropped messages were charged for.
    charged_drops: u64,
    /// By replica id, what it was charged for messages that were dropped, in nanoseconds of work.
    charged_ns: Vec<u64>,
    /// By replica id, whether its link is not read because it is behind.
    unread: Vec<bool>,
    /// Inputs for stages that egress and backlog have, for the next [`Network::poll`] to hand over.
    answers_left: Vec<Input>,
    /// Links to peers in other epochs, in a group whose members can change.
    epochs: Option<Box<OtherEpochs>>,
    /// What leaves waits here, if the replica has a log.
    gate: Option<Box<LogGate>>,
    /// Records when what waited there leaves, if somebody wants to know.
    recorder: Option<Box<Recorder>>,
}

/// Where the backlog of replies sends what has room.
struct Replies<'a, T: Transport> {
    egress: &'a mut Egress<LinkId>,
    wires: &'a mut Wires<T>,
}

/// The links as Egress uses them.
struct Wires<T: Transport> {
    hub: Hub<T>,
    log: RateLimit,
}

impl<T: Transport> Network<T> {
    /// `peers` are the other replicas.
    pub(crate) fn new(
        hub: Hub<T>,
        shared: Arc<Shared>,
        peers: Vec<u16>,
        limits: EgressLimits,
    ) -> Self {
        let replicas = shared.counters.peers.len();
        let gate = shared.durable.as_ref().map(|durable| Box::new(LogGate::new(durable.clone())));
        let recorder = shared.recorder().filter(|_| gate.is_some());
        let epochs = shared.epochs.clone();
        let epochs = epochs.map(|watch| Box::new(OtherEpochs::new(watch, &shared.config)));
        Self {
            egress: Egress::new(Arc::clone(&shared.config), shared.replica, limits),
            admission: Admission::new(&shared.config),
            backlog: Backlog::new(&shared.config),
            wires: Wires { hub, log: RateLimit::new(LOG_LINES_PER_SECOND) },
            shared,
            peers,
            clients: Vec::new(),
            links_of: BTreeMap::new(),
            paused: BTreeSet::new(),
            events: Vec::new(),
            statuses: RateLimit::new(STATUSES_PER_SECOND),
            throttled: RateLimit::new(THROTTLED_LINES_PER_SECOND),
            charged_drops: 0,
            charged_ns: vec![0; replicas],
            unread: vec![false; replicas],
            answers_left: Vec::new(),
            epochs,
            gate,
            recorder,
        }
    }

    /// Ends a [`Network::poll`] from another thread.
    pub(crate) fn waker(&self) -> Waker {
        self.wires.hub.waker()
    }

    /// Sends what was handed over, waits for something to happen, and appends inputs about it. After
    /// an error the replica must stop: the transport is dead.
    pub(crate) fn poll(
        &mut self,
        timeout: Option<Duration>,
        now: Instant,
        inputs: &mut Vec<Input>,
    ) -> Result<(), TransportError> {
        self.wires.hub.pause_clients(self.shared.is_congested());
        // Then there is something to do.
        let timeout = if self.answers_left.is_empty() { timeout } else { Some(Duration::ZERO) };
        inputs.append(&mut self.answers_left);
        self.charge_dropped();
        let timeout = if self.pause_peers() {
            Some(timeout.map_or(BEHIND, |timeout| timeout.min(BEHIND)))
        } else {
            timeout
        };
        let mut events = std::mem::take(&mut self.events);
        let polled = self.wires.hub.poll(timeout, now, &mut events);
        for event in events.drain(..) {
            self.event(event, inputs);
        }
        self.events = events;
        polled
    }

    /// Stops reading from peers of which too much is not dealt with, and reads from the others. Whether
    /// there are such peers.
    fn pause_peers(&mut self) -> bool {
        let Self { admission, wires, shared, peers, unread, .. } = self;
        let mut is_any_unread = false;
        for peer in peers.iter().copied() {
            let is_behind = admission.is_behind(ReplicaId(peer), || dealt(shared, ReplicaId(peer)));
            let was_behind = &mut unread[usize::from(peer)];
            if std::mem::replace(was_behind, is_behind) != is_behind {
                wires.hub.pause_peer(peer, is_behind);
            }
            is_any_unread |= is_behind;
        }
        is_any_unread
    }

    /// Charges peers for what was dropped of their messages, here or in a stage.
    fn charge_dropped(&mut self) {
        let drops = self.shared.counters.peers_dropped.load(Ordering::Acquire);
        if drops != std::mem::replace(&mut self.charged_drops, drops) {
            self.charge_new_drops();
        }
    }

    #[cold]
    fn charge_new_drops(&mut self) {
        for ((peer, counters), charged_ns) in
            (0..).zip(&self.shared.counters.peers).zip(&mut self.charged_ns)
        {
            let dropped_ns = counters.dropped_ns.load(Ordering::Relaxed);
            if dropped_ns != *charged_ns {
                let new_ns = dropped_ns.wrapping_sub(std::mem::replace(charged_ns, dropped_ns));
                self.wires.hub.charge_peer(peer, new_ns);
            }
        }
    }

    /// The agent was busy with something else for this long.
    pub(crate) fn held_up(&mut self, time: Duration) {
        self.wires.hub.held_up(time);
    }

    /// Whether somebody connects.
    pub(crate) fn is_connecting(&self) -> bool {
        self.wires.hub.is_connecting()
    }

    /// Takes an effect of a stage.
    #[inline]
    pub(crate) fn apply(&mut self, effect: Effect, now: Time) {
        match &mut self.gate {
            None => self.egress.apply(effect, now, &mut self.wires),
            Some(gate) => gate.stage(effect),
        }
    }

    /// Takes replies, and empties the queue.
    pub(crate) fn reply(&mut self, replies: &mut ReplyQueue, now: Time) {
        match &mut self.gate {
            None => self.send_replies(replies, now),
            Some(gate) => {
                gate.stage_replies(replies);
                self.pass_gate(now);
            }
        }
        replies.clear();
    }

    /// What was staged goes on, unless the log does not have what it rests on; and so does what was held
    /// for that, once it has.
    fn pass_gate(&mut self, now: Time) {
        let Some(mut gate) = self.gate.take() else { return };
        if let Some(passed) = gate.pass() {
            for effect in passed.network.drain(..) {
                self.egress.apply(effect, now, &mut self.wires);
            }
            self.send_replies(&passed.replies, now);
            passed.replies.clear();
        }
        self.gate = Some(gate);
    }

    fn open_gate(&mut self, now: Time) {
        let Some(mut gate) = self.gate.take() else { return };
        gate.look(now);
        while let Some(mut held) = gate.release() {
            if let Some(recorder) = &mut self.recorder {
                recorder.released(&held.network, &held.replies);
            }
            for effect in held.network.drain(..) {
                self.egress.apply(effect, now, &mut self.wires);
            }
            self.send_replies(&held.replies, now);
            gate.recycle(held);
        }
        self.gate = Some(gate);
    }

    /// Up to where the log had released what leaves, when it was asked last.
    pub(crate) fn released(&self) -> u64 {
        self.gate.as_ref().map_or(u64::MAX, |gate| gate.seen())
    }

    /// Whether the log has gone on, and something waits for that.
    pub(crate) fn has_released(&mut self, now: Time) -> bool {
        self.gate.as_mut().is_some_and(|gate| gate.has_moved(now))
    }

    fn send_replies(&mut self, replies: &ReplyQueue, now: Time) {
        let Self { egress, backlog, wires, .. } = self;
        if backlog.concerns(replies) {
            backlog.sort(replies, now, &mut Replies { egress, wires });
        } else {
            egress.reply(replies, wires);
        }
    }

    /// A client's links are not to be read any more, or are again.
    pub(crate) fn pause(&mut self, client: ClientId, is_paused: bool) {
        if is_paused {
            self.paused.insert(client);
        } else {
            self.paused.remove(&client);
        }
        for link in self.links_of.get(&client).into_iter().flatten() {
            self.wires.hub.pause_client(*link, is_paused);
        }
    }

    /// The service is called next, and may take long: what may go late leaves before.
    pub(crate) fn hurry(&mut self, now: Time) {
        self.egress.hurry(now);
    }

    /// The end of a turn: hands over what is due and publishes the counters.
    pub(crate) fn flush(&mut self, now: Time) {
        if self.gate.is_some() {
            self.pass_gate(now);
            self.open_gate(now);
        }
        self.egress.flush(now, &mut self.wires);
        let Self { egress, backlog, wires, answers_left, .. } = self;
        egress.tell_stages(|input| answers_left.push(input));
        backlog.flush(&mut Replies { egress, wires }, answers_left);
        self.egress.check_invariants(false);
        self.publish();
    }

    /// When [`Self::flush`] is to be called at the latest.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.egress.deadline()
    }

    fn event(&mut self, event: Event, inputs: &mut Vec<Input>) {
        match event {
            Event::Messages { from: Source::Peer(peer), messages } => {
                self.peer_messages(ReplicaId(peer), &messages, inputs);
            }
            Event::Messages { from: Source::Client { link, .. }, messages } => {
                self.client_messages(link, &messages, inputs);
            }
            Event::PeerUp { peer, incarnation } => {
                if !self.is_up_in_another_epoch(peer, incarnation) {
                    self.peer_up(peer, inputs);
                }
            }
            Event::PeerDown { peer, reason } => self.peer_down(peer, reason),
            Event::ClientUp { client, incarnation, link } => {
                log::debug!("client {client} (incarnation {incarnation}) connected");
                self.client_up(ClientLink { client: ClientId(client), incarnation }, link);
            }
            Event::ClientDown { client, link, reason } => {
                log::debug!("client {client} disconnected: {reason}");
                self.client_down(link);
            }
            Event::ClientFull { link, .. } => {
                if let Some(client) = self.live_client(link) {
                    self.backlog.client_full(client);
                }
            }
            Event::ClientRoom { link, .. } => {
                if let Some(client) = self.live_client(link) {
                    self.backlog.client_room(client);
                }
            }
            // Counted and logged by the hub.
            Event::Rejected { .. } => self.publish_refusals(),
        }
    }

    fn peer_messages(&mut self, from: ReplicaId, messages: &Messages, inputs: &mut Vec<Input>) {
        if self.epochs.as_ref().is_some_and(|epochs| epochs.is_elsewhere(from)) {
            self.messages_of_another_epoch(from, messages, inputs);
            return;
        }
        for message in messages.iter() {
            let extra_ns = Cost::of(message, self.shared.config.rules()).extra_ns(message.len());
            if extra_ns > 0 {
                self.wires.hub.charge_peer(from.0, extra_ns);
            }
            if kind_of(message) == kind::RELAY {
                if let Err(reason) = self.egress.relay(from, message, &mut self.wires) {
                    self.reject(Some(from), message, reason);
                }
                continue;
            }
            if !self.admits(from, message) {
                continue;
            }
            let input = route_peer_message(from, messages.slice(message), &self.shared.config);
            match input.filter(|_| self.shared.replicated) {
                Some(input) => inputs.push(input),
                None => {
                    // No stage deals with it.
                    self.shared.counters.agents[0].dealt(from, message);
                    self.reject(Some(from), message, Reject::Malformed);
                }
            }
        }
    }

    /// Whether a peer's message is taken in; if not, it is counted and the peer is named.
    #[inline]
    fn admits(&mut self, from: ReplicaId, message: &[u8]) -> bool {
        let Self { admission, shared, .. } = self;
        admission.admit(from, message, || dealt(shared, from)) || {
            self.throttle(from, message);
            false
        }
    }

    #[cold]
    fn throttle(&mut self, from: ReplicaId, message: &[u8]) {
        self.reject(Some(from), message, Reject::Overload);
        // No correct one sends such either.
        self.wires.hub.charge_peer(from.0, FAULT_COST_NS);
        let refused = self.admission.refused(from);
        if let Some(counters) = self.shared.counters.peers.get(usize::from(from.0)) {
            counters.throttled.set(refused);
        }
        if self.throttled.permits(Instant::now()) {
            log::warn!(
                "replica {}: replica {} sends more than a correct one has in flight; {refused} of \
                 its messages were dropped so far (the last one of kind {})",
                self.shared.replica.0,
                from.0,
                kind_of(message),
            );
        }
    }

    fn client_messages(&mut self, link: LinkId, messages: &Messages, inputs: &mut Vec<Input>) {
        let Some(client) = self.client(link) else {
            return;
        };
        for message in messages.iter() {
            // The status is about the whole replica, so no single stage could answer.
            if kind_of(message) == kind::STATUS_REQUEST {
                if !self.answer_status(link) {
                    self.reject_of(client, message, Reject::Overload);
                }
                continue;
            }
            if kind_of(message) == kind::QUERIES {
                self.egress.queried();
            }
            match self.route(client, messages.slice(message)) {
                Some(input) => inputs.push(input),
                None => self.reject_of(client, message, Reject::Malformed),
            }
        }
    }

    /// Drops a client's message, and charges the client for it.
    #[cold]
    fn reject_of(&mut self, client: ClientLink, message: &[u8], reason: Reject) {
        let rejection = rejection(None, message, reason);
        self.shared.counters.reject(&rejection);
        self.wires.hub.charge_client(client.client.0, cost_ns(&rejection));
    }

    fn client(&self, link: LinkId) -> Option<ClientLink> {
        let (id, client) = (*self.clients.get(link.slot())?)?;
        (id == link).then_some(client)
    }

    fn client_up(&mut self, client: ClientLink, link: LinkId) {
        let slot = link.slot();
        if self.clients.len() <= slot {
            self.clients.resize(slot + 1, None);
        }
        if let Some((old, _)) = self.clients[slot] {
            self.client_down(old);
        }
        self.clients[slot] = Some((link, client));
        self.egress.client_up(client, link);
        self.backlog.client_up(client);
        self.links_of.entry(client.client).or_default().push(link);
        if self.paused.contains(&client.client) {
            self.wires.hub.pause_client(link, true);
        }
    }

    fn forget_link(&mut self, client: ClientLink, link: LinkId) {
        if let Some(links) = self.links_of.get_mut(&client.client) {
            links.retain(|of| *of != link);
            if links.is_empty() {
                self.links_of.remove(&client.client);
            }
        }
    }

    /// Whose link it is. One that gave way to another is nobody's concern.
    fn live_client(&self, link: LinkId) -> Option<ClientLink> {
        self.client(link).filter(|client| self.egress.client_link(*client) == Some(link))
    }

    fn client_down(&mut self, link: LinkId) {
        let Some(client) = self.client(link) else {
            return;
        };
        self.clients[link.slot()] = None;
        if self.egress.client_link(client) == Some(link) {
            self.backlog.client_down(client);
        }
        self.egress.client_down(client, link);
        self.forget_link(client, link);
    }

    fn route(&self, client: ClientLink, message: Bytes) -> Option<Input> {
        if client.client.0 >= self.shared.config.max_clients {
            return None;
        }
        route_client_message(client, message)
    }

    fn reject(&self, from: Option<ReplicaId>, message: &[u8], reason: Reject) {
        self.shared.counters.reject(&rejection(from, message, reason));
    }

    /// STATUS: the kind byte, then JSON. `false` if there were too many questions.
    fn answer_status(&mut self, link: LinkId) -> bool {
        if !self.statuses.permits(Instant::now()) {
            return false;
        }
        let mut message = vec![kind::STATUS];
        match serde_json::to_writer(&mut message, &self.shared.status()) {
            Ok(()) => self.wires.send_to_client(link, &message),
            Err(error) => log::error!("the status cannot be written as JSON: {error}"),
        }
        true
    }

    fn peer_up(&mut self, peer: u16, inputs: &mut Vec<Input>) {
        log::info!("replica {}: the link to replica {peer} is up", self.shared.replica.0);
        if let Some(counters) = self.shared.counters.peers.get(usize::from(peer)) {
            counters.up.store(true, Ordering::Relaxed);
        }
        // A new link is read.
        self.unread[usize::from(peer)] = false;
        let peer = ReplicaId(peer);
        self.egress.peer_up(peer);
        for pillar in self.shared.config.all_pillars() {
            inputs.push(Input::Pillar(PillarId(pillar.0), ToPillar::PeerUp(peer)));
        }
        inputs.push(Input::Control(ToControl::PeerUp(peer)));
    }

    fn peer_down(&mut self, peer: u16, reason: DownReason) {
        if self.epochs.as_mut().is_some_and(|epochs| epochs.down(peer)) {
            return;
        }
        log::warn!("replica {}: lost the link to replica {peer}: {reason}", self.shared.replica.0);
        self.egress.peer_down(ReplicaId(peer));
        if let Some(counters) = self.shared.counters.peers.get(usize::from(peer)) {
            counters.up.store(false, Ordering::Relaxed);
        }
    }

    fn publish(&mut self) {
        let counters = &self.shared.counters.network;
        let Traffic { frames_in, messages_in, bytes_in, frames_out, messages_out, bytes_out } =
            *self.wires.hub.traffic();
        counters.frames_in.set(frames_in);
        counters.messages_in.set(messages_in);
        counters.bytes_in.set(bytes_in);
        counters.frames_out.set(frames_out);
        counters.messages_out.set(messages_out);
        counters.bytes_out.set(bytes_out);
        if let Some(gate) = &self.gate {
            counters.held.set(gate.held() as u64);
        }
        let egress = self.egress.counters();
        counters.client_links.set(self.egress.client_links());
        counters.withdrawn.set(egress.withdrawn);
        counters.duplicates.set(egress.duplicates);
        counters.paced.set(egress.paced);
        counters.dropped.set(egress.dropped);
        counters.relayed_replies.set(egress.relayed);
        counters.lost_replies.set(egress.lost_replies);
        for peer in &self.peers {
            let queued = self.egress.queued_bytes(ReplicaId(*peer)) as u64;
            self.shared.counters.peers[usize::from(*peer)].queued_bytes.set(queued);
        }
    }

    fn publish_refusals(&self) {
        let counts = self.wires.hub.rejections().iter();
        for ((_, count), gauge) in counts.zip(&self.shared.counters.refusals) {
            gauge.set(count);
        }
    }
}

fn rejection(from: Option<ReplicaId>, message: &[u8], reason: Reject) -> Rejection {
    let bytes = u32::try_from(message.len()).unwrap_or(u32::MAX);
    Rejection { from, kind: kind_of(message), bytes, reason }
}

impl<T: Transport> ClientRoom for Replies<'_, T> {
    fn room(&self, client: ClientLink) -> Option<usize> {
        Some(self.wires.hub.client_room(self.egress.client_link(client)?))
    }

    fn await_room(&mut self, client: ClientLink) {
        if let Some(link) = self.egress.client_link(client) {
            self.wires.hub.await_client_room(link);
        }
    }

    fn send(&mut self, reply: &Reply<'_>) {
        self.egress.reply_one(reply, self.wires);
    }
}

impl<T: Transport> Links<LinkId> for Wires<T> {
    fn unsent_bytes(&mut self, peer: ReplicaId) -> usize {
        self.hub.unsent_bytes(peer.0)
    }

    fn link_state(&mut self, peer: ReplicaId) -> LinkState {
        let state = self.hub.link_state(peer.0);
        LinkState {
            outstanding_bytes: state.outstanding_bytes,
            round_trip_us: state.round_trip.as_micros() as u64,
        }
    }

    fn send(&mut self, peer: ReplicaId, message: Bytes) -> bool {
        match self.hub.send_to_peer(peer.0, message) {
            Ok(()) => true,
            Err(error) => {
                self.dropped(peer, &error);
                false
            }
        }
    }

    fn send_to_client(&mut self, link: LinkId, message: &[u8]) {
        // A link that broke or is too slow takes nothing; the hub counts and reports it.
        if let Err(error) = self.hub.send_to_client(link, message) {
            log::debug!("{link:?}: a message was not sent: {error}");
        }
    }

    fn seal_for_client(&mut self, link: LinkId, message: &[u8], envelope: &mut Vec<u8>) -> bool {
        self.hub.seal_for_client(link, message, envelope)
    }

    fn relay_to_client(&mut self, link: LinkId, head: &[u8], envelope: &[u8]) -> bool {
        let relayed = self.hub.relay_to_client(link, |writer| {
            writer.put(head);
            writer.put(envelope);
        });
        relayed.is_ok()
    }

    fn close_client(&mut self, link: LinkId) {
        self.hub.reject_client(link, Reason::BadRequest, FORGED);
    }
}

impl<T: Transport> Wires<T> {
    #[cold]
    fn dropped(&mut self, peer: ReplicaId, error: &SendError) {
        if self.log.permits(Instant::now()) {
            log::warn!("a message to replica {} was dropped: {error}", peer.0);
        }
    }
}

/// What all agents have dealt with of a peer's messages.
#[cold]
fn dealt(shared: &Shared, from: ReplicaId) -> Totals {
    let mut sum = Totals::default();
    for agent in &shared.counters.agents {
        for (sum, part) in sum.iter_mut().zip(agent.dealt_of(from)) {
            sum.messages += part.messages;
            sum.bytes += part.bytes;
        }
    }
    sum
}

/// Lets through a number of events per second.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: u32,
    second: Option<Instant>,
    count: u32,
}

impl RateLimit {
    pub(crate) fn new(per_second: u32) -> Self {
        Self { per_second, second: None, count: 0 }
    }

    pub(crate) fn permits(&mut self, now: Instant) -> bool {
        let over = |start: Instant| now.saturating_duration_since(start) >= Duration::from_secs(1);
        if self.second.is_none_or(over) {
            self.second = Some(now);
            self.count = 0;
        }
        self.count += 1;
        self.count <= self.per_second
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_limited_per_second() {
        let mut limit = RateLimit::new(2);
        let now = Instant::now();
        assert_eq!((0..9).filter(|_| limit.permits(now)).count(), 2);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..9).filter(|_| limit.permits(later)).count(), 2);
    }
}
