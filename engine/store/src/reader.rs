//! Pages by number, beside the store: what a start hands to the service.

use std::fmt;
use std::sync::Arc;

use hybster_log::Disk;

use crate::format::{BLOCK, blocks_of};
use crate::space::Extent;
use crate::store::{FILE, read_extents};
use crate::table::{Entry, PageId, Place, Table, bytes_of_blocks};
use crate::{Damage, Store, StoreError};

/// So much is read at once where pages are beside each other, in blocks.
const WINDOW: u32 = 256;

/// Reads pages of the checkpoint that was the last one when this was made. It has a file handle of its own,
/// so that the store can go to the thread that writes while pages are still read.
///
/// It is good until the store has committed another checkpoint: from then on the blocks of pages that were
/// replaced are written again, and reading one of these says that it is damaged.
pub struct Reader<D: Disk> {
    disk: D,
    file: D::File,
    table: Arc<Table>,
    buffer: Vec<u8>,
    /// What the buffer holds.
    window: Extent,
}

impl<D: Disk> fmt::Debug for Reader<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("order", &self.table.manifest.order).finish_non_exhaustive()
    }
}

impl<D: Disk> Store<D> {
    /// A reader of the last checkpoint. `disk` is the store's directory, opened once more; it is not locked.
    ///
    /// # Errors
    /// The system does not open the file.
    pub fn reader(&self, mut disk: D) -> Result<Reader<D>, StoreError> {
        let file = disk.open(FILE).map_err(|error| self.io("opening", error))?;
        let (table, window) = (Arc::clone(&self.table), Extent { start: 0, blocks: 0 });
        Ok(Reader { disk, file, table, buffer: Vec::new(), window })
    }
}

impl<D: Disk> Reader<D> {
    /// How many pages a part has.
    #[must_use]
    pub fn pages_of(&self, part: u8) -> u64 {
        self.table.pages_of(part.into())
    }

    /// A page. Pages in ascending order are read a MiB at a time where they are beside each other in the
    /// file.
    ///
    /// # Errors
    /// It is damaged, or the checkpoint has no such page.
    pub fn page(&mut self, page: PageId) -> Result<&[u8], StoreError> {
        let table = Arc::clone(&self.table);
        let entry = table.entry(page).ok_or(StoreError::NoSuchPage(page))?;
        let length = entry.length as usize;
        let at = match entry.place {
            Place::One(start) => {
                let blocks = blocks_of(entry.length.into()) as u32;
                let wanted = Extent { start, blocks };
                if start < self.window.start || wanted.end() > self.window.end() {
                    self.read_window(&table, page, wanted)?;
                }
                bytes_of_blocks((start - self.window.start).into()) as usize
            }
            Place::Nowhere | Place::Many(_) => {
                self.window.blocks = 0;
                self.buffer.resize(length, 0);
                self.read(entry.extents())?;
                0
            }
        };
        let content = &self.buffer[at..at + length];
        if !entry.is_right(content) {
            return Err(self.damaged(start_of(entry), Damage::Page(page)));
        }
        Ok(content)
    }

    /// Reads a page, and those behind it that are beside it.
    fn read_window(
        &mut self,
        table: &Table,
        page: PageId,
        wanted: Extent,
    ) -> Result<(), StoreError> {
        let mut blocks = wanted.blocks;
        for index in page.index + 1.. {
            let next = table.entry(PageId { index, ..page });
            let Some(Entry { length, place: Place::One(start), .. }) = next else { break };
            let with_it = blocks + blocks_of((*length).into()) as u32;
            if *start != wanted.start + blocks || with_it > WINDOW {
                break;
            }
            blocks = with_it;
        }
        // If something in it cannot be read, it may be another page.
        for blocks in [blocks, wanted.blocks] {
            self.window = Extent { start: wanted.start, blocks };
            self.buffer.resize(bytes_of_blocks(blocks.into()) as usize, 0);
            match self.read(std::iter::once(self.window)) {
                Ok(()) => return Ok(()),
                Err(error) => {
                    self.window.blocks = 0;
                    if blocks == wanted.blocks {
                        return Err(error);
                    }
                }
            }
        }
        Ok(())
    }

    fn read(&mut self, extents: impl Iterator<Item = Extent>) -> Result<(), StoreError> {
        read_extents(&mut self.disk, &self.file, extents, &mut self.buffer)
            .map_err(|start| self.damaged(start, Damage::Unreadable))
    }

    fn damaged(&self, block: u32, damage: Damage) -> StoreError {
        let offset = u64::from(block) * BLOCK;
        StoreError::Damaged { file: self.disk.path(FILE), offset, damage }
    }
}

fn start_of(entry: &Entry) -> u32 {
    entry.extents().next().map_or(0, |extent| extent.start)
}
