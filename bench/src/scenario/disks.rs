//! What disks do while a replica is down, and whether the replica comes back as it should.
//!
//! A group with f replicas at fault loses nothing. What takes a replica away here, a damaged log, an older copy
//! of its data or a full disk, happens to one replica at a time, while all others run, and f is 1 at least. It comes back
//! with the newest data it had, which nobody else has touched: copies are made to be damaged, so that
//! nothing is lost that the replica has promised.
//!
//! A torn tail is no fault: nobody relies on what was never synced. So it may happen to any number of replicas,
//! also to all of them, as when a building loses power.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::copy::copy;
use super::report::{DiskEvents, RestartRound};
use super::round::Stage;
use super::small_disk::SmallDisk;
use crate::Error;
use crate::engine::Status;
use crate::launch::End;
use crate::options::DiskEvent;
use crate::workload::Random;

/// What a replica says that finds its log damaged.
const DAMAGED: &str = "The log is damaged";
/// What it says when others have heard more from it than its data has.
const OLDER: &str = "the replica's data is an older copy";
/// What it says when it stops for want of room.
const FULL: &str = "the disk is full";
/// Longest wait for replicas to be in step, for one to find its disk full, or to be refused.
const PATIENCE: Duration = Duration::from_secs(20);
/// Orders that all replicas execute before it is sure that they have heard from each of the leader's pillars.
const IN_STEP: u64 = 128;
/// How long a disk stays full.
const FULL_FOR: Duration = Duration::from_secs(2);
/// Longer than the log waits before it asks a full disk again.
const FREE_FOR: Duration = Duration::from_secs(2);
/// What is free on a small disk beside the first segment, as a part of a segment.
const SPARE_PART: u64 = 4;

/// Does to a replica that is down what is drawn, and starts it again.
pub(super) fn happen(
    event: DiskEvent,
    stage: &mut Stage<'_>,
    victim: u16,
    random: &mut Random,
    done: &mut RestartRound,
) -> Result<(), Error> {
    let happened = match event {
        DiskEvent::TornTail => torn_tail(stage, victim, random, &mut done.torn_tail),
        DiskEvent::DamagedLog => damaged_log(stage, victim, random, &mut done.damaged_log),
        DiskEvent::OlderCopy => older_copy(stage, victim, done),
        DiskEvent::FullDisk => full_disk(stage, victim, done),
    };
    happened.map_err(|e| e.context(format!("replica {victim}, {event:?}")))
}

fn torn_tail(
    stage: &mut Stage<'_>,
    victim: u16,
    random: &mut Random,
    events: &mut DiskEvents,
) -> Result<(), Error> {
    let log = stage.group.data(victim).join("log");
    let torn = hybster_log::damage::tear(&log, &mut |below| random.below_u64(below));
    let torn = torn.map_err(|e| failed("tearing its log", &e))?;
    events.done += u64::from(torn);
    stage.comes_back(victim)?;
    events.came_back += u64::from(torn);
    Ok(())
}

fn damaged_log(
    stage: &mut Stage<'_>,
    victim: u16,
    random: &mut Random,
    events: &mut DiskEvents,
) -> Result<(), Error> {
    let aside = Aside::put(stage.group.data(victim))?;
    copy(&aside.newest, &aside.data).map_err(|e| failed("copying its data", &e))?;
    let log = aside.data.join("log");
    let damaged = hybster_log::damage::rot(&log, &mut |below| random.below_u64(below));
    if damaged.map_err(|e| failed("damaging its log", &e))?.is_some() {
        events.done += 1;
        events.refused += u64::from(is_refused(stage, victim, DAMAGED)?);
        aside.put_back()?;
        stage.comes_back(victim)?;
        events.came_back += 1;
        return Ok(());
    }
    aside.put_back()?;
    stage.comes_back(victim)
}

