//! A request with a deadline of its own.

use std::time::Duration;

use super::{CallResult, Client, Pending, RequestKind};

/// A request that is not started yet: [`Client::request`].
///
/// ```
/// use std::time::Duration;
/// use hybster::client::CallError;
/// use hybster::services::{CounterService, counter};
/// use hybster::{ReplicaId, testing::LocalCluster};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut cluster = LocalCluster::start(CounterService::new)?;
/// let client = cluster.client()?;
/// cluster.pause(ReplicaId(0))?;
/// cluster.pause(ReplicaId(1))?; // More than the group tolerates.
/// let request = client.request(&[2]).timeout(Duration::from_millis(50)).submit();
/// assert!(matches!(request.wait(), Err(CallError::Timeout)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "it is started by `submit` or `call`"]
pub struct Request<'a> {
    client: &'a Client,
    operation: &'a [u8],
    kind: RequestKind,
    timeout: Option<Duration>,
}

impl<'a> Request<'a> {
    pub(super) fn new(client: &'a Client, operation: &'a [u8]) -> Self {
        Self { client, operation, kind: RequestKind::Ordered, timeout: None }
    }

    /// The operation changes nothing, so that it need not be ordered if all replicas answer equally.
    pub fn read_only(mut self) -> Self {
        self.kind = RequestKind::ReadOnly;
        self
    }

    /// The request ends with an error after this time, if it has no result by then. It may be executed
    /// nevertheless. A time beyond the client's own
    /// ([`ClientOptions::request_timeout`](super::ClientOptions::request_timeout)) changes nothing.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Starts it, to be awaited.
    pub fn submit(self) -> Pending {
        self.client.start(self.operation, self.kind, self.timeout)
    }

    /// Starts it, and blocks until it has ended.
    ///
    /// # Errors
    /// As for [`Client::call`].
    pub fn call(self) -> CallResult {
        self.submit().wait()
    }
}
