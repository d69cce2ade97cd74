//! What goes wrong, where, and what to do.

use std::fmt;
use std::io;

/// Why a log cannot be opened, or takes nothing more.
///
/// All are final: a log is not tried again by itself. What [`crate::Log::synced`] covered when it
/// failed is safe.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The system refused an operation.
    #[error(
        "{file}: {action} failed: {source}. The log takes nothing more: see to the disk, then start \
         again. Retrying would prove nothing, as the system forgets what it could not write"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file, with its path.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// Neither the reserve nor the disk has room for another segment.
    #[error("{file}: the disk is full. Free at least {bytes} bytes there, then start again")]
    Full {
        /// The file that could not be made.
        file: String,
        /// What is missing.
        bytes: u64,
    },
    /// Another process has the directory.
    #[error("{file} is locked: another process uses this log. Stop it first")]
    Locked {
        /// The file that is locked.
        file: String,
    },
    /// What is in a file is not what was written.
    #[error(
        "{file}, byte {offset}: {damage}. The log is damaged, and what it held may have been relied \
         upon by others: do not cut it off or remove it. Start this replica with a new life, or \
         restore the disk"
    )]
    Damaged {
        /// The file, with its path.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// A file of the log is not there.
    #[error(
        "{file} is missing, though later segments are there. Restore it, or start this replica with \
         a new life"
    )]
    Missing {
        /// The file, with its path.
        file: String,
    },
    /// The directory has files of several logs.
    #[error("{file} belongs to another log than the first segment. Keep one log in a directory")]
    AnotherLog {
        /// The file, with its path.
        file: String,
    },
    /// Another version of this program wrote the log.
    #[error(
        "{file} has format version {version}; this program reads version {}",
        crate::format::VERSION
    )]
    Version {
        /// The file, with its path.
        file: String,
        /// Its version.
        version: u32,
    },
    /// An option makes no sense.
    #[error("{0}")]
    Options(&'static str),
    /// The log was closed by its owner.
    #[error("the log is closed")]
    Closed,
}

/// How it is known that a file is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Damage {
    /// A header is neither what was written nor what was there before.
    Header,
    /// The header of a segment that was in use reads as never written.
    LostHeader,
    /// A sector is neither what was written nor what was there before.
    Checksum,
    /// A sector cannot be read.
    Unreadable,
    /// A sector reads as never written, but something later says that it had been synced.
    LostSector,
    /// Sectors are whole, but the records in them are not.
    Records,
    /// A segment does not continue the one before it.
    Joint,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "the header of the segment is broken",
            Self::LostHeader => "the header of the segment is lost, though it had been synced",
            Self::Checksum => "a sector is neither old nor new, as a loss of power would leave it",
            Self::Unreadable => "a sector cannot be read",
            Self::LostSector => "a sector is lost that had been synced",
            Self::Records => "whole sectors hold no whole records",
            Self::Joint => "the segment does not continue the one before it",
        })
    }
}

/// Why a record was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum AppendError {
    /// The record is longer than [`crate::Options::longest_record`].
    #[error("the record has {bytes} bytes; a log takes {limit} at most")]
    TooLong {
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The buffer is full, and the log was opened with [`crate::WhenFull::Refuse`].
    #[error("the buffer of the log is full: let its writer work first")]
    Full,
    /// The log takes nothing more; [`crate::Log::failure`] says why.
    #[error("the log takes nothing more")]
    Failed,
}
