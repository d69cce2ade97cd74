//! The report of a profile.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::shares::{NAMES, OTHER};
use crate::report::{RunReport, Verdict, count, machine_line};

/// The report of `hybster-bench flamegraph`.
#[derive(Clone, Debug, Serialize)]
pub struct ProfileReport {
    /// Version of this form.
    pub format: u32,
    /// `profile`.
    pub kind: String,
    /// Seconds that were sampled.
    pub seconds: f64,
    /// Samples per second and process.
    pub frequency: u32,
    /// Where the stacks and flamegraphs are.
    pub out: PathBuf,
    /// A program that was missing and how to install it.
    pub missing: Option<String>,
    /// The cost of an operation, per process.
    pub processes: Vec<ProcessProfile>,
    /// The run that was profiled; perf makes it slower.
    pub run: RunReport,
}

/// Processes side by side in one table, so that a terminal of 80 columns suffices.
const COLUMNS: usize = 4;

/// The cost of an operation in one process.
#[derive(Clone, Debug, Serialize)]
pub struct ProcessProfile {
    /// `replica 0`, `server`, `load`.
    pub name: String,
    /// CPU time per operation as `/proc` counts it.
    pub measured_ns_per_op: f64,
    /// CPU time per operation according to the samples.
    pub sampled_ns_per_op: f64,
    /// Number of samples.
    pub samples: u64,
    /// System calls per operation; absent if they cannot be counted here.
    pub system_calls_per_op: Option<f64>,
    /// Nanoseconds per operation by activity.
    pub ns_per_op: BTreeMap<String, f64>,
}

impl fmt::Display for ProfileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let throughput = count(self.run.throughput_ops_s.round() as u64);
        writeln!(f, "{throughput} operations/s while perf sampled; CPU ns per operation")?;
        for (number, block) in self.processes.chunks(COLUMNS).enumerate() {
            let is_last = (number + 1) * COLUMNS >= self.processes.len();
            self.table(f, block, is_last)?;
        }
        writeln!(f, "\n  stacks and flamegraphs: {}", self.out.display())?;
        machine_line(f, &self.run.machine)
    }
}

impl ProfileReport {
    /// Whether the run was right and flamegraphs were drawn.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut verdict = self.run.verdict();
        verdict.complaints.extend(self.missing.clone());
        verdict
    }

    /// Some processes side by side, and all of them together in the last column of the last table.
    fn table(
        &self,
        f: &mut fmt::Formatter<'_>,
        block: &[ProcessProfile],
        is_last: bool,
    ) -> fmt::Result {
        let all = |of: &dyn Fn(&ProcessProfile) -> f64| {
            is_last.then(|| self.processes.iter().map(of).sum::<f64>())
        };
        let line = |f: &mut fmt::Formatter<'_>, name: &str, of: &dyn Fn(&ProcessProfile) -> f64| {
            write!(f, "  {name:<25}")?;
            block.iter().try_for_each(|p| write!(f, "{:>10.1}", of(p)))?;
            match all(of) {
                Some(sum) => writeln!(f, "{sum:>10.1}"),
                None => writeln!(f),
            }
        };
        write!(f, "\n  {:<25}", "")?;
        block.iter().try_for_each(|p| write!(f, "{:>10}", p.name))?;
        writeln!(f, "{}", if is_last { "       all" } else { "" })?;
        for name in NAMES.into_iter().chain([OTHER]) {
            let of = |p: &ProcessProfile| p.ns_per_op.get(name).copied().unwrap_or(0.0);
            if self.processes.iter().any(|p| of(p) > 0.0) {
                line(f, name, &of)?;
            }
        }
        line(f, "sum of samples", &|p| p.sampled_ns_per_op)?;
        line(f, "measured (/proc)", &|p| p.measured_ns_per_op)?;
        write!(f, "  {:<25}", "samples")?;
        block.iter().try_for_each(|p| write!(f, "{:>10}", p.samples))?;
        writeln!(f)?;
        if self.processes.iter().all(|p| p.system_calls_per_op.is_some()) {
            line(f, "system calls / 1000 op", &|p| p.system_calls_per_op.unwrap_or(0.0) * 1e3)?;
        }
        Ok(())
    }
}
