//! A state that was transferred: pages fetched from peers, on top of those of an earlier
//! checkpoint. One that a replica reads from its disk looks the same to the execution stage.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::service::{Pages, Snapshot};

/// A complete transferred state whose pages were checked against the certified root.
#[derive(Debug)]
pub struct TransferredState {
    /// Pages of meta data and sessions.
    pub bookkeeping: TransferredPages,
    /// Pages of the service.
    pub service: TransferredPages,
}

/// Pages of one tree: those that were fetched, and an earlier checkpoint of this replica for the
/// rest.
pub struct TransferredPages {
    count: u64,
    base: Option<Arc<dyn Snapshot>>,
    /// Where pages are read that are neither fetched nor in a base.
    source: Option<Arc<dyn Snapshot>>,
    fetched: BTreeMap<u64, Bytes>,
}

impl TransferredPages {
    /// The pages of a tree, each either in `fetched` or the same as in `base`.
    #[must_use]
    pub fn new(count: u64, base: Option<Arc<dyn Snapshot>>, fetched: BTreeMap<u64, Bytes>) -> Self {
        Self { count, base, source: None, fetched }
    }

    /// All pages of a source, which is asked for each of them only when somebody wants it: a state that is
    /// on disk need not be in memory as well.
    #[must_use]
    pub fn read_from(source: Arc<dyn Snapshot>) -> Self {
        let (count, fetched) = (source.page_count(), BTreeMap::new());
        Self { count, base: None, source: Some(source), fetched }
    }

    /// This replica's checkpoint that pages were taken from.
    #[must_use]
    pub fn base(&self) -> Option<&dyn Snapshot> {
        self.base.as_deref()
    }

    /// The pages that differ from those of [`TransferredPages::base`], ascending.
    #[must_use]
    pub fn changed(&self) -> Vec<u64> {
        self.fetched.keys().copied().collect()
    }
}

impl Snapshot for TransferredPages {
    fn page_count(&self) -> u64 {
        self.count
    }

    fn page(&self, index: u64) -> Bytes {
        let rest = || {
            let rest = self.base.as_ref().or(self.source.as_ref());
            rest.filter(|_| index < self.count).map(|rest| rest.page(index))
        };
        self.fetched.get(&index).cloned().or_else(rest).unwrap_or_default()
    }
}

impl From<Pages> for TransferredPages {
    fn from(pages: Pages) -> Self {
        let count = pages.page_count();
        Self::new(count, None, (0..).zip(pages.0).collect())
    }
}

impl std::fmt::Debug for TransferredPages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TransferredPages")
            .field("count", &self.count)
            .field("fetched", &self.fetched.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fetched_pages_lie_over_those_of_the_base() {
        let base = Pages(["a", "b", "c"].map(|page| Bytes::from(page.to_owned())).to_vec());
        let fetched = BTreeMap::from([(1, Bytes::from_static(b"B"))]);
        let pages = TransferredPages::new(2, Some(Arc::new(base)), fetched);
        let read: Vec<Bytes> = (0..4).map(|index| pages.page(index)).collect();
        assert_eq!(read, ["a", "B", "", ""].map(|page| Bytes::from(page.to_owned())));
        assert_eq!((pages.page_count(), pages.changed()), (2, vec![1]));
    }

    #[test]
    fn a_source_is_no_base() {
        let source = Pages(["a", "b"].map(|page| Bytes::from(page.to_owned())).to_vec());
        let pages = TransferredPages::read_from(Arc::new(source));
        let read: Vec<Bytes> = (0..3).map(|index| pages.page(index)).collect();
        assert_eq!(read, ["a", "b", ""].map(|page| Bytes::from(page.to_owned())));
        assert!(pages.base().is_none() && pages.changed().is_empty());
    }
}
