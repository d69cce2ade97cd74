//! Errors of a group directory.

use std::io;
use std::path::PathBuf;

use hybster_tss::KeyFileError;

/// An error in a group directory, with the file, the key and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GroupError {
    /// A file could not be read.
    #[error("{}: cannot be read ({error}); name a group directory made with `hybster init`, or \
             its group.toml", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file or directory could not be written.
    #[error("{}: cannot be written ({error}); check that the directory is yours and has room",
            file.display())]
    Write {
        /// The file or directory.
        file: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// A file is in the way of a new group.
    #[error("{}: exists already and is not overwritten; choose another directory or move it away",
            file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// A file does not have the expected form; the message names line and key.
    #[error("{}: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// Line, key and what was expected.
        message: String,
    },
    /// A key has a value that cannot be used.
    #[error("{}: {key} = {value}: {cure}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        value: String,
        /// What would be right.
        cure: String,
    },
    /// A replica is started for the second time in one epoch.
    #[error("{}: replica {id} was started before, and its trusted counters, or what it has said where \
             there are none, were lost with that process; started again, it could break what the group agreed on. Removing a mark or \
             restoring an older key file does not make that safe. Go on without it (a group does \
             with up to f replicas less), or make a new group directory with `hybster init`",
            file.display())]
    StartedBefore {
        /// The file that says so: the key file, or the mark that the first start left.
        file: PathBuf,
        /// The replica.
        id: u16,
    },
    /// A start could not mark the replica's key as used. Unless the mark was made, the right to start
    /// is still there.
    #[error(
        "{0}. A start marks the replica's key file as used and so writes it: its directory must \
             not be read-only"
    )]
    NotClaimed(KeyFileError),
    /// Nobody may change the group's members.
    #[error(
        "{}: the group has no administrator, so its replicas cannot be replaced; only a group that was made with \
         `hybster init --administrator` has one", file.display()
    )]
    NoAdministrator {
        /// The group file.
        file: PathBuf,
    },
    /// The keys of a replica that is to go on to a later epoch are in no file.
    #[error(
        "the keys of replica {id} are in no file, and a group with an administrator needs them in one: what a \
         replica may still certify is written there (`ReplicaKeys::load`)"
    )]
    KeysInNoFile {
        /// The replica.
        id: u16,
    },
    /// A private file could not be read, written or opened.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// A key file is empty or lacks its end.
    #[error("{}: {how}: it has {found} bytes, and the key file of {whose} has {expected}. A full disk or \
             a copy that was broken off does that; {cure}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is the matter with it.
        how: &'static str,
        /// Its length in bytes.
        found: usize,
        /// The length that `hybster init` gives it, in bytes.
        expected: usize,
        /// The replica or client whose keys were wanted.
        whose: String,
        /// What to do.
        cure: &'static str,
    },
    /// A key file belongs to something else.
    #[error("{}: {what}; install the file that was made for this group and {whose}", file.display())]
    WrongKeys {
        /// The file.
        file: PathBuf,
        /// What does not match.
        what: String,
        /// The replica or client whose keys were wanted.
        whose: String,
    },
    /// The group has no such replica or client.
    #[error("{}: there is no {whose}; it lists {count}, numbered from 0", file.display())]
    Unknown {
        /// The group file.
        file: PathBuf,
        /// The replica or client that was asked for.
        whose: String,
        /// How many there are.
        count: usize,
    },
    /// The options for a new group are contradictory.
    #[error("cannot make a group: {option}: {cure}")]
    Options {
        /// The option.
        option: &'static str,
        /// What would be right.
        cure: String,
    },
    /// An environment variable cannot be read.
    #[error("the environment variable {variable} {what}")]
    Environment {
        /// Its name.
        variable: String,
        /// What is the matter with it.
        what: &'static str,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes: {0}; allow getrandom and try again")]
    Random(String),
}
