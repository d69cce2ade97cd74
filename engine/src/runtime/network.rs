//! The network stage: from hub events to inputs, from effects to sends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hybster_net::hub::Traffic;
use hybster_net::{
    DownReason, ENVELOPE_BYTES, Event, Hub, LinkId, Messages, SendError, Source, Tag, Transport,
    Waker,
};
use hybster_proto::ids::{OrderNumber, Peers, PillarId, ReplicaId, View};
use hybster_proto::output::{
    ClientLink, Destination, Input, Network as Effect, Reject, Rejection, ReplyQueue, SendTag,
    ToControl, ToPillar, Watermark, route_client_message, route_peer_message,
};
use hybster_proto::wire::relay::{RELAY_HEAD, begin_relay, parse_relay, relayed_head};
use hybster_proto::wire::{kind, kind_of};

use super::Shared;
use super::links::{Links, Ready, client_link};

/// Log lines per second about messages that could not be sent.
const LOG_LINES_PER_SECOND: u32 = 10;
/// Status requests answered per second; more are dropped and counted.
const STATUSES_PER_SECOND: u32 = 200;

/// PREPAREs that go to all peers at once after a query.
const PROMPT_PREPARES: u32 = 1024;

/// The network stage of a replica. It belongs to agent 0.
pub(crate) struct Network<T: Transport> {
    hub: Hub<T>,
    shared: Arc<Shared>,
    peers: Vec<u16>,
    links: Links,
    events: Vec<Event>,
    prompt: Prompt,
    log: RateLimit,
    statuses: RateLimit,
}

impl<T: Transport> Network<T> {
    /// `peers` are the other replicas.
    pub(crate) fn new(hub: Hub<T>, shared: Arc<Shared>, peers: Vec<u16>) -> Network<T> {
        Network {
            hub,
            shared,
            peers,
            links: Links::default(),
            events: Vec::new(),
            prompt: Prompt::default(),
            log: RateLimit::new(LOG_LINES_PER_SECOND),
            statuses: RateLimit::new(STATUSES_PER_SECOND),
        }
    }

    /// Ends a [`Network::poll`] from another thread.
    pub(crate) fn waker(&self) -> Waker {
        self.hub.waker()
    }

    /// Sends what waits to be sent, waits for something to happen, and appends inputs about it.
    pub(crate) fn poll(
        &mut self,
        timeout: Option<Duration>,
        inputs: &mut Vec<Input>,
    ) -> io::Result<()> {
        self.hub.pause_clients(self.shared.is_congested());
        let mut events = std::mem::take(&mut self.events);
        let polled = self.hub.poll(timeout, Instant::now(), &mut events);
        for event in events.drain(..) {
            self.event(event, inputs);
        }
        self.events = events;
        polled
    }

