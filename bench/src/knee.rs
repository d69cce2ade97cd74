//! `hybster-bench run --find-knee "p99<5ms"`: the highest rate at which a condition holds.
//!
//! Each step is an open loop with a fresh group. A rate is good if the group keeps up with it, no operation
//! fails, and the condition holds. The search goes up by steps until a rate is not good, then halves the
//! distance between the highest good and the lowest bad one. It is a search on a real machine: whether a
//! rate near the knee is good is partly chance, so every step is in the report.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::machine::Machine;
use crate::options::{Measure, Objective, RunOptions};
use crate::report::{FORMAT, LatencyUs, RunReport, Verdict, count, machine_line, micros};
use crate::stop::Stop;

/// The first rates, in percent of what a closed loop reaches.
const FIRST_PERCENT: [f64; 7] = [10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 120.0];
/// From a first rate that was given, each step doubles it, so often at most.
const MOST_DOUBLINGS: u32 = 20;
/// If the first rate is bad already, it is halved so often at most.
const MOST_HALVINGS: u32 = 8;
/// The search ends when the lowest bad rate is at most this much above the highest good one.
const CLOSE: f64 = 1.05;

/// The report of the search.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KneeReport {
    /// Version of this form.
    pub format: u32,
    /// `knee`.
    pub kind: String,
    /// What must hold, such as `p99<5ms`.
    pub objective: String,
    /// The highest rate that was good; absent if none was.
    pub rate_ops_s: Option<f64>,
    /// The lowest rate above it that was not good; absent if all were.
    pub bad_rate_ops_s: Option<f64>,
    /// Whether the user ended it early.
    pub interrupted: bool,
    /// What a closed loop with the same clients reached; absent if the first rate was given.
    pub closed_loop: Option<RunReport>,
    /// The steps, in the order in which they were measured.
    pub steps: Vec<KneeStep>,
    /// The machine it ran on.
    pub machine: Machine,
}

/// One rate that was tried.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct KneeStep {
    /// The rate.
    pub rate_ops_s: f64,
    /// Whether it was good.
    pub good: bool,
    /// The measurement.
    pub run: RunReport,
}

/// Looks for the highest good rate.
///
/// # Errors
/// If a run fails, or the user interrupts the first one.
pub fn find_knee(
    options: &RunOptions,
    objective: Objective,
    stop: &Stop,
) -> Result<KneeReport, Error> {
    let mut closed_loop = None;
    let first: Vec<f64> = match options.load.rate {
        Some(rate) => (0..MOST_DOUBLINGS).map(|n| rate * f64::from(1 << n)).collect(),
        None => {
            let report = crate::run(options, stop)?;
            if report.interrupted {
                return Err(Error::interrupted());
            }
            let most = report.throughput_ops_s;
            eprintln!("closed loop: {} operations/s", count(most.round() as u64));
            closed_loop = Some(report);
            FIRST_PERCENT.iter().map(|percent| (most * percent / 100.0).max(1.0)).collect()
        }
    };
    let mut steps: Vec<KneeStep> = Vec::new();
    let (good, bad) = search(&first, |rate| {
        let mut options = options.clone();
        options.load.rate = Some(rate);
        let run = match crate::run(&options, stop) {
            // The steps so far are worth a report.
            Err(e) if e.is_interrupted() => return Ok(None),
            Ok(run) if run.interrupted => return Ok(None),
            run => run.map_err(|e| e.context(format!("rate {rate:.0}")))?,
        };
        let good = is_good(&run, objective);
        let step = KneeStep { rate_ops_s: rate, good, run };
        eprintln!("{}", step.line(objective));
        steps.push(step);
        Ok(Some(good))
    })?;
    if stop.is_raised() && steps.is_empty() {
        return Err(Error::interrupted());
    }
    Ok(KneeReport {
        format: FORMAT,
        kind: "knee".into(),
        objective: objective.to_string(),
        rate_ops_s: good,
        bad_rate_ops_s: bad,
        interrupted: stop.is_raised(),
        closed_loop,
        steps,
        machine: Machine::here(),
    })
}

/// The highest good and the lowest bad rate. `try_rate` tells whether a rate is good, or `None` to end.
fn search(
    first: &[f64],
    mut try_rate: impl FnMut(f64) -> Result<Option<bool>, Error>,
) -> Result<(Option<f64>, Option<f64>), Error> {
    let (mut good, mut bad): (Option<f64>, Option<f64>) = (None, None);
    for rate in first.iter().copied().filter(|rate| *rate <= 1e9) {
        match try_rate(rate)? {
            Some(true) => good = Some(rate),
            Some(false) => {
                bad = Some(rate);
                break;
            }
            None => return Ok((good, bad)),
        }
    }
    let mut halvings = 0;
    while let Some(high) = bad {
        let rate = match good {
            Some(low) if high <= low * CLOSE => break,
            Some(low) => (low + high) / 2.0,
            None if halvings < MOST_HALVINGS && high >= 2.0 => high / 2.0,
            None => break,
        };
        halvings += u32::from(good.is_none());
        match try_rate(rate)? {
            Some(true) => good = Some(rate),
            Some(false) => bad = Some(rate),
            None => break,
        }
    }
    Ok((good, bad))
}

