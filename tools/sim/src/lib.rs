//! Deterministic simulator of Hybster groups.
//!
//! One thread, one seed: n real replica cores with all their stages, real client cores, a virtual
//! network and virtual time. Everything that a run does follows from its [`Scenario`], so a seed
//! reproduces a run bit by bit ([`Report::hash`]).
//!
//! A run has a safety phase, in which the scenario's faults happen, and then a liveness phase
//! without faults, in which everything must come to an end. What is checked is in [`Violation`]:
//! at each step agreement per order number, one total order of executions, exactly-once, validity,
//! equal results and checkpoints, what certificates and elections rest on, window bounds, and the
//! use of counters; at the end that every call was
//! answered, that all live replicas are in one view and that the history is linearizable.
#![forbid(unsafe_code)]

mod agenda;
pub mod behaviour;
pub mod campaign;
mod client;
mod clock;
pub mod coverage;
mod disk;
pub mod display;
mod draws;
mod effects;
mod egress;
mod epochs;
mod evidence;
mod expelled;
mod finish;
mod keys;
pub mod linear;
mod network;
mod oracle;
mod ordering;
mod pausing;
pub mod random;
mod relays;
mod released;
mod replica;
mod report;
mod restart;
mod rogue;
mod room;
mod scenario;
pub mod shape;
pub mod shrink;
pub mod simulate;
pub mod store;
mod uplink;
mod watched;
mod workload;
mod world;

pub use behaviour::{Behaviour, Departure, Flood, Host, Lie, PbftLie, Scene, Trick};
pub use clock::WrongClock;
pub use oracle::Violation;
pub use report::{Counters, NewViewSeen, Report};
pub use rogue::{RoguePlan, RogueTrick};
pub use scenario::{
    Catch, ClientPlan, DiskPlan, End, Fault, Filter, Latency, Layout, Replacement, Scenario,
    TimedFault, Transport,
};
pub use watched::{Execution, Ledger, Record, Recorded, Watched};
pub use workload::Workload;
pub use world::World;

/// What a run records besides its counters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Whether the report has the whole run as text.
    pub trace: bool,
    /// Whether the report holds the protocol events in the format of `hybster trace`.
    pub record: bool,
    /// Last events per replica in the report of a failing run.
    pub last_events: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { trace: false, record: false, last_events: 40 }
    }
}

/// Runs the random scenario of a seed.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Report {
    run_scenario(Scenario::random(seed), options)
}

/// Runs a scenario.
#[must_use]
pub fn run_scenario(scenario: Scenario, options: &Options) -> Report {
    World::new(scenario, *options).run()
}
