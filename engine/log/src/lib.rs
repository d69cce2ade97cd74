//! The durable log of a replica: records in one order over all threads, written and synced in groups,
//! read back after a crash.
//!
//! The log knows nothing of the protocol. A record is a kind, the number of who wrote it, and bytes.
//!
//! ```
//! use hybster_log::{Directory, Options, Recovery, WriterThread};
//!
//! # let path = std::env::temp_dir().join(format!("hybster-log-doc-{}", std::process::id()));
//! # let _ = std::fs::remove_dir_all(&path);
//! # let random = [1; 16];
//! // Read what is there. Nothing is changed before `finish`.
//! let mut recovery = Recovery::open(Directory::open(&path)?, Options::default(), random)?;
//! while let Some(record) = recovery.next()? {
//!     println!("kind {}, up to {:?}: {:?}", record.kind, record.end, record.content);
//! }
//! let (log, writer, report) = recovery.finish()?;
//! assert!(report.is_new && report.last_break.is_none());
//!
//! // One thread writes. It says when more may leave.
//! let writer = WriterThread::start(writer, || { /* wake whoever holds messages back */ })?;
//!
//! // Each stage appends by a handle of its own. What depends on the record carries the cursor …
//! let appender = log.appender(0);
//! let after = appender.append(7, &[b"order 12: ", b"the batch"])?;
//! appender.wake_writer(); // once a turn
//!
//! // … and leaves when the gate has reached it.
//! let mut gate = log.gate();
//! while gate.released(0) < after {
//!     assert!(log.failure().is_none());
//!     std::thread::yield_now();
//! }
//! writer.close()?;
//! # std::fs::remove_dir_all(&path)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is promised
//!
//! Of what the [`Gate`] has released, by [`Durability`]:
//!
//! | | the process is killed | the power fails |
//! |---|---|---|
//! | `Sync` | nothing is lost | nothing is lost |
//! | `Async` | nothing is lost | at most what was released in the last `window_ms`, and `window_bytes` |
//! | `None` | nothing is lost | anything may be lost |
//!
//! In all of them a recovery finds a prefix of what was appended, in the order of the cursors, without a
//! hole. After a loss of power in `Async` and `None` it cannot know whether it has found all that was
//! released; it says so ([`Report::last_break`]), and says it again at every later start.
//!
//! This takes a disk that keeps what it has confirmed as synced, and of a sector of 512 bytes that
//! was being written has the old or the new content. What `Async` and `None` say of a killed process
//! takes more: that the system had no error when it wrote back what the page cache has. Nobody is told
//! of one that comes between the last sync and the end of the process; a start finds it as long as the
//! system remembers it.
//!
//! # Torn or damaged
//!
//! What was released must never be cut off silently: a replica that goes on without it would use a
//! counter twice. So [`Recovery`] tells two cases apart, by evidence in the files (`FORMAT.md`):
//!
//! - **Torn**: from some sector on, sectors are old (never written, or of what the file was used for
//!   before) or new, and no sector or header says that what is missing had ever been synced. On a disk as
//!   above this is what a crash leaves, and what is missing was not released in `Sync`. It is cut off, and the
//!   report says where.
//! - **Damaged**: everything else, as [`LogError::Damaged`]: a sector that is neither old nor new, even the
//!   very last; one that cannot be read; one that is lost although a later batch, segment or the closing of the log says that
//!   it had been synced.
//!
//! Two things look like a torn log and are none; no log can tell them apart, as nothing is left that
//! could: the *last* batch, if the disk has lost it as a whole after confirming its sync; and an older
//! copy of the whole directory. Against these its owner needs a witness elsewhere: what it told others,
//! a trusted counter, or nothing older than a known cursor. A log that was closed has no last batch in that
//! sense. Damage that was meant to be found by nobody is not found either: the checksums are no
//! authenticators.
//!
//! # Invariants
//!
//! 1. *One order.* [`Appender::append`] reserves the record's place in the log by one addition before it returns. So
//!    whoever learns of it, on any thread, gets a cursor behind it from [`Log::appended`].
//! 2. *Released is durable* (in `Sync`): the gate moves after the sync of the file, and after the sync of its name.
//! 3. *Written once.* A sector is never written twice with other bytes, and a batch begins a new block. What was
//!    released cannot be torn by what comes after it.
//! 4. *Failure is final.* After a write or sync that failed nothing is written, synced or released any more
//!    ([`Log::failure`]): the system calls pages clean that it could not write, so a second sync proves
//!    nothing. For the same reason a recovery writes again what may be only in the page cache.
//! 5. *Truncation* only removes whole segments, from the oldest on, below what the owner has said.
//! 6. A crash at any point of a recovery changes nothing of what the next one finds.
//!
//! # Bounds
//!
//! All are in [`Options`]. Memory: the buffer, 256 KiB of blocks that are being made, and in a recovery the longest record.
//! The buffer has no shares: all appenders are stages of one replica, and what they append for others is bounded
//! by windows. When it is half full the log [is congested](Log::is_congested): clients are not
//! read. If it gets full all the same an append waits, for the disk and no longer; with a buffer twice as
//! large as what windows allow it never does. Disk: space is taken ahead, and told ([`Log::space`]). When no more
//! is to be had clients are held, and the reserve takes what was accepted. It grows with the longest records that the owner
//! tells of ([`Log::expect`]). When it is used up the log fails ([`LogError::Full`]).
//!
//! # Why own code
//!
//! Logs that can be had as crates order records by a lock or by one writer, block in commit, or bring their own
//! runtime; none takes records of several threads by one addition, leaves the waiting to a gate, and runs on a
//! simulator's disk. What proves that nothing was lost (rule 3, evidence in each sector) is what a replica
//! with trusted counters needs and others do not.
#![forbid(unsafe_code)]

#[doc(hidden)]
pub mod damage;
mod directory;
mod disk;
mod doorbell;
mod error;
mod format;
mod gate;
mod log;
#[cfg(all(test, loom))]
mod models;
#[doc(hidden)]
pub mod mutants;
mod options;
mod recovery;
mod ring;
mod sync;
mod thread;
mod writer;

pub use directory::Directory;
pub use disk::Disk;
pub use error::{AppendError, Damage, LogError};
pub use gate::Gate;
pub use log::{Appender, Counters, Cursor, Log, Space, SyncTimes};
pub use options::{Durability, Options, WhenFull};
pub use recovery::{Cut, Record, Recovery, Report};
pub use thread::WriterThread;
pub use writer::{Step, Writer};

/// For the fuzz target of this repository only.
#[doc(hidden)]
pub mod internals {
    /// Makes all checksums of a segment's file right.
    pub fn reseal(file: &mut [u8]) {
        crate::format::reseal(file);
    }
}
