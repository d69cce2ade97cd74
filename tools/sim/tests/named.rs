//! Hand-made scenarios, each with the proof that it happened.

#[path = "staged/away.rs"]
mod staged;

use hybster_proto::ids::ReplicaId;
use hybster_proto::output::Reject;
use hybster_proto::wire::kind;
use hybster_sim::{
    Behaviour, Catch, ClientPlan, End, Fault, Filter, Layout, Options, Report, RoguePlan,
    RogueTrick, Scenario, Transport, Trick, WrongClock, run_scenario,
};
use hybster_tss::RequestAuthenticator;

const SEEDS: std::ops::Range<u64> = 0..12;

fn good(scenario: Scenario) -> Report {
    let told = std::env::var("HYBSTER_NAMED")
        .is_ok_and(|name| name == format!("{} {}", scenario.name, scenario.seed));
    let report = run_scenario(scenario, &Options { trace: told, ..Options::default() });
    for line in &report.trace {
        println!("{line}");
    }
    report.assert_good();
    report
}

fn filter(from: Option<u16>, to: Option<u16>, kinds: &[u8], catch: Catch) -> Filter {
    Filter {
        from: from.map(End::Replica),
        to: to.map(End::Replica),
        kinds: kinds.to_vec(),
        pillar: None,
        catch,
    }
}

fn drops(from: Option<u16>, to: Option<u16>, kinds: &[u8]) -> Fault {
    Fault::Filter(filter(from, to, kinds, Catch::Drop))
}

/// PREPAREs of several pillars reach one follower and no COMMIT reaches anybody: then the leader
/// dies. The new leader, that follower, must re-issue all of them if it is among those who made its view, as it
/// mostly is.
#[test]
fn view_change_with_pending_prepares_in_several_pillars() {
    let mut reissued = 0;
    for pillars in [2, 4] {
        for seed in SEEDS {
            let report = good(
                Scenario::calm("pending prepares", seed, 2, pillars)
                    .with(0, drops(None, Some(2), &[kind::PREPARE]))
                    .with(0, drops(None, Some(3), &[kind::PREPARE]))
                    .with(0, drops(None, Some(4), &[kind::PREPARE]))
                    .with(0, drops(None, None, &[kind::COMMIT]))
                    .with(20_000, Fault::Crash(0))
                    .with(400_000, Fault::NoFilters),
            );
            let first = report.new_views.first().expect("a view change");
            let pillars_with = first.reissued.iter().filter(|count| **count > 0).count();
            let is_among = first.from.iter().any(|(replica, _)| *replica == 1);
            assert!(!is_among || pillars_with >= 2, "seed {seed}: {first:?}");
            reissued += usize::from(is_among);
        }
    }
    assert!(reissued >= 16, "{reissued} of {}", 2 * SEEDS.count());
}

#[test]
fn view_change_with_empty_pillars() {
    for pillars in [1, 2, 4] {
        for seed in SEEDS {
            let scenario = Scenario::calm("empty pillars", seed, 1, pillars);
            let report = good(scenario.with(0, Fault::Crash(0)));
            let first = report.new_views.first().expect("a view change");
            assert!(first.reissued.iter().all(|count| *count == 0), "seed {seed}: {first:?}");
        }
    }
}

#[test]
fn view_change_of_a_leader_that_prepared_in_one_pillar_and_not_in_another() {
    for seed in SEEDS {
        let lost =
            Filter { pillar: Some(1), ..filter(Some(0), None, &[kind::PREPARE], Catch::Drop) };
        let report = good(
            Scenario::calm("one pillar prepared", seed, 1, 2)
                .with(0, Fault::Filter(lost))
                .with(30_000, Fault::Crash(0)),
        );
        let first = report.new_views.first().expect("a view change");
        assert!(first.reissued[0] > 0 && first.reissued[1] == 0, "seed {seed}: {first:?}");
    }
}

