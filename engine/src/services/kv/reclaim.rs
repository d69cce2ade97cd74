//! Reuses the memory of dropped snapshots, a little with each copy of a leaf.
//!
//! When a checkpoint of a store under load is dropped, it frees tens of thousands of leaves: those
//! that were written to since the checkpoint before it. Freeing them all at once takes tens of
//! milliseconds, because they are scattered over memory and the allocator then merges and sorts
//! them in its next call. So a dropped snapshot only puts its chunks into a queue. Each copy of a
//! leaf first takes a few of them apart, and is made in the memory that this frees.
//!
//! A write makes at most one copy of each kind, and a copy takes apart on average as much as it
//! makes. So the backlog stays below what was written between two checkpoints.

use std::sync::Arc;

use crossbeam::queue::SegQueue;

use super::leaf::Leaf;
use super::pages::{Chunk, Node};

/// Chunks that a copy checks. Most are shared with the store or a later snapshot, unless the store
/// is small for its load.
const CHUNKS_PER_COPY: usize = 4;

/// Nodes that a copy takes apart: more than the one that it makes, so that a backlog shrinks.
const NODES_PER_COPY: usize = 2;

/// Unused leaves given back to the heap per snapshot, at most.
const SHED_PER_SNAPSHOT: usize = 256;

/// The queue into which any thread drops snapshots.
pub(super) type Dropped = Arc<SegQueue<Vec<Arc<Chunk>>>>;

/// Chunks to be taken apart, and leaves and nodes to be reused.
#[derive(Debug, Default)]
pub(super) struct Reclaim {
    dropped: Dropped,
    /// Chunks of dropped snapshots. The store or other snapshots may share them.
    chunks: Vec<Arc<Chunk>>,
    /// Nodes of those chunks. They are not shared, but their leaves may be.
    nodes: Vec<Arc<Node>>,
    /// Empty nodes that are not shared.
    free_nodes: Vec<Arc<Node>>,
    /// Leaves that are not shared.
    free_leaves: Vec<Arc<Leaf>>,
    /// The fewest free leaves since the last snapshot, which is how many were not needed.
    fewest: usize,
}

impl Reclaim {
    /// The queue into which a new snapshot is to be dropped.
    ///
    /// Empties that queue, and of the chunks in it keeps only those that are not shared. So the
    /// backlog is bounded by what was written, not by the number of snapshots.
    pub(super) fn snapshot(&mut self) -> Dropped {
        while let Some(chunks) = self.dropped.pop() {
            self.chunks.extend(chunks.into_iter().filter_map(unshared));
        }
        let shed = (self.fewest / 4).min(SHED_PER_SNAPSHOT);
        self.free_leaves.truncate(self.free_leaves.len() - shed);
        self.fewest = self.free_leaves.len();
        Arc::clone(&self.dropped)
    }

    /// Queues chunks that are no longer needed.
    pub(super) fn drop_later(&mut self, chunks: Vec<Arc<Chunk>>) {
        self.dropped.push(chunks);
    }

    /// Makes a leaf writable: replaces it with a copy if it is shared.
    pub(super) fn own_leaf<'a>(&mut self, leaf: &'a mut Arc<Leaf>) -> &'a mut Leaf {
        if Arc::strong_count(leaf) > 1 {
            self.work();
            let copy = reuse(&mut self.free_leaves, leaf);
            self.fewest = self.fewest.min(self.free_leaves.len());
            *leaf = copy;
        }
        Arc::get_mut(leaf).expect("it is a copy or was not shared")
    }

    /// As [`Reclaim::own_leaf`], for a node.
    pub(super) fn own_node<'a>(&mut self, node: &'a mut Arc<Node>) -> &'a mut Node {
        if Arc::strong_count(node) > 1 {
            *node = reuse(&mut self.free_nodes, node);
        }
        Arc::get_mut(node).expect("it is a copy or was not shared")
    }

    /// Takes a little of the backlog apart.
    fn work(&mut self) {
        for _ in 0..NODES_PER_COPY {
            let Some(mut node) = self.next_node() else { return };
            for leaf in Arc::get_mut(&mut node).into_iter().flatten() {
                let leaf = leaf.take().and_then(unshared);
                self.free_leaves.extend(leaf.filter(|leaf| leaf.is_usual()));
            }
            self.free_nodes.push(node);
        }
    }

    fn next_node(&mut self) -> Option<Arc<Node>> {
        for _ in 0..CHUNKS_PER_COPY {
            if !self.nodes.is_empty() {
                break;
            }
            if self.chunks.is_empty() {
                self.chunks = self.dropped.pop()?;
            }
            let chunk = self.chunks.pop().and_then(Arc::into_inner);
            let nodes = chunk.into_iter().flat_map(|chunk| chunk.nodes);
            self.nodes.extend(nodes.filter_map(unshared));
        }
        self.nodes.pop()
    }
}

