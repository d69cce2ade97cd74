//! The temporary directory of a group, with its keys.
//!
//! It is removed when its owner drops it. An owner that is killed (SIGKILL) cannot do that, so each has a
//! file in it that is locked while the owner lives, and whoever makes a directory removes those first
//! whose owners are gone.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;

use tempfile::TempDir;

use crate::Error;

/// What the names of all such directories begin with.
const PREFIX: &str = "hybster-bench-";
/// The file in a directory that its owner keeps locked.
const OWNER: &str = "owner";

/// A temporary directory. Dropping it removes it.
#[derive(Debug)]
pub(super) struct Directory {
    directory: TempDir,
    _owner: File,
}

impl Directory {
    /// Makes one, and removes those whose owners were killed.
    pub(super) fn new() -> Result<Self, Error> {
        Self::new_in(&std::env::temp_dir())
    }

    fn new_in(parent: &Path) -> Result<Self, Error> {
        remove_abandoned(parent);
        let failed = |e| {
            let parent = parent.display();
            let text =
                format!("cannot make a temporary directory in {parent}: {e}; TMPDIR names another");
            Error::new(text)
        };
        let directory =
            tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent).map_err(failed)?;
        let owner = File::create(directory.path().join(OWNER)).map_err(failed)?;
        owner.lock().map_err(failed)?;
        Ok(Self { directory, _owner: owner })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

/// Removes what killed owners have left; of other users, or not made by this program, nothing.
fn remove_abandoned(parent: &Path) {
    let entries = std::fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) && is_abandoned(&entry.path()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// Whether a directory has an owner's file that nobody has locked. One without the file may be about to
/// get it.
fn is_abandoned(directory: &Path) -> bool {
    // Not through a link that somebody else put there.
    if !std::fs::symlink_metadata(directory).is_ok_and(|data| data.is_dir()) {
        return false;
    }
    let path = directory.join(OWNER);
    let is_file = std::fs::symlink_metadata(&path).is_ok_and(|data| data.is_file());
    let Some(owner) = is_file.then(|| OpenOptions::new().write(true).open(&path).ok()).flatten()
    else {
        return false;
    };
    // A file that is not locked yet is of no use to anybody either: it is as old as its directory.
    let is_new = owner
        .metadata()
        .and_then(|data| data.modified())
        .is_ok_and(|made| made.elapsed().is_ok_and(|age| age.as_secs() < 10));
    !is_new && !matches!(owner.try_lock(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    /// As if its owner had been killed so many seconds after it made it.
    fn abandoned(parent: &Path, age_s: u64) -> std::path::PathBuf {
        let path = parent.join(format!("{PREFIX}killed-{age_s}"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("key"), "secret").unwrap();
        let owner = File::create(path.join(OWNER)).unwrap();
        owner.set_modified(SystemTime::now() - Duration::from_secs(age_s)).unwrap();
        path
    }

    #[test]
    fn what_killed_owners_left_is_removed_and_nothing_else() {
        let parent = tempfile::tempdir().unwrap();
        let [old, new] = [3600, 0].map(|age| abandoned(parent.path(), age));
        let [foreign, empty] = ["other", "hybster-bench-empty"].map(|n| parent.path().join(n));
        std::fs::create_dir(&foreign).unwrap();
        std::fs::create_dir(&empty).unwrap();
        let alive = Directory::new_in(parent.path()).unwrap();
        alive._owner.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
        let other = Directory::new_in(parent.path()).unwrap();
        assert!(!old.exists(), "what a killed owner left is still there");
        for path in [&new, &foreign, &empty, alive.path(), other.path()] {
            assert!(path.exists(), "{} is gone", path.display());
        }
        let path = other.path().to_owned();
        drop(other);
        assert!(!path.exists());
    }
}
