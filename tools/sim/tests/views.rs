//! Views over a long time: a replica that left one alone, and a group that finishes none.

use hybster_proto::internals::mutants::{Mutant, choose};
use hybster_proto::wire::kind;
use hybster_sim::{Catch, End, Fault, Filter, Options, Report, Scenario, run_scenario};

const SEEDS: std::ops::Range<u64> = 0..12;

/// For a while, follower 2 is the only one that hears a client, and the leader does not hear that
/// follower: so it suspects the leader, and nobody else does.
fn lone_suspicion(seed: u64, pillars: u16) -> Scenario {
    let cuts = [
        (End::Client(0), End::Replica(0)),
        (End::Client(0), End::Replica(1)),
        (End::Replica(2), End::Replica(0)),
    ];
    let mut scenario = Scenario::calm("lone suspicion", seed, 1, pillars);
    for (from, to) in cuts {
        scenario = scenario.with(50_000, Fault::Cut(from, to)).with(300_000, Fault::Mend(from, to));
    }
    for client in &mut scenario.clients {
        (client.operations, client.think_us) = (400, 8_000);
    }
    scenario.heal_at_us = 4_000_000;
    scenario
}

fn good(scenario: Scenario) -> Report {
    let report = run_scenario(scenario, &Options::default());
    report.assert_good();
    report
}

/// A replica that left the view alone takes part again before long, and so the group survives the
/// stop of any one replica as it did before: without another view, if it is not the leader's.
#[test]
fn who_left_the_view_alone_is_brought_back() {
    for pillars in [1, 2] {
        for seed in SEEDS {
            let calm = good(lone_suspicion(seed, pillars));
            assert_eq!((calm.counters.view, calm.counters.alone_at_end), (1, 0), "{calm}");
            for (stopped, view) in [(0, 1), (1, 2), (2, 1)] {
                let scenario = lone_suspicion(seed, pillars);
                let report = good(scenario.with(1_500_000, Fault::Crash(stopped)));
                assert_eq!(report.counters.view, view, "r{stopped} stops: {report}");
            }
        }
    }
}

/// No NEW-VIEW arrives for a long time, measured in time-outs: twenty seconds are what six hours are to a group
/// with the usual ones.
fn unfinished_views(seed: u64) -> Scenario {
    let mut scenario = Scenario::calm("unfinished views", seed, 1, 1).with(5_000, Fault::Crash(0));
    let lost = Filter {
        from: None,
        to: None,
        kinds: vec![kind::NEW_VIEW],
        pillar: None,
        catch: Catch::Drop,
    };
    scenario.heal_at_us = 20_000_000;
    scenario = scenario.with(0, Fault::Filter(lost)).with(20_000_000 - 1, Fault::NoFilters);
    (scenario.group.request_timeout_us, scenario.group.view_timeout_us) = (1_000, 500);
    scenario.group.resend_us = 500;
    scenario
}

/// The latest view that a replica asked for while none was finished.
fn views_asked_for(mutant: Option<Mutant>) -> u64 {
    choose(mutant);
    let report = run_scenario(unfinished_views(1), &Options::default());
    choose(None);
    report.assert_good();
    report.counters.view
}

/// The chain in a VIEW-CHANGE has a link for each view that was left since the last stable one, and room
/// for 4,096. The number of views grows with the logarithm of the time, so that they are never used up.
#[test]
fn views_in_haste() {
    let views = [None, Some(Mutant::ViewsInHaste)].map(views_asked_for);
    println!("{views:?} views, without and with ViewsInHaste");
    assert!(views[0] < 500 && views[1] > 3 * views[0]);
}
