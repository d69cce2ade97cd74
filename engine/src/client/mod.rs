//! Clients of a group (TR listings 11 and 14; DEVIATIONS 16 to 19).
//!
//! [`Client`] is a handle that any number of threads and tasks may share: call and wait, or submit
//! and wait later. On its own thread it runs a [`ClientDriver`]. Programs with thousands of
//! sessions and a million requests a second poll a driver directly.
//!
//! ```no_run
//! use hybster::client::{Client, ClientOptions};
//! use hybster::group::{ClientKeys, Group};
//! use hybster_proto::ids::ClientId;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let group = Group::load("my-group")?;
//! let keys = ClientKeys::load(&group, group.directory(), ClientId(0))?;
//! let client = Client::connect(&group, &keys, ClientOptions::default())?;
//! let result = client.call(b"an operation of the service")?;
//! let (one, two) = (client.submit(b"one")?, client.submit(b"two")?);
//! let results = (one.wait()?, two.wait()?);
//! # drop((result, results));
//! # Ok(())
//! # }
//! ```
//!
//! A client survives what its group survives: replicas that stop, restart or lie, broken links and
//! changes of the leader. It reconnects by itself. Each request ends with a result that f+1
//! replicas vouch for or, after [`ClientOptions::request_timeout`], with an error that says why.

mod driver;
mod error;
mod pending;
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
use worker::{Command, Refused, Shared, Worker};

pub use driver::ClientDriver;
pub use error::{CallError, ClientError, MissingReplica, Unreachable};
pub use hybster_proto::client::{
    ClientStats, Completion, Completions, Outcome, RequestKind, SubmitError,
};
pub use pending::{CallResult, Pending};

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
    /// Requests of a [`Client`] that may wait for a session. Default 1024.
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
        let mut driver = ClientDriver::connect(group, keys, &options)?;
        driver.await_links(options.connect_timeout)?;
        let shared = Shared::new(options.queue, driver.waker());
        let (request_timeout, limit) = (options.request_timeout, options.queue);
        let worker = Worker::new(shared.clone(), driver, group.clone(), keys.clone(), options);
        let thread = thread::Builder::new()
            .name(format!("client {}", keys.id.0))
            .spawn(move || worker.run())?;
        let config = group.config().clone();
        let thread = Some(thread);
        Ok(Self { inner: Arc::new(Inner { shared, config, request_timeout, limit, thread }) })
    }

    /// Has the group execute an operation; blocks until its result is certain.
    ///
    /// # Errors
    /// Why there is no result; see [`CallError`] for whether it may be executed nevertheless.
    pub fn call(&self, operation: &[u8]) -> CallResult {
        self.start(operation, RequestKind::Ordered)?.wait()
    }

    /// As [`Self::call`], for an operation that changes nothing: without ordering, if all replicas
    /// give the same answer at once.
    ///
    /// # Errors
    /// As for [`Self::call`].
    pub fn query(&self, operation: &[u8]) -> CallResult {
        self.start(operation, RequestKind::ReadOnly)?.wait()
    }

    /// Starts an operation. Blocks only while [`ClientOptions::queue`] requests wait already.
    ///
    /// # Errors
    /// If it is not taken; then it is not executed.
    pub fn submit(&self, operation: &[u8]) -> Result<Pending, CallError> {
        self.start(operation, RequestKind::Ordered)
    }

    /// As [`Self::submit`], for an operation that changes nothing.
    ///
    /// # Errors
    /// If it is not taken.
    pub fn submit_query(&self, operation: &[u8]) -> Result<Pending, CallError> {
        self.start(operation, RequestKind::ReadOnly)
    }

    /// As [`Self::submit`], but never blocks: [`CallError::Busy`] if too many requests wait.
    ///
    /// # Errors
    /// If it is not taken; then it is not executed.
    pub fn try_submit(&self, operation: &[u8], kind: RequestKind) -> Result<Pending, CallError> {
        let (pending, responder) = Pending::new();
        self.push(operation, kind, responder, false)?;
        Ok(pending)
    }

    /// Starts an operation and has its outcome told to a function, which runs on the client's own
    /// thread: it must be quick and must not wait for the client. Never blocks.
    ///
    /// # Errors
    /// If it is not taken; then the function is told as well.
    pub fn submit_with(
        &self,
        operation: &[u8],
        kind: RequestKind,
        on_completion: impl FnOnce(CallResult) + Send + 'static,
    ) -> Result<(), CallError> {
        self.push(operation, kind, Responder::callback(on_completion), false)
    }

    /// Ends the client: whatever is under way ends with [`CallError::Shutdown`].
    pub fn shutdown(&self) {
        self.inner.shared.close();
    }

    fn start(&self, operation: &[u8], kind: RequestKind) -> Result<Pending, CallError> {
        let (pending, responder) = Pending::new();
        self.push(operation, kind, responder, true)?;
        Ok(pending)
    }

    fn push(
        &self,
        operation: &[u8],
        kind: RequestKind,
        responder: Responder,
        block: bool,
    ) -> Result<(), CallError> {
        let limit = self.inner.config.max_operation_bytes as usize;
        if operation.len() > limit {
            let error = CallError::TooLong { length: operation.len(), limit };
            responder.answer(Err(error.clone()));
            return Err(error);
        }
        let expires = Instant::now() + self.inner.request_timeout;
        let command = Command { operation: operation.to_vec(), kind, expires, responder };
        let (command, error) = match self.inner.shared.push(command, block) {
            Ok(()) => return Ok(()),
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