    /// Carries out an effect.
    pub(crate) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to: Destination::AllPeers, message, tag } => {
                self.send_to_peers(None, &message, tag);
            }
            Effect::Send { to: Destination::Thrifty(first), message, tag } => {
                let first = self.may_be_thrifty(first).then_some(first);
                self.send_to_peers(first, &message, tag);
            }
            Effect::Send { to: Destination::Peer(peer), message, tag } => {
                self.send_to_peer(peer.0, message, tag);
            }
            Effect::Send { to: Destination::Client(client), message, .. } => {
                if let Some(link) = self.links.find(client) {
                    self.send_to_client(link, &message);
                }
            }
            Effect::Withdraw(mark) => self.withdraw(&mark),
        }
    }

    /// Appends replies to the messages under construction for their links.
    pub(crate) fn reply(&mut self, replies: &ReplyQueue) {
        let Network { links, hub, shared, .. } = self;
        let mut lost = 0;
        for reply in replies.iter() {
            let found =
                links.push(shared.replica, &reply, |ready| send_replies(hub, shared, &ready));
            lost += u64::from(!found);
        }
        if lost > 0 {
            shared.counters.network.lost_replies.add(lost);
        }
    }

    /// Closes all REPLIES messages under construction and shows the counters.
    pub(crate) fn flush(&mut self) {
        let Network { links, hub, shared, .. } = self;
        links.flush(|ready| send_replies(hub, shared, &ready));
        self.publish();
    }

    fn event(&mut self, event: Event, inputs: &mut Vec<Input>) {
        match event {
            Event::Messages { from: Source::Peer(peer), messages } => {
                self.peer_messages(ReplicaId(peer), &messages, inputs);
            }
            Event::Messages { from: Source::Client { link, .. }, messages } => {
                self.client_messages(link, &messages, inputs);
            }
            Event::PeerUp { peer } => self.peer_up(peer, inputs),
            Event::PeerDown { peer, reason } => self.peer_down(peer, reason),
            Event::ClientUp { client, incarnation, link } => {
                log::debug!("client {client} (incarnation {incarnation}) connected");
                self.links.up(client_link(client, incarnation), link);
            }
            Event::ClientDown { client, link, reason } => {
                log::debug!("client {client} disconnected: {reason}");
                self.links.down(link);
            }
            // Counted and logged by the hub.
            Event::Rejected { .. } => self.publish_refusals(),
        }
    }

    fn peer_messages(&mut self, from: ReplicaId, messages: &Messages, inputs: &mut Vec<Input>) {
        for message in messages.iter() {
            if kind_of(message) == kind::RELAY {
                self.carry(from, message);
                continue;
            }
            let input = route_peer_message(from, messages.slice(message), &self.shared.config);
            match input.filter(|_| self.shared.replicated) {
                Some(input) => inputs.push(input),
                None => self.reject(Some(from), message, Reject::Malformed),
            }
        }
    }

    /// Carries the sealed replies of a follower to a client. What cannot go now is dropped: the
    /// client asks again.
    fn carry(&mut self, from: ReplicaId, message: &[u8]) {
        let Ok((client, envelope)) = parse_relay(message) else {
            return self.reject(Some(from), message, Reject::Malformed);
        };
        let carried = self.links.find(client).is_some_and(|link| {
            let sent = self.hub.relay_to_client(link, |writer| {
                writer.put(&relayed_head(from));
                writer.put(envelope);
            });
            sent.is_ok()
        });
        self.shared.counters.network.lost_replies.add(u64::from(!carried));
    }

    fn client_messages(&mut self, link: LinkId, messages: &Messages, inputs: &mut Vec<Input>) {
        let Some(client) = self.links.client(link) else {
            return;
        };
        for message in messages.iter() {
            // The status is about the whole replica, so no single stage could answer.
            if kind_of(message) == kind::STATUS_REQUEST {
                self.answer_status(link);
                continue;
            }
            if kind_of(message) == kind::QUERIES {
                self.prompt.queried();
            }
            match self.route(client, messages.slice(message)) {
                Some(input) => inputs.push(input),
                None => self.reject(None, message, Reject::Malformed),
            }
        }
    }

    fn route(&self, client: ClientLink, message: Bytes) -> Option<Input> {
        if client.client.0 >= self.shared.config.max_clients {
            return None;
        }
        route_client_message(client, message)
    }

    fn reject(&self, from: Option<ReplicaId>, message: &[u8], reason: Reject) {
        self.shared.counters.rejections.add(&Rejection { from, kind: kind_of(message), reason });
    }

    /// STATUS: the kind byte, then JSON.
    fn answer_status(&mut self, link: LinkId) {
        if !self.statuses.permits(Instant::now()) {
            self.reject(None, &[kind::STATUS_REQUEST], Reject::Overload);
            return;
        }
        let mut message = vec![kind::STATUS];
        match serde_json::to_writer(&mut message, &self.shared.status()) {
            Ok(()) => self.send_to_client(link, &message),
            Err(error) => log::error!("the status cannot be written as JSON: {error}"),
        }
    }

    fn peer_up(&mut self, peer: u16, inputs: &mut Vec<Input>) {
        log::info!("replica {}: the link to replica {peer} is up", self.shared.replica.0);
        if let Some(counters) = self.shared.counters.peers.get(usize::from(peer)) {
            counters.up.store(true, Ordering::Relaxed);
        }
        let peer = ReplicaId(peer);
        for pillar in self.shared.config.all_pillars() {
            inputs.push(Input::Pillar(PillarId(pillar.0), ToPillar::PeerUp(peer)));
        }
        inputs.push(Input::Control(ToControl::PeerUp(peer)));
    }

    fn peer_down(&mut self, peer: u16, reason: DownReason) {
        log::warn!("replica {}: lost the link to replica {peer}: {reason}", self.shared.replica.0);
        if let Some(counters) = self.shared.counters.peers.get(usize::from(peer)) {
            counters.up.store(false, Ordering::Relaxed);
        }
    }

    /// Whether a message may go to some peers first and to the others later.
    fn may_be_thrifty(&mut self, first: Peers) -> bool {
        if self.prompt.is_needed() {
            return false;
        }
        // Whoever has no link cannot be the first.
        let mut peers = self.peers.iter().filter(|peer| first.contains(ReplicaId(**peer)));
        peers.all(|peer| self.hub.is_peer_up(*peer))
    }

    /// To all peers; only to `first` at once, if it is given.
    fn send_to_peers(&mut self, first: Option<Peers>, message: &Bytes, tag: SendTag) {
        for index in 0..self.peers.len() {
            let peer = self.peers[index];
            let is_late = first.is_some_and(|first| !first.contains(ReplicaId(peer)));
            if is_late || self.may_wait(peer, message, tag) {
                self.send_to_peer_later(peer, message.clone(), tag);
            } else {
                self.send_to_peer(peer, message.clone(), tag);
            }
        }
    }

    fn send_to_peer(&mut self, peer: u16, message: Bytes, tag: SendTag) {
        match self.hub.send_to_peer(peer, message, tag_of(tag)) {
            Ok(()) => {}
            Err(error) => self.dropped(peer, &error),
        }
    }

    fn send_to_peer_later(&mut self, peer: u16, message: Bytes, tag: SendTag) {
        match self.hub.send_to_peer_later(peer, message, tag_of(tag)) {
            Ok(()) => {}
            Err(error) => self.dropped(peer, &error),
        }
    }

    /// Whether a message makes no difference to a peer now. With a quorum of two a follower commits
    /// by the PREPARE and its own COMMIT. The COMMITs of other followers reach it all the same, for
    /// the case that the PREPARE does not.
    fn may_wait(&self, peer: u16, message: &[u8], tag: SendTag) -> bool {
        let SendTag::Ordering(view, _) = tag else {
            return false;
        };
        let config = &self.shared.config;
        config.quorum() <= 2
            && kind_of(message) == kind::COMMIT
            && config.leader(view) != ReplicaId(peer)
    }

    #[cold]
    fn dropped(&mut self, peer: u16, error: &SendError) {
        self.shared.counters.network.dropped.add(1);
        if self.log.permits(Instant::now()) {
            log::warn!("a message to replica {peer} was dropped: {error}");
        }
    }

    fn send_to_client(&mut self, link: LinkId, message: &[u8]) {
        if let Err(error) = self.hub.send_to_client(link, message) {
            log::debug!("{link:?}: a message was not sent: {error}");
        }
    }

    /// TR listing 9, remove: what the protocol has left behind is not sent any more.
    fn withdraw(&mut self, mark: &Watermark) {
        self.hub.withdraw(|tag| !send_tag_of(tag).is_withdrawn(mark));
    }

    fn publish(&mut self) {
        let counters = &self.shared.counters.network;
        counters.client_links.set(self.links.live());
        let Traffic {
            frames_in,
            messages_in,
            bytes_in,
            frames_out,
            messages_out,
            bytes_out,
            withdrawn,
        } = *self.hub.traffic();
        counters.frames_in.set(frames_in);
        counters.messages_in.set(messages_in);
        counters.bytes_in.set(bytes_in);
        counters.frames_out.set(frames_out);
        counters.messages_out.set(messages_out);
        counters.bytes_out.set(bytes_out);
        counters.withdrawn.set(withdrawn);
        for peer in &self.peers {
            let queued = self.hub.queued_bytes(*peer) as u64;
            self.shared.counters.peers[usize::from(*peer)].queued_bytes.set(queued);
        }
    }

    fn publish_refusals(&self) {
        let counts = self.hub.rejections().iter();
        for ((_, count), gauge) in counts.zip(&self.shared.counters.refusals) {
            gauge.set(count);
        }
    }
}

