//! The table of pages: stable indices, copy on write, and versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::service::{PAGES_PER_GROUP, RestoreError, Snapshot};

use super::leaf::Leaf;
use super::reclaim::{Dropped, Reclaim};

/// Index of a page.
pub(super) type PageId = u32;

/// The most pages, used and free, that a store may have.
pub(super) const MAX_PAGES: PageId = 1 << 26;

/// Pages per chunk. A snapshot costs a step per chunk. Checkpoints compare chunks first.
const CHUNK_PAGES: usize = PAGES_PER_GROUP as usize;

/// Pages per node of a chunk. The first write to a chunk after a snapshot costs a step per node,
/// the first write to a node a step per page of it. Each step is a cache miss, at the write and
/// again when the snapshot is dropped. There are fewest at the square root.
const NODE_PAGES: usize = 8;

/// All pages of a store.
///
/// The table ends with the last page in use; a page that is not in use is empty. So the pages alone
/// determine which page is allocated next: the lowest free one, or if there is none the one after
/// the last.
#[derive(Debug, Default)]
pub(super) struct PageTable {
    chunks: Vec<Arc<Chunk>>,
    /// The free pages before the last one, as runs of first page and first page after.
    free: BTreeMap<PageId, PageId>,
    length: PageId,
    /// The last version. It never goes back, not even when the pages are replaced.
    version: u64,
    pub(super) reclaim: Reclaim,
}

#[derive(Clone, Debug)]
pub(super) struct Chunk {
    /// Rises with each change of a page in it; unique in the store, 0 if it was always empty.
    version: u64,
    /// The same for each page, 0 for a free one. They are here because checkpoints read them all.
    versions: [u64; CHUNK_PAGES],
    pub(super) nodes: [Arc<Node>; CHUNK_PAGES / NODE_PAGES],
}

pub(super) type Node = [Option<Arc<Leaf>>; NODE_PAGES];

impl Chunk {
    fn empty() -> Self {
        let node = Arc::new([const { None }; NODE_PAGES]);
        Self {
            version: 0,
            versions: [0; CHUNK_PAGES],
            nodes: std::array::from_fn(|_| Arc::clone(&node)),
        }
    }

    fn slot(&self, slot: usize) -> Option<&Arc<Leaf>> {
        self.nodes[slot / NODE_PAGES][slot % NODE_PAGES].as_ref()
    }

    /// The entry of a page that changes to this version.
    fn slot_mut(
        &mut self,
        slot: usize,
        version: u64,
        reclaim: &mut Reclaim,
    ) -> &mut Option<Arc<Leaf>> {
        self.version = version;
        self.versions[slot] = version;
        &mut reclaim.own_node(&mut self.nodes[slot / NODE_PAGES])[slot % NODE_PAGES]
    }
}

impl PageTable {
    /// The number of pages, used and free.
    pub(super) fn len(&self) -> PageId {
        self.length
    }

    /// A page in use.
    pub(super) fn leaf(&self, page: PageId) -> &Leaf {
        self.slot(page).expect("the page is in use")
    }

    /// A page in use, to change it.
    pub(super) fn leaf_mut(&mut self, page: PageId) -> &mut Leaf {
        self.version += 1;
        let (chunk, slot) = place(page);
        let chunk = Arc::make_mut(&mut self.chunks[chunk]);
        let leaf = chunk.slot_mut(slot, self.version, &mut self.reclaim);
        self.reclaim.own_leaf(leaf.as_mut().expect("the page is in use"))
    }

    /// Puts a leaf into the lowest free page.
    pub(super) fn allocate(&mut self, leaf: Leaf) -> PageId {
        self.version += 1;
        let page = match self.free.pop_first() {
            Some((first, end)) => {
                if first + 1 < end {
                    self.free.insert(first + 1, end);
                }
                first
            }
            None => {
                self.length += 1;
                self.length - 1
            }
        };
        self.put(page, Arc::new(leaf), self.version);
        page
    }

    /// Frees a page and returns what it held.
    pub(super) fn release(&mut self, page: PageId) -> Arc<Leaf> {
        self.version += 1;
        let (chunk, slot) = place(page);
        let chunk = Arc::make_mut(&mut self.chunks[chunk]);
        let leaf = chunk.slot_mut(slot, self.version, &mut self.reclaim).take();
        chunk.versions[slot] = 0;
        let (mut first, mut end) = (page, page + 1);
        if let Some((&before, &before_end)) = self.free.range(..page).next_back()
            && before_end == page
        {
            first = before;
        }
        if let Some(after_end) = self.free.remove(&end) {
            end = after_end;
        }
        if end == self.length {
            self.free.remove(&first);
            self.length = first;
            self.chunks.truncate((first as usize).div_ceil(CHUNK_PAGES));
        } else {
            self.free.insert(first, end);
        }
        leaf.expect("the page is in use")
    }

