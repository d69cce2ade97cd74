//! `--report DIR`: a directory with a page to look at, and the figures as files for other programs.
//!
//! `report.html` is one file that needs no network and opens from the disk, `report.json` is the report as
//! `--json` writes it, and each plot is there as SVG and its figures as CSV; `latency.hgrm` is what the plotter of
//! HdrHistogram reads.

mod html;
mod plot;
mod stages;
mod usage;

use std::fmt::{Display, Write as _};
use std::path::Path;

use serde::Serialize;

use crate::Error;
use crate::knee::KneeReport;
use crate::report::{RunReport, Verdict, count, micros, plural, write_json, write_text};
use crate::sweep::SweepReport;
use plot::{Drawing, Line, Plot};

/// Most points of a line over time: more would not be seen.
const MOST_POINTS: usize = 1200;

/// What a page shows.
pub struct Page {
    title: String,
    /// Names and values, the most important first.
    figures: Vec<(String, String)>,
    verdict: Verdict,
    /// What else may have decided the figures.
    warnings: Vec<String>,
    plots: Vec<Plot>,
    /// Further files, with their names.
    files: Vec<(String, String)>,
    /// The report for the terminal.
    text: String,
}

impl Page {
    /// Of a run.
    ///
    /// # Errors
    /// If a plot cannot be drawn.
    pub fn of_run(run: &RunReport) -> Result<Self, Error> {
        let config = &run.config;
        let what = if config.unreplicated { "one server".into() } else { config.protocol.clone() };
        let mut figures = vec![("throughput, operations/s".into(), whole(run.throughput_ops_s))];
        if let Some(latency) = &run.latency_us {
            figures.push(("latency p50".into(), micros(latency.p50)));
            figures.push(("latency p99".into(), micros(latency.p99)));
            figures.push(("latency max".into(), micros(latency.max)));
        }
        figures.push(("longest gap".into(), micros(run.longest_gap_ms * 1e3)));
        figures.push(("completed".into(), count(run.completed)));
        figures.push(("errors".into(), count(run.errors)));
        if let Some(cpu) = run.cpu_s_per_mop {
            figures.push(("CPU per million operations".into(), format!("{cpu:.2} s")));
        }
        let mut plots = Vec::new();
        let mut files = Vec::new();
        if let Some(timeline) = &run.timeline {
            plots.push(throughput(run, &timeline.completed, timeline.bucket_ms)?);
            files.push((
                "throughput.csv".into(),
                throughput_csv(&timeline.completed, timeline.bucket_ms),
            ));
        }
        if !run.latency_distribution.is_empty() {
            plots.push(latency(run)?);
            files.push(("latency.hgrm".into(), hgrm(run)));
        }
        if let Some(stages) = &run.stages {
            plots.extend(stages::plot(stages)?);
            files.push(("stages.csv".into(), stages.csv()));
        }
        if let Some(usage) = run.usage.as_ref().filter(|usage| !usage.at_s.is_empty()) {
            plots.extend(usage::plots(run, usage)?);
            files.push(("usage.csv".into(), usage.csv()));
        }
        Ok(Self {
            title: format!(
                "{what}: {} service, {} clients",
                config.service,
                count(config.clients.into())
            ),
            figures,
            warnings: warnings(run),
            verdict: run.verdict(),
            plots,
            files,
            text: run.to_string(),
        })
    }

    /// Of a series.
    ///
    /// # Errors
    /// If a plot cannot be drawn.
    pub fn of_sweep(sweep: &SweepReport) -> Result<Self, Error> {
        let mut points = Vec::new();
        for point in &sweep.points {
            if let (Some(p50), Some(p99)) = (point.latency_p50_us, point.latency_p99_us) {
                points.push((point.throughput_ops_s.median, p50.median, p99.median));
            }
        }
        let over = &sweep.over;
        let title = format!(
            "Series over {over}: {} values, {} each",
            sweep.points.len(),
            plural(sweep.repeat.into(), "run")
        );
        let best = sweep.points.iter().map(|p| p.throughput_ops_s.median).fold(0.0, f64::max);
        let figures = vec![
            ("highest throughput, operations/s".into(), whole(best)),
            ("values".into(), count(sweep.points.len() as u64)),
        ];
        // Of other options the points are not those of one curve.
        let plots = if points.len() > 1 && ["rate", "clients"].contains(&over.as_str()) {
            vec![curve(&format!("one point per {over}"), points)?]
        } else {
            Vec::new()
        };
        let files = vec![("series.csv".into(), sweep.csv())];
        let warnings = sweep.points.iter().flat_map(|point| &point.runs).flat_map(warnings);
        Ok(Self {
            title,
            figures,
            warnings: once_each(warnings),
            verdict: sweep.verdict(),
            plots,
            files,
            text: sweep.to_string(),
        })
    }