/// Sends a REPLIES message: along with what goes to the leader, if it may and there is something,
/// or else straight to the client.
fn send_replies<T: Transport>(hub: &mut Hub<T>, shared: &Shared, ready: &Ready<'_>) {
    let leader = shared.config.leader(ready.view);
    if ready.may_be_relayed && leader != shared.replica && hub.has_message_for_peer(leader.0) {
        let mut relay = Vec::with_capacity(RELAY_HEAD + ready.message.len() + ENVELOPE_BYTES);
        begin_relay(&mut relay, ready.client);
        if hub.seal_for_client(ready.link, ready.message, &mut relay)
            && hub.send_to_peer(leader.0, relay.into(), tag_of(SendTag::Transient)).is_ok()
        {
            shared.counters.network.relayed_replies.add(1);
            return;
        }
    }
    // A link that broke or is too slow takes nothing; the hub counts and reports it.
    let _ = hub.send_to_client(ready.link, ready.message);
}

/// What the hub remembers of a queued message.
fn tag_of(tag: SendTag) -> Tag {
    let (class, view, order) = match tag {
        SendTag::Transient => (0, View(0), OrderNumber(0)),
        SendTag::Ordering(view, order) => (1, view, order),
        SendTag::Checkpoint(order) => (2, View(0), order),
        SendTag::ViewChange(view) => (3, view, OrderNumber(0)),
        SendTag::NewView(view) => (4, view, OrderNumber(0)),
    };
    Tag { class, view: view.0, order: order.0 }
}

