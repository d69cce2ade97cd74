//! The gateway: Redis connections on one side, one client of the group on the other.
//!
//! One thread looks after all sockets. In each turn it reads what has arrived, answers what it can itself, and
//! puts the other commands of all connections into as few operations as possible (`batch.rs`). A connection has
//! commands in one operation at a time, so they are executed in their order. What has been read and not answered
//! stays in the connection's own buffer; when that is full the connection is not read.

mod batch;
mod blocked;
mod connection;
mod local;
mod publish;
mod request;
mod transaction;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hybster::Group;
use hybster::client::{CallResult, Client};
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token, Waker};

use batch::Operations;
use blocked::Blocked;
use connection::Connection;
use publish::Channels;
use request::Bounds;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);
/// How long it waits if nothing happens, before it looks at what may have come by other gateways.
const TICK: Duration = Duration::from_millis(100);
/// How long nobody is let in after the system has refused a connection.
const PAUSE: Duration = Duration::from_millis(100);
/// Bytes that wait to be sent to one connection before no further command of it is executed.
const OUTPUT_BYTES: usize = 1 << 20;
/// What one connection may hold beyond its longest request, in bytes.
const INPUT_SLACK: usize = 64 << 10;

/// What a gateway can be told.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Connections at a time. One more is told so and closed. Default 10,000.
    pub max_connections: usize,
    /// Bytes that all connections together may hold. Beyond it, the connection that holds the most is
    /// closed. Default 256 MiB.
    pub max_bytes: usize,
    /// Operations of this gateway that are under way at a time. More do not make it faster: what comes
    /// meanwhile goes into the next one. Default 4.
    pub operations: usize,
    /// Operations that only read are asked of all replicas instead of being ordered. Default true.
    pub queries: bool,
    /// What AUTH must say before anything else, if anything.
    pub password: Option<String>,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_bytes: 256 << 20,
            operations: 4,
            queries: true,
            password: None,
        }
    }
}

/// The gateway cannot go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayError {
    /// The address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}; is another program, perhaps redis-server, there?"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The system refuses what the gateway needs to wait for sockets.
    #[error("cannot wait for connections: {0}")]
    Poll(io::Error),
}

/// Ends a gateway from another thread.
#[derive(Clone, Debug)]
pub struct GatewayStopper {
    waker: Arc<Waker>,
    is_stopped: Arc<AtomicBool>,
}

impl GatewayStopper {
    /// Ends the gateway's [`run`](Gateway::run) soon.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        let _ = self.waker.wake();
    }
}

/// Outcomes of operations, from the client's thread.
type Outcomes = Arc<Mutex<Vec<(u64, CallResult)>>>;

/// Speaks RESP to Redis clients and has a group carry out what they ask for.
///
/// The group's replicas must run the [`RedisService`](crate::RedisService).
pub struct Gateway {
    poll: Poll,
    listener: TcpListener,
    address: SocketAddr,
    stopper: GatewayStopper,
    shared: Shared,
    connections: Vec<Option<Box<Connection>>>,
    free: Vec<usize>,
    /// Connections that are looked at in this turn.
    listed: Vec<usize>,
    next_id: u64,
    paused_until: Option<Instant>,
}

/// What all connections share.
struct Shared {
    options: GatewayOptions,
    bounds: Bounds,
    client: Client,
    operations: Operations,
    blocked: Blocked,
    channels: Channels,
    started: Instant,
    /// Bytes that all connections hold.
    held: usize,
    open: usize,
    commands: u64,
    accepted: u64,
}

