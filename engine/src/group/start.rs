//! The right to start: a replica starts once with its keys.
//!
//! The counters of the in-process TrInX are lost with the process. Starting from zero again under the
//! same epoch, the replica could certify one counter value twice, which is the one thing that 2f+1
//! replicas rely on never to happen (TR section 4.3). So a start uses up the right that its key file
//! holds, before anything is certified:
//!
//! 1. The key file is written again beside the old one, sealed as used, and made durable. A disk that is
//!    full or read-only fails here, and nothing is lost.
//! 2. The mark `replica-N.epoch-E.started` is made, which only one process can. From here on no start
//!    is granted.
//! 3. The new key file takes the place of the old one, and the directory is made durable.
//!
//! A crash between 2 and the start costs the right without a start. The other way round, a start with the
//! right still there, cannot be: each step is durable before the next. The mark alone would not do, because
//! somebody might remove it; the key file alone would not, because somebody might restore it from a backup.
//! Who puts both back as they were (a snapshot of the whole disk) cannot be told from a first start.
//!
//! Where the protocol has no trusted counters, the same holds of what a replica has said: one that forgets it
//! could say something else, and counts as faulty.
//!
//! Keys that were made in this process and are in no file are used up in memory, for all copies of them.
//! Of keys that were read from a text nobody knows whether they were used: the caller must say so.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use hybster_tss::keyfile::{Replacement, StartRight};

use super::GroupError;
use super::keys::{Place, ReplicaKeys};

impl ReplicaKeys {
    /// Whether the replica was started before, as far as its files here tell; `None` if nothing tells.
    pub(crate) fn has_started(&self) -> Result<Option<bool>, GroupError> {
        if let Place::Memory { is_new, has_started } = &self.home.place {
            let has_started = has_started.load(Ordering::Acquire);
            return Ok((*is_new || has_started).then_some(has_started));
        }
        match self.refuse_second_start() {
            Ok(()) => Ok(Some(false)),
            Err(GroupError::StartedBefore { .. }) => Ok(Some(true)),
            Err(error) => Err(error),
        }
    }

    /// The replica's directory for its data, unless another one is named; `None` if the keys lie in none.
    pub(crate) fn data_directory(&self) -> Option<PathBuf> {
        self.data_directory_of(self.home.epoch)
    }

    /// The same in some epoch.
    pub(crate) fn data_directory_of(&self, epoch: u32) -> Option<PathBuf> {
        let Place::File { path, .. } = &self.home.place else { return None };
        Some(directory(path).join(format!("replica-{}.epoch-{epoch}.data", self.id.0)))
    }

    /// Refuses a start that [`Self::claim_start`] would refuse, and changes nothing.
    pub(crate) fn refuse_second_start(&self) -> Result<(), GroupError> {
        let (path, right) = match &self.home.place {
            Place::File { path, right } => (path, *right),
            Place::Memory { has_started, .. } => {
                return match has_started.load(Ordering::Acquire) {
                    true => Err(self.started_before("the keys in memory".into())),
                    false => Ok(()),
                };
            }
        };
        if right == StartRight::Used {
            return Err(self.started_before(path.clone()));
        }
        let mark = self.mark(path);
        match mark.try_exists() {
            Ok(false) => Ok(()),
            Ok(true) => Err(self.started_before(mark)),
            Err(error) => Err(GroupError::Write { file: mark, error }),
        }
    }

    /// The epoch that the key was sealed for last: the one that the replica is in, or is to begin with.
    #[must_use]
    pub fn epoch(&self) -> u32 {
        self.home.epoch
    }

    /// The file beside the key with the ends of the group's epochs; `None` if the keys lie in none.
    pub(crate) fn epochs_file(&self) -> Option<PathBuf> {
        let Place::File { path, .. } = &self.home.place else { return None };
        Some(directory(path).join(format!("replica-{}.epochs", self.id.0)))
    }

