//! `hybster-bench run`: throughput and latency of a group under one load.

#[cfg(test)]
mod limits;
mod processes;
mod report;
mod target;

pub use processes::run_load;
pub use report::{config, config_of_load};

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::Error;
use crate::agenda::Agenda;
use crate::engine::{self, DriverSessions, Monitor, Status};
use crate::launch::Group;
use crate::load::{Part, Plan, Run, Sessions, Tallies, drive, measure};
use crate::options::{GroupOptions, MOST_CONNECTIONS, RunOptions, ServiceKind, WorkloadKind};
use crate::process::stolen_time;
use crate::progress::Progress;
use crate::report::{ProcessReport, RunReport, UsageReport};
use crate::spec::GroupSpec;
use crate::stages::Sample;
use crate::stop::Stop;
use crate::usage::Sampler;
use crate::workload::{AnyWorkload, Operations, Prefill, RecordsMix, Setting};
use processes::Load;
use target::Target;

/// Longest wait for the operations that are outstanding when the interval ends.
const DRAIN: Duration = Duration::from_secs(10);
/// Time for all threads to be ready before the load starts.
const RUN_UP: Duration = Duration::from_millis(100);
/// Longest measurement of a number of operations.
const DAY: Duration = Duration::from_secs(86_400);
/// Longest time between two looks at the load while it runs.
const LOOK: Duration = Duration::from_millis(20);

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
    let setting = Setting::new(&options.load, &processes::shape(options), ServiceKind::Null)?;
    if setting.service == ServiceKind::Counter {
        let text = "the counter service is for `hybster-bench fault`; run null or kv";
        return Err(Error::new(text));
    }
    if options.group_directory.is_some() && options.load.service.or(named(options)).is_none() {
        let text =
            "--group: say what the group runs, --service null or --service kv: its files do not";
        return Err(Error::new(text));
    }
    // What is wrong with events is told before a group starts.
    let connections = options.connections();
    if connections > options.group.clients || connections > MOST_CONNECTIONS {
        let (processes, clients) = (options.processes, options.group.clients);
        return Err(Error::new(format!(
            "--processes {processes}: they have {connections} connections together, each of which needs one of \
             the {clients} clients, and {MOST_CONNECTIONS} are the most: give fewer --connections"
        )));
    }
    let mut agenda = match options.events.is_empty() {
        true => Agenda::default(),
        false => {
            let spec = GroupSpec::new(&options.group, setting.service, connections + 1)?;
            Agenda::new(&options.events, &spec, length_of(options))?
        }
    };
    let mut target = Target::open(options, setting.service, connections, stop)?;
    let result = measure_target(options, &setting, &mut target, &mut agenda, observer, stop);
    // The group is stopped either way; an error of the measurement takes precedence.
    match result {
        Ok((mut report, samples)) => {
            target.stop(agenda.dead())?;
            // Replicas tell what they know when they stop.
            report.stages = target.stages(&samples)?;
            Ok(report)
        }
        Err(e) => {
            let fate = target.expect_running(agenda.dead());
            drop(target);
            Err(if e.is_interrupted() { e } else { fate.err().unwrap_or(e) })
        }
    }
}

/// The service that the workload is one of, if one is named.
fn named(options: &RunOptions) -> Option<ServiceKind> {
    let of_file = options.load.replay.as_ref().map(|_| WorkloadKind::Replay);
    options.load.workload.or(of_file).map(WorkloadKind::service)
}

/// The length of the measured interval at most.
fn length_of(options: &RunOptions) -> Duration {
    if options.operations.is_some() { DAY } else { options.duration }
}