/// The other way round.
fn send_tag_of(tag: &Tag) -> SendTag {
    match tag.class {
        1 => SendTag::Ordering(View(tag.view), OrderNumber(tag.order)),
        2 => SendTag::Checkpoint(OrderNumber(tag.order)),
        3 => SendTag::ViewChange(View(tag.view)),
        4 => SendTag::NewView(View(tag.view)),
        _ => SendTag::Transient,
    }
}

/// Whether all peers shall get PREPAREs at once. A query wants equal answers of all replicas, and
/// those that get a PREPARE later would give the old one: while clients send queries, nobody waits.
#[derive(Debug, Default)]
struct Prompt {
    left: u32,
}

impl Prompt {
    /// A client sent queries.
    fn queried(&mut self) {
        self.left = PROMPT_PREPARES;
    }

    /// Whether the next PREPARE goes to all.
    fn is_needed(&mut self) -> bool {
        let is_needed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        is_needed
    }
}

/// Lets through so many events per second.
#[derive(Debug)]
pub(crate) struct RateLimit {
    per_second: u32,
    second: Option<Instant>,
    count: u32,
}

impl RateLimit {
    pub(crate) fn new(per_second: u32) -> RateLimit {
        RateLimit { per_second, second: None, count: 0 }
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
    fn tags_survive_the_round_trip() {
        for tag in [
            SendTag::Transient,
            SendTag::Ordering(View(3), OrderNumber(9)),
            SendTag::Checkpoint(OrderNumber(7)),
            SendTag::ViewChange(View(5)),
            SendTag::NewView(View(6)),
        ] {
            assert_eq!(send_tag_of(&tag_of(tag)), tag);
        }
    }

    #[test]
    fn nobody_waits_for_a_while_after_a_query() {
        let mut prompt = Prompt::default();
        assert!(!prompt.is_needed());
        prompt.queried();
        let prompt_ones = (0..2 * PROMPT_PREPARES).filter(|_| prompt.is_needed()).count();
        assert_eq!(prompt_ones, PROMPT_PREPARES as usize);
    }

    #[test]
    fn events_are_limited_per_second() {
        let mut limit = RateLimit::new(2);
        let now = Instant::now();
        assert_eq!((0..9).filter(|_| limit.permits(now)).count(), 2);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..9).filter(|_| limit.permits(later)).count(), 2);
    }
}
