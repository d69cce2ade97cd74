//! The ordered store: when leaves are split, merged and removed.
//!
//! The effect of an operation on the pages depends only on the pages. So a store that was restored
//! from them stays bit by bit equal to the one that they came from.

use std::sync::Arc;

use hybster_proto::service::{RestoreError, Snapshot};

use super::directory::{Directory, Spot};
use super::leaf::{LEAF_BYTES, Leaf, entry_bytes};
use super::pages::{Base, Loaded, MAX_PAGES, PageId, PageTable};
use super::wire::{ENTRIES_HEADER_BYTES, MAX_SCAN_REPLY_BYTES, entries_header};

/// A leaf that shrinks below this length is merged with a neighbour, if that is possible.
const MERGE_BELOW_BYTES: usize = LEAF_BYTES / 4;

/// The longest leaf that merging makes, which leaves room to grow before it is split again.
const MERGED_BYTES: usize = LEAF_BYTES / 4 * 3;

/// Most pages that one operation adds.
const PAGES_PER_OPERATION: PageId = 2;

/// The store has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// Keys and values in the order of the keys.
#[derive(Debug)]
pub(super) struct Store {
    pages: PageTable,
    directory: Directory,
    entries: u64,
    /// Bytes that the entries take in their pages.
    bytes: u64,
    limit_bytes: u64,
}

impl Store {
    /// An empty store for entries of at most `limit_bytes` in total.
    pub(super) fn new(limit_bytes: u64) -> Self {
        Self {
            pages: PageTable::default(),
            directory: Directory::default(),
            entries: 0,
            bytes: 0,
            limit_bytes,
        }
    }

    /// The number of entries.
    pub(super) fn len(&self) -> u64 {
        self.entries
    }

