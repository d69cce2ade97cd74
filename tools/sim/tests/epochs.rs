//! A replica whose host is lost is replaced while clients run (`engine/proto/EPOCHS.md`).

use std::panic::{AssertUnwindSafe, catch_unwind};

use hybster_proto::ids::ReplicaId;
use hybster_proto::internals::mutants::{Mutant, choose};
use hybster_sim::{
    Behaviour, Counters, End, Fault, Layout, Options, Replacement, Report, Scenario, Transport,
    run_scenario,
};

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
    let ordered_us = lost_us + 30_000;
    let replacement = Replacement {
        replica,
        life: 77 + seed,
        other_life: None,
        lost_us: Some(lost_us),
        ordered_us,
    };
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

/// Replicas crash, lag, are cut off and lose messages meanwhile.
#[test]
fn a_replica_is_replaced_whatever_happens_beside() {
    let mut sum = Counters::default();
    for seed in 0..150 {
        sum.add(&good(Scenario::replaced(seed, false)).counters);
    }
    let Counters { epochs_begun, epochs_told, transfers, .. } = sum;
    println!("{epochs_begun} epochs begun, {epochs_told} told, {transfers} states fetched");
    assert!(epochs_told > 150 && transfers > 150);
}

/// With leaders, followers and replaced replicas that lie.
#[test]
fn a_replica_is_replaced_among_liars() {
    let mut sum = Counters::default();
    for seed in 0..100 {
        sum.add(&good(Scenario::replaced(seed, true)).counters);
    }
    println!("{} epochs begun, {} told", sum.epochs_begun, sum.epochs_told);
}

/// The host that is to be replaced still runs. It is told, and stops.
#[test]
fn a_replica_that_was_replaced_stops() {
    for seed in 0..20 {
        let mut scenario = calm(seed);
        scenario.replacement = scenario.replacement.map(|it| Replacement { lost_us: None, ..it });
        let replicas = u64::from(scenario.group.replicas);
        let report = good(scenario);
        assert_eq!(report.counters.epochs_begun, replicas - 1, "{report}");
    }
}

/// The old leader is replaced and goes on in the old epoch, with a follower that was cut off while the others ended it.
fn beyond_the_boundary(seed: u64) -> Scenario {
    let mut scenario = Scenario::calm("beyond the boundary", seed, 1, 1 + (seed % 2) as u16);
    scenario.hosts =
        vec![(ReplicaId(0), Behaviour::Overstayer), (ReplicaId(0), Behaviour::HoldsNothing)];
    let away_us = 20_000 + 1_009 * (seed % 13);
    let [old, new, away] = [0, 1, 2].map(End::Replica);
    let [one, two] = [0, 1].map(End::Client);
    // It hears no clients either, or it would leave its view for what they want.
    for (for_us, other) in [(20_000, old), (400_000, new), (400_000, one), (400_000, two)] {
        for (from, to) in [(other, away), (away, other)] {
            scenario = scenario.with(away_us, Fault::Cut(from, to));
            scenario = scenario.with(away_us + for_us, Fault::Mend(from, to));
        }
    }
    let ordered_us = away_us + 3_000;
    let replacement =
        Replacement { replica: 0, life: 9, other_life: None, lost_us: None, ordered_us };
    scenario.replacing(replacement)
}

/// The leader has kept the trusted subsystems of the life that it lost, and proposes with both.
fn two_lives(seed: u64) -> Scenario {
    let mut scenario = Scenario::calm("two lives", seed, 1, 1 + (seed % 3) as u16);
    scenario.hosts = vec![(ReplicaId(0), Behaviour::TwoLives)];
    let (lost_us, ordered_us) = (Some(20_000), 25_000 + 997 * (seed % 7));
    let replacement = Replacement { replica: 0, life: 9, other_life: None, lost_us, ordered_us };
    scenario.replacing(replacement)
}

/// Two changes are ordered shortly one after the other.
fn two_changes(seed: u64) -> Scenario {
    let mut scenario = calm(seed);
    let other_life = Some(1_000 + seed);
    scenario.replacement = scenario.replacement.map(|it| Replacement { other_life, ..it });
    scenario
}

#[test]
fn attacks_at_the_end_of_an_epoch_are_harmless() {
    for seed in 0..25 {
        good(beyond_the_boundary(seed));
        good(two_lives(seed));
        good(two_changes(seed));
    }
}

/// The first seed at which a broken rule is found, and how; a panic of an honest core counts.
fn found(mutant: Mutant, scenario: impl Fn(u64) -> Scenario) -> Option<(u64, String)> {
    choose(Some(mutant));
    let run = |seed| {
        let options = Options { last_events: 0, ..Options::default() };
        let report = catch_unwind(AssertUnwindSafe(|| run_scenario(scenario(seed), &options)));
        let property = match report {
            Ok(report) => report.violation.map(|it| it.property.to_owned()),
            Err(cause) => Some(format!("panic: {:?}", cause.downcast_ref::<String>())),
        };
        property.map(|property| (seed, property))
    };
    let found = (0..40).find_map(run);
    choose(None);
    println!("{mutant:?}: {found:?}");
    found
}

#[test]
fn a_boundary_that_is_not_certified_is_found() {
    let (_, property) = found(Mutant::BoundaryUncertified, beyond_the_boundary).expect("found");
    assert_eq!(property, "nothing beyond the boundary");
}

#[test]
fn lives_that_are_not_certified_are_found() {
    assert!(found(Mutant::LivesIgnored, two_lives).is_some());
}

#[test]
fn a_second_change_is_found() {
    assert!(found(Mutant::ChangesUnlimited, two_changes).is_some());
}

#[test]
fn a_seed_with_a_replacement_reproduces_a_run() {
    for seed in 0..10 {
        let run = || run_scenario(Scenario::replaced(seed, true), &Options::default());
        let (once, again) = (run(), run());
        assert_eq!((once.hash, once.counters), (again.hash, again.counters), "seed {seed}");
    }
}

/// `HYBSTER_SEED=3 cargo test -p hybster-sim --test epochs one_seed -- --nocapture`
#[test]
fn one_seed() {
    let seed = std::env::var("HYBSTER_SEED").ok().and_then(|n| n.parse().ok());
    let Some(seed) = seed else { return };
    let is_byzantine = std::env::var("HYBSTER_BYZANTINE").is_ok();
    let options = Options { trace: true, ..Options::default() };
    let scenario = match std::env::var("HYBSTER_STAGED").as_deref() {
        Ok("boundary") => beyond_the_boundary(seed),
        Ok("lives") => two_lives(seed),
        Ok("changes") => two_changes(seed),
        _ => Scenario::replaced(seed, is_byzantine),
    };
    choose(std::env::var("HYBSTER_BROKEN").is_ok().then_some(Mutant::BoundaryUncertified));
    let report = run_scenario(scenario, &options);
    choose(None);
    report.trace.iter().for_each(|line| println!("{line}"));
    report.assert_good();
}
