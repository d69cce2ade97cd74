//! A service's state outside of its group: saved while the group runs, proved, and restored into a new group.
//!
//! A backup is a directory with one file, in the form of the checkpoints that replicas keep ([`hybster_store`]): all
//! pages of a stable checkpoint, their digest, the f+1 CHECKPOINTs that certify it, and the constants of the group.
//!
//! **Saving** ([`save`]) reads the last checkpoint on the disk of one replica, beside the replica, which need not stop and
//! notices nothing but the reading. A stable checkpoint is one that f+1 replicas hold, so it does not matter which
//! one is asked, nor whether it lies: what it gives is checked against the certificate.
//!
//! **What is checked, and with which keys.** That nothing is missing, altered or mixed is checked without any key, each time
//! that a backup is opened: every page goes into the digest. Whoever can write the file can make another one
//! with another digest, though. Against that a restore wants one of two: the digest, as [`Backup::digest`] gave it when the
//! state was saved, kept apart from the backup ([`Backup::check_digest`]); or the keys of any replica of the old group,
//! with which it checks the certificate ([`Backup::check_certificate`]). The certificate consists of trusted MACs, which
//! have no public key: where all key files of the old group are gone, only the digest is left.
//!
//! **Restoring** ([`Backup::restore`]) makes a *new* group with new keys. Its replicas begin as if they had been told of
//! a stable checkpoint and had fetched it. The service goes on with its pages, and with order numbers and an agreed time
//! that are not below the old ones, so fencing tokens and deadlines made of them keep their order. Sessions are not
//! carried over: they are those of clients whose keys are of no use in the new group. So whether an
//! operation that was under way has taken effect can be told by the service's state only.
//!
//! Never continue the old group beside the new one: both would take operations. And never put a backup into
//! the data of an existing replica: its counters must not go back.
//!
//! ```no_run
//! use hybster::backup::{Backup, save};
//! use hybster::group::CreateOptions;
//! use hybster::{Group, ReplicaId, ReplicaKeys};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // On the host of replica 0, as its user.
//! let group = Group::load("my-group")?;
//! let keys = ReplicaKeys::load(&group, group.directory(), ReplicaId(0))?;
//! let digest = save(&group, &keys, None, "my-backup")?.digest();
//!
//! // Where the new group is made.
//! let backup = Backup::open("my-backup")?;
//! backup.check_digest(&digest)?;
//! let config = backup.group().config().as_ref().clone();
//! backup.restore("new-group", &CreateOptions { config, ..CreateOptions::default() })?;
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use hybster_log::Directory;
use hybster_proto::execution::{agreed_time, new_bookkeeping};
use hybster_proto::ids::OrderNumber;
use hybster_proto::output::LogRecord;
use hybster_proto::protocol::Protocol;
use hybster_proto::service::ServiceName;
use hybster_proto::state::{checkpoint_id, page_digest};
use hybster_proto::wire::CheckpointId;
use hybster_store::{Manifest, Observed, Observer, Options, PageId, Store, StoreError};
use hybster_tss::Digest;

use crate::durable::{BOOKKEEPING, DataError, Durability, SERVICE, begin_with};
use crate::group::{
    CreateOptions, GROUP_FILE, Generated, Group, GroupError, ReplicaKeys, generate,
};
use crate::replica::{StartError, beginning, certified, present};

