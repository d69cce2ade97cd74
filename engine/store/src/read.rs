//! Pages of the last checkpoint: one by one, and all of them at the speed of the disk.

use hybster_log::Disk;

use crate::format::blocks_of;
use crate::space::Extent;
use crate::table::{Entry, PageId, Place};
use crate::{Damage, Store, StoreError};

/// So much is read at once, in blocks.
const WINDOW: u32 = 256;
/// A gap that is read with what is around it, in blocks.
const GAP: u32 = 16;

impl<D: Disk> Store<D> {
    /// Reads a page of the last checkpoint, in any order; what the buffer had is replaced.
    ///
    /// # Errors
    /// It is damaged, or the checkpoint has no such page.
    pub fn read_page(&mut self, page: PageId, buffer: &mut Vec<u8>) -> Result<(), StoreError> {
        let entry = self.table.entry(page).cloned().ok_or(StoreError::NoSuchPage(page))?;
        self.read_entry(page, &entry, buffer)
    }

    pub(crate) fn read_entry(
        &mut self,
        page: PageId,
        entry: &Entry,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        buffer.clear();
        buffer.resize(entry.length as usize, 0);
        self.read(entry.extents(), buffer)?;
        self.check(page, entry, buffer)
    }

    fn check(&self, page: PageId, entry: &Entry, content: &[u8]) -> Result<(), StoreError> {
        if entry.is_right(content) {
            return Ok(());
        }
        let start = entry.extents().next().map_or(0, |extent| extent.start);
        Err(self.damaged(start.into(), Damage::Page(page)))
    }

    /// Reads all pages of the last checkpoint in the order in which they are in the file, which is
    /// much faster than by number where small pages have been replaced often. Afterwards the page cache has
    /// them, if it has room.
    #[must_use]
    pub fn scan(&self) -> Scan {
        let mut order = Vec::new();
        for (part, entries) in self.table.parts.iter().enumerate() {
            for (index, entry) in entries.iter().enumerate() {
                let start = entry.extents().next().map_or(0, |extent| extent.start);
                order.push((start, PageId { part: part as u8, index: index as u64 }));
            }
        }
        order.sort_unstable();
        let window = Extent { start: 0, blocks: 0 };
        Scan { sequence: self.sequence, order, next: 0, buffer: Vec::new(), window }
    }
}

/// All pages of a checkpoint, in the order of the file: [`Store::scan`].
#[derive(Debug)]
pub struct Scan {
    sequence: u64,
    /// By where they begin.
    order: Vec<(u32, PageId)>,
    next: usize,
    buffer: Vec<u8>,
    /// What the buffer holds.
    window: Extent,
}

impl Scan {
    /// The next page; `None` behind the last. It reads a MiB at a time, or a page that is longer.
    ///
    /// # Errors
    /// The page is damaged, or another checkpoint has been committed since the scan was begun. After
    /// an error it goes on with the page behind.
    #[allow(clippy::should_implement_trait, reason = "a page borrows from the scan")]
    pub fn next<D: Disk>(
        &mut self,
        store: &mut Store<D>,
    ) -> Result<Option<(PageId, &[u8])>, StoreError> {
        if self.sequence != store.sequence {
            return Err(StoreError::Misuse("the checkpoint that was scanned has been replaced"));
        }
        let Some((start, page)) = self.order.get(self.next).copied() else { return Ok(None) };
        self.next += 1;
        let Some(entry) = store.table.entry(page).cloned() else { return Ok(None) };
        let blocks = blocks_of(entry.length.into()) as u32;
        if !matches!(entry.place, Place::One(_)) {
            self.window.blocks = 0;
            store.read_entry(page, &entry, &mut self.buffer)?;
            return Ok(Some((page, &self.buffer)));
        }
        if u64::from(start) + u64::from(blocks) > self.window.end() || start < self.window.start {
            self.read_window(store, Extent { start, blocks })?;
        }
        let at = blocks_to_bytes(start - self.window.start);
        let content = &self.buffer[at..at + entry.length as usize];
        store.check(page, &entry, content)?;
        Ok(Some((page, content)))
    }

    /// Reads from this page on what is wanted soon.
    fn read_window<D: Disk>(
        &mut self,
        store: &mut Store<D>,
        page: Extent,
    ) -> Result<(), StoreError> {
        let mut end = page.end();
        for (start, next) in &self.order[self.next..] {
            let Some(entry) = store.table.entry(*next) else { break };
            let behind = u64::from(*start) + entry.blocks();
            let is_near = u64::from(*start) <= end + u64::from(GAP);
            let is_one = matches!(entry.place, Place::One(_));
            if !is_one || !is_near || behind - u64::from(page.start) > u64::from(WINDOW) {
                break;
            }
            end = end.max(behind);
        }
        let window = Extent { start: page.start, blocks: (end - u64::from(page.start)) as u32 };
        // If something in it cannot be read, it may be another page.
        for window in [window, page] {
            self.buffer.resize(blocks_to_bytes(window.blocks), 0);
            self.window = window;
            match store.read(std::iter::once(window), &mut self.buffer) {
                Err(error) if window == page => {
                    self.window.blocks = 0;
                    return Err(error);
                }
                Err(_) => {}
                Ok(()) => break,
            }
        }
        Ok(())
    }
}

fn blocks_to_bytes(blocks: u32) -> usize {
    crate::table::bytes_of_blocks(blocks.into()) as usize
}
