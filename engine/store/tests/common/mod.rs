//! A store on a virtual disk, beside a model of what must be in it.
#![allow(dead_code, reason = "each test uses a part")]

use std::collections::BTreeMap;

use hybster_disk::{Crash, Faults, Random, VirtualDisk};
use hybster_store::{Manifest, Options, PageId, Step, Store, StoreError};

pub(crate) type Outcome<T> = Result<T, String>;
pub(crate) type Virtual = Store<VirtualDisk>;

/// A page that is put, or removed.
pub(crate) type Call = (PageId, Option<Vec<u8>>);

/// A checkpoint as it must be read.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(crate) struct State {
    pub(crate) manifest: Manifest,
    pub(crate) pages: BTreeMap<PageId, Vec<u8>>,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Killed,
    PowerLost,
}

pub(crate) const ENDS: [End; 2] = [End::Killed, End::PowerLost];

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) disk: VirtualDisk,
    pub(crate) options: Options,
    /// What was committed, and reported so.
    pub(crate) committed: Option<State>,
    /// What may have been committed when the process ended.
    pub(crate) candidate: Option<State>,
    /// The most blocks that two neighbouring checkpoints took together.
    pub(crate) most_blocks: u64,
    disk_failed: bool,
    /// Pages that are put have at most so many bytes.
    pub(crate) longest_now: u64,
    /// The next checkpoint has other content in every page.
    pub(crate) replaces_all: bool,
}

/// A stand-in for the digest rule of the core: good enough to see a page in another's place.
pub(crate) fn digest(page: PageId, content: &[u8]) -> [u8; 32] {
    let mut out = [page.part; 32];
    out[..8].copy_from_slice(&page.index.to_le_bytes());
    for (at, byte) in content.iter().enumerate() {
        let place = &mut out[8 + at % 23];
        *place = place.wrapping_mul(31).wrapping_add(*byte).rotate_left(3);
    }
    out
}

pub(crate) fn root(parts: &[Vec<[u8; 32]>]) -> [u8; 32] {
    let mut out = [parts.len() as u8; 32];
    for (number, digest) in parts.iter().flatten().enumerate() {
        for (at, byte) in digest.iter().enumerate() {
            out[at] = out[at].wrapping_mul(17).wrapping_add(byte ^ number as u8).rotate_left(1);
        }
    }
    out
}

pub(crate) fn small(random: &mut Random) -> Options {
    Options {
        most_bytes: 8 << 20,
        most_pages: 64,
        longest_page: 30_000,
        longest_blob: 9_000,
        sync_bytes: 1 << (12 + random.below(8)),
    }
}

impl State {
    /// The digest over all pages.
    fn seal(&mut self) {
        let parts: Vec<Vec<[u8; 32]>> = (0..self.manifest.pages.len())
            .map(|part| {
                let pages =
                    (0..self.manifest.pages[part]).map(|index| PageId { part: part as u8, index });
                pages.map(|page| digest(page, &self.pages[&page])).collect()
            })
            .collect();
        self.manifest.root = root(&parts);
    }

    pub(crate) fn blocks(&self) -> u64 {
        let pages: u64 = self.pages.values().map(|page| (page.len() as u64).div_ceil(4096)).sum();
        let manifest = &self.manifest;
        let blobs = manifest.certificate.len() + manifest.configuration.len();
        pages + (blobs as u64 + 200 + 40 * self.pages.len() as u64).div_ceil(4096)
    }
}

/// All of a store, read by number and in the order of the file, which must agree.
pub(crate) fn read(store: &mut Virtual) -> Result<Option<State>, StoreError> {
    let Some(manifest) = store.manifest().cloned() else { return Ok(None) };
    let mut pages = BTreeMap::new();
    for (part, count) in manifest.pages.iter().enumerate() {
        for index in 0..*count {
            let page = PageId { part: part as u8, index };
            let mut content = Vec::new();
            store.read_page(page, &mut content)?;
            pages.insert(page, content);
        }
    }
    let mut scanned = BTreeMap::new();
    store.verify(
        |page, content| {
            scanned.insert(page, content.to_vec());
            digest(page, content)
        },
        |_, parts| root(parts),
    )?;
    assert_eq!(scanned, pages, "a scan reads what single reads do");
    Ok(Some(State { manifest, pages }))
}

