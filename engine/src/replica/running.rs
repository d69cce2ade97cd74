//! A running replica: watching and stopping it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use hybster_proto::ids::ReplicaId;

use super::ReplicaError;
use super::guarded::ServicePanic;
use crate::durable::Disks;
use crate::runtime::{Failure, Shared, Status, TraceFile};

/// How long [`RunningReplica::shutdown`] waits for the threads.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// A replica whose threads run. Dropping it stops them.
///
/// ```no_run
/// use hybster::services::CounterService;
/// use hybster::{Group, Replica, ReplicaId, ReplicaKeys};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let group = Group::load("my-group")?;
/// let keys = ReplicaKeys::load(&group, group.directory(), ReplicaId(0))?;
/// let replica = Replica::builder(group, keys).service(CounterService::new()).start()?;
/// // Whoever gets the signal to end has one of these.
/// let stopper = replica.stopper();
/// println!("executed {} order numbers", stopper.status().executed);
/// std::thread::spawn(move || stopper.stop());
/// replica.wait()?; // Says why it ended, if nobody stopped it.
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct RunningReplica {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    local_address: SocketAddr,
    /// Closed when the threads have ended.
    disks: Option<Disks>,
    panic: ServicePanic,
    /// Dropped last, when the threads have handed over all their events.
    _trace: Option<TraceFile>,
}

/// Stops a replica from anywhere, while another thread is in [`RunningReplica::wait`].
#[derive(Clone, Debug)]
pub struct Stopper {
    shared: Arc<Shared>,
}

impl Stopper {
    /// Tells the replica to stop, and returns at once.
    pub fn stop(&self) {
        self.shared.stop();
    }

    /// A snapshot of the replica's counters.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// Whether all threads still run.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.shared.is_stopping()
    }
}

impl RunningReplica {
    pub(super) fn new(
        shared: Arc<Shared>,
        threads: Vec<JoinHandle<()>>,
        local_address: SocketAddr,
        disks: Option<Disks>,
        panic: ServicePanic,
        trace: Option<TraceFile>,
    ) -> Self {
        Self { shared, threads, local_address, disks, panic, _trace: trace }
    }

    /// The replica's number.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.shared.replica
    }

    /// The address that it listens on.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// A snapshot of the replica's counters.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.status()
    }

    /// A handle that stops the replica.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        Stopper { shared: Arc::clone(&self.shared) }
    }

    /// Whether all threads still run.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.shared.is_stopping()
    }

    /// Waits until the replica has stopped.
    ///
    /// # Errors
    /// If it stopped by itself, because an invariant is broken or the machine failed.
    pub fn wait(mut self) -> Result<(), ReplicaError> {
        for thread in self.threads.drain(..) {
            // A panic is reported below, with the thread's name.
            let _ = thread.join();
        }
        self.outcome()
    }

    /// Stops the replica and waits for its threads, at most a few seconds.
    ///
    /// # Errors
    /// If it had stopped by itself before, or a thread does not end.
    pub fn shutdown(mut self) -> Result<(), ReplicaError> {
        self.shared.stop();
        self.join(SHUTDOWN_TIMEOUT)?;
        self.outcome()
    }

    fn join(&mut self, timeout: Duration) -> Result<(), ReplicaError> {
        let deadline = Instant::now() + timeout;
        while let Some(thread) = self.threads.pop() {
            while !thread.is_finished() {
                if Instant::now() >= deadline {
                    let thread = thread.thread().name().unwrap_or_default().to_owned();
                    return Err(ReplicaError::StillRunning { thread, seconds: timeout.as_secs() });
                }
                thread::sleep(Duration::from_millis(1));
            }
            let _ = thread.join();
        }
        Ok(())
    }

    fn outcome(&mut self) -> Result<(), ReplicaError> {
        let replica = self.shared.replica.0;
        let closed = self.disks.take().map_or(Ok(()), |mut disks| disks.close());
        if let Err(error) = closed {
            self.shared.fail(Failure::Disk(error.to_string()));
        }
        Err(match self.shared.take_failure() {
            None => return Ok(()),
            Some(Failure::Fatal(fatal)) => ReplicaError::Fatal { replica, fatal },
            Some(Failure::Transport(error)) => ReplicaError::Transport { replica, error },
            Some(Failure::EpochOver(next)) => ReplicaError::EpochOver { replica, next },
            Some(Failure::Disk(what)) => ReplicaError::Disk { replica, what },
            Some(Failure::Panicked(thread)) => match self.panic.get() {
                Some(&(service, call)) => ReplicaError::ServicePanicked { replica, service, call },
                None => ReplicaError::Panicked { replica, thread },
            },
        })
    }
}

impl Drop for RunningReplica {
    fn drop(&mut self) {
        self.shared.stop();
        if let Err(error) = self.join(SHUTDOWN_TIMEOUT) {
            log::error!("{error}");
        }
    }
}
