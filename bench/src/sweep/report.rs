//! A series as table, JSON and CSV.

use std::fmt::{self, Write as _};
use std::path::Path;

use serde::Serialize;

use crate::Error;
use crate::compare::Group;
use crate::machine::Machine;
use crate::report::{LatencyUs, RunReport, Verdict, count, machine_line, plural, write_text};

/// The report of `hybster-bench sweep`.
#[derive(Clone, Debug, Serialize)]
pub struct SweepReport {
    /// Version of this form.
    pub format: u32,
    /// `sweep`.
    pub kind: String,
    /// The option that was changed.
    pub over: String,
    /// Runs per value.
    pub repeat: u32,
    /// Whether the user ended it early: these are the complete runs until then.
    pub interrupted: bool,
    /// One point per value, in the order asked for.
    pub points: Vec<Point>,
    /// The machine it ran on.
    pub machine: Machine,
}

/// All runs with one value.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    /// The value.
    pub value: String,
    /// Operations per second.
    pub throughput_ops_s: Spread,
    /// Median latency; absent if in no run an operation completed.
    pub latency_p50_us: Option<Spread>,
    /// 99th percentile of the latency.
    pub latency_p99_us: Option<Spread>,
    /// CPU microseconds per operation of all processes.
    pub cpu_us_per_op: Spread,
    /// CPU microseconds per operation of replica 0, the leader (or of the server).
    pub leader_cpu_us_per_op: Spread,
    /// CPU microseconds per operation of a follower, on average; 0 without followers.
    pub follower_cpu_us_per_op: Spread,
    /// CPU microseconds per operation of the load generator with its clients.
    pub load_cpu_us_per_op: Spread,
    /// Requests per batch at the leader; absent if no replica counts them.
    pub requests_per_batch: Option<Spread>,
    /// Failed operations of all runs.
    pub errors: u64,
    /// The runs.
    pub runs: Vec<RunReport>,
}

/// Median and range of several runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// The median; for an even number of runs the mean of the two in the middle.
    pub median: f64,
    /// The lowest.
    pub min: f64,
    /// The highest.
    pub max: f64,
}

impl Spread {
    /// The spread of these values; all zero if there are none.
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
            return Self { median: 0.0, min: 0.0, max: 0.0 };
        };
        let upper = sorted.len() / 2;
        let lower = (sorted.len() - 1) / 2;
        Self { median: (sorted[lower] + sorted[upper]) / 2.0, min: *min, max: *max }
    }
}

/// CPU microseconds per operation of one run.
struct Cost {
    leader: f64,
    follower: f64,
    load: f64,
}

impl Cost {
    fn of(run: &RunReport) -> Self {
        let per_op = |cpu_s: f64| crate::report::per_million(cpu_s, run.completed);
        let load = run.processes.iter().filter(|p| is_load(&p.name)).map(|p| p.cpu_s).sum::<f64>();
        let replicas: Vec<f64> =
            run.processes.iter().filter(|p| !is_load(&p.name)).map(|p| p.cpu_s).collect();
        let followers = replicas.get(1..).unwrap_or_default();
        let follower = followers.iter().sum::<f64>() / followers.len().max(1) as f64;
        let leader = replicas.first().copied().unwrap_or(0.0);
        Self { leader: per_op(leader), follower: per_op(follower), load: per_op(load) }
    }
}

/// Whether a process made load: the only one, or one of several.
fn is_load(name: &str) -> bool {
    name.split(' ').next() == Some("load")
}

fn batch(run: &RunReport) -> Option<f64> {
    run.replicas.first()?.requests_per_batch
}

impl Point {
    /// The point of one value.
    #[must_use]
    pub fn new(value: String, runs: Vec<RunReport>) -> Self {
        let over = |of: fn(&RunReport) -> f64| Spread::of(runs.iter().map(of));
        let latency = |of: fn(&LatencyUs) -> f64| {
            let values: Vec<f64> =
                runs.iter().filter_map(|r| r.latency_us.as_ref().map(of)).collect();
            (!values.is_empty()).then(|| Spread::of(values))
        };
        let batches: Vec<f64> = runs.iter().filter_map(batch).collect();
        Self {
            value,
            throughput_ops_s: over(|r| r.throughput_ops_s),
            latency_p50_us: latency(|l| l.p50),
            latency_p99_us: latency(|l| l.p99),
            cpu_us_per_op: over(|r| r.cpu_s_per_mop.unwrap_or(0.0)),
            leader_cpu_us_per_op: over(|r| Cost::of(r).leader),
            follower_cpu_us_per_op: over(|r| Cost::of(r).follower),
            load_cpu_us_per_op: over(|r| Cost::of(r).load),
            requests_per_batch: (!batches.is_empty()).then(|| Spread::of(batches)),
            errors: runs.iter().map(|r| r.errors).sum(),
            runs,
        }
    }
}

impl SweepReport {
    /// The runs of each value, to be compared with each other.
    #[must_use]
    pub fn groups(&self) -> Vec<Group> {
        let group = |point: &Point| Group::of_runs(&point.value, &point.runs);
        self.points.iter().map(group).collect()
    }