/// Why a state cannot be saved, or a backup not be restored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// The group keeps nothing on disk.
    #[error(
        "replicas of a group with durability \"none\" keep nothing on disk that could be saved, nor could they begin \
         with a state that is on their disk; choose \"sync\" or \"async\""
    )]
    NothingKept,
    /// The group's protocol has no checkpoints that others can check.
    #[error(
        "a group that runs {protocol} cannot be saved, nor begin with a saved state: its replicas convince each \
         other of a checkpoint, and nobody else, and keep none on disk. With hybster both can be done"
    )]
    NotProved {
        /// What orders the group's requests.
        protocol: Protocol,
    },
    /// The keys lie in no file, so the place of the data must be named.
    #[error("the keys of replica {id} are in no file, so say where its data is")]
    NoDataDirectory {
        /// The replica.
        id: u16,
    },
    /// The replica has no checkpoint yet.
    #[error(
        "{}: there is no checkpoint yet. One is written every {interval} order numbers (checkpoint_interval in \
         group.toml); try again after so many batches of requests",
        path.display()
    )]
    NoCheckpoint {
        /// The replica's directory.
        path: PathBuf,
        /// Order numbers between two checkpoints.
        interval: u64,
    },
    /// The checkpoint has no certificate with it.
    #[error(
        "{}: nothing certifies the checkpoint of order {order} here: an earlier version of the program wrote it. \
         Try again after the next checkpoint, or ask another replica",
        path.display()
    )]
    NoCertificate {
        /// The directory.
        path: PathBuf,
        /// The checkpoint.
        order: u64,
    },
    /// What is to be made exists.
    #[error("{}: exists already and is not overwritten; name another directory", path.display())]
    Exists {
        /// The directory.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file of pages cannot be read or written, or is damaged.
    #[error("the pages cannot be used: {0}")]
    Pages(StoreError),
    /// It is no backup, or one that was cut short while it was saved.
    #[error("{}: this is not a complete backup: {what}", path.display())]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        what: &'static str,
    },
    /// The pages are not those that the digest is of.
    #[error(
        "{}: the pages of this backup do not have the digest that it says: it was altered, or put together from \
         several. Take another backup",
        path.display()
    )]
    Altered {
        /// The directory.
        path: PathBuf,
    },
    /// It is another backup than was asked for.
    #[error(
        "{}: this backup has the digest {found}, not {expected}: it is another one, or was altered",
        path.display()
    )]
    OtherDigest {
        /// The directory.
        path: PathBuf,
        /// Its digest.
        found: Digest,
        /// The digest that was asked for.
        expected: String,
    },
    /// It is of another group than the keys.
    #[error("{}: this backup is of the group {found}, not of {expected}", path.display())]
    OtherGroup {
        /// The directory.
        path: PathBuf,
        /// The group that it says it is of.
        found: String,
        /// The group of the keys.
        expected: String,
    },
    /// The certificate does not prove the state.
    #[error(
        "{}: this state is not proved: {what}. It was altered, or is of another group or epoch",
        path.display()
    )]
    NotCertified {
        /// The directory.
        path: PathBuf,
        /// What is wrong with the certificate.
        what: String,
    },
    /// The new group is for another service.
    #[error(
        "{}: this backup is of the service \"{found}\", and the new group would be for {expected}; name the service",
        path.display()
    )]
    OtherService {
        /// The directory.
        path: PathBuf,
        /// The service that was saved.
        found: ServiceName,
        /// What the new group is to run.
        expected: String,
    },
    /// The epoch that the replica is in cannot be found out.
    #[error(transparent)]
    Epoch(StartError),
    /// The new group cannot be made.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The data of a replica of the new group cannot be made.
    #[error(transparent)]
    Data(#[from] DataError),
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}; allow getrandom and try again")]
    Random(String),
}

impl From<StoreError> for BackupError {
    fn from(error: StoreError) -> Self {
        Self::Pages(error)
    }
}

