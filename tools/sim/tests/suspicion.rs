//! Whom replicas suspect where nothing can be ordered for a while: no correct leader, and one that leaves out a
//! client all the same.

#[path = "staged/slow.rs"]
mod staged;

use hybster_sim::{Layout, Options, Scenario, run_scenario};

/// Which of the runs leave a view.
fn left(scenarios: impl Iterator<Item = Scenario>) -> Vec<u64> {
    let left = scenarios.filter_map(|scenario| {
        let seed = scenario.seed;
        let report = run_scenario(scenario, &Options::default());
        report.assert_good();
        (report.counters.view > 0).then_some(seed)
    });
    left.collect()
}

/// The leader asks an execution stage that is behind before it orders what followers tell it of.
#[test]
fn a_leader_may_take_longer_where_execution_is_behind() {
    for layout in [Layout::Split, Layout::Fused] {
        for service_us in [20_000, 60_000] {
            let scenario = |seed| staged::small_window(seed, layout, service_us);
            assert_eq!(left((0..200).map(scenario)), [], "{layout:?}, {service_us} us");
        }
    }
}

/// A question to the execution stage may overtake what was committed before it.
#[test]
fn a_request_that_is_committed_is_no_reason_to_leave_a_view() {
    assert_eq!(left((0..200).map(staged::few_requests)), []);
}

/// Nobody can order anything while a window is full.
#[test]
fn a_full_window_is_no_reason_to_leave_a_view() {
    assert_eq!(left((0..60).map(staged::full_window)), []);
}

/// A leader that orders others, so that the window is full as good as always, is suspected by and by.
#[test]
fn a_full_window_is_no_excuse_for_leaving_out_a_client() {
    for seed in 0..20 {
        let report = run_scenario(staged::left_out(seed), &Options::default());
        report.assert_good();
        assert!(report.counters.view > 0, "seed {seed}");
    }
}

/// Checkpoints become stable so late that a request has its turn only after several timeouts. Timeouts grow
/// once, and stay long enough for as long as that lasts.
#[test]
fn checkpoints_that_are_late_for_long_cost_one_view_at_most() {
    for seed in 0..20 {
        let mut scenario = staged::late_checkpoints(seed, 300_000);
        scenario.heal_at_us = 20_000_000;
        scenario.clients.iter_mut().for_each(|client| client.operations = 300);
        let report = run_scenario(scenario, &Options::default());
        report.assert_good();
        assert!(report.counters.view <= 1, "seed {seed}: {report}");
    }
}
