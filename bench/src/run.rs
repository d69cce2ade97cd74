//! `hybster-bench run`: throughput and latency of a group under one load.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Error;
use crate::agenda::Agenda;
use crate::engine::{self, DriverSessions, Monitor, Status};
use crate::launch::Group;
use crate::load::{BUCKET, Part, Plan, Recorder, Run, Sessions, Tallies, drive, measure};
use crate::machine::Machine;
use crate::options::{GroupOptions, RunOptions, ServiceKind};
use crate::process::stolen_time;
use crate::progress::Progress;
use crate::report::{
    Config, ConnectionReport, FORMAT, LatencyPoint, LatencyUs, LoadConfig, OpenLoopReport,
    ProcessReport, RecordsConfig, ReplicaReport, RunReport, TimelineReport, errors_by_kind,
    per_million,
};
use crate::spec::GroupSpec;
use crate::stop::Stop;
use crate::workload::{AnyWorkload, Operations, Prefill, RecordsMix, Setting};

/// Longest wait for the operations that are outstanding when the interval ends.
const DRAIN: Duration = Duration::from_secs(10);
/// Time for all threads to be ready before the load starts.
const RUN_UP: Duration = Duration::from_millis(100);
/// Longest measurement of a number of operations.
const DAY: Duration = Duration::from_secs(86_400);
/// Longest time between two looks at the load while it runs.
const LOOK: Duration = Duration::from_millis(20);
/// An open loop keeps up if it completes this share of what is due.
const KEPT_UP: f64 = 0.99;

/// Runs the measurement that the options ask for. If the user interrupts it while it measures, the report
/// is about the time until then.
///
/// # Errors
/// If the group does not start, ends early, or the user interrupts before the measurement.
pub fn run(options: &RunOptions, stop: &Stop) -> Result<RunReport, Error> {
    run_observed(options, stop, &mut ())
}

/// Watches a measurement.
pub trait Observer {
    /// The measured interval begins.
    ///
    /// # Errors
    /// Those of the observer; they end the measurement.
    fn begin(&mut self, group: &mut Group) -> Result<(), Error>;

    /// Whether it has seen enough, so that the interval may end before its time.
    fn is_done(&mut self) -> bool;
}

impl Observer for () {
    fn begin(&mut self, _: &mut Group) -> Result<(), Error> {
        Ok(())
    }

    fn is_done(&mut self) -> bool {
        false
    }
}

/// [`run`] with an observer.
///
/// # Errors
/// As [`run`], and if the observer fails.
pub fn run_observed(
    options: &RunOptions,
    stop: &Stop,
    observer: &mut dyn Observer,
) -> Result<RunReport, Error> {
    if options.duration.is_zero() {
        return Err(Error::new("--duration must be longer than 0 seconds"));
    }
    let setting = Setting::new(&options.load, &options.group, ServiceKind::Null)?;
    if setting.service == ServiceKind::Counter {
        let text = "the counter service is for `hybster-bench fault`; run null or kv";
        return Err(Error::new(text));
    }
    let connections = options.group.connections.min(options.group.clients);
    let spec = GroupSpec::new(&options.group, setting.service, connections + 1)?;
    let mut agenda = Agenda::new(&options.events, &spec, length_of(options))?;
    let mut group = Group::launch(&spec, stop)?;
    let result = measure_group(options, &setting, &mut group, &mut agenda, observer, stop);
    // The group is stopped either way; an error of the measurement takes precedence.
    match result {
        Ok(report) => group.shutdown_except(agenda.dead()).map(|()| report),
        Err(e) => {
            let fate = group.expect_running(agenda.dead());
            drop(group);
            Err(if e.is_interrupted() { e } else { fate.err().unwrap_or(e) })
        }
    }
}

/// The length of the measured interval at most.
fn length_of(options: &RunOptions) -> Duration {
    if options.operations.is_some() { DAY } else { options.duration }
}

