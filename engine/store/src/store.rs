//! An open store: its file, and what is known of it.

use std::fmt;
use std::io;
use std::sync::Arc;

use hybster_log::Disk;

use crate::format::{BLOCK, NO_CHECKPOINT, SECTOR, Superblock};
use crate::space::{Extent, Space};
use crate::table::{Table, bytes_of_blocks};
use crate::update::Update;
use crate::{Damage, Options, StoreError};

/// The file of a store.
pub(crate) const FILE: &str = "pages.store";
/// The file is taken ahead by a sixteenth, and by no more blocks than this.
const MOST_AHEAD: u32 = 4096;

/// The checkpoint that was committed last.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Manifest {
    /// The order number that it is the state behind.
    pub order: u64,
    /// The digest that stands for all pages.
    pub root: [u8; 32],
    /// How many pages each part has; there are pages `0..count`, none is left out.
    pub pages: Vec<u64>,
    /// What vouches for it, for others to read.
    pub certificate: Vec<u8>,
    /// The configuration of the group that it belongs to, for others to read.
    pub configuration: Vec<u8>,
}

/// What a store has done since it was opened, and what it takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Commits.
    pub commits: u64,
    /// Bytes written, all included.
    pub written_bytes: u64,
    /// Syncs of the file.
    pub syncs: u64,
    /// Pages that were moved so that the file could be cut off.
    pub moved_pages: u64,
    /// The length of the file.
    pub file_bytes: u64,
    /// Of these, what the last checkpoint takes.
    pub used_bytes: u64,
}

/// Checkpoints in a directory: the last one, and one that is being written.
///
/// It belongs to one thread. No call takes longer than the reading or writing of a page, or of 64 KiB
/// of the table, and two syncs, but for [`Store::commit`] and [`Store::verify`], which are made of many.
pub struct Store<D: Disk> {
    pub(crate) disk: D,
    pub(crate) file: D::File,
    pub(crate) options: Options,
    pub(crate) id: [u8; 16],
    /// Of the last commit, [`NO_CHECKPOINT`] if there was none.
    pub(crate) sequence: u64,
    /// Shared with those who read it meanwhile.
    pub(crate) table: Arc<Table>,
    pub(crate) space: Space,
    pub(crate) update: Option<Update>,
    /// Bytes written since the last sync.
    pub(crate) unsynced: u64,
    pub(crate) failed: bool,
    pub(crate) scratch: Vec<u8>,
    pub(crate) counters: Counters,
}

impl<D: Disk> fmt::Debug for Store<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Store");
        out.field("sequence", &self.sequence).field("manifest", &self.manifest());
        out.field("counters", &self.counters()).finish_non_exhaustive()
    }
}

impl<D: Disk> Store<D> {
    /// The last checkpoint, if there is one.
    #[must_use]
    pub fn manifest(&self) -> Option<&Manifest> {
        (self.sequence > NO_CHECKPOINT).then_some(&self.table.manifest)
    }

