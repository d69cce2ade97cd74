//! `hybster-bench merge A B…`: one report of several load generators that loaded the same group at the same
//! time.
//!
//! Latencies are added, over the whole interval of each. Rates are those of the time that all measured
//! together, by the clocks of their machines, which must agree to a small part of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::Error;
use crate::load::latency_histogram;
use crate::report::{
    ConnectionReport, FORMAT, HistogramReport, LatencyPoint, LatencyUs, MergedReport,
    OpenLoopReport, RunReport, TimelineReport, Warning, rate_not_kept,
};

/// The common time is at least this share of the longest interval.
const COMMON: f64 = 0.5;

/// Merges report files.
///
/// # Errors
/// If one cannot be read, or they do not belong together; the text says which and why.
pub fn merge(paths: &[PathBuf]) -> Result<RunReport, Error> {
    let read = |path: &PathBuf| {
        let name = path.display().to_string();
        read(path).map(|run| (name.clone(), run)).map_err(|e| e.context(name))
    };
    let parts: Vec<(String, RunReport)> = paths.iter().map(read).collect::<Result<_, _>>()?;
    of_parts(&parts)
}

fn read(path: &Path) -> Result<RunReport, Error> {
    let text = std::fs::read(path).map_err(|e| Error::new(e.to_string()))?;
    let run: RunReport = serde_json::from_slice(&text)
        .map_err(|e| Error::new(format!("it is no report of `hybster-bench run`: {e}")))?;
    if run.format > FORMAT {
        let version = run.format;
        return Err(Error::new(format!(
            "its form is version {version}, and this program knows {FORMAT}: take a newer one"
        )));
    }
    Ok(run)
}

/// Merges reports, each with its name.
///
/// # Errors
/// If they do not belong together.
pub fn of_parts(parts: &[(String, RunReport)]) -> Result<RunReport, Error> {
    let [(_, first), _, ..] = parts else {
        return Err(Error::new("give two reports at least"));
    };
    let mut clients = BTreeSet::new();
    for (name, run) in parts {
        belongs(run, first, &mut clients).map_err(|e| e.context(name))?;
    }
    let common = Common::of(parts)?;
    let mut histogram = latency_histogram();
    for (name, run) in parts {
        let all = run.latency_histogram.as_ref();
        all.map_or(Ok(()), |all| all.add_to(&mut histogram)).map_err(|e| e.context(name))?;
    }
    let runs = || parts.iter().map(|(_, run)| run);
    let sum = |of: fn(&RunReport) -> u64| runs().map(of).sum::<u64>();
    let completed = common.timeline.iter().map(|count| u64::from(*count)).sum();
    let throughput_ops_s = completed as f64 / common.length_s();
    let open_loop = open_loop(parts);
    let most = |of: fn(&RunReport) -> f64| runs().map(of).fold(0.0, f64::max);
    let mut merged = RunReport {
        format: FORMAT,
        kind: "merged".into(),
        throughput_ops_s,
        completed,
        errors: sum(|run| run.errors),
        begin_unix_ms: common.begin,
        duration_s: common.length_s(),
        interrupted: runs().any(|run| run.interrupted),
        latency_us: LatencyUs::of(&histogram),
        latency_distribution: LatencyPoint::all(&histogram),
        latency_histogram: Some(HistogramReport::of(&histogram)),
        longest_gap_ms: common.longest_gap_ms(),
        // On one machine, all of them have seen the same.
        stolen_s: most(|run| run.stolen_s),
        cpu_s_per_mop: None,
        open_loop,
        load_busy: most(|run| run.load_busy),
        warnings: warnings(parts, open_loop, throughput_ops_s),
        connections: parts.iter().flat_map(|(_, run)| connections(run)).collect(),
        timeline: Some(TimelineReport { bucket_ms: common.bucket_ms, completed: common.timeline }),
        usage: None,
        stages: None,
        merged: parts.iter().map(|(name, run)| merged_report(name, run)).collect(),
        ..first.clone()
    };
    merged.errors_by_kind.clear();
    merged.processes.clear();
    for (name, run) in parts {
        for (kind, count) in &run.errors_by_kind {
            *merged.errors_by_kind.entry(kind.clone()).or_default() += count;
        }
        let processes = run.processes.iter().cloned();
        merged.processes.extend(processes.map(|mut process| {
            process.name = format!("{} of {name}", process.name);
            process
        }));
    }
    // The replicas count for all: who has asked them knows.
    merged.replicas =
        runs().map(|run| &run.replicas).max_by_key(|all| all.len()).cloned().unwrap_or_default();
    merged.config.clients = runs().map(|run| run.config.clients).sum();
    merged.config.connections = runs().map(|run| run.config.connections).sum();
    if let Some(target) = &mut merged.target {
        let all = runs().filter_map(|run| run.target.as_ref());
        target.first_client = all.map(|target| target.first_client).min().unwrap_or(0);
    }
    Ok(merged)
}