fn is_good(run: &RunReport, objective: Objective) -> bool {
    let below_us = objective.below.as_secs_f64() * 1e6;
    run.verdict().complaints.is_empty()
        && run.latency_us.is_some_and(|latency| figure(&latency, objective.measure) < below_us)
}

fn figure(latency: &LatencyUs, measure: Measure) -> f64 {
    match measure {
        Measure::P50 => latency.p50,
        Measure::P90 => latency.p90,
        Measure::P99 => latency.p99,
        Measure::P999 => latency.p999,
        Measure::Mean => latency.mean,
        Measure::Max => latency.max,
    }
}

impl KneeStep {
    fn line(&self, objective: Objective) -> String {
        let name = objective.measure.name();
        let latency = self.run.latency_us.map(|latency| figure(&latency, objective.measure));
        format!(
            "rate {:>9}: {:>9} operations/s, {name} {}, {}",
            count(self.rate_ops_s.round() as u64),
            count(self.run.throughput_ops_s.round() as u64),
            latency.map_or("n/a".into(), micros),
            if self.good { "good" } else { "not good" }
        )
    }
}

impl KneeReport {
    /// Whether a rate was found, and whether the user ended the search early.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let mut complaints = Vec::new();
        if self.rate_ops_s.is_none() {
            let objective = &self.objective;
            complaints.push(format!("{objective} held at no rate that was tried"));
        }
        Verdict { complaints, interrupted: self.interrupted }
    }
}

impl fmt::Display for KneeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |rate: f64| count(rate.round() as u64);
        match (self.rate_ops_s, self.bad_rate_ops_s) {
            (Some(good), Some(bad)) => writeln!(
                f,
                "{}: holds at {} operations/s, and no more at {}",
                self.objective,
                whole(good),
                whole(bad)
            )?,
            (Some(good), None) => writeln!(
                f,
                "{}: holds at every rate that was tried, up to {} operations/s",
                self.objective,
                whole(good)
            )?,
            (None, _) => writeln!(f, "{}: held at no rate that was tried", self.objective)?,
        }
        if self.interrupted {
            writeln!(f, "interrupted: these are the steps until then")?;
        }
        writeln!(
            f,
            "\n  {:>12} {:>12} {:>10} {:>10} {:>10} {:>8}  good",
            "rate", "operations/s", "p50", "p99", "max", "errors"
        )?;
        let mut steps: Vec<&KneeStep> = self.steps.iter().collect();
        steps.sort_by(|a, b| a.rate_ops_s.total_cmp(&b.rate_ops_s));
        for step in steps {
            let run = &step.run;
            let of = |of: fn(&LatencyUs) -> f64| {
                run.latency_us.as_ref().map_or("n/a".into(), |l| micros(of(l)))
            };
            writeln!(
                f,
                "  {:>12} {:>12} {:>10} {:>10} {:>10} {:>8}  {}",
                whole(step.rate_ops_s),
                whole(run.throughput_ops_s),
                of(|l| l.p50),
                of(|l| l.p99),
                of(|l| l.max),
                run.errors,
                if step.good { "yes" } else { "no" }
            )?;
        }
        writeln!(f)?;
        machine_line(f, &self.machine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The search over a group whose knee is here; with the rates that were tried.
    fn knee_at(knee: f64, first: &[f64]) -> (Option<f64>, Option<f64>, Vec<f64>) {
        let mut tried = Vec::new();
        let (good, bad) = search(first, |rate| {
            tried.push(rate);
            Ok(Some(rate <= knee))
        })
        .unwrap();
        (good, bad, tried)
    }

    #[test]
    fn the_knee_is_found_to_a_twentieth() {
        let first = [10.0, 20.0, 40.0, 80.0, 160.0];
        for knee in [11.0, 19.9, 47.0, 79.0, 130.0] {
            let (good, bad, tried) = knee_at(knee, &first);
            let (good, bad) = (good.unwrap(), bad.unwrap());
            assert!(good <= knee && knee < bad && bad <= good * CLOSE, "{good} {bad}");
            assert!(tried.len() <= 12, "{tried:?}");
        }
    }

    #[test]
    fn a_first_rate_that_is_bad_is_halved_and_a_search_has_an_end() {
        let (good, bad, _) = knee_at(3.0, &[10.0, 20.0]);
        assert!(good.unwrap() <= 3.0 && bad.unwrap() > 3.0);
        let (good, bad, tried) = knee_at(0.0, &[1000.0]);
        assert_eq!(good, None);
        assert!(bad.is_some() && tried.len() <= 1 + MOST_HALVINGS as usize);
        assert_eq!(knee_at(1e9, &[1.0, 2.0]).1, None);
    }

    #[test]
    fn who_interrupts_gets_what_was_found() {
        let mut left = 2;
        let found = search(&[1.0, 2.0, 4.0], |_| {
            left -= 1;
            Ok((left >= 0).then_some(true))
        });
        assert_eq!(found.unwrap(), (Some(2.0), None));
    }
}
