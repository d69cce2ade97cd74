//! `hybster-bench compare A B…`: ratios of measurements with intervals, never bare times.
//!
//! The samples are whole runs: what differs between two runs of the same thing (the state of the machine,
//! which core a thread got) does not show within one. So with fewer than three runs on a side there is a
//! ratio, but no interval. Of `fault` the samples are rounds, and of a search for the knee whole searches.

mod bootstrap;

pub use bootstrap::{LEAST_SAMPLES, Ratio};

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Error;
use crate::knee::KneeReport;
use crate::machine::Machine;
use crate::report::{FORMAT, RunReport, count};
use crate::scenario::{FaultReport, Round};

/// The report of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CompareReport {
    /// Version of this form.
    pub format: u32,
    /// `compare`.
    pub kind: String,
    /// What is compared: `run`, `knee` or `fault`. Older reports lack it; theirs were runs.
    #[serde(default = "run")]
    pub of: String,
    /// What all others are compared with.
    pub base: Compared,
    /// The others.
    pub others: Vec<Compared>,
}

/// Runs of one thing, compared with those of the base.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// The file, and of a series the value.
    pub name: String,
    /// Number of runs, searches or rounds.
    pub runs: u64,
    /// Failed operations of all runs.
    pub errors: u64,
    /// Operations per second; of a search the highest good rate, of a round those before the fault.
    pub throughput: Option<Ratio>,
    /// Median latency.
    pub latency_p50: Option<Ratio>,
    /// 99th percentile of the latency.
    pub latency_p99: Option<Ratio>,
    /// CPU seconds per operation, of all processes.
    pub cpu: Option<Ratio>,
    /// Of rounds: the longest time without a completion. Older reports lack it.
    #[serde(default)]
    pub gap: Option<Ratio>,
    /// Of rounds: operations per second after the fault. Older reports lack it.
    #[serde(default)]
    pub after: Option<Ratio>,
    /// What of configuration and machine is not as in the base.
    pub differences: Vec<String>,
}

/// Samples of one thing.
#[derive(Clone, Debug)]
pub struct Group {
    /// The file, and of a series the value.
    name: String,
    /// `run`, `knee` or `fault`.
    of: &'static str,
    samples: Vec<Sample>,
}

/// What is compared of a run, a search or a round.
#[derive(Clone, Debug, Default)]
struct Sample {
    errors: u64,
    throughput: Option<f64>,
    latency_p50: Option<f64>,
    latency_p99: Option<f64>,
    cpu: Option<f64>,
    gap: Option<f64>,
    after: Option<f64>,
    /// Configuration and machine.
    facts: Value,
}

impl Group {
    /// Runs of one thing.
    #[must_use]
    pub fn of_runs(name: &str, runs: &[RunReport]) -> Self {
        let sample = |run: &RunReport| Sample {
            errors: run.errors,
            throughput: Some(run.throughput_ops_s),
            latency_p50: run.latency_us.map(|latency| latency.p50),
            latency_p99: run.latency_us.map(|latency| latency.p99),
            cpu: run.cpu_s_per_mop.filter(|_| run.completed > 0),
            facts: json!({
                "config": run.config,
                "machine": undated(&run.machine),
                "duration_s": run.duration_s.round(),
            }),
            ..Sample::default()
        };
        let samples = runs.iter().map(sample).collect();
        Self { name: name.to_owned(), of: RUN, samples }
    }

    fn of_knee(name: &str, knee: &KneeReport) -> Self {
        let sample = Sample {
            errors: knee.steps.iter().map(|step| step.run.errors).sum(),
            throughput: knee.rate_ops_s,
            facts: json!({
                "objective": knee.objective,
                "config": knee.steps.first().map(|step| &step.run.config),
                "machine": undated(&knee.machine),
            }),
            ..Sample::default()
        };
        Self { name: name.to_owned(), of: KNEE, samples: vec![sample] }
    }