    /// Of a search for the knee.
    ///
    /// # Errors
    /// If a plot cannot be drawn.
    pub fn of_knee(knee: &KneeReport) -> Result<Self, Error> {
        let mut points = Vec::new();
        for step in &knee.steps {
            if let Some(latency) = &step.run.latency_us {
                points.push((step.run.throughput_ops_s, latency.p50, latency.p99));
            }
        }
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let rate = |rate: Option<f64>| rate.map_or("none".into(), whole);
        let figures = vec![
            ("holds at, operations/s".into(), rate(knee.rate_ops_s)),
            ("no more at, operations/s".into(), rate(knee.bad_rate_ops_s)),
            ("steps".into(), count(knee.steps.len() as u64)),
        ];
        let plots =
            if points.len() > 1 { vec![curve("one point per step", points)?] } else { Vec::new() };
        Ok(Self {
            title: format!("Highest rate with {}", knee.objective),
            figures,
            warnings: once_each(knee.steps.iter().flat_map(|step| warnings(&step.run))),
            verdict: knee.verdict(),
            plots,
            files: Vec::new(),
            text: knee.to_string(),
        })
    }

    /// Writes the directory, which is made if it is not there. `report` is what `report.json` has.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(
        &self,
        directory: &Path,
        report: &(impl Display + Serialize),
    ) -> Result<(), Error> {
        std::fs::create_dir_all(directory).map_err(|e| {
            let path = directory.display();
            Error::new(format!("cannot make {path}: {e}; give --report another directory"))
        })?;
        write_json(&directory.join("report.json"), report)?;
        for plot in &self.plots {
            let file = directory.join(format!("{}.svg", plot.name));
            write_text(&file, &plot::fixed(&plot.wide))?;
        }
        for (name, text) in &self.files {
            write_text(&directory.join(name), text)?;
        }
        write_text(&directory.join("report.html"), &html::page(self))
    }
}

/// What else may have decided the figures of a run; that its rate was not kept is in its verdict.
fn warnings(run: &RunReport) -> Vec<String> {
    let others = run.warnings.iter().filter(|warning| warning.kind != "rate-not-kept");
    others.map(|warning| warning.text.clone()).collect()
}

/// Each text once: the runs of a series have much the same warnings.
fn once_each(warnings: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = warnings.collect();
    all.sort();
    all.dedup();
    all
}

fn whole(value: f64) -> String {
    count(value.round() as u64)
}

fn throughput(run: &RunReport, completed: &[u32], bucket_ms: u64) -> Result<Plot, Error> {
    // Several buckets make one point if there are too many.
    let together = completed.len().div_ceil(MOST_POINTS).max(1);
    let width_s = (together as u64 * bucket_ms) as f64 / 1e3;
    let point = |(number, buckets): (usize, &[u32])| {
        let sum: u64 = buckets.iter().map(|count| u64::from(*count)).sum();
        let seconds = buckets.len() as f64 * bucket_ms as f64 / 1e3;
        ((number as f64 + 0.5) * width_s, sum as f64 / seconds)
    };
    let points: Vec<(f64, f64)> = completed.chunks(together).enumerate().map(point).collect();
    let events: Vec<(f64, String)> =
        run.events.iter().map(|event| (event.at_s, event.event.clone())).collect();
    let happened = match events.len() {
        0 => String::new(),
        1 => ", with an event as a vertical line".into(),
        n => format!(", with {n} events as vertical lines"),
    };
    let mut lines = vec![Line { name: "throughput".into(), points, is_marked: false }];
    if let Some(ramp) = run.config.load.as_ref().and_then(|load| load.ramp) {
        // The interval may have been cut short; the rate would have been reached at its planned end.
        let share = |s: f64| ramp.from_ops_s + (ramp.to_ops_s - ramp.from_ops_s) * s;
        let points = vec![(0.0, share(0.0)), (run.duration_s, share(1.0))];
        lines.push(Line { name: "asked for".into(), points, is_marked: false });
    }
    Drawing {
        name: "throughput",
        title: "Throughput over time".into(),
        description: format!(
            "Operations per second in steps of {} ms (more on a narrow screen) over {:.1} s{happened}. On \
             average {} operations per second.",
            width_s * 1e3,
            run.duration_s,
            whole(run.throughput_ops_s)
        ),
        x_title: "seconds",
        y_title: "operations/s",
        x_label: &|x| format!("{}", (x * 100.0).round() / 100.0),
        y_label: &short,
        lines,
        bars: Vec::new(),
        events,
        x_range: Some((0.0, run.duration_s.max(0.01))),
    }
    .draw()
}

