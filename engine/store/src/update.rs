//! A new checkpoint beside the old one: pages, then the table, then the superblock.

use std::sync::Arc;

use hybster_log::Disk;

use crate::format::{
    BLOCK, FIRST_BLOCK, Superblock, TABLE_EXTENTS, blocks_of, check_bounds, head_bytes, put_entry,
    put_head,
};
use crate::mutants::{self, Mutant};
use crate::space::Extent;
use crate::table::{
    Changes, Entry, PageId, Place, Table, apply, blocks_after, bytes_after, bytes_of_blocks,
    check_complete,
};
use crate::{Manifest, Store, StoreError};

/// So much of the table is written in a step.
const CHUNK: usize = 64 << 10;
/// So many pages are looked at in a step, whether they are to be moved.
const LOOKS: usize = 4096;
/// The file is not cut off for less than this, in blocks.
const SLACK: u64 = 256;

/// What is left of a commit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Step {
    /// Call again.
    More,
    /// The new checkpoint is durable, and the old one is gone.
    Done,
}

/// A checkpoint that is being written.
#[derive(Debug)]
pub(crate) struct Update {
    manifest: Manifest,
    changes: Changes,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Pages are put and removed.
    Pages,
    /// Pages behind this block are moved, from this one on.
    Move(u32, PageId),
    Table(TableWriter),
}

/// A table that is written in chunks.
#[derive(Debug)]
struct TableWriter {
    extents: Vec<Extent>,
    bytes: u64,
    checksum: u32,
    written_blocks: u32,
    /// Encoded and not written.
    buffer: Vec<u8>,
    next: PageId,
}

/// What may not be called while a commit goes on, or without an update.
const NOT_BEGUN: StoreError =
    StoreError::Misuse("pages of a checkpoint are put between `begin` and `commit`");

impl<D: Disk> Store<D> {
    /// Begins a new checkpoint. It has the pages of the last one, but for those that are put or removed
    /// until [`Store::commit`].
    ///
    /// # Errors
    /// Another one has been begun, the manifest is out of bounds, or the store has failed.
    pub fn begin(&mut self, manifest: Manifest) -> Result<(), StoreError> {
        if self.failed {
            return Err(StoreError::Failed);
        }
        if self.update.is_some() {
            return Err(StoreError::Misuse("a checkpoint has been begun: commit or abandon it"));
        }
        if let Some(why) = check_bounds(&manifest, &self.options) {
            return Err(StoreError::Bounds(why));
        }
        self.update = Some(Update { manifest, changes: Changes::new(), phase: Phase::Pages });
        Ok(())
    }

    /// Whether a checkpoint has been begun.
    #[must_use]
    pub fn is_updating(&self) -> bool {
        self.update.is_some()
    }

    fn changes(&mut self) -> Result<(&Manifest, &mut Changes), StoreError> {
        match &mut self.update {
            _ if self.failed => Err(StoreError::Failed),
            Some(Update { manifest, changes, phase: Phase::Pages }) => Ok((manifest, changes)),
            _ => Err(NOT_BEGUN),
        }
    }

    /// Writes a page of the new checkpoint, and syncs what was written if that has become much
    /// ([`crate::Options::sync_bytes`]).
    ///
    /// # Errors
    /// No room: it may be put again later, or the update be abandoned. A write or sync that failed is
    /// final. The manifest has no such page, it is too long, or nothing has been begun.
    pub fn put_page(&mut self, page: PageId, content: &[u8]) -> Result<(), StoreError> {
        let (manifest, _) = self.changes()?;
        let count = manifest.pages.get(usize::from(page.part)).copied().unwrap_or(0);
        if page.index >= count {
            return Err(StoreError::NoSuchPage(page));
        }
        let limit = self.options.longest_page;
        let Some(length) = u32::try_from(content.len()).ok().filter(|length| *length <= limit)
        else {
            return Err(StoreError::PageTooLong { page, bytes: content.len(), limit });
        };
        let blocks = blocks_of(length.into()) as u32;
        let extents = if blocks > 0 { self.take(blocks, usize::MAX)? } else { Vec::new() };
        if let Err(error) = self.write_page(&extents, content) {
            extents.into_iter().for_each(|extent| self.space.give(extent));
            return Err(error);
        }
        let checksum = crc32c::crc32c(content);
        let place = match extents[..] {
            [] => Place::Nowhere,
            [one] => Place::One(one.start),
            _ => Place::Many(extents.into()),
        };
        self.change(page, Some(Entry { length, checksum, place }));
        if self.unsynced >= self.options.sync_bytes { self.sync() } else { Ok(()) }
    }

