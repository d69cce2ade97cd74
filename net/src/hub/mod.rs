//! All links of one process: to the other replicas and to clients.
//!
//! A hub is polled by one thread. [`Hub::poll`] flushes what was sent since the last poll, waits,
//! and reports [`Event`]s. Between two polls, sending only appends to frames and queues, so that
//! a header, a MAC and a system call are paid for once per link and flush.
//!
//! **Who connects.** Of two replicas the one with the higher id connects; clients connect to all
//! replicas. After a link breaks, the side that connects tries again after a pause that doubles up
//! to a limit, with jitter. There is one live link per replica, and one per client and incarnation;
//! a newer link replaces the older one.
//!
//! **What is kept.** At most [`Limits::link_window_bytes`](crate::Limits) of a link are sealed and
//! in flight; what is sent beyond waits unsealed. Both go with the link: after [`Event::PeerUp`]
//! send again what the peer must still get. Keeping, withdrawing and pacing is the protocol's
//! business, not the hub's.
//!
//! **Back-pressure.** [`Hub::pause_client`] stops reading from one client, [`Hub::pause_clients`] from
//! all, [`Hub::pause_peer`] from one peer. One poll reports a share of each source (`turns.rs`). What
//! waits for a client has a bound in bytes, beyond which messages are refused. A client is called slow
//! by time: when its link is full and it takes nothing for a while.
//!
//! **Envelopes.** A message for a client can be sealed on its own and relayed by a peer
//! ([`Hub::seal_for_client`], [`Hub::relay_to_client`], [`Hub::open_from_peer`]), where that saves
//! a system call. The peer cannot forge it, but may drop, delay or repeat it.
//!
//! **Ordering.** Messages queued for one peer arrive in order; so do messages appended to one link.
//! Between queued and appended messages there is no order.

mod admit;
mod busy_poll;
mod config;
mod drive;
mod event;
mod full;
mod half_open;
mod outbound;
mod peers;
mod pool;
mod resolver;
mod turns;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use self::busy_poll::BusyPoll;
use self::full::Full;
use self::half_open::HalfOpen;
use self::outbound::{Live, Sealed};
use self::peers::{Dial, Peer};
use self::pool::Pool;
use self::resolver::Resolver;
use self::turns::Turns;
use crate::files::Files;
use crate::frame::MESSAGE_HEADER_BYTES;
use crate::handshake::{Handshake, HandshakeConfig, HandshakeError, Handshaker};
use crate::keys::Identity;
use crate::limits::Limits;
use crate::link::LinkError;
use crate::random::Jitter;
use crate::reject::{Reason, Rejections};
use crate::transport::{Completion, ConnectionId, Transport, Waker};

pub use self::config::{HubConfig, HubError};
pub use self::event::{DownReason, Event, LinkId, PeerLinkState, SendError, Source, Traffic};
pub use self::outbound::MessageWriter;
pub use self::turns::dropped_cost_ns;

/// All links of one process. See the [module](self).
#[derive(Debug)]
pub struct Hub<T: Transport> {
    transport: T,
    identity: Identity,
    limits: Limits,
    handshaker: Handshaker,
    local_address: Option<SocketAddr>,
    /// By slot of the connection.
    connections: Vec<Option<Connection>>,
    /// By replica id.
    peers: Vec<Option<Peer>>,
    clients: HashMap<(u32, u64), ConnectionId>,
    links_per_client: HashMap<u32, usize>,
    /// Accepted connections in their handshake.
    half_open: HalfOpen,
    /// Live links of peers with something to send, each once.
    dirty_peers: Vec<ConnectionId>,
    /// Live links of clients with something to send, each once.
    dirty_clients: Vec<ConnectionId>,
    /// Live links of clients for which much waits, each once.
    full: Vec<Full>,
    pool: Pool,
    completions: Vec<Completion>,
    /// Events that the next poll reports.
    pending: Vec<Event>,
    clients_paused: bool,
    turns: Turns,
    rejections: Rejections,
    traffic: Traffic,
    jitter: Jitter,
    log: LogLimit,
    busy_poll: BusyPoll,
    waited: Duration,
    files: Files,
    resolver: Resolver,
}

#[derive(Debug)]
struct Connection {
    id: ConnectionId,
    address: SocketAddr,
    /// Bytes that the transport has not given back yet.
    in_flight: usize,
    /// Bytes that it has given back so far.
    taken: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    Handshake { handshake: Box<Handshake>, input: BytesMut },
    Live(Box<Live>),
}

