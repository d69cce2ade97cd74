//! State transfers: with a liar among the holders, and into an execution stage that is busy.

use hybster_proto::ids::ReplicaId;
use hybster_proto::wire::kind;
use hybster_sim::run_scenario;
use hybster_sim::{Behaviour, Fault, Latency, Layout, Options, Report, Scenario, Transport};

const SEEDS: std::ops::Range<u64> = 0..8;
const MBIT: u64 = 125_000;

fn good(scenario: Scenario) -> Report {
    let report = run_scenario(scenario, &Options::default());
    report.assert_good();
    report
}

/// A follower does nothing for a while in which the others change many pages, and then has to fetch all of them
/// over wires that carry `bytes_per_s`, while the others go on. Returns the scenario and the pages.
fn lagging(seed: u64, pages: u64, page_bytes: usize, bytes_per_s: u64) -> Scenario {
    let mut scenario = Scenario::calm("lagging", seed, 1, 1 + (seed % 2) as u16);
    scenario.transport = Transport::Streams;
    scenario.bytes_per_s = bytes_per_s;
    scenario.latency = Latency { min_us: 200, jitter_us: 100, tail_ppm: 0, tail_us: 0 };
    // As a group is by default.
    let (window, interval) = (scenario.group.window, scenario.group.checkpoint_interval);
    (scenario.group.request_timeout_us, scenario.group.view_timeout_us) = (500_000, 500_000);
    (scenario.group.resend_us, scenario.group.window) = (50_000, window);
    scenario.group.checkpoint_interval = interval;
    (scenario.keys, scenario.page_bytes) = (3 * pages as u16, page_bytes);
    scenario.clients.truncate(1);
    let client = &mut scenario.clients[0];
    (client.sessions, client.operations, client.operations_after) = (2, 200, 1);
    (client.think_us, client.queries_ppm) = (20_000, 0);
    scenario = scenario.with(20_000, Fault::Pause(2)).with(2_000_000, Fault::Resume(2));
    // Time for the pages to arrive, three times over.
    let transfer_us = 3 * pages * page_bytes as u64 * 1_000_000 / bytes_per_s;
    scenario.heal_at_us = 4_000_000 + transfer_us;
    scenario.patience_us = 60_000_000 + transfer_us;
    scenario
}

/// What was sent to answer FETCHes, in pages.
fn pages_sent(report: &Report, page_bytes: usize) -> f64 {
    report.counters.fetched_bytes as f64 / page_bytes as f64
}

/// A liar says that it holds nothing, each time, while the transfer takes as long as many checkpoints: it
/// is finished all the same, and not begun again at each of them.
#[test]
fn a_liar_that_holds_nothing_does_not_begin_a_transfer_again() {
    for seed in SEEDS {
        for liar in [0, 1] {
            let (pages, page_bytes) = (100, 8 << 10);
            let mut scenario = lagging(seed, pages, page_bytes, 4 * MBIT);
            scenario.hosts = vec![(ReplicaId(liar), Behaviour::HoldsNothing)];
            let report = good(scenario);
            let sent = pages_sent(&report, page_bytes);
            let counters = &report.counters;
            println!("seed {seed}: {sent:.1} pages, {} states installed", counters.transfers);
            assert!(counters.transfers > 0 && sent < 2.0 * pages as f64, "{report}");
        }
    }
}

/// The execution stage is busy when the state arrives: it waits, and is not fetched again and again.
#[test]
fn a_state_that_waits_for_a_busy_service_is_fetched_once() {
    let mut fetched = Vec::new();
    for seed in SEEDS {
        let mut scenario = Scenario::calm("busy service", seed, 1, 1 + (seed % 2) as u16);
        (scenario.layout, scenario.service_us) = (Layout::Split, 40_000);
        for client in &mut scenario.clients {
            (client.operations, client.queries_ppm) = (120, 0);
        }
        let report =
            good(scenario.with(100_000, Fault::Pause(2)).with(3_000_000, Fault::Resume(2)));
        fetched
            .push((report.counters.transfers, report.counters.sent.get(&kind::FETCHED).copied()));
    }
    println!("{fetched:?} states and FETCHED messages");
    assert!(fetched.iter().all(|(states, answers)| *states > 0 && answers < &Some(100)));
}
