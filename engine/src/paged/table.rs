//! A table of pages that snapshots share: what is changed is copied first, one page and the heads of its
//! group.

use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::service::{PAGES_PER_GROUP, Snapshot};

/// What a page is before it is encoded.
pub(super) trait Content: Clone + Send + Sync + 'static {
    /// Appends its bytes, at least one.
    fn encode(&self, into: &mut Vec<u8>);
}

/// Pages by their indices.
#[derive(Clone, Debug)]
pub(super) struct Table<P> {
    groups: Vec<Arc<Heads<P>>>,
    count: u64,
    /// The version of the last change.
    version: u64,
}

#[derive(Clone, Debug)]
struct Heads<P> {
    version: u64,
    /// All pages of the group, with their versions.
    pages: Vec<(u64, Option<Arc<P>>)>,
}

impl<P> Default for Table<P> {
    fn default() -> Self {
        Self { groups: Vec::new(), count: 0, version: 0 }
    }
}

fn place(index: u64) -> (usize, usize) {
    ((index / PAGES_PER_GROUP) as usize, (index % PAGES_PER_GROUP) as usize)
}

impl<P> Table<P> {
    pub(super) fn count(&self) -> u64 {
        self.count
    }

    fn at(&self, index: u64) -> Option<&(u64, Option<Arc<P>>)> {
        let (group, place) = place(index);
        self.groups.get(group)?.pages.get(place)
    }

    pub(super) fn get(&self, index: u64) -> Option<&P> {
        self.at(index)?.1.as_deref()
    }

    pub(super) fn version(&self, index: u64) -> Option<u64> {
        self.at(index).map(|(version, _)| *version)
    }
}

impl<P: Content> Table<P> {
    /// The place of a page, which counts as changed.
    fn change(&mut self, index: u64) -> &mut Option<Arc<P>> {
        let (group, place) = place(index);
        while self.groups.len() <= group {
            let pages = vec![(0, None); PAGES_PER_GROUP as usize];
            self.groups.push(Arc::new(Heads { version: 0, pages }));
        }
        self.count = self.count.max(index + 1);
        self.version += 1;
        let heads = Arc::make_mut(&mut self.groups[group]);
        heads.version = self.version;
        heads.pages[place].0 = self.version;
        &mut heads.pages[place].1
    }

    pub(super) fn put(&mut self, index: u64, page: P) {
        *self.change(index) = Some(Arc::new(page));
    }

    /// A page that is there, to be changed.
    pub(super) fn modify(&mut self, index: u64) -> &mut P {
        Arc::make_mut(self.change(index).as_mut().expect("the page is there"))
    }

    /// Takes a page away. Those at the end are no pages any more.
    pub(super) fn free(&mut self, index: u64) {
        if self.get(index).is_some() {
            *self.change(index) = None;
        }
        while self.count > 0 && self.get(self.count - 1).is_none() {
            self.count -= 1;
        }
    }

    pub(super) fn snapshot(&self) -> Arc<dyn Snapshot> {
        Arc::new(Frozen { groups: self.groups.clone(), count: self.count })
    }
}

struct Frozen<P> {
    groups: Vec<Arc<Heads<P>>>,
    count: u64,
}

impl<P: Content> Snapshot for Frozen<P> {
    fn page_count(&self) -> u64 {
        self.count
    }

    fn page(&self, index: u64) -> Bytes {
        let (group, place) = place(index);
        let page = self.groups.get(group).and_then(|heads| heads.pages[place].1.as_deref());
        page.map_or_else(Bytes::new, |page| {
            let mut bytes = Vec::new();
            page.encode(&mut bytes);
            bytes.into()
        })
    }

    fn page_version(&self, index: u64) -> Option<u64> {
        let (group, place) = place(index);
        Some(self.groups.get(group).map_or(0, |heads| heads.pages[place].0))
    }

    fn group_version(&self, group: u64) -> Option<u64> {
        let heads = usize::try_from(group).ok().and_then(|group| self.groups.get(group));
        Some(heads.map_or(0, |heads| heads.version))
    }
}
