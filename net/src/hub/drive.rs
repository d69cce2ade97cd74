//! What one poll does: deadlines, dialling, completions of the transport, and how links end.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::resolver::LookedUp;
use super::{Connection, Dial, DownReason, Event, Hub, LogLimit, Source, State, find, find_peer};
use crate::frame::Messages;
use crate::keys::Identity;
use crate::link::LinkError;
use crate::reject::Reason;
use crate::transport::{Completion, ConnectionId, Transport, TransportError};

/// How often the names of peers are looked up that connect to this side: for the places that their
/// addresses have in handshakes.
const LOOK_UP_AGAIN: Duration = Duration::from_secs(60);

impl<T: Transport> Hub<T> {
    /// Sends what is queued, waits at most `timeout` for something to happen (`None`: as long as it
    /// takes), and appends what happened to `events`. Call it again once the events are handled. It
    /// returns early when woken, and when one of its own deadlines has passed.
    ///
    /// # Errors
    /// Only if the transport itself fails, never because of a connection. It is dead then, and so is
    /// the hub: every later poll fails too.
    pub fn poll(
        &mut self,
        timeout: Option<Duration>,
        now: Instant,
        events: &mut Vec<Event>,
    ) -> Result<(), TransportError> {
        self.begin_turn(now);
        self.log.start_second(now);
        self.take_addresses(now);
        // While all links are up, most polls find nothing to do here.
        let is_calm = self.is_calm(now);
        if !is_calm {
            self.start_clocks(now);
            self.expire(now);
            self.dial(now);
        }
        self.disconnect_stalled(now);
        self.flush();
        let timeout = self.timeout(timeout, now);
        let mut completions = std::mem::take(&mut self.completions);
        let polled = self.wait(timeout, now, &mut completions);
        for completion in completions.drain(..) {
            self.complete(completion);
        }
        self.completions = completions;
        events.append(&mut self.pending);
        polled
    }

    /// Polls the transport, and where that pays polls several times before the thread sleeps.
    fn wait(
        &mut self,
        timeout: Option<Duration>,
        now: Instant,
        completions: &mut Vec<Completion>,
    ) -> Result<(), TransportError> {
        if timeout == Some(Duration::ZERO) || !self.busy_poll.is_possible() {
            return self.transport.poll(timeout, completions);
        }
        if let Some(time) = self.busy_poll.time() {
            let waker = self.transport.waker();
            let mut start = now;
            let mut is_first = true;
            // A poll that does not wait leaves a wake-up to be seen by the one that does.
            while !waker.is_notified() {
                self.transport.poll(Some(Duration::ZERO), completions)?;
                let passed = if is_first { Duration::ZERO } else { start.elapsed() };
                if std::mem::take(&mut is_first) {
                    // The first poll did the sending, which is not part of the wait.
                    start = Instant::now();
                }
                if completions.iter().any(Completion::is_incoming) {
                    self.busy_poll.waited(passed);
                    self.waited += passed;
                    return Ok(());
                }
                if passed >= time {
                    self.waited += passed;
                    break;
                }
                std::thread::yield_now();
            }
            if !completions.is_empty() {
                // Somebody may wait for what came back: the rest of what a link is to send, a reply that
                // had no room. Who sleeps on it may sleep for ever.
                self.busy_poll.sleep_next();
                return Ok(());
            }
        }
        debug_assert!(completions.is_empty(), "who waits has dealt with what happened");
        let start = Instant::now();
        let polled = self.transport.poll(timeout, completions);
        let passed = start.elapsed();
        self.waited += passed;
        if completions.iter().any(Completion::is_incoming) {
            self.busy_poll.waited(passed);
        }
        polled
    }

    /// Whether nobody connects, and nothing of that is due.
    fn is_calm(&self, now: Instant) -> bool {
        self.half_open.is_empty() && self.peers.iter().flatten().all(|peer| peer.is_calm(now))
    }

    /// Starts deadlines. They start here and not where their cause is found, because that is after
    /// a wait of unknown length, for which `now` is out of date.
    pub(super) fn start_clocks(&mut self, now: Instant) {
        let deadline = now + self.limits.handshake_timeout;
        self.half_open.start_clocks(deadline);
        for peer in self.peers.iter_mut().flatten() {
            if let Dial::Pause(pause) = peer.dial {
                peer.dial = Dial::At(now + pause);
            }
            if peer.is_looked_up_only() && peer.look_up_at.is_none() {
                peer.look_up_at = Some(now);
            }
        }
    }

    /// Nobody polled for this long: whoever does so was busy with something else. What others sent
    /// meanwhile was not looked at, so this time does not count for their handshakes.
    pub fn held_up(&mut self, time: Duration) {
        self.half_open.held_up(time);
        for peer in self.peers.iter_mut().flatten() {
            if let Dial::Busy(_, deadline) = &mut peer.dial {
                *deadline += time;
            }
        }
    }