/// The value, if it has one owner. If another owner drops it at this moment, it is freed the usual
/// way.
fn unshared<T>(mut shared: Arc<T>) -> Option<Arc<T>> {
    Arc::get_mut(&mut shared).is_some().then_some(shared)
}

/// A copy, in free memory if there is some.
fn reuse<T: Clone>(free: &mut Vec<Arc<T>>, original: &T) -> Arc<T> {
    let Some(mut copy) = free.pop() else { return Arc::new(original.clone()) };
    Arc::get_mut(&mut copy).expect("what is free has one owner").clone_from(original);
    copy
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, VecDeque};

    use bytes::Bytes;
    use hybster_proto::service::Snapshot as _;

    use super::super::pages::{PageId, PageTable};
    use super::*;

    const PAGES: PageId = 1000;
    const INTERVALS: u32 = 200;
    const KEPT: usize = 3;

    /// Makes many snapshots, of which the last few are kept, with this many writes in between.
    ///
    /// Returns the table, and the addresses at which leaves were written to in the second half of
    /// the intervals.
    fn table_after(writes_per_interval: u32) -> (PageTable, BTreeSet<usize>) {
        let mut table = PageTable::default();
        for _ in 0..PAGES {
            table.allocate(Leaf::single(b"key", &0_u32.to_le_bytes()));
        }
        let (mut kept, mut places, mut random) = (VecDeque::new(), BTreeSet::new(), 1_u64);
        for interval in 0..INTERVALS {
            for _ in 0..writes_per_interval {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let leaf = table.leaf_mut((random >> 40) as PageId % PAGES);
                leaf.replace(0, &interval.to_le_bytes());
                if interval >= INTERVALS / 2 {
                    places.insert(std::ptr::from_ref(leaf).addr());
                }
            }
            let snapshot = table.snapshot();
            let pages = |page: PageId| Bytes::copy_from_slice(table.leaf(page).bytes());
            kept.push_back(((0..PAGES).map(pages).collect::<Vec<_>>(), snapshot));
            if kept.len() > KEPT {
                kept.pop_front();
            }
            let (pages, oldest) = &kept[0];
            assert!((0..).zip(pages).all(|(i, page)| oldest.page(i) == *page));
        }
        (table, places)
    }

    #[test]
    fn what_waits_stays_below_what_is_written_and_copies_use_it_again() {
        for writes in [1, 10, 100, 1000, 10_000] {
            let (table, places) = table_after(writes);
            let reclaim = &table.reclaim;
            // A snapshot that is no longer kept is taken apart in the next interval.
            let per_interval = (writes as usize).min(PAGES as usize);
            let most = 2 * per_interval + PAGES as usize / 64 + 1;
            assert!(reclaim.chunks.len() <= most, "{} chunks", reclaim.chunks.len());
            assert!(reclaim.nodes.len() <= most, "{} nodes", reclaim.nodes.len());
            assert!(reclaim.free_nodes.len() <= most, "{} nodes", reclaim.free_nodes.len());
            assert!(reclaim.free_leaves.len() <= most, "{} leaves", reclaim.free_leaves.len());
            let most = PAGES as usize + (KEPT + 2) * per_interval;
            assert!(places.len() <= most, "{} places of leaves", places.len());
        }
    }

    #[test]
    fn a_copy_is_made_in_a_free_leaf() {
        let mut table = table_after(10).0;
        let snapshot = table.snapshot();
        let free = Arc::new(Leaf::single(b"free", b""));
        let place = Arc::as_ptr(&free);
        table.reclaim.free_leaves.push(free);
        (table.reclaim.chunks, table.reclaim.nodes) = Default::default();
        assert_eq!(std::ptr::from_ref(table.leaf_mut(7)), place);
        assert_eq!(snapshot.page(7), table.leaf(7).bytes());
    }

    #[test]
    fn leaves_that_are_not_needed_are_given_back() {
        let (mut table, _) = table_after(10_000);
        for _ in 0..100 {
            table.snapshot();
        }
        assert!(table.reclaim.free_leaves.len() < 8, "{}", table.reclaim.free_leaves.len());
    }

    #[test]
    fn a_leaf_that_is_still_read_is_not_used_again() {
        let (mut table, _) = table_after(1);
        let (page, snapshot) = (table.leaf(7).bytes().to_vec(), table.snapshot());
        let reading = snapshot.page(7);
        drop(snapshot);
        for i in 0..1000_u32 {
            table.leaf_mut(i % PAGES).replace(0, b"else");
            table.snapshot();
        }
        assert_eq!(reading, page);
    }
}