    /// The pages as they are now, at the cost of a step per chunk.
    pub(super) fn snapshot(&mut self) -> PageSnapshot {
        let dropped = self.reclaim.snapshot();
        PageSnapshot { chunks: self.chunks.clone(), length: self.length, dropped }
    }

    /// Replaces the pages by those that [`PageTable::load`] made from them.
    pub(super) fn replace(&mut self, loaded: Self) {
        let before = std::mem::replace(self, loaded);
        self.reclaim = before.reclaim;
        self.reclaim.drop_later(before.chunks);
    }

    /// Reads the pages of a checkpoint into a new table. Pages that are as in this table are
    /// shared with it and keep their versions.
    pub(super) fn load(
        &self,
        source: &dyn Snapshot,
        base: Option<Base<'_>>,
    ) -> Result<Loaded, RestoreError> {
        let count = source.page_count();
        if count > u64::from(MAX_PAGES) {
            let what = format!("{count} pages are more than {MAX_PAGES}");
            return Err(RestoreError { page: u64::from(MAX_PAGES), what });
        }
        // A new version, since a chunk may differ even if all its leaves are in this table.
        let pages = Self { version: self.version + 1, ..Self::default() };
        let mut loaded = Loaded { pages, removed: Vec::new(), added: Vec::new() };
        let count = count as PageId;
        for first in (0..count).step_by(CHUNK_PAGES) {
            let end = count.min(first + CHUNK_PAGES as PageId);
            match self.kept_chunk(first, end, base) {
                Some(chunk) => loaded.pages.share(first, end, chunk),
                None => {
                    for page in first..end {
                        self.load_page(page, source, base, &mut loaded)?;
                    }
                }
            }
        }
        let beyond = count..self.length.max(count);
        loaded.removed.extend(beyond.filter(|page| self.slot(*page).is_some()));
        Ok(loaded)
    }

    /// The chunk of these pages, if all of them stay as they are in this table.
    fn kept_chunk(
        &self,
        first: PageId,
        end: PageId,
        base: Option<Base<'_>>,
    ) -> Option<&Arc<Chunk>> {
        let at = first as usize / CHUNK_PAGES;
        let (base, chunk) = (base?, self.chunks.get(at)?);
        let known = base.snapshot.group_version(at as u64) == Some(chunk.version);
        let used = (end - first) as usize;
        let none_beyond = chunk.versions[used..].iter().all(|version| *version == 0);
        (known && none_beyond && base.listed(first, end).is_empty()).then_some(chunk)
    }

    fn load_page(
        &self,
        page: PageId,
        source: &dyn Snapshot,
        base: Option<Base<'_>>,
        loaded: &mut Loaded,
    ) -> Result<(), RestoreError> {
        let here = self.slot(page).map(|leaf| (leaf, self.page_version(page)));
        if let Some((leaf, version)) = here
            && base.is_some_and(|base| base.has(page, version))
        {
            loaded.pages.append(page, Arc::clone(leaf), version);
            return Ok(());
        }
        let bytes = source.page(page.into());
        if let Some((leaf, version)) = here {
            if leaf.bytes() == bytes {
                loaded.pages.append(page, Arc::clone(leaf), version);
                return Ok(());
            }
            loaded.removed.push(page);
        }
        if !bytes.is_empty() {
            let leaf =
                Leaf::parse(&bytes).map_err(|what| RestoreError { page: page.into(), what })?;
            loaded.pages.version += 1;
            loaded.pages.append(page, Arc::new(leaf), loaded.pages.version);
            loaded.added.push(page);
        }
        Ok(())
    }

    /// Appends a leaf.
    fn append(&mut self, page: PageId, leaf: Arc<Leaf>, version: u64) {
        self.extend_to(page);
        self.put(page, leaf, version);
    }

    /// Appends a chunk for the pages from `first` to before `end`.
    fn share(&mut self, first: PageId, end: PageId, chunk: &Arc<Chunk>) {
        for page in first..end {
            if chunk.versions[page as usize % CHUNK_PAGES] != 0 {
                self.extend_to(page);
            }
        }
        if self.length > first {
            self.make_room(first as usize / CHUNK_PAGES);
            self.chunks.push(Arc::clone(chunk));
        }
    }