    /// Whether a connection is in its handshake, of either direction: it takes some polls, soon after
    /// each other.
    #[must_use]
    pub fn is_connecting(&self) -> bool {
        let is_busy = |peer: &super::Peer| matches!(peer.dial, Dial::Busy(..));
        !self.half_open.is_empty() || self.peers.iter().flatten().any(is_busy)
    }

    fn expire(&mut self, now: Instant) {
        while let Some(id) = self.half_open.expired(now) {
            self.half_open.leave(id);
            self.reject_half_open(id, Reason::Timeout, "the handshake took too long");
        }
        for index in 0..self.peers.len() {
            let Some(peer) = &mut self.peers[index] else {
                continue;
            };
            let identity = Identity::Replica(peer.id);
            match peer.dial {
                Dial::Busy(id, deadline) if deadline <= now => {
                    let address = peer.tried;
                    peer.retry(false, &self.limits, &mut self.jitter);
                    self.forget(id);
                    let text =
                        "no link within the handshake's time limit; is it running and reachable?";
                    self.report(Reason::Timeout, address, Some(identity), text.into());
                }
                Dial::LookUp(deadline) if deadline <= now => {
                    let text = format!("no name server has answered for {} yet", peer.address);
                    peer.retry(false, &self.limits, &mut self.jitter);
                    self.report(Reason::Unresolved, None, Some(identity), text);
                }
                _ => {}
            }
        }
    }

    pub(super) fn dial(&mut self, now: Instant) {
        for index in 0..self.peers.len() {
            let Some(peer) = &mut self.peers[index] else { continue };
            if peer.look_up_at.is_some_and(|at| at <= now) {
                peer.look_up_at = Some(now + LOOK_UP_AGAIN);
                self.look_up(index);
            } else if let Dial::At(at) = peer.dial
                && at <= now
            {
                match peer.address.ip() {
                    Some(_) => self.connect(index, now),
                    None => {
                        peer.dial = Dial::LookUp(now + self.limits.handshake_timeout);
                        self.look_up(index);
                    }
                }
            }
        }
    }

    /// Connects to the next address that a peer has.
    fn connect(&mut self, index: usize, now: Instant) {
        let Some(peer) = &mut self.peers[index] else { return };
        let Some(address) = peer.next_address() else { return };
        let id = self.transport.connect(address);
        peer.tried = Some(address);
        peer.dial = Dial::Busy(id, now + self.limits.handshake_timeout);
    }

    /// Looks the name of a peer up, unless that goes on already.
    fn look_up(&mut self, index: usize) {
        let Some(peer) = &mut self.peers[index] else { return };
        let Some((name, port)) = peer.host().filter(|_| !peer.is_looked_up) else { return };
        peer.is_looked_up = true;
        if let Err(error) = self.resolver.start(peer.id, name, port) {
            self.looked_up(peer_id(index), Err(error), None);
        }
    }

    /// Takes what look-ups have found.
    fn take_addresses(&mut self, now: Instant) {
        while let Some(LookedUp { peer, addresses }) = self.resolver.ended() {
            self.looked_up(peer, addresses, Some(now));
        }
    }

    /// A look-up has ended. `now`: when to connect, if there is something to connect to.
    fn looked_up(&mut self, id: u16, addresses: io::Result<Vec<SocketAddr>>, now: Option<Instant>) {
        let Some(peer) = find_peer(&mut self.peers, id) else { return };
        peer.is_looked_up = false;
        // One that took longer than the pause after it is of use as well.
        let is_wanted = matches!(peer.dial, Dial::LookUp(_) | Dial::Pause(_) | Dial::At(_));
        match addresses {
            Ok(addresses) => {
                self.half_open.reserve(&peer.known, &addresses);
                peer.known = addresses;
                if let Some(now) = now.filter(|_| is_wanted) {
                    self.connect(usize::from(id), now);
                }
            }
            Err(error) => {
                let text = format!(
                    "the name in {} could not be looked up: {error}; it is tried again, so that a name \
                     may appear later",
                    peer.address
                );
                if matches!(peer.dial, Dial::LookUp(_)) {
                    peer.retry(false, &self.limits, &mut self.jitter);
                }
                self.report(Reason::Unresolved, None, Some(Identity::Replica(id)), text);
            }
        }
    }

    pub(super) fn timeout(&self, timeout: Option<Duration>, now: Instant) -> Option<Duration> {
        let turn = self.turns.next_turn();
        if turn == Some(Duration::ZERO) || !self.pending.is_empty() {
            return Some(Duration::ZERO);
        }
        let mut next = earlier(self.half_open.deadline(), self.stall_deadline(now));
        for peer in self.peers.iter().flatten() {
            if peer.must_start() {
                return Some(Duration::ZERO);
            }
            next = earlier(next, peer.deadline());
        }
        let next = next.map(|at| at.saturating_duration_since(now));
        earlier(timeout, earlier(turn, next))
    }

