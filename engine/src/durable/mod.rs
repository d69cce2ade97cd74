//! What lets a replica start again: its log and its last checkpoint, in a directory of its own.
//!
//! The stages say what the log must keep ([`hybster_proto::output::Output::records`]), agents append it,
//! and the network holds back what rests on it ([`hybster_proto::egress::Gate`]). Here is what is
//! around that: opening a directory (`open`), the checkpoint that is found in it (`restored`), and checkpoints on their
//! way to the disk (`saver`).
//!
//! A directory has `log/` ([`hybster_log`]) and `state/` ([`hybster_store`]), both for one replica in
//! one epoch. It holds no secret, but the replica's promises: what is in the log decides where its
//! trusted counters are. So a replica that has lost it does not start, and an older copy of it must
//! never be put in its place.

mod begin;
mod open;
mod restored;
mod saver;

use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use hybster_log::{AppendError, Cursor, Log, LogError, WriterThread};
use hybster_proto::GroupConfig;
use hybster_proto::ids::{OrderNumber, ReplicaId};
use hybster_proto::output::{DurableCheckpoint, Output};
use hybster_proto::truncation::Truncation;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub(crate) use begin::{begin_epoch, begin_with};
pub use open::DataError;
pub(crate) use open::{Found, Opened, RECORD, log_bytes, open};
pub(crate) use restored::Restored;
pub(crate) use saver::{BOOKKEEPING, Outcome, SERVICE, Saver};

use crate::runtime::{Failure, Shared};

/// Milliseconds that `async` may be behind.
pub const ASYNC_WINDOW_MS: u64 = 20;
/// Bytes of records that `async` may be behind.
pub const ASYNC_WINDOW_BYTES: u64 = 8 << 20;

/// What of a replica outlives its process, and what a loss of power takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Everything that leaves the host waits until the log has, on disk, what it rests on. A replica
    /// starts again after any crash, and a group after a loss of power of all its hosts.
    #[default]
    Sync,
    /// It waits until the operating system has it, and the disk is at most [`ASYNC_WINDOW_MS`] and
    /// [`ASYNC_WINDOW_BYTES`] behind. A replica starts again after its process was killed; after its host
    /// lost power it does not.
    Async,
    /// Nothing is kept. A replica starts once.
    None,
}

/// A name that no mode of durability has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a mode of durability: write \"sync\", \"async\" or \"none\"")]
pub struct UnknownDurability(String);

impl Durability {
    const ALL: [Self; 3] = [Self::Sync, Self::Async, Self::None];

    /// The name in configuration files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync",
            Self::Async => "async",
            Self::None => "none",
        }
    }

    /// What the log is told.
    fn of_log(self) -> hybster_log::Durability {
        match self {
            Self::Sync => hybster_log::Durability::Sync,
            Self::Async => hybster_log::Durability::Async {
                window_ms: ASYNC_WINDOW_MS,
                window_bytes: ASYNC_WINDOW_BYTES,
            },
            Self::None => hybster_log::Durability::None,
        }
    }
}

impl fmt::Display for Durability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Durability {
    type Err = UnknownDurability;

    fn from_str(name: &str) -> Result<Self, UnknownDurability> {
        let found = Self::ALL.into_iter().find(|mode| mode.name() == name);
        found.ok_or_else(|| UnknownDurability(name.to_owned()))
    }
}

/// The disk of a replica that runs, as its agents see it.
#[derive(Debug)]
pub(crate) struct Durable {
    pub(crate) mode: Durability,
    pub(crate) log: Log,
    saver: Saver,
    /// Order number of the last checkpoint that is durable.
    saved: Arc<AtomicU64>,
    truncation: Mutex<Truncation>,
}

impl Durable {
    pub(crate) fn new(
        mode: Durability,
        log: Log,
        saver: Saver,
        saved: Arc<AtomicU64>,
        truncation: Truncation,
    ) -> Self {
        Self { mode, log, saver, saved, truncation: Mutex::new(truncation) }
    }