/// Saves the last stable checkpoint that is on the disk of a replica, which may run, into a new directory.
///
/// `data` is the replica's directory, if it does not lie beside its key file. What is saved has been read once
/// more and checked, its certificate too.
///
/// # Errors
/// If there is no checkpoint, it is not what f+1 replicas have certified, or the new directory cannot be made. Then
/// nothing is left of it.
pub fn save(
    group: &Group,
    keys: &ReplicaKeys,
    data: Option<&Path>,
    to: impl AsRef<Path>,
) -> Result<Backup, BackupError> {
    can_be_proved(group.config().protocol)?;
    if group.durability() == Durability::None {
        return Err(BackupError::NothingKept);
    }
    let present = present(group, keys).map_err(BackupError::Epoch)?;
    let epoch = present.config().epoch;
    let of_epoch = |data: &Path| match epoch == group.config().epoch {
        true => data.to_owned(),
        false => data.join(format!("epoch-{epoch}")),
    };
    let data = data.map(of_epoch).or_else(|| keys.data_directory());
    let data = data.ok_or(BackupError::NoDataDirectory { id: keys.id.0 })?;
    let observer = Observer::open(data.join("state"))?;
    let made = NewDirectory::claim(to.as_ref())?;
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|error| BackupError::Random(error.to_string()))?;
    let directory = Directory::open(made.path()).map_err(|error| failed(made.path(), error))?;
    let (mut store, _) = Store::open(directory, Options::default(), random)?;
    let text = group.without_clients().to_text().into_bytes();
    let copied = observer
        .copy_into(&mut store, |of| Manifest { configuration: text.clone(), ..of.clone() })?;
    if copied.is_none() {
        let interval = group.config().checkpoint_interval;
        return Err(BackupError::NoCheckpoint { path: data, interval });
    }
    drop(store);
    let lock = made.path().join("lock");
    fs::remove_file(&lock).map_err(|error| failed(&lock, error))?;
    let backup = Backup::open(made.path())?;
    backup.check_certificate(group, keys)?;
    made.keep();
    Ok(backup)
}

/// Whether checkpoints of a protocol outlive their group, which needs a log, and what proves them.
fn can_be_proved(protocol: Protocol) -> Result<(), BackupError> {
    if protocol.rules().keeps_log { Ok(()) } else { Err(BackupError::NotProved { protocol }) }
}

/// A backup whose pages are those that its digest is of.
#[derive(Debug)]
pub struct Backup {
    path: PathBuf,
    observer: Observer,
    pages: Observed,
    group: Group,
    id: CheckpointId,
    /// Of the service's pages.
    digests: Vec<Digest>,
    time_ms: u64,
    bytes: u64,
}