    fn of_fault(name: &str, fault: &FaultReport) -> Self {
        let sample = |round: &Round| Sample {
            errors: round.errors,
            throughput: Some(round.before_ops_s),
            gap: Some(round.gap_ms),
            after: Some(round.after_ops_s),
            facts: json!({
                "fault": fault.kind,
                "config": fault.config,
                "machine": undated(&fault.machine),
            }),
            ..Sample::default()
        };
        let samples = fault.rounds.iter().map(sample).collect();
        Self { name: name.to_owned(), of: FAULT, samples }
    }
}

const RUN: &str = "run";
const KNEE: &str = "knee";
const FAULT: &str = "fault";

fn run() -> String {
    RUN.to_owned()
}

/// When it was is no difference.
fn undated(machine: &Machine) -> Machine {
    Machine { date: String::new(), ..machine.clone() }
}

/// What is read of a report file, of whatever kind.
#[derive(Deserialize)]
struct AnyReport {
    format: u32,
    kind: String,
    #[serde(default)]
    points: Vec<AnyPoint>,
}

#[derive(Deserialize)]
struct AnyPoint {
    value: String,
    runs: Vec<RunReport>,
}

/// Compares report files. Each stands for itself; the values of a series are compared with each other, and of
/// a directory all runs in it are taken together.
///
/// # Errors
/// If a file cannot be read or is no report of `run`, `sweep` or `fault`, or there is only one thing to compare.
pub fn compare(paths: &[PathBuf]) -> Result<CompareReport, Error> {
    let mut groups = Vec::new();
    for path in paths {
        groups.extend(read(path)?);
    }
    of_groups(&groups)
}

/// Compares groups of samples with the first.
///
/// # Errors
/// If there are fewer than two, or they are not of one kind.
pub fn of_groups(groups: &[Group]) -> Result<CompareReport, Error> {
    let [base, others @ ..] = groups else {
        return Err(Error::new("nothing to compare: give report files"));
    };
    if others.is_empty() {
        let name = &base.name;
        return Err(Error::new(format!(
            "{name} is one thing only: give another report to compare it with, or a series"
        )));
    }
    if let Some(other) = others.iter().find(|other| other.of != base.of) {
        return Err(Error::new(format!(
            "{} is of the kind {}, and {} of the kind {}: reports of one kind are compared",
            other.name, other.of, base.name, base.of
        )));
    }
    Ok(CompareReport {
        format: FORMAT,
        kind: "compare".into(),
        of: base.of.into(),
        base: compared(base, base),
        others: others.iter().map(|group| compared(group, base)).collect(),
    })
}

fn read(path: &Path) -> Result<Vec<Group>, Error> {
    let failed = |e: &dyn fmt::Display| Error::new(format!("cannot read {}: {e}", path.display()));
    let name = path.display().to_string();
    if path.is_dir() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(path)
            .map_err(|e| failed(&e))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .filter(|file| file.extension().is_some_and(|ending| ending == "json"))
            .collect();
        files.sort();
        let mut all: Option<Group> = None;
        for group in files.iter().map(|file| read(file)).collect::<Result<Vec<_>, _>>()?.concat() {
            match &mut all {
                None => all = Some(Group { name: name.clone(), ..group }),
                Some(all) if all.of == group.of => all.samples.extend(group.samples),
                Some(all) => {
                    let text = format!("it has reports of {} and of {}", all.of, group.of);
                    return Err(failed(&text));
                }
            }
        }
        let all = all.filter(|all| !all.samples.is_empty());
        return match all {
            Some(all) => Ok(vec![all]),
            None => Err(failed(&"there is no report in it: they end with .json")),
        };
    }
    let text = std::fs::read(path).map_err(|e| failed(&e))?;
    let wrong = |e: serde_json::Error| failed(&format!("it is no report of hybster-bench: {e}"));
    let any: AnyReport = serde_json::from_slice(&text).map_err(wrong)?;
    if any.format > FORMAT {
        let version = any.format;
        return Err(failed(&format!(
            "its form is version {version}, and this program knows {FORMAT}: take a newer one"
        )));
    }
    match any.kind.as_str() {
        "run" | "unreplicated" | "merged" => {
            let run = serde_json::from_slice(&text).map_err(wrong)?;
            Ok(vec![Group::of_runs(&name, &[run])])
        }
        "sweep" => {
            let group =
                |point: AnyPoint| Group::of_runs(&format!("{name}: {}", point.value), &point.runs);
            Ok(any.points.into_iter().map(group).collect())
        }
        "knee" => {
            let knee = serde_json::from_slice(&text).map_err(wrong)?;
            Ok(vec![Group::of_knee(&name, &knee)])
        }
        "kill-leader" | "pause-follower" | "restart" => {
            let fault = serde_json::from_slice(&text).map_err(wrong)?;
            Ok(vec![Group::of_fault(&name, &fault)])
        }
        kind => {
            let text = format!(
                "its kind is {kind}; reports of run, sweep, ablate and fault can be compared"
            );
            Err(failed(&text))
        }
    }
}

