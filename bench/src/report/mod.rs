//! The report of a measurement: one structure, printed as text and written as JSON.
//!
//! The JSON form is a contract, described in `bench/REPORT.md` and pinned by a fixture. Fields may
//! be added; renaming or removing one raises [`FORMAT`]. Reports of older forms can be read.

mod histogram;
mod output;
mod recovery;
mod stages;
mod text;
mod usage;
mod warning;
mod wrap;

pub use histogram::HistogramReport;
pub use output::{check_directory, check_writable, is_stdout, write_json, write_text};
pub use recovery::Recovery;
pub use stages::{BandReport, StageReport, StagesReport};
pub use text::{bytes, count};
pub(crate) use text::{machine as machine_line, micros, plural, processes as process_table};
pub use usage::{ProcessUsage, ThreadReport, UsageReport};
pub(crate) use warning::rate_not_kept;
pub use warning::{Signs, Warning};
pub use wrap::{width_of, wrap};

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::load::{Failure, Measured};
use crate::machine::Machine;

/// Version of the JSON form.
pub const FORMAT: u32 = 3;

/// The report of `hybster-bench run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Version of this form.
    pub format: u32,
    /// `run`, `unreplicated` or `merged`.
    pub kind: String,
    /// Acknowledged operations per second of the measured interval.
    pub throughput_ops_s: f64,
    /// Operations acknowledged in the measured interval.
    pub completed: u64,
    /// Operations of the measured interval that failed, including those never answered.
    pub errors: u64,
    /// Failures by kind; kinds that did not occur are absent.
    pub errors_by_kind: BTreeMap<String, u64>,
    /// When the measured interval began, in milliseconds since 1970 (UTC), by this machine's clock. Older reports
    /// lack it.
    #[serde(default)]
    pub begin_unix_ms: u64,
    /// Length of the measured interval.
    pub duration_s: f64,
    /// Whether the user ended it early: the figures are those of the time until then.
    #[serde(default)]
    pub interrupted: bool,
    /// Latencies of the operations that started in the measured interval; in an open loop also of those
    /// that were due before it and completed in it. Absent if there are none.
    pub latency_us: Option<LatencyUs>,
    /// The distribution of the same latencies, in ever smaller steps towards the largest. Older reports
    /// lack it.
    #[serde(default)]
    pub latency_distribution: Vec<LatencyPoint>,
    /// Every latency, as far as it is known: to three significant digits. Older reports lack it.
    #[serde(default)]
    pub latency_histogram: Option<HistogramReport>,
    /// Longest time between two completions.
    pub longest_gap_ms: f64,
    /// CPU seconds that the host of a virtual machine gave to others in the interval. Older reports
    /// lack it.
    #[serde(default)]
    pub stolen_s: f64,
    /// CPU seconds of all processes per million completed operations. Absent if the replicas run elsewhere.
    pub cpu_s_per_mop: Option<f64>,
    /// Per process: CPU time of the measured interval and memory at its end. If the replicas run elsewhere,
    /// only the load generator.
    pub processes: Vec<ProcessReport>,
    /// What the replicas counted.
    pub replicas: Vec<ReplicaReport>,
    /// Only in an open loop.
    pub open_loop: Option<OpenLoopReport>,
    /// The share of the interval in which the busiest load thread had something to do, from 0 to 1: in the
    /// rest it waited for replies or for the next operation to be due. Older reports lack it.
    #[serde(default)]
    pub load_busy: f64,
    /// What of the machine or of the load generator may have decided the figures. Older reports lack it.
    #[serde(default)]
    pub warnings: Vec<Warning>,
    /// Each connection, if there are several. Older reports lack it.
    #[serde(default)]
    pub connections: Vec<ConnectionReport>,
    /// What was caused while measuring. Older reports lack it.
    #[serde(default)]
    pub events: Vec<EventReport>,
    /// Acknowledged operations over time. Older reports lack it.
    #[serde(default)]
    pub timeline: Option<TimelineReport>,
    /// CPU time and memory over time. Older reports lack it.
    #[serde(default)]
    pub usage: Option<UsageReport>,
    /// Where latency went, if that was asked for. Older reports lack it.
    #[serde(default)]
    pub stages: Option<StagesReport>,
    /// The group that the load went to. Older reports lack it.
    #[serde(default)]
    pub target: Option<TargetReport>,
    /// The reports that were merged into this one. Older reports lack it.
    #[serde(default)]
    pub merged: Vec<MergedReport>,
    /// The configuration of the measurement.
    pub config: Config,
    /// The machine it ran on.
    pub machine: Machine,
}