    /// Makes `page` the last one; those skipped are free.
    fn extend_to(&mut self, page: PageId) {
        if self.length < page {
            self.free.insert(self.length, page);
        }
        self.length = page + 1;
    }

    fn slot(&self, page: PageId) -> Option<&Arc<Leaf>> {
        slot(&self.chunks, page)
    }

    fn page_version(&self, page: PageId) -> u64 {
        page_version(&self.chunks, page)
    }

    fn put(&mut self, page: PageId, leaf: Arc<Leaf>, version: u64) {
        let (chunk, slot) = place(page);
        self.make_room(chunk + 1);
        let chunk = Arc::make_mut(&mut self.chunks[chunk]);
        *chunk.slot_mut(slot, version, &mut self.reclaim) = Some(leaf);
        chunk.version = self.version;
    }

    /// Adds chunks until there are `count`.
    fn make_room(&mut self, chunks: usize) {
        if chunks > self.chunks.len() {
            // Skipped chunks share one empty chunk until they are written to.
            self.chunks.resize(chunks, Arc::new(Chunk::empty()));
        }
    }
}

/// An earlier snapshot of a store that is to be restored, and the pages in which the source
/// differs.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    pub(super) snapshot: &'a dyn Snapshot,
    /// Ascending.
    pub(super) changed: &'a [u64],
}

impl Base<'_> {
    /// The listed pages from `first` to before `end`.
    fn listed(&self, first: PageId, end: PageId) -> &[u64] {
        let below = |limit: PageId| self.changed.partition_point(|page| *page < limit.into());
        &self.changed[below(first)..below(end)]
    }

    /// Whether the source has a page as it is in the store with this version.
    fn has(&self, page: PageId, version: u64) -> bool {
        self.snapshot.page_version(page.into()) == Some(version)
            && self.listed(page, page + 1).is_empty()
    }
}

/// A table read from the pages of a checkpoint.
pub(super) struct Loaded {
    pub(super) pages: PageTable,
    /// Pages of the previous table whose leaves are gone.
    pub(super) removed: Vec<PageId>,
    /// Pages whose leaves are new.
    pub(super) added: Vec<PageId>,
}

/// The pages of a store at one moment.
pub(super) struct PageSnapshot {
    chunks: Vec<Arc<Chunk>>,
    length: PageId,
    dropped: Dropped,
}

impl Drop for PageSnapshot {
    fn drop(&mut self) {
        self.dropped.push(std::mem::take(&mut self.chunks));
    }
}

impl PageSnapshot {
    fn slot(&self, index: u64) -> Option<&Arc<Leaf>> {
        slot(&self.chunks, index.try_into().ok()?)
    }
}

impl Snapshot for PageSnapshot {
    fn page_count(&self) -> u64 {
        self.length.into()
    }

    /// The page shares the bytes of the store.
    fn page(&self, index: u64) -> Bytes {
        self.slot(index).map_or_else(Bytes::new, |leaf| Bytes::from_owner(Page(leaf.clone())))
    }

    /// A free page has version 0, which no page in use has.
    fn page_version(&self, index: u64) -> Option<u64> {
        Some(index.try_into().map_or(0, |page| page_version(&self.chunks, page)))
    }

    fn group_version(&self, group: u64) -> Option<u64> {
        let chunk = usize::try_from(group).ok().and_then(|group| self.chunks.get(group));
        Some(chunk.map_or(0, |chunk| chunk.version))
    }
}

struct Page(Arc<Leaf>);

