//! Plots of CPU time and memory over time.

use super::plot::{Drawing, Line, MOST_LINES, Plot};
use crate::Error;
use crate::launch::LOAD;
use crate::report::{ProcessUsage, RunReport, UsageReport, bytes};

/// CPU and memory, one line per process.
///
/// # Errors
/// If a plot cannot be drawn.
pub(super) fn plots(run: &RunReport, usage: &UsageReport) -> Result<[Plot; 2], Error> {
    let cpu = lines(usage, |process, number| process.cpu_cores[number].unwrap_or(0.0));
    let memory = lines(usage, |process, number| process.rss_bytes[number].unwrap_or(0) as f64);
    let cores = usage.processes.iter().map(|process| {
        let known: Vec<f64> = process.cpu_cores.iter().copied().flatten().collect();
        let mean = known.iter().sum::<f64>() / known.len().max(1) as f64;
        format!("{} {mean:.2}", process.name)
    });
    let most = usage.processes.iter().map(|process| {
        let most = process.rss_bytes.iter().copied().flatten().max();
        format!("{} {}", process.name, bytes(most.unwrap_or(0)))
    });
    let [cores, most] = [cores.collect::<Vec<_>>(), most.collect()].map(|all| all.join(", "));
    let draw = |name, title: &str, description, y_title, y_label: &dyn Fn(f64) -> String, lines| {
        Drawing {
            name,
            title: title.into(),
            description,
            x_title: "seconds",
            y_title,
            x_label: &|x| format!("{}", (x * 100.0).round() / 100.0),
            y_label,
            lines,
            bars: Vec::new(),
            events: run.events.iter().map(|event| (event.at_s, event.event.clone())).collect(),
            x_range: Some((0.0, run.duration_s.max(0.01))),
        }
        .draw()
    };
    Ok([
        draw(
            "cpu",
            "CPU over time",
            format!("Cores that each process used over time. On average: {cores}."),
            "cores",
            &|y| format!("{}", (y * 100.0).round() / 100.0),
            cpu,
        )?,
        draw(
            "memory",
            "Memory over time",
            format!("Resident memory of each process over time. At most: {most}."),
            "resident memory",
            &|y| bytes(y.max(0.0) as u64),
            memory,
        )?,
    ])
}

/// One line per process; if there are too many to be told apart, the last one is the mean of several replicas.
fn lines(usage: &UsageReport, of: impl Fn(&ProcessUsage, usize) -> f64) -> Vec<Line> {
    let (load, replicas): (Vec<_>, Vec<_>) =
        usage.processes.iter().partition(|process| process.name == LOAD);
    let room = MOST_LINES - load.len().min(1);
    let alone = if replicas.len() <= room { replicas.len() } else { room - 1 };
    let (alone, together) = replicas.split_at(alone);
    let line = |name: String, processes: &[&ProcessUsage]| {
        let at = |(number, at): (usize, &f64)| {
            let sum: f64 = processes.iter().map(|process| of(process, number)).sum();
            (*at, sum / processes.len() as f64)
        };
        let points = usage.at_s.iter().enumerate().map(at).collect();
        Line { name, points, is_marked: usage.at_s.len() == 1 }
    };
    let mut lines: Vec<Line> =
        alone.iter().chain(&load).map(|one| line(one.name.clone(), &[one])).collect();
    if !together.is_empty() {
        lines.push(line(format!("mean of {} more", together.len()), together));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(replicas: usize) -> UsageReport {
        let process = |name: String, cores| ProcessUsage {
            name,
            cpu_cores: vec![Some(cores), None],
            rss_bytes: vec![Some(1 << 20), None],
        };
        let replicas = (0..replicas).map(|number| process(format!("replica {number}"), 0.5));
        let processes = replicas.chain([process("load".into(), 1.0)]).collect();
        UsageReport { at_s: vec![0.1, 0.2], processes, threads: vec![] }
    }

    #[test]
    fn there_is_a_line_per_process_as_long_as_they_can_be_told_apart() {
        let names = |replicas| -> Vec<String> {
            let lines = lines(&usage(replicas), |process, at| process.cpu_cores[at].unwrap_or(0.0));
            // What does not run uses nothing.
            assert!(lines.iter().all(|line| line.points[1] == (0.2, 0.0)));
            lines.into_iter().map(|line| line.name).collect()
        };
        assert_eq!(names(3), ["replica 0", "replica 1", "replica 2", "load"]);
        assert_eq!(names(5).len(), 6);
        let many = names(7);
        assert_eq!(many.len(), 6);
        assert_eq!(many[3..], ["replica 3", "load", "mean of 3 more"]);
    }
}
