//! A disk in memory that does what real ones do at their worst, deterministic from a seed.
//!
//! It is a crate of its own, and no feature of `hybster-log`, because nothing of it may get into a
//! replica: cargo would turn a feature on for a whole workspace.
//!
//! # What it does
//!
//! - **Sectors.** A write reaches the page cache. Each of its sectors of 512 bytes reaches the disk by
//!   itself: until the file is synced, a loss of power leaves each as it was, as it was written last, or as it
//!   was at any time between ([`VirtualDisk::lose_power`]). Sectors are never mixed.
//! - **Names.** Making, renaming and removing files reaches the disk by
//!   [`sync_directory`](Disk::sync_directory); until then a loss of power keeps any of it, but in order
//!   for each name.
//! - **Lengths** are as sectors are.
//! - **A killed process** loses nothing that it has written ([`VirtualDisk::kill`]).
//! - **Failed syncs** ([`Faults::sync_fails_at`]): some of the sectors are not on disk, yet count as clean, so
//!   that the next sync succeeds; what the page cache has is read until it forgets them
//!   ([`VirtualDisk::forget_clean`]). That is what Linux does.
//! - **Damage** to order: bits that flip, sectors that cannot be read, and synced sectors that turn back
//!   into what they were.
//! - **A full disk**: what preallocation takes counts against a capacity.
//!
//! What was synced and is not damaged stays: a disk that lies about syncs is staged by
//! [`VirtualDisk::revert`].
#![forbid(unsafe_code)]

mod faults;
mod file;
mod random;

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hybster_log::Disk;

pub use faults::{Crash, Faults};
use file::File;
pub use random::Random;

/// What a sector is here.
pub const SECTOR: usize = 512;

/// What the page cache takes whole.
const PAGE: usize = 4096;

/// A disk with one directory, or a process's hold of it. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct VirtualDisk {
    state: Arc<Mutex<State>>,
    /// The process that this handle belongs to. After a crash others do.
    process: u64,
}

/// An open file of a [`VirtualDisk`].
#[derive(Clone, Copy, Debug)]
pub struct Handle(u64);

#[derive(Clone, Debug)]
struct State {
    random: Random,
    files: BTreeMap<u64, File>,
    next_file: u64,
    names: BTreeMap<String, u64>,
    /// Names as they are on disk, and what has changed since, in order.
    durable_names: BTreeMap<String, u64>,
    changes: Vec<Change>,
    locked_by: Option<u64>,
    process: u64,
    boot: u64,
    capacity: u64,
    faults: Faults,
    operations: u64,
    syncs: u64,
    has_crashed: bool,
}

#[derive(Clone, Debug)]
enum Change {
    Create(String, u64),
    Rename(String, String),
    Remove(String),
}

impl Change {
    fn touches(&self, name: &str) -> bool {
        match self {
            Self::Create(own, _) | Self::Remove(own) => own == name,
            Self::Rename(from, to) => from == name || to == name,
        }
    }

    fn names(&self) -> Vec<&str> {
        match self {
            Self::Create(own, _) | Self::Remove(own) => vec![own],
            Self::Rename(from, to) => vec![from, to],
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            Self::Create(name, file) => drop(names.insert(name.clone(), *file)),
            Self::Rename(from, to) => {
                if let Some(file) = names.remove(from) {
                    names.insert(to.clone(), file);
                }
            }
            Self::Remove(name) => drop(names.remove(name)),
        }
    }
}

