//! The seam between links and the operating system: byte streams in completion style.
//!
//! Buffers are owned: [`Transport::send`] takes one and [`Completion::Sent`] gives it back. So a
//! back end that lets the kernel read the buffer later (`io_uring`) fits as well as one that
//! copies. Nothing is submitted before [`Transport::poll`], so that everything sent since the last
//! poll goes out with one system call per connection, or with one in all.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use bytes::BytesMut;

use crate::tcp_state::TcpState;

/// A connection of one transport. Ids of closed connections are never valid again.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    pub(crate) slot: u32,
    pub(crate) generation: u32,
}

impl ConnectionId {
    /// A small index for tables of connections, reused once the connection is closed.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.slot as usize
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}.{}", self.slot, self.generation)
    }
}

/// A listening socket of one transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub(crate) u32);

/// What a transport reports.
#[derive(Debug)]
pub enum Completion {
    /// A listener accepted a connection.
    Accepted {
        /// The listener.
        listener: ListenerId,
        /// The new connection.
        connection: ConnectionId,
        /// The address of the other end.
        address: SocketAddr,
    },
    /// The system gave no more connections, most likely because no descriptors are left. The
    /// listener tries again after a moment.
    AcceptFailed {
        /// The listener.
        listener: ListenerId,
        /// The operating system's reason.
        error: io::Error,
    },
    /// An outgoing connection is open.
    Connected {
        /// The connection, as returned by [`Transport::connect`].
        connection: ConnectionId,
    },
    /// An outgoing connection could not be made; its id is no longer valid.
    ConnectFailed {
        /// The connection, as returned by [`Transport::connect`].
        connection: ConnectionId,
        /// The operating system's reason.
        error: io::Error,
    },
    /// Bytes arrived. Never empty.
    Received {
        /// The connection.
        connection: ConnectionId,
        /// The bytes; uniquely owned, so they may be decrypted in place.
        data: BytesMut,
    },
    /// The operating system has taken a buffer's bytes; the buffer comes back for reuse.
    Sent {
        /// The connection.
        connection: ConnectionId,
        /// The buffer, unchanged.
        buffer: Vec<u8>,
    },
    /// The other side or the operating system closed the connection; its id is no longer valid.
    Closed {
        /// The connection.
        connection: ConnectionId,
        /// `None` if the other side closed it normally.
        error: Option<io::Error>,
    },
}

impl Completion {
    /// Whether another process caused it: anything but a buffer that comes back and an error of this
    /// side.
    pub(crate) const fn is_incoming(&self) -> bool {
        !matches!(self, Self::Sent { .. } | Self::AcceptFailed { .. })
    }
}

/// The back end of a transport failed as a whole, not one of its connections. The transport is dead
/// then: its connections are closed, it carries nothing any more, and each later poll says this again.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "the transport is dead, because {back_end} failed: {cause}; nothing is sent or received any more, \
     so what uses it must stop"
)]
pub struct TransportError {
    back_end: &'static str,
    cause: Arc<io::Error>,
}

impl TransportError {
    /// `cause` is what the operating system said to a call of `back_end`.
    #[must_use]
    pub fn new(back_end: &'static str, cause: io::Error) -> Self {
        Self { back_end, cause: Arc::new(cause) }
    }

    /// What the operating system said.
    #[must_use]
    pub fn cause(&self) -> &io::Error {
        &self.cause
    }
}

/// Byte streams to other processes. All calls but [`Transport::poll`] return at once.
pub trait Transport {
    /// Listens. Returns the address that was bound, since port 0 asks for any.
    fn listen(&mut self, address: SocketAddr) -> io::Result<(ListenerId, SocketAddr)>;

    /// Starts to connect. [`Completion::Connected`] or [`Completion::ConnectFailed`] follows.
    fn connect(&mut self, address: SocketAddr) -> ConnectionId;

    /// Queues a buffer. Queued buffers of a connection go out in order, at the next poll.
    /// A connection that is closed or not yet connected drops it.
    fn send(&mut self, connection: ConnectionId, buffer: Vec<u8>);

    /// Closes a connection, after one attempt to write what is queued. No completion follows.
    fn close(&mut self, connection: ConnectionId);

    /// Stops or resumes reading from a connection, so that its sender feels back-pressure.
    fn pause_reading(&mut self, connection: ConnectionId, paused: bool);

    /// What the operating system knows about a connection; nothing if it does not tell.
    fn tcp_state(&self, connection: ConnectionId) -> TcpState {
        let _ = connection;
        TcpState::default()
    }

    /// Submits what is queued, waits at most `timeout` (`None`: until something happens) and
    /// appends what happened. Returns early when woken, and sometimes without a reason. A poll with
    /// a `timeout` of zero leaves wake-ups to the next one.
    ///
    /// What it sends is reported before it waits, but for less than 512 KiB of a connection, which may be
    /// reported when the wait ends: somebody may wait for no more than that to be taken.
    ///
    /// Unless `timeout` is zero, `completions` should be empty: nobody would deal with what is in there
    /// until something else happens, which may be never.
    ///
    /// # Errors
    /// Only for failures of the back end itself, never for those of a connection. After the first
    /// one the transport is dead, and every poll returns it: what was under way then is unknown, so
    /// nothing is reported as sent, and nothing goes out later.
    fn poll(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), TransportError>;

    /// A handle with which another thread ends a poll.
    fn waker(&self) -> Waker;
}

/// Ends a [`Transport::poll`] from another thread. While the polling thread is awake, waking it
/// costs one atomic swap and no system call; the next poll then returns without waiting.
#[derive(Clone)]
pub struct Waker {
    state: Arc<WakeState>,
}

impl Waker {
    pub(crate) fn new(notify: impl Fn() + Send + Sync + 'static) -> Self {
        let state = WakeState { phase: AtomicU8::new(AWAKE), notify: Box::new(notify) };
        Self { state: Arc::new(state) }
    }

    /// Wakes the polling thread, or keeps its next poll from waiting.
    pub fn wake(&self) {
        // The swap is a full barrier: what was queued before it is visible after the poll.
        if self.state.phase.swap(NOTIFIED, Ordering::SeqCst) == ASLEEP {
            (self.state.notify)();
        }
    }

    /// Announces that the thread is about to wait. Returns `false` if it was woken and must not.
    pub(crate) fn may_sleep(&self) -> bool {
        self.state.phase.compare_exchange(AWAKE, ASLEEP, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Whether a wake-up is pending for the next poll that may wait.
    pub(crate) fn is_notified(&self) -> bool {
        self.state.phase.load(Ordering::SeqCst) == NOTIFIED
    }

    /// Announces that the thread is awake again, which consumes the wake-ups up to here.
    pub(crate) fn awake(&self) {
        self.state.phase.swap(AWAKE, Ordering::SeqCst);
    }
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Waker")
    }
}

const AWAKE: u8 = 0;
const ASLEEP: u8 = 1;
const NOTIFIED: u8 = 2;

struct WakeState {
    phase: AtomicU8,
    notify: Box<dyn Fn() + Send + Sync>,
}
