//! A store as somebody reads it who does not own it: its process may go on writing, or there may be none.
//!
//! Nothing is locked and nothing is written, so that reading is in nobody's way; a file on a medium that cannot
//! be written is read as well. What makes this right is that no page is ever written over in place: what one checkpoint
//! needs is used again only when the next one is durable and a third is being written. So a page that was overtaken
//! does not have its checksum any more, and then there is a newer checkpoint; if there is none, it is damaged.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use hybster_log::Disk;

use crate::format::{BLOCK, NO_CHECKPOINT, SECTOR, Slot, Superblock, blocks_of, parse_table};
use crate::space::Extent;
use crate::store::FILE;
use crate::table::{Entry, PageId, Table, bytes_of_blocks};
use crate::{Damage, Manifest, Store, StoreError};

/// How often superblocks and table are read until they belong together; a commit in between is rare.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(5);
/// How often a copy reads again what has changed.
const ROUNDS: u32 = 64;

/// Reads the checkpoints in the directory of a store, beside its owner.
#[derive(Debug)]
pub struct Observer {
    path: PathBuf,
    file: File,
}

/// A checkpoint that was the last one when it was looked for.
#[derive(Clone, Debug)]
pub struct Observed {
    sequence: u64,
    table: Arc<Table>,
}

impl Observed {
    /// What the checkpoint is.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.table.manifest
    }

    /// All pages, in the order in which they are in the file.
    #[must_use]
    pub fn pages(&self) -> Vec<PageId> {
        let mut pages: Vec<(u32, PageId)> = Vec::new();
        for (part, entries) in self.table.parts.iter().enumerate() {
            for (entry, index) in entries.iter().zip(0..) {
                let start = entry.extents().next().map_or(0, |extent| extent.start);
                pages.push((start, PageId { part: part as u8, index }));
            }
        }
        pages.sort_unstable();
        pages.into_iter().map(|(_, page)| page).collect()
    }

    fn entry(&self, page: PageId) -> Option<&Entry> {
        self.table.entry(page)
    }
}

impl Observer {
    /// Opens the file of the store in a directory, to read only.
    ///
    /// # Errors
    /// The system does not open it.
    pub fn open(directory: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = directory.as_ref().join(FILE);
        match File::open(&path) {
            Ok(file) => Ok(Self { path, file }),
            Err(source) => {
                Err(StoreError::Io { action: "opening", file: path.display().to_string(), source })
            }
        }
    }

