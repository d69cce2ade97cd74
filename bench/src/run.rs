//! `hybster-bench run`: throughput and latency of a group without faults.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::Error;
use crate::engine::{self, DriverSessions, Monitor, Status};
use crate::launch::Group;
use crate::load::{
    ClosedLoop, Measured, OpenLoop, Part, Plan, Recorder, Run, Sessions, Tallies, Workload, drive,
    measure,
};
use crate::machine::Machine;
use crate::options::{GroupOptions, RunOptions, ServiceKind};
use crate::process::stolen_time;
use crate::progress::Progress;
use crate::report::{
    Config, FORMAT, LatencyUs, OpenLoopReport, ProcessReport, ReplicaReport, RunReport,
    errors_by_kind, per_million,
};
use crate::spec::GroupSpec;
use crate::stop::Stop;
use crate::workload::{Kv, Null, Prefill};

/// Longest wait for the operations that are outstanding when the interval ends.
const DRAIN: Duration = Duration::from_secs(10);
/// Time for all threads to be ready before the load starts.
const RUN_UP: Duration = Duration::from_millis(100);

/// Runs the measurement that the options ask for.
///
/// # Errors
/// If the group does not start, ends early, or the user interrupts.
pub fn run(options: &RunOptions, stop: &Stop) -> Result<RunReport, Error> {
    run_observed(options, stop, &mut |_| Ok(()))
}

/// Called when the measured interval begins.
pub type Observer<'a> = &'a mut dyn FnMut(&mut Group) -> Result<(), Error>;

/// [`run`] with an observer that is called when the measured interval starts.
///
/// # Errors
/// As [`run`], and if the observer fails.
pub fn run_observed(
    options: &RunOptions,
    stop: &Stop,
    observer: Observer<'_>,
) -> Result<RunReport, Error> {
    check(options)?;
    let connections = options.group.connections.min(options.group.clients);
    let spec = GroupSpec::new(&options.group, options.service, connections + 1)?;
    let mut group = Group::launch(&spec, stop)?;
    let result = measure_group(options, &mut group, observer, stop);
    // The group is stopped either way; an error of the measurement takes precedence.
    match result {
        Ok(report) => group.shutdown().map(|()| report),
        Err(e) => {
            let fate = group.expect_running(&[]);
            drop(group);
            Err(if e.is_interrupted() { e } else { fate.err().unwrap_or(e) })
        }
    }
}

fn check(options: &RunOptions) -> Result<(), Error> {
    if options.duration.is_zero() {
        return Err(Error::new("--duration must be longer than 0 seconds"));
    }
    if options.service == ServiceKind::Counter {
        let text = "the counter service is for `hybster-bench fault`; run null or kv";
        return Err(Error::new(text));
    }
    if options.service == ServiceKind::Kv && options.group.request_size > Kv::LARGEST_VALUE {
        let most = Kv::LARGEST_VALUE;
        return Err(Error::new(format!(
            "--request-size: kv stores values of at most {most} bytes"
        )));
    }
    if options.service == ServiceKind::Kv && options.group.reply_size != 0 {
        return Err(Error::new("--reply-size is for --service null; kv answers with values"));
    }
    Ok(())
}

fn measure_group(
    options: &RunOptions,
    group: &mut Group,
    observer: Observer<'_>,
    stop: &Stop,
) -> Result<RunReport, Error> {
    let mut parts = connect_all(&group.path(), &options.group, stop)?;
    if options.service == ServiceKind::Kv {
        parts = prefill(parts, options, &group.spec().cores.loads, stop)?;
    }
    match options.service {
        ServiceKind::Kv => {
            let keys = options.keys;
            let (size, reads) = (options.group.request_size, options.read_percent);
            run_with(options, group, parts, observer, stop, |i| Kv::new(keys, size, reads, i))
        }
        ServiceKind::Null | ServiceKind::Counter => {
            let (request, reply) = (options.group.request_size, options.group.reply_size);
            let reads = options.read_percent;
            run_with(options, group, parts, observer, stop, |i| Null::new(request, reply, reads, i))
        }
    }
}

/// Connects one driver per connection group, with an equal share of the clients each.
///
/// # Errors
/// If a driver cannot reach the group.
pub fn connect_all(
    group: &Path,
    options: &GroupOptions,
    stop: &Stop,
) -> Result<Vec<DriverSessions>, Error> {
    let GroupOptions { clients, connections, transport, busy_poll, .. } = *options;
    let wait = engine::Wait { transport, busy_poll };
    let connections = connections.min(clients);
    (0..connections)
        .map(|index| {
            let share = clients / connections + u32::from(index < clients % connections);
            engine::connect(group, index, share, wait, stop)
        })
        .collect()
}

/// Writes every key once.
fn prefill(
    drivers: Vec<DriverSessions>,
    options: &RunOptions,
    cores: &[usize],
    stop: &Stop,
) -> Result<Vec<DriverSessions>, Error> {
    let share = drivers.len() as u32;
    let parts = drivers.into_iter().enumerate().map(|(index, mut driver)| {
        let mut fill = Prefill::new(options.keys, index as u32, share, options.group.request_size);
        let part: Part<DriverSessions> = Box::new(move |_, stop| {
            fill.run(&mut driver, stop)?;
            Ok(driver)
        });
        part
    });
    let (drivers, ()) = measure(parts.collect(), cores, stop, |_| Ok(()))?;
    Ok(drivers)
}