/// Fails if a report does not belong to the first; `clients` are those that others had.
fn belongs(run: &RunReport, first: &RunReport, clients: &mut BTreeSet<u32>) -> Result<(), Error> {
    let refuse = |why: String| Err(Error::new(why));
    if run.kind != "run" {
        return refuse(format!("its kind is {}; reports of run can be merged", run.kind));
    }
    let (Some(target), Some(of_first)) = (&run.target, &first.target) else {
        return refuse("it is older than `merge`, and lacks what to merge: measure again".into());
    };
    if target.group != of_first.group {
        return refuse(format!(
            "it is of group {}, and the first report of {}: reports of one group are merged",
            target.group, of_first.group
        ));
    }
    for client in (target.first_client..).take(run.config.connections as usize) {
        if !clients.insert(client) {
            return refuse(format!(
                "it has client {client}, as another report has: give each load generator clients of its own \
                 (--first-client), and each report once"
            ));
        }
    }
    let work = |run: &RunReport| {
        let load = run.config.load.as_ref();
        serde_json::json!({
            "service": run.config.service,
            "request size": run.config.request_size,
            "reply size": run.config.reply_size,
            "reads": run.config.read_percent,
            "workload": load.map(|load| &load.workload),
            "records": load.map(|load| &load.records),
            "arrivals": load.map(|load| &load.arrivals),
            "steps of its timeline": run.timeline.as_ref().map(|timeline| timeline.bucket_ms),
            "latencies": run.latency_histogram.is_some(),
        })
    };
    let (ours, theirs) = (work(run), work(first));
    let mut fields = ours.as_object().into_iter().flatten();
    match fields.find(|(name, value)| theirs[name.as_str()] != **value) {
        Some((name, value)) => {
            refuse(format!("its {name} is {value}, and the first report's {}", theirs[name]))
        }
        None => Ok(()),
    }
}

/// The time that all measured together.
struct Common {
    /// Milliseconds since 1970.
    begin: u64,
    bucket_ms: u64,
    /// Operations of all, in buckets from the begin on.
    timeline: Vec<u32>,
}

impl Common {
    fn of(parts: &[(String, RunReport)]) -> Result<Self, Error> {
        let runs = || parts.iter().map(|(_, run)| run);
        let length_ms = |run: &RunReport| (run.duration_s * 1e3) as u64;
        let begin = runs().map(|run| run.begin_unix_ms).max().unwrap_or(0);
        let end = runs().map(|run| run.begin_unix_ms + length_ms(run)).min().unwrap_or(0);
        let longest = runs().map(length_ms).max().unwrap_or(0);
        let bucket_ms = runs().filter_map(|run| run.timeline.as_ref()).map(|t| t.bucket_ms).next();
        let bucket_ms = bucket_ms.filter(|ms| *ms > 0);
        let bucket_ms = bucket_ms.ok_or_else(|| Error::new("the reports have no timeline"))?;
        let buckets = (end.saturating_sub(begin) / bucket_ms) as usize;
        if (buckets as u64 * bucket_ms) as f64 <= longest as f64 * COMMON {
            return Err(Error::new(format!(
                "they measured together for {:.1} s only, and one of them for {:.1} s: start all at the same \
                 time, on machines whose clocks agree",
                end.saturating_sub(begin) as f64 / 1e3,
                longest as f64 / 1e3
            )));
        }
        let mut timeline = vec![0; buckets];
        for run in runs() {
            let skipped = ((begin - run.begin_unix_ms) / bucket_ms) as usize;
            let own = run.timeline.iter().flat_map(|timeline| &timeline.completed).skip(skipped);
            timeline.iter_mut().zip(own).for_each(|(sum, count)| *sum += count);
        }
        Ok(Self { begin, bucket_ms, timeline })
    }

