//! CPU time and memory over time, in the report.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// What processes used while a load ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UsageReport {
    /// When each sample was taken, from the begin of the measured interval.
    pub at_s: Vec<f64>,
    /// The processes, with a figure for each sample.
    pub processes: Vec<ProcessUsage>,
    /// Threads that were on a core, or waited for one, for at least a hundredth of the interval.
    pub threads: Vec<ThreadReport>,
}

/// What one process used over time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessUsage {
    /// `replica 0`, `server`, `load`.
    pub name: String,
    /// CPU seconds per second since the sample before: 1 is one core. Null if it did not run.
    pub cpu_cores: Vec<Option<f64>>,
    /// Resident memory. Null if it did not run.
    pub rss_bytes: Vec<Option<u64>>,
}

/// How a thread spent the measured interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadReport {
    /// Its process, as in the list of processes.
    pub process: String,
    /// Its name, of which the system keeps 15 bytes.
    pub thread: String,
    /// CPU seconds.
    pub cpu_s: f64,
    /// Seconds for which it had work, but no core.
    pub waited_s: f64,
}

impl UsageReport {
    /// As CSV, one line per sample and process.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = "at_s,process,cpu_cores,rss_bytes\n".to_owned();
        for (number, at) in self.at_s.iter().enumerate() {
            for process in &self.processes {
                let cpu = process.cpu_cores.get(number).copied().flatten();
                let rss = process.rss_bytes.get(number).copied().flatten();
                let (cpu, rss) = (figure(cpu), figure(rss));
                let _ = writeln!(text, "{at},{},{cpu},{rss}", process.name);
            }
        }
        text
    }
}

/// Nothing, if there is none.
fn figure(value: Option<impl ToString>) -> String {
    value.map_or(String::new(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_does_not_run_has_empty_columns() {
        let usage = UsageReport {
            at_s: vec![0.1, 0.2],
            processes: vec![ProcessUsage {
                name: "replica 0".into(),
                cpu_cores: vec![Some(0.5), None],
                rss_bytes: vec![Some(7), None],
            }],
            threads: vec![],
        };
        let lines = "at_s,process,cpu_cores,rss_bytes\n0.1,replica 0,0.5,7\n0.2,replica 0,,\n";
        assert_eq!(usage.csv(), lines);
    }
}