    /// The last checkpoint; `None` if there is none yet.
    ///
    /// # Errors
    /// The file is damaged, or is none of this version.
    pub fn last(&self) -> Result<Option<Observed>, StoreError> {
        let mut looks = 1;
        loop {
            match self.look() {
                Ok(found) => return Ok(found),
                // Its owner may have been about to replace what was read.
                Err(StoreError::Damaged { .. }) if looks < LOOKS => looks += 1,
                Err(error) => return Err(error),
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }

    fn look(&self) -> Result<Option<Observed>, StoreError> {
        let mut blocks = [0; 2 * BLOCK as usize];
        self.fill(&mut blocks, 0).map_err(|_| self.damaged(0, Damage::Unreadable))?;
        let (even, odd) = (self.slot(&blocks, 0)?, self.slot(&blocks, 1)?);
        if even.id != odd.id || even.sequence.abs_diff(odd.sequence) != 1 {
            return Err(self.damaged(0, Damage::Superblocks));
        }
        let newest = if even.sequence > odd.sequence { even } else { odd };
        if newest.sequence == NO_CHECKPOINT {
            return Ok(None);
        }
        let start = newest.table.first().map_or(0, |extent| extent.start);
        let damaged = || self.damaged(start, Damage::Table);
        let length = usize::try_from(newest.table_bytes).map_err(|_| damaged())?;
        let blocks: u64 = newest.table.iter().map(|extent| u64::from(extent.blocks)).sum();
        let end = self.file.metadata().map_or(0, |it| it.len()).div_ceil(BLOCK);
        // Nothing is allocated that the file does not have.
        if blocks != blocks_of(newest.table_bytes) || blocks > end {
            return Err(damaged());
        }
        let mut bytes = vec![0; length];
        self.read_extents(newest.table.iter().copied(), &mut bytes)?;
        if crc32c::crc32c(&bytes) != newest.table_checksum {
            return Err(damaged());
        }
        let (manifest, parts) = parse_table(&bytes).ok_or_else(damaged)?;
        let table = Arc::new(Table::new(manifest, parts, newest.table));
        Ok(Some(Observed { sequence: newest.sequence, table }))
    }

    fn slot(&self, blocks: &[u8], slot: u32) -> Result<Superblock, StoreError> {
        let at = bytes_of_blocks(slot.into()) as usize;
        let mut sector = [0; SECTOR];
        sector.copy_from_slice(&blocks[at..at + SECTOR]);
        match Superblock::parse(&sector) {
            Slot::Whole(it) if it.sequence % 2 == u64::from(slot) => Ok(it),
            Slot::Whole(_) => Err(self.damaged(0, Damage::Superblocks)),
            Slot::Version(version) => Err(StoreError::Version { file: self.name(), version }),
            Slot::Garbage => Err(self.damaged(slot, Damage::Superblock)),
        }
    }

    /// Reads a page of a checkpoint; what the buffer had is replaced.
    ///
    /// # Errors
    /// The page is not what was written: it is damaged, or its owner has gone on by two checkpoints. Or the
    /// checkpoint has no such page.
    pub fn read_page(
        &self,
        of: &Observed,
        page: PageId,
        buffer: &mut Vec<u8>,
    ) -> Result<(), StoreError> {
        let entry = of.entry(page).ok_or(StoreError::NoSuchPage(page))?;
        let start = entry.extents().next().map_or(0, |extent| extent.start);
        let end = self.file.metadata().map_or(0, |it| it.len()).div_ceil(BLOCK);
        if entry.end() > end {
            return Err(self.damaged(start, Damage::Short));
        }
        buffer.clear();
        buffer.resize(entry.length as usize, 0);
        self.read_extents(entry.extents(), buffer)?;
        match entry.is_right(buffer) {
            true => Ok(()),
            false => Err(self.damaged(start, Damage::Page(page))),
        }
    }

    /// Copies the last checkpoint into a store that has none, and makes it durable there. If the owner goes on
    /// meanwhile, what has changed is read again until one checkpoint is there as a whole, mostly a later
    /// one than the first. `manifest` may add to the manifest of the copy. `None`: there is nothing to copy.
    ///
    /// # Errors
    /// A page is damaged, the owner is faster, or the copy cannot be written. Then the copy has no checkpoint.
    pub fn copy_into<D: Disk>(
        &self,
        to: &mut Store<D>,
        manifest: impl Fn(&Manifest) -> Manifest,
    ) -> Result<Option<Manifest>, StoreError> {
        if to.manifest().is_some() {
            return Err(StoreError::Misuse("a checkpoint is copied into a store that has none"));
        }
        let Some(mut last) = self.last()? else { return Ok(None) };
        to.begin(manifest(last.manifest()))?;
        let copied = self.copy_rounds(&mut last, to, manifest);
        if copied.is_err() {
            to.abandon();
        }
        copied.map(|()| to.manifest().cloned())
    }

    fn copy_rounds<D: Disk>(
        &self,
        last: &mut Observed,
        to: &mut Store<D>,
        manifest: impl Fn(&Manifest) -> Manifest,
    ) -> Result<(), StoreError> {
        let mut copied: Vec<Vec<Option<Entry>>> = Vec::new();
        for _ in 0..ROUNDS {
            to.amend(manifest(last.manifest()))?;
            copied.resize_with(last.table.parts.len(), Vec::new);
            for (copied, now) in copied.iter_mut().zip(&last.table.parts) {
                copied.resize(now.len(), None);
            }
            let Some(overtaken) = self.copy_changed(last, &mut copied, to)? else {
                return to.commit();
            };
            let now = self.last()?.filter(|now| now.sequence > last.sequence);
            *last = now.ok_or(overtaken)?;
        }
        Err(StoreError::Busy { file: self.name(), rounds: ROUNDS })
    }

    /// Copies what is not copied yet. Returns why a page could not be read, if there is one.
    fn copy_changed<D: Disk>(
        &self,
        of: &Observed,
        copied: &mut [Vec<Option<Entry>>],
        to: &mut Store<D>,
    ) -> Result<Option<StoreError>, StoreError> {
        let (mut content, mut overtaken) = (Vec::new(), None);
        for page in of.pages() {
            let copied = &mut copied[usize::from(page.part)][page.index as usize];
            let entry = of.entry(page);
            // The same place, length and checksum: no checkpoint in between has changed it.
            if copied.as_ref() == entry {
                continue;
            }
            match self.read_page(of, page, &mut content) {
                Ok(()) => {
                    to.put_page(page, &content)?;
                    *copied = entry.cloned();
                }
                Err(error) => overtaken = Some(error),
            }
        }
        Ok(overtaken)
    }

    fn read_extents(
        &self,
        extents: impl Iterator<Item = Extent>,
        buffer: &mut [u8],
    ) -> Result<(), StoreError> {
        let mut rest = buffer;
        for Extent { start, blocks } in extents {
            let room = rest.len().min(bytes_of_blocks(blocks.into()) as usize);
            let (now, behind) = rest.split_at_mut(room);
            self.fill(now, bytes_of_blocks(start.into()))
                .map_err(|_| self.damaged(start, Damage::Unreadable))?;
            rest = behind;
        }
        Ok(())
    }

    /// Fills the buffer; behind the end of the file there are zeros.
    fn fill(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer[filled..].fill(0);
        Ok(())
    }

    fn damaged(&self, block: u32, damage: Damage) -> StoreError {
        StoreError::Damaged { file: self.name(), offset: bytes_of_blocks(block.into()), damage }
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }
}