/// A time in few letters: 200 us, 5 ms, 1.5 s.
fn time_label(us: f64) -> String {
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    match us {
        0.0 => "0".into(),
        1e6.. => format!("{} s", rounded(us / 1e6)),
        1e3.. => format!("{} ms", rounded(us / 1e3)),
        _ => format!("{} us", rounded(us)),
    }
}

/// A number in few letters: 1.5 M, 20 k.
fn short(value: f64) -> String {
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    match value {
        1e6.. => format!("{} M", rounded(value / 1e6)),
        1e3.. => format!("{} k", rounded(value / 1e3)),
        _ => format!("{}", rounded(value)),
    }
}

fn throughput_csv(completed: &[u32], bucket_ms: u64) -> String {
    let mut text = "from_ms,completed\n".to_owned();
    for (number, count) in completed.iter().enumerate() {
        let _ = writeln!(text, "{},{count}", number as u64 * bucket_ms);
    }
    text
}

/// Percentiles on the usual axis: each step to the right has a tenth of the operations left.
fn latency(run: &RunReport) -> Result<Plot, Error> {
    let place = |quantile: f64| (1.0 / (1.0 - quantile)).log10();
    let points: Vec<(f64, f64)> = run
        .latency_distribution
        .iter()
        .filter(|point| point.quantile < 1.0)
        .map(|point| (place(point.quantile), point.latency_us))
        .collect();
    let last = points.last().map_or(1.0, |(x, _)| x.ceil().max(1.0));
    let figures = run.latency_us.map_or(String::new(), |l| {
        format!(": p50 {}, p99 {}, p99.9 {}", micros(l.p50), micros(l.p99), micros(l.p999))
    });
    Drawing {
        name: "latency",
        title: "Latency by percentile".into(),
        description: format!(
            "Latency of operations by percentile, on a logarithmic axis{figures}."
        ),
        x_title: "percentile",
        y_title: "latency",
        x_label: &percentile_label,
        y_label: &time_label,
        lines: vec![Line { name: "latency".into(), points, is_marked: false }],
        bars: Vec::new(),
        events: Vec::new(),
        x_range: Some((0.0, last)),
    }
    .draw()
}

/// `99.9 %` at 3; nothing in between, where no round percentile is.
fn percentile_label(place: f64) -> String {
    let nines = place.round();
    if (place - nines).abs() > 1e-6 || nines < 0.0 {
        return String::new();
    }
    match nines as usize {
        0 => "0 %".into(),
        1 => "90 %".into(),
        2 => "99 %".into(),
        n => format!("99.{} %", "9".repeat(n - 2)),
    }
}

/// The distribution as HdrHistogram's own tools write it, in milliseconds.
fn hgrm(run: &RunReport) -> String {
    let mut text = "       Value     Percentile TotalCount 1/(1-Percentile)\n\n".to_owned();
    for point in &run.latency_distribution {
        let (ms, quantile, count) = (point.latency_us / 1e3, point.quantile, point.count);
        let _ = write!(text, "{ms:12.3} {quantile:2.12} {count:10}");
        let _ = if quantile < 1.0 {
            writeln!(text, " {:14.2}", 1.0 / (1.0 - quantile))
        } else {
            writeln!(text)
        };
    }
    if let (Some(latency), Some(last)) = (&run.latency_us, run.latency_distribution.last()) {
        let (mean, max) = (latency.mean / 1e3, latency.max / 1e3);
        let _ = writeln!(text, "#[Mean    = {mean:12.3}]");
        let _ = writeln!(text, "#[Max     = {max:12.3}, Total count    = {:12}]", last.count);
    }
    text
}