fn measure_group(
    options: &RunOptions,
    setting: &Setting,
    group: &mut Group,
    agenda: &mut Agenda,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<RunReport, Error> {
    let mut drivers = connect_all(&group.path(), &options.group, setting, stop)?;
    if let Operations::Records(mix) = &setting.operations {
        drivers = prefill(drivers, mix, &group.spec().cores.loads, stop)?;
    }
    let connections = drivers.len() as u32;
    let clients: Vec<u32> = drivers.iter().map(Sessions::count).collect();
    let mut monitor = Monitor::open(&group.path(), connections)?;
    let plan = Plan {
        origin: Instant::now() + RUN_UP,
        warmup: options.warmup,
        measured: length_of(options),
        drain: DRAIN,
        operations: None,
    };
    let parts = load_parts(drivers, setting, &plan, options.operations);
    let cores = group.spec().cores.loads.clone();
    let mut watch = Watch { plan: &plan, group, monitor: &mut monitor, agenda, observer, stop };
    let (runs, interval) = measure(parts, &cores, stop, |tallies| watch.measure(tallies))?;
    agenda.resume_all(group)?;
    Ok(report(options, setting, &clients, group.spec(), agenda, runs, interval))
}

/// Connects one driver per connection group, with its share of the clients.
///
/// # Errors
/// If a driver cannot reach the group.
pub fn connect_all(
    group: &Path,
    options: &GroupOptions,
    setting: &Setting,
    stop: &Stop,
) -> Result<Vec<DriverSessions>, Error> {
    let GroupOptions { clients, connections, transport, busy_poll, .. } = *options;
    let wait = engine::Wait { transport, busy_poll };
    let shares = setting.clients_of(clients, connections.min(clients));
    let connect = |(index, share)| engine::connect(group, index, share, wait, stop);
    (0..).zip(shares).map(connect).collect()
}

/// Writes every record once.
///
/// # Errors
/// If a write fails, or the user interrupts.
pub fn prefill(
    drivers: Vec<DriverSessions>,
    mix: &RecordsMix,
    cores: &[usize],
    stop: &Stop,
) -> Result<Vec<DriverSessions>, Error> {
    let groups = drivers.len() as u32;
    let parts = (0..).zip(drivers).map(|(index, mut driver)| {
        let mut fill = Prefill::new(mix, index, groups);
        let part: Part<DriverSessions> = Box::new(move |_, stop| {
            fill.run(&mut driver, stop)?;
            Ok(driver)
        });
        part
    });
    let (drivers, ()) = measure(parts.collect(), cores, stop, |_| Ok(()))?;
    Ok(drivers)
}

/// The load of each connection group; `operations` are divided among them.
#[must_use]
pub fn load_parts(
    drivers: Vec<DriverSessions>,
    setting: &Setting,
    plan: &Plan,
    operations: Option<u64>,
) -> Vec<Part<Run<AnyWorkload>>> {
    let threads = drivers.len() as u32;
    let mut left = operations.unwrap_or(0);
    let part = |(index, mut sessions): (u32, DriverSessions)| {
        let workload = setting.workload(index, threads);
        let pace = setting.pace(sessions.count(), index, threads);
        let share = operations.map(|all| {
            let share = (all as f64 * setting.share(index, threads)).round() as u64;
            let share = if index + 1 == threads { left } else { share.min(left) };
            left -= share;
            share
        });
        let plan = Plan { operations: share, ..*plan };
        let part: Part<Run<AnyWorkload>> = Box::new(move |tallies, stop| {
            drive(&mut sessions, pace, workload, &plan, tallies, stop)
        });
        part
    };
    (0..).zip(drivers).map(part).collect()
}

/// What the watching thread read at both ends of the measured interval.
struct Interval {
    interrupted: bool,
    stolen: Duration,
    usage: Vec<ProcessReport>,
    before: Vec<Status>,
    after: Vec<Status>,
}

/// The watching thread of a measurement.
struct Watch<'a> {
    plan: &'a Plan,
    group: &'a mut Group,
    monitor: &'a mut Monitor,
    agenda: &'a mut Agenda,
    observer: &'a mut dyn Observer,
    stop: &'a Stop,
}

/// Why a wait has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wake {
    Time,
    /// All operations have ended, or the observer has seen enough.
    Done,
    Interrupted,
}

