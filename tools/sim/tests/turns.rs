//! Many clients on slow wires: each waits for its turn, and nobody is suspected for it, unless it is left out.

mod cells;

use hybster_proto::ids::ReplicaId;
use hybster_proto::internals::mutants::{Mutant, choose};
use hybster_sim::{Behaviour, Options, Scenario, run_scenario};

use cells::{Cell, Of, cells};

#[test]
fn clients_that_know_nothing_of_each_other_share_slow_wires() {
    let loads = [(8, 1_000), (64, 1_000), (64, 10_000), (8, 200_000)];
    cells(Of::Each, &[1, 10], &[0, 100], &loads).iter().for_each(|cell| cell.check(1));
}

#[test]
fn clients_that_know_nothing_of_each_other_share_long_wires() {
    let loads = [(8, 200_000), (64, 1_000)];
    cells(Of::Each, &[1, 5], &[250], &loads).iter().for_each(|cell| cell.check(2));
}

/// A leader serves all clients but one.
fn one_left_out(seed: u64) -> Scenario {
    let cell = Cell { mbit: 1, delay_ms: 0, sessions: 16, value: 10_000, of: Of::Each };
    let mut scenario = cell.scenario(seed);
    scenario.hosts = vec![(ReplicaId(0), Behaviour::LeavesOut { client: 1 })];
    // All other clients are served four times before it is suspected, after it was told, and once more before it is
    // told: each time that takes the wire 16 x 2 x 10 kB.
    scenario.longest_call_us = Some(60_000_000);
    scenario.heal_at_us = 100_000_000;
    scenario
}

#[test]
fn a_client_that_a_leader_leaves_out_is_served_all_the_same() {
    for seed in 1..=4 {
        let report = run_scenario(one_left_out(seed), &Options::default());
        report.assert_good();
        println!("seed {seed}: view {}", report.counters.view);
        assert!(report.counters.view > 0, "seed {seed}: a liar that is not suspected");
    }
    choose(Some(Mutant::TurnsUncounted));
    let is_found = (1..=4)
        .any(|seed| run_scenario(one_left_out(seed), &Options::default()).violation.is_some());
    choose(None);
    assert!(is_found, "a leader that leaves out a client is excused for ever");
}

/// Each rule that is left out shows on some wire.
#[test]
fn what_helps_where_many_clients_share_slow_wires() {
    let cell = |sessions, value| Cell { mbit: 1, delay_ms: 0, sessions, value, of: Of::Each };
    for (mutant, cell) in [
        (Mutant::TurnsIgnored, cell(64, 10_000)),
        (Mutant::ProposesTwice, cell(64, 10_000)),
        (Mutant::RateOfMoments, cell(64, 10_000)),
        (Mutant::AsksAll, cell(64, 200_000)),
    ] {
        choose(Some(mutant));
        let failure = (1..=3).find_map(|seed| cell.try_it(seed).err());
        choose(None);
        println!("{mutant:?}: {failure:?}");
        assert!(failure.is_some(), "{mutant:?} is not found");
        (1..=3).for_each(|seed| cell.check(seed));
    }
}

/// What one client with all sessions knows is no more than what many know of each other.
#[test]
fn short_requests_of_many_share_batches() {
    for of in [Of::One, Of::Each] {
        cells(of, &[1], &[0, 20], &[(64, 8), (128, 8)]).iter().for_each(|cell| cell.check(3));
    }
}
