//! TCP over `io_uring`.
//!
//! # Data path
//!
//! A poll makes one system call, no matter how many connections it serves: it submits all sends,
//! waits, and lets the kernel complete the operations that have become possible.
//!
//! *Out.* The buffers that were queued for a connection go out as one send (of up to 64 buffers),
//! and the sends of all connections go out with one submission, in the order in which the
//! connections were first sent to. Sends do not wait and report only failure, so they neither end
//! the wait of the same call nor cost a completion. Whoever has much under way may wait to hear what was
//! taken of it, so a poll that offers much for one connection (`MUCH_BYTES`) does not wait, and says at
//! once what was. Bytes that a full socket does not take stay
//! here until the ring reports that the socket has room. A connection never has more than one of
//! the two under way, so its bytes stay in order.
//!
//! Sends are copied. Without a copy (`IORING_OP_SEND_ZC`) they were slower and cost more CPU time
//! over loopback, where the kernel copies anyway, and each buffer would have to be kept until its
//! notification. A ring that a kernel thread polls (`SQPOLL`) excludes deferred work, and without
//! deferred work a send could outlast a call. The benchmark `zero-copy` of `perf` measures both,
//! over a real network too.
//!
//! *In.* Each connection has one receive that stays armed. The kernel picks a receive buffer when
//! bytes arrive. They are copied to a block one after the other, which is cheap: mostly a few
//! hundred bytes that are in the cache. The receive buffer is lent again at once. So the receive
//! buffers bound what one poll takes, the kernel never waits for the owner of a frame, and the
//! receiver owns its bytes. Only as many buffers are used as there are connections, so that they
//! stay in the cache.
//!
//! When the kernel finds no buffer, a receive ends, and the next poll arms it again. Receives that
//! got nothing are armed first, because an armed receive at once takes all that has arrived, up to
//! all buffers: otherwise a connection on which more arrives than one poll takes (a leader's
//! client, say) would keep the others (its followers) from being read. Listeners have one accept
//! that stays armed.
//!
//! *The end.* A receive that stays armed can miss the end of the stream: if a reset comes together
//! with data, Linux (up to 6.18 at least) lets the receive take the data and then wait for a
//! wake-up that has already happened; liburing issue 1549 describes a case. So the ring also
//! watches each connection for its end. Once that is reported, the receive is armed again with each
//! poll until it has seen the end too.
//!
//! *Not reading.* The receive of a paused connection is cancelled. Bytes that arrive before the
//! cancellation takes effect are kept until reading is resumed.
//!
//! # Wake path
//!
//! Another thread wakes a poll by writing to an event descriptor, which the ring watches. The
//! descriptor is never read, since each write is an event. While the polling thread is awake, a
//! wake-up costs one atomic swap (see [`Waker`]). A poll that must not wait makes no system call if
//! there is nothing to submit: shared memory says whether the kernel has something to report.
//!
//! The time-out is an operation that stays armed and is only ever moved to an earlier time, so most
//! waits touch no timer. In exchange, a poll may end early without an event.
//!
//! # Errors
//!
//! Errors of one operation are those of its connection. An error of the system call itself leaves
//! entries behind in the ring, and nobody knows which sends were carried out. So the transport is
//! dead after the first one: its connections are shut down, the ring is closed without being entered
//! again, nothing counts as sent, and every later poll returns the error.
//!
//! # Threads
//!
//! The ring belongs to the thread that polls (`SINGLE_ISSUER`), and the kernel works for it only
//! inside its own calls (`DEFER_TASKRUN`). When another thread polls the transport, it makes a new
//! ring and arms everything again. Nothing is lost, because no send outlasts a call and a cancelled
//! receive has taken nothing.
//!
//! # Needs
//!
//! Rings of one thread with deferred work, buffer rings, receives that stay armed, and operations
//! that report only failure. They are tested for at start, never inferred from a version, and
//! [`UringTransport::new`] says what is missing. Linux 6.1 has them, unless it forbids `io_uring`.
//!
//! All unsafe code is in `ring` and `buffers`. Miri does not support `io_uring`, so it checks none
//! of it. The tests, also those of `net/tests`, run over real sockets, once for each back end.

