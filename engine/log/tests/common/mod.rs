//! A log on a virtual disk, beside a model of what must be in it.
#![allow(dead_code, reason = "each test uses a part")]

use std::sync::Arc;

pub(crate) use hybster_disk::Random;
use hybster_disk::{Crash, Faults, VirtualDisk};
use hybster_log::{
    AppendError, Cursor, Damage, Durability, Gate, Log, LogError, Options, Recovery, Report, Step,
    WhenFull, Writer,
};

/// A record that was appended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub(crate) kind: u16,
    pub(crate) writer: u16,
    pub(crate) content: Vec<u8>,
    pub(crate) end: u64,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    Killed,
    PowerLost,
}

/// What must be there after the next start, and what may.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    /// All that may be there, in order.
    pub(crate) entries: Vec<Entry>,
    /// Kept by a loss of power.
    pub(crate) synced: u64,
    /// What was synced before the last batch was written.
    pub(crate) synced_before: u64,
    /// Kept when the process is killed.
    pub(crate) written: u64,
    /// Given away by the gate.
    pub(crate) released: u64,
    /// What was truncated at most.
    pub(crate) needed_from: u64,
    /// A write or sync has failed: the page cache proves nothing.
    pub(crate) disk_failed: bool,
    pub(crate) power_lost: bool,
    pub(crate) was_closed: bool,
    pub(crate) last_break: Option<u64>,
    /// What the last process that appended was to promise.
    pub(crate) durability: Option<Durability>,
}

/// An open log.
pub(crate) struct Open {
    pub(crate) log: Log,
    pub(crate) writer: Writer<VirtualDisk>,
    pub(crate) gate: Gate,
    pub(crate) now: u64,
}

pub(crate) struct World {
    pub(crate) random: Random,
    pub(crate) disk: VirtualDisk,
    pub(crate) options: Options,
    pub(crate) model: Model,
}

pub(crate) type Outcome<T> = Result<T, String>;

