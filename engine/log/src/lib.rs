//! The durable log of a replica.
#![forbid(unsafe_code)]

mod bell;
mod directory;
mod disk;
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
pub use log::{Appender, Counters, Cursor, Log, Space};
pub use options::{Durability, Options, WhenFull};
pub use recovery::{Cut, Record, Recovery, Report};
pub use thread::WriterThread;
pub use writer::{Step, Writer};
