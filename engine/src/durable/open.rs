//! Opening a replica's directory: what is in it, and whether the replica may come back with it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use hybster_log::{Directory, Log, LogError, Options, Recovery, Report, WhenFull, Writer};
use hybster_net::Limits;
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{OrderNumber, ReplicaId};
use hybster_proto::truncation::Truncation;
use hybster_proto::wire::CheckpointId;
use hybster_store::{Store, StoreError};

use super::Durability;
use super::restored::Restored;

/// The kind of the log's first record, which says whose it is.
const OWNER: u16 = 1;
/// The kind of records that stages put out.
pub(crate) const RECORD: u16 = 2;
/// The version of the records' form. 2: certificates name lives, and checkpoints say how an epoch ends.
const FORMAT: u32 = 2;
/// What a record of a batch has besides the PREPARE.
const HEAD_ROOM: u64 = 128;
/// What a record has besides a message that a peer could send.
const RECORD_ROOM: u64 = 1 << 20;

/// Records of an order number: a PREPARE, a COMMIT, that it is committed, and its share of what is logged for
/// windows and views. Each may be alone in a batch.
const RECORDS_OF_AN_ORDER: u64 = 4;
/// What a batch of the log takes on disk at least.
const BLOCK_BYTES: u64 = 4096;

/// Why a replica cannot start with its directory.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The directory cannot be made or opened.
    #[error("{}: the directory for the replica's data cannot be used: {error}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The checkpoints.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The records contradict each other.
    #[error("{}: {story}", path.display())]
    Records {
        /// The replica's directory.
        path: PathBuf,
        /// What is wrong with them, and what to do.
        story: String,
    },
    /// The directory is another replica's, or of another group or epoch, or of a program with another format.
    #[error(
        "{}: this is not the data of replica {id} in this group and epoch, or a program with another format \
         of data wrote it; every replica needs a directory of its own (--data)",
        path.display()
    )]
    Another {
        /// The directory.
        path: PathBuf,
        /// The replica that was to start.
        id: u16,
    },
    /// The replica has run before, and its directory is empty.
    #[error(
        "{}: there is no log, but replica {id} has run before. Where its trusted counters are is only known \
         from its log, so without it the replica must not come back: put the directory back if you have moved \
         it (--data), but never an older copy of it. If it is lost, go on without this replica (a group does \
         with up to f replicas less), or make a new group directory with `hybster init`",
        path.display()
    )]
    Lost {
        /// The directory.
        path: PathBuf,
        /// The replica.
        id: u16,
    },
    /// The host lost power, and the log need not have been synced.
    #[error(
        "{}: the host of replica {id} was started again since, and durability is not \"sync\": the last of \
         what the replica has sent may be missing in its log, so it must not come back. Go on without it (a \
         group does with up to f replicas less), or make a new group directory with `hybster init`",
        path.display()
    )]
    Behind {
        /// The directory.
        path: PathBuf,
        /// The replica.
        id: u16,
    },
    /// The checkpoint and the log do not belong together.
    #[error(
        "{}: the log and the checkpoint of order {order} beside it do not belong together; put back what \
         was moved, and never an older copy",
        path.display()
    )]
    Apart {
        /// The directory.
        path: PathBuf,
        /// The checkpoint's order number.
        order: u64,
    },
    /// The group began with a state from a backup, and the replica does not have it.
    #[error(
        "{}: the group of replica {id} began with the state behind order {order} of a backup (initial_state in \
         group.toml), and that is not here: bring the replica-{id}.epoch-N.data that `hybster restore` made beside \
         the key file, and remove this directory",
        path.display()
    )]
    NotRestored {
        /// The directory.
        path: PathBuf,
        /// The replica.
        id: u16,
        /// The order number that the group began behind.
        order: u64,
    },
    /// The service cannot read the checkpoint.
    #[error("{0}; start the version of the service that wrote it")]
    Restore(#[from] hybster_proto::service::RestoreError),
    /// The log takes nothing.
    #[error("the log of the replica takes nothing: {0}")]
    Append(hybster_log::AppendError),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}; allow getrandom and try again")]
    Random(String),
}

/// A directory that is open.
pub(crate) struct Opened {
    pub(crate) log: Log,
    pub(crate) writer: Writer<Directory>,
    pub(crate) store: Store<Directory>,
    /// What the replica was, unless it has never run.
    pub(crate) found: Option<Found>,
    /// The last durable checkpoint.
    pub(crate) durable: OrderNumber,
    pub(crate) truncation: Truncation,
}

/// What a replica has on its disk.
pub(crate) struct Found {
    pub(crate) path: PathBuf,
    /// The last durable checkpoint.
    pub(crate) checkpoint: Option<Restored>,
    /// What the stages have logged.
    pub(crate) records: Vec<Bytes>,
    /// Whether that is all they ever have.
    pub(crate) is_whole: bool,
    /// When the reading began.
    pub(crate) since: Instant,
}