    fn write_page(&mut self, extents: &[Extent], content: &[u8]) -> Result<(), StoreError> {
        if content.len().is_multiple_of(BLOCK as usize) {
            return self.write(extents.iter().copied(), 0, content);
        }
        // A block that is written in part would have to be read first.
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(content);
        scratch.resize(content.len().next_multiple_of(BLOCK as usize), 0);
        let written = self.write(extents.iter().copied(), 0, &scratch);
        self.scratch = scratch;
        written
    }

    /// Notes a change, and frees what an earlier one of the same update took.
    fn change(&mut self, page: PageId, change: Option<Entry>) {
        if mutants::active(Mutant::FreedTooEarly)
            && let Some(old) = self.table.entry(page)
        {
            old.extents().for_each(|extent| self.space.give(extent));
        }
        let Some(update) = &mut self.update else { return };
        if let Some(Some(earlier)) = update.changes.insert(page, change) {
            earlier.extents().for_each(|extent| self.space.give(extent));
        }
    }

    /// The new checkpoint does not have this page.
    ///
    /// # Errors
    /// Nothing has been begun, or the store has failed.
    pub fn remove_page(&mut self, page: PageId) -> Result<(), StoreError> {
        let is_there = self.table.entry(page).is_some();
        let (_, changes) = self.changes()?;
        if is_there {
            self.change(page, None);
        } else if let Some(Some(earlier)) = changes.remove(&page) {
            earlier.extents().for_each(|extent| self.space.give(extent));
        }
        Ok(())
    }

    /// The checkpoint that was begun is to be this one instead. What was put stays, as far as it has such pages.
    pub(crate) fn amend(&mut self, manifest: Manifest) -> Result<(), StoreError> {
        if let Some(why) = check_bounds(&manifest, &self.options) {
            return Err(StoreError::Bounds(why));
        }
        let count = |page: &PageId| manifest.pages.get(usize::from(page.part)).copied();
        let (_, changes) = self.changes()?;
        let gone: Vec<PageId> =
            changes.keys().filter(|page| page.index >= count(page).unwrap_or(0)).copied().collect();
        gone.into_iter().try_for_each(|page| self.remove_page(page))?;
        if let Some(update) = &mut self.update {
            update.manifest = manifest;
        }
        Ok(())
    }

    /// Gives the new checkpoint up. The last one stays, and so does the space that the file has.
    pub fn abandon(&mut self) {
        let Some(update) = self.update.take() else { return };
        if mutants::active(Mutant::AbandonedKept) {
            return;
        }
        let table = match update.phase {
            Phase::Table(writer) => writer.extents,
            _ => Vec::new(),
        };
        let pages = update.changes.values().flatten().flat_map(Entry::extents);
        pages.chain(table).for_each(|extent| self.space.give(extent));
    }

