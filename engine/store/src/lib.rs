//! Checkpoints on disk: the pages of a state and a manifest, replaced in one step. Only pages that have changed are
//! written, and a crash at any point leaves the old checkpoint or the new one.
//!
//! The store knows nothing of the protocol. A page is bytes with a name ([`PageId`]); what vouches for a
//! checkpoint, and the configuration of the group, are bytes in its [`Manifest`]; the rule by which pages have a
//! digest is given to [`Store::verify`].
//!
//! ```
//! use hybster_log::Directory;
//! use hybster_store::{Manifest, Options, PageId, Store};
//!
//! # let path = std::env::temp_dir().join(format!("hybster-store-doc-{}", std::process::id()));
//! # let _ = std::fs::remove_dir_all(&path);
//! # let random = [1; 16];
//! // A directory of its own.
//! let (mut store, last) = Store::open(Directory::open(&path)?, Options::default(), random)?;
//! assert_eq!(last, None);
//!
//! // The first checkpoint has all pages, a later one what has changed.
//! store.begin(Manifest { order: 128, pages: vec![1, 2], ..Manifest::default() })?;
//! store.put_page(PageId { part: 0, index: 0 }, b"sessions")?;
//! store.put_page(PageId { part: 1, index: 0 }, b"accounts")?;
//! store.put_page(PageId { part: 1, index: 1 }, b"")?;
//! store.commit()?;
//! store.begin(Manifest { order: 256, pages: vec![1, 1], ..Manifest::default() })?;
//! store.put_page(PageId { part: 1, index: 0 }, b"more accounts")?;
//! store.remove_page(PageId { part: 1, index: 1 })?;
//! store.commit()?;
//! drop(store);
//!
//! // After a restart: the digest first, then the pages.
//! let (mut store, last) = Store::open(Directory::open(&path)?, Options::default(), random)?;
//! assert_eq!(last.map(|manifest| manifest.order), Some(256));
//! # fn digest(_: &[u8]) -> [u8; 32] { [0; 32] }
//! # fn root(_: &Manifest, _: &[Vec<[u8; 32]>]) -> [u8; 32] { [0; 32] }
//! store.verify(|_, content| digest(content), root)?;
//! let mut content = Vec::new();
//! store.read_page(PageId { part: 1, index: 0 }, &mut content)?;
//! assert_eq!(content, b"more accounts");
//! # std::fs::remove_dir_all(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! When [`Store::commit`] has returned, or a [`StoreThread`] has said so, the checkpoint is durable. Before, a start
//! finds the one before it or this one, whole, and never parts of both; also after the process was killed, the
//! power failed, or a write or sync did.
//!
//! This takes a disk that keeps what it has confirmed as synced, and of a sector of 512 bytes that was being
//! written has the old or the new content: what `hybster-log` takes, too. What a disk loses or changes in spite of it is
//! found: superblocks, the table and each page have checksums, so that a read gives what was written or
//! [`StoreError::Damaged`]. They are no authenticators: whoever can write the files can make them right. That is
//! what the digest is for, which [`Store::verify`] computes over all pages.
//!
//! One thing looks like an older checkpoint and is one: a disk that turns the last superblock back into the one it
//! replaced, after confirming its sync, or an older copy of the directory. No store can tell; its owner can, by the
//! log, which begins behind the checkpoint that it was truncated for.
//!
//! # In which order
//!
//! A commit is two syncs (`FORMAT.md` has the bytes):
//!
//! 1. Pages are written to free blocks as they come, with a sync every [`Options::sync_bytes`], so that no sync
//!    has much to do, and others on the same disk do not wait long. Then the table of all pages is, also to free blocks.
//! 2. Sync. All that the new superblock will refer to is durable.
//! 3. The superblock is written over the last but one. It is one sector, so it is never torn.
//! 4. Sync. The new checkpoint is durable; only now are the blocks free that only the old one used, and the end
//!    of the file is cut off if much of it is free.
//!
//! A start writes the superblock that it has found again, and syncs it, before anything can be overwritten that the one
//! before needs: the process that wrote it may have been killed in front of step 4, or been told that its sync had
//! failed, and it would be only in the page cache.
//!
//! # A restart
//!
//! [`Store::verify`] reads all pages in the order of the file, a MiB at a time, which is as fast as the disk. Pages that
//! have been replaced often are far from their neighbours: 1 GiB of pages of 4 KiB, after 50 checkpoints in which 1 % had
//! changed, was scanned in 2.5 s and read by number in 14.5 s, both without page cache. So scan first: keep the pages, or read them
//! by number afterwards, from the page cache. [`Store::verify_beside`] makes the digests on another thread meanwhile, and a
//! [`Reader`] hands out pages by number while the store itself is on its way to its thread.
//!
//! # Read by others
//!
//! An [`Observer`] reads the last checkpoint of a store that its own process goes on writing, and
//! [`Observer::copy_into`] copies it into another one, for a backup. It takes no lock and writes nothing.
//!
//! # Never in anybody's way
//!
//! The store belongs to a thread that may wait for the disk. All it does is in steps of a page or 64 KiB of the table
//! ([`Store::put_page`], [`Store::commit_step`]), and a sync. [`StoreThread`] is that thread: [`StoreThread::submit`]
//! never waits, and hands a checkpoint back while the one before is being written; the state goes on, and a
//! later checkpoint has its changes as well.
//!
//! # Bounds
//!
//! All are in [`Options`]. The only source is the replica itself: pages and their number come from its own service and
//! session table.
//!
//! - *Disk*: old and new checkpoint, pages in whole blocks of 4,096 bytes, with 12 bytes for each page in the
//!   table, and a sixteenth ahead: with b blocks for a checkpoint, 2 · b + b / 8 + 258 once it has been the size it is for two
//!   checkpoints, as pages at the end of the file are moved forward when the state has shrunk. Never more than
//!   [`Options::most_bytes`]: beyond it a put or commit fails ([`StoreError::Limit`]), as it does on a full disk
//!   ([`StoreError::Full`]). Both leave the last checkpoint as it is, and the store usable.
//! - *Memory*: 32 bytes for each page, 24 more for each in a scan or changed in an update; buffers of 1 MiB, or a page. At a start
//!   the table is read whole.
//!
//! # Own code, and redb
//!
//! redb 4.6 was measured first (its `StorageBackend` runs over the virtual disk; 500 of 500 lives with crashes there were
//! right), with a cache of 64 MiB, one transaction per checkpoint and quick repair, on a machine with 2 cores and a virtual
//! disk (about 0.5 to 0.9 GB/s), 1 GiB of state. The store on the same disk, later the same hour; a run of either varied
//! twofold:
//!
//! | | redb | this crate |
//! |---|---|---|
//! | bytes written per byte of pages, all changed: 64 KiB, 4 MiB pages | 4.0, 4.0 | 1.00, 1.00 |
//! | the same, 60 KiB pages, which fit redb's pages | 2.1 | 1.00 |
//! | 1 % changed: 64 KiB, 4 MiB pages | 2.6 to 3.1, 2.7 to 3.4 | 1.02, 1.00 |
//! | file after two checkpoints | 5.4 GB, 4.3 GB (60 KiB: 3.3 GB) | 2.16 GB |
//! | all changed, seconds: 64 KiB pages | 4.7 to 17.7 | 3.2 to 6.4 |
//! | start and read all, without page cache, seconds: 64 KiB pages | 3.7; killed 4.8 | 1.0 to 6.8 (the disk's speed) |
//! | a bit flipped in 2,000 files | 793 times wrong pages without an error, 3 panics | named in each case |
//! | longest step | the commit: 1.6 to 3.4 s | a sync of 16 MiB: 0.2 s |
//! | lines, unit tests included | 43,600 | 2,400 |
//!
//! A well-kept library is worth more than own code unless it fails what is asked for. It does here: it takes more than two
//! checkpoints' worth of disk, writes each page twice and in powers of two, panics on some damage (a replica must say what
//! to do), and commits in one long call. That it is a B-tree with transactions for readers is of no use for pages with
//! numbers.
//!
//! Small pages cost more: 3,000 bytes take a block of 4,096, and a commit writes the whole table, 12 bytes for each page. With
//! 360,000 pages of 3,000 bytes of which 1 % change that is 1.8 bytes per byte of pages, 19 MB in all.
#![forbid(unsafe_code)]

mod error;
mod format;
#[doc(hidden)]
pub mod mutants;
mod observer;
mod open;
mod options;
mod read;
mod reader;
mod space;
mod store;
mod table;
mod thread;
mod update;
mod verify;

pub use error::{Damage, StoreError};
pub use observer::{Observed, Observer};
pub use options::Options;
pub use read::Scan;
pub use reader::Reader;
pub use store::{Counters, Manifest, Store};
pub use table::PageId;
pub use thread::{Change, Job, StoreThread};
pub use update::Step;
