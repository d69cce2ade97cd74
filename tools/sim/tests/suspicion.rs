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

#[test]
fn probe_late() {
    let get = |name: &str, or: u64| {
        std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(or)
    };
    let (first, seeds, by_us) = (get("FIRST", 0), get("SEEDS", 80), get("BY", 300_000));
    let trace = std::env::var("TRACE").is_ok();
    let mut lost = 0;
    let name = std::env::var("MUTANT").unwrap_or_default();
    let mutant = hybster_proto::internals::mutants::Mutant::ALL.into_iter().find(|m| format!("{m:?}") == name);
    hybster_proto::internals::mutants::choose(mutant);
    for seed in first..first + seeds {
        let mut scenario = staged::full_window(seed);
        scenario.faults.clear();
        scenario.heal_at_us = get("HEAL", 2_000) * 1_000;
        scenario.clients.iter_mut().for_each(|c| c.operations = get("OPS", 30) as u32);
        let catch = hybster_sim::Catch::Delay { by_us };
        let kinds = vec![hybster_proto::wire::kind::CHECKPOINT];
        scenario = scenario.with(
            0,
            hybster_sim::Fault::Filter(hybster_sim::Filter {
                from: None, to: None, kinds, pillar: None, catch,
            }),
        );
        let report = run_scenario(scenario, &Options { trace, ..Options::default() });
        if trace {
            std::fs::write(format!("/tmp/wires18.late.{seed}"), report.trace.join("\n")).unwrap();
        }
        if let Some(violation) = &report.violation {
            lost += 1;
            println!("seed {seed}: view {} {violation:?}", report.counters.view);
        } else {
            println!("seed {seed}: view {}", report.counters.view);
        }
    }
    println!("{lost} of {seeds} lost");
}
