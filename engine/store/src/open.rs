//! A start: which checkpoint is there, and whether it is whole.

use std::sync::Arc;

use hybster_log::Disk;

use crate::format::{
    BLOCK, FIRST_BLOCK, NO_CHECKPOINT, SECTOR, Slot, Superblock, blocks_of, parse_table,
};
use crate::mutants::{self, Mutant};
use crate::space::{Extent, Space};
use crate::store::{Counters, FILE, is_full};
use crate::table::Table;
use crate::{Damage, Manifest, Options, Store, StoreError};

/// The file while it is being made.
const NEW: &str = "pages.new";

impl<D: Disk> Store<D> {
    /// Opens the store in a directory of its own, which is locked, and finds the checkpoint that was
    /// committed last; a new store has none. `random` becomes the identity of a new store.
    ///
    /// Pages are not read: [`Store::verify`] does. A crash at any point changes nothing of what the
    /// next start finds.
    ///
    /// # Errors
    /// The directory is in use, what is there is damaged or of another version, or the system refuses.
    pub fn open(
        mut disk: D,
        options: Options,
        random: [u8; 16],
    ) -> Result<(Self, Option<Manifest>), StoreError> {
        options.validate()?;
        match disk.lock() {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(StoreError::Locked { file: disk.path("lock") });
            }
            Err(error) => return Err(io(&disk, "locking", "lock", error)),
            Ok(()) => {}
        }
        let names = disk.names().map_err(|error| io(&disk, "listing", "", error))?;
        if names.iter().any(|name| name == NEW) {
            disk.remove(NEW).map_err(|error| io(&disk, "removing", NEW, error))?;
        }
        if !names.iter().any(|name| name == FILE) {
            create(&mut disk, random)?;
        }
        // The process that made the file, or this one, may not have got there.
        if !mutants::active(Mutant::NoDirectorySync) {
            disk.sync_directory().map_err(|error| io(&disk, "syncing the names of", "", error))?;
        }
        let file = disk.open(FILE).map_err(|error| io(&disk, "opening", FILE, error))?;
        let length = disk.length(&file).map_err(|error| io(&disk, "opening", FILE, error))?;
        let mut store = Self {
            disk,
            file,
            options,
            id: random,
            sequence: 0,
            table: Arc::new(Table::empty()),
            space: Space::empty(u32::try_from(length / BLOCK).unwrap_or(u32::MAX)),
            update: None,
            unsynced: 0,
            failed: false,
            scratch: Vec::new(),
            counters: Counters::default(),
        };
        store.recover()?;
        let manifest = store.manifest().cloned();
        Ok((store, manifest))
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        let superblock = self.newest()?;
        (self.id, self.sequence) = (superblock.id, superblock.sequence);
        if superblock.sequence > NO_CHECKPOINT {
            self.table = Arc::new(self.read_table(&superblock)?);
        }
        let end = self.space.end();
        let used = self.table.used();
        if let Some(behind) = used.last().filter(|extent| extent.end() > end.into()) {
            return Err(self.damaged(behind.start.into(), Damage::Short));
        }
        let space = Space::between(&used, FIRST_BLOCK, end);
        self.space = space.ok_or_else(|| self.damaged_table(&superblock))?;
        // It may be only in the page cache, since the process that wrote it was killed, or told that its sync had
        // failed. What is free by it is used from now on, so it must be on disk. All else was synced
        // before it was written.
        if !mutants::active(Mutant::UnprovenTrusted) {
            self.write_superblock(&superblock)?;
            self.sync()?;
        }
        self.counters = Counters::default();
        Ok(())
    }

    fn slot(&mut self, slot: u64) -> Result<Superblock, StoreError> {
        let mut sector = [0; SECTOR];
        if self.disk.read(&self.file, &mut sector, slot * BLOCK).is_err() {
            return Err(self.damaged(slot, Damage::Unreadable));
        }
        match Superblock::parse(&sector) {
            Slot::Garbage => Err(self.damaged(slot, Damage::Superblock)),
            Slot::Version(version) => {
                Err(StoreError::Version { file: self.disk.path(FILE), version })
            }
            Slot::Whole(superblock) if superblock.sequence % 2 != slot => {
                Err(self.damaged(slot, Damage::Superblocks))
            }
            Slot::Whole(superblock) => Ok(superblock),
        }
    }

    /// The superblock of the last commit. Each is one sector, so a crash tears none: there are always two,
    /// of neighbouring commits.
    fn newest(&mut self) -> Result<Superblock, StoreError> {
        let (even, odd) = match (self.slot(0), self.slot(1)) {
            (Ok(even), Ok(odd)) => (even, odd),
            (Ok(only), Err(_)) | (Err(_), Ok(only)) if mutants::active(Mutant::RotIsTorn) => {
                return Ok(only);
            }
            (Err(error), _) | (_, Err(error)) => return Err(error),
        };
        if even.id != odd.id || even.sequence.abs_diff(odd.sequence) != 1 {
            return Err(self.damaged(0, Damage::Superblocks));
        }
        let takes_even = (even.sequence > odd.sequence) != mutants::active(Mutant::OlderTaken);
        Ok(if takes_even { even } else { odd })
    }

    fn read_table(&mut self, superblock: &Superblock) -> Result<Table, StoreError> {
        let Superblock { table_bytes, table_checksum, table, .. } = superblock;
        let blocks: u64 = table.iter().map(|extent| u64::from(extent.blocks)).sum();
        if let Some(behind) = table.iter().find(|extent| extent.end() > self.space.end().into()) {
            return Err(self.damaged(behind.start.into(), Damage::Short));
        }
        if blocks != blocks_of(*table_bytes) {
            return Err(self.damaged_table(superblock));
        }
        let mut bytes = vec![0; usize::try_from(*table_bytes).unwrap_or(0)];
        self.read(table.iter().copied(), &mut bytes)?;
        let checksum = crc32c::crc32c(&bytes);
        if checksum != *table_checksum && !mutants::active(Mutant::TableUnchecked) {
            return Err(self.damaged_table(superblock));
        }
        let (manifest, parts) =
            parse_table(&bytes).ok_or_else(|| self.damaged_table(superblock))?;
        Ok(Table::new(manifest, parts, table.clone()))
    }

    fn damaged_table(&self, superblock: &Superblock) -> StoreError {
        let start = superblock.table.first().map_or(0, |extent: &Extent| extent.start);
        self.damaged(start.into(), Damage::Table)
    }
}

