//! Clients that want more than their share: everybody's time instead of answers, or more than their wires
//! carry.

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

/// What clients send to followers does not keep these from taking part, and no leader is suspected for what
/// has not left them.
#[test]
fn what_is_forwarded_has_its_share_of_the_wire() {
    for seed in 0..3 {
        let report = run_scenario(staged::detour(seed), &Options::default());
        println!("seed {seed}: view {}, {} us", report.counters.view, report.median_latency_us());
        report.assert_good();
        assert_eq!(report.counters.view, 0, "seed {seed}: a leader is suspected");
    }
}

/// Clients that ask for more than their wires carry at once: all is answered, little of it twice, and no
/// leader is suspected.
#[test]
fn what_waits_for_room_comes_at_the_speed_of_the_wire() {
    let mut turns = 0;
    for seed in 0..40 {
        let scenario = staged::large_replies(seed);
        let needed = 3 * 24 * 8 * scenario.answer_padding as u64;
        let report = run_scenario(scenario, &Options::default());
        report.assert_good();
        assert_eq!(report.counters.view, 0, "seed {seed}: a leader is suspected");
        let sent: u64 = report.sent_bytes[..3].iter().sum();
        assert!(sent < needed + needed / 2, "seed {seed}: {sent} bytes where {needed} are needed");
        turns += report.counters.turns_with_waiting_replies;
    }
    assert!(turns > 1_000, "replies hardly ever wait: {turns} turns");
}

/// A link that nobody waits for does not tell when it has room.
#[test]
fn without_a_word_from_the_link_replies_wait_for_ever() {
    choose(Some(Mutant::RoomNotAwaited));
    let is_found = (0..20).any(|seed| {
        run_scenario(staged::large_replies(seed), &Options::default()).violation.is_some()
    });
    choose(None);
    assert!(is_found);
}
