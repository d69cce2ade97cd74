//! A liar that wants memory and attention instead of a wrong answer.

#[path = "staged/resources.rs"]
mod staged;

use hybster_proto::internals::mutants::{Mutant, choose};
use hybster_sim::{Flood, Options, Report, Scenario, run_scenario};

fn run(mutant: Option<Mutant>, scenario: Scenario) -> Report {
    choose(mutant);
    let report = run_scenario(scenario, &Options::default());
    choose(None);
    report
}

/// Honest clients go on, and nobody holds more than its stated bounds: the oracles look at that.
#[test]
fn a_flood_of_any_kind_is_bounded_and_harms_no_client() {
    for seed in 0..3 {
        for flood in Flood::ALL {
            let report = run(None, staged::flood(seed, flood));
            report.assert_good();
            if flood != Flood::Anything {
                assert!(
                    report.counters.throttled > 0,
                    "{flood:?}, seed {seed}: nothing is refused"
                );
            }
        }
    }
}

/// A liar asks and does not read.
#[test]
fn answers_wait_for_room() {
    for seed in 0..6 {
        run(None, staged::unread_answers(seed)).assert_good();
    }
}

/// Without the bounds the oracle of memory tells.
#[test]
fn without_bounds_memory_grows() {
    let property = |report: Report| report.violation.map(|violation| violation.property);
    let flooded = run(Some(Mutant::PeersUnlimited), staged::flood(0, Flood::Batches));
    assert_eq!(property(flooded), Some("bounded memory"));
    // The same answers again and again: egress sees the copies first.
    let unread = property(run(Some(Mutant::AnswersUnlimited), staged::unread_answers(0)));
    assert!(matches!(unread, Some("bounded memory" | "egress")), "{unread:?}");
}
