//! TCP over epoll, through mio.
//!
//! Readiness is edge-triggered, so it is remembered here: a connection that may have more to read
//! is in the `ready` queue until a read finds nothing, and one that may be written to is `writable`
//! until a write finds no room. Each poll
//!
//! 1. writes what was queued, one `writev` per connection,
//! 2. waits, unless there is something left to do,
//! 3. reads from ready connections in turn, bounded per connection and in total, so that no sender
//!    starves another or the caller.
//!
//! Reads of all connections go into one block, and are handed out as slices of it. A block is used
//! again once all its slices are gone.

mod connection;

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, SocketAddr};
#[cfg(target_os = "linux")]
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use socket2::SockRef;

use self::connection::{Connection, End, Phase};
use crate::blocks::Blocks;
use crate::limits::PollLimits;
use crate::slots::Slots;
use crate::socket::{connect_result, set_options};
#[cfg(target_os = "linux")]
use crate::tcp_state::{TcpState, tcp_state};
use crate::transport::{Completion, ConnectionId, ListenerId, Transport, TransportError, Waker};

/// TCP over epoll.
#[derive(Debug)]
pub struct PollTransport {
    limits: PollLimits,
    poll: Poll,
    events: Events,
    waker: Waker,
    listeners: Vec<Listener>,
    connections: Slots<Connection>,
    blocks: Blocks,
    /// Connections with queued buffers, each once.
    unsent: Vec<ConnectionId>,
    /// Connections that may have something to read, each once.
    ready: VecDeque<ConnectionId>,
    /// Whether the last poll stopped accepting at its limit, so that more connections may wait.
    accepts_wait: bool,
    /// Nothing is accepted before this time, because the last attempt failed.
    accept_pause: Option<Instant>,
    /// Completions of calls that cannot report them.
    early: Vec<Completion>,
    /// Why it carries nothing any more.
    dead: Option<TransportError>,
    /// The error of the next system call that waits, which is then not made.
    #[cfg(test)]
    fail_next: Option<io::ErrorKind>,
    /// The error of the next attempt to accept, which is then not made.
    #[cfg(test)]
    fail_accept: Option<i32>,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    ready: bool,
}