fn compared(group: &Group, base: &Group) -> Compared {
    let ratio = |of: fn(&Sample) -> Option<f64>| {
        let samples = |group: &Group| group.samples.iter().filter_map(of).collect::<Vec<f64>>();
        Ratio::of(&samples(group), &samples(base))
    };
    Compared {
        name: group.name.clone(),
        runs: group.samples.len() as u64,
        errors: group.samples.iter().map(|sample| sample.errors).sum(),
        throughput: ratio(|sample| sample.throughput),
        latency_p50: ratio(|sample| sample.latency_p50),
        latency_p99: ratio(|sample| sample.latency_p99),
        cpu: ratio(|sample| sample.cpu),
        gap: ratio(|sample| sample.gap),
        after: ratio(|sample| sample.after),
        differences: differences(group, base),
    }
}

/// What of configuration and machine differs between two groups, by the names in the reports.
fn differences(group: &Group, base: &Group) -> Vec<String> {
    let mut found = Vec::new();
    if let (Some(one), Some(other)) = (group.samples.first(), base.samples.first()) {
        diff("", &one.facts, &other.facts, &mut found);
    }
    found
}

fn diff(name: &str, one: &Value, other: &Value, found: &mut Vec<String>) {
    if let (Value::Object(one), Value::Object(other)) = (one, other) {
        for (key, value) in one {
            diff(key, value, other.get(key).unwrap_or(&Value::Null), found);
        }
    } else if one != other {
        // What an older report lacks is unknown, and not different.
        if !one.is_null() && !other.is_null() {
            found.push(format!("{name} {} for {}", plain(one), plain(other)));
        }
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

impl CompareReport {
    /// What a sample is called.
    fn sample(&self) -> &'static str {
        match self.of.as_str() {
            KNEE => "search",
            FAULT => "round",
            _ => "run",
        }
    }
}

impl fmt::Display for CompareReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = &self.base;
        writeln!(
            f,
            "ratios to {} ({}), with intervals of 95 % in brackets\n",
            base.name,
            if base.runs == 1 {
                format!("1 {}", self.sample())
            } else {
                format!("{} {}", base.runs, plurals(self.sample()))
            }
        )?;
        let longest = self.others.iter().map(|other| other.name.chars().count()).max().unwrap_or(0);
        let width = longest.clamp(4, WIDEST_NAME);
        let columns: &[Column] = match self.of.as_str() {
            KNEE => &[("highest rate", |c| c.throughput)],
            FAULT => &[
                ("longest gap", |c| c.gap),
                ("throughput before", |c| c.throughput),
                ("throughput after", |c| c.after),
            ],
            _ => &[
                ("throughput", |c| c.throughput),
                ("CPU per operation", |c| c.cpu),
                ("latency p50", |c| c.latency_p50),
                ("latency p99", |c| c.latency_p99),
            ],
        };
        for pair in columns.chunks(2) {
            let samples = plurals(self.sample());
            // A terminal of 80 columns suffices.
            let narrow = samples.len().max(5);
            write!(f, "  {:<width$} {samples:>narrow$} {:>7}", "", "errors")?;
            pair.iter().try_for_each(|(name, _)| write!(f, " {name:>20}"))?;
            writeln!(f)?;
            for other in &self.others {
                let (name, runs, errors) = (end_of(&other.name, width), other.runs, other.errors);
                write!(f, "  {name:<width$} {runs:>narrow$} {:>7}", count(errors))?;
                pair.iter().try_for_each(|(_, of)| write!(f, " {:>20}", text_of(of(other))))?;
                writeln!(f)?;
            }
            writeln!(f)?;
        }
        let all = || std::iter::once(base).chain(&self.others);
        if all().any(|compared| compared.runs < LEAST_SAMPLES as u64) {
            writeln!(
                f,
                "  no interval  with fewer than {LEAST_SAMPLES} {0} on a side: one does not show how much {0} \
                 differ. `sweep`, `ablate` and `fault --repeat` repeat; of a directory all reports are taken \
                 together.",
                plurals(self.sample())
            )?;
        }
        for other in self.others.iter().filter(|other| !other.differences.is_empty()) {
            writeln!(f, "  {}: {}", other.name, other.differences.join(", "))?;
        }
        Ok(())
    }
}

