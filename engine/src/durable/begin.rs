//! The data of a replica whose group begins with a state: made before its first start.

use std::io;
use std::path::Path;
use std::sync::Arc;

use hybster_log::{Directory, WriterThread};
use hybster_proto::GroupConfig;
use hybster_proto::ids::ReplicaId;
use hybster_proto::output::LogRecord;
use hybster_store::{Manifest, Store, StoreError};

use super::Durability;
use super::open::{DataError, Opened, RECORD, open};

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