    fn length_s(&self) -> f64 {
        (self.timeline.len() as u64 * self.bucket_ms) as f64 / 1e3
    }

    /// In whole buckets.
    fn longest_gap_ms(&self) -> f64 {
        let gaps = self.timeline.split(|count| *count > 0).map(<[u32]>::len);
        (gaps.max().unwrap_or(0) as u64 * self.bucket_ms) as f64
    }
}

/// What all were asked for together.
fn open_loop(parts: &[(String, RunReport)]) -> Option<OpenLoopReport> {
    let all = || parts.iter().filter_map(|(_, run)| run.open_loop);
    all().next()?;
    Some(OpenLoopReport {
        rate_ops_s: all().map(|open| open.rate_ops_s).sum(),
        unfinished: all().map(|open| open.unfinished).sum(),
        due: all().map(|open| open.due).sum(),
        never_sent: all().map(|open| open.never_sent).sum(),
        kept_up: all().all(|open| open.kept_up),
    })
}

/// Those of each, with its name; of the rate, one.
fn warnings(
    parts: &[(String, RunReport)],
    open_loop: Option<OpenLoopReport>,
    throughput_ops_s: f64,
) -> Vec<Warning> {
    let rate = open_loop.and_then(|open| rate_not_kept(open, throughput_ops_s));
    let rate = rate.map(|text| Warning { kind: "rate-not-kept".into(), text });
    let of_parts = parts.iter().flat_map(|(name, run)| {
        let others = run.warnings.iter().filter(|warning| warning.kind != "rate-not-kept");
        others.map(move |warning| {
            let text = format!("{name}: {}", warning.text);
            Warning { kind: warning.kind.clone(), text }
        })
    });
    rate.into_iter().chain(of_parts).collect()
}

/// Under the numbers of their clients, which differ.
fn connections(run: &RunReport) -> Vec<ConnectionReport> {
    let first = run.target.as_ref().map_or(0, |target| target.first_client);
    let numbered = |connection: &ConnectionReport| ConnectionReport {
        connection: first + connection.connection,
        ..connection.clone()
    };
    if run.connections.is_empty() {
        return vec![ConnectionReport {
            connection: first,
            clients: run.config.clients,
            completed: run.completed,
            latency_us: run.latency_us,
        }];
    }
    run.connections.iter().map(numbered).collect()
}