    /// Bytes that the entries take in their pages.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let leaf = self.pages.leaf(self.directory.find(key)?.page);
        leaf.find(key).ok().map(|i| leaf.value(i))
    }

    /// Sets the value of a key; returns whether it had one.
    pub(super) fn put(&mut self, key: &[u8], value: &[u8]) -> Result<bool, Full> {
        let Some(spot) = self.directory.find(key) else {
            self.admit(0, entry_bytes(key.len(), value.len()))?;
            self.add_leaf(Leaf::single(key, value));
            self.entries = 1;
            return Ok(false);
        };
        let leaf = self.pages.leaf(spot.page);
        match leaf.find(key) {
            Ok(i) => {
                let (length, count, old) = (leaf.len(), leaf.count(), leaf.value(i).len());
                self.admit(old, value.len())?;
                if length - old + value.len() <= LEAF_BYTES || count == 1 {
                    self.pages.leaf_mut(spot.page).replace(i, value);
                    if value.len() < old {
                        self.merge_if_small(spot);
                    }
                } else {
                    self.remove_from_leaf(spot, i);
                    self.insert_and_split(spot, i, key, value);
                }
                Ok(true)
            }
            Err(i) => {
                let (length, added) = (leaf.len(), entry_bytes(key.len(), value.len()));
                self.admit(0, added)?;
                if length + added <= LEAF_BYTES {
                    self.pages.leaf_mut(spot.page).insert(i, key, value);
                    if i == 0 {
                        self.directory.set_low_key(spot, key);
                    }
                } else {
                    self.insert_and_split(spot, i, key, value);
                }
                self.entries += 1;
                Ok(false)
            }
        }
    }

    /// Removes a key; returns whether it was there.
    pub(super) fn delete(&mut self, key: &[u8]) -> bool {
        let Some(spot) = self.directory.find(key) else {
            return false;
        };
        let leaf = self.pages.leaf(spot.page);
        let Ok(i) = leaf.find(key) else { return false };
        self.entries -= 1;
        self.bytes -= entry_bytes(key.len(), leaf.value(i).len()) as u64;
        if leaf.count() == 1 {
            self.pages.release(spot.page);
            self.directory.remove(spot);
        } else {
            self.remove_from_leaf(spot, i);
            self.merge_if_small(spot);
        }
        true
    }

    /// Appends the encoded reply to a scan.
    pub(super) fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: u32, reply: &mut Vec<u8>) {
        let header = reply.len();
        reply.extend_from_slice(&[0; ENTRIES_HEADER_BYTES]);
        let (mut count, mut more) = (0, false);
        let mut place = self.directory.find(start).map(|spot| {
            let (Ok(i) | Err(i)) = self.pages.leaf(spot.page).find(start);
            (spot, i)
        });
        'leaves: while let Some((spot, first)) = place {
            let leaf = self.pages.leaf(spot.page);
            for i in first..leaf.count() {
                if end.is_some_and(|end| leaf.key(i) >= end) {
                    break 'leaves;
                }
                let entry = leaf.entry(i);
                if count == limit || reply.len() - header + entry.len() > MAX_SCAN_REPLY_BYTES {
                    more = true;
                    break 'leaves;
                }
                reply.extend_from_slice(entry);
                count += 1;
            }
            place = self.directory.next(spot).map(|spot| (spot, 0));
        }
        reply[header..][..ENTRIES_HEADER_BYTES].copy_from_slice(&entries_header(more, count));
    }

    /// The pages as they are now.
    pub(super) fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        Arc::new(self.pages.snapshot())
    }

    /// Replaces the state by the pages of `source`; on an error it is as before.
    pub(super) fn restore(
        &mut self,
        source: &dyn Snapshot,
        base: Option<Base<'_>>,
    ) -> Result<(), RestoreError> {
        let Loaded { pages, removed, mut added } = self.pages.load(source, base)?;
        let mut directory = self.directory.clone();
        let (mut entries, mut bytes) = (self.entries, self.bytes);
        for page in removed {
            let leaf = self.pages.leaf(page);
            directory.remove(directory.find(leaf.low_key()).expect("the leaf was here"));
            entries -= leaf.count() as u64;
            bytes -= leaf.entries_bytes() as u64;
        }
        // In the order of the keys, so that the groups of the directory are full.
        added.sort_unstable_by_key(|page| (pages.leaf(*page).low_key(), *page));
        for &page in &added {
            let leaf = pages.leaf(page);
            let before = directory.find(leaf.low_key()).map(|spot| spot.page);
            if let Some(other) = before.filter(|b| pages.leaf(*b).low_key() == leaf.low_key()) {
                return Err(overlap(page, other));
            }
            directory.insert(leaf.low_key(), page);
            entries += leaf.count() as u64;
            bytes += leaf.entries_bytes() as u64;
        }
        let is_above = |left: Spot, right: Spot| {
            let leaf = pages.leaf(left.page);
            leaf.key(leaf.count() - 1) < pages.leaf(right.page).low_key()
        };
        for page in added {
            let spot = directory.find(pages.leaf(page).low_key()).expect("it was inserted");
            let previous = directory.previous(spot).filter(|left| !is_above(*left, spot));
            let next = directory.next(spot).filter(|right| !is_above(spot, *right));
            if let Some(other) = previous.or(next) {
                return Err(overlap(page, other.page));
            }
        }
        self.pages.replace(pages);
        (self.directory, self.entries, self.bytes) = (directory, entries, bytes);
        Ok(())
    }

    /// Counts `new` bytes instead of `old` ones, if there is room.
    fn admit(&mut self, old: usize, new: usize) -> Result<(), Full> {
        let bytes = self.bytes - old as u64 + new as u64;
        // Shrinking is always possible: a full store can be emptied.
        if new > old
            && (bytes > self.limit_bytes || self.pages.len() > MAX_PAGES - PAGES_PER_OPERATION)
        {
            return Err(Full);
        }
        self.bytes = bytes;
        Ok(())
    }

    fn add_leaf(&mut self, leaf: Leaf) {
        let page = self.pages.allocate(leaf);
        self.directory.insert(self.pages.leaf(page).low_key(), page);
    }

    /// Removes an entry from a leaf that holds others.
    fn remove_from_leaf(&mut self, spot: Spot, i: usize) {
        let leaf = self.pages.leaf_mut(spot.page);
        leaf.remove(i);
        if i == 0 {
            self.directory.set_low_key(spot, leaf.low_key());
        }
    }

    /// Inserts an entry that does not fit into its leaf.
    ///
    /// It goes to one side of a cut through the leaf. If no cut makes room, or if keys come in
    /// ascending order, it gets a leaf of its own.
    fn insert_and_split(&mut self, spot: Spot, i: usize, key: &[u8], value: &[u8]) {
        let leaf = self.pages.leaf(spot.page);
        let count = leaf.count();
        let ascending = i == count && self.directory.is_last(spot);
        let added = entry_bytes(key.len(), value.len());
        let cut = if ascending { None } else { leaf.best_cut(i, added) };

        if let Some((kept, takes_new)) = cut {
            let leaf = self.pages.leaf_mut(spot.page);
            let mut right = leaf.split_off(kept);
            if takes_new {
                leaf.insert(i, key, value);
                if i == 0 {
                    self.directory.set_low_key(spot, key);
                }
            } else {
                right.insert(i - kept, key, value);
            }
            self.add_leaf(right);
        } else {
            let right = (0 < i && i < count).then(|| self.pages.leaf_mut(spot.page).split_off(i));
            self.add_leaf(Leaf::single(key, value));
            if let Some(right) = right {
                self.add_leaf(right);
            }
        }
    }

    fn merge_if_small(&mut self, spot: Spot) {
        let length = self.pages.leaf(spot.page).len();
        if length >= MERGE_BELOW_BYTES {
            return;
        }
        let fits = |other: &Spot| length + self.pages.leaf(other.page).len() <= MERGED_BYTES;
        if let Some(next) = self.directory.next(spot).filter(fits) {
            self.merge(spot, next);
        } else if let Some(previous) = self.directory.previous(spot).filter(fits) {
            self.merge(previous, spot);
        }
    }

    /// Moves the entries of `right` to `left`, the leaf before it.
    fn merge(&mut self, left: Spot, right: Spot) {
        let leaf = self.pages.release(right.page);
        self.pages.leaf_mut(left.page).append(&leaf);
        self.directory.remove(right);
    }
}

fn overlap(page: PageId, other: PageId) -> RestoreError {
    let what = format!("its keys overlap with those of page {other}");
    RestoreError { page: page.into(), what }
}