/// Opens the directory, which is made if it is missing. `has_run` is what the keys say of the replica,
/// `initial` the checkpoint that its group began with, if it did.
///
/// Nothing is changed unless the replica may start.
pub(crate) fn open(
    path: &Path,
    mode: Durability,
    config: &Arc<GroupConfig>,
    id: ReplicaId,
    has_run: bool,
    initial: Option<CheckpointId>,
) -> Result<Opened, DataError> {
    let since = Instant::now();
    let (logs, states) = (directory(&path.join("log"))?, directory(&path.join("state"))?);
    let mut recovery = Recovery::open(logs, options(mode, config), random()?)?;
    let (records, is_own) = read(&mut recovery, path, config, id)?;
    let report = recovery.report().cloned();
    let first = report.as_ref().map_or(0, |report| report.first.0);
    let is_new = report.as_ref().is_none_or(|report| report.is_new);
    refuse(path, id, has_run, report.as_ref())?;
    let (mut store, manifest) = Store::open(states, hybster_store::Options::default(), random()?)?;
    let checkpoint = match &manifest {
        Some(_) => Some(Restored::read(&mut store, directory(&path.join("state"))?)?),
        None => None,
    };
    let durable = checkpoint.as_ref().map_or(OrderNumber(0), |it| it.id.order);
    if is_new && checkpoint.is_some() {
        return Err(DataError::Apart { path: path.to_owned(), order: durable.0 });
    }
    if let Some(initial) = initial {
        let id_here = checkpoint.as_ref().map(|it| it.id);
        let is_it = id_here.is_some_and(|it| it.order > initial.order || it == initial);
        if !is_it {
            let (path, order) = (path.to_owned(), initial.order.0);
            return Err(DataError::NotRestored { path, id: id.0, order });
        }
    }
    let has_found = !records.is_empty() || checkpoint.is_some();
    tell_reserve(path, mode, config);
    let (path, is_whole) = (path.to_owned(), first == 0);
    let found = has_found.then_some(Found { path, checkpoint, records, is_whole, since });
    let (log, writer, _) = recovery.finish()?;
    if !is_own {
        // It is new, or a crash came between its making and this.
        say_owner(&log, config, id);
    }
    let truncation = Truncation::new(config.pillars, round_bytes(mode, config), first);
    Ok(Opened { log, writer, store, found, durable, truncation })
}

/// Opens a directory. What is missing on the way is made, each name durable before the next.
fn directory(path: &Path) -> Result<Directory, DataError> {
    let told = |error| DataError::Directory { path: path.to_owned(), error };
    let mut missing: Vec<&Path> = path.ancestors().skip(1).collect();
    missing.retain(|path| !path.as_os_str().is_empty() && !path.exists());
    for parent in missing.into_iter().rev() {
        Directory::open(parent).map_err(told)?;
    }
    Directory::open(path).map_err(told)
}

/// The sizes of the log.
pub(super) fn options(mode: Durability, config: &GroupConfig) -> Options {
    // Links carry nothing longer than a frame.
    let frame = u64::from(Limits::default().peer_frame_bytes);
    let record = (config.rules().longest_record)(config).min(frame);
    let longest = record.max(hybster_proto::bounds::prepare_bytes(config)) + RECORD_ROOM;
    let buffer = (4 * longest).next_power_of_two().max(16 << 20);
    // What may be logged after clients are held is half of the reserve. Batches that are longer than a block come
    // on top, once there are any: `Log::expect`.
    let held = config.window.saturating_mul(RECORDS_OF_AN_ORDER * BLOCK_BYTES);
    Options {
        durability: mode.of_log(),
        buffer_bytes: buffer,
        segment_bytes: buffer.max(64 << 20),
        reserve_bytes: held.saturating_mul(2).max(buffer).max(64 << 20),
        longest_record: longest,
        when_full: WhenFull::Wait,
    }
}

/// Tells if the disk has less than the log may come to keep in reserve. It may start all the same: most groups never have
/// such batches.
fn tell_reserve(path: &Path, mode: Durability, config: &GroupConfig) {
    let longest = hybster_proto::bounds::prepare_bytes(config) + HEAD_ROOM;
    let most = options(mode, config).most_reserve(config.window, longest);
    // Where the system does not say how much there is, nothing can be told.
    let Ok(free) = Directory::free_bytes(path) else { return };
    if free < most {
        log::warn!(
            "{}: {free} bytes are free. If clients fill a window of {} batches with {} bytes each, which this group \
             allows, the log needs up to {most} bytes in reserve: without them a change of leaders may stop this \
             replica when the disk is full",
            path.display(),
            config.window,
            config.batch_max_bytes.max(config.max_operation_bytes),
        );
    }
}