pub(crate) fn small(random: &mut Random) -> Options {
    let durability = match random.below(4) {
        0 | 1 => Durability::Sync,
        2 => Durability::Async { window_ms: 20, window_bytes: 2_000 },
        _ => Durability::None,
    };
    Options {
        durability,
        buffer_bytes: 4096 << random.below(3),
        segment_bytes: 4096 * (2 + random.below(6)),
        reserve_bytes: 4096 * random.below(20),
        longest_record: 1 + random.below(2_000),
        when_full: WhenFull::Refuse,
    }
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let options = small(&mut random);
        Self::with(seed, options)
    }

    pub(crate) fn with(seed: u64, options: Options) -> Self {
        let mut random = Random::new(seed ^ 0x5eed);
        let disk = VirtualDisk::new(random.next());
        Self { random, disk, options, model: Model::default() }
    }

    /// One attempt to open; `Ok(None)` if the process crashed in it.
    pub(crate) fn try_open(&mut self) -> Outcome<Option<Open>> {
        let opened = self.recover();
        if self.disk.has_crashed() {
            return Ok(None);
        }
        let (log, writer, report, found) =
            opened.map_err(|error| format!("not opened: {error}"))?;
        self.check(&report, found)?;
        let gate = log.gate();
        self.model.synced = log.synced().0;
        self.model.synced_before = self.model.synced;
        self.model.written = log.written().0;
        self.model.released = self.model.synced;
        self.model.durability = Some(self.options.durability);
        self.model.disk_failed = false;
        self.model.power_lost = false;
        self.model.was_closed = false;
        if log.synced() != report.end || log.appended() != report.end {
            return Err(format!("cursors after the start are not {:?}", report.end));
        }
        Ok(Some(Open { log, writer, gate, now: 0 }))
    }

    #[allow(clippy::type_complexity, reason = "used once")]
    pub(crate) fn recover(
        &self,
    ) -> Result<(Log, Writer<VirtualDisk>, Report, Vec<Entry>), LogError> {
        let mut recovery = Recovery::open(self.disk.clone(), self.options, [7; 16])?;
        let mut found = Vec::new();
        while let Some(record) = recovery.next()? {
            found.push(Entry {
                kind: record.kind,
                writer: record.writer,
                content: record.content.to_vec(),
                end: record.end.0,
            });
        }
        let (log, writer, report) = recovery.finish()?;
        Ok((log, writer, report, found))
    }

    /// What is certain to be there.
    pub(crate) fn must(&self) -> u64 {
        let model = &self.model;
        match (model.power_lost || model.disk_failed, model.durability) {
            (true, Some(Durability::Sync)) => model.synced.max(model.released),
            (true, _) => model.synced,
            (false, _) => model.written.max(model.released),
        }
    }

    /// What was found is a prefix of what was appended, and no shorter than promised.
    pub(crate) fn check(&mut self, report: &Report, found: Vec<Entry>) -> Outcome<()> {
        let must = self.must();
        self.check_with(report, found, must)
    }

    pub(crate) fn check_with(
        &mut self,
        report: &Report,
        found: Vec<Entry>,
        must: u64,
    ) -> Outcome<()> {
        let first = report.first.0;
        if first > self.model.needed_from {
            return Err(format!("begins at {first}, needed from {}", self.model.needed_from));
        }
        let start =
            |entry: &Entry| entry.end - (8 + (entry.content.len() as u64).next_multiple_of(8));
        let from = self.model.entries.iter().position(|entry| start(entry) >= first);
        let expected = from.map_or(&[][..], |from| &self.model.entries[from..]);
        let count = found.len();
        if count > expected.len() || found != expected[..count] {
            let at = found.iter().zip(expected).position(|(a, b)| a != b);
            return Err(format!("{count} records are no prefix of what was appended: {at:?}"));
        }
        let end = found.last().map_or(first, |entry| entry.end);
        if end < must || report.end.0 != end {
            return Err(format!("ends at {end}, reported {}, promised {must}", report.end.0));
        }
        self.check_break(report)?;
        self.model.entries.retain(|entry| entry.end <= end && start(entry) >= first);
        Ok(())
    }

    fn check_break(&mut self, report: &Report) -> Outcome<()> {
        if report.is_new {
            return Ok(());
        }
        let model = &mut self.model;
        let may_be_lost = model.power_lost
            && model.durability != Some(Durability::Sync)
            && model.released > model.synced.max(report.end.0);
        if model.was_closed && !report.was_closed && !model.power_lost {
            return Err("a log that was closed is not called so".to_owned());
        }
        let last_break = report.last_break.map(|cursor| cursor.0);
        // Attempts that crashed may have noted a break already.
        if last_break < model.last_break || (may_be_lost && last_break != Some(report.end.0)) {
            return Err(format!("last break {last_break:?}, known {:?}", model.last_break));
        }
        model.last_break = last_break;
        Ok(())
    }

    /// Opens, with crashes on the way.
    pub(crate) fn open(&mut self) -> Outcome<Open> {
        for _ in 0..4 {
            if self.random.one_in(2) {
                break;
            }
            let after_operations = self.random.below(60);
            self.disk.set_faults(Faults {
                crash: Some(Crash { after_operations }),
                ..Faults::default()
            });
            match self.try_open()? {
                Some(open) => {
                    self.disk.set_faults(Faults::default());
                    return Ok(open);
                }
                None => {
                    // It may have begun another segment already.
                    self.model.was_closed = false;
                    self.end(None);
                }
            }
        }
        self.disk.set_faults(Faults::default());
        self.try_open()?.ok_or_else(|| "crashed without cause".to_owned())
    }

    /// The process ends, one way or the other.
    pub(crate) fn end(&mut self, how: Option<End>) {
        let random = if self.random.one_in(2) { End::Killed } else { End::PowerLost };
        match how.unwrap_or(random) {
            End::Killed => {
                self.disk = self.disk.kill();
                if self.model.disk_failed && self.random.one_in(2) {
                    self.disk.forget_clean();
                }
            }
            End::PowerLost => {
                self.disk = self.disk.lose_power();
                self.model.power_lost = true;
            }
        }
    }

    pub(crate) fn append(&mut self, open: &Open) -> Outcome<()> {
        let (kind, writer) = (self.random.next() as u16, self.random.below(4) as u16);
        let longest = self.options.longest_record;
        let length = match self.random.below(4) {
            0 => self.random.below(longest + 1),
            _ => self.random.below(longest.min(100) + 1),
        };
        let content: Vec<u8> = (0..length).map(|_| self.random.next() as u8).collect();
        let (head, tail) = content.split_at(self.random.below(length + 1) as usize);
        match open.log.appender(writer).append(kind, &[head, tail]) {
            Ok(Cursor(end)) => self.model.entries.push(Entry { kind, writer, content, end }),
            Err(AppendError::Full) => {}
            Err(AppendError::Failed) if open.log.failure().is_some() => {}
            Err(error) => return Err(format!("append: {error}")),
        }
        Ok(())
    }

    /// One step of the writer; `Ok(false)` when it has stopped.
    pub(crate) fn step(&mut self, open: &mut Open) -> Outcome<bool> {
        open.now += self.random.below(4);
        let before = self.model.synced;
        let outcome = open.writer.step(open.now);
        if let Ok(Step::Idle { .. }) = outcome
            && open.writer.has_work()
            && self.options.durability == Durability::Sync
        {
            return Err("idle in spite of work".to_owned());
        }
        let synced = open.log.synced().0;
        if synced > before {
            self.model.synced_before = before;
        }
        self.model.synced = synced;
        self.model.written = open.log.written().0;
        self.model.released = open.gate.released(open.now).0.max(self.model.released);
        match outcome {
            Ok(_) => Ok(true),
            Err(_) => {
                self.model.disk_failed = !self.disk.has_crashed();
                Ok(false)
            }
        }
    }

    /// A failed log stays as it is.
    pub(crate) fn stays_failed(&mut self, open: &mut Open) -> Outcome<()> {
        let synced = open.log.synced();
        for _ in 0..3 {
            self.append(open)?;
            if open.writer.step(open.now).is_ok() || open.log.failure().is_none() {
                return Err("a log that has failed goes on".to_owned());
            }
        }
        if open.log.synced() != synced {
            return Err("a log that has failed still releases".to_owned());
        }
        Ok(())
    }

    /// A life: appends, steps, truncation, until it ends.
    pub(crate) fn live(&mut self, mut open: Open, steps: u64) -> Outcome<Option<Arc<LogError>>> {
        for _ in 0..steps {
            match self.random.below(20) {
                0..10 => self.append(&open)?,
                10..19 => {
                    if !self.step(&mut open)? {
                        self.stays_failed(&mut open)?;
                        return Ok(open.log.failure());
                    }
                }
                _ => {
                    // What is needed no more has been released, and is in a checkpoint.
                    let settled = self.model.synced.min(self.model.released);
                    let back = self.random.below(3_000);
                    let at = settled.saturating_sub(back).max(self.model.needed_from);
                    self.model.needed_from = at;
                    open.log.truncate_below(Cursor(at));
                }
            }
        }
        if self.random.one_in(4) {
            let Open { log, writer, .. } = open;
            match writer.close() {
                Ok(()) => self.model.was_closed = true,
                Err(_) => self.model.disk_failed = !self.disk.has_crashed(),
            }
            self.model.synced = log.synced().0;
            self.model.written = log.written().0;
        }
        Ok(None)
    }

    pub(crate) fn random_faults(&mut self) {
        let mut faults = Faults::default();
        match self.random.below(6) {
            0..3 => faults.crash = Some(Crash { after_operations: self.random.below(80) }),
            3 => faults.sync_fails_at = Some(1 + self.random.below(20)),
            4 => faults.write_fails_at = Some(1 + self.random.below(60)),
            _ => {}
        }
        self.disk.set_faults(faults);
    }
}