fn merged_report(name: &str, run: &RunReport) -> MergedReport {
    MergedReport {
        name: name.to_owned(),
        begin_unix_ms: run.begin_unix_ms,
        duration_s: run.duration_s,
        completed: run.completed,
        machine: run.machine.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second, with an operation in each hundredth that took so long.
    fn part(name: &str, first_client: u32, begin: u64, latency_ns: u64) -> (String, RunReport) {
        let text = include_str!("../tests/fixtures/run-report.json");
        let mut run: RunReport = serde_json::from_str(text).expect("the fixture is a report");
        let mut histogram = latency_histogram();
        histogram.record_n(latency_ns, 100).unwrap();
        run.latency_histogram = Some(HistogramReport::of(&histogram));
        run.begin_unix_ms = begin;
        run.duration_s = 1.0;
        run.completed = 100;
        run.timeline = Some(TimelineReport { bucket_ms: 10, completed: vec![1; 100] });
        run.target.as_mut().unwrap().first_client = first_client;
        (name.to_owned(), run)
    }

    fn complaint(parts: &[(String, RunReport)]) -> String {
        of_parts(parts).unwrap_err().to_string()
    }

    #[test]
    fn latencies_are_added_and_rates_over_the_common_time() {
        // The second began 200 ms later.
        let mut parts = [part("a", 0, 5_000, 1_000_000), part("b", 2, 5_200, 9_000_000)];
        parts[1].1.timeline.as_mut().unwrap().completed[10..13].fill(0);
        parts[0].1.timeline.as_mut().unwrap().completed[30..32].fill(0);
        let merged = of_parts(&parts).unwrap();
        assert_eq!((merged.begin_unix_ms, merged.duration_s), (5_200, 0.8));
        assert_eq!(merged.completed, 2 * 80 - 3 - 2);
        assert!((merged.throughput_ops_s - 155.0 / 0.8).abs() < 1e-9);
        // Both were silent in two of these hundredths.
        assert_eq!(merged.longest_gap_ms, 20.0);
        let latency = merged.latency_us.unwrap();
        assert!((latency.p50 - 1e3).abs() < 1.0 && (latency.p99 - 9e3).abs() < 9.0, "{latency:?}");
        let all = merged.latency_histogram.as_ref().unwrap();
        assert_eq!(all.count, [100, 100]);
        assert_eq!((merged.errors, merged.errors_by_kind["overloaded"]), (6, 4));
        assert_eq!((merged.config.clients, merged.config.connections), (4096, 4));
        let open = merged.open_loop.unwrap();
        assert_eq!((open.rate_ops_s, open.due, open.kept_up), (900_000.0, 9_000_000, false));
        let numbers: Vec<u32> = merged.connections.iter().map(|c| c.connection).collect();
        assert_eq!(numbers, [0, 1, 2, 3]);
        let kinds: Vec<_> = merged.warnings.iter().map(|warning| warning.kind.as_str()).collect();
        assert_eq!(kinds, ["rate-not-kept", "load-generator", "load-generator"]);
        let names: Vec<_> = merged.processes.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["replica 0 of a", "load of a", "replica 0 of b", "load of b"]);
        assert!(merged.to_string().contains("b: 100 in 1.0 s"));
    }

    #[test]
    fn what_does_not_belong_together_is_refused() {
        let parts = [part("a", 0, 5_000, 1), part("b", 2, 5_000, 1)];
        assert!(of_parts(&parts).is_ok());
        assert!(complaint(&parts[..1]).contains("two reports"));
        let change = |change: fn(&mut RunReport)| {
            let mut parts = parts.clone();
            change(&mut parts[1].1);
            complaint(&parts)
        };
        for (complaint, text) in [
            (change(|run| run.target.as_mut().unwrap().group.push('0')), "b: it is of group"),
            (change(|run| run.target.as_mut().unwrap().first_client = 1), "b: it has client 1,"),
            (change(|run| run.target = None), "older than `merge`"),
            (change(|run| run.kind = "unreplicated".into()), "its kind is unreplicated"),
            (change(|run| run.config.request_size = 7), "its request size is 7, and the first"),
            (
                change(|run| run.config.load.as_mut().unwrap().arrivals = "closed".into()),
                "arrivals",
            ),
            (change(|run| run.latency_histogram = None), "its latencies is false"),
            (change(|run| run.begin_unix_ms += 600), "together for 0.4 s only"),
            (change(|run| run.begin_unix_ms += 60_000), "together for 0.0 s only"),
            (change(|run| run.begin_unix_ms += 60_000_000), "together for 0.0 s only"),
        ] {
            assert!(complaint.contains(text), "{text}: {complaint}");
        }
    }

    #[test]
    fn a_file_that_is_no_report_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("nonsense.json");
        std::fs::write(&file, "{}").unwrap();
        for path in [file, directory.path().join("missing.json")] {
            let error = merge(&[path.clone(), path.clone()]).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
        }
    }
}