impl PollTransport {
    /// A transport without connections.
    ///
    /// # Errors
    /// If the operating system gives no epoll instance.
    pub fn new(limits: PollLimits) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mio_waker = mio::Waker::new(poll.registry(), WAKER)?;
        let waker = Waker::new(move || {
            // It fails only if the descriptor is closed, and then no thread sleeps on it.
            let _ = mio_waker.wake();
        });
        Ok(Self {
            blocks: Blocks::new(limits.block_bytes, limits.read_bytes_min),
            limits,
            poll,
            events: Events::with_capacity(EVENTS_PER_POLL),
            waker,
            listeners: Vec::new(),
            connections: Slots::new(),
            unsent: Vec::new(),
            ready: VecDeque::new(),
            accepts_wait: false,
            accept_pause: None,
            early: Vec::new(),
            dead: None,
            #[cfg(test)]
            fail_next: None,
            #[cfg(test)]
            fail_accept: None,
        })
    }

    fn add(&mut self, stream: TcpStream, phase: Phase) -> io::Result<ConnectionId> {
        let limits = &self.limits;
        set_options(&SockRef::from(&stream), limits.keepalive, limits.unacknowledged_timeout)?;
        let id = self.connections.insert(Connection::new(stream, phase));
        let connection = self.connections.find_mut(id).expect("just inserted");
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registered = self.poll.registry().register(&mut connection.stream, token(id), interest);
        if let Err(error) = registered {
            self.connections.remove(id);
            return Err(error);
        }
        Ok(id)
    }

    fn write_all_unsent(&mut self, completions: &mut Vec<Completion>) {
        let mut unsent = std::mem::take(&mut self.unsent);
        for id in unsent.drain(..) {
            let Some(connection) = self.connections.find_mut(id) else {
                continue;
            };
            connection.is_unsent = false;
            self.write(id, completions);
        }
        self.unsent = unsent;
    }

    fn write(&mut self, id: ConnectionId, completions: &mut Vec<Completion>) {
        let Some(connection) = self.connections.find_mut(id) else {
            return;
        };
        let result = connection.write(|buffer| {
            completions.push(Completion::Sent { connection: id, buffer });
        });
        if let Err(error) = result {
            // What the other side sent before it closed is still read: the read will find the end
            // of the stream, or the error, by itself.
            connection.write_error = Some(error.kind());
            connection.outgoing.clear();
            connection.readable = true;
            if connection.paused {
                self.end(id, Some(error), completions);
            } else {
                self.make_ready(id);
            }
        }
    }

    fn make_ready(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.find_mut(id) else {
            return;
        };
        if connection.readable && !connection.paused && !connection.is_ready {
            connection.is_ready = true;
            self.ready.push_back(id);
        }
    }

    fn end(
        &mut self,
        id: ConnectionId,
        error: Option<io::Error>,
        completions: &mut Vec<Completion>,
    ) {
        if self.connections.remove(id).is_some() {
            completions.push(Completion::Closed { connection: id, error });
        }
    }

    fn handle(&mut self, noticed: Noticed, completions: &mut Vec<Completion>) {
        let Some(id) = self.connections.id_at(noticed.slot) else {
            return;
        };
        if token(id) != noticed.token {
            return;
        }
        let Some(connection) = self.connections.find_mut(id) else {
            return;
        };
        if connection.phase == Phase::Connecting {
            match connect_result(&SockRef::from(&connection.stream)) {
                Ok(true) => {
                    connection.phase = Phase::Open;
                    completions.push(Completion::Connected { connection: id });
                }
                Ok(false) => return,
                Err(error) => {
                    self.connections.remove(id);
                    completions.push(Completion::ConnectFailed { connection: id, error });
                    return;
                }
            }
        }
        connection.read_closed |= noticed.read_closed;
        connection.readable |= noticed.readable || noticed.read_closed;
        if noticed.writable && !connection.writable {
            connection.writable = true;
            self.write(id, completions);
        }
        self.make_ready(id);
    }

    fn accept_one(&mut self, index: usize) -> io::Result<(TcpStream, SocketAddr)> {
        #[cfg(test)]
        if let Some(code) = self.fail_accept.take() {
            return Err(io::Error::from_raw_os_error(code));
        }
        self.listeners[index].socket.accept()
    }

    fn accept(&mut self, completions: &mut Vec<Completion>) {
        if self.accept_pause.is_some_and(|until| Instant::now() < until) {
            return;
        }
        self.accept_pause = None;
        let mut left = self.limits.accepts_per_poll.max(1);
        self.accepts_wait = false;
        for index in 0..self.listeners.len() {
            while self.listeners[index].ready && left > 0 {
                left -= 1;
                match self.accept_one(index) {
                    Ok((stream, address)) => {
                        let listener = ListenerId(index as u32);
                        match self.add(stream, Phase::Open) {
                            Ok(connection) => completions.push(Completion::Accepted {
                                listener,
                                connection,
                                address,
                            }),
                            Err(error) => log::debug!("lost a connection of {address}: {error}"),
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        self.listeners[index].ready = false;
                    }
                    Err(error) if is_passing(&error) => {}
                    Err(error) => {
                        // What waits is announced only once, so the listener stays ready.
                        self.accept_pause = Some(Instant::now() + self.limits.accept_pause);
                        let listener = ListenerId(index as u32);
                        completions.push(Completion::AcceptFailed { listener, error });
                        return;
                    }
                }
            }
        }
        self.accepts_wait = left == 0;
    }

    fn read_ready(&mut self, completions: &mut Vec<Completion>) {
        let mut left = self.limits.poll_bytes;
        for _ in 0..self.ready.len() {
            if left == 0 {
                break;
            }
            let Some(id) = self.ready.pop_front() else {
                break;
            };
            let Some(connection) = self.connections.find_mut(id) else {
                continue;
            };
            connection.is_ready = false;
            if connection.paused {
                continue;
            }
            let turn = left.min(self.limits.connection_turn_bytes);
            match connection.read(turn, &mut self.blocks, |data| {
                left = left.saturating_sub(data.len());
                completions.push(Completion::Received { connection: id, data });
            }) {
                Ok(End::None) => self.make_ready(id),
                Ok(End::Stream) => {
                    let error = connection.write_error.map(io::Error::from);
                    self.end(id, error, completions);
                }
                Err(error) => self.end(id, Some(error), completions),
            }
        }
    }

    fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        #[cfg(test)]
        if let Some(kind) = self.fail_next.take() {
            return Err(kind.into());
        }
        match self.poll.poll(&mut self.events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                self.events.clear();
                Ok(())
            }
            result => result,
        }
    }
}

