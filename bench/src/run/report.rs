//! The report of a measurement, from what its threads have measured.

use super::Interval;
use crate::agenda::Agenda;
use crate::engine::{self, Status};
use crate::load::{BUCKET, Recorder, Run};
use crate::machine::Machine;
use crate::options::{GroupOptions, RunOptions};
use crate::report::{
    Config, ConnectionReport, FORMAT, HistogramReport, LatencyPoint, LatencyUs, LoadConfig,
    OpenLoopReport, RampConfig, RecordsConfig, ReplicaReport, RunReport, Signs, TargetReport,
    TimelineReport, errors_by_kind, per_million,
};
use crate::spec::GroupSpec;
use crate::workload::{AnyWorkload, Operations, Setting};

/// An open loop keeps up if it completes this share of what is due.
const KEPT_UP: f64 = 0.99;

pub(super) fn of(
    options: &RunOptions,
    setting: &Setting,
    clients: &[u32],
    (spec, target): (&GroupSpec, TargetReport),
    agenda: &Agenda,
    runs: Vec<Run<AnyWorkload>>,
    interval: Interval,
) -> RunReport {
    let sum = |of: fn(&Run<AnyWorkload>) -> u64| runs.iter().map(of).sum::<u64>();
    let (completed, unfinished) = (sum(|r| r.acknowledged_inside), sum(|r| r.unfinished));
    let length = runs.iter().map(|r| r.length).max().unwrap_or_default();
    let connections = connections(clients, &runs);
    let load_busy = busiest(&runs);
    let open_loop = open_loop(setting, &runs, completed);
    let measured = Recorder::merge(runs.into_iter().map(|r| r.recorder));
    let throughput = completed as f64 / length.as_secs_f64().max(1e-9);
    let cpu_s = interval.processes.iter().map(|p| p.cpu_s).sum();
    let (errors, errors_by_kind) =
        (measured.errors() + unfinished, errors_by_kind(&measured, unfinished));
    let latency_us = LatencyUs::of(&measured.latency_ns);
    let latency_distribution = LatencyPoint::all(&measured.latency_ns);
    let latency_histogram = Some(HistogramReport::of(&measured.latency_ns));
    let timeline = measured.timeline.over(length);
    let (stolen_s, machine) = (interval.stolen.as_secs_f64(), Machine::here());
    let signs = Signs {
        duration_s: length.as_secs_f64(),
        cores: machine.cores,
        stolen_s,
        usage: &interval.usage,
        load_busy,
        open_loop,
        throughput_ops_s: throughput,
    };
    let warnings = signs.warnings();
    RunReport {
        format: FORMAT,
        kind: if spec.unreplicated { "unreplicated" } else { "run" }.into(),
        throughput_ops_s: throughput,
        completed,
        errors,
        errors_by_kind,
        begin_unix_ms: interval.begin_unix_ms,
        duration_s: length.as_secs_f64(),
        interrupted: interval.interrupted,
        latency_us,
        latency_distribution,
        latency_histogram,
        longest_gap_ms: measured.longest_gap.as_secs_f64() * 1e3,
        stolen_s,
        // Of a group elsewhere, only the load's is known.
        cpu_s_per_mop: (!target.is_elsewhere).then(|| per_million(cpu_s, completed)),
        processes: interval.processes,
        replicas: replicas(&interval.before, &interval.after),
        open_loop,
        load_busy,
        warnings,
        connections,
        events: agenda.reports(&timeline),
        timeline: Some(TimelineReport {
            bucket_ms: BUCKET.as_millis() as u64,
            completed: timeline,
        }),
        usage: Some(interval.usage),
        stages: None,
        target: Some(target),
        merged: Vec::new(),
        config: config_of_run(&options.group, options, spec, setting),
        machine,
    }
}

fn open_loop(
    setting: &Setting,
    runs: &[Run<AnyWorkload>],
    completed: u64,
) -> Option<OpenLoopReport> {
    let sum = |of: fn(&Run<AnyWorkload>) -> u64| runs.iter().map(of).sum::<u64>();
    let (unfinished, due, never_sent) =
        (sum(|r| r.unfinished), sum(|r| r.due), sum(|r| r.never_sent));
    setting.rate.map(|rate| OpenLoopReport {
        rate_ops_s: rate,
        unfinished,
        due,
        never_sent,
        kept_up: unfinished == 0
            && never_sent == 0
            && completed as f64 >= (due as f64 * KEPT_UP).floor(),
    })
}

/// The share of the interval in which the busiest load thread had something to do.
fn busiest(runs: &[Run<AnyWorkload>]) -> f64 {
    let busy = |run: &Run<AnyWorkload>| {
        1.0 - run.waited.as_secs_f64() / run.length.as_secs_f64().max(1e-9)
    };
    (runs.iter().map(busy).fold(0.0, f64::max) * 1e3).round() / 1e3
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

/// The configuration of a run, whose group has this shape.
pub(super) fn config_of_run(
    group: &GroupOptions,
    options: &RunOptions,
    spec: &GroupSpec,
    setting: &Setting,
) -> Config {
    let mut config = config_of_load(group, spec, setting, options.operations);
    config.warmup_s = options.warmup.as_secs_f64();
    if let Some(load) = &mut config.load {
        load.processes = options.processes;
    }
    config
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
        Operations::Null { .. } | Operations::Increments | Operations::Replay => None,
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
            ramp: setting.ramp.map(|r| RampConfig { from_ops_s: r.from, to_ops_s: r.to }),
            think_time_us: setting.think_time.as_micros() as u64,
            hot_client_percent: setting.hot_client,
            operations,
            processes: 1,
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

pub(super) fn replicas(before: &[Status], after: &[Status]) -> Vec<ReplicaReport> {
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
