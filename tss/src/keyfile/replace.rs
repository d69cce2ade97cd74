//! Putting a new private file in the place of an old one, in one step.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::{KeyFileError, Problem, sync_parent, write_private};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A private file that is written and durable, but not in its place yet. Dropping it removes it.
#[derive(Debug)]
pub struct Replacement {
    temporary: PathBuf,
    target: PathBuf,
}

impl Replacement {
    /// Writes a new private file beside `path`. Where that is a symbolic link, beside the file that it
    /// leads to: replacing the link would leave the file as it is.
    ///
    /// # Errors
    /// If there is no such file, or the system refuses to write.
    pub fn prepare(path: &Path, bytes: &[u8]) -> Result<Self, KeyFileError> {
        let target = fs::canonicalize(path).map_err(|error| Problem::Read(error).in_file(path))?;
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        // Processes and threads that do this at the same time have files of their own.
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let temporary = target.with_file_name(format!(".{name}.new-{process}-{number}"));
        // What a crash left, of a process that had this one's number.
        let _ = fs::remove_file(&temporary);
        write_private(&temporary, bytes)?;
        Ok(Self { temporary, target })
    }

    /// Puts the file in its place. When this returns, the old one will not come back after a crash.
    ///
    /// # Errors
    /// If the system refuses. Then either file may be in the place.
    pub fn commit(self) -> Result<(), KeyFileError> {
        fs::rename(&self.temporary, &self.target)
            .and_then(|()| sync_parent(&self.target))
            .map_err(|error| Problem::Write(error).in_file(&self.target))
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // After a commit there is none. It opens nothing that the target would not open.
        let _ = fs::remove_file(&self.temporary);
    }
}