impl VirtualDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            random: Random::new(seed),
            files: BTreeMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            changes: Vec::new(),
            locked_by: None,
            process: 0,
            boot: 1,
            capacity: u64::MAX,
            faults: Faults::default(),
            operations: 0,
            syncs: 0,
            has_crashed: false,
        };
        Self { state: Arc::new(Mutex::new(state)), process: 0 }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what is to go wrong; operations are counted from now on.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state();
        state.faults = faults;
        (state.operations, state.syncs) = (0, 0);
    }

    /// The bytes that files can have taken, all together.
    pub fn set_capacity(&self, bytes: u64) {
        self.state().capacity = bytes;
    }

    /// Operations since the faults were set.
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Whether the process has reached the operation that it was to crash at.
    #[must_use]
    pub fn has_crashed(&self) -> bool {
        self.state().has_crashed
    }

    /// The process is killed: the page cache stays. Handles of before are refused everything; the one
    /// that is returned belongs to the next process.
    #[must_use]
    pub fn kill(&self) -> Self {
        let mut state = self.state();
        state.process += 1;
        state.locked_by = None;
        state.faults = Faults::default();
        state.has_crashed = false;
        Self { state: Arc::clone(&self.state), process: state.process }
    }

    /// The power fails: what was not synced is kept, lost or kept in part. The next process runs under
    /// another boot.
    #[must_use]
    pub fn lose_power(&self) -> Self {
        {
            let mut state = self.state();
            state.boot += 1;
            let state = &mut *state;
            state.durable_names =
                names_left(&state.durable_names, &state.changes, &mut state.random);
            state.names = state.durable_names.clone();
            state.changes.clear();
            let pattern = state.random.below(4);
            for file in state.files.values_mut() {
                file.lose_power(pattern, &mut state.random);
            }
            state.drop_unnamed();
        }
        self.kill()
    }

    /// The page cache forgets what it believes to be on disk.
    pub fn forget_clean(&self) {
        self.state().files.values_mut().for_each(File::forget_clean);
    }

    /// Another disk with what this one's files read as, such as a restored backup.
    #[must_use]
    pub fn copy(&self) -> Self {
        let mut state = self.state().clone();
        state.process += 1;
        state.locked_by = None;
        state.faults = Faults::default();
        state.has_crashed = false;
        state.files.values_mut().for_each(File::settle);
        state.durable_names = state.names.clone();
        state.changes.clear();
        let process = state.process;
        Self { state: Arc::new(Mutex::new(state)), process }
    }

    /// The names of all files, and their lengths.
    #[must_use]
    pub fn files(&self) -> Vec<(String, u64)> {
        let state = self.state();
        let length = |file: &u64| state.files.get(file).map_or(0, File::length);
        state.names.iter().map(|(name, file)| (name.clone(), length(file))).collect()
    }

    /// What a file reads as.
    #[must_use]
    pub fn content(&self, name: &str) -> Vec<u8> {
        self.with(name, |file| file.content().to_vec())
    }

    /// Makes or replaces a file, durable at once.
    pub fn put(&self, name: &str, content: &[u8]) {
        let mut state = self.state();
        let number = state.new_file();
        if let Some(file) = state.files.get_mut(&number) {
            file.write(content, 0);
            file.settle();
        }
        state.names.insert(name.to_owned(), number);
        state.durable_names.insert(name.to_owned(), number);
    }

    /// Flips a bit, in the cache and on disk.
    pub fn flip(&self, name: &str, bit: u64) {
        self.with(name, |file| file.flip(bit));
    }

    /// A sector cannot be read any more.
    pub fn make_unreadable(&self, name: &str, sector: u64) {
        self.with(name, |file| file.make_unreadable(sector));
    }

    /// A sector turns back into what it was before it was last written, synced or not; tells whether
    /// that is something else.
    #[must_use]
    pub fn revert(&self, name: &str, sector: u64) -> bool {
        self.with(name, |file| file.revert(sector))
    }

    fn with<T: Default>(&self, name: &str, act: impl FnOnce(&mut File) -> T) -> T {
        let mut state = self.state();
        let number = state.names.get(name).copied();
        number.and_then(|number| state.files.get_mut(&number)).map_or_else(T::default, act)
    }

    /// Counts an operation, and fails if the process is not there any more.
    fn operation(&self) -> io::Result<MutexGuard<'_, State>> {
        match self.begin()? {
            (state, false) => Ok(state),
            (_, true) => Err(faults::crashed()),
        }
    }

    /// Counts an operation, and tells whether the process crashes in it.
    fn begin(&self) -> io::Result<(MutexGuard<'_, State>, bool)> {
        let mut state = self.state();
        if state.process != self.process || state.has_crashed {
            return Err(faults::crashed());
        }
        state.operations += 1;
        let crash = state.faults.crash.filter(|crash| crash.after_operations < state.operations);
        state.has_crashed = crash.is_some();
        let crashes = state.has_crashed;
        Ok((state, crashes))
    }
}