    pub(super) fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Received { connection, data } => self.received(connection, data),
            Completion::Sent { connection, buffer } => self.sent(connection, buffer),
            Completion::Accepted { connection, address, .. } => self.accepted(connection, address),
            Completion::Connected { connection } => self.connected(connection),
            Completion::AcceptFailed { error, .. } => {
                let text = self.files.explain(&error).unwrap_or_else(|| error.to_string());
                let text = format!("cannot accept connections at the moment: {text}");
                self.report(Reason::Capacity, None, None, text);
            }
            Completion::ConnectFailed { connection, error } => {
                let peer = self.dialled(connection).map(|peer| (peer.id, peer.tried));
                self.retry_dial(connection, false);
                if let Some((id, Some(address))) = peer {
                    log::debug!("cannot connect to replica {id} at {address}: {error}");
                    if let Some(text) = self.files.explain(&error) {
                        let identity = Identity::Replica(id);
                        self.report(Reason::Capacity, Some(address), Some(identity), text);
                    }
                }
            }
            Completion::Closed { connection, error } => self.closed(connection, error),
        }
    }

    fn sent(&mut self, id: ConnectionId, buffer: Vec<u8>) {
        let room_mark = self.room_mark();
        if let Some(connection) = find(&mut self.connections, id) {
            connection.in_flight -= buffer.len();
            connection.taken += buffer.len() as u64;
            if let State::Live(live) = &mut connection.state {
                let is_queued = match live.source {
                    Source::Peer(peer) => {
                        find_peer(&mut self.peers, peer).is_some_and(|it| !it.queue.is_empty())
                    }
                    Source::Client { client, link } => {
                        let waiting = connection.in_flight + live.building_bytes();
                        if live.is_full && waiting <= room_mark {
                            live.is_full = false;
                            self.full.retain(|full| full.link != link);
                            self.pending.push(Event::ClientRoom { client, link });
                        }
                        false
                    }
                };
                if is_queued || live.building_bytes() > 0 {
                    self.mark_dirty(id);
                }
            }
        }
        self.pool.put(buffer);
    }

    pub(super) fn insert(&mut self, connection: Connection) {
        let slot = connection.id.slot();
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, || None);
        }
        assert!(self.connections[slot].is_none(), "the transport reused a slot in use");
        self.connections[slot] = Some(connection);
    }

    pub(super) fn received(&mut self, id: ConnectionId, data: BytesMut) {
        let Some(connection) = find(&mut self.connections, id) else {
            return;
        };
        match &mut connection.state {
            State::Live(_) => self.take_block(id, data),
            State::Handshake { input, .. } => {
                input.extend_from_slice(&data);
                self.advance_handshake(id);
            }
        }
    }

    pub(super) fn open_frames(&mut self, id: ConnectionId) {
        let Some(connection) = find(&mut self.connections, id) else {
            return;
        };
        let State::Live(live) = &mut connection.state else {
            return;
        };
        let from = live.source;
        let failure = loop {
            let messages = match live.link.opener.open() {
                Ok(None) => return,
                Ok(Some(payload)) => parse(payload),
                Err(error) => break error,
            };
            match messages {
                Ok(messages) => {
                    self.traffic.frames_in += 1;
                    self.traffic.messages_in += messages.len() as u64;
                    self.traffic.bytes_in += messages.payload_bytes() as u64;
                    self.turns.spend(from, messages.payload_bytes(), messages.len());
                    if !messages.is_empty() {
                        self.pending.push(Event::Messages { from, messages });
                    }
                }
                Err(error) => break error,
            }
        };
        self.fail_link(id, failure);
    }

    fn closed(&mut self, id: ConnectionId, error: Option<io::Error>) {
        let Some(connection) = find(&mut self.connections, id) else {
            self.retry_dial(id, false);
            return;
        };
        match &connection.state {
            State::Live(_) => {
                // What was sent before it closed.
                self.take_arrears(id, true);
                let reason = error.map_or(DownReason::Closed, |error| DownReason::Io(error.kind()));
                self.close(id, reason);
            }
            State::Handshake { handshake, .. } => {
                let (address, expected) = (connection.address, handshake.expected());
                self.forget(id);
                self.retry_dial(id, false);
                let text = match error {
                    Some(error) => format!("the connection broke during the handshake: {error}"),
                    None if expected.is_some() => CLOSED_EARLY.into(),
                    None => "the other side closed the connection during the handshake".into(),
                };
                self.report(Reason::HandshakeFailed, Some(address), expected, text);
            }
        }
    }

    pub(super) fn fail_link(&mut self, id: ConnectionId, error: LinkError) {
        self.reject_live(id, error.reason(), &error.to_string());
    }

    /// Closes a live link whose other side broke a rule.
    pub(super) fn reject_live(&mut self, id: ConnectionId, reason: Reason, text: &str) {
        let Some(connection) = find(&mut self.connections, id) else {
            return;
        };
        let State::Live(live) = &connection.state else {
            return;
        };
        let address = connection.address;
        let identity = match live.source {
            Source::Peer(peer) => Identity::Replica(peer),
            Source::Client { client, .. } => Identity::Client(client),
        };
        self.report(reason, Some(address), Some(identity), text.into());
        self.close(id, DownReason::Rejected(reason));
    }

    /// Closes a live link and reports it.
    pub(super) fn close(&mut self, id: ConnectionId, reason: DownReason) {
        let Some(connection) = self.forget(id) else {
            return;
        };
        let State::Live(live) = connection.state else {
            return;
        };
        match live.source {
            Source::Peer(peer) => {
                if let Some(it) = find_peer(&mut self.peers, peer) {
                    it.link = None;
                    it.queue.clear();
                    it.retry(false, &self.limits, &mut self.jitter);
                }
                self.pending.push(Event::PeerDown { peer, reason });
            }
            Source::Client { client, link } => {
                self.clients.remove(&(client, live.incarnation));
                if live.is_full {
                    self.full.retain(|full| full.link != link);
                }
                if let Some(links) = self.links_per_client.get_mut(&client) {
                    *links -= 1;
                    if *links == 0 {
                        self.links_per_client.remove(&client);
                    }
                }
                self.pending.push(Event::ClientDown { client, link, reason });
            }
        }
    }

    /// Removes a connection, and closes it in the transport unless it is closed already.
    pub(super) fn forget(&mut self, id: ConnectionId) -> Option<Connection> {
        self.transport.close(id);
        find(&mut self.connections, id)?;
        let connection = self.connections[id.slot()].take()?;
        if let State::Handshake { handshake, .. } = &connection.state
            && handshake.expected().is_none()
        {
            self.half_open.leave(id);
        }
        Some(connection)
    }

    /// The peer to which this connection is being made.
    pub(super) fn dialled(&mut self, id: ConnectionId) -> Option<&mut super::Peer> {
        let is_it = |dial| matches!(dial, Dial::Busy(busy, _) if busy == id);
        self.peers.iter_mut().flatten().find(|peer| is_it(peer.dial))
    }

    pub(super) fn retry_dial(&mut self, id: ConnectionId, lasting: bool) {
        let is_it = |dial| matches!(dial, Dial::Busy(busy, _) if busy == id);
        if let Some(peer) = self.peers.iter_mut().flatten().find(|peer| is_it(peer.dial)) {
            peer.retry(lasting, &self.limits, &mut self.jitter);
        }
    }

    pub(super) fn report(
        &mut self,
        reason: Reason,
        address: Option<SocketAddr>,
        identity: Option<Identity>,
        message: String,
    ) {
        self.rejections.add(reason);
        if self.log.allows(self.limits.log_lines_per_second) {
            let who = identity.map(|identity| format!("{identity} ")).unwrap_or_default();
            let from = address.map(|address| format!("at {address}")).unwrap_or_default();
            log::warn!("link refused or closed ({reason}): {who}{from}: {message}");
        }
        self.pending.push(Event::Rejected { reason, address, identity, message });
    }
}

