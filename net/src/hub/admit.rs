//! From a connection to a link: the handshake, and who is admitted.

use std::net::SocketAddr;

use bytes::BytesMut;

use super::{Connection, DownReason, Event, Hub, LinkId, Source, State};
use super::{find, find_peer, outbound::Live};
use crate::handshake::{Established, HandshakeError, Progress};
use crate::keys::Identity;
use crate::reject::Reason;
use crate::transport::{ConnectionId, Transport};

impl<T: Transport> Hub<T> {
    pub(super) fn accepted(&mut self, id: ConnectionId, address: SocketAddr) {
        match self.handshaker.accept() {
            Ok(handshake) => {
                let state =
                    State::Handshake { handshake: Box::new(handshake), input: BytesMut::new() };
                self.insert(Connection { id, address, in_flight: 0, taken: 0, state });
                if let Some(out) = self.half_open.enter(id, address) {
                    self.give_way(out);
                }
            }
            Err(error) => {
                self.transport.close(id);
                self.report(error.reason(), Some(address), None, error.to_string());
            }
        }
    }

    /// Closes a connection that has lost its place, and tells the other side why.
    fn give_way(&mut self, id: ConnectionId) {
        let Some(connection) = find(&mut self.connections, id) else {
            return;
        };
        if let State::Handshake { handshake, .. } = &mut connection.state {
            let mut out = Vec::new();
            handshake.give_way(&mut out);
            self.transport.send(id, out);
        }
        let text = "too many connections are in their handshake, and this address has the most: one of \
             its own was closed; if they are honest, let fewer clients start at once there";
        self.reject_half_open(id, Reason::Capacity, text);
    }

    pub(super) fn connected(&mut self, id: ConnectionId) {
        let Some(peer) = self.dialled(id) else {
            self.transport.close(id);
            return;
        };
        let identity = Identity::Replica(peer.id);
        let address = peer.tried.expect("an attempt has an address");
        match self.handshaker.connect(identity) {
            Ok(handshake) => {
                let state =
                    State::Handshake { handshake: Box::new(handshake), input: BytesMut::new() };
                self.insert(Connection { id, address, in_flight: 0, taken: 0, state });
                self.received(id, BytesMut::new());
            }
            Err(error) => {
                self.transport.close(id);
                self.retry_dial(id, true);
                self.report(error.reason(), Some(address), Some(identity), error.to_string());
            }
        }
    }

    pub(super) fn advance_handshake(&mut self, id: ConnectionId) {
        loop {
            let mut out = self.pool.take();
            let Some(connection) = find(&mut self.connections, id) else {
                return;
            };
            let State::Handshake { handshake, input } = &mut connection.state else {
                return;
            };
            let expected = handshake.expected();
            let progress = handshake.receive(input, &mut out);
            if out.is_empty() {
                self.pool.put(out);
            } else {
                connection.in_flight += out.len();
                self.transport.send(id, out);
            }
            match progress {
                Ok(Progress::Pending) => return,
                Ok(Progress::Identified { peer, incarnation }) => {
                    if !self.decide(id, peer, incarnation, expected.is_some()) {
                        return;
                    }
                }
                Ok(Progress::Established(established)) => {
                    self.establish(id, *established);
                    return;
                }
                Err(error) => {
                    self.fail_handshake(id, &error);
                    return;
                }
            }
        }
    }

    /// Admits or refuses a peer that has proved its identity.
    fn decide(
        &mut self,
        id: ConnectionId,
        peer: Identity,
        incarnation: u64,
        dialled: bool,
    ) -> bool {
        let admission = if dialled { Ok(()) } else { self.admission(peer, incarnation) };
        let Some(connection) = find(&mut self.connections, id) else {
            return false;
        };
        let State::Handshake { handshake, .. } = &mut connection.state else {
            return false;
        };
        match admission {
            Ok(()) => {
                handshake.admit();
                true
            }
            Err((reason, text)) => {
                let mut out = Vec::new();
                handshake.refuse(reason, &text, &mut out);
                let address = connection.address;
                self.transport.send(id, out);
                self.forget(id);
                self.report(reason, Some(address), Some(peer), text);
                false
            }
        }
    }

