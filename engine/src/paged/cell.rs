//! One value in pages.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use hybster_proto::service::{RestoreError, Snapshot};

use super::{PIECE_BYTES, Paged, wrong};
use crate::typed::Message;

/// One value. It is encoded as a whole when a checkpoint finds it changed, and may take several pages.
///
/// It is used as the value itself; a mutable borrow counts as a change.
///
/// ```
/// use hybster::paged::PagedCell;
///
/// let mut tickets = PagedCell::new(7u64);
/// *tickets += 1;
/// assert_eq!(*tickets, 8);
/// ```
#[derive(Clone)]
pub struct PagedCell<T> {
    value: Arc<T>,
    version: u64,
    /// That of the present value, if there is one.
    last: Option<Arc<Frozen<T>>>,
}

impl<T> PagedCell<T> {
    /// A cell with this value.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self { value: Arc::new(value), version: 1, last: None }
    }
}

impl<T: Default> Default for PagedCell<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T> Deref for PagedCell<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: Clone> DerefMut for PagedCell<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.version += 1;
        self.last = None;
        Arc::make_mut(&mut self.value)
    }
}

impl<T: fmt::Debug> fmt::Debug for PagedCell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T: Message + Send + Sync + 'static> Paged for PagedCell<T> {
    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        let (value, version) = (&self.value, self.version);
        let frozen = self.last.get_or_insert_with(|| {
            Arc::new(Frozen { value: Arc::clone(value), version, bytes: OnceLock::new() })
        });
        Arc::<Frozen<T>>::clone(frozen)
    }

    fn restore(&mut self, source: &dyn Snapshot) -> Result<(), RestoreError> {
        let mut bytes = Vec::new();
        (0..source.page_count()).for_each(|page| bytes.extend_from_slice(&source.page(page)));
        // A byte besides those of the value, since a page that is there has at least one.
        let value = bytes.split_first().and_then(|(_, value)| T::decode(value));
        self.value = Arc::new(value.ok_or_else(|| wrong(0, "these bytes are no such value"))?);
        self.version += 1;
        self.last = None;
        Ok(())
    }
}

struct Frozen<T> {
    value: Arc<T>,
    version: u64,
    bytes: OnceLock<Bytes>,
}

impl<T: Message> Frozen<T> {
    fn bytes(&self) -> &Bytes {
        self.bytes.get_or_init(|| {
            let mut bytes = vec![1];
            self.value.encode(&mut bytes);
            bytes.into()
        })
    }
}

impl<T: Message + Send + Sync> Snapshot for Frozen<T> {
    fn page_count(&self) -> u64 {
        self.bytes().len().div_ceil(PIECE_BYTES) as u64
    }

    fn page(&self, index: u64) -> Bytes {
        let bytes = self.bytes();
        let from = usize::try_from(index).unwrap_or(usize::MAX).saturating_mul(PIECE_BYTES);
        bytes.slice(from.min(bytes.len())..from.saturating_add(PIECE_BYTES).min(bytes.len()))
    }

    fn page_version(&self, _index: u64) -> Option<u64> {
        Some(self.version)
    }

    fn group_version(&self, _group: u64) -> Option<u64> {
        Some(self.version)
    }
}