mod buffers;
mod connection;
mod events;
mod features;
mod probe;
mod ring;

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use self::connection::{Connection, Phase, start_to_connect};
use self::ring::{Event, Ring, Token};
use crate::blocks::Blocks;
use crate::limits::UringLimits;
use crate::slots::Slots;
use crate::socket::set_options;
use crate::tcp_state::{TcpState, tcp_state};
use crate::transport::{Completion, ConnectionId, ListenerId, Transport, TransportError, Waker};

/// TCP over `io_uring`.
#[derive(Debug)]
pub struct UringTransport {
    limits: UringLimits,
    ring: Ring,
    waker: Waker,
    event: Arc<OwnedFd>,
    /// Whether the ring watches the event descriptor.
    is_watching: bool,
    listeners: Vec<Listener>,
    connections: Slots<Connection>,
    blocks: Blocks,
    /// Connections with queued buffers, each once.
    unsent: Vec<ConnectionId>,
    /// Connections whose receive the next poll arms.
    to_receive: Vec<ConnectionId>,
    /// As `to_receive`, but armed first: last time, others had taken all buffers.
    starved: Vec<ConnectionId>,
    /// Connections that wait until they can be written to.
    to_watch: Vec<ConnectionId>,
    /// Connections whose end the ring does not watch for yet.
    to_await_end: Vec<ConnectionId>,
    /// Connections that have ended, but may still have bytes to be received.
    ended: Vec<ConnectionId>,
    /// Connections whose receive the next poll cancels.
    to_stop: Vec<ConnectionId>,
    /// Closed connections, whose operations the next poll cancels.
    to_cancel: Vec<Token>,
    events: Vec<Event>,
    /// Completions of calls that cannot report them.
    early: Vec<Completion>,
    /// Why it carries nothing any more.
    dead: Option<TransportError>,
}

#[derive(Debug)]
struct Listener {
    socket: Socket,
    is_accepting: bool,
    /// It accepts nothing before this time, because the last attempt failed.
    pause: Option<Instant>,
}

impl UringTransport {
    /// A transport without connections.
    ///
    /// # Errors
    /// If the kernel lacks a feature that is needed, which the error names, or forbids `io_uring`
    /// to this process.
    pub fn new(limits: UringLimits) -> io::Result<Self> {
        probe::check()?;
        let event = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let target = Arc::clone(&event);
        let waker = Waker::new(move || {
            // It cannot fail while the descriptor is open, and this closure keeps it open.
            let _ = rustix::io::write(&*target, &1_u64.to_ne_bytes());
        });
        Ok(Self {
            ring: Ring::new(&limits)?,
            blocks: Blocks::new(limits.block_bytes.max(limits.buffer_bytes), 1),
            limits,
            waker,
            event,
            is_watching: false,
            listeners: Vec::new(),
            connections: Slots::new(),
            unsent: Vec::new(),
            to_receive: Vec::new(),
            starved: Vec::new(),
            to_watch: Vec::new(),
            to_await_end: Vec::new(),
            ended: Vec::new(),
            to_stop: Vec::new(),
            to_cancel: Vec::new(),
            events: Vec::new(),
            early: Vec::new(),
            dead: None,
        })
    }

    /// System calls that its polls have made so far.
    #[must_use]
    pub const fn system_calls(&self) -> u64 {
        self.ring.enters
    }

    fn add(&mut self, socket: Socket, phase: Phase) -> io::Result<ConnectionId> {
        let (keepalive, limit) = (self.limits.keepalive, self.limits.unacknowledged_timeout);
        set_options(&socket, keepalive, limit)?;
        let id = self.connections.insert(Connection::new(socket, phase));
        match phase {
            Phase::Open => self.begin(id),
            Phase::Connecting => self.to_watch.push(id),
        }
        Ok(id)
    }

    /// Starts to receive on a connection that is open.
    fn begin(&mut self, id: ConnectionId) {
        self.to_receive.push(id);
        self.to_await_end.push(id);
    }

    /// Makes a new ring if another thread than before polls: a ring belongs to one thread.
    fn claim(&mut self, completions: &mut Vec<Completion>) -> io::Result<()> {
        if self.ring.is_mine() {
            return Ok(());
        }
        // Completions are taken first; that needs no system call, so any thread may do it.
        let mut events = std::mem::take(&mut self.events);
        self.ring.take_completed(&mut self.blocks, &mut events);
        events.drain(..).for_each(|event| self.handle(event, completions));
        self.events = events;
        self.ring = Ring::new(&self.limits)?;
        self.is_watching = false;
        self.listeners.iter_mut().for_each(|listener| listener.is_accepting = false);
        self.to_cancel.clear();
        self.to_stop.clear();
        self.to_receive.clear();
        self.starved.clear();
        self.to_watch.clear();
        self.to_await_end.clear();
        let ids: Vec<ConnectionId> = self.connections.ids().collect();
        for id in ids {
            let connection = self.connections.find_mut(id).expect("just listed");
            connection.is_receiving = false;
            if connection.phase == Phase::Connecting || connection.is_full {
                self.to_watch.push(id);
            }
            if connection.phase == Phase::Open {
                self.begin(id);
            }
        }
        Ok(())
    }