/// Several of them.
fn plurals(sample: &str) -> String {
    format!("{sample}{}", if sample.ends_with('h') { "es" } else { "s" })
}

/// A figure with its name.
type Column = (&'static str, fn(&Compared) -> Option<Ratio>);

/// Most columns of a name.
const WIDEST_NAME: usize = 20;

/// The end of a name, where files and values differ.
fn end_of(name: &str, width: usize) -> String {
    let length = name.chars().count();
    match length.checked_sub(width) {
        None | Some(0) => name.to_owned(),
        Some(beyond) => format!("…{}", name.chars().skip(beyond + 1).collect::<String>()),
    }
}

fn text_of(ratio: Option<Ratio>) -> String {
    match ratio {
        None => "n/a".into(),
        Some(Ratio { ratio, low: Some(low), high: Some(high) }) => {
            format!("{ratio:.3} [{low:.3} {high:.3}]")
        }
        Some(Ratio { ratio, .. }) => format!("{ratio:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &str = include_str!("../../tests/fixtures/run-report.json");
    const OLD: &str = include_str!("../../tests/fixtures/run-report-1.json");

    fn directory_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }

    #[test]
    fn reports_of_old_and_new_forms_are_compared() {
        let faster = NEW.replace("412345.5", "824691.0");
        let directory = directory_with(&[("old.json", OLD), ("new.json", &faster)]);
        let [old, new] = ["old.json", "new.json"].map(|name| directory.path().join(name));
        let report = compare(&[old, new]).unwrap();
        let other = &report.others[0];
        assert_eq!(other.throughput.unwrap(), Ratio { ratio: 2.0, low: None, high: None });
        assert_eq!(other.latency_p99.unwrap().ratio, 1.0);
        let differences = other.differences.join("; ");
        assert!(differences.contains("service kv for null"), "{differences}");
        assert!(!differences.contains("load"), "{differences}");
        let text = report.to_string();
        assert!(text.contains("2.000") && text.contains("no interval"), "{text}");
    }

    #[test]
    fn the_runs_of_a_directory_and_of_a_series_are_samples() {
        let run = |ops: &str| NEW.replace("412345.5", ops);
        let one = directory_with(&[
            ("1.json", &run("100.0")),
            ("2.json", &run("100.0")),
            ("3.json", &run("100.0")),
        ]);
        let point = |value: &str, ops: &str| {
            let runs = [run(ops), run(ops), run(ops)].join(",");
            format!(r#"{{ "value": "{value}", "runs": [{runs}] }}"#)
        };
        let points = [point("4", "150.0"), point("8", "50.0")].join(",");
        let series = format!(r#"{{ "format": 2, "kind": "sweep", "points": [{points}] }}"#);
        let other = directory_with(&[("series.json", &series)]);
        let paths = [one.path().to_owned(), other.path().join("series.json")];
        let report = compare(&paths).unwrap();
        let ratios: Vec<_> = report.others.iter().map(|c| c.throughput.unwrap()).collect();
        let exact = |ratio| Ratio { ratio, low: Some(ratio), high: Some(ratio) };
        assert_eq!(ratios, [exact(1.5), exact(0.5)]);
        assert!(report.others[1].name.ends_with("series.json: 8"));
        let text = report.to_string();
        assert!(text.contains("1.500 [1.500 1.500]") && !text.contains("no interval"), "{text}");
        // A series by itself is compared with its first value.
        let alone = compare(&paths[1..]).unwrap();
        assert!((alone.others[0].throughput.unwrap().ratio - 1.0 / 3.0).abs() < 1e-9);
    }

    #[test]
    fn what_cannot_be_compared_is_told() {
        let newer = NEW.replacen("\"format\": 3", "\"format\": 99", 1);
        let fault = include_str!("../../tests/fixtures/fault-report.json");
        let directory = directory_with(&[
            ("newer.json", &newer),
            ("fault.json", fault),
            ("nonsense.json", "nonsense"),
            ("idle.json", r#"{ "format": 3, "kind": "idle" }"#),
            ("one.json", NEW),
        ]);
        for (name, text) in [
            ("newer.json", "take a newer one"),
            ("fault.json", "one thing only"),
            ("idle.json", "its kind is idle"),
            ("nonsense.json", "no report of hybster-bench"),
            ("one.json", "one thing only"),
            ("missing.json", "cannot read"),
        ] {
            let error = compare(&[directory.path().join(name)]).unwrap_err().to_string();
            assert!(error.contains(text) && error.contains(name), "{error}");
        }
    }

    #[test]
    fn rounds_of_faults_and_searches_are_compared() {
        let fault: Value =
            serde_json::from_str(include_str!("../../tests/fixtures/fault-report.json")).unwrap();
        let with_gap = |gap: f64| {
            let mut fault = fault.clone();
            let round = fault["rounds"][0].clone();
            fault["rounds"] = json!([round, round, round]);
            for round in fault["rounds"].as_array_mut().unwrap() {
                round["gap_ms"] = json!(gap);
            }
            fault.to_string()
        };
        let run: Value = serde_json::from_str(NEW).unwrap();
        let knee = |rate: f64| {
            json!({
                "format": 3, "kind": "knee", "objective": "p99<5ms", "rate_ops_s": rate,
                "bad_rate_ops_s": null, "interrupted": false, "closed_loop": null,
                "steps": [{ "rate_ops_s": rate, "good": true, "run": run }],
                "machine": run["machine"],
            })
            .to_string()
        };
        let directory = directory_with(&[
            ("a.json", &with_gap(200.0)),
            ("b.json", &with_gap(100.0)),
            ("c.json", &knee(1000.0)),
            ("d.json", &knee(1500.0)),
        ]);
        let path = |name: &str| directory.path().join(name);
        let faults = compare(&[path("a.json"), path("b.json")]).unwrap();
        let exact = |ratio| Some(Ratio { ratio, low: Some(ratio), high: Some(ratio) });
        assert_eq!((faults.of.as_str(), faults.base.runs), ("fault", 3));
        assert_eq!((faults.others[0].gap, faults.others[0].after), (exact(0.5), exact(1.0)));
        assert!(faults.others[0].differences.is_empty() && faults.to_string().contains("3 rounds"));
        let knees = compare(&[path("c.json"), path("d.json")]).unwrap();
        let ratio = knees.others[0].throughput.unwrap();
        assert_eq!((knees.of.as_str(), ratio.ratio, ratio.low), ("knee", 1.5, None));
        assert!(knees.to_string().contains("fewer than 3 searches"), "{knees}");
        let error = compare(&[path("a.json"), path("d.json")]).unwrap_err().to_string();
        assert!(error.contains("reports of one kind"), "{error}");
        let error = compare(&[directory.path().to_owned()]).unwrap_err().to_string();
        assert!(error.contains("reports of fault and of knee"), "{error}");
    }

    #[test]
    fn long_names_keep_their_ends() {
        assert_eq!(end_of("short", 20), "short");
        assert_eq!(end_of("/a/long/path/series.json: 8", 10), "…s.json: 8");
    }
}