/// Lives with crashes, failed syncs and losses of power, from one seed.
pub(crate) fn lives(seed: u64) -> Outcome<()> {
    let mut world = World::new(seed);
    for _ in 0..6 {
        let open = match world.open() {
            Ok(open) => open,
            Err(error) => return Err(format!("{:?}: {error}", world.options.durability)),
        };
        world.random_faults();
        let steps = world.random.below(300);
        world
            .live(open, steps)
            .map_err(|error| format!("{:?}: {error}", world.options.durability))?;
        world.end(None);
        if world.random.one_in(2) {
            // Somebody has changed the options.
            world.options = small(&mut world.random);
        }
    }
    Ok(())
}

/// A log that has run, and is damaged in one place while nobody uses it. What is found then is all
/// that must be there, or it is called damaged.
pub(crate) fn damaged(seed: u64) -> Outcome<()> {
    let mut world = World::new(seed);
    world.options.durability = Durability::Sync;
    for _ in 0..1 + world.random.below(2) {
        let open = world.open()?;
        let steps = world.random.below(300);
        world.live(open, steps)?;
        world.end(None);
    }
    let files: Vec<(String, u64)> =
        world.disk.files().into_iter().filter(|(name, _)| name.starts_with("segment")).collect();
    if files.is_empty() {
        return Ok(());
    }
    let (name, length) = files[world.random.below(files.len() as u64) as usize].clone();
    let sector = world.random.below((length / 512).max(1));
    let mut is_lie = false;
    match world.random.below(4) {
        0 => world.disk.flip(&name, world.random.below(length * 8)),
        1 => world.disk.make_unreadable(&name, sector),
        2 => {
            is_lie = true;
            let _ = world.disk.revert(&name, sector);
        }
        _ => {
            let mut content = world.disk.content(&name);
            let at = sector as usize * 512;
            content[at..].iter_mut().take(512).for_each(|byte| *byte = world.random.next() as u8);
            world.disk.put(&name, &content);
        }
    }
    match world.recover() {
        Err(LogError::Damaged { .. } | LogError::Missing { .. }) => Ok(()),
        Err(error) => Err(format!("another error: {error}")),
        Ok((_, _, report, found)) => {
            // A disk that lies about its last sync cannot be told from one that has lost power.
            let must = world.must();
            world.model.was_closed &= !is_lie;
            let must = if is_lie { must.min(world.model.synced_before) } else { must };
            let checked = world.check_with(&report, found, must);
            checked.map_err(|error| format!("{name}, sector {sector}, lie {is_lie}: {error}"))
        }
    }
}

/// Runs seeds; the first that fails.
pub(crate) fn campaign(run: fn(u64) -> Outcome<()>, seeds: std::ops::Range<u64>) -> Outcome<()> {
    for seed in seeds {
        run(seed).map_err(|error| format!("seed {seed}: {error}"))?;
    }
    Ok(())
}

pub(crate) fn is_damaged(outcome: Result<impl Sized, LogError>) -> Option<Damage> {
    match outcome {
        Err(LogError::Damaged { damage, .. }) => Some(damage),
        _ => None,
    }
}