/// Which changes of names a loss of power keeps: any, but those of one name in order.
fn names_left(
    durable: &BTreeMap<String, u64>,
    changes: &[Change],
    random: &mut Random,
) -> BTreeMap<String, u64> {
    let mut names = durable.clone();
    let mut lost: Vec<&str> = Vec::new();
    for change in changes {
        let depends = lost.iter().any(|name| change.touches(name));
        if depends || random.below(2) == 0 {
            lost.extend(change.names());
        } else {
            change.apply(&mut names);
        }
    }
    names
}

impl State {
    fn new_file(&mut self) -> u64 {
        let number = self.next_file;
        self.next_file += 1;
        self.files.insert(number, File::default());
        number
    }

    /// Files without a name are gone: what has them open was killed.
    fn drop_unnamed(&mut self) {
        let named: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|number, _| named.contains(number));
    }

    fn taken(&self) -> u64 {
        let mut numbers: Vec<u64> = self.names.values().copied().collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers.iter().filter_map(|number| self.files.get(number)).map(File::length).sum()
    }

    fn file(&mut self, handle: Handle) -> io::Result<&mut File> {
        self.files.get_mut(&handle.0).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn find(&self, name: &str) -> io::Result<u64> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.names);
        self.changes.push(change);
    }
}

impl Disk for VirtualDisk {
    type File = Handle;

    fn lock(&mut self) -> io::Result<()> {
        let mut state = self.operation()?;
        match state.locked_by {
            Some(_) => Err(io::ErrorKind::WouldBlock.into()),
            None => {
                state.locked_by = Some(self.process);
                Ok(())
            }
        }
    }

    fn names(&mut self) -> io::Result<Vec<String>> {
        Ok(self.operation()?.names.keys().cloned().collect())
    }

    fn open(&mut self, name: &str) -> io::Result<Handle> {
        self.operation()?.find(name).map(Handle)
    }

    fn create(&mut self, name: &str) -> io::Result<Handle> {
        let mut state = self.operation()?;
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let number = state.new_file();
        state.change(Change::Create(name.to_owned(), number));
        Ok(Handle(number))
    }

    fn length(&mut self, file: &Handle) -> io::Result<u64> {
        Ok(self.operation()?.file(*file)?.length())
    }

    fn read(&mut self, file: &Handle, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.operation()?.file(*file)?.read(buffer, offset)
    }

    fn write(&mut self, file: &Handle, bytes: &[u8], offset: u64) -> io::Result<()> {
        let (mut state, crashes) = self.begin()?;
        let fails = state.faults.write_fails_at == Some(state.operations);
        if crashes || fails {
            // The first pages may have got to the cache.
            let pages = state.random.below(bytes.len().div_ceil(PAGE) as u64 + 1) as usize;
            let count = bytes.len().min(pages * PAGE);
            state.file(*file)?.write(&bytes[..count], offset);
            return Err(if crashes { faults::crashed() } else { faults::broken() });
        }
        let grows = (offset + bytes.len() as u64).saturating_sub(state.file(*file)?.length());
        if grows > state.capacity.saturating_sub(state.taken()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.file(*file)?.write(bytes, offset);
        Ok(())
    }

    fn preallocate(&mut self, file: &Handle, length: u64) -> io::Result<()> {
        let mut state = self.operation()?;
        let grows = length.saturating_sub(state.file(*file)?.length());
        if grows > state.capacity.saturating_sub(state.taken()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        state.file(*file)?.grow(length);
        Ok(())
    }

    fn set_length(&mut self, file: &Handle, length: u64) -> io::Result<()> {
        self.operation()?.file(*file)?.set_length(length);
        Ok(())
    }

    fn sync(&mut self, file: &Handle) -> io::Result<()> {
        let mut state = self.operation()?;
        state.syncs += 1;
        if state.faults.sync_fails_at == Some(state.syncs) {
            let mut random = state.random.fork();
            state.file(*file)?.fail_to_sync(&mut random);
            return Err(faults::broken());
        }
        state.file(*file)?.sync();
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        let mut state = self.operation()?;
        state.durable_names = state.names.clone();
        state.changes.clear();
        Ok(())
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.operation()?;
        state.find(from)?;
        state.change(Change::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let mut state = self.operation()?;
        state.find(name)?;
        state.change(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn boot(&mut self) -> io::Result<[u8; 16]> {
        let boot = self.operation()?.boot;
        Ok(u128::from(boot).to_le_bytes())
    }
}

#[cfg(test)]
mod tests;
