//! `hybster-bench sweep`: repeats a measurement with different values of one option.
//!
//! The values take turns, round by round, so that changes on the machine affect all of them alike.
//! The result for a value is the median of its runs, with the lowest and the highest.

mod report;

pub use report::{Point, Spread, SweepReport, write_csv};

use crate::Error;
use crate::machine::Machine;
use crate::options::{RunOptions, SweepOptions};
use crate::report::{FORMAT, RunReport, count};
use crate::stop::Stop;

/// Runs the series.
///
/// # Errors
/// If a value is wrong (before anything starts), a run fails, or the user interrupts.
pub fn sweep(options: &SweepOptions, stop: &Stop) -> Result<SweepReport, Error> {
    if options.run.group_directory.is_some() && !options.over.is_of_load() {
        let over = options.over.name();
        return Err(Error::new(format!(
            "--group: a series over {over} starts a group for each of its runs; over a group that runs already it \
             may go over clients, request-size, transport, read-percent or rate"
        )));
    }
    let values = options.over.values_or_default(&options.values);
    let settings = values
        .iter()
        .map(|value| options.over.apply(&options.run, value))
        .collect::<Result<Vec<RunOptions>, _>>()?;
    let mut runs: Vec<Vec<RunReport>> = vec![Vec::new(); values.len()];
    'rounds: for round in 1..=options.repeat {
        for (at, (value, setting)) in values.iter().zip(&settings).enumerate() {
            let name = options.over.name();
            let report = match crate::run(setting, stop) {
                // The runs so far are worth a report; half a run is not one of them.
                Err(e) if e.is_interrupted() && !is_empty(&runs) => break 'rounds,
                Ok(report) if report.interrupted => break 'rounds,
                measured => {
                    measured.map_err(|e| e.context(format!("{name} {value}, round {round}")))?
                }
            };
            eprintln!(
                "round {round} of {}: {name} {value}: {} operations/s",
                options.repeat,
                count(report.throughput_ops_s.round() as u64)
            );
            runs[at].push(report);
        }
    }
    let interrupted = stop.is_raised();
    if interrupted && is_empty(&runs) {
        return Err(Error::interrupted());
    }
    let points = values
        .into_iter()
        .zip(runs)
        .filter(|(_, runs)| !runs.is_empty())
        .map(|(value, runs)| Point::new(value, runs));
    Ok(SweepReport {
        format: FORMAT,
        kind: "sweep".into(),
        over: options.over.name().into(),
        repeat: options.repeat,
        interrupted,
        points: points.collect(),
        machine: Machine::here(),
    })
}

fn is_empty(runs: &[Vec<RunReport>]) -> bool {
    runs.iter().all(Vec::is_empty)
}
