//! State in pages, for services that do not want to think about pages.
//!
//! A checkpoint must be cheap whatever the size of the state, and a transfer moves only what differs. So
//! a service's state is a set of pages with stable indices, of which a snapshot tells what has changed
//! ([`Snapshot::page_version`]). These containers do that:
//!
//! - [`PagedMap`] is an ordered map, as [`BTreeMap`](std::collections::BTreeMap).
//! - [`PagedCell`] is one value: a counter, a configuration.
//! - [`PagedBytes`] is a long run of bytes that is written here and there.
//!
//! A snapshot shares what it has with the container. What is changed afterwards is copied first, a
//! page at a time; nothing is encoded before somebody asks for the page, which is not on the
//! thread that executes. The pages follow from the operations alone, on a replica that got its state
//! by transfer too.
//!
//! A [`TypedService`](crate::typed::TypedService) names its containers in one line. A
//! [`Service`](crate::Service) does, with [`snapshot`] and [`restore`]:
//!
//! ```
//! use std::sync::Arc;
//!
//! use hybster::paged::{self, PagedCell, PagedMap};
//! use hybster::testing::check_deterministic;
//! use hybster::{Context, RestoreError, Service, Snapshot};
//!
//! /// Counts words, and all of them together.
//! #[derive(Default)]
//! struct Words {
//!     count: PagedMap<Vec<u8>, u64>,
//!     total: PagedCell<u64>,
//! }
//!
//! impl Service for Words {
//!     fn execute(&mut self, _: &Context, word: &[u8], reply: &mut Vec<u8>) {
//!         let count = self.count.get(word).map_or(1, |count| count + 1);
//!         self.count.insert(word.to_vec(), count);
//!         *self.total += 1;
//!         reply.extend_from_slice(&count.to_le_bytes());
//!     }
//!
//!     fn snapshot(&mut self) -> Arc<dyn Snapshot> {
//!         paged::snapshot(&mut [&mut self.count, &mut self.total])
//!     }
//!
//!     fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
//!         paged::restore(&mut [&mut self.count, &mut self.total], source)
//!     }
//!
//!     fn restore_changed(
//!         &mut self,
//!         source: &dyn Snapshot,
//!         base: &dyn Snapshot,
//!         changed: &[u64],
//!     ) -> Result<(), RestoreError> {
//!         let parts: &mut [&mut dyn paged::Paged] = &mut [&mut self.count, &mut self.total];
//!         paged::restore_changed(parts, source, base, changed)
//!     }
//! }
//!
//! let words: Vec<String> = (0..50).map(|number| format!("word {}", number % 20)).collect();
//! check_deterministic(Words::default, &words)?;
//! # Ok::<(), hybster::testing::Nondeterminism>(())
//! ```

mod bytes;
mod cell;
mod map;
mod parts;
mod table;
mod timers;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use hybster_proto::service::{RestoreError, Snapshot};

pub use self::bytes::PagedBytes;
pub use self::cell::PagedCell;
pub use self::map::PagedMap;
pub use self::parts::{restore, restore_changed, snapshot};
pub use self::timers::{PagedTimers, TimerId};

/// The longest page that these containers make, in bytes, but for a short head.
const PIECE_BYTES: usize = 1 << 20;

/// A part of a service's state, in pages of its own.
///
/// The functions are those of [`Service`](crate::Service). Besides what is said there, the version of a page
/// must never fall, nor that of a group of pages, so that versions of several can be added.
pub trait Paged: Send + 'static {
    /// An immutable handle on the present state. It must be cheap.
    fn snapshot(&mut self) -> Arc<dyn Snapshot>;

    /// Replaces the state by the pages of `source`.
    ///
    /// # Errors
    /// If they are no pages of this part.
    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError>;

    /// As [`Self::restore`], where only the pages in `changed` differ from `base`, which this part has
    /// made.
    ///
    /// # Errors
    /// If they are no pages of this part.
    fn restore_changed(
        &mut self,
        source: &dyn Snapshot,
        base: &dyn Snapshot,
        changed: &[u64],
    ) -> Result<(), RestoreError> {
        let _ = (base, changed);
        self.restore(source)
    }
}

fn wrong(page: u64, what: impl Into<String>) -> RestoreError {
    RestoreError { page, what: what.into() }
}
