//! The data of a replica whose group begins with a state: made before its first start.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;

use hybster_log::{Directory, Disk as _, WriterThread};
use hybster_proto::GroupConfig;
use hybster_proto::ids::ReplicaId;
use hybster_proto::output::LogRecord;
use hybster_store::{Manifest, Observer, Store, StoreError};

use super::Durability;
use super::open::{DataError, Opened, RECORD, open};

/// Makes the directory of a replica that goes on to an epoch, or begins with it: with these records of the stages, and
/// with the checkpoint that it had before, if that is the one with which the epoch begins. What a crash leaves of it
/// has another name.
pub(crate) fn begin_epoch(
    path: &Path,
    mode: Durability,
    config: &Arc<GroupConfig>,
    id: ReplicaId,
    records: &[LogRecord],
    before: Option<&Path>,
) -> Result<(), DataError> {
    let told = |error| DataError::Directory { path: path.to_owned(), error };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let making = path.with_file_name(format!(".{name}.making"));
    if making.exists() {
        // What a crash left. The log of another process that makes it right now is locked, below.
        Directory::open(making.join("log")).and_then(|mut log| log.lock()).map_err(told)?;
        fs::remove_dir_all(&making).map_err(told)?;
    }
    let Opened { log, writer, mut store, .. } = open(&making, mode, config, id, false, None)?;
    if let Some(before) = before.map(|it| it.join("state")).filter(|it| it.exists()) {
        let beginning = config.membership.beginning;
        let is_it = |of: &Manifest| of.order == beginning.order.0 && of.root == beginning.digest.0;
        let observer = Observer::open(before)?;
        if observer.last()?.is_some_and(|last| is_it(last.manifest())) {
            observer.copy_into(&mut store, Manifest::clone)?;
        }
    }
    drop(store);
    let writer = WriterThread::start(writer, || ()).map_err(told)?;
    let appender = log.appender(0);
    for record in records {
        appender.append(RECORD, &record.parts()).map_err(DataError::Append)?;
    }
    writer.close().map_err(|error| told(io::Error::other(error.to_string())))?;
    drop(log);
    let placed = fs::rename(&making, path).and_then(|()| match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    });
    placed.map_err(told)
}

/// Makes the directory, with a checkpoint whose pages `put` puts and with these records of the stages.
/// What a crash leaves of it is refused by a start of the replica.
pub(crate) fn begin_with(
    path: &Path,
    mode: Durability,
    config: &Arc<GroupConfig>,
    id: ReplicaId,
    (manifest, records): (Manifest, &[LogRecord]),
    put: impl FnOnce(&mut Store<Directory>) -> Result<(), StoreError>,
) -> Result<(), DataError> {
    let told = |error| DataError::Directory { path: path.to_owned(), error };
    let Opened { log, writer, mut store, found, .. } = open(path, mode, config, id, false, None)?;
    if found.is_some() {
        return Err(told(io::ErrorKind::AlreadyExists.into()));
    }
    store.begin(manifest)?;
    put(&mut store)?;
    store.commit()?;
    let writer = WriterThread::start(writer, || ()).map_err(told)?;
    let appender = log.appender(0);
    for record in records {
        appender.append(RECORD, &record.parts()).map_err(DataError::Append)?;
    }
    writer.close().map_err(|error| told(io::Error::other(error.to_string())))
}
