//! The report of a fault scenario.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::machine::Machine;
use crate::report::{
    Config, ProcessReport, Verdict, bytes, count, machine_line, plural, process_table,
};

/// The report of `hybster-bench fault`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FaultReport {
    /// Version of this form.
    pub format: u32,
    /// `kill-leader`, `pause-follower` or `restart`.
    pub kind: String,
    /// Longest times without a completion, over the rounds.
    pub gap_ms: Gaps,
    /// Acknowledged operations of all rounds.
    pub acknowledged: u64,
    /// Operations that failed or were never answered.
    pub errors: u64,
    /// Acknowledged increments that the counter lacks at the end. Absent if it is another service.
    pub lost: Option<u64>,
    /// Increments counted more than once. Absent if it is another service.
    pub doubled: Option<u64>,
    /// Whether the user ended it early: these are the rounds until then.
    #[serde(default)]
    pub interrupted: bool,
    /// Each round.
    pub rounds: Vec<Round>,
    /// The configuration of the measurement.
    pub config: Config,
    /// The machine it ran on.
    pub machine: Machine,
}

/// Gaps over the rounds; with n rounds the p99 is the ⌈0.99 n⌉-th smallest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gaps {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: f64,
}

/// One round with its own group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// The replica that was killed or paused.
    pub replica: u16,
    /// View before the fault.
    pub view_before: u64,
    /// Highest view at the end.
    pub view_after: u64,
    /// Longest time without a completion.
    pub gap_ms: f64,
    /// Longest latency of an operation.
    pub latency_max_ms: f64,
    /// Acknowledged operations.
    pub acknowledged: u64,
    /// Operations that failed or were never answered.
    pub errors: u64,
    /// Acknowledged increments that the counter lacks. Absent if it is another service.
    pub lost: Option<u64>,
    /// Increments counted more than once. Absent if it is another service.
    pub doubled: Option<u64>,
    /// Of an open loop: whether in the end every operation that was due had been sent and answered.
    #[serde(default)]
    pub kept_up: Option<bool>,
    /// Throughput before the fault, in the second half of that time.
    pub before_ops_s: f64,
    /// Throughput after it, once settled.
    pub after_ops_s: f64,
    /// Replicas that run and did not reach the others' state within 30 s after the load.
    pub diverged: Vec<u16>,
    /// Only for `pause-follower`.
    pub pause: Option<PauseRound>,
    /// Only for `restart`.
    #[serde(default)]
    pub restart: Option<RestartRound>,
    /// CPU since the start and memory at the end, per process that runs.
    pub processes: Vec<ProcessReport>,
}

/// Figures about a paused follower.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PauseRound {
    /// Length of the pause.
    pub paused_s: f64,
    /// Throughput during the pause.
    pub during_ops_s: f64,
    /// Order numbers that the leader had executed when the follower was resumed.
    pub orders_at_resume: u64,
    /// Whether it caught up under load.
    pub caught_up: bool,
    /// From SIGCONT until it had executed what the leader had just executed.
    pub catch_up_s: f64,
    /// Sum of all processes' peak memory before the pause.
    pub peak_before_bytes: u64,
    /// Sum of all processes' peak memory at the end.
    pub peak_bytes: u64,
}

/// Figures about replicas that were killed and started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RestartRound {
    /// Replicas that were started again.
    pub restarts: u64,
    /// How often all were killed together.
    pub of_all: u64,
}

