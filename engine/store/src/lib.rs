//! x
#![forbid(unsafe_code)]

mod error;
mod format;
#[doc(hidden)]
pub mod mutants;
mod open;
mod options;
mod read;
mod space;
mod store;
mod table;
mod thread;
mod update;

pub use error::{Damage, StoreError};
pub use options::Options;
pub use read::Scan;
pub use store::{Counters, Manifest, Store};
pub use table::PageId;
pub use thread::{Change, Job, StoreThread};
pub use update::Step;