/// A report that was merged with others.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MergedReport {
    /// Its file.
    pub name: String,
    /// When its measured interval began, in milliseconds since 1970 (UTC).
    pub begin_unix_ms: u64,
    /// Length of its measured interval.
    pub duration_s: f64,
    /// Operations acknowledged in it.
    pub completed: u64,
    /// The machine of its load generator.
    pub machine: Machine,
}

/// The group that a load went to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetReport {
    /// The group's identifier.
    pub group: String,
    /// Whether it was there already (`--group`), and not started for the measurement.
    pub is_elsewhere: bool,
    /// The client identity of the first connection; the others have the next ones.
    pub first_client: u32,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencyUs {
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Largest value.
    pub max: f64,
    /// Arithmetic mean.
    pub mean: f64,
}

/// A point of the distribution of latencies.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyPoint {
    /// This part of all operations had at most this latency.
    pub quantile: f64,
    /// The latency.
    pub latency_us: f64,
    /// Operations with at most this latency.
    pub count: u64,
}

/// Steps of a distribution for each halving of what is left above it, as in HdrHistogram's own output.
const STEPS_PER_HALVING: u32 = 5;

impl LatencyPoint {
    /// The distribution of a histogram in nanoseconds.
    #[must_use]
    pub fn all(histogram: &Histogram<u64>) -> Vec<Self> {
        let mut count = 0;
        let points = histogram.iter_quantiles(STEPS_PER_HALVING).map(|step| {
            count += step.count_since_last_iteration();
            Self {
                quantile: step.quantile_iterated_to(),
                latency_us: step.value_iterated_to() as f64 / 1e3,
                count,
            }
        });
        points.collect()
    }
}

/// The resources that one process used.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessReport {
    /// `replica 0`, `server`, `load`.
    pub name: String,
    /// CPU seconds, user and system, in the measured interval.
    pub cpu_s: f64,
    /// Resident memory at the end.
    pub rss_bytes: u64,
    /// Largest resident memory since the process started.
    pub peak_rss_bytes: u64,
}

/// The counters of one replica, from its status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplicaReport {
    /// The replica.
    pub replica: u16,
    /// Its view at the end.
    pub view: u64,
    /// Requests per batch, on average over the measured interval; absent if it counts none.
    pub requests_per_batch: Option<f64>,
    /// Messages that it dropped because of their content since it started. Messages that only came
    /// too late do not count.
    pub rejections: u64,
    /// The layout in use, never `auto`.
    pub layout: String,
    /// The transport in use, never `auto`.
    pub transport: String,
}

/// Figures that only an open loop has.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct OpenLoopReport {
    /// The rate asked for.
    pub rate_ops_s: f64,
    /// Operations that were sent and never got an answer.
    pub unfinished: u64,
    /// Operations that were due in the measured interval. Older reports lack it.
    #[serde(default)]
    pub due: u64,
    /// Those of them that were never sent: no client was free until 10 s after the interval.
    #[serde(default)]
    pub never_sent: u64,
    /// Whether the group kept up: in the interval it completed at least 99 % of what was due in it, and
    /// nothing was left at the end.
    pub kept_up: bool,
}

/// What the clients of one connection saw.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// The connection's number.
    pub connection: u32,
    /// Its clients.
    pub clients: u32,
    /// Operations acknowledged in the measured interval.
    pub completed: u64,
    /// Their latencies, as in the whole report.
    pub latency_us: Option<LatencyUs>,
}

/// Something that was caused while measuring, and what clients noticed of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EventReport {
    /// What, as on the command line: `kill-leader`.
    pub event: String,
    /// The replica that it happened to.
    pub replica: u16,
    /// When it happened, from the begin of the measured interval.
    pub at_s: f64,
    /// When it was over: the replica was resumed, or ready again. Absent if it never was.
    pub over_s: Option<f64>,
    /// What clients noticed, until the next event or the end.
    pub recovery: Recovery,
}

/// Acknowledged operations over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TimelineReport {
    /// Length of a bucket.
    pub bucket_ms: u64,
    /// Operations acknowledged in each, from the begin of the measured interval.
    pub completed: Vec<u32>,
}

