//! The common part of all scenarios: a round with one group under a load that is counted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Ledger, PauseRound, RestartRound, Round, Target};
use crate::Error;
use crate::engine::{self, Monitor, Status};
use crate::launch::Group;
use crate::load::{Plan, Recorder, Run, Tallies, measure};
use crate::options::FaultOptions;
use crate::run::{Place, connect_all, load_parts, prefill};
use crate::stop::Stop;
use crate::workload::{AnyWorkload, Operations};

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
    /// Kills a replica.
    pub(super) fn kill(&mut self, replica: u16) {
        self.group.kill(replica);
        if !self.dead.contains(&replica) {
            self.dead.push(replica);
        }
    }

    /// Starts a replica again that was killed.
    ///
    /// # Errors
    /// With its log, if it does not come back.
    pub(super) fn comes_back(&mut self, replica: u16) -> Result<(), Error> {
        self.group.restart(replica, self.stop)?;
        self.dead.retain(|dead| *dead != replica);
        Ok(())
    }

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
    target: &Target,
    stop: &Stop,
    script: impl FnOnce(&mut Stage<'_>) -> Result<Script, Error>,
) -> Result<Round, Error> {
    let Target { spec, setting, connections } = target;
    let mut group = Group::launch(spec, stop)?;
    let mut drivers = connect_all(&group.path(), &options.group, setting, stop)?;
    if let Operations::Records(mix) = &setting.operations {
        drivers = prefill(drivers, mix, &spec.cores.loads, stop)?;
    }
    let mut monitor = Monitor::open(&group.path(), *connections)?;
    let plan = Plan {
        origin: Instant::now() + RUN_UP,
        warmup: options.at,
        // The load ends with the script.
        measured: Duration::from_secs(24 * 3600),
        drain: DRAIN,
        operations: None,
    };
    let place = Place { first: 0, all: drivers.len() as u32 };
    let parts = load_parts(drivers, setting, &plan, None, None, place);
    let mut dead = Vec::new();
    let cores = spec.cores.loads.clone();
    let (runs, script) = measure(parts, &cores, stop, |tallies| {
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
    let errors = runs.iter().map(|r| r.failed + r.unfinished).sum();
    let kept_up = setting.rate.map(|_| runs.iter().all(|r| r.never_sent + r.unfinished == 0));
    let acknowledged = runs.iter().map(|r| r.acknowledged).sum();
    let verdict = match ledger_of(&runs) {
        Some(ledger) => {
            Some(ledger.verdict(engine::counter_value(&group.path(), *connections, stop)?))
        }
        None => None,
    };
    let running: Vec<u16> = (0..spec.replicas).filter(|r| !dead.contains(r)).collect();
    let (diverged, statuses) = settle(&mut monitor, &running, stop)?;
    group.expect_running(&dead)?;
    let processes = group.usage()?;
    dead.iter().for_each(|r| group.kill(*r));
    let measured = Recorder::merge(runs.into_iter().map(|r| r.recorder));
    group.shutdown_except(&dead)?;
    let Script { replica, view_before, before_ops_s, after_ops_s, pause, restart } = script;
    Ok(Round {
        replica,
        view_before,
        view_after: statuses.iter().map(|s| s.view).max().unwrap_or(view_before),
        gap_ms: measured.longest_gap.as_secs_f64() * 1e3,
        latency_max_ms: measured.latency_ns.max() as f64 / 1e6,
        acknowledged: verdict.map_or(acknowledged, |verdict| verdict.acknowledged),
        errors,
        lost: verdict.map(|verdict| verdict.lost),
        doubled: verdict.map(|verdict| verdict.doubled),
        kept_up,
        before_ops_s,
        after_ops_s,
        diverged,
        pause,
        restart,
        processes,
    })
}

/// What the counter must show; `None` of another service.
fn ledger_of(runs: &[Run<AnyWorkload>]) -> Option<Ledger> {
    let mut all = Ledger::default();
    for run in runs {
        let AnyWorkload::Increments(increments) = &run.workload else { return None };
        all.add_run(increments, run.unfinished);
    }
    Some(all)
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