impl Gaps {
    /// Over these rounds.
    #[must_use]
    pub fn of(rounds: &[Round]) -> Self {
        let mut gaps: Vec<f64> = rounds.iter().map(|r| r.gap_ms).collect();
        gaps.sort_by(f64::total_cmp);
        let at = |quantile: f64| {
            let rank = (quantile * gaps.len() as f64).ceil() as usize;
            gaps.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

impl Round {
    /// One line about the round.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!(
            "replica {}, view {} -> {}, gap {:.0} ms, {} acknowledged, {} errors, {}, \
             {} -> {} operations/s",
            self.replica,
            self.view_before,
            self.view_after,
            self.gap_ms,
            count(self.acknowledged),
            self.errors,
            fate(self.lost, self.doubled),
            count(self.before_ops_s as u64),
            count(self.after_ops_s as u64),
        );
        if let Some(restart) = &self.restart {
            line += &format!(
                "; {} started again, {} times all of them",
                plural(restart.restarts, "replica"),
                restart.of_all
            );
        }
        if let Some(pause) = &self.pause {
            let verdict = if pause.caught_up { "caught up after" } else { "NOT CAUGHT UP after" };
            line += &format!(
                "; paused {:.1} s ({} operations/s), {verdict} {:.2} s, peak memory {} -> {}",
                pause.paused_s,
                count(pause.during_ops_s as u64),
                pause.catch_up_s,
                bytes(pause.peak_before_bytes),
                bytes(pause.peak_bytes),
            );
        }
        if !self.diverged.is_empty() {
            line += &format!("; replicas {:?} DID NOT REACH the others' state", self.diverged);
        }
        line
    }

    fn is_clean(&self) -> bool {
        self.acknowledged > 0
            && self.errors == 0
            && self.lost.unwrap_or(0) == 0
            && self.doubled.unwrap_or(0) == 0
            && self.kept_up != Some(false)
            && self.after_ops_s > 0.0
            && self.diverged.is_empty()
            && self.pause.is_none_or(|p| p.caught_up)
    }
}

/// What became of operations, as far as the service shows it.
fn fate(lost: Option<u64>, doubled: Option<u64>) -> String {
    match (lost, doubled) {
        (Some(lost), Some(doubled)) => format!("{lost} lost, {doubled} doubled"),
        _ => "lost and doubled ones not counted (only the counter service shows them)".into(),
    }
}

impl FaultReport {
    /// Whether every promise was kept, and whether the user ended it early.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let broken = "not all promises were kept: see the rounds above";
        let complaints = if self.is_clean() { Vec::new() } else { vec![broken.to_owned()] };
        Verdict { complaints, interrupted: self.interrupted }
    }

    /// Whether every promise was kept: nothing was lost, repeated or failed, clients continued, and
    /// all running replicas reached the same state.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        !self.rounds.is_empty() && self.rounds.iter().all(Round::is_clean)
    }
}

impl fmt::Display for FaultReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.config;
        writeln!(
            f,
            "{}: {} service, {} replicas (f = {}), {}, {} clients, layout {}, {}",
            self.kind,
            config.service,
            config.replicas,
            config.faults,
            plural(config.pillars.into(), "pillar"),
            count(config.clients.into()),
            config.layout,
            plural(self.rounds.len() as u64, "round"),
        )?;
        let gap = &self.gap_ms;
        writeln!(
            f,
            "  gap          p50 {:.0} ms   p99 {:.0} ms   max {:.0} ms",
            gap.p50, gap.p99, gap.max
        )?;
        writeln!(
            f,
            "  operations   {} acknowledged, {}, {} errors",
            count(self.acknowledged),
            fate(self.lost, self.doubled),
            self.errors,
        )?;
        if self.interrupted {
            writeln!(f, "  interrupted  these are the rounds until then")?;
        }
        for (number, round) in self.rounds.iter().enumerate() {
            writeln!(f, "  round {:<6} {}", number + 1, round.line())?;
        }
        if let Some(round) = self.rounds.last() {
            writeln!(f)?;
            process_table(f, &round.processes)?;
        }
        writeln!(f)?;
        machine_line(f, &self.machine)?;
        let verdict = if self.is_clean() { "all promises kept" } else { "NOT ALL PROMISES KEPT" };
        writeln!(f, "  {verdict}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(gap_ms: f64) -> Round {
        Round {
            replica: 0,
            view_before: 0,
            view_after: 1,
            gap_ms,
            latency_max_ms: gap_ms,
            acknowledged: 10,
            errors: 0,
            lost: Some(0),
            doubled: Some(0),
            kept_up: None,
            before_ops_s: 1.0,
            after_ops_s: 1.0,
            diverged: vec![],
            pause: None,
            restart: None,
            processes: vec![],
        }
    }

    #[test]
    fn gaps_are_ranked() {
        let rounds: Vec<Round> = (1..=200).rev().map(|gap| round(gap.into())).collect();
        assert_eq!(Gaps::of(&rounds), Gaps { p50: 100.0, p99: 198.0, max: 200.0 });
        assert_eq!(Gaps::of(&rounds[..1]), Gaps { p50: 200.0, p99: 200.0, max: 200.0 });
        assert_eq!(Gaps::of(&[]), Gaps::default());
    }

    #[test]
    fn one_broken_promise_is_told() {
        assert!(round(1.0).is_clean());
        assert!(!Round { lost: Some(1), ..round(1.0) }.is_clean());
        assert!(!Round { doubled: Some(1), ..round(1.0) }.is_clean());
        assert!(!Round { kept_up: Some(false), ..round(1.0) }.is_clean());
        assert!(Round { lost: None, doubled: None, ..round(1.0) }.is_clean());
        assert!(!Round { diverged: vec![2], ..round(1.0) }.is_clean());
        assert!(!Round { after_ops_s: 0.0, ..round(1.0) }.is_clean());
    }
}