    /// Makes the new checkpoint the last one: after a crash at any point there is this one or the
    /// one before. It is durable when this returns. Nothing may be put any more once this was called.
    ///
    /// # Errors
    /// Pages are missing; no room: it may be called again later. After any error but these the store has failed,
    /// and the next start finds one of the two. In each case the update can be abandoned.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        while self.commit_step()? == Step::More {}
        Ok(())
    }

    /// A step of [`Store::commit`]: a page that is moved, 64 KiB of the table, or the two syncs.
    ///
    /// # Errors
    /// As [`Store::commit`].
    pub fn commit_step(&mut self) -> Result<Step, StoreError> {
        if self.failed {
            return Err(StoreError::Failed);
        }
        // It is put back but at the end, where there is none any more.
        let Some(mut update) = self.update.take() else { return Err(NOT_BEGUN) };
        let stepped = match &mut update.phase {
            Phase::Pages => self.close(&mut update),
            Phase::Move(limit, next) => {
                let (limit, next) = (*limit, *next);
                self.move_pages(limit, next, &mut update)
            }
            Phase::Table(writer) if writer.is_written() => return self.finish(update),
            Phase::Table(writer) => {
                writer.fill(&update.manifest, &self.table, &update.changes);
                self.write_table(writer)
            }
        };
        self.update = Some(update);
        stepped.map(|()| Step::More)
    }

    /// All pages have been put.
    fn close(&mut self, update: &mut Update) -> Result<(), StoreError> {
        if !mutants::active(Mutant::IncompleteTaken) {
            check_complete(&self.table, &update.manifest, &update.changes)?;
        }
        let bytes = head_bytes(&update.manifest) + bytes_after(&self.table, &update.changes);
        let limit = room(blocks_after(&self.table, &update.changes) + blocks_of(bytes));
        if u64::from(self.space.end()) > limit {
            update.phase = Phase::Move(limit as u32, PageId { part: 0, index: 0 });
            return Ok(());
        }
        self.begin_table(update)
    }

    /// Moves a page that is too far behind, so that the file can be cut off.
    fn move_pages(
        &mut self,
        limit: u32,
        from: PageId,
        update: &mut Update,
    ) -> Result<(), StoreError> {
        let mut looks = 0;
        let mut page = from;
        while let Some(count) = update.manifest.pages.get(usize::from(page.part)) {
            if page.index >= *count {
                page = PageId { part: page.part + 1, index: 0 };
                continue;
            }
            let is_behind = self.table.entry(page).is_some_and(|entry| entry.end() > limit.into());
            let moves = is_behind && !update.changes.contains_key(&page);
            if moves {
                self.move_page(page, limit, update)?;
            }
            page.index += 1;
            looks += 1;
            if moves || looks == LOOKS {
                update.phase = Phase::Move(limit, page);
                return Ok(());
            }
        }
        self.begin_table(update)
    }

    fn move_page(
        &mut self,
        page: PageId,
        limit: u32,
        update: &mut Update,
    ) -> Result<(), StoreError> {
        let Some(entry) = self.table.entry(page).cloned() else { return Ok(()) };
        // If there is no room now, there will be when the old checkpoint is gone.
        let Some(to) = self.space.take_below(entry.blocks() as u32, limit) else { return Ok(()) };
        let mut content = Vec::new();
        let moved = self.read_entry(page, &entry, &mut content);
        if let Err(error) = moved.and_then(|()| self.write_page(&[to], &content)) {
            self.space.give(to);
            self.failed |= error.is_final();
            return Err(error);
        }
        self.counters.moved_pages += 1;
        let start = match mutants::active(Mutant::MovedForgotten) {
            true => entry.extents().next().map_or(0, |extent| extent.start),
            false => to.start,
        };
        update.changes.insert(page, Some(Entry { place: Place::One(start), ..entry }));
        if self.unsynced >= self.options.sync_bytes { self.sync() } else { Ok(()) }
    }

    fn begin_table(&mut self, update: &mut Update) -> Result<(), StoreError> {
        let bytes = head_bytes(&update.manifest) + bytes_after(&self.table, &update.changes);
        let Some(blocks) = u32::try_from(blocks_of(bytes)).ok() else {
            return Err(StoreError::Bounds("the table of pages would be too long"));
        };
        let extents = self.take(blocks, TABLE_EXTENTS)?;
        let mut buffer = Vec::with_capacity(2 * CHUNK);
        put_head(&update.manifest, &mut buffer);
        let next = PageId { part: 0, index: 0 };
        update.phase = Phase::Table(TableWriter {
            extents,
            bytes,
            checksum: 0,
            written_blocks: 0,
            buffer,
            next,
        });
        Ok(())
    }

    fn write_table(&mut self, writer: &mut TableWriter) -> Result<(), StoreError> {
        let count = writer.buffer.len().min(CHUNK);
        let is_last = count == writer.buffer.len();
        let checksum = crc32c::crc32c_append(writer.checksum, &writer.buffer[..count]);
        if is_last {
            writer.buffer.resize(count.next_multiple_of(BLOCK as usize), 0);
        }
        let padded = count.next_multiple_of(BLOCK as usize);
        let extents = writer.extents.iter().copied();
        if let Err(error) = self.write(extents, writer.written_blocks, &writer.buffer[..padded]) {
            writer.buffer.truncate(writer.buffer.len() - (padded - count));
            return Err(error);
        }
        writer.checksum = checksum;
        writer.written_blocks += (padded as u64 / BLOCK) as u32;
        writer.buffer.drain(..padded);
        Ok(())
    }

    /// The order of these is what makes a commit one step: all that the superblock refers to is durable
    /// before it is written, and it is before anything that the last checkpoint needs is free.
    fn finish(&mut self, update: Update) -> Result<Step, StoreError> {
        let Update { manifest, changes, phase: Phase::Table(writer) } = update else {
            return Err(NOT_BEGUN);
        };
        if !mutants::active(Mutant::SuperblockBeforeSync) {
            self.sync()?;
        }
        let superblock = Superblock {
            id: self.id,
            sequence: self.sequence + 1,
            table_bytes: writer.bytes,
            table_checksum: writer.checksum,
            table: writer.extents.clone(),
        };
        self.write_superblock(&superblock)?;
        if !mutants::active(Mutant::SuperblockUnsynced) {
            self.sync()?;
        }
        self.sequence += 1;
        self.counters.commits += 1;
        let table = Arc::make_mut(&mut self.table);
        let freed = apply(table, manifest, changes, writer.extents);
        if !mutants::active(Mutant::NeverFreed) {
            freed.into_iter().for_each(|extent| self.space.give(extent));
        }
        self.cut();
        Ok(Step::Done)
    }

    /// Gives space back that the next checkpoints will not need.
    fn cut(&mut self) {
        let limit = room(self.table.used_blocks());
        if u64::from(self.space.end()) <= limit {
            return;
        }
        let is_greedy = mutants::active(Mutant::CutTooFar);
        let tail = if is_greedy { 0 } else { self.space.tail() };
        let end = tail.max(limit as u32);
        // If the system refuses, the file stays as it is.
        if end < self.space.end()
            && self.disk.set_length(&self.file, bytes_of_blocks(end.into())).is_ok()
        {
            self.space.cut(end);
        }
    }
}

/// The blocks that a file may keep whose checkpoint takes so many: two, a sixteenth of it ahead, and a
/// little.
fn room(blocks: u64) -> u64 {
    u64::from(FIRST_BLOCK) + 2 * blocks + blocks / 8 + SLACK
}

impl TableWriter {
    fn is_written(&self) -> bool {
        u64::from(self.written_blocks) == blocks_of(self.bytes)
    }

    /// Encodes entries until there is a chunk.
    fn fill(&mut self, manifest: &Manifest, base: &Table, changes: &Changes) {
        while self.buffer.len() < CHUNK {
            let Some(count) = manifest.pages.get(usize::from(self.next.part)) else { return };
            if self.next.index >= *count {
                self.next = PageId { part: self.next.part + 1, index: 0 };
                continue;
            }
            let changed = changes.get(&self.next).and_then(Option::as_ref);
            if let Some(entry) = changed.or_else(|| base.entry(self.next)) {
                put_entry(entry, &mut self.buffer);
            }
            self.next.index += 1;
        }
    }
}
