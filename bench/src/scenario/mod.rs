//! Faults under load, and what clients notice of them.
//!
//! Every scenario drives the counter service, because it reveals the fate of each operation: the
//! result of an increment is the new value, so no two acknowledged increments may have the same
//! result, and the final value shows what was lost or repeated ([`Ledger`]).

mod kill_leader;
mod ledger;
mod pause_follower;
mod report;
mod restart;
mod round;

pub use ledger::{Increments, Ledger, Verdict};
pub use report::{FaultReport, Gaps, PauseRound, RestartRound, Round};

use hybster::durable::Durability;

use crate::Error;
use crate::machine::Machine;
use crate::options::{FaultOptions, ServiceKind};
use crate::report::{Config, FORMAT};
use crate::spec::GroupSpec;
use crate::stop::Stop;

/// Runs the fault that the options ask for, as often as they ask.
///
/// # Errors
/// If a group does not start, a survivor ends, or the user interrupts. A broken promise of the
/// protocol is not an error, but makes the report unclean.
pub fn fault(options: &FaultOptions, stop: &Stop) -> Result<FaultReport, Error> {
    let connections = options.group.connections.min(options.group.clients);
    let spec = GroupSpec::new(&options.group, ServiceKind::Counter, connections + 1)?;
    if spec.unreplicated || spec.faults == 0 {
        return Err(Error::new("a group that tolerates no fault has no fault to show: use f >= 1"));
    }
    if options.restart.is_some() && spec.durability == Durability::None {
        return Err(Error::new(
            "replicas that keep nothing cannot start again: add --durability sync or async",
        ));
    }
    let mut rounds = Vec::new();
    for number in 1..=options.repeat {
        let round = match (options.pause_follower, options.restart) {
            (Some(length), _) => pause_follower::round(options, length, &spec, connections, stop),
            (None, Some(how)) => restart::round(options, how, &spec, connections, stop),
            (None, None) => kill_leader::round(options, &spec, connections, stop),
        }
        .map_err(|e| e.context(format!("round {number}")))?;
        if options.repeat > 1 {
            eprintln!("round {number} of {}: {}", options.repeat, round.line());
        }
        rounds.push(round);
    }
    let config = Config { connections, ..crate::run::config(&options.group, &spec) };
    Ok(FaultReport {
        format: FORMAT,
        kind: match (options.pause_follower, options.restart) {
            (Some(_), _) => "pause-follower",
            (None, Some(_)) => "restart",
            (None, None) => "kill-leader",
        }
        .into(),
        gap_ms: Gaps::of(&rounds),
        acknowledged: rounds.iter().map(|r| r.acknowledged).sum(),
        errors: rounds.iter().map(|r| r.errors).sum(),
        lost: rounds.iter().map(|r| r.lost).sum(),
        doubled: rounds.iter().map(|r| r.doubled).sum(),
        rounds,
        config,
        machine: Machine::here(),
    })
}
