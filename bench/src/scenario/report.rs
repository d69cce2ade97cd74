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
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RestartRound {
    /// Replicas that were started again.
    pub restarts: u64,
    /// How often all were killed together.
    pub of_all: u64,
    /// What the round was drawn from. Older reports lack it, and what follows.
    #[serde(default)]
    pub seed: u64,
    /// Logs with part of a batch behind their end.
    #[serde(default)]
    pub torn_tail: DiskEvents,
    /// Logs with another bit.
    #[serde(default)]
    pub damaged_log: DiskEvents,
    /// Data of an earlier time.
    #[serde(default)]
    pub older_copy: DiskEvents,
    /// Full disks.
    #[serde(default)]
    pub full_disk: DiskEvents,
    /// Why no disk was made full, though it was due.
    #[serde(default)]
    pub full_disk_left_out: Option<String>,
}

/// What happened to disks of replicas that were down, and what the replicas did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskEvents {
    /// How often it happened.
    pub done: u64,
    /// How often the replica did not start, or stopped, and said the right thing. On a full disk it need not.
    pub refused: u64,
    /// How often it came back: at once with a torn tail, else when its disk was right again.
    pub came_back: u64,
}

impl RestartRound {
    /// Whether replicas were refused that had to be, and each came back.
    fn is_clean(&self) -> bool {
        let Self { torn_tail, damaged_log, older_copy, full_disk, .. } = self;
        let all = [torn_tail, damaged_log, older_copy, full_disk];
        all.iter().all(|it| it.came_back == it.done)
            && [damaged_log, older_copy].iter().all(|it| it.refused == it.done)
            && torn_tail.refused == 0
    }

    fn line(&self) -> String {
        let Self { torn_tail, damaged_log, older_copy, full_disk, .. } = self;
        let replicas = plural(self.restarts, "replica");
        let mut line = format!("{replicas} started again, {} times all of them", self.of_all);
        for (name, events) in [
            ("torn tail", torn_tail),
            ("damaged log", damaged_log),
            ("older copy", older_copy),
            ("full disk", full_disk),
        ] {
            let DiskEvents { done, refused, came_back } = events;
            if *done > 0 {
                line += &format!(", {name} {done} ({refused} refused, {came_back} came back)");
            }
        }
        if let Some(why) = &self.full_disk_left_out {
            line += &format!(", full disk left out ({why})");
        }
        if !self.is_clean() {
            line += ", NOT ALL AS IT SHOULD BE";
        }
        line + &format!(", seed {}", self.seed)
    }
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
            line += &format!("; {}", restart.line());
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
            && self.restart.as_ref().is_none_or(RestartRound::is_clean)
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
        let restarted = |events: DiskEvents| {
            let restart = RestartRound { older_copy: events, ..RestartRound::default() };
            let round = Round { restart: Some(restart), ..round(1.0) };
            assert_eq!(round.line().contains("NOT ALL"), !round.is_clean());
            round.is_clean()
        };
        let events = DiskEvents { done: 2, refused: 2, came_back: 2 };
        assert!(restarted(events));
        assert!(!restarted(DiskEvents { refused: 1, ..events }));
        assert!(!restarted(DiskEvents { came_back: 1, ..events }));
    }
}