    /// What is wrong with the runs, and whether the user ended the series early.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut complaints = Vec::new();
        for point in &self.points {
            for (round, run) in point.runs.iter().enumerate() {
                let (over, value, round) = (&self.over, &point.value, round + 1);
                let of_run = run.verdict().complaints.into_iter();
                complaints.extend(of_run.map(|c| format!("{over} {value}, round {round}: {c}")));
            }
        }
        Verdict { complaints, interrupted: self.interrupted }
    }

    /// One line per run, the values in the order of the series.
    #[must_use]
    pub fn csv(&self) -> String {
        let mut text = format!(
            "{},round,throughput_ops_s,latency_p50_us,latency_p99_us,cpu_us_per_op,\
             leader_cpu_us_per_op,follower_cpu_us_per_op,load_cpu_us_per_op,requests_per_batch,\
             errors\n",
            self.over.replace('-', "_")
        );
        for point in &self.points {
            for (round, run) in point.runs.iter().enumerate() {
                let cost = Cost::of(run);
                let latency = |of: fn(&LatencyUs) -> f64| {
                    run.latency_us.as_ref().map_or(String::new(), |l| format!("{:.2}", of(l)))
                };
                let batch = batch(run).map_or(String::new(), |b| format!("{b:.2}"));
                let _ = writeln!(
                    text,
                    "{},{},{:.0},{},{},{:.4},{:.4},{:.4},{:.4},{batch},{}",
                    point.value,
                    round + 1,
                    run.throughput_ops_s,
                    latency(|l| l.p50),
                    latency(|l| l.p99),
                    run.cpu_s_per_mop.unwrap_or(0.0),
                    cost.leader,
                    cost.follower,
                    cost.load,
                    run.errors,
                );
            }
        }
        text
    }
}

/// Writes the series as CSV.
///
/// # Errors
/// If the file cannot be written.
pub fn write_csv(path: &Path, report: &SweepReport) -> Result<(), Error> {
    write_text(path, &report.csv())
}

impl fmt::Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let runs = plural(self.repeat.into(), "run");
        writeln!(f, "median of {runs} each, lowest and highest in brackets\n")?;
        if self.interrupted {
            writeln!(f, "interrupted: these are the complete runs until then\n")?;
        }
        let width = self.points.iter().map(|p| p.value.len()).max().unwrap_or(0);
        let width = width.max(self.over.len());
        writeln!(
            f,
            "  {:<width$} {:>27} {:>10} {:>10} {:>6}",
            self.over, "operations/s", "p50 us", "p99 us", "errors"
        )?;
        for p in &self.points {
            let t = &p.throughput_ops_s;
            let whole = |value: f64| count(value.round() as u64);
            let spread = format!("{} [{} {}]", whole(t.median), whole(t.min), whole(t.max));
            let latency =
                |of: Option<Spread>| of.map_or("n/a".into(), |of| format!("{:.1}", of.median));
            let (p50, p99) = (latency(p.latency_p50_us), latency(p.latency_p99_us));
            writeln!(f, "  {:<width$} {spread:>27} {p50:>10} {p99:>10} {:>6}", p.value, p.errors)?;
        }
        writeln!(f, "\nCPU in microseconds per operation; requests per batch at the leader\n")?;
        writeln!(
            f,
            "  {:<width$} {:>9} {:>9} {:>9} {:>9} {:>9}",
            self.over, "all", "leader", "follower", "load", "batch"
        )?;
        for p in &self.points {
            let batch =
                p.requests_per_batch.map_or("n/a".into(), |batch| format!("{:.1}", batch.median));
            writeln!(
                f,
                "  {:<width$} {:>9.3} {:>9.3} {:>9.3} {:>9.3} {batch:>9}",
                p.value,
                p.cpu_us_per_op.median,
                p.leader_cpu_us_per_op.median,
                p.follower_cpu_us_per_op.median,
                p.load_cpu_us_per_op.median,
            )?;
        }
        writeln!(f)?;
        machine_line(f, &self.machine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_in_the_middle() {
        let of = |values: &[f64]| Spread::of(values.iter().copied());
        assert_eq!(of(&[3.0, 1.0, 2.0]), Spread { median: 2.0, min: 1.0, max: 3.0 });
        assert_eq!(of(&[4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(of(&[]).median, 0.0);
    }

    fn report() -> RunReport {
        let text = include_str!("../../tests/fixtures/run-report.json");
        serde_json::from_str(text).expect("the fixture is a report")
    }

    #[test]
    fn a_series_is_a_table_and_a_line_per_run() {
        let runs = vec![report(), report()];
        let (completed, replicas) = (runs[0].completed, runs[0].processes.len() - 1);
        assert!(completed > 0 && replicas > 0);
        let sweep = SweepReport {
            format: 1,
            kind: "sweep".into(),
            over: "request-size".into(),
            repeat: 2,
            interrupted: false,
            points: vec![Point::new("64".into(), runs)],
            machine: Machine::here(),
        };
        let csv = sweep.csv();
        let lines: Vec<&str> = csv.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].starts_with("request_size,round,") && lines[2].starts_with("64,2,"));
        assert!(lines.iter().all(|line| line.matches(',').count() == 10), "{csv}");
        let text = sweep.to_string();
        assert!(text.contains("request-size"));
        assert!(
            text.lines().all(|line| line.chars().count() <= 80 || line.contains("core")),
            "{text}"
        );
    }
}