/// Only others can tell that a copy is an older one, from certificates of the replica that they have had
/// since. They log PREPAREs only, and a replica that comes back waits for all of them for a while. So one of the others
/// must have heard from it: all of them run without a break from the copy to the refusal, and the copy is the
/// leader's, as nobody orders anything without its PREPAREs. The COMMITs of a follower who is late are withdrawn, so that
/// perhaps nobody has heard from one since. The leader stands still while it is copied: that is as good as a crash.
fn older_copy(stage: &mut Stage<'_>, killed: u16, done: &mut RestartRound) -> Result<(), Error> {
    stage.comes_back(killed)?;
    let Some(view) = in_step(stage)? else { return Ok(()) };
    let leader = (view % u64::from(stage.group.spec().replicas)) as u16;
    let data = stage.group.data(leader);
    let older = data.with_extension("older");
    stage.group.pause(leader)?;
    let copied = copy(&data, &older);
    stage.group.resume(leader)?;
    copied.map_err(|e| failed("copying its data", &e))?;
    if in_step(stage)? != Some(view) {
        return fs::remove_dir_all(&older).map_err(|e| failed("removing an older copy", &e));
    }
    done.older_copy.done += 1;
    stage.kill(leader);
    let aside = Aside::put(data)?;
    fs::rename(&older, &aside.data).map_err(|e| failed("putting an older copy", &e))?;
    done.older_copy.refused += u64::from(is_refused(stage, leader, OLDER)?);
    aside.put_back()?;
    stage.comes_back(leader)?;
    done.older_copy.came_back += 1;
    done.restarts += 1;
    Ok(())
}

/// It may go on, holding clients if it has to, or stop and say why. What others order meanwhile is not
/// affected: one replica is.
fn full_disk(stage: &mut Stage<'_>, victim: u16, done: &mut RestartRound) -> Result<(), Error> {
    let data = stage.group.data(victim);
    let used = bytes_in(&data).map_err(|e| failed("looking at its data", &e))?;
    let segment = longest_file(&data.join("log")).map_err(|e| failed("looking at its log", &e))?;
    let size = used + 5 * segment;
    let disk = match SmallDisk::new(size) {
        Ok(disk) => disk,
        Err(error) => {
            done.full_disk_left_out = Some(format!("no file system in memory: {error}"));
            return stage.comes_back(victim);
        }
    };
    let small = disk.path().join("data");
    let taken = copy(&data, &small);
    let taken = taken.map_err(|e| failed("copying its data to a small disk", &e))?;
    // The replica begins a segment when it starts; for the next one there is no room until the filler is gone.
    disk.fill(size - taken - segment - segment / SPARE_PART)
        .map_err(|e| failed("filling a small disk", &e))?;
    let mut stopped = match stage.group.start_and_see(victim, Some(&small), PATIENCE, stage.stop)? {
        End::Runs => false,
        End::Ended(said) if said.contains(FULL) => true,
        other => return Err(Error::new(format!("on a full disk it {other}"))),
    };
    done.restarts += u64::from(!stopped);
    let was_full = Cell::new(stopped);
    if !stopped {
        let sees_it = |status: &Status| {
            was_full.set(status.disk.as_ref().is_some_and(|disk| disk.is_short));
            was_full.get()
        };
        stopped = stays(stage, victim, PATIENCE, sees_it)?;
        stopped = stopped || stays(stage, victim, FULL_FOR, |_| false)?;
    }
    if !stopped && !was_full.get() {
        return Err(Error::new("it has not noticed that its disk is full"));
    }
    done.full_disk.done += 1;
    disk.free().map_err(|e| failed("freeing a small disk", &e))?;
    done.full_disk.refused += u64::from(stopped);
    if stopped {
        stage.group.restart_with(victim, Some(&small), stage.stop)?;
        done.restarts += 1;
    }
    if stays(stage, victim, FREE_FOR, |_| false)? {
        return Err(Error::new("it stopped though its disk has room again"));
    }
    // What it has promised since is on the small disk only.
    stage.kill(victim);
    fs::remove_dir_all(&data).map_err(|e| failed("removing its earlier data", &e))?;
    copy(&small, &data).map_err(|e| failed("copying its data back", &e))?;
    stage.comes_back(victim)?;
    done.full_disk.came_back += 1;
    Ok(())
}