/// Limits log lines per second, so that an attacker cannot fill the disk.
#[derive(Debug, Default)]
struct LogLimit {
    second: Option<Instant>,
    lines: u32,
    suppressed: u64,
}

impl<T: Transport> Hub<T> {
    /// A hub that listens if the configuration has an address, and connects with the first poll.
    ///
    /// # Errors
    /// If it cannot listen, or the configuration contradicts itself.
    pub fn new(mut transport: T, config: HubConfig) -> Result<Self, HubError> {
        let peers = make_peers(&config)?;
        let handshaker = Handshaker::new(HandshakeConfig {
            identity: config.identity,
            key: config.key,
            keyring: config.keyring,
            group_digest: config.group_digest,
            pillars: config.pillars,
            application: config.application,
            incarnation: config.incarnation,
            cipher: config.cipher,
            peer_frame_bytes: config.limits.peer_frame_bytes,
            client_frame_bytes: config.limits.client_frame_bytes,
            handshake_bytes: config.limits.handshake_bytes,
        })
        .map_err(|error: HandshakeError| HubError::Key(error.to_string()))?;
        let mut local_address = None;
        if let Some(address) = config.listen {
            let listening = transport.listen(address);
            let (_, bound) = listening.map_err(|error| HubError::Listen { address, error })?;
            local_address = Some(bound);
        }
        let files = Files::of(&config.limits, config.peers.len());
        let addresses = config.peers.iter().filter_map(|(_, address)| address.ip());
        let random = Jitter::new(config.jitter_seed);
        let half_open = HalfOpen::new(&config.limits, addresses, random);
        let turn_bytes = config.limits.turn_bytes;
        Ok(Self {
            resolver: Resolver::new(transport.waker()),
            transport,
            identity: config.identity,
            pool: Pool::new(config.limits.pool_bytes),
            busy_poll: BusyPoll::new(config.limits.busy_poll),
            waited: Duration::ZERO,
            limits: config.limits,
            handshaker,
            local_address,
            connections: Vec::new(),
            peers,
            clients: HashMap::new(),
            links_per_client: HashMap::new(),
            half_open,
            dirty_peers: Vec::new(),
            dirty_clients: Vec::new(),
            full: Vec::new(),
            completions: Vec::new(),
            pending: Vec::new(),
            clients_paused: false,
            turns: Turns::new(turn_bytes),
            rejections: Rejections::default(),
            traffic: Traffic::default(),
            jitter: Jitter::new(config.jitter_seed),
            log: LogLimit::default(),
            files,
        })
    }

    /// Queues a message for a peer whose link is up, behind those that the link has not taken yet.
    /// Clones of one `message` share its memory. It is lost with the link: after
    /// [`Event::PeerUp`] send again what the peer must still get.
    ///
    /// # Errors
    /// If the link is not up, or the message cannot be queued.
    pub fn send_to_peer(&mut self, peer: u16, message: Bytes) -> Result<(), SendError> {
        let limit = self.frame_bytes_to_peers() - MESSAGE_HEADER_BYTES;
        let queue_limit = self.limits.peer_queue_bytes;
        let it = find_peer(&mut self.peers, peer).ok_or(SendError::UnknownPeer(peer))?;
        let id = it.link.ok_or(SendError::NotConnected)?;
        if message.len() > limit {
            return Err(SendError::TooLong { length: message.len(), limit });
        }
        if it.queue.bytes() > 0 && it.queue.bytes() + message.len() > queue_limit {
            return Err(SendError::QueueFull { queued: it.queue.bytes() });
        }
        it.queue.push(message);
        self.mark_dirty(id);
        Ok(())
    }

    /// Appends a message to the current frame of a peer's link. It is lost if the link breaks: use it
    /// for what is sent again anyway, such as a client's requests.
    ///
    /// # Errors
    /// If the link is not up or cannot take the message.
    #[inline]
    pub fn send_to_peer_now(&mut self, peer: u16, message: &[u8]) -> Result<(), SendError> {
        self.write_to_peer_now(peer, |writer| writer.put(message))
    }

