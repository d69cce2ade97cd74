//! A replica whose host is lost is replaced while clients run (`engine/proto/EPOCHS.md`).

use hybster_sim::{Layout, Options, Replacement, Report, Scenario, Transport, run_scenario};

fn good(scenario: Scenario) -> Report {
    let report = run_scenario(scenario, &Options::default());
    report.assert_good();
    report
}

/// One of the replicas is lost early, the leader among them, and replaced.
fn calm(seed: u64) -> Scenario {
    let faults = 1 + (seed % 2) as u16;
    let mut scenario = Scenario::calm("replaced", seed, faults, 1 + (seed % 3) as u16);
    scenario.layout = if seed.is_multiple_of(2) { Layout::Split } else { Layout::Fused };
    scenario.transport = if seed % 4 < 2 { Transport::Streams } else { Transport::Datagrams };
    let replica = (seed % u64::from(scenario.group.replicas)) as u16;
    let lost_us = 20_000 + 7_919 * (seed % 11);
    let replacement =
        Replacement { replica, life: 77 + seed, lost_us, ordered_us: lost_us + 30_000 };
    scenario.replacing(replacement)
}

#[test]
fn a_lost_replica_is_replaced_while_clients_run() {
    let mut transfers = 0;
    for seed in 0..40 {
        let report = good(calm(seed));
        let replicas = if seed.is_multiple_of(2) { 3 } else { 5 };
        assert_eq!(report.counters.epochs_begun, replicas, "{report}");
        transfers += report.counters.transfers;
    }
    assert!(transfers >= 40, "each new replica fetches the state");
}