    fn admission(&self, peer: Identity, incarnation: u64) -> Result<(), (Reason, String)> {
        match (self.identity, peer) {
            (Identity::Client(_), _) => {
                Err((Reason::Direction, "nobody connects to a client".into()))
            }
            (Identity::Replica(own), Identity::Replica(other)) => {
                if self.peer(other).is_none() {
                    let text = format!("replica {other} is not among the peers of replica {own}");
                    return Err((Reason::ConfigurationMismatch, text));
                }
                if other < own {
                    let text = format!("replica {own} connects to replica {other}, not vice versa");
                    return Err((Reason::Direction, text));
                }
                Ok(())
            }
            (Identity::Replica(_), Identity::Client(client)) => {
                if self.clients.contains_key(&(client, incarnation)) {
                    return Ok(());
                }
                if self.clients.len() >= self.limits.clients {
                    let limit = self.limits.clients;
                    let text = format!("{limit} clients are connected already, the limit");
                    return Err((Reason::Capacity, text));
                }
                let links = self.links_per_client.get(&client).copied().unwrap_or(0);
                if links >= self.limits.links_per_client {
                    let text = format!("client {client} has {links} links already, its limit");
                    return Err((Reason::Capacity, text));
                }
                Ok(())
            }
        }
    }

    fn establish(&mut self, id: ConnectionId, established: Established) {
        let Established { link, peer, incarnation, send_frame_bytes } = established;
        match peer {
            Identity::Replica(replica) => {
                if let Some(old) = self.peer(replica).and_then(|it| it.link) {
                    self.close(old, DownReason::Superseded);
                }
            }
            Identity::Client(client) => {
                if let Some(&old) = self.clients.get(&(client, incarnation)) {
                    self.close(old, DownReason::Superseded);
                }
            }
        }
        let source = match peer {
            Identity::Replica(replica) => Source::Peer(replica),
            Identity::Client(client) => Source::Client { client, link: LinkId(id) },
        };
        let Some(connection) = find(&mut self.connections, id) else {
            return;
        };
        let live = Live::new(link, source, incarnation, send_frame_bytes as usize);
        let state = std::mem::replace(&mut connection.state, State::Live(Box::new(live)));
        let State::Handshake { handshake, input } = state else {
            unreachable!("only a handshake establishes a link")
        };
        if handshake.expected().is_none() {
            self.half_open.leave(id);
        }
        self.register(id, source, incarnation);
        // Bytes that came after the handshake in the same read are the first frames.
        if !input.is_empty() {
            self.received(id, input);
        }
    }

    fn register(&mut self, id: ConnectionId, source: Source, incarnation: u64) {
        match source {
            Source::Peer(peer) => {
                if let Some(it) = find_peer(&mut self.peers, peer) {
                    it.up(id);
                }
                self.pending.push(Event::PeerUp { peer, incarnation });
                self.mark_dirty(id);
            }
            Source::Client { client, link } => {
                self.clients.insert((client, incarnation), id);
                *self.links_per_client.entry(client).or_insert(0) += 1;
                if self.clients_paused {
                    self.transport.pause_reading(id, true);
                }
                self.pending.push(Event::ClientUp { client, incarnation, link });
            }
        }
    }

    fn fail_handshake(&mut self, id: ConnectionId, error: &HandshakeError) {
        let Some(connection) = find(&mut self.connections, id) else {
            return;
        };
        let State::Handshake { handshake, .. } = &connection.state else {
            return;
        };
        let (address, expected) = (connection.address, handshake.expected());
        let reason = error.reason();
        self.forget(id);
        self.retry_dial(id, reason.is_lasting());
        self.report(reason, Some(address), expected, error.to_string());
    }

    pub(super) fn reject_half_open(&mut self, id: ConnectionId, reason: Reason, text: &str) {
        let address = find(&mut self.connections, id).map(|connection| connection.address);
        self.forget(id);
        self.report(reason, address, None, text.into());
    }
}
