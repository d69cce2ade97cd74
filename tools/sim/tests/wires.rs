//! Slow and long wires: no fault is injected, and the group does what its wires can carry.

mod cells;

use hybster_proto::internals::mutants::{Mutant, choose};
use hybster_sim::{Fault, Options, Report, Scenario, run_scenario};

use cells::{Cell, Of, cells};

#[test]
fn slow_wires_are_used_well() {
    let loads = [(1, 8), (6, 1_000), (64, 1_000), (8, 10_000)];
    cells(Of::One, &[1, 10], &[0, 20], &loads).iter().for_each(|cell| cell.check(1));
}

#[test]
fn long_wires_are_used_well() {
    let loads = [(1, 8), (8, 10_000), (64, 1_000)];
    cells(Of::One, &[1, 10], &[100, 250], &loads).iter().for_each(|cell| cell.check(2));
}

#[test]
fn large_requests_take_their_time() {
    let loads = [(1, 200_000), (16, 200_000)];
    cells(Of::One, &[1, 10], &[0, 100, 250], &loads).iter().for_each(|cell| cell.check(3));
}

/// The cells that `HYBSTER_CELLS=FROM..TO` names, or all, and the number of the first.
fn part(all: &[Cell]) -> (usize, &[Cell]) {
    let Ok(range) = std::env::var("HYBSTER_CELLS") else { return (0, all) };
    let ends =
        range.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    let (from, to): (usize, usize) = ends.expect("HYBSTER_CELLS is FROM..TO");
    (from, &all[from..to.min(all.len())])
}

/// All combinations; half an hour on one core.
#[test]
#[ignore = "takes minutes: cargo test --release -p hybster-sim --test wires -- --ignored"]
fn every_wire_is_used_well() {
    let loads =
        [1, 8, 64, 128].map(|sessions| [8, 1_000, 10_000, 200_000].map(|value| (sessions, value)));
    let all = [Of::One, Of::Each]
        .map(|of| cells(of, &[1, 2, 5, 10, 100], &[0, 20, 100, 250], loads.as_flattened()))
        .concat();
    let (first, cells) = part(&all);
    let fails = |(seed, cell): (u64, &Cell)| {
        cell.try_it(seed).err().map(|story| format!("{cell:?}, seed {seed}: {story}"))
    };
    let failures: Vec<_> = (100 + first as u64..).zip(cells).filter_map(fails).collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), cells.len(), failures.join("\n"));
}

/// Operations that ran in a part of a run. One runs in each batch.
fn ran(report: &Report, from_us: u64, to_us: u64) -> usize {
    report.times.iter().filter(|(at_us, _)| (from_us..to_us).contains(at_us)).count()
}

#[test]
fn the_full_rate_is_back_soon_after_a_limit_is_lifted() {
    for (seed, delay_ms) in [(1, 0), (2, 20), (3, 100)] {
        let cell = Cell { mbit: 1, delay_ms, sessions: 64, value: 10_000, of: Of::One };
        let mut scenario = cell.scenario(seed);
        scenario.group.batch_max_requests = 1;
        scenario.heal_at_us = 26_000_000;
        let fast = Cell { mbit: 100, ..cell };
        // What the wires carry when all faults end, too: a wire that becomes a hundred times slower is
        // another matter.
        scenario.bytes_per_s = fast.bytes_per_s();
        let scenario = scenario
            .with(0, Fault::Bandwidth(cell.bytes_per_s()))
            .with(20_000_000, Fault::Bandwidth(fast.bytes_per_s()));
        let report = run_scenario(scenario, &Options::default());
        report.assert_good();
        assert_eq!(report.counters.view, 0, "seed {seed}: no fault, no view change");
        let per_s = ran(&report, 22_000_000, 26_000_000) as f64 / 4.0;
        assert!(per_s >= 0.6 * fast.possible(), "seed {seed}: {per_s} operations per second");
    }
}

/// Each rule that is left out shows on some wire.
#[test]
fn a_group_that_knows_nothing_of_wires_fails_on_slow_ones() {
    let slow = cells(Of::One, &[1], &[0, 100], &[(8, 10_000), (16, 100_000)]);
    for mutant in [Mutant::WireIgnored, Mutant::HeldIgnored] {
        choose(Some(mutant));
        let failures: Vec<_> = slow.iter().filter_map(|cell| cell.try_it(4).err()).collect();
        choose(None);
        println!("{mutant:?}: {failures:?}");
        assert!(!failures.is_empty(), "{mutant:?} is not found");
    }
    slow.iter().for_each(|cell| cell.check(4));
}

/// Requests of a batch: one, so that the operations that ran can be counted, or as many as by default.
#[derive(Clone, Copy, Debug)]
enum Batches {
    OfOne,
    Long,
}