/// Latency over throughput.
fn curve(what: &str, points: Vec<(f64, f64, f64)>) -> Result<Plot, Error> {
    let line = |name: &str, of: fn(&(f64, f64, f64)) -> f64| Line {
        name: name.into(),
        points: points.iter().map(|point| (point.0, of(point))).collect(),
        is_marked: true,
    };
    let lines = vec![line("p50", |point| point.1), line("p99", |point| point.2)];
    let most = points.iter().map(|point| point.0).fold(0.0, f64::max);
    Drawing {
        name: "curve",
        title: "Latency over throughput".into(),
        description: format!(
            "Median and 99th percentile of the latency over the throughput, {what}, up to {} operations \
             per second.",
            whole(most)
        ),
        x_title: "operations/s",
        y_title: "latency",
        x_label: &short,
        y_label: &time_label,
        lines,
        bars: Vec::new(),
        events: Vec::new(),
        x_range: Some((0.0, most.max(1.0) * 1.02)),
    }
    .draw()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run() -> RunReport {
        let text = include_str!("../../tests/fixtures/run-report.json");
        serde_json::from_str(text).expect("the fixture is a report")
    }

    #[test]
    fn a_directory_has_the_page_and_the_figures() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new");
        Page::of_run(&run()).unwrap().write(&path, &run()).unwrap();
        let read = |name: &str| std::fs::read_to_string(path.join(name)).unwrap();
        assert_eq!(serde_json::from_str::<RunReport>(&read("report.json")).unwrap(), run());
        assert_eq!(read("throughput.csv"), "from_ms,completed\n0,4120\n10,0\n20,4130\n");
        assert!(
            read("latency.hgrm").contains("       9.000 0.990000000000    4082221         100.00")
        );
        assert_eq!(read("usage.csv").lines().count(), 1 + 3 * 2);
        assert!(read("stages.svg").contains("<rect"));
        assert!(read("stages.csv").contains("from p99,10,quorum,900\n"));
        for name in ["throughput.svg", "latency.svg", "cpu.svg", "memory.svg"] {
            let svg = read(name);
            assert!(svg.starts_with("<svg ") && svg.contains("<polyline"), "{svg}");
            assert!(!svg.contains("var(--") && !svg.contains("#0101"), "a colour has no value");
        }
        let page = read("report.html");
        for part in [
            "Throughput over time",
            "Where latency went",
            "spent most of it, 90 %, with: between replicas",
            "kill-leader",
            "the rate was not kept",
            "99.9 %",
            "On average: replica 0 0.55, load 0.43.",
            "the load generator was the bottleneck",
        ] {
            assert!(page.contains(part), "{part} is missing");
        }
        for outside in ["http://", "https://", "<link", "src=", "@import"] {
            let page = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(outside), "the page needs {outside}");
        }
        // A plot has two sizes, a label for whoever cannot see it, and no colour without a value.
        assert_eq!(page.matches("role=\"img\" aria-label=").count(), 5);
        assert_eq!(page.matches("<svg ").count(), 10);
        assert_eq!(page.matches("the rate was not kept").count(), 1);
        for n in 1..=9 {
            assert!(!page.contains(&format!("#0{n}0{n}0{n}")));
        }
    }

    #[test]
    fn percentiles_have_round_labels_only() {
        let labels: Vec<_> = [0.0, 0.5, 1.0, 2.0, 3.0, 4.0].map(percentile_label).into();
        assert_eq!(labels, ["0 %", "", "90 %", "99 %", "99.9 %", "99.99 %"]);
        assert_eq!([0.0, 20_000.0, 1.5e6].map(short), ["0", "20 k", "1.5 M"]);
        assert_eq!([0.0, 200.0, 5e3, 1.5e6].map(time_label), ["0", "200 us", "5 ms", "1.5 s"]);
    }

    #[test]
    fn a_long_run_is_drawn_with_fewer_points() {
        let plot = throughput(&run(), &vec![5; 360_000], 10).unwrap();
        assert!(plot.wide.len() < 100_000 && plot.description.contains("steps of 3000 ms"));
        assert!(throughput(&run(), &[], 10).is_ok());
    }

    #[test]
    fn what_cannot_be_written_names_the_directory() {
        let page = Page::of_run(&run()).unwrap();
        let error = page.write(Path::new("/dev/null/report"), &run()).unwrap_err().to_string();
        assert!(error.contains("/dev/null/report"), "{error}");
    }
}