impl Watch<'_> {
    fn measure(&mut self, tallies: &[Arc<Tallies>]) -> Result<Interval, Error> {
        let (plan, stop) = (self.plan, self.stop);
        let begin = plan.origin + plan.warmup;
        let mut progress = Progress::new(plan.warmup + plan.measured);
        stop.sleep_until(begin, || self.look(&mut progress, tallies))?;
        self.observer.begin(self.group)?;
        let used_before = self.group.usage()?;
        let stolen_before = stolen_time()?;
        let before = self.monitor.all();
        let end = begin + plan.measured;
        let wake = loop {
            let next = self.agenda.next_at().map(|at| begin + at).filter(|at| *at < end);
            match self.wait(next.unwrap_or(end), &mut progress, tallies)? {
                Wake::Time if next.is_some() => {
                    self.agenda.go_on(self.group, self.monitor, begin, stop)?;
                }
                wake => break wake,
            }
        };
        match wake {
            Wake::Time => {}
            Wake::Done => tallies.iter().for_each(|t| t.finish()),
            Wake::Interrupted => tallies.iter().for_each(|t| t.hurry()),
        }
        let used_after = self.group.usage()?;
        let stolen = stolen_time()?.saturating_sub(stolen_before);
        let after = self.monitor.all();
        progress.finish();
        let usage = used_in_between(&used_before, self.agenda.spent(), used_after);
        let interrupted = wake == Wake::Interrupted;
        Ok(Interval { interrupted, stolen, usage, before, after })
    }

    fn wait(
        &mut self,
        until: Instant,
        progress: &mut Progress,
        tallies: &[Arc<Tallies>],
    ) -> Result<Wake, Error> {
        loop {
            self.stop.check_urgent()?;
            if self.stop.is_raised() {
                return Ok(Wake::Interrupted);
            }
            self.look(progress, tallies)?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Wake::Time);
            }
            if tallies.iter().all(|t| t.is_done()) || self.observer.is_done() {
                return Ok(Wake::Done);
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    fn look(&mut self, progress: &mut Progress, tallies: &[Arc<Tallies>]) -> Result<(), Error> {
        let completed = tallies.iter().map(|t| t.completed()).sum();
        let failed = tallies.iter().map(|t| t.failed()).sum();
        progress.show(self.plan.origin.elapsed(), completed, failed);
        self.group.expect_running(self.agenda.dead())
    }
}

/// What processes used in the interval; `spent` is what those had used that were killed in it.
fn used_in_between(
    before: &[ProcessReport],
    spent: &[ProcessReport],
    after: Vec<ProcessReport>,
) -> Vec<ProcessReport> {
    let mut used = after;
    for killed in spent {
        match used.iter_mut().find(|process| process.name == killed.name) {
            Some(process) => {
                process.cpu_s += killed.cpu_s;
                process.peak_rss_bytes = process.peak_rss_bytes.max(killed.peak_rss_bytes);
            }
            None => used.push(killed.clone()),
        }
    }
    for process in &mut used {
        let before = before.iter().find(|b| b.name == process.name);
        process.cpu_s -= before.map_or(0.0, |b| b.cpu_s);
    }
    // In the order of the beginning: what was killed is not the last.
    let place = |name: &str| before.iter().position(|b| b.name == name).unwrap_or(usize::MAX);
    used.sort_by_key(|process| place(&process.name));
    used
}

fn report(
    options: &RunOptions,
    setting: &Setting,
    clients: &[u32],
    spec: &GroupSpec,
    agenda: &Agenda,
    runs: Vec<Run<AnyWorkload>>,
    interval: Interval,
) -> RunReport {
    let sum = |of: fn(&Run<AnyWorkload>) -> u64| runs.iter().map(of).sum::<u64>();
    let (completed, unfinished) = (sum(|r| r.acknowledged_inside), sum(|r| r.unfinished));
    let (due, never_sent) = (sum(|r| r.due), sum(|r| r.never_sent));
    let length = runs.iter().map(|r| r.length).max().unwrap_or_default();
    let connections = connections(clients, &runs);
    let measured = Recorder::merge(runs.into_iter().map(|r| r.recorder));
    let throughput = completed as f64 / length.as_secs_f64().max(1e-9);
    let cpu_s = interval.usage.iter().map(|p| p.cpu_s).sum();
    let open_loop = setting.rate.map(|rate| OpenLoopReport {
        rate_ops_s: rate,
        unfinished,
        due,
        never_sent,
        kept_up: unfinished == 0
            && never_sent == 0
            && completed as f64 >= (due as f64 * KEPT_UP).floor(),
    });
    let (errors, errors_by_kind) =
        (measured.errors() + unfinished, errors_by_kind(&measured, unfinished));
    let latency_us = LatencyUs::of(&measured.latency_ns);
    let latency_distribution = LatencyPoint::all(&measured.latency_ns);
    let timeline = measured.timeline.over(length);
    RunReport {
        format: FORMAT,
        kind: if spec.unreplicated { "unreplicated" } else { "run" }.into(),
        throughput_ops_s: throughput,
        completed,
        errors,
        errors_by_kind,
        duration_s: length.as_secs_f64(),
        interrupted: interval.interrupted,
        latency_us,
        latency_distribution,
        longest_gap_ms: measured.longest_gap.as_secs_f64() * 1e3,
        stolen_s: interval.stolen.as_secs_f64(),
        cpu_s_per_mop: per_million(cpu_s, completed),
        processes: interval.usage,
        replicas: replicas(&interval.before, &interval.after),
        open_loop,
        connections,
        events: agenda.reports(&timeline),
        timeline: Some(TimelineReport {
            bucket_ms: BUCKET.as_millis() as u64,
            completed: timeline,
        }),
        config: Config {
            warmup_s: options.warmup.as_secs_f64(),
            ..config_of_load(&options.group, spec, setting, options.operations)
        },
        machine: Machine::here(),
    }
}