impl Gateway {
    /// Listens on an address.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn listen(
        group: &Group,
        client: Client,
        address: SocketAddr,
        options: GatewayOptions,
    ) -> Result<Self, GatewayError> {
        let failed = |source| GatewayError::Listen { address, source };
        let mut listener = TcpListener::bind(address).map_err(failed)?;
        let own = listener.local_addr().map_err(failed)?;
        let poll = Poll::new().map_err(GatewayError::Poll)?;
        let registry = poll.registry();
        registry
            .register(&mut listener, LISTENER, Interest::READABLE)
            .map_err(GatewayError::Poll)?;
        let waker = Arc::new(Waker::new(registry, WAKER).map_err(GatewayError::Poll)?);
        let config = group.config();
        let operations =
            Operations::new(config.max_operation_bytes, config.max_reply_bytes, Arc::clone(&waker));
        let shared = Shared {
            bounds: Bounds { request_bytes: operations.longest_request() },
            options,
            client,
            operations,
            blocked: Blocked::default(),
            channels: Channels::default(),
            started: Instant::now(),
            held: 0,
            open: 0,
            commands: 0,
            accepted: 0,
        };
        let stopper = GatewayStopper { waker, is_stopped: Arc::default() };
        let (connections, free, listed) = (Vec::new(), Vec::new(), Vec::new());
        let paused_until = None;
        let gateway = Self {
            poll,
            listener,
            address: own,
            stopper,
            shared,
            connections,
            free,
            listed,
            next_id: 1,
            paused_until,
        };
        Ok(gateway)
    }

    /// Where it listens.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.address
    }

    /// A handle that ends it.
    #[must_use]
    pub fn stopper(&self) -> GatewayStopper {
        self.stopper.clone()
    }

    /// Serves until it is stopped.
    ///
    /// # Errors
    /// If the system refuses to wait for sockets.
    pub fn run(&mut self) -> Result<(), GatewayError> {
        let mut events = Events::with_capacity(1024);
        let mut scratch = vec![0; 64 << 10];
        while !self.stopper.is_stopped.load(Ordering::Relaxed) {
            let wait = self.wait();
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(GatewayError::Poll(error));
                }
                _ => {}
            }
            let mut accepts = self.paused_until.is_some_and(|until| until <= Instant::now());
            for event in &events {
                match event.token() {
                    LISTENER => accepts = true,
                    WAKER => {}
                    Token(at) => {
                        if let Some(connection) =
                            self.connections.get_mut(at).and_then(Option::as_mut)
                        {
                            connection.is_readable |= event.is_readable() || event.is_read_closed();
                            connection.is_writable |= event.is_writable();
                            list(at, connection, &mut self.listed);
                        }
                    }
                }
            }
            if accepts {
                self.accept();
            }
            self.turn(&mut scratch);
        }
        Ok(())
    }

    fn wait(&self) -> Duration {
        if !self.listed.is_empty() {
            return Duration::ZERO;
        }
        let until = self.shared.blocked.next_deadline();
        until.map_or(TICK, |until| until.saturating_duration_since(Instant::now()).min(TICK))
    }

    fn accept(&mut self) {
        self.paused_until = None;
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    log::warn!("cannot accept a connection now: {error}");
                    self.paused_until = Some(Instant::now() + PAUSE);
                    return;
                }
            };
            if self.shared.open >= self.shared.options.max_connections {
                use std::io::Write as _;
                let _ = socket.write(b"-ERR max number of clients reached\r\n");
                continue;
            }
            let _ = socket.set_nodelay(true);
            let at = self.free.pop().unwrap_or(self.connections.len());
            let both = Interest::READABLE | Interest::WRITABLE;
            if let Err(error) = self.poll.registry().register(&mut socket, Token(at), both) {
                log::warn!("cannot wait for a connection: {error}");
                self.free.push(at);
                continue;
            }
            if at == self.connections.len() {
                self.connections.push(None);
            }
            let is_authenticated = self.shared.options.password.is_none();
            let connection = Connection::new(self.next_id, socket, is_authenticated);
            self.next_id += 1;
            self.shared.open += 1;
            self.shared.accepted += 1;
            let connection = self.connections[at].insert(Box::new(connection));
            list(at, connection, &mut self.listed);
        }
    }

    /// Reads, executes and sends what can be.
    fn turn(&mut self, scratch: &mut [u8]) {
        self.take_outcomes();
        self.retry_blocked();
        let limit = self.shared.bounds.request_bytes + INPUT_SLACK;
        let listed = std::mem::take(&mut self.listed);
        let mut later = Vec::new();
        for at in listed {
            let Some(mut connection) = self.connections.get_mut(at).and_then(Option::take) else {
                continue;
            };
            connection.is_listed = false;
            connection.receive(limit, scratch);
            self.shared.advance(at, &mut connection);
            let held = connection.held();
            self.shared.held = self.shared.held + held - connection.counted;
            connection.counted = held;
            let has_more = connection.is_readable && connection.pending_input() < limit;
            if connection.is_broken || has_more && !connection.is_closing {
                connection.is_listed = true;
                later.push(at);
            } else if !connection.output.is_empty() {
                // Sent below, when all have been looked at.
                connection.is_listed = true;
                later.push(at);
            }
            self.connections[at] = Some(connection);
        }
        self.shared.operations.submit_open(&self.shared.client);
        self.deliver();
        for at in later {
            self.send(at);
        }
        self.shed();
    }

    /// Sends what a connection has, and ends it if it has ended.
    fn send(&mut self, at: usize) {
        let Some(connection) = self.connections.get_mut(at).and_then(Option::as_mut) else {
            return;
        };
        connection.is_listed = false;
        let was_full = connection.pending_output() >= OUTPUT_BYTES;
        connection.flush();
        if connection.has_ended() {
            return self.close(at);
        }
        let has_room = was_full && connection.pending_output() < OUTPUT_BYTES;
        let limit = self.shared.bounds.request_bytes + INPUT_SLACK;
        let has_more = connection.is_readable && connection.pending_input() < limit;
        if has_room || has_more && !connection.is_closing {
            list(at, connection, &mut self.listed);
        }
    }

    fn close(&mut self, at: usize) {
        let Some(mut connection) = self.connections.get_mut(at).and_then(Option::take) else {
            return;
        };
        let _ = self.poll.registry().deregister(&mut connection.socket);
        self.shared.held -= connection.counted;
        self.shared.open -= 1;
        self.shared.blocked.forget(at);
        self.shared.channels.forget(at, &connection);
        self.free.push(at);
    }

    fn list(&mut self, at: usize) {
        if let Some(connection) = self.connections.get_mut(at).and_then(Option::as_mut) {
            list(at, connection, &mut self.listed);
        }
    }

    fn take_outcomes(&mut self) {
        let outcomes = self.shared.operations.take_outcomes();
        if !outcomes.is_empty() {
            // There is room for those who found none.
            self.shared.operations.take_refused().into_iter().for_each(|at| self.list(at));
        }
        for (operation, result) in outcomes {
            let shared = &mut self.shared;
            let Some(parts) = shared.operations.finished(operation) else { continue };
            let mut parts = batch::replies(parts, result);
            while let Some((part, reply)) = parts.next() {
                let found = self.connections.get_mut(part.at).and_then(Option::as_mut);
                let Some(connection) = found.filter(|it| it.id == part.id) else { continue };
                shared.take_reply(part.at, connection, reply);
                shared.blocked.wake(&part.wakes);
                list(part.at, connection, &mut self.listed);
            }
        }
    }

    /// Lets those try again who wait for an element that may be there, and ends waits that are over.
    fn retry_blocked(&mut self) {
        let now = Instant::now();
        for (at, id) in self.shared.blocked.due(now) {
            let found = self.connections.get_mut(at).and_then(Option::as_mut);
            let Some(connection) = found.filter(|it| it.id == id) else { continue };
            self.shared.blocked.end_wait(at, connection);
            list(at, connection, &mut self.listed);
        }
        for (at, id) in self.shared.blocked.awakened(now) {
            let found = self.connections.get_mut(at).and_then(Option::as_mut);
            let Some(connection) = found.filter(|it| it.id == id) else { continue };
            self.shared.attempt_again(at, connection);
        }
    }

    /// Hands messages to those who are subscribed.
    fn deliver(&mut self) {
        for (at, bytes) in self.shared.channels.take_messages() {
            let Some(connection) = self.connections.get_mut(at).and_then(Option::as_mut) else {
                continue;
            };
            publish::hand_over(connection, &bytes);
            // It is sent in the next turn, which comes at once.
            list(at, connection, &mut self.listed);
        }
    }

    /// Closes those that hold the most until all together hold no more than they may.
    fn shed(&mut self) {
        while self.shared.held > self.shared.options.max_bytes {
            let all = self.connections.iter().enumerate();
            let most = all.filter_map(|(at, it)| Some((it.as_ref()?.counted, at))).max();
            let Some((held, at)) = most else { return };
            log::warn!("a connection is closed: it held {held} bytes, the most of all");
            self.close(at);
        }
    }
}

fn list(at: usize, connection: &mut Connection, listed: &mut Vec<usize>) {
    if !connection.is_listed {
        connection.is_listed = true;
        listed.push(at);
    }
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gateway").field("address", &self.address).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing that runs under these locks can panic.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Connections by something.
type ByName = HashMap<Vec<u8>, std::collections::BTreeSet<usize>>;