    /// Queues the operations that should be armed but are not. After an error nothing is armed again,
    /// so the rest of the lists may be lost.
    fn arm(&mut self) -> io::Result<()> {
        if !self.is_watching {
            self.ring.watch(self.event.as_fd())?;
            self.is_watching = true;
        }
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            if listener.pause.is_some_and(|until| Instant::now() >= until) {
                listener.pause = None;
            }
            if !listener.is_accepting && listener.pause.is_none() {
                self.ring.accept(listener.socket.as_fd(), Token(index as u64))?;
                listener.is_accepting = true;
            }
        }
        for token in self.to_cancel.drain(..) {
            self.ring.cancel(token)?;
        }
        // A receive that is armed again below gets a whole poll before it is cancelled here.
        self.ended.retain(|id| self.connections.find(*id).is_some());
        for id in self.to_stop.drain(..).chain(self.ended.iter().copied()) {
            if self.connections.find(id).is_some_and(|connection| connection.is_receiving) {
                self.ring.cancel_receive(token(id))?;
            }
        }
        for id in self.to_await_end.drain(..) {
            if let Some(connection) = self.connections.find(id) {
                self.ring.when_hung_up(connection.socket.as_fd(), token(id))?;
            }
        }
        for id in self.to_watch.drain(..) {
            if let Some(connection) = self.connections.find(id) {
                self.ring.when_writable(connection.socket.as_fd(), token(id))?;
            }
        }
        for id in self.starved.drain(..).chain(self.to_receive.drain(..)) {
            if let Some(connection) = self.connections.find_mut(id)
                && !connection.is_receiving
                && !connection.paused
                && connection.held_end.is_none()
            {
                self.ring.serve(id.slot() + 1);
                self.ring.receive(connection.socket.as_fd(), token(id))?;
                (connection.is_receiving, connection.has_received) = (true, false);
            }
        }
        Ok(())
    }

    /// Queues sends, one for each connection that can take one. Returns whether the poll may wait: nothing is
    /// left, and nobody waits to hear what was sent.
    fn queue_sends(&mut self) -> io::Result<bool> {
        let mut may_wait = true;
        for id in self.unsent.drain(..) {
            let Some(connection) = self.connections.find_mut(id) else {
                continue;
            };
            connection.is_unsent = false;
            if !connection.is_full && !connection.outgoing.is_empty() {
                let buffers = std::mem::take(&mut connection.outgoing);
                may_wait &= buffers.iter().map(Vec::len).sum::<usize>() < MUCH_BYTES;
                let socket = connection.socket.as_fd();
                may_wait &= self.ring.send(socket, token(id), buffers, connection.sent)?;
            }
        }
        Ok(may_wait)
    }

    fn end(&mut self, id: ConnectionId, error: Option<io::Error>, out: &mut Vec<Completion>) {
        if self.connections.remove(id).is_some() {
            self.let_go(id);
            out.push(Completion::Closed { connection: id, error });
        }
    }

    /// Cancels a connection's operations, which would hold its socket open.
    fn let_go(&mut self, id: ConnectionId) {
        self.to_cancel.push(token(id));
    }

    /// An error leaves half of what it does undone; [`Self::die`] must follow.
    fn poll_once(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> io::Result<()> {
        let before = completions.len();
        let may_wait = timeout != Some(Duration::ZERO);
        self.claim(completions)?;
        completions.append(&mut self.early);
        self.arm()?;
        let may_sleep = self.queue_sends()?;
        let pause = self.deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = timeout.map_or(pause, |it| Some(pause.map_or(it, |pause| pause.min(it))));
        let is_busy = timeout == Some(Duration::ZERO) || completions.len() > before;
        let waits = !is_busy && may_sleep && !self.ring.is_pending() && self.waker.may_sleep();
        let mut events = std::mem::take(&mut self.events);
        let entered = self.ring.enter(waits.then_some(timeout), &mut self.blocks, &mut events);
        if may_wait {
            self.waker.awake();
        }
        entered?;
        self.finish_sends(completions);
        events.drain(..).for_each(|event| self.handle(event, completions));
        self.events = events;
        Ok(())
    }

    /// Closes everything. What the ring still holds is never submitted: the descriptors in it may
    /// soon be those of other files. How much of the sends was carried out is unknown, so none
    /// counts as sent, and no stream can go on behind them.
    fn die(&mut self, cause: io::Error) -> TransportError {
        self.shut_down();
        self.connections.clear();
        self.listeners.clear();
        self.unsent.clear();
        self.early.clear();
        self.dead.insert(TransportError::new("io_uring", cause)).clone()
    }

    /// Ends all connections for the other side, even while operations hold their sockets open.
    fn shut_down(&self) {
        for listener in &self.listeners {
            let _ = listener.socket.shutdown(Shutdown::Both);
        }
        for id in self.connections.ids() {
            if let Some(connection) = self.connections.find(id) {
                let _ = connection.socket.shutdown(Shutdown::Both);
            }
        }
    }

    /// When the next paused listener accepts again.
    fn deadline(&self) -> Option<Instant> {
        self.listeners.iter().filter_map(|listener| listener.pause).min()
    }
}