/// What each connection saw, if there are several.
fn connections(clients: &[u32], runs: &[Run<AnyWorkload>]) -> Vec<ConnectionReport> {
    if runs.len() < 2 {
        return Vec::new();
    }
    let report =
        |((connection, clients), run): ((u32, &u32), &Run<AnyWorkload>)| ConnectionReport {
            connection,
            clients: *clients,
            completed: run.acknowledged_inside,
            latency_us: LatencyUs::of(run.recorder.latency_ns()),
        };
    (0..).zip(clients).zip(runs).map(report).collect()
}

/// The configuration of a group under a load.
#[must_use]
pub fn config_of_load(
    options: &GroupOptions,
    spec: &GroupSpec,
    setting: &Setting,
    operations: Option<u64>,
) -> Config {
    let records = match setting.operations {
        Operations::Records(mix) => Some(RecordsConfig {
            keys: mix.keys,
            distribution: mix.distribution.name().into(),
            reads: mix.reads,
            updates: mix.updates,
            inserts: mix.inserts,
            scans: mix.scans,
            scan_length: mix.scan_length,
            read_modify_writes: mix.read_modify_writes,
        }),
        Operations::Null { .. } | Operations::Increments => None,
    };
    Config {
        connections: options.connections.min(options.clients),
        service: setting.service.name().into(),
        request_size: setting.request_size(),
        read_percent: setting.read_percent(),
        load: Some(LoadConfig {
            workload: setting.workload.name().into(),
            seed: setting.seed,
            arrivals: setting.rate.map_or("closed", |_| setting.arrivals.name()).into(),
            think_time_us: setting.think_time.as_micros() as u64,
            hot_client_percent: setting.hot_client,
            operations,
            records,
        }),
        ..config(options, spec)
    }
}

/// The part of the configuration that all subcommands share.
#[must_use]
pub fn config(options: &GroupOptions, spec: &GroupSpec) -> Config {
    Config {
        protocol: spec.protocol.to_string(),
        replicas: spec.replicas,
        faults: spec.faults,
        pillars: spec.pillars,
        clients: options.clients,
        connections: options.connections,
        service: spec.service.name().into(),
        request_size: options.request_size.unwrap_or(0),
        reply_size: options.reply_size,
        read_percent: 0,
        warmup_s: 0.0,
        batch_max: spec.batch_max,
        layout: spec.layout.to_string(),
        durability: spec.durability.to_string(),
        pin: options.pin,
        transport: spec.transport.to_string(),
        busy_poll_us: spec.busy_poll.as_micros() as u64,
        authenticator: spec.authenticator.to_string(),
        request_authenticator: spec.request_authenticator.to_string(),
        link_cipher: spec.link_cipher.to_string(),
        unreplicated: spec.unreplicated,
        load: None,
    }
}

fn replicas(before: &[Status], after: &[Status]) -> Vec<ReplicaReport> {
    let report = |now: &Status| {
        let then = before.iter().find(|b| b.replica == now.replica);
        ReplicaReport {
            replica: now.replica,
            view: now.view,
            requests_per_batch: then.and_then(|then| now.requests_per_batch_since(then)),
            rejections: engine::rejections(now),
            layout: now.layout.clone(),
            transport: now.transport.clone(),
        }
    };
    after.iter().map(report).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(name: &str, cpu_s: f64, peak: u64) -> ProcessReport {
        ProcessReport { name: name.into(), cpu_s, rss_bytes: 1, peak_rss_bytes: peak }
    }

    /// Replica 1 was started again, replica 2 killed for good.
    #[test]
    fn what_killed_processes_used_counts() {
        let before =
            [process("replica 1", 3.0, 5), process("replica 2", 2.0, 5), process("load", 1.0, 5)];
        let spent = [process("replica 1", 4.0, 9), process("replica 2", 2.5, 7)];
        let after = vec![process("replica 1", 0.5, 6), process("load", 2.0, 5)];
        let used = used_in_between(&before, &spent, after);
        let of: Vec<_> =
            used.iter().map(|p| (p.name.as_str(), p.cpu_s, p.peak_rss_bytes)).collect();
        assert_eq!(of, [("replica 1", 1.5, 9), ("replica 2", 0.5, 7), ("load", 1.0, 5)]);
    }
}
