//! The common part of all scenarios: a round with one group under a load that is counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Increments, Ledger, PauseRound, RestartRound, Round};
use crate::Error;
use crate::engine::{self, Monitor, Status};
use crate::launch::Group;
use crate::load::{ClosedLoop, Part, Plan, Recorder, Run, Sessions, Tallies, drive, measure};
use crate::options::FaultOptions;
use crate::run::connect_all;
use crate::spec::GroupSpec;
use crate::stop::Stop;

/// Longest wait for the operations that are outstanding at the end.
const DRAIN: Duration = Duration::from_secs(30);
/// Time for all threads to be ready before the load starts.
const RUN_UP: Duration = Duration::from_millis(100);
/// Longest time for the survivors to reach the same state after the load.
const SETTLE: Duration = Duration::from_secs(30);

/// A group, its load and an observer, while the scenario's script runs.
pub(super) struct Stage<'a> {
    /// The group.
    pub group: &'a mut Group,
    /// Asks replicas for their status.
    pub monitor: &'a mut Monitor,
    /// Time zero of the load.
    pub origin: Instant,
    /// Raised when the user interrupts.
    pub stop: &'a Stop,
    /// Replicas that the script killed.
    pub dead: Vec<u16>,
    tallies: &'a [Arc<Tallies>],
}

/// A moment of a load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    /// When it was.
    pub at: Instant,
    completed: u64,
}

/// What a script did and saw.
pub(super) struct Script {
    /// The replica that was killed or paused.
    pub replica: u16,
    /// The view before that.
    pub view_before: u64,
    /// Operations per second before that.
    pub before_ops_s: f64,
    /// Operations per second at the end.
    pub after_ops_s: f64,
    /// Only of a pause.
    pub pause: Option<PauseRound>,
    /// Only of restarts.
    pub restart: Option<RestartRound>,
}

impl Stage<'_> {
    /// Lets the load run until a time from its origin.
    ///
    /// # Errors
    /// If a replica ends that was not killed, or the user interrupts.
    pub(super) fn run_until(&mut self, time: Duration) -> Result<(), Error> {
        let end = self.origin + time;
        let (group, dead, stop) = (&mut *self.group, &self.dead, self.stop);
        stop.sleep_until(end, || group.expect_running(dead))
    }

    /// Lets the load run until a time from its origin; returns the mark of half that time.
    ///
    /// # Errors
    /// As [`Stage::run_until`].
    pub(super) fn settled(&mut self, time: Duration) -> Result<Mark, Error> {
        self.run_until(time / 2)?;
        let mark = self.mark();
        self.run_until(time)?;
        Ok(mark)
    }

    /// Now, and how many operations were acknowledged so far.
    #[must_use]
    pub(super) fn mark(&self) -> Mark {
        let completed = self.tallies.iter().map(|t| t.completed()).sum();
        Mark { at: Instant::now(), completed }
    }

    /// Operations per second since a mark.
    #[must_use]
    pub(super) fn rate_since(&self, mark: Mark) -> f64 {
        let now = self.mark();
        let seconds = (now.at - mark.at).as_secs_f64();
        (now.completed - mark.completed) as f64 / seconds.max(1e-3)
    }

    /// The leader of the view that most replicas report.
    ///
    /// # Errors
    /// If no replica answers.
    pub(super) fn leader(&mut self) -> Result<(u64, u16), Error> {
        let replicas = self.group.spec().replicas;
        let view = self.monitor.all().iter().map(|s| s.view).max();
        let view = view.ok_or_else(|| Error::new("no replica answers a status request"))?;
        Ok((view, (view % u64::from(replicas)) as u16))
    }
}