fn measure_target(
    options: &RunOptions,
    setting: &Setting,
    target: &mut Target,
    agenda: &mut Agenda,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<(RunReport, Vec<Sample>), Error> {
    if options.processes > 1 {
        return measure_processes(options, setting, target, agenda, observer, stop);
    }
    let first = target.first_client;
    let mut drivers = connect_from(first, target.path(), &options.group, setting, stop)?;
    if let Operations::Records(mix) = &setting.operations {
        drivers = prefill(drivers, mix, &target.spec().cores.loads, stop)?;
    }
    let connections = drivers.len() as u32;
    let clients: Vec<u32> = drivers.iter().map(Sessions::count).collect();
    let mut monitor = target.monitor(connections)?;
    let plan = Plan {
        origin: Instant::now() + RUN_UP,
        warmup: options.warmup,
        measured: length_of(options),
        drain: DRAIN,
        operations: None,
    };
    let place = Place { first: 0, all: connections };
    let parts = load_parts(drivers, setting, &plan, options.operations, options.stages, place);
    let cores = target.spec().cores.loads.clone();
    let about = target.report()?;
    let mut watch =
        Watch { plan: &plan, target, monitor: &mut monitor, agenda, observer, sampler: None, stop };
    let (mut runs, interval) = measure(parts, &cores, stop, |tallies| watch.measure(tallies))?;
    if let Some(group) = target.started() {
        agenda.resume_all(group)?;
    }
    let about = (target.spec(), about);
    let samples = runs.iter_mut().flat_map(|run| std::mem::take(&mut run.samples)).collect();
    Ok((report::of(options, setting, &clients, about, agenda, runs, interval), samples))
}

/// The same, where other processes make the load.
fn measure_processes(
    options: &RunOptions,
    setting: &Setting,
    target: &mut Target,
    agenda: &mut Agenda,
    observer: &mut dyn Observer,
    stop: &Stop,
) -> Result<(RunReport, Vec<Sample>), Error> {
    let loads = Load::start_all(options, target, stop)?;
    target.loads = loads.iter().map(Load::process).collect();
    let mut monitor = target.monitor(options.connections())?;
    let plan = Plan {
        origin: Instant::now() + RUN_UP,
        warmup: options.warmup,
        measured: options.duration,
        drain: DRAIN,
        operations: None,
    };
    let parts = loads.into_iter().map(|load| load.part(plan.origin)).collect();
    let about = target.report()?;
    let mut watch =
        Watch { plan: &plan, target, monitor: &mut monitor, agenda, observer, sampler: None, stop };
    let (loads, interval) = measure(parts, &[], stop, |tallies| watch.measure(tallies))?;
    if let Some(group) = target.started() {
        agenda.resume_all(group)?;
    }
    processes::report(options, setting, (target.spec(), about), agenda, loads, interval)
}

/// Which of all connections of a load a process has: those from `first` on.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The first of them.
    pub first: u32,
    /// How many there are, over all processes.
    pub all: u32,
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
    connect_from(0, group, options, setting, stop)
}

/// The same, with the client identities from `first` on.
fn connect_from(
    first: u32,
    group: &Path,
    options: &GroupOptions,
    setting: &Setting,
    stop: &Stop,
) -> Result<Vec<DriverSessions>, Error> {
    let shares = setting.clients_of(options.clients, options.connections.min(options.clients));
    connect_shares(first, group, options, &shares, stop)
}

/// The same, with so many clients each.
fn connect_shares(
    first: u32,
    group: &Path,
    options: &GroupOptions,
    shares: &[u32],
    stop: &Stop,
) -> Result<Vec<DriverSessions>, Error> {
    let GroupOptions { transport, busy_poll, .. } = *options;
    let wait = engine::Wait { transport, busy_poll };
    let connect = |(index, share): (u32, &u32)| engine::connect(group, index, *share, wait, stop);
    (first..).zip(shares).map(connect).collect()
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
    let place = Place { first: 0, all: drivers.len() as u32 };
    prefill_from(place, drivers, mix, cores, stop)
}

/// The same, where other processes write their part.
fn prefill_from(
    place: Place,
    drivers: Vec<DriverSessions>,
    mix: &RecordsMix,
    cores: &[usize],
    stop: &Stop,
) -> Result<Vec<DriverSessions>, Error> {
    let parts = (place.first..).zip(drivers).map(|(index, mut driver)| {
        let mut fill = Prefill::new(mix, index, place.all);
        let part: Part<DriverSessions> = Box::new(move |_, stop| {
            fill.run(&mut driver, stop)?;
            Ok(driver)
        });
        part
    });
    let (drivers, ()) = measure(parts.collect(), cores, stop, |_| Ok(()))?;
    Ok(drivers)
}