/// The leader dies. NEW-VIEW of view 1 is so late that replica 2 has left for view 2, which it
/// leads, while replica 1 was in view 1. With only two replicas left, view 2 needs the word of
/// replica 2 about view 1: its NEW-VIEW-ACK.
#[test]
fn two_view_changes_in_a_row_with_a_belated_new_view() {
    let mut used = 0;
    for pillars in [1, 2, 4] {
        for seed in SEEDS {
            let late = filter(Some(1), None, &[kind::NEW_VIEW], Catch::Delay { by_us: 200_000 });
            let mut scenario = Scenario::calm("belated NEW-VIEW", seed, 1, pillars)
                .with(10_000, Fault::Crash(0))
                .with(10_000, Fault::Filter(late));
            scenario.heal_at_us = 3_000_000;
            let report = good(scenario);
            assert!(report.counters.acks > 0, "seed {seed}: {report}");
            used += report.new_views.iter().filter(|v| !v.acks.is_empty()).count();
        }
    }
    assert!(used >= SEEDS.count(), "NEW-VIEW-ACKs were used in {used} NEW-VIEWs");
}

#[test]
fn a_follower_paused_for_long_catches_up_by_state_transfer() {
    let transports = [Transport::Datagrams, Transport::Streams];
    for (seed, transport) in (0..12).zip(transports.into_iter().cycle()) {
        for pillars in [1, 2, 4] {
            let mut scenario = Scenario::calm("paused follower", seed, 1, pillars)
                .with(20_000, Fault::Pause(2))
                .with(900_000, Fault::Resume(2));
            scenario.transport = transport;
            scenario.egress.link_window_bytes = 16 << 10;
            scenario.heal_at_us = 1_500_000;
            // States of one group of pages, and of several.
            (scenario.keys, scenario.versioned_pages) =
                if seed % 2 == 0 { (6, seed % 4 == 0) } else { (900, seed % 4 == 1) };
            for client in &mut scenario.clients {
                client.operations = 300;
                client.think_us = 3_000;
            }
            let report = good(scenario);
            assert!(report.counters.transfers > 0, "seed {seed}: {report}");
            let lag = report.counters.orders - report.frontiers[2];
            assert!(lag <= 16 * u64::from(pillars), "seed {seed}: {report}");
            // Its links take what their windows hold; the rest waits in its peers' egress, where it
            // is withdrawn as windows move.
            assert!(report.counters.peak_held < 400, "seed {seed}: {report}");
            let withdraws = report.counters.withdrawn > 100;
            assert_eq!(withdraws, transport == Transport::Streams, "seed {seed}: {report}");
        }
    }
}

#[test]
fn a_leader_crashes_under_load() {
    for (faults, pillars) in [(1, 1), (1, 2), (1, 4), (2, 1), (2, 2), (2, 4)] {
        for seed in SEEDS {
            let mut scenario = Scenario::calm("leader crash", seed, faults, pillars)
                .with(100_000, Fault::Crash(0));
            if faults == 2 {
                scenario = scenario.with(300_000, Fault::Crash(1));
            }
            for client in &mut scenario.clients {
                client.operations = 100;
                client.think_us = 1_000;
            }
            let report = good(scenario);
            assert!(report.counters.view >= u64::from(faults), "seed {seed}: {report}");
        }
    }
}

/// The smallest windows there are, wrapped thousands of times, with a change of the view and a
/// follower that is left behind on the way.
#[test]
fn tiny_windows_wrap_thousands_of_times() {
    for (seed, pillars) in [(0, 1), (1, 2)] {
        let mut scenario = Scenario::calm("tiny windows", seed, 1, pillars)
            .with(200_000, Fault::Pause(0))
            .with(400_000, Fault::Resume(0));
        scenario.group.checkpoint_interval = u64::from(pillars);
        scenario.group.window = 2 * u64::from(pillars);
        scenario.group.batch_max_requests = 1;
        scenario.heal_at_us = 600_000;
        for client in &mut scenario.clients {
            (client.operations, client.think_us) = (3_000, 0);
        }
        let window = scenario.group.window;
        let report = good(scenario);
        // Queries that are answered without being ordered take no order numbers.
        assert!(report.counters.orders / window > 1_500, "seed {seed}: {report}");
        assert!(report.counters.view > 0 && report.counters.transfers > 0, "seed {seed}: {report}");
    }
}