impl AsRef<[u8]> for Page {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

fn place(page: PageId) -> (usize, usize) {
    (page as usize / CHUNK_PAGES, page as usize % CHUNK_PAGES)
}

fn slot(chunks: &[Arc<Chunk>], page: PageId) -> Option<&Arc<Leaf>> {
    let (chunk, slot) = place(page);
    chunks.get(chunk)?.slot(slot)
}

fn page_version(chunks: &[Arc<Chunk>], page: PageId) -> u64 {
    let (chunk, slot) = place(page);
    chunks.get(chunk).map_or(0, |chunk| chunk.versions[slot])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use hybster_proto::service::Pages;
    use proptest::prelude::*;

    use super::*;

    fn table_of(count: usize) -> PageTable {
        let mut table = PageTable::default();
        for i in 0..count {
            assert_eq!(table.allocate(Leaf::single(&[1], &[2])), i as PageId);
        }
        table
    }

    #[test]
    fn the_lowest_free_page_comes_first_and_the_end_is_trimmed() {
        let mut table = table_of(3 * CHUNK_PAGES);
        for page in [5, 9, 7, 8, 6, 100] {
            table.release(page);
        }
        assert_eq!(table.free, BTreeMap::from([(5, 10), (100, 101)]));
        assert_eq!(table.allocate(Leaf::single(b"", b"")), 5);
        assert_eq!(table.allocate(Leaf::single(b"", b"")), 6);
        for page in (101..3 * CHUNK_PAGES).rev() {
            table.release(page as PageId);
        }
        assert_eq!((table.len(), table.chunks.len()), (100, 2));
        for page in (0..100).filter(|page| !(7..10).contains(page)) {
            table.release(page);
        }
        assert_eq!((table.len(), table.chunks.len(), table.free.len()), (0, 0, 0));
    }

    #[test]
    fn a_write_after_a_snapshot_copies_one_leaf_node_and_chunk() {
        let mut table = table_of(3 * CHUNK_PAGES);
        let snapshot = table.snapshot();
        table.leaf_mut(1).replace(0, b"new");
        let after = table.snapshot();
        let changed = |page: u64| snapshot.page_version(page) != after.page_version(page);
        assert!((0..3 * CHUNK_PAGES as u64).all(|page| changed(page) == (page == 1)));
        let chunk_changed = |chunk| snapshot.group_version(chunk) != after.group_version(chunk);
        assert!((0..3).all(|chunk| chunk_changed(chunk) == (chunk == 0)));
        assert!(!Arc::ptr_eq(&table.chunks[0], &snapshot.chunks[0]));
        assert!(Arc::ptr_eq(&table.chunks[1], &snapshot.chunks[1]));
        let shared = |node: usize| {
            Arc::ptr_eq(&table.chunks[0].nodes[node], &snapshot.chunks[0].nodes[node])
        };
        assert!((0..8).all(|node| shared(node) == (node != 0)));
        assert_eq!(Leaf::parse(&snapshot.page(1)).unwrap().value(0), [2]);
        assert_eq!(table.leaf(1).value(0), b"new");
    }

    #[test]
    fn hostile_page_counts_cost_little() {
        struct Sparse(u64);
        impl Snapshot for Sparse {
            fn page_count(&self) -> u64 {
                self.0
            }
            fn page(&self, index: u64) -> Bytes {
                if index == self.0 - 1 {
                    Bytes::from_static(b"\x01\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0")
                } else {
                    Bytes::new()
                }
            }
        }
        let fault = PageTable::default().load(&Sparse(u64::MAX), None).err().unwrap();
        assert!(fault.what.contains("more than"), "{fault}");
        let table = PageTable::default().load(&Sparse(1 << 20), None).unwrap().pages;
        assert_eq!((table.len(), table.free.len()), (1 << 20, 1));
        assert!(Arc::ptr_eq(&table.chunks[0], &table.chunks[1]));
    }

    #[test]
    fn trailing_free_pages_are_not_kept_and_equal_pages_are_shared() {
        let mut table = table_of(2);
        let pages: Vec<_> = (0..2).map(|page| table.snapshot().page(page)).collect();
        table.leaf_mut(1).replace(0, b"other");
        let before = table.snapshot();
        let mut loaded =
            table.load(&Pages([&pages[..], &[Bytes::new()]].concat()), None).unwrap().pages;
        assert_eq!(loaded.len(), 2);
        let after = loaded.snapshot();
        assert_eq!(after.page_version(0), before.page_version(0));
        assert!(after.page_version(1) > before.page_version(1));
    }

    proptest! {
        #[test]
        fn runs_of_free_pages_agree_with_a_set(
            steps in proptest::collection::vec(0..20u32, 1..400),
        ) {
            let mut table = PageTable::default();
            let mut used = BTreeSet::new();
            for step in steps {
                let page = (0..).find(|page| !used.contains(page)).unwrap();
                if used.contains(&step) {
                    table.release(step);
                    used.remove(&step);
                } else {
                    prop_assert_eq!(table.allocate(Leaf::single(b"", b"")), page);
                    used.insert(page);
                }
                prop_assert_eq!(table.len(), used.last().map_or(0, |last| last + 1));
                let leaves = (0..table.len()).filter(|page| table.slot(*page).is_some());
                prop_assert!(leaves.eq(used.iter().copied()));
                let loaded = PageTable::default().load(&table.snapshot(), None).unwrap().pages;
                prop_assert_eq!(loaded.free, table.free.clone());
            }
        }
    }
}