impl Transport for UringTransport {
    fn listen(&mut self, address: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
        if let Some(dead) = &self.dead {
            return Err(io::Error::other(dead.clone()));
        }
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&SockAddr::from(address))?;
        socket.listen(BACKLOG)?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(address);
        let index = self.listeners.len();
        self.listeners.push(Listener { socket, is_accepting: false, pause: None });
        Ok((ListenerId(index as u32), bound))
    }

    fn connect(&mut self, address: SocketAddr) -> ConnectionId {
        if self.dead.is_some() {
            // No poll will report it.
            return ConnectionId { slot: u32::MAX, generation: 0 };
        }
        let added =
            start_to_connect(address).and_then(|socket| self.add(socket, Phase::Connecting));
        added.unwrap_or_else(|error| {
            // An id that is never valid: no connection ever has this slot.
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
        if !it.is_unsent && !it.is_full {
            it.is_unsent = true;
            self.unsent.push(connection);
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        if let Some(it) = self.connections.remove(connection) {
            it.write_once();
            let _ = it.socket.shutdown(Shutdown::Write);
            self.let_go(connection);
        }
    }

    fn tcp_state(&self, connection: ConnectionId) -> TcpState {
        let found = self.connections.find(connection);
        found.map(|it| tcp_state(it.socket.as_fd())).unwrap_or_default()
    }

    fn pause_reading(&mut self, connection: ConnectionId, paused: bool) {
        let Some(it) = self.connections.find_mut(connection) else {
            return;
        };
        if it.paused == paused {
            return;
        }
        it.paused = paused;
        if paused {
            self.to_stop.push(connection);
            return;
        }
        let held = it.held.drain(..);
        self.early.extend(held.map(|data| Completion::Received { connection, data }));
        match it.held_end.take() {
            Some(error) => {
                let mut early = std::mem::take(&mut self.early);
                self.end(connection, error, &mut early);
                self.early = early;
            }
            None => self.to_receive.push(connection),
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

impl Drop for UringTransport {
    fn drop(&mut self) {
        // If another thread drops the ring, its operations hold the sockets open a little longer.
        self.shut_down();
    }
}

fn token(id: ConnectionId) -> Token {
    // Slots are reused, and no process has 2^28 descriptors.
    assert!(id.slot < 1 << 28, "fewer than 2^28 connections at a time");
    Token(u64::from(id.slot) << 32 | u64::from(id.generation))
}

const fn id_of(token: Token) -> ConnectionId {
    ConnectionId { slot: (token.0 >> 32) as u32, generation: token.0 as u32 }
}

/// Bytes of the buffers offered for one connection from which on a poll reports what was sent before any
/// wait: half of the least that somebody waits for, [`Limits::link_window_bytes`] of a link.
///
/// [`Limits::link_window_bytes`]: crate::Limits::link_window_bytes
const MUCH_BYTES: usize = 512 << 10;

/// Connections that the system queues until they are accepted.
const BACKLOG: i32 = 1024;

#[cfg(test)]
mod tests;