/// The earlier of two times, or the shorter of two waits, of which each may be missing.
#[inline]
fn earlier<A: Ord>(a: Option<A>, b: Option<A>) -> Option<A> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// The number of the peer at an index.
fn peer_id(index: usize) -> u16 {
    u16::try_from(index).expect("peers are numbered by u16")
}

/// What a side that connected is told when the other side closes without a word.
const CLOSED_EARLY: &str = "the replica's host closed the connection during the handshake: the replica is \
     stopping, or something between the two hosts (a proxy, a firewall, a port mapping) answers in its \
     place; it is tried again; if this goes on, check the address and whether the replica runs";

fn parse(payload: Bytes) -> Result<Messages, LinkError> {
    Ok(Messages::parse(payload)?)
}

impl LogLimit {
    fn start_second(&mut self, now: Instant) {
        let over = self.second.is_none_or(|second| now >= second + Duration::from_secs(1));
        if !over {
            return;
        }
        if self.suppressed > 0 {
            log::warn!("{} more links were refused or closed", self.suppressed);
        }
        *self = Self { second: Some(now), lines: 0, suppressed: 0 };
    }

    const fn allows(&mut self, lines_per_second: u32) -> bool {
        if self.lines < lines_per_second {
            self.lines += 1;
            return true;
        }
        self.suppressed += 1;
        false
    }
}
