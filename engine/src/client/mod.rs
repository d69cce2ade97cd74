//! Clients of a group (TR listings 11 and 14; DEVIATIONS 16 to 19).
//!
//! [`Client`] is a handle that any number of threads and tasks may share: call and wait, or submit
//! and await or wait later. On its own thread it runs a [`ClientDriver`]. Programs with thousands of
//! sessions and a million requests a second poll a driver directly.
//!
//! ```
//! use hybster::services::{CounterService, counter};
//! # use hybster::testing::LocalCluster;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let cluster = LocalCluster::start(CounterService::new)?;
//! // let client = Client::connect(&group, &keys, ClientOptions::default())?;
//! # let client = cluster.client()?;
//! let result = client.call(&counter::encode_add(1))?;
//! // Both are under way at the same time.
//! let (one, two) = (client.submit(&result), client.submit(&counter::encode_get()));
//! let results = (one.wait()?, two.wait()?); // or one.await?, two.await?
//! assert_eq!(counter::decode_reply(&results.1), Some(1));
//! # Ok(())
//! # }
//! ```
//!
//! Tickets ([`Pending`], [`Connecting`]) are plain futures: they need no particular runtime, and the
//! client has no other thread than its own. A request is cancelled by dropping its ticket, and ends by
//! itself at its deadline ([`Request::timeout`]).
//!
//! A client survives what its group survives: replicas that stop, restart or lie, broken links and
//! changes of the leader. It reconnects by itself. Each request ends with a result that f+1
//! replicas vouch for or, after [`ClientOptions::request_timeout`], with an error that says why.

mod connecting;
mod driver;
mod error;
mod pending;
mod request;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hybster_net::{Limits, TransportKind};
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::SessionId;

use crate::group::{ClientKeys, Group};
use pending::Responder;
use worker::{Command, Refused, Shared};

pub use connecting::Connecting;
pub use driver::ClientDriver;
pub use error::{CallError, ClientError, MissingReplica, Unreachable};
pub use hybster_proto::client::{
    ClientStats, Completion, Completions, Outcome, RequestKind, SubmitError,
};
pub use pending::{CallResult, Pending};
pub use request::Request;

/// What a client can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientOptions {
    /// Sessions. Each has one request under way at a time, or up to the group's session window.
    /// Default 64.
    pub sessions: u32,
    /// A request ends with an error after this time, up to an eighth later. It counts again from
    /// when the request has got a session, after waiting for one as long at most. Default 10 s.
    pub request_timeout: Duration,
    /// [`Client::connect`] gives up after this time. Default 5 s.
    pub connect_timeout: Duration,
    /// So many requests of a [`Client`] may wait for a session before [`Client::try_submit`] and
    /// [`Client::submit_with`] refuse more. Others wait in any number, as each has somebody who waits for
    /// it. Default 1024.
    pub queue: usize,
    /// Limits of the links. Frames are made long enough for the group's operations and results.
    pub limits: Limits,
    /// What carries the bytes of the links. By default the client chooses; one that is named must
    /// be had.
    pub transport: TransportKind,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            sessions: 64,
            request_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            queue: 1024,
            limits: Limits { peer_queue_bytes: 64 << 20, ..Limits::default() },
            transport: TransportKind::Auto,
        }
    }
}

impl ClientOptions {
    fn validate(&self, config: &GroupConfig) -> Result<(), ClientError> {
        let fail = |option, cure: String| Err(ClientError::Options { option, cure });
        let most = config.max_sessions_per_client.min(1 << SessionId::INDEX_BITS);
        if self.sessions == 0 || self.sessions > most {
            return fail("sessions", format!("choose 1 to {most}, not {}", self.sessions));
        }
        if self.request_timeout < Duration::from_millis(1) {
            return fail("request_timeout", "choose at least a millisecond".into());
        }
        if self.queue == 0 {
            return fail("queue", "choose at least 1".into());
        }
        Ok(())
    }

    fn limits(&self, group: &Group) -> Limits {
        let needed = group.link_limits().client_frame_bytes;
        let client_frame_bytes = self.limits.client_frame_bytes.max(needed);
        Limits { client_frame_bytes, ..self.limits.clone() }
    }
}

/// A client of a group. Clones share one client; it ends with the last of them.
///
/// ```
/// use hybster::client::Client;
/// use hybster::services::{CounterService, counter};
/// use hybster::testing::LocalCluster;
///
/// /// Runs on any executor.
/// async fn add_both(client: &Client) -> Option<i64> {
///     // Both are under way before the first is awaited.
///     let (one, two) = (counter::encode_add(1), counter::encode_add(2));
///     let (one, two) = (client.submit(&one), client.submit(&two));
///     one.await.ok()?;
///     counter::decode_reply(&two.await.ok()?)
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cluster = LocalCluster::start(CounterService::new)?;
/// let client = cluster.client()?;
/// # let task = std::pin::pin!(add_both(&client));
/// # let waker = std::task::Waker::noop();
/// # let mut context = std::task::Context::from_waker(waker);
/// # let mut task = task;
/// # while task.as_mut().poll(&mut context).is_pending() {
/// #     std::thread::sleep(std::time::Duration::from_millis(1));
/// # }
/// let value = client.query(&counter::encode_get())?;
/// assert_eq!(counter::decode_reply(&value), Some(3));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    config: Arc<GroupConfig>,
    request_timeout: Duration,
    limit: usize,
    thread: Option<JoinHandle<()>>,
}