    /// Goes on to a later epoch, in which the replica has started from here on: the key file is sealed again
    /// for it, as used. Nothing may have been certified in that epoch, and its log must be there.
    ///
    /// # Errors
    /// If the files cannot be written and made durable, or the replica has begun this epoch before.
    pub(crate) fn advance(&self, epoch: u32) -> Result<Self, GroupError> {
        let Place::File { path, .. } = &self.home.place else {
            return Err(GroupError::KeysInNoFile { id: self.id.0 });
        };
        assert!(epoch > self.home.epoch, "epochs rise");
        let opened = self.reopen(path)?;
        if opened.epoch != self.home.epoch {
            return Err(self.started_before(path.clone()));
        }
        let mut next = self.clone();
        next.home.epoch = epoch;
        let right = StartRight::Used;
        let text = next.sealed_text(right, &opened.secret)?;
        let replacement =
            Replacement::prepare(path, text.as_bytes()).map_err(GroupError::NotClaimed)?;
        // Of a crash between this and the next step, which may come again: nothing was certified.
        match next.make_mark(path) {
            Ok(()) | Err(GroupError::StartedBefore { .. }) => {}
            Err(error) => return Err(error),
        }
        replacement.commit().map_err(GroupError::NotClaimed)?;
        next.home.place = Place::File { path: path.clone(), right };
        Ok(next)
    }

    /// Uses up the right to start. See the [module](self).
    ///
    /// # Errors
    /// If it was used before, or the files cannot be written and made durable.
    pub(crate) fn claim_start(&self) -> Result<(), GroupError> {
        let path = match &self.home.place {
            Place::File { path, .. } => path,
            Place::Memory { has_started, .. } => {
                return match has_started.swap(true, Ordering::AcqRel) {
                    true => Err(self.started_before("the keys in memory".into())),
                    false => Ok(()),
                };
            }
        };
        // As it is now: it may have been used since it was loaded.
        let opened = self.reopen(path)?;
        if opened.unsealed.right == StartRight::Used {
            return Err(self.started_before(path.clone()));
        }
        let text = self.sealed_text(StartRight::Used, &opened.secret)?;
        let replacement =
            Replacement::prepare(path, text.as_bytes()).map_err(GroupError::NotClaimed)?;
        self.make_mark(path)?;
        replacement.commit().map_err(GroupError::NotClaimed)
    }

    fn make_mark(&self, path: &Path) -> Result<(), GroupError> {
        let file = self.mark(path);
        match File::create_new(&file).and_then(|mark| mark.sync_all()) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(self.started_before(file));
            }
            Err(error) => return Err(GroupError::Write { file, error }),
        }
        let dir = directory(path).to_owned();
        let synced = File::open(&dir).and_then(|dir| dir.sync_all());
        synced.map_err(|error| GroupError::Write { file: dir, error })
    }

    fn mark(&self, path: &Path) -> PathBuf {
        let epoch = self.home.epoch;
        directory(path).join(format!("replica-{}.epoch-{epoch}.started", self.id.0))
    }

    fn started_before(&self, file: PathBuf) -> GroupError {
        GroupError::StartedBefore { file, id: self.id.0 }
    }
}

