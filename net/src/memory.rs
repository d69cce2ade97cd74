//! Byte streams inside one process, for tests: no ports, no kernel, and the same order every time
//! when all endpoints are polled from one thread.
//!
//! A stream has a capacity like a socket buffer: what does not fit stays with the sender until the
//! receiver has read. [`MemoryNetwork::with_chunk`] cuts the stream into small pieces, to test that
//! they are put together again.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::slots::Slots;
use crate::transport::{Completion, ConnectionId, ListenerId, Transport, TransportError, Waker};

/// A network of [`MemoryTransport`]s. Clones refer to the same network.
#[derive(Clone, Debug)]
pub struct MemoryNetwork {
    shared: Arc<Shared>,
    capacity: usize,
    chunk: usize,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    listeners: HashMap<SocketAddr, (usize, ListenerId)>,
    inboxes: Vec<Inbox>,
}

#[derive(Debug, Default)]
struct Inbox {
    notes: VecDeque<Note>,
    woken: bool,
}

/// One end of a stream: endpoint and connection there.
#[derive(Clone, Copy, Debug)]
struct End {
    endpoint: usize,
    connection: ConnectionId,
}

/// What one endpoint reports to another. Connections are those of the receiving endpoint.
#[derive(Debug)]
enum Note {
    Incoming { listener: ListenerId, from: End, address: SocketAddr },
    Connected { connection: ConnectionId, to: End },
    Data { connection: ConnectionId, data: BytesMut },
    Read { connection: ConnectionId, count: usize },
    Closed { connection: ConnectionId },
}

impl Default for MemoryNetwork {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryNetwork {
    /// A network whose streams hold 256 KiB in each direction.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() }),
            capacity: 256 << 10,
            chunk: usize::MAX,
        }
    }

    /// Streams of endpoints made from here on hold `bytes` in each direction.
    #[must_use]
    pub fn with_capacity(self, bytes: usize) -> Self {
        Self { capacity: bytes.max(1), ..self }
    }

    /// Endpoints made from here on send at most `bytes` in one piece.
    #[must_use]
    pub fn with_chunk(self, bytes: usize) -> Self {
        Self { chunk: bytes.max(1), ..self }
    }

    /// A new transport on this network.
    ///
    /// # Panics
    /// If another thread panicked while it used the network.
    #[must_use]
    pub fn endpoint(&self) -> MemoryTransport {
        let index = {
            let mut state = self.shared.lock();
            state.inboxes.push(Inbox::default());
            state.inboxes.len() - 1
        };
        let shared = Arc::clone(&self.shared);
        let waker = Waker::new(move || {
            shared.lock().inboxes[index].woken = true;
            shared.changed.notify_all();
        });
        MemoryTransport {
            network: self.clone(),
            index,
            address: Ipv4Addr::LOCALHOST.into(),
            waker,
            connections: Slots::new(),
            unsent: Vec::new(),
            early: Vec::new(),
            listeners: 0,
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panicked while it used the memory network")
    }

    fn tell(&self, endpoint: usize, note: Note) {
        self.lock().inboxes[endpoint].notes.push_back(note);
        self.changed.notify_all();
    }
}

/// One endpoint of a [`MemoryNetwork`].
#[derive(Debug)]
pub struct MemoryTransport {
    network: MemoryNetwork,
    index: usize,
    address: IpAddr,
    waker: Waker,
    connections: Slots<Stream>,
    unsent: Vec<ConnectionId>,
    early: Vec<Completion>,
    listeners: u32,
}

#[derive(Debug, Default)]
struct Stream {
    other: Option<End>,
    outgoing: VecDeque<Vec<u8>>,
    written: usize,
    /// Bytes sent that the other side has not read.
    unread: usize,
    paused: bool,
    /// Bytes that arrived while reading was paused.
    held: VecDeque<BytesMut>,
    closed: bool,
}

impl MemoryTransport {
    /// The address from which its connections come, as others see it. By default 127.0.0.1.
    #[must_use]
    pub fn with_address(mut self, address: IpAddr) -> Self {
        self.address = address;
        self
    }

    fn write(&mut self, id: ConnectionId, completions: &mut Vec<Completion>) {
        let Some(stream) = self.connections.find_mut(id) else {
            return;
        };
        let Some(other) = stream.other else { return };
        while let Some(buffer) = stream.outgoing.front() {
            let rest = &buffer[stream.written..];
            let room = self.network.capacity.saturating_sub(stream.unread);
            let count = rest.len().min(room).min(self.network.chunk);
            if count == 0 && !rest.is_empty() {
                return;
            }
            if count > 0 {
                let data = BytesMut::from(&rest[..count]);
                let note = Note::Data { connection: other.connection, data };
                self.network.shared.tell(other.endpoint, note);
                stream.unread += count;
                stream.written += count;
            }
            if stream.written == buffer.len() {
                let buffer = stream.outgoing.pop_front().expect("there is a first one");
                stream.written = 0;
                completions.push(Completion::Sent { connection: id, buffer });
            }
        }
    }