impl Backup {
    /// Opens a backup and reads all of it. Nothing is changed, so it may be on a medium that cannot be written.
    ///
    /// # Errors
    /// If it is not complete, damaged or altered.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BackupError> {
        let path = path.as_ref().to_owned();
        let incomplete = |what| BackupError::Incomplete { path: path.clone(), what };
        let observer = Observer::open(&path)?;
        let pages = observer.last()?.ok_or_else(|| incomplete("it has no checkpoint"))?;
        let Manifest { order, root, pages: counts, configuration, .. } = pages.manifest();
        let order = OrderNumber(*order);
        let &[bookkeeping, service] = &counts[..] else {
            return Err(incomplete("it has other parts than a state"));
        };
        let text = std::str::from_utf8(configuration).ok().filter(|text| !text.is_empty());
        let text = text.ok_or_else(|| incomplete("it does not say of which group it is"))?;
        let group = Group::parse(&path.join(GROUP_FILE), text)?;
        let none = |count| vec![Digest::default(); usize::try_from(count).unwrap_or(0)];
        let (mut digests, mut bytes) = ([none(bookkeeping), none(service)], 0);
        let (mut content, mut time_ms) = (Vec::new(), None);
        for page in pages.pages() {
            observer.read_page(&pages, page, &mut content)?;
            bytes += content.len() as u64;
            digests[usize::from(page.part)][page.index as usize] = page_digest(&content);
            if page == (PageId { part: BOOKKEEPING, index: 0 }) {
                time_ms = agreed_time(&content);
            }
        }
        let [_, of_service] = &digests;
        let of_service = of_service.clone();
        let id = checkpoint_id(order, digests);
        if id.digest.0 != *root {
            return Err(BackupError::Altered { path });
        }
        let time_ms =
            time_ms.ok_or_else(|| incomplete("another version of the program saved it"))?;
        Ok(Self { observer, group, id, digests: of_service, time_ms, bytes, path, pages })
    }

    /// The order number of the last operation that is in it.
    #[must_use]
    pub fn order(&self) -> OrderNumber {
        self.id.order
    }

    /// The digest of all that is in it, in hexadecimal digits: to be kept apart from the backup.
    #[must_use]
    pub fn digest(&self) -> String {
        self.id.digest.to_string()
    }

    /// The group that it is of, without its clients. It has the constants that the service ran with.
    #[must_use]
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// The agreed time of the last operation that is in it, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// How many pages the service has in it.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.digests.len() as u64
    }

    /// Bytes of all pages.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether it is the one that was saved with this digest.
    ///
    /// # Errors
    /// If it is another one.
    pub fn check_digest(&self, expected: &str) -> Result<(), BackupError> {
        if self.digest() == expected.trim().to_ascii_lowercase() {
            return Ok(());
        }
        let (path, found) = (self.path.clone(), self.id.digest);
        Err(BackupError::OtherDigest { path, found, expected: expected.to_owned() })
    }

    /// Whether f+1 replicas of its group have certified it, checked with the keys of any replica of that group.
    ///
    /// # Errors
    /// If they have not, or the keys are of another group.
    pub fn check_certificate(&self, group: &Group, keys: &ReplicaKeys) -> Result<(), BackupError> {
        let path = self.path.clone();
        let (found, expected) = (self.group.name(), group.name());
        if found != expected {
            return Err(BackupError::OtherGroup { path, found, expected });
        }
        let group = &present(group, keys).map_err(BackupError::Epoch)?;
        if self.id == group.config().membership.beginning {
            // What proves the end of the epoch before proves this.
            return Ok(());
        }
        let certificate = &self.pages.manifest().certificate;
        if certificate.is_empty() {
            return Err(BackupError::NoCertificate { path, order: self.id.order.0 });
        }
        match certified(group, keys, certificate) {
            Ok(id) if id == self.id => Ok(()),
            Ok(id) => {
                let what = format!("what is certified is the state behind order {}", id.order.0);
                Err(BackupError::NotCertified { path, what })
            }
            Err(what) => Err(BackupError::NotCertified { path, what }),
        }
    }

    /// Makes a new group whose service begins with this state, as [`crate::group::create`] makes one, with the data of
    /// each replica beside its key file. Each replica must be given both.
    ///
    /// It begins behind the first order number from the saved one on at which it takes checkpoints. Check the
    /// backup before: [`Self::check_digest`], [`Self::check_certificate`].
    ///
    /// # Errors
    /// If the options do not fit the backup, files of a group are there already, or the disk refuses. Then nothing is left of
    /// it.
    pub fn restore(
        &self,
        dir: impl AsRef<Path>,
        options: &CreateOptions,
    ) -> Result<Group, BackupError> {
        let dir = dir.as_ref();
        self.check_options(options)?;
        let Generated { mut group, replicas, clients, administrator } = generate(options)?;
        let config = Arc::clone(group.config());
        let interval = config.checkpoint_interval;
        let order = self.id.order.0.checked_next_multiple_of(interval);
        let order = OrderNumber(order.ok_or_else(|| self.incomplete("its order is impossible"))?);
        let bookkeeping = new_bookkeeping(&config, order, self.time_ms);
        let own = (0..bookkeeping.page_count()).map(|index| bookkeeping.page(index));
        let own: Vec<_> = own.collect();
        let of_own = own.iter().map(|page| page_digest(page)).collect();
        let id = checkpoint_id(order, [of_own, self.digests.clone()]);
        let (certificate, records) =
            beginning(&group, &replicas[0], id).map_err(|what| self.not_certified(what))?;
        group.initial_state = Some(id);
        let manifest = Manifest {
            order: order.0,
            root: id.digest.0,
            pages: vec![own.len() as u64, self.pages()],
            certificate: certificate.to_vec(),
            ..Manifest::default()
        };
        let is_new_directory = !dir.exists();
        let mut made = Vec::new();
        fs::create_dir_all(dir).map_err(|error| failed(dir, error))?;
        let in_the_way = dir.join(GROUP_FILE);
        if in_the_way.exists() {
            return Err(BackupError::Exists { path: in_the_way });
        }
        let made_all = replicas.iter().try_for_each(|keys| {
            let name = format!("replica-{}.epoch-{}.data", keys.id.0, config.epoch);
            let data = NewDirectory::claim(&dir.join(name))?;
            let beginning = (manifest.clone(), &records[..]);
            self.write_data(data.path(), &group, keys, beginning, &own)?;
            made.push(data);
            Ok(())
        });
        // Last, so that a directory with the group file is complete.
        let written = made_all
            .and_then(|()| Ok(Generated { group, replicas, clients, administrator }.write(dir)?));
        match written {
            Ok(group) => {
                made.into_iter().for_each(NewDirectory::keep);
                Ok(group)
            }
            Err(error) => {
                drop(made);
                if is_new_directory {
                    // Unless somebody has put something there.
                    let _ = fs::remove_dir(dir);
                }
                Err(error)
            }
        }
    }

    fn check_options(&self, options: &CreateOptions) -> Result<(), BackupError> {
        can_be_proved(options.config.protocol)?;
        if options.durability == Durability::None {
            return Err(BackupError::NothingKept);
        }
        let (found, expected) = (&self.group.config().service, &options.config.service);
        if let Some(found) = found.as_ref().filter(|_| found != expected) {
            let expected = expected.as_ref().map_or_else(|| "any".into(), |it| format!("\"{it}\""));
            let (path, found) = (self.path.clone(), found.clone());
            return Err(BackupError::OtherService { path, found, expected });
        }
        Ok(())
    }

    fn write_data(
        &self,
        path: &Path,
        group: &Group,
        keys: &ReplicaKeys,
        beginning: (Manifest, &[LogRecord]),
        bookkeeping: &[bytes::Bytes],
    ) -> Result<(), BackupError> {
        let put = |store: &mut Store<Directory>| {
            for (page, index) in bookkeeping.iter().zip(0..) {
                store.put_page(PageId { part: BOOKKEEPING, index }, page)?;
            }
            let mut content = Vec::new();
            let pages = self.pages.pages();
            for page in pages.into_iter().filter(|page| page.part == SERVICE) {
                self.observer.read_page(&self.pages, page, &mut content)?;
                store.put_page(page, &content)?;
            }
            Ok(())
        };
        let (mode, config) = (group.durability(), group.config());
        Ok(begin_with(path, mode, config, keys.id, beginning, put)?)
    }

    fn incomplete(&self, what: &'static str) -> BackupError {
        BackupError::Incomplete { path: self.path.clone(), what }
    }

    fn not_certified(&self, what: String) -> BackupError {
        BackupError::NotCertified { path: self.path.clone(), what }
    }
}

/// A directory that is being made, and removed unless it is kept.
#[derive(Debug)]
struct NewDirectory {
    path: PathBuf,
    is_kept: bool,
}

impl NewDirectory {
    fn claim(path: &Path) -> Result<Self, BackupError> {
        use std::os::unix::fs::DirBuilderExt;
        match fs::DirBuilder::new().mode(0o700).create(path) {
            Ok(()) => Ok(Self { path: path.to_owned(), is_kept: false }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(BackupError::Exists { path: path.to_owned() })
            }
            Err(error) => Err(failed(path, error)),
        }
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for NewDirectory {
    fn drop(&mut self) {
        if !self.is_kept {
            // The first error is the one that is reported.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

fn failed(path: &Path, error: io::Error) -> BackupError {
    BackupError::Io { path: path.to_owned(), error }
}