/// The directory that a file is in.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use hybster_proto::ids::ReplicaId;

    use super::*;
    use crate::group::{CreateOptions, Group, create};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let name = format!("hybster-start-{}-{name}", std::process::id());
            let dir = std::env::temp_dir().join(name);
            let _ = fs::remove_dir_all(&dir);
            Self(dir)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn group(name: &str) -> (Scratch, Group) {
        let scratch = Scratch::new(name);
        let group = create(&scratch.0, &CreateOptions::default()).unwrap();
        (scratch, group)
    }

    fn keys(group: &Group, dir: &Path) -> ReplicaKeys {
        ReplicaKeys::load(group, dir, ReplicaId(0)).unwrap()
    }

    #[track_caller]
    fn expect_refused(keys: &ReplicaKeys) {
        let error = keys.refuse_second_start().unwrap_err();
        assert!(matches!(error, GroupError::StartedBefore { id: 0, .. }), "{error}");
        let error = keys.claim_start().unwrap_err();
        assert!(matches!(error, GroupError::StartedBefore { id: 0, .. }), "{error}");
    }

    #[test]
    fn a_start_changes_the_key_file_and_no_other_file_brings_the_right_back() {
        let (scratch, group) = group("once");
        let dir = &scratch.0;
        let path = dir.join("replica-0.key");
        let before = fs::read(&path).unwrap();
        let first = keys(&group, dir);
        first.refuse_second_start().unwrap();
        first.claim_start().unwrap();
        assert_ne!(fs::read(&path).unwrap(), before);
        assert!(fs::read_to_string(&path).unwrap().contains("Used"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600);
        }
        // Keys from before, in memory, and those that are read now.
        expect_refused(&keys(&group, dir));
        assert!(first.claim_start().is_err());
        // Without the mark, here and in a copy of the directory.
        fs::remove_file(first.mark(&path)).unwrap();
        expect_refused(&keys(&group, dir));
        assert!(first.claim_start().is_err(), "the keys in memory are not believed");
        let copy = Scratch::new("copy");
        fs::create_dir(&copy.0).unwrap();
        fs::copy(&path, copy.0.join("replica-0.key")).unwrap();
        expect_refused(&keys(&group, &copy.0));
        assert_eq!(fs::read_dir(dir).unwrap().count(), 5, "group, three replicas, one client");
    }

    /// What a crash leaves after each step.
    #[test]
    fn a_crash_at_any_point_leaves_either_no_start_or_no_right() {
        let (scratch, group) = group("crash");
        let dir = &scratch.0;
        let path = dir.join("replica-0.key");
        let unused = fs::read(&path).unwrap();
        // After 1: a file beside it. It is no key file, and the right is there.
        fs::write(dir.join(".replica-0.key.new-1"), b"half").unwrap();
        keys(&group, dir).refuse_second_start().unwrap();
        // After 2: the mark, and the key as it was.
        let at_work = keys(&group, dir);
        at_work.make_mark(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), unused);
        expect_refused(&keys(&group, dir));
        assert_eq!(fs::read(&path).unwrap(), unused, "a refused start changes nothing");
        let left = fs::read_dir(dir).unwrap().count();
        assert_eq!(left, 7, "group, four keys, the mark and the crash's file");
        // After 3, in a directory of its own.
        let (scratch, group) = self::group("crash-after");
        keys(&group, &scratch.0).claim_start().unwrap();
        expect_refused(&keys(&group, &scratch.0));
    }

    #[test]
    fn of_starts_at_the_same_time_one_is_granted() {
        let (scratch, group) = group("race");
        let loaded = keys(&group, &scratch.0);
        let granted = std::thread::scope(|scope| {
            let starts: Vec<_> =
                (0..8).map(|_| scope.spawn(|| loaded.claim_start().is_ok())).collect();
            starts.into_iter().map(|start| start.join().unwrap()).filter(|granted| *granted).count()
        });
        assert_eq!(granted, 1);
        expect_refused(&keys(&group, &scratch.0));
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_cannot_be_written_is_not_used_up() {
        let (scratch, group) = group("unwritable");
        // A link to a file whose name leaves no room for that of the new one beside it.
        let (path, long) = (scratch.0.join("replica-0.key"), scratch.0.join("k".repeat(250)));
        fs::rename(&path, &long).unwrap();
        std::os::unix::fs::symlink(&long, &path).unwrap();
        let loaded = keys(&group, &scratch.0);
        let error = loaded.claim_start().unwrap_err();
        assert!(matches!(error, GroupError::NotClaimed(_)), "{error}");
        assert!(!loaded.mark(&path).exists());
        // With a shorter name, the file that the link leads to is the one that changes.
        let short = scratch.0.join("kept elsewhere");
        fs::rename(&long, &short).unwrap();
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&short, &path).unwrap();
        loaded.claim_start().unwrap();
        assert!(fs::read_to_string(short).unwrap().contains("Used"));
    }
}