/// The load of each connection group; `operations` are divided among them. One request in `followed` is followed.
#[must_use]
pub fn load_parts(
    drivers: Vec<DriverSessions>,
    setting: &Setting,
    plan: &Plan,
    operations: Option<u64>,
    followed: Option<u32>,
    place: Place,
) -> Vec<Part<Run<AnyWorkload>>> {
    let threads = place.all;
    let mut left = operations.unwrap_or(0);
    let part = |(index, mut sessions): (u32, DriverSessions)| {
        let workload = setting.workload(index, threads);
        let pace = setting.pace(sessions.count(), index, threads, plan);
        let share = operations.map(|all| {
            let share = (all as f64 * setting.share(index, threads)).round() as u64;
            let share = if index + 1 == threads { left } else { share.min(left) };
            left -= share;
            share
        });
        let plan = Plan { operations: share, ..*plan };
        let part: Part<Run<AnyWorkload>> = Box::new(move |tallies, stop| {
            if let Some(every) = followed {
                sessions.follow(every, plan.origin);
            }
            let mut run = drive(&mut sessions, pace, workload, &plan, tallies, stop)?;
            let from = plan.warmup.as_nanos() as u64;
            run.samples = sessions.take_followed(from, from + run.length.as_nanos() as u64);
            Ok(run)
        });
        part
    };
    (place.first..).zip(drivers).map(part).collect()
}

/// What the watching thread read at both ends of the measured interval.
struct Interval {
    interrupted: bool,
    begin_unix_ms: u64,
    stolen: Duration,
    processes: Vec<ProcessReport>,
    usage: UsageReport,
    before: Vec<Status>,
    after: Vec<Status>,
}

/// The watching thread of a measurement.
struct Watch<'a> {
    plan: &'a Plan,
    target: &'a mut Target,
    /// None if nobody can be asked for counters.
    monitor: &'a mut Option<Monitor>,
    agenda: &'a mut Agenda,
    observer: &'a mut dyn Observer,
    /// While measuring.
    sampler: Option<Sampler>,
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
        if let Some(group) = self.target.started() {
            self.observer.begin(group)?;
        }
        let used_before = self.target.usage()?;
        let stolen_before = stolen_time()?;
        let begin_unix_ms = unix_ms(begin);
        let before = self.statuses();
        self.sampler = Some(Sampler::start(begin, &self.target.processes()));
        let end = begin + plan.measured;
        let wake = loop {
            let next = self.agenda.next_at().map(|at| begin + at).filter(|at| *at < end);
            match self.wait(next.unwrap_or(end), &mut progress, tallies)? {
                Wake::Time if next.is_some() => {
                    if let (Some(group), Some(monitor)) =
                        (self.target.started(), self.monitor.as_mut())
                    {
                        self.agenda.go_on(group, monitor, begin, stop)?;
                    }
                }
                wake => break wake,
            }
        };
        match wake {
            Wake::Time => {}
            Wake::Done => tallies.iter().for_each(|t| t.finish()),
            Wake::Interrupted => tallies.iter().for_each(|t| t.hurry()),
        }
        let sampler = self.sampler.take();
        let usage = sampler.map(|sampler| sampler.finish(&self.target.processes()));
        let used_after = self.target.usage()?;
        let stolen = stolen_time()?.saturating_sub(stolen_before);
        let after = self.statuses();
        progress.finish();
        let processes = used_in_between(&used_before, self.agenda.spent(), used_after);
        let interrupted = wake == Wake::Interrupted;
        let usage = usage.unwrap_or_default();
        Ok(Interval { interrupted, begin_unix_ms, stolen, processes, usage, before, after })
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

    fn statuses(&mut self) -> Vec<Status> {
        self.monitor.as_mut().map_or_else(Vec::new, Monitor::all)
    }

    fn look(&mut self, progress: &mut Progress, tallies: &[Arc<Tallies>]) -> Result<(), Error> {
        let completed = tallies.iter().map(|t| t.completed()).sum();
        let failed = tallies.iter().map(|t| t.failed()).sum();
        progress.show(self.plan.origin.elapsed(), completed, failed);
        if let Some(sampler) = &mut self.sampler {
            sampler.look(|| self.target.processes());
        }
        self.target.expect_running(self.agenda.dead())
    }
}

/// A moment of the past in milliseconds since 1970.
fn unix_ms(moment: Instant) -> u64 {
    let ago = Instant::now().saturating_duration_since(moment);
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since_1970.saturating_sub(ago).as_millis() as u64
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