/// What the log takes in memory, in bytes: its buffer, and 256 KiB of blocks that are being made.
pub(crate) fn log_bytes(mode: Durability, config: &GroupConfig) -> u64 {
    options(mode, config).buffer_bytes + (256 << 10)
}

/// So much is logged between two rounds of summaries: a segment, as no less can be removed.
fn round_bytes(mode: Durability, config: &GroupConfig) -> u64 {
    options(mode, config).segment_bytes
}

/// Begins a log, or what is to be its beginning, with whose it is.
pub(super) fn say_owner(log: &Log, config: &GroupConfig, id: ReplicaId) {
    let appended = log.appender(0).append(OWNER, &[&owner(config, id)]);
    debug_assert!(appended.is_ok() || log.failure().is_some(), "it is a short record");
}

fn random() -> Result<[u8; 16], DataError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| DataError::Random(error.to_string()))?;
    Ok(bytes)
}

/// Whose log it is. The digest covers the group's constants and the epoch.
fn owner(config: &GroupConfig, id: ReplicaId) -> Vec<u8> {
    let mut bytes = FORMAT.to_le_bytes().to_vec();
    bytes.extend(id.0.to_le_bytes());
    bytes.extend(config.digest().0);
    bytes
}

/// All records that stages have put out, once it is known whose they are, and whether the log says so: one
/// without records need not.
fn read(
    recovery: &mut Recovery<Directory>,
    path: &Path,
    config: &GroupConfig,
    id: ReplicaId,
) -> Result<(Vec<Bytes>, bool), DataError> {
    let owner = owner(config, id);
    let mut records = Vec::new();
    let mut is_own = false;
    while let Some(record) = recovery.next()? {
        match record.kind {
            RECORD => records.push(Bytes::copy_from_slice(record.content)),
            OWNER if record.content == owner => is_own = true,
            _ => return Err(DataError::Another { path: path.to_owned(), id: id.0 }),
        }
    }
    match is_own || records.is_empty() {
        true => Ok((records, is_own)),
        false => Err(DataError::Another { path: path.to_owned(), id: id.0 }),
    }
}

/// Whether what the log says is all that the replica has ever sent.
fn refuse(
    path: &Path,
    id: ReplicaId,
    has_run: bool,
    report: Option<&Report>,
) -> Result<(), DataError> {
    let (path, id) = (path.to_owned(), id.0);
    let Some(report) = report else { return Ok(()) };
    if report.is_new && has_run {
        return Err(DataError::Lost { path, id });
    }
    if report.last_break.is_some() {
        return Err(DataError::Behind { path, id });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A liar may leave as many views as a VIEW-CHANGE has room for, in each pillar.
    #[test]
    fn the_log_takes_what_liars_can_have_a_replica_log() {
        for (replicas, faults, pillars) in [(3, 1, 4), (7, 3, 8), (9, 4, 64)] {
            let config = GroupConfig { replicas, faults, pillars, ..GroupConfig::default() };
            let options = options(Durability::Sync, &config);
            let links = u64::from(faults) * u64::from(pillars) * 4096 * 88;
            let honest = (config.rules().longest_message)(&config);
            assert!(options.longest_record >= (honest + links).min(64 << 20), "{options:?}");
            assert!(options.longest_record + 16 <= options.buffer_bytes / 2);
        }
    }

    /// A start that a crash cuts off anywhere leaves a directory with which the replica can start.
    #[test]
    fn a_log_says_whose_it_is_whatever_start_was_cut_off() {
        let name = format!("hybster-open-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        let (config, id) = (Arc::new(GroupConfig::default()), ReplicaId(1));
        let mode = Durability::Sync;
        // The log is made, and the process dies before it says anything.
        let logs = directory(&path.join("log")).unwrap();
        let mut recovery = Recovery::open(logs, options(mode, &config), [1; 16]).unwrap();
        assert!(recovery.next().unwrap().is_none());
        drop(recovery.finish().unwrap());
        let start = |id, records: &[&[u8]]| {
            let Opened { log, writer, .. } = open(&path, mode, &config, id, true, None)?;
            let appender = log.appender(0);
            for record in records {
                appender.append(RECORD, &[record]).unwrap();
            }
            let writer = hybster_log::WriterThread::start(writer, || ())
                .map_err(|error| DataError::Directory { path: path.clone(), error })?;
            writer.close().unwrap();
            Ok::<(), DataError>(())
        };
        start(id, &[b"something"]).unwrap();
        start(id, &[]).unwrap();
        let error = start(ReplicaId(2), &[]).unwrap_err();
        assert!(matches!(error, DataError::Another { id: 2, .. }), "{error}");
        std::fs::remove_dir_all(&path).unwrap();
    }
}