    /// As [`Self::send_to_peer_now`], with a message that `write` builds inside the frame.
    ///
    /// # Errors
    /// If the link is not up or cannot take the message.
    #[inline]
    pub fn write_to_peer_now(
        &mut self,
        peer: u16,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Result<(), SendError> {
        let it = find_peer(&mut self.peers, peer).ok_or(SendError::UnknownPeer(peer))?;
        let id = it.link.ok_or(SendError::NotConnected)?;
        self.append(id, self.limits.peer_queue_bytes, write)
    }

    /// Appends a message to the current frame of a client's link. It is refused if too much waits for
    /// the client already.
    ///
    /// # Errors
    /// If the link is not up (any more) or cannot take the message.
    #[inline]
    pub fn send_to_client(&mut self, link: LinkId, message: &[u8]) -> Result<(), SendError> {
        self.write_to_client(link, |writer| writer.put(message))
    }

    /// As [`Self::send_to_client`], with a message that `write` builds inside the frame.
    ///
    /// # Errors
    /// If the link is not up (any more) or cannot take the message.
    #[inline]
    pub fn write_to_client(
        &mut self,
        link: LinkId,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Result<(), SendError> {
        self.append(link.0, self.limits.client_queue_bytes, write)
    }

    /// Seals a message to a client in an envelope, appended to `out`, for a peer to relay. Returns
    /// `false`, and appends nothing, if the link is not up.
    pub fn seal_for_client(&mut self, link: LinkId, message: &[u8], out: &mut Vec<u8>) -> bool {
        let connection = find(&mut self.connections, link.0);
        match connection.map(|connection| &mut connection.state) {
            Some(State::Live(live)) => live.link.sealer.seal_envelope(message, out).is_ok(),
            _ => false,
        }
    }

    /// The message in an envelope that a peer sealed for this side, decrypted in place. `None` if
    /// it was sealed by another peer, or for a link before the present one.
    pub fn open_from_peer<'a>(&mut self, peer: u16, envelope: &'a mut [u8]) -> Option<&'a [u8]> {
        let id = find_peer(&mut self.peers, peer)?.link?;
        match &find(&mut self.connections, id)?.state {
            State::Live(live) => live.link.opener.open_envelope(envelope),
            State::Handshake { .. } => None,
        }
    }

    /// As [`Self::write_to_client`], for a message that another replica has for the client. It is
    /// refused once half of the client's queue is full, so that a replica that floods a client
    /// cannot make this side disconnect it.
    ///
    /// # Errors
    /// If the link is not up (any more), has much waiting, or cannot take the message.
    pub fn relay_to_client(
        &mut self,
        link: LinkId,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Result<(), SendError> {
        self.append(link.0, self.limits.client_queue_bytes / 2, write)
    }

    /// Bytes that may still wait for a client before its link is full; none if it is gone.
    #[must_use]
    pub fn client_room(&self, link: LinkId) -> usize {
        let connection = self.connections.get(link.slot()).and_then(Option::as_ref);
        let waiting = match connection.filter(|it| it.id == link.0) {
            Some(Connection { in_flight, state: State::Live(live), .. }) => {
                in_flight + live.building_bytes()
            }
            _ => usize::MAX,
        };
        self.full_bytes().saturating_sub(waiting)
    }

    /// Somebody waits for room on a client's link: it counts as full, and [`Event::ClientRoom`] is told when
    /// it has room again, by the next poll if that is so already. Of a link that goes before,
    /// [`Event::ClientDown`] is told.
    pub fn await_client_room(&mut self, link: LinkId) {
        let room_mark = self.room_mark();
        let Some(connection) = find(&mut self.connections, link.0) else {
            return;
        };
        let State::Live(live) = &mut connection.state else {
            return;
        };
        if let Source::Client { client, link } = live.source
            && !live.is_full
        {
            if connection.in_flight + live.building_bytes() <= room_mark {
                return self.pending.push(Event::ClientRoom { client, link });
            }
            live.is_full = true;
            self.full.push(Full::new(link));
        }
    }

    /// Bytes that wait for a client down to which its link has room again.
    const fn room_mark(&self) -> usize {
        self.limits.client_queue_bytes / 8
    }

    /// Bytes that wait for a client from which on its link is full.
    const fn full_bytes(&self) -> usize {
        self.limits.client_queue_bytes / 2
    }

    /// Closes a client's link; [`Event::ClientDown`] follows.
    pub fn disconnect_client(&mut self, link: LinkId) {
        self.close(link.0, DownReason::Disconnected);
    }

    /// Closes a client's link because of what is in its messages; counted and logged. Events
    /// [`Event::Rejected`] and [`Event::ClientDown`] follow, if the link was up.
    pub fn reject_client(&mut self, link: LinkId, reason: Reason, text: &str) {
        self.reject_live(link.0, reason, text);
    }

    /// Closes a peer's link; [`Event::PeerDown`] follows, and the link is made again.
    pub fn disconnect_peer(&mut self, peer: u16) {
        if let Some(id) = find_peer(&mut self.peers, peer).and_then(|peer| peer.link) {
            self.close(id, DownReason::Disconnected);
        }
    }

    /// A handle with which another thread ends [`Self::poll`] early.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.transport.waker()
    }

