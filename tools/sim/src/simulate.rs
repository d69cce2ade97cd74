//! Simulated groups around a service from outside: many seeds, and the first that fails.
//!
//! What is checked is what is checked of the simulator's own service ([`Violation`]), but for linearizability,
//! of which a model of the service would be needed: all correct replicas execute each operation at most once, in one
//! order, with equal results, and have equal checkpoints, also after state transfers and starts from their disks; and
//! each operation that was answered was executed, with the result that the client was told.

use std::error::Error;
use std::fmt;

use hybster_proto::config::GroupConfig;

use crate::campaign::caught;
use crate::oracle::Violation;
use crate::report::Report;
use crate::scenario::{Fault, Scenario};
use crate::shape::Shape;
use crate::workload::Workload;
use crate::{Options, World};

/// Every so many seeds there are no disks, and replicas that stop do not come back.
const WITHOUT_DISKS: u64 = 4;

/// What happened in the runs of a service. Zeros mean that too few runs were made, or too short ones.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Simulated {
    /// Runs made.
    pub runs: u64,
    /// Operations that were answered.
    pub operations: u64,
    /// Stable checkpoints, over all replicas.
    pub checkpoints: u64,
    /// States that replicas got from others.
    pub transfers: u64,
    /// Times that a replica was started again from its disk.
    pub restarts: u64,
    /// Views entered, over all replicas.
    pub views: u64,
}

/// A run in which something did not hold. Its text has the whole story.
#[derive(Clone, Debug)]
pub struct SimulationFailed {
    /// The seed: it gives the same run again.
    pub seed: u64,
    /// What did not hold.
    pub violation: Violation,
    report: Box<Report>,
}

impl fmt::Display for SimulationFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}: {}", self.seed, self.report)
    }
}

impl Error for SimulationFailed {}

/// Runs a service in simulated groups, one for each seed.
///
/// # Errors
/// The first run in which something did not hold.
pub fn simulate(
    workload: &Workload,
    seeds: impl IntoIterator<Item = u64>,
) -> Result<Simulated, Box<SimulationFailed>> {
    let mut sum = Simulated::default();
    for seed in seeds {
        let report = run(workload, seed);
        if let Some(violation) = report.violation.clone() {
            return Err(Box::new(SimulationFailed { seed, violation, report: Box::new(report) }));
        }
        sum.runs += 1;
        sum.operations += report.counters.answered;
        sum.checkpoints += report.counters.checkpoints;
        sum.transfers += report.counters.transfers;
        sum.restarts += report.counters.restarts;
        sum.views += report.counters.views_entered;
    }
    Ok(sum)
}

fn run(workload: &Workload, seed: u64) -> Report {
    let scenario = scenario(seed);
    let workload = Some(workload.clone());
    caught(seed, move || World::with_workload(scenario, workload, Options::default()).run())
}

/// The random scenario of a seed, for operations, results and pages of any length.
fn scenario(seed: u64) -> Scenario {
    let restarts = !seed.is_multiple_of(WITHOUT_DISKS);
    let mut scenario = Shape { restarts, ..Shape::default() }.scenario(seed);
    let GroupConfig { max_operation_bytes, max_reply_bytes, kept_result_bytes, .. } =
        GroupConfig::default();
    scenario.group =
        GroupConfig { max_operation_bytes, max_reply_bytes, kept_result_bytes, ..scenario.group };
    // A wire that is slow for registers may take for ever with what others send.
    scenario.bytes_per_s = 0;
    scenario.client_queue_bytes = Scenario::calm("", 0, 1, 1).client_queue_bytes;
    scenario.faults.retain(|it| !matches!(it.fault, Fault::Bandwidth(_)));
    // Operations of a client and of its copy must differ, which nobody sees to here.
    scenario.clients.retain(|client| client.copy_of.is_none());
    scenario.drop_faults_of_nobody();
    scenario
}
