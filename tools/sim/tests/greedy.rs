//! A client that wants everybody's time instead of answers.

#[path = "staged/clients.rs"]
mod staged;

use hybster_proto::internals::mutants::{Mutant, choose};
use hybster_sim::{Options, Report, RogueTrick, run_scenario};

/// Of simulated time, in microseconds: how long an honest client's operation may take as a rule while
/// another client floods. Without a flood it takes 400.
const MEDIAN_US: u64 = 15_000;

fn run(mutant: Option<Mutant>, seed: u64, trick: RogueTrick) -> Report {
    choose(mutant);
    let report = run_scenario(staged::greedy(seed, trick), &Options::default());
    choose(None);
    report
}

/// Honest clients go on, no leader is suspected, and nobody holds more than its stated bounds.
#[test]
fn a_greedy_client_has_its_share_and_no_more() {
    for seed in 0..3 {
        for trick in [RogueTrick::Reminders, RogueTrick::Volume] {
            let report = run(None, seed, trick);
            report.assert_good();
            assert_eq!(report.counters.view, 0, "{trick:?}, seed {seed}: a leader is suspected");
            let (paused, median_us) = (report.counters.paused_clients, report.median_latency_us());
            assert!(paused > 0, "{trick:?}, seed {seed}: it is never held back");
            assert!(median_us < MEDIAN_US, "{trick:?}, seed {seed}: {median_us} us");
        }
    }
}

/// Without shares it has everything, and a correct leader is suspected.
#[test]
fn without_shares_others_stand_still() {
    let report = run(Some(Mutant::ClientsUnlimited), 0, RogueTrick::Volume);
    assert!(report.violation.is_some() || report.counters.view > 0);
}