/// Starts a group and a load, runs the script during the load, ends the load when the script
/// returns, and checks the ledger. Latencies and gaps are recorded from `options.at` on.
///
/// # Errors
/// If the group does not start, a replica ends unexpectedly, or the user interrupts.
pub(super) fn play(
    options: &FaultOptions,
    spec: &GroupSpec,
    connections: u32,
    stop: &Stop,
    script: impl FnOnce(&mut Stage<'_>) -> Result<Script, Error>,
) -> Result<Round, Error> {
    let mut group = Group::launch(spec, stop)?;
    let drivers = connect_all(&group.path(), &options.group, stop)?;
    let mut monitor = Monitor::open(&group.path(), connections)?;
    let plan = Plan {
        origin: Instant::now() + RUN_UP,
        warmup: options.at,
        // The load ends with the script.
        measured: Duration::from_secs(24 * 3600),
        drain: DRAIN,
    };
    let parts = drivers.into_iter().map(|mut sessions| {
        let part: Part<Run<Increments>> = Box::new(move |tallies, stop| {
            let pace = ClosedLoop::new(sessions.count());
            drive(&mut sessions, pace, Increments::default(), &plan, tallies, stop)
        });
        part
    });
    let mut dead = Vec::new();
    let cores = spec.cores.loads.clone();
    let (runs, script) = measure(parts.collect(), &cores, stop, |tallies| {
        let mut stage = Stage {
            group: &mut group,
            monitor: &mut monitor,
            origin: plan.origin,
            stop,
            dead: Vec::new(),
            tallies,
        };
        let result = script(&mut stage);
        dead = std::mem::take(&mut stage.dead);
        tallies.iter().for_each(|t| t.finish());
        result
    })?;
    let value = engine::counter_value(&group.path(), connections, stop)?;
    let errors = runs.iter().map(|r| r.failed + r.unfinished).sum();
    let verdict = Ledger::of(&runs).verdict(value);
    let running: Vec<u16> = (0..spec.replicas).filter(|r| !dead.contains(r)).collect();
    let (diverged, statuses) = settle(&mut monitor, &running, stop)?;
    group.expect_running(&dead)?;
    let processes = group.usage()?;
    dead.iter().for_each(|r| group.kill(*r));
    let measured = Recorder::merge(runs.into_iter().map(|r| r.recorder));
    stop_survivors(group, &dead)?;
    let Script { replica, view_before, before_ops_s, after_ops_s, pause, restart } = script;
    Ok(Round {
        replica,
        view_before,
        view_after: statuses.iter().map(|s| s.view).max().unwrap_or(view_before),
        gap_ms: measured.longest_gap.as_secs_f64() * 1e3,
        latency_max_ms: measured.latency_ns.max() as f64 / 1e6,
        acknowledged: verdict.acknowledged,
        errors,
        lost: verdict.lost,
        doubled: verdict.doubled,
        before_ops_s,
        after_ops_s,
        diverged,
        pause,
        restart,
        processes,
    })
}

fn stop_survivors(mut group: Group, dead: &[u16]) -> Result<(), Error> {
    let mut result = Ok(());
    for (replica, child) in group.children().iter_mut().enumerate() {
        if !dead.iter().any(|d| usize::from(*d) == replica) {
            result = result.and(child.wait_stopped());
        }
    }
    result
}

/// Waits until all replicas that run have executed the same and agree on the stable checkpoint.
fn settle(
    monitor: &mut Monitor,
    running: &[u16],
    stop: &Stop,
) -> Result<(Vec<u16>, Vec<Status>), Error> {
    let deadline = Instant::now() + SETTLE;
    loop {
        stop.check()?;
        let all: Vec<Status> =
            monitor.all().into_iter().filter(|s| running.contains(&s.replica)).collect();
        let most = all.iter().map(|s| (s.executed, s.stable_checkpoint)).max().unwrap_or_default();
        let behind: Vec<u16> = running
            .iter()
            .copied()
            .filter(|r| {
                !all.iter().any(|s| s.replica == *r && (s.executed, s.stable_checkpoint) == most)
            })
            .collect();
        if behind.is_empty() || Instant::now() >= deadline {
            return Ok((behind, all));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}
