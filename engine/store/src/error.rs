//! What goes wrong, where, and what to do.

use std::fmt;
use std::io;

use crate::PageId;

/// Why a store cannot be opened, or did not do what it was asked for.
///
/// [`Self::is_final`] tells those after which there is no going on. Whatever happened, nothing is written
/// over the checkpoint that was committed last.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The system refused an operation.
    #[error(
        "{file}: {action} failed: {source}. The store takes nothing more: see to the disk, then \
         start again. Retrying would prove nothing, as the system forgets what it could not write"
    )]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file, with its path.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The disk has no room for the new checkpoint beside the old one. The update can go on when
    /// there is room, or be abandoned.
    #[error(
        "{file}: the disk is full. Free at least {bytes} bytes there; the last checkpoint stays"
    )]
    Full {
        /// The file, with its path.
        file: String,
        /// What is missing at least.
        bytes: u64,
    },
    /// The new checkpoint beside the old one would take more than [`crate::Options::most_bytes`].
    #[error(
        "{file}: two checkpoints do not fit into {limit} bytes, which the store may take. Raise the \
         limit; the last checkpoint stays"
    )]
    Limit {
        /// The file, with its path.
        file: String,
        /// The limit.
        limit: u64,
    },
    /// Another process has the directory.
    #[error("{file} is locked: another process uses this store. Stop it first")]
    Locked {
        /// The file that is locked.
        file: String,
    },
    /// What is on disk is not what was written.
    #[error(
        "{file}, byte {offset}: {damage}. The checkpoint is damaged: move the directory away and let \
         this replica fetch the state from others, or restore the disk"
    )]
    Damaged {
        /// The file, with its path.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        damage: Damage,
    },
    /// The pages are as they were written, but are not what the manifest says.
    #[error(
        "{file}: the pages of the checkpoint of order {order} do not have the digest in its manifest. \
         Move the directory away and let this replica fetch the state from others"
    )]
    Digest {
        /// The file, with its path.
        file: String,
        /// The checkpoint's order number.
        order: u64,
    },
    /// Another version of this program wrote the store.
    #[error(
        "{file} has format version {version}; this program reads version {}. Use the program that \
         wrote it, or move the directory away and let this replica fetch the state from others",
        crate::format::VERSION
    )]
    Version {
        /// The file, with its path.
        file: String,
        /// Its version.
        version: u32,
    },
    /// The store was changed faster than it could be read.
    #[error(
        "{file}: its checkpoints changed faster than they could be copied, in {rounds} rounds. Copy when there is \
         less load, or from the data of a replica that is stopped"
    )]
    Busy {
        /// The file, with its path.
        file: String,
        /// How often what had changed was read again.
        rounds: u32,
    },
    /// An option, or a manifest, is out of bounds.
    #[error("{0}")]
    Bounds(&'static str),
    /// A page is longer than [`crate::Options::longest_page`].
    #[error("{page} has {bytes} bytes; a store takes {limit} at most")]
    PageTooLong {
        /// The page.
        page: PageId,
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: u32,
    },
    /// The manifest has no such page.
    #[error("the checkpoint has no {0}")]
    NoSuchPage(PageId),
    /// A commit for which a page is missing that the manifest counts, or was not removed that it
    /// does not count.
    #[error("the new checkpoint is not what its manifest says: {0} was neither put nor removed")]
    Incomplete(PageId),
    /// A call at the wrong time: see what the call says.
    #[error("{0}")]
    Misuse(&'static str),
    /// A write or sync has failed before, and was reported.
    #[error("the store has failed and writes nothing more: start again")]
    Failed,
}

impl StoreError {
    /// Whether the owner has to stop: what is on disk, or gets there, is not what it should be.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Io { .. } | Self::Damaged { .. } | Self::Failed)
    }
}

/// How it is known that a store is damaged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Damage {
    /// A superblock is neither what was written nor what was there before.
    Superblock,
    /// The superblocks are whole, but no store has these two beside each other.
    Superblocks,
    /// The table of pages is not what its superblock says.
    Table,
    /// The file ends in front of what is in use.
    Short,
    /// A page is not what the table says.
    Page(PageId),
    /// It cannot be read.
    Unreadable,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Superblock => f.write_str("a superblock is broken"),
            Self::Superblocks => f.write_str("a superblock is lost that had been synced"),
            Self::Table => f.write_str("the table of pages is broken"),
            Self::Short => f.write_str("the file ends in front of what it must hold"),
            Self::Page(page) => write!(f, "{page} is not what was written"),
            Self::Unreadable => f.write_str("it cannot be read"),
        }
    }
}