fn run_with<W: Workload + 'static>(
    options: &RunOptions,
    group: &mut Group,
    drivers: Vec<DriverSessions>,
    observer: Observer<'_>,
    stop: &Stop,
    workload: impl Fn(u64) -> W,
) -> Result<RunReport, Error> {
    let plan = Plan {
        origin: Instant::now() + RUN_UP,
        warmup: options.warmup,
        measured: options.duration,
        drain: DRAIN,
    };
    let share = options.rate.map(|rate| rate / drivers.len() as f64);
    let connections = drivers.len() as u32;
    let parts = drivers.into_iter().enumerate().map(|(index, mut sessions)| {
        let workload = workload(index as u64);
        let part: Part<Run<W>> = Box::new(move |tallies, stop| {
            let count = sessions.count();
            match share {
                Some(rate) => {
                    let pace = OpenLoop::new(count, rate);
                    drive(&mut sessions, pace, workload, &plan, tallies, stop)
                }
                None => {
                    let pace = ClosedLoop::new(count);
                    drive(&mut sessions, pace, workload, &plan, tallies, stop)
                }
            }
        });
        part
    });
    let mut monitor = Monitor::open(&group.path(), connections)?;
    let cores = group.spec().cores.loads.clone();
    let watch =
        |tallies: &[Arc<Tallies>]| watch(&plan, group, &mut monitor, tallies, observer, stop);
    let (runs, interval) = measure(parts.collect(), &cores, stop, watch)?;
    Ok(report(options, connections, group.spec(), runs, interval))
}

/// What the watching thread read at both ends of the measured interval.
struct Interval {
    stolen: Duration,
    usage: Vec<ProcessReport>,
    before: Vec<Status>,
    after: Vec<Status>,
}

fn watch(
    plan: &Plan,
    group: &mut Group,
    monitor: &mut Monitor,
    tallies: &[Arc<Tallies>],
    observer: Observer<'_>,
    stop: &Stop,
) -> Result<Interval, Error> {
    let mut progress = Progress::new(plan.warmup + plan.measured);
    let begin = plan.origin + plan.warmup;
    let mut show = |group: &mut Group| {
        let completed = tallies.iter().map(|t| t.completed()).sum();
        let failed = tallies.iter().map(|t| t.failed()).sum();
        progress.show(plan.origin.elapsed(), completed, failed);
        group.expect_running(&[])
    };
    stop.sleep_until(begin, || show(group))?;
    observer(group)?;
    let used_before = group.usage()?;
    let stolen_before = stolen_time()?;
    let before = monitor.all();
    stop.sleep_until(begin + plan.measured, || show(group))?;
    let used_after = group.usage()?;
    let stolen = stolen_time()?.saturating_sub(stolen_before);
    let after = monitor.all();
    progress.finish();
    let usage = used_after
        .into_iter()
        .map(|mut after| {
            let before = used_before.iter().find(|b| b.name == after.name);
            after.cpu_s -= before.map_or(0.0, |b| b.cpu_s);
            after
        })
        .collect();
    Ok(Interval { stolen, usage, before, after })
}

fn report<W>(
    options: &RunOptions,
    connections: u32,
    spec: &GroupSpec,
    runs: Vec<Run<W>>,
    interval: Interval,
) -> RunReport {
    let completed: u64 = runs.iter().map(|r| r.acknowledged_inside).sum();
    let unfinished: u64 = runs.iter().map(|r| r.unfinished).sum();
    let measured: Measured = Recorder::merge(runs.into_iter().map(|r| r.recorder));
    let throughput = completed as f64 / options.duration.as_secs_f64();
    let cpu_s = interval.usage.iter().map(|p| p.cpu_s).sum();
    let open_loop = options.rate.map(|rate| OpenLoopReport {
        rate_ops_s: rate,
        unfinished,
        kept_up: unfinished == 0 && throughput >= rate * 0.99,
    });
    RunReport {
        format: FORMAT,
        kind: if spec.unreplicated { "unreplicated" } else { "run" }.into(),
        throughput_ops_s: throughput,
        completed,
        errors: measured.errors() + unfinished,
        errors_by_kind: errors_by_kind(&measured, unfinished),
        duration_s: options.duration.as_secs_f64(),
        latency_us: LatencyUs::of(&measured.latency_ns),
        longest_gap_ms: measured.longest_gap.as_secs_f64() * 1e3,
        stolen_s: interval.stolen.as_secs_f64(),
        cpu_s_per_mop: per_million(cpu_s, completed),
        processes: interval.usage,
        replicas: replicas(&interval.before, &interval.after),
        open_loop,
        config: Config {
            connections,
            service: options.service.name().into(),
            read_percent: options.read_percent,
            warmup_s: options.warmup.as_secs_f64(),
            ..config(&options.group, spec)
        },
        machine: Machine::here(),
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
        request_size: options.request_size,
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
