//! The report of a measurement: one structure, printed as text and written as JSON.
//!
//! The JSON form is a contract, described in `bench/REPORT.md` and pinned by a fixture. Fields may
//! be added; renaming or removing one raises [`FORMAT`].

mod text;

pub use text::{bytes, count};
pub(crate) use text::{machine as machine_line, plural, processes as process_table};

use std::collections::BTreeMap;
use std::path::Path;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::load::{Failure, Measured};
use crate::machine::Machine;

/// Version of the JSON form.
pub const FORMAT: u32 = 1;

/// The report of `hybster-bench run`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// Version of this form.
    pub format: u32,
    /// `run` or `unreplicated`.
    pub kind: String,
    /// Acknowledged operations per second of the measured interval.
    pub throughput_ops_s: f64,
    /// Operations acknowledged in the measured interval.
    pub completed: u64,
    /// Operations of the measured interval that failed, including those never answered.
    pub errors: u64,
    /// Failures by kind; kinds that did not occur are absent.
    pub errors_by_kind: BTreeMap<String, u64>,
    /// Length of the measured interval.
    pub duration_s: f64,
    /// Latencies of the operations that started in the measured interval.
    pub latency_us: LatencyUs,
    /// Longest time between two completions.
    pub longest_gap_ms: f64,
    /// CPU seconds that the host of a virtual machine gave to others in the interval. Older reports
    /// lack it.
    #[serde(default)]
    pub stolen_s: f64,
    /// CPU seconds of all processes per million completed operations.
    pub cpu_s_per_mop: f64,
    /// Per process: CPU time of the measured interval and memory at its end.
    pub processes: Vec<ProcessReport>,
    /// What the replicas counted.
    pub replicas: Vec<ReplicaReport>,
    /// Only in an open loop.
    pub open_loop: Option<OpenLoopReport>,
    /// The configuration of the measurement.
    pub config: Config,
    /// The machine it ran on.
    pub machine: Machine,
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
    /// Operations intended in the measured interval that never got an answer.
    pub unfinished: u64,
    /// Whether the group kept up (throughput at least 99 % of the rate).
    pub kept_up: bool,
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
    /// Percentiles of a histogram in nanoseconds.
    #[must_use]
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1e3,
            mean: histogram.mean() / 1e3,
        }
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

/// Writes a report as JSON, whole or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write_json(path: &Path, report: &impl Serialize) -> Result<(), Error> {
    let mut text = serde_json::to_string_pretty(report)
        .map_err(|e| Error::new(format!("cannot put the report into JSON: {e}")))?;
    text.push('\n');
    let failed = |e: std::io::Error| Error::new(format!("cannot write {}: {e}", path.display()));
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut file = tempfile::Builder::new()
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(failed)?;
    std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}

fn nothing_kept() -> String {
    "none".to_owned()
}