    fn take_notes(&mut self, timeout: Option<Duration>) -> VecDeque<Note> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let shared = Arc::clone(&self.network.shared);
        let mut state = shared.lock();
        loop {
            let inbox = &mut state.inboxes[self.index];
            if !inbox.notes.is_empty() || inbox.woken {
                inbox.woken = false;
                return std::mem::take(&mut inbox.notes);
            }
            state = match deadline {
                None => shared.changed.wait(state).expect("no thread panicked"),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return VecDeque::new();
                    }
                    shared.changed.wait_timeout(state, left).expect("no thread panicked").0
                }
            };
        }
    }

    fn handle(&mut self, note: Note, completions: &mut Vec<Completion>) {
        match note {
            Note::Incoming { listener, from, address } => {
                let stream = Stream { other: Some(from), ..Stream::default() };
                let connection = self.connections.insert(stream);
                let to = End { endpoint: self.index, connection };
                let answer = Note::Connected { connection: from.connection, to };
                self.network.shared.tell(from.endpoint, answer);
                completions.push(Completion::Accepted { listener, connection, address });
            }
            Note::Connected { connection, to } => match self.connections.find_mut(connection) {
                Some(stream) => {
                    stream.other = Some(to);
                    completions.push(Completion::Connected { connection });
                }
                // Closed before it was connected.
                None => {
                    let note = Note::Closed { connection: to.connection };
                    self.network.shared.tell(to.endpoint, note);
                }
            },
            Note::Data { connection, data } => {
                let Some(stream) = self.connections.find_mut(connection) else {
                    return;
                };
                if stream.paused {
                    stream.held.push_back(data);
                } else {
                    self.deliver(connection, data, completions);
                }
            }
            Note::Read { connection, count } => {
                if let Some(stream) = self.connections.find_mut(connection) {
                    stream.unread -= count;
                    self.write(connection, completions);
                }
            }
            Note::Closed { connection } => {
                let Some(stream) = self.connections.find_mut(connection) else {
                    return;
                };
                stream.closed = true;
                if stream.held.is_empty() {
                    self.connections.remove(connection);
                    completions.push(Completion::Closed { connection, error: None });
                }
            }
        }
    }

    fn deliver(&mut self, id: ConnectionId, data: BytesMut, completions: &mut Vec<Completion>) {
        if let Some(other) = self.connections.find(id).and_then(|stream| stream.other) {
            let note = Note::Read { connection: other.connection, count: data.len() };
            self.network.shared.tell(other.endpoint, note);
        }
        completions.push(Completion::Received { connection: id, data });
    }

    fn resume(&mut self, id: ConnectionId) {
        let Some(stream) = self.connections.find_mut(id) else {
            return;
        };
        let mut early = std::mem::take(&mut self.early);
        let closed = stream.closed;
        for data in std::mem::take(&mut stream.held) {
            self.deliver(id, data, &mut early);
        }
        if closed {
            self.connections.remove(id);
            early.push(Completion::Closed { connection: id, error: None });
        }
        self.early = early;
    }
}

impl Transport for MemoryTransport {
    fn listen(&mut self, address: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
        let mut state = self.network.shared.lock();
        let mut address = address;
        while address.port() == 0 || state.listeners.contains_key(&address) {
            if address.port() != 0 {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            let port = 1024 + u16::try_from(state.listeners.len()).unwrap_or(u16::MAX - 1024);
            address.set_port(port);
        }
        let listener = ListenerId(self.listeners);
        self.listeners += 1;
        state.listeners.insert(address, (self.index, listener));
        Ok((listener, address))
    }

    fn connect(&mut self, address: SocketAddr) -> ConnectionId {
        let connection = self.connections.insert(Stream::default());
        let target = self.network.shared.lock().listeners.get(&address).copied();
        match target {
            Some((endpoint, listener)) => {
                let from = End { endpoint: self.index, connection };
                let own = SocketAddr::from((self.address, self.index as u16));
                let note = Note::Incoming { listener, from, address: own };
                self.network.shared.tell(endpoint, note);
            }
            None => {
                self.connections.remove(connection);
                let error = io::ErrorKind::ConnectionRefused.into();
                self.early.push(Completion::ConnectFailed { connection, error });
            }
        }
        connection
    }

    fn send(&mut self, connection: ConnectionId, buffer: Vec<u8>) {
        let Some(stream) = self.connections.find_mut(connection) else {
            return;
        };
        if stream.other.is_some() && !stream.closed {
            stream.outgoing.push_back(buffer);
            self.unsent.push(connection);
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        self.write(connection, &mut Vec::new());
        let Some(stream) = self.connections.remove(connection) else {
            return;
        };
        if let Some(other) = stream.other {
            let note = Note::Closed { connection: other.connection };
            self.network.shared.tell(other.endpoint, note);
        }
    }

    fn pause_reading(&mut self, connection: ConnectionId, paused: bool) {
        let Some(stream) = self.connections.find_mut(connection) else {
            return;
        };
        stream.paused = paused;
        if !paused {
            self.resume(connection);
        }
    }

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), TransportError> {
        let before = completions.len();
        let may_wait = timeout != Some(Duration::ZERO);
        completions.append(&mut self.early);
        while let Some(id) = self.unsent.pop() {
            self.write(id, completions);
        }
        let busy = !may_wait || completions.len() > before || !self.waker.may_sleep();
        let notes = self.take_notes(if busy { Some(Duration::ZERO) } else { timeout });
        if may_wait {
            self.waker.awake();
        }
        for note in notes {
            self.handle(note, completions);
        }
        Ok(())
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        for id in self.connections.ids().collect::<Vec<_>>() {
            self.close(id);
        }
        // Not `lock`: a panic here, while another one unwinds, would abort the test run.
        if let Ok(mut state) = self.network.shared.state.lock() {
            state.listeners.retain(|_, &mut (endpoint, _)| endpoint != self.index);
        }
    }
}