/// Makes an empty store. The file gets its name when it is whole, so a file with that name
/// and without superblocks is a damaged one.
fn create<D: Disk>(disk: &mut D, id: [u8; 16]) -> Result<(), StoreError> {
    let bytes = u64::from(FIRST_BLOCK) * BLOCK;
    let file = disk.create(NEW).map_err(|error| io(disk, "making", NEW, error))?;
    match disk.preallocate(&file, bytes) {
        Err(error) if is_full(&error) => {
            return Err(StoreError::Full { file: disk.path(FILE), bytes });
        }
        made => made.map_err(|error| io(disk, "taking space for", NEW, error))?,
    }
    for sequence in [0, NO_CHECKPOINT] {
        let (table_bytes, table_checksum, table) = (0, 0, Vec::new());
        let superblock = Superblock { id, sequence, table_bytes, table_checksum, table };
        let written = disk.write(&file, &superblock.encode(), sequence * BLOCK);
        written.map_err(|error| io(disk, "writing", NEW, error))?;
    }
    disk.sync(&file).map_err(|error| io(disk, "syncing", NEW, error))?;
    disk.rename(NEW, FILE).map_err(|error| io(disk, "renaming", NEW, error))
}

fn io<D: Disk>(disk: &D, action: &'static str, name: &str, source: std::io::Error) -> StoreError {
    StoreError::Io { action, file: disk.path(name), source }
}