impl Client {
    /// Connects to the replicas of a group; waits until f+1 of them are connected.
    ///
    /// # Errors
    /// If they are not in time, or cannot be because a configuration or key is wrong: the error
    /// names each missing replica and what it said.
    pub fn connect(
        group: &Group,
        keys: &ClientKeys,
        options: ClientOptions,
    ) -> Result<Self, ClientError> {
        Self::connect_async(group, keys, options).wait()
    }

    /// As [`Self::connect`], to be awaited. It goes on by itself, on the thread that is to be the
    /// client's, and ends when what is returned is dropped.
    pub fn connect_async(group: &Group, keys: &ClientKeys, options: ClientOptions) -> Connecting {
        Connecting::begin(group, keys, options)
    }

    /// Has the group execute an operation; blocks until its result is certain.
    ///
    /// # Errors
    /// Why there is no result; see [`CallError`] for whether it may be executed nevertheless.
    pub fn call(&self, operation: &[u8]) -> CallResult {
        self.submit(operation).wait()
    }

    /// As [`Self::call`], for an operation that changes nothing: without ordering, if all replicas
    /// give the same answer at once.
    ///
    /// # Errors
    /// As for [`Self::call`].
    pub fn query(&self, operation: &[u8]) -> CallResult {
        self.submit_query(operation).wait()
    }

    /// Starts an operation, to be awaited. It never blocks and is never refused for want of room: it
    /// waits in the client for its turn, for as long as somebody holds the ticket.
    pub fn submit(&self, operation: &[u8]) -> Pending {
        self.start(operation, RequestKind::Ordered, None)
    }

    /// As [`Self::submit`], for an operation that changes nothing.
    pub fn submit_query(&self, operation: &[u8]) -> Pending {
        self.start(operation, RequestKind::ReadOnly, None)
    }

    /// A request with a deadline of its own.
    pub fn request<'a>(&'a self, operation: &'a [u8]) -> Request<'a> {
        Request::new(self, operation)
    }

    /// As [`Self::submit`], but refused with [`CallError::Busy`] if [`ClientOptions::queue`] requests
    /// wait already: for programs that would rather refuse what comes than let it wait.
    ///
    /// # Errors
    /// If it is not taken; then it is not executed.
    pub fn try_submit(&self, operation: &[u8], kind: RequestKind) -> Result<Pending, CallError> {
        let (mut pending, responder) = Pending::new();
        let number = self.push(operation, kind, responder, None, true)?;
        pending.waits_in(&self.inner.shared, number);
        Ok(pending)
    }

    /// How many requests wait in this client and were not sent yet.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.shared.waiting()
    }

    /// Starts an operation and has its outcome told to a function, which runs on the client's own
    /// thread: it must be quick and must not wait for the client. Never blocks.
    ///
    /// # Errors
    /// If it is not taken, as by [`Self::try_submit`]; then the function is told as well.
    pub fn submit_with(
        &self,
        operation: &[u8],
        kind: RequestKind,
        on_completion: impl FnOnce(CallResult) + Send + 'static,
    ) -> Result<(), CallError> {
        self.push(operation, kind, Responder::callback(on_completion), None, true).map(drop)
    }

    /// Ends the client: whatever is under way ends with [`CallError::Shutdown`].
    pub fn shutdown(&self) {
        self.inner.shared.close();
    }

    fn start(&self, operation: &[u8], kind: RequestKind, timeout: Option<Duration>) -> Pending {
        let (mut pending, responder) = Pending::new();
        // Whoever is not taken is told so by the ticket.
        if let Ok(number) = self.push(operation, kind, responder, timeout, false) {
            pending.waits_in(&self.inner.shared, number);
            if let Some(timeout) = timeout
                && let Some(deadline) = Instant::now().checked_add(timeout)
            {
                pending.ends_at(deadline);
            }
        }
        pending
    }

    fn push(
        &self,
        operation: &[u8],
        kind: RequestKind,
        responder: Responder,
        timeout: Option<Duration>,
        limited: bool,
    ) -> Result<u64, CallError> {
        let limit = self.inner.config.max_operation_bytes as usize;
        if operation.len() > limit {
            let error = CallError::TooLong { length: operation.len(), limit };
            responder.answer(Err(error.clone()));
            return Err(error);
        }
        let longest = self.inner.request_timeout;
        let expires = Instant::now() + timeout.map_or(longest, |timeout| timeout.min(longest));
        let command = Command { operation: operation.to_vec(), kind, expires, responder };
        let (command, error) = match self.inner.shared.push(command, limited) {
            Ok(number) => return Ok(number),
            Err(Refused::Closed(command, error)) => (command, error),
            Err(Refused::Full(command)) => (command, CallError::Busy { limit: self.inner.limit }),
        };
        command.responder.answer(Err(error.clone()));
        Err(error)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
        if let Some(thread) = self.thread.take() {
            // The last handle may be dropped by a completion function, on that very thread.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}
