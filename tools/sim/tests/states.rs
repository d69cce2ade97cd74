//! Replicas whose states differ: at one of them, and at all.

use hybster_proto::ids::ReplicaId;
use hybster_proto::notice::{Notice, StatePart};
use hybster_sim::{Behaviour, Options, Report, Scenario, run_scenario};

const SEEDS: std::ops::Range<u64> = 0..8;

/// A group in which these replicas run a service of their own.
fn of(name: &str, seed: u64, pillars: u16, others: &[u16]) -> Scenario {
    let mut scenario = Scenario::calm(name, seed, 1, pillars);
    scenario.hosts = others.iter().map(|id| (ReplicaId(*id), Behaviour::OtherService)).collect();
    scenario.patience_us = 10_000_000;
    scenario
}

fn told(report: &Report, replica: u16) -> &[Notice] {
    report.counters.differences.get(&replica).map_or(&[], Vec::as_slice)
}

fn names_the_first_page(notices: &[Notice]) -> bool {
    let first = |notice: &Notice| {
        matches!(notice, Notice::FirstPageThatDiffers { part: StatePart::Service, page: 0, .. })
    };
    notices.iter().any(first)
}

/// The others go on, and it is repaired, again and again; all of them say so, and where.
#[test]
fn one_replica_that_differs_is_named_with_the_page_and_nobody_else_suffers() {
    for pillars in [1, 2] {
        for seed in SEEDS {
            for other in 0..3 {
                let report =
                    run_scenario(of("one differs", seed, pillars, &[other]), &Options::default());
                report.assert_good();
                let counters = &report.counters;
                assert_eq!((counters.states_differ, counters.view), (0, 0), "{report}");
                assert!(counters.transfers > 0, "{report}");
                let own = told(&report, other);
                let diverged = own.iter().any(|it| matches!(it, Notice::StateDiverged { .. }));
                assert!(diverged && names_the_first_page(own), "{own:?}");
                let by_others = (0..3).filter(|id| *id != other).any(|id| {
                    let is_named = |it: &Notice| {
                        matches!(it, Notice::StateOfPeerDiffers { peer, .. } if peer.0 == other)
                    };
                    told(&report, id).iter().any(is_named)
                });
                assert!(by_others, "seed {seed}: {:?}", counters.differences);
            }
        }
    }
}

/// The group cannot go on. Replicas say so, and where they differ; clients are told, and nobody
/// changes views, which would be of no use.
#[test]
fn where_all_differ_clients_are_told_and_no_leader_is_suspected() {
    for pillars in [1, 2] {
        for seed in SEEDS {
            let scenario = of("all differ", seed, pillars, &[0, 1, 2]);
            let report = run_scenario(scenario, &Options::default());
            report.assert_good();
            let counters = &report.counters;
            assert!(counters.states_differ > 0 && counters.view == 0, "{report}");
            for id in 0..3 {
                let told = told(&report, id);
                let halted = told.iter().any(|it| matches!(it, Notice::Halted { .. }));
                assert!(halted && names_the_first_page(told), "r{id}: {told:?}");
                assert!(!told.iter().any(|it| matches!(it, Notice::StateDiverged { .. })));
            }
        }
    }
}

/// A liar that vouches for states that never were makes nobody stand still.
#[test]
fn a_liar_halts_nobody() {
    for seed in SEEDS {
        let mut scenario = of("false checkpoints", seed, 1 + (seed % 2) as u16, &[]);
        let liar = ReplicaId((seed % 3) as u16);
        scenario.hosts = vec![(liar, Behaviour::CheckpointLiar { ppm: 1_000_000 })];
        let report = run_scenario(scenario, &Options::default());
        report.assert_good();
        assert_eq!(report.counters.states_differ, 0);
        for id in (0..3).filter(|id| *id != liar.0) {
            let bad = |it: &Notice| {
                let of_liar =
                    matches!(it, Notice::StateOfPeerDiffers { peer, .. } if *peer == liar);
                let page = matches!(it, Notice::FirstPageThatDiffers { .. });
                !of_liar && !page
            };
            let told = told(&report, id);
            assert!(!told.iter().any(bad), "r{id}: {told:?}");
        }
    }
}
