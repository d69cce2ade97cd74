//! Controls: what is safe with an honest TrInX, what is not without one.

use hybster_proto::ids::ReplicaId;
use hybster_sim::{Behaviour, Options, Report, Scenario, run_scenario};

fn with_twin(behaviour: Behaviour, seed: u64) -> Report {
    let faults = 1 + (seed % 2) as u16;
    let mut scenario = Scenario::calm("twins", seed, faults, 1 + (seed % 3) as u16);
    // Replica 0 leads the first view.
    scenario.hosts = vec![(ReplicaId((seed % 2) as u16), behaviour)];
    run_scenario(scenario, &Options::default())
}

#[test]
fn two_hosts_that_share_a_trinx_are_harmless() {
    for seed in 0..60 {
        with_twin(Behaviour::SharedTwin, seed).assert_good();
    }
}

#[test]
fn a_cloned_trinx_breaks_agreement_and_the_oracle_says_so() {
    let found: Vec<&str> = (0..20)
        .map(|seed| with_twin(Behaviour::ClonedTwin, 2 * seed))
        .filter_map(|report| report.violation.map(|v| v.property))
        .collect();
    // Two replicas that certify different batches for one order number are about to commit them:
    // whichever oracle is told first stops the run.
    let is_broken = |property: &&&str| ["agreement", "one certificate"].contains(property);
    let broken = found.iter().filter(is_broken).count();
    assert!(broken >= 5, "a clone goes unnoticed: {found:?}");
}