    /// Appends what stages have logged before their agents run: of all agents, before any of them
    /// appends anything itself.
    pub(crate) fn append(&self, output: &mut Output) -> Result<(), AppendError> {
        let appender = self.log.appender(0);
        output.records.drain(..).try_for_each(|it| appender.append(RECORD, &it.parts()).map(drop))
    }

    /// A pillar has its summary in the log.
    pub(crate) fn summarized(&self, order: OrderNumber) {
        self.truncation.lock().summarized(order, self.log.appended().0);
    }

    /// Removes the beginning of the log, if it is not needed any more; tells whether the stages are to
    /// have a round of summaries.
    pub(crate) fn truncate(&self, config: &GroupConfig, id: ReplicaId) -> bool {
        let mut truncation = self.truncation.lock();
        let checkpoint = OrderNumber(self.saved());
        if let Some(start) = truncation.truncates(checkpoint, self.log.synced().0) {
            self.log.truncate_below(Cursor(start));
        }
        let begins = truncation.begins(self.log.appended().0, self.log.space().is_short);
        if begins {
            open::say_owner(&self.log, config, id);
        }
        begins
    }

    /// Whether [`Self::truncate`] is to be called though nothing happens.
    pub(crate) fn is_truncating(&self) -> bool {
        self.truncation.lock().is_open()
    }

    /// Takes a checkpoint that is to be made durable.
    pub(crate) fn save(&self, checkpoint: DurableCheckpoint) {
        self.saver.save(checkpoint);
        self.saver.go_on(Instant::now());
    }

    /// Whether a checkpoint waits to be written. Then [`Self::go_on`] is to be called.
    pub(crate) fn is_saving(&self) -> bool {
        self.saver.has_next()
    }

    /// Begins with the next checkpoint, if it is time. Returns how long to wait with calling this again.
    pub(crate) fn go_on(&self) -> Option<Duration> {
        self.saver.go_on(Instant::now())
    }

    /// The order number of the last durable checkpoint.
    pub(crate) fn saved(&self) -> u64 {
        self.saved.load(Ordering::Acquire)
    }

    /// Whether clients have to wait for the disk.
    pub(crate) fn is_congested(&self) -> bool {
        self.log.is_congested()
    }

    /// Whether what the log has taken from the disk is kept for what peers send, so that clients are refused. As soon
    /// as the disk has no more a round of summaries begins; it ends once windows have moved, so only while something
    /// is ordered.
    pub(crate) fn lacks_room(&self) -> bool {
        self.log.lacks_room()
    }
}

/// What runs beside the agents: stopped behind them.
#[derive(Debug)]
pub(crate) struct Disks {
    pub(crate) writer: Option<WriterThread>,
    pub(crate) durable: Arc<Durable>,
}

impl Disks {
    /// Closes log and checkpoints, so that the next start knows that nothing is missing.
    pub(crate) fn close(&mut self) -> Result<(), Arc<LogError>> {
        self.durable.saver.stop();
        self.writer.take().map_or(Ok(()), WriterThread::close)
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            log::error!("{error}");
        }
    }
}

/// What the threads of log and checkpoints tell the replica, which is made after them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Teller(Arc<OnceLock<Arc<Shared>>>);

impl Teller {
    /// Who is told.
    pub(crate) fn is_for(&self, shared: &Arc<Shared>) {
        let _ = self.0.set(Arc::clone(shared));
    }

    /// The log has gone on, or has failed.
    pub(crate) fn log_moved(&self) {
        let Some(shared) = self.0.get() else { return };
        let failure = shared.durable.as_ref().and_then(|durable| durable.log.failure());
        match failure {
            Some(error) if !shared.is_stopping() => shared.fail(Failure::Disk(error.to_string())),
            _ => shared.wake_network(),
        }
    }

    /// A checkpoint became durable, or could not be written.
    pub(crate) fn saved(&self, outcome: Outcome) {
        let Some(shared) = self.0.get() else { return };
        match outcome {
            Ok(_) => {}
            Err(error) if error.is_final() => shared.fail(Failure::Disk(error.to_string())),
            Err(error) => log::warn!("replica {}: {error}", shared.replica.0),
        }
        shared.wake_network();
    }
}