/// Wires of 100 Mbit/s that carry 1 Mbit/s from 5 s on, while all queues are full, and go on doing so.
fn collapse(seed: u64, cell: Cell, batches: Batches) -> Scenario {
    let fast = Cell { mbit: 100 * cell.mbit, ..cell };
    let mut scenario = fast.scenario(seed);
    if matches!(batches, Batches::OfOne) {
        scenario.group.batch_max_requests = 1;
    }
    scenario.heal_at_us = COLLAPSE_US + 55_000_000;
    scenario.patience_us = 180_000_000;
    // When all faults end, they still are slow.
    scenario.bytes_per_s = cell.bytes_per_s();
    scenario
        .with(0, Fault::Bandwidth(fast.bytes_per_s()))
        .with(COLLAPSE_US, Fault::Bandwidth(cell.bytes_per_s()))
}

const COLLAPSE_US: u64 = 5_000_000;

/// The cases that brought a group through view after view, or to a halt.
const COLLAPSED: Cell = Cell { mbit: 1, delay_ms: 0, sessions: 64, value: 10_000, of: Of::One };

/// What a collapse must not lead to, if it does.
fn after_collapse(scenario: Scenario, cell: Cell, most_views: u64) -> Result<(), String> {
    let (seed, is_one) = (scenario.seed, scenario.group.batch_max_requests == 1);
    let report = run_scenario(scenario, &Options::default());
    let view = report.counters.view;
    // What was on its way at first is done by then, or was lost with a view.
    let (from_us, to_us) = (COLLAPSE_US + 15_000_000, COLLAPSE_US + 55_000_000);
    let share = ran(&report, from_us, to_us) as f64 / 40.0 / cell.possible();
    println!("{cell:?}, seed {seed}: view {view}, {share:.2} of what is possible afterwards");
    if let Some(violation) = &report.violation {
        return Err(format!("{}: {}", violation.property, violation.story));
    }
    if view > most_views {
        return Err(format!("seed {seed}: view {view}"));
    }
    if is_one && share < 0.6 {
        return Err(format!("seed {seed}: {share:.2} of what is possible"));
    }
    Ok(())
}

/// What waits on wires that become a hundred times slower is late and not lost: nobody is suspected for it,
/// and the wires are used as well as if they had always been slow.
#[test]
fn wires_that_become_much_slower_are_used_well() {
    let cells = [
        COLLAPSED,
        Cell { delay_ms: 20, ..COLLAPSED },
        Cell { delay_ms: 100, ..COLLAPSED },
        Cell { value: 1_000, ..COLLAPSED },
    ];
    for (cell, seed) in cells.into_iter().flat_map(|cell| (1..=3).map(move |seed| (cell, seed))) {
        let outcome = after_collapse(collapse(seed, cell, Batches::OfOne), cell, 0);
        outcome.unwrap_or_else(|story| panic!("{cell:?}: {story}"));
    }
}

/// Batches that take such a wire for twelve seconds are older, when they arrive, than followers accept: that may
/// cost views, a few.
#[test]
fn what_is_too_old_when_it_arrives_costs_few_views() {
    let cell = Cell { sessions: 16, value: 100_000, ..COLLAPSED };
    for seed in 1..=3 {
        let outcome = after_collapse(collapse(seed, cell, Batches::OfOne), cell, 4);
        outcome.unwrap_or_else(|story| panic!("{story}"));
    }
}

/// A batch that takes such a wire for seconds looks like a leader that is silent. But views end.
#[test]
fn a_long_batch_on_a_wire_that_becomes_much_slower_is_got_over() {
    for seed in 1..=6 {
        let outcome = after_collapse(collapse(seed, COLLAPSED, Batches::Long), COLLAPSED, 8);
        outcome.unwrap_or_else(|story| panic!("{story}"));
    }
}

/// The leader is gone soon after: a view is changed over wires that are full of what is of no use any more.
fn without_its_leader(seed: u64) -> Scenario {
    let scenario = collapse(seed, COLLAPSED, Batches::OfOne);
    scenario.with(COLLAPSE_US + 3_000_000, Fault::Crash(0))
}

#[test]
fn a_leader_can_be_replaced_over_wires_that_became_much_slower() {
    for seed in 1..=4 {
        let outcome = after_collapse(without_its_leader(seed), COLLAPSED, 1);
        outcome.unwrap_or_else(|story| panic!("{story}"));
    }
}

/// Each rule that is left out shows in one of the cases above.
#[test]
fn what_helps_on_wires_that_become_much_slower() {
    let short = |seed| (collapse(seed, COLLAPSED, Batches::OfOne), 0);
    let long = |seed| (collapse(seed, COLLAPSED, Batches::Long), 8);
    let crash = |seed| (without_its_leader(seed), 1);
    for (mutant, cases) in [
        (Mutant::BusyWireIgnored, (1..=12).map(short).collect()),
        (Mutant::AloneWaitsLonger, (1..=6).map(long).chain((1..=6).map(crash)).collect()),
    ] {
        let cases: Vec<(Scenario, u64)> = cases;
        // A few of these fail whatever the rule, so it must be the rule that makes the difference.
        let failure = cases.into_iter().find_map(|(scenario, most_views)| {
            choose(Some(mutant));
            let failure = after_collapse(scenario.clone(), COLLAPSED, most_views).err();
            choose(None);
            failure.filter(|_| after_collapse(scenario, COLLAPSED, most_views).is_ok())
        });
        println!("{mutant:?}: {failure:?}");
        assert!(failure.is_some(), "{mutant:?} is not found");
    }
}
