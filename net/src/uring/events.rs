//! What the ring reports, and what becomes of it.

use std::io;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::time::Instant;

use socket2::Socket;

use super::connection::{Phase, address_of};
use super::ring::{Event, Sent, Token};
use super::{UringTransport, id_of};
use crate::socket::connect_result;
use crate::transport::{Completion, ConnectionId, ListenerId};

impl UringTransport {
    pub(super) fn finish_sends(&mut self, completions: &mut Vec<Completion>) {
        let mut failed = Vec::new();
        for sent in self.ring.take_sends() {
            let id = id_of(sent.token);
            let Some(connection) = self.connections.find_mut(id) else {
                continue;
            };
            let Sent { mut buffers, offered, result, .. } = sent;
            match result {
                Ok(count) => {
                    let mut done = connection.sent + count;
                    while buffers.front().is_some_and(|first| first.len() <= done) {
                        let buffer = buffers.pop_front().expect("there is a first one");
                        done -= buffer.len();
                        completions.push(Completion::Sent { connection: id, buffer });
                    }
                    connection.sent = done;
                    connection.outgoing = buffers;
                    if count < offered {
                        connection.is_full = true;
                        self.to_watch.push(id);
                    } else if !connection.outgoing.is_empty() {
                        connection.is_unsent = true;
                        self.unsent.push(id);
                    }
                }
                Err(error) => failed.push((id, error)),
            }
        }
        for (id, error) in failed {
            self.fail_write(id, error, completions);
        }
    }

    /// Marks a connection as broken for writing. What the other side sent before it closed is still
    /// read: the receive will find the end of the stream, or the error, by itself.
    fn fail_write(&mut self, id: ConnectionId, error: io::Error, out: &mut Vec<Completion>) {
        let Some(connection) = self.connections.find_mut(id) else {
            return;
        };
        connection.write_error = Some(error.kind());
        connection.outgoing.clear();
        // Ends the receive even where the system would keep that direction open.
        let _ = connection.socket.shutdown(Shutdown::Both);
        if connection.paused {
            self.end(id, Some(error), out);
        }
    }

    pub(super) fn handle(&mut self, event: Event, completions: &mut Vec<Completion>) {
        match event {
            Event::Received { token, data } => {
                let id = id_of(token);
                let Some(connection) = self.connections.find_mut(id) else {
                    return;
                };
                connection.has_received = true;
                if connection.paused {
                    connection.held.push(data);
                } else {
                    completions.push(Completion::Received { connection: id, data });
                }
            }
            Event::ReceiveEnded { token, end } => {
                self.receive_ended(id_of(token), end, completions)
            }
            Event::Accepted { token, socket } => self.accepted(token, socket, completions),
            Event::AcceptEnded { token } => {
                self.listeners[token.0 as usize].is_accepting = false;
            }
            Event::HungUp { token } => self.hung_up(id_of(token)),
            // The next poll watches again, unless the connection is closed.
            Event::Unwatched { token } => self.to_await_end.push(id_of(token)),
            Event::Ready { token } => self.ready(id_of(token), completions),
            Event::WatchEnded => self.is_watching = false,
        }
    }

    fn receive_ended(
        &mut self,
        id: ConnectionId,
        end: io::Result<bool>,
        completions: &mut Vec<Completion>,
    ) {
        let Some(connection) = self.connections.find_mut(id) else {
            return;
        };
        connection.is_receiving = false;
        let error = match end {
            Ok(false) => {
                if !connection.paused {
                    let served = connection.has_received;
                    if served { &mut self.to_receive } else { &mut self.starved }.push(id);
                }
                return;
            }
            Ok(true) => connection.write_error.map(io::Error::from),
            Err(error) => Some(error),
        };
        if connection.paused {
            connection.held_end = Some(error);
        } else {
            self.end(id, error, completions);
        }
    }

    fn accepted(
        &mut self,
        token: Token,
        socket: io::Result<OwnedFd>,
        completions: &mut Vec<Completion>,
    ) {
        let listener = ListenerId(token.0 as u32);
        let added = socket.map(Socket::from).map_err(|error| {
            let until = Instant::now() + self.limits.accept_pause;
            self.listeners[token.0 as usize].pause = Some(until);
            completions.push(Completion::AcceptFailed { listener, error });
        });
        let Ok(socket) = added else {
            return;
        };
        let added =
            address_of(&socket).and_then(|address| Ok((address, self.add(socket, Phase::Open)?)));
        match added {
            Ok((address, connection)) => {
                completions.push(Completion::Accepted { listener, connection, address });
            }
            Err(error) => log::debug!("lost a connection that was just accepted: {error}"),
        }
    }

    /// An attempt to connect has ended, or a full socket has room again.
    fn ready(&mut self, id: ConnectionId, completions: &mut Vec<Completion>) {
        let Some(connection) = self.connections.find_mut(id) else {
            return;
        };
        if connection.phase == Phase::Connecting {
            match connect_result(&connection.socket) {
                Ok(true) => {
                    connection.phase = Phase::Open;
                    self.begin(id);
                    completions.push(Completion::Connected { connection: id });
                }
                Ok(false) => self.to_watch.push(id),
                Err(error) => {
                    self.connections.remove(id);
                    completions.push(Completion::ConnectFailed { connection: id, error });
                }
            }
            return;
        }
        connection.is_full = false;
        if !connection.outgoing.is_empty() && !connection.is_unsent {
            connection.is_unsent = true;
            self.unsent.push(id);
        }
    }

    fn hung_up(&mut self, id: ConnectionId) {
        if self.connections.find(id).is_some() && !self.ended.contains(&id) {
            self.ended.push(id);
        }
    }
}