impl PollTransport {
    fn poll_once(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let before = completions.len();
        let may_wait = timeout != Some(Duration::ZERO);
        completions.append(&mut self.early);
        self.write_all_unsent(completions);
        let busy = self.accepts_wait || !self.ready.is_empty() || completions.len() > before;
        let pause = self.accept_pause.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.map_or(pause, |it| Some(pause.map_or(it, |pause| pause.min(it))));
        let timeout = if busy { Some(Duration::ZERO) } else { timeout };
        let waits = timeout != Some(Duration::ZERO) && self.waker.may_sleep();
        let timeout = if waits { timeout } else { Some(Duration::ZERO) };
        let waited = self.wait(timeout);
        if may_wait {
            self.waker.awake();
        }
        waited?;
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let token = event.token();
            if token == WAKER {
                continue;
            }
            if token.0 & LISTENER_BIT != 0 {
                self.listeners[token.0 & !LISTENER_BIT].ready = true;
                continue;
            }
            self.handle(Noticed::new(event), completions);
        }
        self.events = events;
        self.accept(completions);
        self.read_ready(completions);
        Ok(())
    }

    /// Closes everything: without a word of the system about what is ready, nothing can go on.
    fn die(&mut self, cause: io::Error) -> TransportError {
        self.connections.clear();
        self.listeners.clear();
        self.unsent.clear();
        self.ready.clear();
        self.early.clear();
        self.dead.insert(TransportError::new("epoll", cause)).clone()
    }
}

impl Transport for PollTransport {
    fn listen(&mut self, address: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
        if let Some(dead) = &self.dead {
            return Err(io::Error::other(dead.clone()));
        }
        let mut socket = TcpListener::bind(address)?;
        let bound = socket.local_addr()?;
        let index = self.listeners.len();
        let token = Token(LISTENER_BIT | index);
        self.poll.registry().register(&mut socket, token, Interest::READABLE)?;
        self.listeners.push(Listener { socket, ready: false });
        Ok((ListenerId(index as u32), bound))
    }

    fn connect(&mut self, address: SocketAddr) -> ConnectionId {
        if self.dead.is_some() {
            // No poll will report it.
            return ConnectionId { slot: u32::MAX, generation: 0 };
        }
        let added = TcpStream::connect(address).and_then(|stream| {
            let id = self.add(stream, Phase::Connecting)?;
            Ok(id)
        });
        added.unwrap_or_else(|error| {
            // An id that is never valid: no connection ever has this generation's slot.
            let connection = ConnectionId { slot: u32::MAX, generation: self.early.len() as u32 };
            self.early.push(Completion::ConnectFailed { connection, error });
            connection
        })
    }

    fn send(&mut self, connection: ConnectionId, buffer: Vec<u8>) {
        let Some(it) = self.connections.find_mut(connection) else {
            return;
        };
        if it.phase != Phase::Open || it.write_error.is_some() {
            return;
        }
        it.outgoing.push_back(buffer);
        if !it.is_unsent {
            it.is_unsent = true;
            self.unsent.push(connection);
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        if let Some(mut it) = self.connections.remove(connection) {
            let _ = it.write(drop);
            let _ = it.stream.shutdown(Shutdown::Write);
        }
    }

    #[cfg(target_os = "linux")]
    fn tcp_state(&self, connection: ConnectionId) -> TcpState {
        let found = self.connections.find(connection);
        found.map(|it| tcp_state(it.stream.as_fd())).unwrap_or_default()
    }

    fn pause_reading(&mut self, connection: ConnectionId, paused: bool) {
        if let Some(it) = self.connections.find_mut(connection) {
            it.paused = paused;
            self.make_ready(connection);
        }
    }

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), TransportError> {
        match &self.dead {
            Some(dead) => Err(dead.clone()),
            None => self.poll_once(timeout, completions).map_err(|cause| self.die(cause)),
        }
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

/// One readiness event, copied so that it does not borrow the event list.
struct Noticed {
    token: Token,
    slot: usize,
    readable: bool,
    writable: bool,
    read_closed: bool,
}

impl Noticed {
    fn new(event: &Event) -> Self {
        Self {
            token: event.token(),
            slot: event.token().0 & 0xffff_ffff,
            readable: event.is_readable(),
            writable: event.is_writable() || event.is_error(),
            read_closed: event.is_read_closed() || event.is_error(),
        }
    }
}

fn token(id: ConnectionId) -> Token {
    // Generations are cut to 31 bits, which leaves the top bit to listeners. A stale event would
    // need 2^31 connections in one slot between two polls to be mistaken.
    Token((id.generation as usize & 0x7fff_ffff) << 32 | id.slot as usize)
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted)
}

const EVENTS_PER_POLL: usize = 1024;
const LISTENER_BIT: usize = 1 << 63;
const WAKER: Token = Token(usize::MAX);

#[cfg(test)]
mod tests;
