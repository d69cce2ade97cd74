//! Faults under load, and what clients notice of them.
//!
//! By default a scenario drives the counter service, because it reveals the fate of each operation: the
//! result of an increment is the new value, so no two acknowledged increments may have the same
//! result, and the final value shows what was lost or repeated ([`Ledger`]). Of other services only what
//! clients notice is reported.

mod copy;
mod disks;
mod kill_leader;
mod ledger;
mod pause_follower;
mod report;
mod restart;
mod round;
mod small_disk;

pub use ledger::{Increments, Ledger, Verdict};
pub use report::{DiskEvents, FaultReport, Gaps, PauseRound, RestartRound, Round};

use hybster::durable::Durability;

use crate::Error;
use crate::machine::Machine;
use crate::options::{FaultOptions, RestartHow, ServiceKind};
use crate::report::FORMAT;
use crate::run::config_of_load;
use crate::spec::GroupSpec;
use crate::stop::Stop;
use crate::workload::Setting;

/// The group that a fault happens to, and its load.
#[derive(Debug)]
struct Target {
    spec: GroupSpec,
    setting: Setting,
    connections: u32,
}

/// Runs the fault that the options ask for, as often as they ask.
///
/// # Errors
/// If a group does not start, a survivor ends, or the user interrupts. A broken promise of the
/// protocol is not an error, but makes the report unclean.
pub fn fault(options: &FaultOptions, stop: &Stop) -> Result<FaultReport, Error> {
    let setting = Setting::new(&options.load, &options.group, ServiceKind::Counter)?;
    let connections = options.group.connections.min(options.group.clients);
    let spec = GroupSpec::new(&options.group, setting.service, connections + 1)?;
    if spec.unreplicated || spec.faults == 0 {
        return Err(Error::new("a group that tolerates no fault has no fault to show: use f >= 1"));
    }
    if options.restart.is_some() && spec.durability == Durability::None {
        return Err(Error::new(
            "replicas that keep nothing cannot start again: add --durability sync or async",
        ));
    }
    if options.disks.is_any_given() && options.restart != Some(RestartHow::Random) {
        return Err(Error::new(
            "--torn-tail, --damaged-log, --older-copy and --full-disk need --restart random",
        ));
    }
    let target = Target { spec, setting, connections };
    let mut rounds = Vec::new();
    let mut interrupted = false;
    for number in 1..=options.repeat {
        let played = match (options.pause_follower, options.restart) {
            (Some(length), _) => pause_follower::round(options, length, &target, stop),
            (None, Some(how)) => restart::round(options, how, number, &target, stop),
            (None, None) => kill_leader::round(options, &target, stop),
        };
        let round = match played {
            // The rounds so far are worth a report.
            Err(e) if e.is_interrupted() && !rounds.is_empty() => {
                interrupted = true;
                break;
            }
            played => played.map_err(|e| e.context(format!("round {number}")))?,
        };
        if options.repeat > 1 {
            eprintln!("round {number} of {}: {}", options.repeat, round.line());
        }
        rounds.push(round);
    }
    let config = config_of_load(&options.group, &target.spec, &target.setting, None);
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
        interrupted,
        rounds,
        config,
        machine: Machine::here(),
    })
}
