//! The plot of where latency went.

use super::plot::{Drawing, Line, Plot};
use crate::Error;
use crate::report::StagesReport;

/// Stages that a plot shows as one, since more colours could not be told apart: its name, and theirs.
const PARTS: [(&str, &[&str]); 6] = [
    ("client, to the leader", &["client", "request"]),
    ("queues", &["intake", "queue", "order"]),
    ("checks", &["verify", "vote"]),
    ("logs", &["log", "follower-log", "reply-log"]),
    ("between replicas", &["proposal", "quorum"]),
    ("execution, reply", &["execute", "reply"]),
];

/// A bar for each band of latencies, made of what its requests spent their time with; none if no request was
/// followed to its end.
///
/// # Errors
/// If it cannot be drawn.
pub(super) fn plot(stages: &StagesReport) -> Result<Option<Plot>, Error> {
    if stages.bands.is_empty() {
        return Ok(None);
    }
    let share = |names: &[&str], band: usize| {
        let band = &stages.bands[band];
        let named = stages.stages.iter().zip(&band.stages_us);
        let sum: f64 =
            named.filter(|(s, _)| names.contains(&s.stage.as_str())).map(|(_, us)| us).sum();
        100.0 * sum / band.mean_us.max(1e-9)
    };
    let line = |(name, names): (&str, &[&str])| Line {
        name: name.into(),
        points: (0..stages.bands.len()).map(|band| (band as f64, share(names, band))).collect(),
        is_marked: false,
    };
    let most = PARTS.map(|(name, names)| (share(names, stages.bands.len() - 1), name));
    let (percent, name) = most.into_iter().fold((0.0, ""), |a, b| if b.0 > a.0 { b } else { a });
    let last = stages.bands.last().map_or("", |band| band.band.as_str());
    let bars = stages.bands.iter().map(|band| (below(&band.band), above(band.mean_us)));
    let drawing = Drawing {
        name: "stages",
        title: "Where latency went".into(),
        description: format!(
            "Parts of the latency, for requests by their latency, with the mean of each above it. The slowest \
             ({last}) spent most of it, {percent:.0} %, with: {name}."
        ),
        x_title: "latency of the requests",
        y_title: "part of it",
        x_label: &|_| String::new(),
        y_label: &|y| if y > 100.0 { String::new() } else { format!("{y:.0} %") },
        lines: PARTS.into_iter().map(line).collect(),
        bars: bars.collect(),
        events: Vec::new(),
        x_range: Some((-0.5, stages.bands.len() as f64 - 0.5)),
    };
    drawing.draw().map(Some)
}

/// A time in so few letters that five of them stand beside each other on a narrow screen.
fn above(us: f64) -> String {
    let (value, unit) = match us {
        1e6.. => (us / 1e6, "s"),
        1e3.. => (us / 1e3, "ms"),
        _ => (us, "us"),
    };
    if value < 10.0 { format!("{value:.1} {unit}") } else { format!("{value:.0} {unit}") }
}

/// The name of a band in few letters.
fn below(band: &str) -> String {
    match band.split_once("to ") {
        Some((_, end)) => format!("\u{2264} {end}"),
        None => band.replace("from ", "> "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stages::STAGES;

    #[test]
    fn every_stage_is_in_one_part() {
        let mut names: Vec<&str> = PARTS.iter().flat_map(|(_, names)| *names).copied().collect();
        let mut stages = STAGES.map(|(name, _)| name);
        names.sort_unstable();
        stages.sort_unstable();
        assert_eq!(names, stages);
    }

    #[test]
    fn bands_have_short_names() {
        let names = ["all", "to p50", "p90 to p99", "from p99"].map(below);
        assert_eq!(names, ["all", "\u{2264} p50", "\u{2264} p99", "> p99"]);
        assert!(plot(&StagesReport::default()).unwrap().is_none());
        assert_eq!([12.34, 9_876.0, 2e6].map(above), ["12 us", "9.9 ms", "2.0 s"]);
    }
}