    /// The address it listens on, with the port that the system chose if the configuration left
    /// it open. `None` for a hub that does not listen.
    #[must_use]
    pub const fn local_address(&self) -> Option<SocketAddr> {
        self.local_address
    }

    /// Whether the link to a peer is up.
    #[must_use]
    pub fn is_peer_up(&self, peer: u16) -> bool {
        self.peer(peer).is_some_and(|peer| peer.link.is_some())
    }

    /// Bytes queued for a peer or sealed that the transport has not taken yet.
    #[must_use]
    pub fn unsent_bytes(&self, peer: u16) -> usize {
        let Some(it) = self.peer(peer) else { return 0 };
        it.queue.bytes() + self.connection_of(it).map_or(0, |connection| connection.in_flight)
    }

    /// What is known about the link to a peer. Asks the operating system, so not for each message.
    #[must_use]
    pub fn link_state(&self, peer: u16) -> PeerLinkState {
        let connection = self.peer(peer).and_then(|it| self.connection_of(it));
        let tcp = connection.map(|it| self.transport.tcp_state(it.id)).unwrap_or_default();
        PeerLinkState {
            outstanding_bytes: self.unsent_bytes(peer) + tcp.unacknowledged_bytes,
            round_trip: tcp.round_trip,
        }
    }

    /// Live links of clients.
    #[must_use]
    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Whether reading from clients is paused.
    #[must_use]
    pub const fn clients_paused(&self) -> bool {
        self.clients_paused
    }

    /// How many connections and messages were refused since the start, by reason.
    #[must_use]
    pub const fn rejections(&self) -> &Rejections {
        &self.rejections
    }

    /// How long polls have waited for something to happen since the start, busily or asleep. Polls that were to
    /// wait for no time have not.
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// Frames, messages and bytes received and sent since the start.
    #[must_use]
    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    fn peer(&self, id: u16) -> Option<&Peer> {
        self.peers.get(usize::from(id))?.as_ref()
    }

    fn connection_of(&self, peer: &Peer) -> Option<&Connection> {
        self.connections.get(peer.link?.slot())?.as_ref()
    }

    /// Longest payload of a frame to a replica that this side allows; the other side may allow
    /// less.
    fn frame_bytes_to_peers(&self) -> usize {
        match self.identity {
            Identity::Replica(_) => self.limits.peer_frame_bytes as usize,
            Identity::Client(_) => self.limits.client_frame_bytes as usize,
        }
    }