/// A replica's newest data, while something else is in its place.
struct Aside {
    data: PathBuf,
    newest: PathBuf,
}

impl Aside {
    fn put(data: PathBuf) -> Result<Self, Error> {
        let newest = data.with_extension("newest");
        fs::rename(&data, &newest).map_err(|e| failed("putting its data aside", &e))?;
        Ok(Self { data, newest })
    }

    fn put_back(self) -> Result<(), Error> {
        fs::remove_dir_all(&self.data)
            .and_then(|()| fs::rename(&self.newest, &self.data))
            .map_err(|e| failed("putting its data back", &e))
    }
}

/// Starts a replica that must not come back. If it does, it is ended again, and a line says so.
fn is_refused(stage: &mut Stage<'_>, victim: u16, saying: &str) -> Result<bool, Error> {
    let end = match stage.group.start_and_see(victim, None, PATIENCE, stage.stop)? {
        // Some things it learns only from others.
        End::Runs => stage.group.see_end(victim, PATIENCE, stage.stop)?,
        end => end,
    };
    stage.kill(victim);
    match end {
        End::Ended(said) if said.contains(saying) => Ok(true),
        other => {
            eprintln!("replica {victim} had to be refused with \"{saying}\", but it {other}");
            Ok(false)
        }
    }
}

/// Waits until all replicas have ordered with each other for a while, and returns their view; `None` if that takes too
/// long.
fn in_step(stage: &mut Stage<'_>) -> Result<Option<u64>, Error> {
    let deadline = Instant::now() + PATIENCE;
    // The view, and what all have executed that far.
    let mut since: Option<(u64, u64)> = None;
    while Instant::now() < deadline {
        stage.run_until(stage.origin.elapsed() + Duration::from_millis(50))?;
        let all = stage.monitor.all();
        let Some(Status { view, .. }) = all.first() else { continue };
        let is_one = all.len() == usize::from(stage.group.spec().replicas)
            && all.iter().all(|status| status.view == *view);
        let least = all.iter().map(|status| status.executed).min().unwrap_or(0);
        let most = all.iter().map(|status| status.executed).max().unwrap_or(0);
        match since {
            Some((before, executed)) if is_one && before == *view => {
                if least > executed + IN_STEP {
                    return Ok(Some(*view));
                }
            }
            _ => since = is_one.then_some((*view, most)),
        }
    }
    Ok(None)
}

/// Lets the load run for a time, or until the replica's status is as wanted; whether the replica has stopped
/// meanwhile for want of room.
fn stays(
    stage: &mut Stage<'_>,
    victim: u16,
    time: Duration,
    is_wanted: impl Fn(&Status) -> bool,
) -> Result<bool, Error> {
    let deadline = Instant::now() + time;
    stage.dead.push(victim);
    let mut stopped = false;
    while !stopped && Instant::now() < deadline {
        stage.run_until(stage.origin.elapsed() + Duration::from_millis(50))?;
        stopped = match stage.group.see_end(victim, Duration::ZERO, stage.stop)? {
            End::Runs => false,
            End::Ended(said) if said.contains(FULL) => true,
            other => return Err(Error::new(format!("on a full disk it {other}"))),
        };
        if !stopped && stage.monitor.status(victim).is_ok_and(|status| is_wanted(&status)) {
            break;
        }
    }
    stage.dead.retain(|dead| *dead != victim);
    Ok(stopped)
}

fn bytes_in(directory: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => bytes_in(&entry.path())?,
            false => entry.metadata()?.len(),
        };
    }
    Ok(bytes)
}

fn longest_file(directory: &Path) -> io::Result<u64> {
    let lengths = fs::read_dir(directory)?.map(|entry| Ok(entry?.metadata()?.len()));
    Ok(lengths.collect::<io::Result<Vec<u64>>>()?.into_iter().max().unwrap_or(0))
}

fn failed(doing: &str, error: &io::Error) -> Error {
    Error::new(format!("{doing} failed: {error}"))
}