#[test]
fn two_clients_see_one_store_under_faults() {
    for seed in SEEDS {
        let mut scenario = Scenario::calm("two clients", seed, 1, 2)
            .with(0, Fault::Loss(50_000))
            .with(0, Fault::Duplication(50_000))
            .with(100_000, Fault::Pause(0))
            .with(300_000, Fault::Resume(0))
            .with(400_000, Fault::Slow(1, 100))
            .with(600_000, Fault::Slow(1, 1))
            .with(700_000, Fault::Cut(End::Replica(1), End::Replica(0)))
            .with(900_000, Fault::Mend(End::Replica(1), End::Replica(0)));
        scenario.keys = 2;
        scenario.heal_at_us = 1_000_000;
        for client in &mut scenario.clients {
            client.operations = 80;
            client.think_us = 10_000;
        }
        let report = good(scenario);
        assert!(report.counters.answered > 150, "seed {seed}: {report}");
    }
}

/// Clients sign their requests, some of them sign what they should not, and hosts lie: signatures
/// are checked by the batch, and every replica refuses the same ones.
#[test]
fn signed_requests_are_ordered_and_forged_ones_are_not() {
    let (mut answered, mut refused) = (0, 0);
    for seed in 0..60 {
        let mut scenario = Scenario::byzantine(seed);
        scenario.group.request_authenticator = RequestAuthenticator::Ed25519;
        scenario.hosts.push((ReplicaId(0), Behaviour::OrderLiar(Trick::Forge, 50_000)));
        // Another liar besides replica 0 would be one too many.
        scenario.hosts.retain(|(replica, _)| *replica == ReplicaId(0));
        scenario.faults.retain(|fault| !matches!(fault.fault, Fault::Crash(_)));
        scenario.rogues = vec![RoguePlan {
            tricks: vec![RogueTrick::Forged, RogueTrick::TwoFaced, RogueTrick::Garbage],
            every_us: 5_000,
            times: 60,
        }];
        let report = good(scenario);
        answered += report.counters.answered;
        let rejected = report.counters.rejected.iter();
        let bad = rejected.filter(|((_, reason), _)| *reason == Reject::BadRequest);
        refused += bad.map(|(_, count)| *count).sum::<u64>();
    }
    println!("{answered} requests answered, {refused} messages refused for a bad request");
    assert!(answered > 2_000 && refused > 500);
}

/// A service that takes longer for an operation than a request may wait, on a thread of its own or on
/// that of all stages: suspicion is about ordering, so nobody leaves the view.
#[test]
fn a_slow_service_is_no_reason_to_leave_a_view() {
    let (mut runs, mut left) = (0, Vec::new());
    for seed in 0..200 {
        for service_us in [10_000, 60_000, 300_000] {
            for layout in [Layout::Split, Layout::Fused] {
                let mut scenario = Scenario::calm("slow service", seed, 1, 2);
                (scenario.layout, scenario.service_us) = (layout, service_us);
                let report = run_scenario(scenario, &Options::default());
                report.assert_good();
                runs += 1;
                if report.counters.view > 0 {
                    left.push((layout, service_us, seed));
                }
            }
        }
    }
    assert!(left.is_empty(), "of {runs} runs left a view: {left:?}");
}

/// More and larger results than a group keeps: all replicas give up the same ones, and a client that
/// asks too late is told so.
#[test]
fn results_beyond_the_bound_are_given_up_by_all_alike() {
    let (mut gone, mut transfers) = (0, 0);
    for seed in 0..200 {
        let mut scenario = Scenario::random(seed);
        scenario.answer_padding = 1_000;
        let report = run_scenario(scenario, &Options::default());
        report.assert_good();
        gone += report.counters.results_gone;
        transfers += report.counters.transfers;
    }
    println!("{gone} results were gone, {transfers} states transferred");
    assert!(gone > 0 && transfers > 0);
}