/// As [`read`], by a reader beside the store.
fn read_beside(store: &Virtual, disk: VirtualDisk) -> Result<Option<State>, StoreError> {
    let Some(manifest) = store.manifest().cloned() else { return Ok(None) };
    let mut reader = store.reader(disk)?;
    let mut pages = BTreeMap::new();
    for part in 0..manifest.pages.len() as u8 {
        for index in 0..reader.pages_of(part) {
            let page = PageId { part, index };
            pages.insert(page, reader.page(page)?.to_vec());
        }
    }
    Ok(Some(State { manifest, pages }))
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let disk = VirtualDisk::new(random.next());
        let options = small(&mut random);
        Self {
            random,
            disk,
            options,
            committed: None,
            candidate: None,
            most_blocks: 0,
            disk_failed: false,
            longest_now: options.longest_page.into(),
            replaces_all: false,
        }
    }

    /// One attempt to open; `Ok(None)` if the process crashed in it.
    pub(crate) fn try_open(&mut self) -> Outcome<Option<Virtual>> {
        let opened = Store::open(self.disk.clone(), self.options, [7; 16]);
        if self.disk.has_crashed() {
            return Ok(None);
        }
        let (mut store, manifest) = opened.map_err(|error| format!("not opened: {error}"))?;
        let found = match read(&mut store) {
            Err(_) if self.disk.has_crashed() => return Ok(None),
            found => found.map_err(|error| format!("not read: {error}"))?,
        };
        match read_beside(&store, self.disk.clone()) {
            Err(_) if self.disk.has_crashed() => return Ok(None),
            beside => {
                let beside = beside.map_err(|error| format!("not read: {error}"))?;
                assert_eq!(beside, found, "a reader beside the store reads what the store does");
            }
        }
        self.check(found, manifest)?;
        self.disk_failed = false;
        Ok(Some(store))
    }

    /// It is the last checkpoint that was reported, or the one that was being committed.
    fn check(&mut self, found: Option<State>, manifest: Option<Manifest>) -> Outcome<()> {
        if manifest != found.as_ref().map(|state| state.manifest.clone()) {
            return Err("the manifest that was returned is another one".to_owned());
        }
        if found != self.committed && (found.is_none() || found != self.candidate) {
            let order = |state: &Option<State>| state.as_ref().map(|state| state.manifest.order);
            let orders = [&found, &self.committed, &self.candidate].map(order);
            return Err(format!("found, committed, perhaps committed: {orders:?}, or a mix"));
        }
        self.committed = found;
        self.candidate = None;
        Ok(())
    }

    /// Opens, with crashes on the way.
    pub(crate) fn open(&mut self) -> Outcome<Virtual> {
        for _ in 0..3 {
            if self.random.one_in(2) {
                break;
            }
            let after_operations = self.random.below(30);
            self.crash_after(after_operations);
            if let Some(store) = self.try_open()? {
                self.disk.set_faults(Faults::default());
                return Ok(store);
            }
            self.end(None);
        }
        self.disk.set_faults(Faults::default());
        self.try_open()?.ok_or_else(|| "crashed without cause".to_owned())
    }

    pub(crate) fn crash_after(&self, after_operations: u64) {
        let crash = Some(Crash { after_operations });
        self.disk.set_faults(Faults { crash, ..Faults::default() });
    }

    /// The process ends, one way or the other.
    pub(crate) fn end(&mut self, how: Option<End>) {
        let random = if self.random.one_in(2) { End::Killed } else { End::PowerLost };
        match how.unwrap_or(random) {
            End::Killed => {
                self.disk = self.disk.kill();
                if self.disk_failed && self.random.one_in(2) {
                    self.disk.forget_clean();
                }
            }
            End::PowerLost => self.disk = self.disk.lose_power(),
        }
    }

    fn content(&mut self) -> Vec<u8> {
        let longest = self.longest_now;
        let length = match self.random.below(6) {
            0 => 0,
            _ if longest > 100_000 => self.random.below(longest / 4),
            1 => self.random.below(longest + 1),
            2 => (4096 * (1 + self.random.below(3))).min(longest),
            _ => self.random.below(longest.min(5_000)),
        };
        let mut word = self.random.next();
        (0..length)
            .map(|at| {
                word = if at % 8 == 0 { self.random.next() } else { word >> 8 };
                word as u8
            })
            .collect()
    }

    /// The state of the next checkpoint, and the calls that lead there.
    pub(crate) fn next_state(&mut self) -> (State, Vec<Call>) {
        let mut state = self.committed.clone().unwrap_or_default();
        let mut calls = Vec::new();
        let parts = match self.random.below(8) {
            0 => self.random.below(4) as usize,
            _ => 2,
        };
        let old = std::mem::take(&mut state.manifest.pages);
        for part in 0..parts.max(old.len()) {
            let there = old.get(part).copied().unwrap_or(0);
            let wanted = match self.random.below(4) {
                _ if part >= parts => 0,
                0 => self.random.below(20),
                _ if there == 0 => 1 + self.random.below(8),
                _ => there,
            };
            let page = |index| PageId { part: part as u8, index };
            calls.extend((wanted..there).map(|index| (page(index), None)));
            let share = 1 + self.random.below(6);
            for index in 0..wanted {
                if index >= there || self.replaces_all || self.random.one_in(share) {
                    let content = self.content();
                    calls.push((page(index), Some(content)));
                }
            }
            if part < parts {
                state.manifest.pages.push(wanted);
            }
        }
        // In any order, and some twice.
        for at in (1..calls.len()).rev() {
            calls.swap(at, self.random.below(at as u64 + 1) as usize);
        }
        if let Some((page, Some(_))) = calls.first().cloned()
            && self.random.one_in(2)
        {
            let content = self.content();
            calls.push((page, Some(content)));
        }
        for (page, content) in &calls {
            match content {
                Some(content) => drop(state.pages.insert(*page, content.clone())),
                None => drop(state.pages.remove(page)),
            }
        }
        state.manifest.order += 1 + self.random.below(100);
        state.manifest.certificate = vec![1; self.random.below(9_000) as usize];
        state.manifest.configuration = vec![2; self.random.below(50) as usize];
        state.seal();
        (state, calls)
    }

    /// One checkpoint; `Ok(false)` when the process has to end.
    pub(crate) fn checkpoint(&mut self, store: &mut Virtual) -> Outcome<bool> {
        let (state, calls) = self.next_state();
        let stops_at = self.random.below(10 * calls.len() as u64 + 10);
        // What was given up has had its space, too.
        let old = self.committed.as_ref().map_or(0, State::blocks);
        self.most_blocks = self.most_blocks.max(old + state.blocks());
        let written = self.write(store, &state, &calls, stops_at);
        match written {
            Ok(true) => {
                self.committed = Some(state);
                self.candidate = None;
                let most = (2 + self.most_blocks * 17 / 16 + self.most_blocks / 16 + 256) * 4096;
                if store.counters().file_bytes > most {
                    return Err(format!("the file has {:?}, allowed {most}", store.counters()));
                }
                Ok(true)
            }
            // It was given up on purpose.
            Ok(false) => Ok(true),
            Err(StoreError::Full { .. } | StoreError::Limit { .. }) => {
                if store.manifest() != self.committed.as_ref().map(|state| &state.manifest) {
                    return Err("a full disk has changed what is committed".to_owned());
                }
                store.abandon();
                self.candidate = None;
                Ok(true)
            }
            Err(_) if self.disk.has_crashed() => Ok(false),
            Err(StoreError::Io { .. }) => {
                self.disk_failed = true;
                self.stays_failed(store)?;
                Ok(false)
            }
            Err(error) => Err(format!("a commit: {error}")),
        }
    }

    fn write(
        &mut self,
        store: &mut Virtual,
        state: &State,
        calls: &[Call],
        stops_at: u64,
    ) -> Result<bool, StoreError> {
        store.begin(state.manifest.clone())?;
        let last = calls.len().saturating_sub(1);
        for (at, (page, content)) in calls.iter().enumerate() {
            if at as u64 == stops_at {
                store.abandon();
                return Ok(false);
            }
            let is_first = calls[..at].iter().all(|(earlier, _)| earlier != page);
            let was_there = self.committed.as_ref().is_some_and(|old| old.pages.contains_key(page));
            if at == last && is_first && was_there == content.is_none() {
                let refused = store.commit_step();
                if !matches!(refused, Err(StoreError::Incomplete(missing)) if missing == *page) {
                    return Err(StoreError::Misuse("a page is missing, and nobody says so"));
                }
            }
            match content {
                Some(content) => store.put_page(*page, content)?,
                None => store.remove_page(*page)?,
            }
        }
        self.candidate = Some(state.clone());
        while store.commit_step()? == Step::More {
            if self.random.below(200) == 0 {
                store.abandon();
                self.candidate = None;
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A store that has failed stays as it is.
    fn stays_failed(&mut self, store: &mut Virtual) -> Outcome<()> {
        store.abandon();
        let begun = store.begin(Manifest::default());
        let is_failed = matches!(begun, Err(StoreError::Failed))
            && matches!(store.commit_step(), Err(StoreError::Failed));
        if is_failed { Ok(()) } else { Err("a store that has failed goes on".to_owned()) }
    }

    pub(crate) fn random_faults(&mut self) {
        let mut faults = Faults::default();
        match self.random.below(8) {
            0..4 => {
                faults.crash = Some(Crash { after_operations: self.random.below(120) });
            }
            4 => faults.sync_fails_at = Some(1 + self.random.below(12)),
            5 => faults.write_fails_at = Some(1 + self.random.below(80)),
            _ => {}
        }
        self.disk.set_faults(faults);
        self.disk.set_capacity(match self.random.below(4) {
            0 => 4096 * (10 + self.random.below(100)),
            _ => u64::MAX,
        });
    }

    /// A life: checkpoints until it ends.
    pub(crate) fn live(&mut self, mut store: Virtual, checkpoints: u64) -> Outcome<()> {
        for _ in 0..checkpoints {
            if !self.checkpoint(&mut store)? {
                return Ok(());
            }
            if self.random.one_in(4) && !self.disk.has_crashed() {
                let found = read(&mut store);
                if self.disk.has_crashed() {
                    return Ok(());
                }
                if found.map_err(|error| format!("while it lives: {error}"))? != self.committed {
                    return Err("a store reads otherwise than it was written".to_owned());
                }
            }
        }
        Ok(())
    }
}

/// Lives with crashes, failed syncs, full disks and losses of power, from one seed.
pub(crate) fn lives(seed: u64) -> Outcome<()> {
    let mut world = World::new(seed);
    // Some have states that shrink, so that pages are moved and the file is cut off.
    let shrinks = seed.is_multiple_of(4);
    if shrinks {
        world.options.longest_page = 400_000;
        world.options.most_bytes = 64 << 20;
    }
    for life in 0..5 {
        let store = world.open()?;
        world.random_faults();
        if shrinks {
            world.longest_now = if life % 2 == 0 { 400_000 } else { 300 };
            world.replaces_all = world.random.one_in(2);
        }
        let checkpoints = 1 + world.random.below(5);
        world.live(store, checkpoints)?;
        world.end(None);
        world.disk.set_capacity(u64::MAX);
    }
    world.disk.set_faults(Faults::default());
    world.try_open()?;
    Ok(())
}

/// Checkpoints that grow and shrink: the file shrinks with them, and nothing is lost on the way.
pub(crate) fn sizes(seed: u64) -> Outcome<()> {
    let mut world = World::new(seed);
    world.options.longest_page = 400_000;
    world.options.most_bytes = 64 << 20;
    for _ in 0..2 {
        let mut store = world.open()?;
        for longest in [400_000, 300] {
            (world.longest_now, world.replaces_all) = (longest, true);
            for _ in 0..2 + world.random.below(20) {
                if !world.checkpoint(&mut store)? {
                    return Err("it has ended without cause".to_owned());
                }
                world.replaces_all = false;
            }
            if read(&mut store).map_err(|error| error.to_string())? != world.committed {
                return Err("it reads otherwise than it was written".to_owned());
            }
        }
        // Updates that were given up do not count.
        for _ in 0..3 {
            let (state, calls) = world.next_state();
            let written = world.write(&mut store, &state, &calls, u64::MAX);
            if written.map_err(|error| error.to_string())? {
                world.committed = Some(state);
            }
        }
        let counters = store.counters();
        let most = 17 * counters.used_bytes / 8 + 258 * 4096;
        if counters.file_bytes > most {
            return Err(format!("{counters:?}, and {most} are allowed"));
        }
        drop(store);
        world.end(None);
    }
    world.try_open()?;
    Ok(())
}

/// A store that has run, and is damaged in one place while nobody uses it. It is read as it was
/// committed, or called damaged.
pub(crate) fn damaged(seed: u64) -> Outcome<()> {
    let mut world = World::new(seed);
    let store = world.open()?;
    let checkpoints = 1 + world.random.below(4);
    world.live(store, checkpoints)?;
    world.end(None);
    let (name, length) =
        world.disk.files().into_iter().find(|(_, length)| *length > 0).ok_or("no file")?;
    // Superblocks are few, and so are tables.
    let sector = match world.random.below(4) {
        0 => 8 * world.random.below(2),
        _ => world.random.below(length / 512),
    };
    match world.random.below(4) {
        0 => world.disk.flip(&name, sector * 4096 + world.random.below(4096)),
        1 => world.disk.make_unreadable(&name, sector),
        2 => {
            let mut content = world.disk.content(&name);
            content[sector as usize * 512..][..512].fill_with(|| world.random.next() as u8);
            world.disk.put(&name, &content);
        }
        _ => {
            // The end is lost, or two sectors are exchanged.
            let mut content = world.disk.content(&name);
            if world.random.one_in(2) {
                content.truncate(sector as usize * 512);
            } else {
                let other = world.random.below(length / 512) as usize * 512;
                let at = sector as usize * 512;
                let kept = content[at..at + 512].to_vec();
                content.copy_within(other..other + 512, at);
                content[other..other + 512].copy_from_slice(&kept);
            }
            world.disk.put(&name, &content);
        }
    }
    match world.try_open() {
        Ok(_) => Ok(()),
        Err(error) if error.contains(" damaged: ") => Ok(()),
        Err(error) => Err(format!("sector {sector}: {error}")),
    }
}

/// Runs seeds; the first that fails.
pub(crate) fn campaign(run: fn(u64) -> Outcome<()>, seeds: std::ops::Range<u64>) -> Outcome<()> {
    for seed in seeds {
        run(seed).map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}