/// The configuration of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// What orders the requests. Older reports lack it; theirs had no choice.
    #[serde(default = "without_choice")]
    pub protocol: String,
    /// Number of replicas, n.
    pub replicas: u16,
    /// Tolerated faults, f.
    pub faults: u16,
    /// Pillars, P.
    pub pillars: u16,
    /// Logical clients with one outstanding operation each.
    pub clients: u32,
    /// Connection groups: load threads, each linked to every replica.
    pub connections: u32,
    /// The service.
    pub service: String,
    /// Bytes of a request's payload.
    pub request_size: u32,
    /// Bytes of a reply's payload.
    pub reply_size: u32,
    /// Reads in percent of operations.
    pub read_percent: u8,
    /// Warm-up in seconds, not measured.
    pub warmup_s: f64,
    /// Requests per batch, at most.
    pub batch_max: u32,
    /// Layout of a replica's stages on cores.
    pub layout: String,
    /// What of a replica outlives its process. Older reports lack it; theirs kept nothing.
    #[serde(default = "nothing_kept")]
    pub durability: String,
    /// Whether processes are pinned to cores. Older reports lack it; theirs were not.
    #[serde(default)]
    pub pin: bool,
    /// Transport of the links, as asked for.
    pub transport: String,
    /// Longest time that threads poll for messages before they sleep, in microseconds.
    pub busy_poll_us: u64,
    /// MAC algorithm of certificates, and of client requests unless they are signed.
    pub authenticator: String,
    /// What proves a client's request: `mac` or `ed25519`. Older reports lack it.
    #[serde(default = "by_mac")]
    pub request_authenticator: String,
    /// Protection of links. Older reports lack it.
    #[serde(default = "before_choice")]
    pub link_cipher: String,
    /// One server and no protocol.
    pub unreplicated: bool,
    /// The operations and when they were due. Absent without a load, and in older reports.
    #[serde(default)]
    pub load: Option<LoadConfig>,
}

/// The operations of a load and when they were due.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoadConfig {
    /// The workload's name.
    pub workload: String,
    /// The seed of all random choices.
    pub seed: u64,
    /// `closed`, or `constant` or `poisson` arrivals of an open loop.
    pub arrivals: String,
    /// The rate at the begin and at the end of the measured interval, if it changed. Older reports lack it.
    #[serde(default)]
    pub ramp: Option<RampConfig>,
    /// How long a client of a closed loop waited after an answer, in microseconds.
    pub think_time_us: u64,
    /// The share of the first connection, if it was hotter than others.
    pub hot_client_percent: Option<u8>,
    /// The number of operations, if it and not a time was given.
    pub operations: Option<u64>,
    /// How many processes made the load. Older reports lack it; theirs was one.
    #[serde(default = "one")]
    pub processes: u32,
    /// Only of workloads over records.
    pub records: Option<RecordsConfig>,
}

/// A rate that changed evenly.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RampConfig {
    /// At the begin of the measured interval, and before it.
    pub from_ops_s: f64,
    /// At its end.
    pub to_ops_s: f64,
}

/// The records that a workload is about, and what it does to them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordsConfig {
    /// Records at the start.
    pub keys: u32,
    /// Which are popular.
    pub distribution: String,
    /// Percent of operations that read a record.
    pub reads: u8,
    /// Percent that write a record which is there.
    pub updates: u8,
    /// Percent that write a new record.
    pub inserts: u8,
    /// Percent that read records in the order of their keys.
    pub scans: u8,
    /// Most records of a scan.
    pub scan_length: u32,
    /// Percent that read a record and then write it.
    pub read_modify_writes: u8,
}

fn without_choice() -> String {
    "hybster".into()
}

fn by_mac() -> String {
    "mac".into()
}

fn before_choice() -> String {
    "aes-128-gcm".into()
}

impl LatencyUs {
    /// Percentiles of a histogram in nanoseconds; `None` if it is empty.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        (!histogram.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e3,
            mean: histogram.mean() / 1e3,
        })
    }
}

/// How a measurement ended, for the exit status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What is wrong with it, one sentence each.
    pub complaints: Vec<String>,
    /// Whether the user ended it early.
    pub interrupted: bool,
}

impl RunReport {
    /// Whether all operations succeeded and the rate was kept.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut complaints = Vec::new();
        if self.errors > 0 {
            complaints.push(format!(
                "{} operations failed{}",
                count(self.errors),
                text::kinds(self)
            ));
        }
        if self.completed == 0 {
            complaints.push("no operation completed in the measured interval".into());
        }
        let rate = self.open_loop.and_then(|open| rate_not_kept(open, self.throughput_ops_s));
        complaints.extend(rate);
        Verdict { complaints, interrupted: self.interrupted }
    }
}

/// Failures by their names.
#[must_use]
pub fn errors_by_kind(measured: &Measured, unfinished: u64) -> BTreeMap<String, u64> {
    let mut kinds: BTreeMap<String, u64> = Failure::ALL
        .into_iter()
        .map(|kind| (kind.name().to_owned(), measured.failures[kind as usize]))
        .filter(|(_, count)| *count > 0)
        .collect();
    if unfinished > 0 {
        kinds.insert("unfinished".into(), unfinished);
    }
    kinds
}

/// CPU seconds per million operations; 0 if none completed.
#[must_use]
pub fn per_million(cpu_s: f64, completed: u64) -> f64 {
    if completed == 0 { 0.0 } else { cpu_s / completed as f64 * 1e6 }
}

fn one() -> u32 {
    1
}

fn nothing_kept() -> String {
    "none".to_owned()
}