/// Two clients with one identity, sessions and numbers: what is acknowledged was executed, for each of them.
#[test]
fn copies_of_a_client_get_no_results_of_each_other() {
    let mut taken = 0;
    for seed in 0..60 {
        let mut scenario = Scenario::random(seed);
        scenario.copy_client(0);
        let report = run_scenario(scenario, &Options::default());
        report.assert_good();
        taken += report.counters.numbers_taken;
    }
    println!("{taken} numbers were taken by the other");
    assert!(taken > 100);
}

fn one_client(pillars: u16, seed: u64) -> Scenario {
    let mut scenario = Scenario::calm("one client", seed, 1, pillars);
    scenario.clients = vec![ClientPlan {
        copy_of: None,
        sessions: 1,
        operations: 300,
        operations_after: 1,
        parallel: 1,
        think_us: 0,
        least_padding: 0,
        padding: 0,
        queries_ppm: 500_000,
        start_us: 0,
    }];
    scenario
}

/// DEVIATIONS 6: requests reach the pillar that can propose soonest, so idle pillars delay nothing.
#[test]
fn one_client_on_four_pillars_needs_few_no_ops() {
    for seed in SEEDS {
        let (one, four) = (good(one_client(1, seed)), good(one_client(4, seed)));
        let c = &four.counters;
        assert!(c.proposals > 100 && c.noops * 20 < c.proposals, "seed {seed}: {four}");
        let (a, b) = (one.median_latency_us(), four.median_latency_us());
        assert!(b * 10 <= a * 12, "seed {seed}: {a} us with one pillar, {b} us with four");
    }
}

#[test]
fn a_silent_leader_is_replaced() {
    for (faults, pillars) in [(1, 2), (2, 3)] {
        for seed in SEEDS {
            let mut scenario = Scenario::calm("silent leader", seed, faults, pillars);
            scenario.hosts = vec![(ReplicaId(0), Behaviour::SilentLeader)];
            let report = good(scenario);
            assert!(report.counters.view > 0, "seed {seed}: {report}");
        }
    }
}

/// Replies that the leader does not relay are asked for and come directly, then and for some time.
#[test]
fn a_leader_that_carries_no_replies_is_trusted_little() {
    for pillars in [1, 4] {
        for seed in SEEDS {
            let relayed = |scenario: Scenario| {
                let counters = good(scenario).counters;
                (counters.sent.get(&kind::RELAYED).copied().unwrap_or(0), counters)
            };
            let (usual, counters) = relayed(one_client(pillars, seed));
            assert!(usual * 2 > counters.answered, "seed {seed}: {usual} of {counters:?}");
            let lossy = one_client(pillars, seed).with(0, drops(Some(0), None, &[kind::RELAYED]));
            let (lost, counters) = relayed(lossy);
            // Of each of two followers, those before the client asked for the first time.
            assert!((1..usual / 4).contains(&lost), "seed {seed}: {lost}, else {usual}");
            assert_eq!(counters.view, 0, "seed {seed}");
        }
    }
}

#[test]
fn a_host_that_corrupts_messages_harms_nobody() {
    let mut rejected = 0;
    for replica in 0..3 {
        for seed in SEEDS {
            let mut scenario = Scenario::calm("corrupter", seed, 1, 2);
            scenario.hosts = vec![(ReplicaId(replica), Behaviour::Corrupter { ppm: 200_000 })];
            let report = good(scenario);
            rejected += report.counters.rejected.values().sum::<u64>();
        }
    }
    assert!(rejected > 500);
}

fn wrong_clock(
    name: &str,
    seed: u64,
    (faults, pillars): (u16, u16),
    wrong: WrongClock,
) -> Scenario {
    let mut scenario = Scenario::calm(name, seed, faults, pillars);
    scenario.wrong_clocks = vec![(0, wrong)];
    scenario.skew_us = 100_000;
    for client in &mut scenario.clients {
        (client.operations, client.think_us) = (160, 30_000);
    }
    scenario.heal_at_us = 1_500_000;
    scenario
}