    /// What was done, and what it takes.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            file_bytes: bytes_of_blocks(self.space.end().into()),
            used_bytes: bytes_of_blocks(self.table.used_blocks()),
            ..self.counters
        }
    }

    pub(crate) fn io(&self, action: &'static str, source: io::Error) -> StoreError {
        StoreError::Io { action, file: self.disk.path(FILE), source }
    }

    pub(crate) fn damaged(&self, block: u64, damage: Damage) -> StoreError {
        StoreError::Damaged { file: self.disk.path(FILE), offset: block * BLOCK, damage }
    }

    fn full(&self, blocks: u32) -> StoreError {
        StoreError::Full { file: self.disk.path(FILE), bytes: bytes_of_blocks(blocks.into()) }
    }

    /// Takes free blocks; the file grows if it has not enough.
    pub(crate) fn take(&mut self, blocks: u32, most: usize) -> Result<Vec<Extent>, StoreError> {
        if let Some(extents) = self.space.take(blocks, most) {
            return Ok(extents);
        }
        let end = self.space.end();
        let together = blocks - (end - self.space.tail()).min(blocks);
        let ahead = (end / 16).min(MOST_AHEAD);
        let scattered = u64::from(blocks).saturating_sub(self.space.free_blocks()) as u32;
        // Space ahead is nice to have, and so is a page in one piece.
        for more in [together.saturating_add(ahead), together, scattered.max(1)] {
            match self.grow(more) {
                Ok(()) => match self.space.take(blocks, most) {
                    Some(extents) => return Ok(extents),
                    None => return Err(self.full(together)),
                },
                Err(StoreError::Full { .. } | StoreError::Limit { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.grow(scattered.max(1))?;
        self.space.take(blocks, most).ok_or_else(|| self.full(together))
    }

    fn grow(&mut self, blocks: u32) -> Result<(), StoreError> {
        let end = bytes_of_blocks(u64::from(self.space.end()) + u64::from(blocks));
        if end > self.options.most_bytes {
            let limit = self.options.most_bytes;
            return Err(StoreError::Limit { file: self.disk.path(FILE), limit });
        }
        match self.disk.preallocate(&self.file, end) {
            Err(error) if is_full(&error) => Err(self.full(blocks)),
            Err(error) => Err(self.fail("taking space", error)),
            Ok(()) => {
                self.space.grow(blocks);
                Ok(())
            }
        }
    }

    /// After this nothing is written any more.
    pub(crate) fn fail(&mut self, action: &'static str, source: io::Error) -> StoreError {
        self.failed = true;
        self.io(action, source)
    }

    /// Writes whole blocks, from block `at` of the extents on.
    pub(crate) fn write(
        &mut self,
        extents: impl Iterator<Item = Extent>,
        mut at: u32,
        mut bytes: &[u8],
    ) -> Result<(), StoreError> {
        for extent in extents {
            if at >= extent.blocks {
                at -= extent.blocks;
                continue;
            }
            let room = bytes_of_blocks((extent.blocks - at).into());
            let (now, rest) = bytes.split_at(bytes.len().min(room as usize));
            let offset = bytes_of_blocks((extent.start + at).into());
            match self.disk.write(&self.file, now, offset) {
                // Some file systems take no space ahead.
                Err(error) if is_full(&error) => return Err(self.full(extent.blocks)),
                Err(error) => return Err(self.fail("writing", error)),
                Ok(()) => {}
            }
            self.counters.written_bytes += now.len() as u64;
            self.unsynced += now.len() as u64;
            (bytes, at) = (rest, 0);
            if bytes.is_empty() {
                break;
            }
        }
        Ok(())
    }

    /// Reads the extents, one behind the other.
    pub(crate) fn read(
        &mut self,
        extents: impl Iterator<Item = Extent>,
        buffer: &mut [u8],
    ) -> Result<(), StoreError> {
        read_extents(&mut self.disk, &self.file, extents, buffer)
            .map_err(|start| self.damaged(start.into(), Damage::Unreadable))
    }

    /// Everything that has been written is durable when this returns.
    pub(crate) fn sync(&mut self) -> Result<(), StoreError> {
        let synced = self.disk.sync(&self.file);
        self.counters.syncs += 1;
        self.unsynced = 0;
        match synced {
            Err(_) if crate::mutants::active(crate::mutants::Mutant::ContinueAfterError) => Ok(()),
            Err(error) => Err(self.fail("syncing", error)),
            Ok(()) => Ok(()),
        }
    }

    /// Writes a superblock to its slot. It is one sector, so a crash leaves the old one or this.
    pub(crate) fn write_superblock(&mut self, superblock: &Superblock) -> Result<(), StoreError> {
        let sector: [u8; SECTOR] = superblock.encode();
        let offset = bytes_of_blocks(superblock.sequence % 2);
        // It needs no space, so that a full disk is as bad as a broken one here.
        match self.disk.write(&self.file, &sector, offset) {
            Err(error) => Err(self.fail("writing a superblock", error)),
            Ok(()) => {
                self.counters.written_bytes += SECTOR as u64;
                Ok(())
            }
        }
    }
}

/// Reads the extents, one behind the other; the error is the first block of the one that cannot be read.
pub(crate) fn read_extents<D: Disk>(
    disk: &mut D,
    file: &D::File,
    extents: impl Iterator<Item = Extent>,
    buffer: &mut [u8],
) -> Result<(), u32> {
    let mut rest = buffer;
    for extent in extents {
        let room = rest.len().min(bytes_of_blocks(extent.blocks.into()) as usize);
        let (now, behind) = rest.split_at_mut(room);
        disk.read(file, now, bytes_of_blocks(extent.start.into())).map_err(|_| extent.start)?;
        rest = behind;
    }
    Ok(())
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
