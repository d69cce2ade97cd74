//! The ticket for a client that connects.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hybster_proto::config::GroupConfig;

use super::pending::Cell;
use super::worker::{Shared, Worker};
use super::{Client, ClientDriver, ClientError, ClientOptions, Inner};
use crate::group::{ClientKeys, Group};

/// A client that connects: await it, or wait for it. Dropping it ends the attempt, a moment later.
///
/// ```no_run
/// use hybster::client::{Client, ClientOptions};
/// use hybster::{ClientId, ClientKeys, Group};
///
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// let group = Group::load("my-group")?;
/// let keys = ClientKeys::load(&group, group.directory(), ClientId(0))?;
/// let client = Client::connect_async(&group, &keys, ClientOptions::default()).await?;
/// # drop(client);
/// # Ok(())
/// # }
/// ```
#[must_use = "the client comes through it"]
pub struct Connecting {
    cell: Arc<Cell<Result<Arc<Shared>, ClientError>>>,
    config: Arc<GroupConfig>,
    request_timeout: Duration,
    limit: usize,
    thread: Option<JoinHandle<()>>,
}

impl Connecting {
    pub(super) fn begin(group: &Group, keys: &ClientKeys, options: ClientOptions) -> Self {
        let cell = Arc::new(Cell::default());
        let (config, request_timeout, limit) =
            (Arc::clone(group.config()), options.request_timeout, options.queue);
        let (told, group, keys) = (Arc::clone(&cell), group.clone(), keys.clone());
        let thread = thread::Builder::new().name(format!("client {}", keys.id.0)).spawn(
            move || match connect(&group, &keys, options, || told.is_wanted()) {
                Err(error) => drop(told.answer(Err(error))),
                // Nobody wants it any more if it comes back.
                Ok(worker) if told.answer(Ok(worker.shared())).is_none() => worker.run(),
                Ok(_) => {}
            },
        );
        let thread = thread.map_err(|error| cell.answer(Err(error.into()))).ok();
        Self { cell, config, request_timeout, limit, thread }
    }

    /// Blocks until the client is connected.
    ///
    /// # Errors
    /// As for [`Client::connect`].
    pub fn wait(mut self) -> Result<Client, ClientError> {
        let connected = self.cell.wait();
        self.client(connected)
    }

    #[cfg(test)]
    pub(super) fn take_thread(&mut self) -> Option<JoinHandle<()>> {
        self.thread.take()
    }

    fn client(
        &mut self,
        connected: Result<Arc<Shared>, ClientError>,
    ) -> Result<Client, ClientError> {
        let (request_timeout, limit) = (self.request_timeout, self.limit);
        let (config, thread) = (Arc::clone(&self.config), self.thread.take());
        let shared = connected?;
        Ok(Client { inner: Arc::new(Inner { shared, config, request_timeout, limit, thread }) })
    }
}

fn connect(
    group: &Group,
    keys: &ClientKeys,
    options: ClientOptions,
    is_wanted: impl Fn() -> bool,
) -> Result<Worker, ClientError> {
    let mut driver = ClientDriver::connect(group, keys, &options)?;
    driver.await_links_while(options.connect_timeout, is_wanted)?;
    let shared = Shared::new(options.queue, driver.waker());
    Ok(Worker::new(shared, driver, group.clone(), keys.clone(), options))
}

impl Future for Connecting {
    type Output = Result<Client, ClientError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.cell.poll(context).map(|connected| self.client(connected))
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        // After it was awaited there is nothing there.
        if let Some(Ok(shared)) = self.cell.abandon() {
            shared.close();
        }
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").finish_non_exhaustive()
    }
}