/// The time that passed for the service while the batches from `from_us` on ran, in milliseconds,
/// beside what passed for everybody else.
fn time_passed(report: &Report, from_us: u64) -> (u64, u64) {
    let ran: Vec<_> = report.times.iter().filter(|(at_us, _)| *at_us >= from_us).collect();
    let (first, last) = (ran.first().expect("batches ran"), ran.last().expect("batches ran"));
    (last.1 - first.1, (last.0 - first.0) / 1000)
}

/// Its proposals are refused, and the next leader does not take them over. Oracles see to it that
/// the service meets no time that is an hour ahead, and no time twice.
#[test]
fn a_leader_whose_clock_lies_by_an_hour() {
    let hour = WrongClock::HOUR_US;
    for wrong in [WrongClock::Ahead { by_us: hour }, WrongClock::Behind { by_us: hour }] {
        for group in [(1, 1), (1, 2), (2, 3)] {
            for seed in SEEDS {
                let report = good(wrong_clock("clock off by an hour", seed, group, wrong));
                let refused = report.counters.rejected.get(&(kind::PREPARE, Reject::Untimely));
                assert!(report.counters.view > 0 && refused > Some(&0), "seed {seed}: {report}");
                // It takes no more than one change of the view, and then time runs as it should.
                assert!(report.counters.view <= 3, "seed {seed}: {report}");
                let (service_ms, true_ms) = time_passed(&report, 600_000);
                assert!(
                    true_ms > 300 && service_ms.abs_diff(true_ms) < 250,
                    "seed {seed}: {report}"
                );
            }
        }
    }
}

/// Followers believe it for as long as the bound says, and then suspect it.
#[test]
fn a_leader_whose_clock_stands() {
    for group in [(1, 1), (1, 2), (2, 3)] {
        for seed in SEEDS {
            let mut scenario =
                wrong_clock("standing clock", seed, group, WrongClock::Stands { since_us: 0 });
            scenario.group.max_clock_skew_ms = 250;
            let report = good(scenario);
            let before = report.times.iter().filter(|(at_us, _)| *at_us < 250_000).count();
            assert!(before > 5, "seed {seed}: it is not refused at once");
            assert!((1..=3).contains(&report.counters.view), "seed {seed}: {report}");
            let (service_ms, true_ms) = time_passed(&report, 900_000);
            let passed = format!("{service_ms} of {true_ms} ms");
            assert!(true_ms > 300 && service_ms.abs_diff(true_ms) < 50, "seed {seed}: {passed}");
        }
    }
}

/// The group goes on without its acknowledgements, which it then gives as well; it follows into
/// other views; and it executes what the others do, at the times that they do.
#[test]
fn a_follower_whose_clock_is_wrong_by_an_hour_does_no_harm() {
    let hour = WrongClock::HOUR_US;
    for wrong in [WrongClock::Ahead { by_us: hour }, WrongClock::Behind { by_us: hour }] {
        for pillars in [1, 2] {
            for seed in SEEDS {
                let mut scenario = wrong_clock("wrong follower", seed, (1, pillars), wrong);
                scenario.wrong_clocks[0].0 = 2;
                let calm = good(scenario.clone());
                assert_eq!(calm.counters.view, 0, "seed {seed}: {calm}");
                assert_eq!(calm.counters.lag_at_end, 0, "seed {seed}: {calm}");
                // The leader is paused: the other two change the view, and the wrong one enters it.
                let report =
                    good(scenario.with(300_000, Fault::Pause(0)).with(700_000, Fault::Resume(0)));
                assert!(report.counters.view > 0, "seed {seed}: {report}");
                assert_eq!(report.counters.alone_at_end, 0, "seed {seed}: {report}");
            }
        }
    }
}

/// Who keeps messages of a view that it has not entered asks again, though nobody speaks any more.
#[test]
fn who_was_away_asks_for_the_view_until_it_is_told() {
    for seed in SEEDS {
        let report = good(staged::away(seed));
        assert!(report.counters.view > 0, "seed {seed}: {report}");
    }
}