    #[inline]
    fn append(
        &mut self,
        id: ConnectionId,
        queue_limit: usize,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Result<(), SendError> {
        let connection = find(&mut self.connections, id).ok_or(SendError::NotConnected)?;
        let State::Live(live) = &mut connection.state else {
            return Err(SendError::NotConnected);
        };
        let queued = connection.in_flight + live.building_bytes();
        if queued >= queue_limit {
            return Err(SendError::QueueFull { queued });
        }
        let target = self.limits.frame_target_bytes;
        let appended = live.append(&mut self.pool, target, write);
        // What is sealed by now is not in flight yet, and waits all the same.
        let sealed_bytes = match &appended {
            Ok(Ok(Some(sealed))) => sealed.buffer.len(),
            _ => 0,
        };
        if let Source::Client { client, link } = live.source
            && !live.is_full
            && connection.in_flight + sealed_bytes + live.building_bytes()
                >= self.limits.client_queue_bytes / 2
        {
            live.is_full = true;
            self.full.push(Full::new(link));
            self.pending.push(Event::ClientFull { client, link });
        }
        if !live.is_dirty {
            live.is_dirty = true;
            dirty_list(live.source, &mut self.dirty_peers, &mut self.dirty_clients).push(id);
        }
        match appended {
            Ok(Ok(None)) => Ok(()),
            Ok(Ok(Some(sealed))) => {
                self.transmit(id, sealed);
                Ok(())
            }
            Ok(Err(error)) => Err(error),
            Err(error) => {
                self.fail_link(id, error);
                Err(SendError::NotConnected)
            }
        }
    }

    fn mark_dirty(&mut self, id: ConnectionId) {
        let Some(connection) = find(&mut self.connections, id) else {
            return;
        };
        if let State::Live(live) = &mut connection.state
            && !live.is_dirty
        {
            live.is_dirty = true;
            dirty_list(live.source, &mut self.dirty_peers, &mut self.dirty_clients).push(id);
        }
    }

    fn transmit(&mut self, id: ConnectionId, sealed: Sealed) {
        let Some(connection) = find(&mut self.connections, id) else {
            return;
        };
        connection.in_flight += sealed.buffer.len();
        self.traffic.frames_out += 1;
        self.traffic.messages_out += sealed.messages;
        self.traffic.bytes_out += (sealed.buffer.len() - crate::frame::OVERHEAD_BYTES) as u64;
        self.transport.send(id, sealed.buffer);
    }

    /// Hands to the transport what each link has to send and may have in flight.
    fn flush(&mut self) {
        // The system wakes receivers in the order in which it gets the messages. Peers come first:
        // they still have work to do before any client can have its reply.
        let mut links = std::mem::take(&mut self.dirty_peers);
        self.flush_links(&mut links);
        self.dirty_peers = links;
        let mut links = std::mem::take(&mut self.dirty_clients);
        self.flush_links(&mut links);
        self.dirty_clients = links;
    }

    fn flush_links(&mut self, links: &mut Vec<ConnectionId>) {
        for id in links.drain(..) {
            if let Err(error) = self.flush_link(id) {
                self.fail_link(id, error);
            }
        }
    }

    fn flush_link(&mut self, id: ConnectionId) -> Result<(), LinkError> {
        loop {
            let Some(connection) = find(&mut self.connections, id) else {
                return Ok(());
            };
            let State::Live(live) = &mut connection.state else {
                return Ok(());
            };
            live.is_dirty = false;
            // What exceeds the window waits for `Sent`, which marks the link dirty again.
            if connection.in_flight >= self.limits.link_window_bytes {
                return Ok(());
            }
            let mut sealed = live.seal_building()?;
            if sealed.is_none()
                && let Source::Peer(peer) = live.source
                && let Some(peer) = find_peer(&mut self.peers, peer)
            {
                let target = self.limits.frame_target_bytes;
                sealed = live.seal_queued(&mut peer.queue, target, &mut self.pool)?;
            }
            match sealed {
                Some(sealed) => self.transmit(id, sealed),
                None => return Ok(()),
            }
        }
    }
}

fn dirty_list<'a>(
    source: Source,
    peers: &'a mut Vec<ConnectionId>,
    clients: &'a mut Vec<ConnectionId>,
) -> &'a mut Vec<ConnectionId> {
    match source {
        Source::Peer(_) => peers,
        Source::Client { .. } => clients,
    }
}

fn find(connections: &mut [Option<Connection>], id: ConnectionId) -> Option<&mut Connection> {
    connections.get_mut(id.slot())?.as_mut().filter(|connection| connection.id == id)
}

fn find_peer(peers: &mut [Option<Peer>], id: u16) -> Option<&mut Peer> {
    peers.get_mut(usize::from(id))?.as_mut()
}

fn make_peers(config: &HubConfig) -> Result<Vec<Option<Peer>>, HubError> {
    let mut peers: Vec<Option<Peer>> = Vec::new();
    for (id, address) in &config.peers {
        let id = *id;
        let identity = Identity::Replica(id);
        let index = usize::from(id);
        peers.resize_with(peers.len().max(index + 1), || None);
        if peers[index].is_some() || config.identity == identity {
            return Err(HubError::BadPeer(id));
        }
        if config.keyring.key_of(identity).is_none() {
            return Err(HubError::NoKey(identity));
        }
        let dials = match config.identity {
            Identity::Replica(own) => own > id,
            Identity::Client(_) => true,
        };
        peers[index] = Some(Peer::new(id, address.clone(), dials));
    }
    Ok(peers)
}

#[cfg(test)]
mod names;
#[cfg(test)]
mod tests;
