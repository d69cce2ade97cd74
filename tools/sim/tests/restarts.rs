//! Replicas with logs and durable checkpoints that are started again, one or all of them: nothing that
//! was acknowledged is lost, no counter value is used twice, and the group goes on.

#[path = "staged/restarts.rs"]
mod staged;

use std::time::{SystemTime, UNIX_EPOCH};

use hybster_sim::campaign::Campaign;
use hybster_sim::random::{Random, spread};
use hybster_sim::shape::Shape;
use hybster_sim::{
    Counters, DiskPlan, Fault, Layout, Options, Report, Scenario, Transport, run_scenario,
};

fn assert_all_good(byzantine: bool, first: u64, count: u64) -> Counters {
    let shape = Shape { byzantine, restarts: true, ..Shape::default() };
    let outcome = Campaign::new(shape, first, count).run(|_| {});
    println!("{} seeds in {:?}\n{}{}", outcome.runs, outcome.elapsed, outcome.spread, outcome.sum);
    outcome.assert_good();
    outcome.sum
}

#[test]
fn seeds_with_restarts() {
    let sum = assert_all_good(false, 0, 150);
    assert!(sum.truncations > 300, "{}", sum.truncations);
    assert!(sum.restarts > 300 && sum.transfers > 10 && sum.views_entered > 100);
}

#[test]
fn seeds_with_restarts_beside_liars() {
    let sum = assert_all_good(true, 0, 80);
    assert!(sum.restarts > 150);
}

/// `HYBSTER_FRESH_SEEDS=500 cargo test -p hybster-sim fresh_seeds_with_restarts -- --nocapture`
#[test]
fn fresh_seeds_with_restarts() {
    let count = std::env::var("HYBSTER_FRESH_SEEDS").ok().and_then(|n| n.parse().ok());
    let Some(count @ 1..) = count else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let first = spread(now.as_nanos() as u64) >> 16;
    println!("fresh seeds with restarts {first}..={}", first + count - 1);
    assert_all_good(false, first, count);
}

fn good(scenario: Scenario) -> Report {
    let report = run_scenario(scenario, &Options::default());
    report.assert_good();
    report
}

/// A group without any fault but those that a test adds.
fn durable(name: &str, seed: u64, faults: u16) -> Scenario {
    let mut scenario = Scenario::calm(name, seed, faults, 1 + (seed % 3) as u16);
    scenario.layout = if seed.is_multiple_of(2) { Layout::Split } else { Layout::Fused };
    scenario.transport = if seed % 4 < 2 { Transport::Streams } else { Transport::Datagrams };
    scenario.disk = Some(DiskPlan { sync_us: 400, save_us: 3_000, segments: None });
    scenario
}

/// All lose power at once, again and again, at any point of what they are doing.
#[test]
fn a_power_loss_of_all_loses_nothing() {
    for seed in 0..24 {
        let mut scenario = durable("power loss", seed, 1 + (seed % 2) as u16);
        for times in 0..8 {
            let at_us = 7_919 * (seed + 3) + 50_021 * times;
            scenario = scenario.with(at_us, Fault::PowerLoss(1_000 + 97 * seed));
        }
        let report = good(scenario);
        let replicas = if seed.is_multiple_of(2) { 3 } else { 5 };
        assert!(report.counters.restarts >= 6 * replicas, "{report}");
    }
}

/// One replica after the other is started again, the leader among them: that alone leaves no view.
#[test]
fn a_replica_that_is_started_at_once_is_not_missed() {
    let mut views = 0;
    for seed in 0..24 {
        let mut scenario = durable("rolling restart", seed, 1);
        for replica in 0..3 {
            let at_us = 60_000 + 120_000 * u64::from(replica) + 1_013 * seed;
            scenario = scenario.with(at_us, Fault::Restart(replica, 2_000));
        }
        let report = good(scenario);
        assert_eq!(report.counters.restarts, 3);
        views += report.counters.view;
    }
    assert_eq!(views, 0, "a short stop is no reason to leave a view");
}

/// What a replica fetched and has not made durable is gone when it is started again, and others still
/// have it.
#[test]
fn a_fetched_state_is_not_vouched_for_before_it_is_durable() {
    for seed in 0..12 {
        let report = good(staged::after_a_transfer(seed));
        assert!(report.counters.restarts == 1 && report.counters.transfers > 0, "{report}");
    }
}

/// One disk is lost besides: what was acknowledged is on another.
#[test]
fn a_power_loss_of_all_and_a_lost_disk_lose_nothing() {
    for seed in 0..40 {
        good(staged::without_the_leader(seed));
    }
}

/// Each disk has room for little more than the segment of the log that is written and the one in reserve, and
/// more than that is logged.
fn with_little_room(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x57a6_ed03);
    let mut scenario = Scenario::calm("with little room", seed, 1, random.between(1, 3) as u16);
    let save_us = *random.pick(&[1_000, 20_000]);
    scenario.disk = Some(DiskPlan { sync_us: 500, save_us, segments: Some(2) });
    for client in &mut scenario.clients {
        (client.sessions, client.operations, client.operations_after) = (4, 400, 100);
        (client.least_padding, client.padding) = (100, 300);
        (client.think_us, client.queries_ppm) = (random.between(100, 2_000), 0);
    }
    scenario.patience_us = 60_000_000;
    scenario
}

/// As [`with_little_room`], but batches are as long as a replica's disk has room for a few windows of.
fn with_long_batches(seed: u64) -> Scenario {
    let mut scenario = with_little_room(seed);
    scenario.name = "with long batches".into();
    (scenario.group.max_operation_bytes, scenario.group.kept_result_bytes) = (16 << 10, 64 << 10);
    // One that takes longer to save than the others to fill its disk would be left behind.
    scenario.disk = Some(DiskPlan { sync_us: 500, save_us: 5_000, segments: Some(5) });
    for client in &mut scenario.clients {
        (client.operations, client.operations_after) = (150, 20);
        (client.least_padding, client.padding) = (8 << 10, 7 << 10);
    }
    scenario
}

/// The disks of up to f replicas are damaged while these are down, after syncs that failed on any.
fn on_bad_disks(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x57a6_ed05);
    let faults = 1 + (seed % 2) as u16;
    let mut scenario = Scenario::calm("on bad disks", seed, faults, random.between(1, 3) as u16);
    scenario.transport = if seed % 4 < 2 { Transport::Streams } else { Transport::Datagrams };
    scenario.disk = Some(DiskPlan { sync_us: 500, save_us: 5_000, segments: None });
    for client in &mut scenario.clients {
        (client.operations, client.operations_after) = (200, 20);
        client.think_us = random.between(100, 3_000);
    }
    let all = u64::from(scenario.group.replicas);
    for _ in 0..random.below(4) {
        let replica = random.below(all) as u16;
        scenario = scenario.with(random.below(150_000), Fault::SyncFails(replica));
    }
    let first = random.below(all);
    for replica in (first..first + u64::from(faults)).map(|replica| (replica % all) as u16) {
        let fault = Fault::RestartDamaged(replica, random.between(100, 50_000));
        scenario = scenario.with(random.below(200_000), fault);
    }
    scenario.faults.sort_by_key(|fault| fault.at_us);
    scenario
}

/// A log that cannot grow is not the end: what it does not need is removed in time, and clients wait at most
/// for a while.
#[test]
fn a_group_goes_on_within_the_room_that_its_disks_have() {
    let (mut held, mut truncations) = (0, 0);
    for seed in 0..8 {
        let report = good(with_little_room(seed));
        held += report.counters.full_disks;
        truncations += report.counters.truncations;
    }
    println!("clients were refused {held} times, the log was shortened {truncations} times");
    assert!(truncations > 8 * 3);
}

/// What is kept for peers is measured by the batches that there are: long ones use up no disk.
#[test]
fn long_batches_leave_room_for_what_peers_send() {
    let mut truncations = 0;
    for seed in 0..12 {
        truncations += good(with_long_batches(seed)).counters.truncations;
    }
    println!("the log was shortened {truncations} times");
    assert!(truncations > 12 * 3);
}

/// A replica whose disk fills faster than its checkpoints are saved refuses its clients, and serves them again.
#[test]
fn clients_are_refused_while_a_disk_is_full() {
    let mut refusals = 0;
    for seed in 0..8 {
        let mut scenario = with_long_batches(seed);
        scenario.disk = Some(DiskPlan { sync_us: 500, save_us: 20_000, segments: Some(7) });
        refusals += good(scenario).counters.full_disks;
    }
    println!("a full disk refused clients {refusals} times");
    assert!(refusals > 0);
}

/// While the disks of f+1 replicas are full, calls end with that reason; a replica whose log is used up stops, and comes
/// back when somebody has made room. The group serves again when checkpoints are saved.
#[test]
fn calls_end_while_too_many_disks_are_full() {
    let mut sum = Counters::default();
    for seed in 0..12 {
        let mut scenario = with_long_batches(seed);
        scenario.disk = Some(DiskPlan { sync_us: 500, save_us: 10_000_000, segments: Some(7) });
        scenario.logs_may_be_used_up = true;
        sum.add(&good(scenario).counters);
    }
    let Counters { full_disks, refused_by_disks, used_up_logs, .. } = sum;
    println!(
        "{full_disks} disks were full, {refused_by_disks} calls ended, {used_up_logs} logs were used up"
    );
    assert!(full_disks > 12 && refused_by_disks > 12 && used_up_logs > 0);
}

/// A sync that fails stops a replica, which comes back with what was released. A log that is damaged is refused, or the
/// damage is where nothing of it is; the others go on.
#[test]
fn bad_disks_lose_nothing() {
    let mut sum = Counters::default();
    for seed in 0..60 {
        sum.add(&good(on_bad_disks(seed)).counters);
    }
    let (syncs, logs) = (sum.failed_syncs, sum.damaged_logs);
    println!("{syncs} syncs failed, {logs} of 90 logs were refused");
    assert!(syncs > 50 && logs > 50);
}

/// Seeds whose replicas refused their own logs once: a batch was named again for a later slot, and the earlier one was
/// forgotten; a view that was passed was acknowledged.
#[test]
fn a_replica_does_not_refuse_its_own_log() {
    for seed in [1_617_252_841, 1_122_992_643] {
        good(Shape { restarts: true, ..Shape::default() }.scenario(seed));
    }
}

/// Whoever restores an older copy of a replica's data, where the others are up, is told; and no counter value is used
/// twice before that.
#[test]
fn an_older_copy_is_refused() {
    for seed in 0..60 {
        let report = good(staged::from_a_copy(seed));
        assert_eq!(report.counters.older_copies, 1, "{report}");
    }
}

/// The first peer that tells a replica what it has seen of it may be the one that has seen nothing.
#[test]
fn an_older_copy_is_refused_though_only_one_peer_knows() {
    for seed in 0..60 {
        let report = good(staged::from_a_copy_that_one_knows(seed));
        assert_eq!(report.counters.older_copies, 1, "{report}");
    }
}

/// A replica that hears from nobody leaves no view with what a copy has.
#[test]
fn an_older_copy_leaves_no_view() {
    for seed in 0..60 {
        let report = good(staged::from_a_copy_that_hears_nothing(seed));
        assert_eq!(report.counters.older_copies, 1, "{report}");
    }
}

/// Who has left a view does not take part in it again with a copy that does not know.
#[test]
fn an_older_copy_of_an_earlier_view_is_refused() {
    for seed in 0..60 {
        let report = good(staged::from_a_copy_of_an_earlier_view(seed));
        assert_eq!(report.counters.older_copies, 1, "{report}");
    }
}

/// `HYBSTER_SEED=3 cargo test -p hybster-sim --test restarts one_seed_after_a_transfer -- --nocapture`
#[test]
fn one_seed_after_a_transfer() {
    let seed = std::env::var("HYBSTER_SEED").ok().and_then(|n| n.parse().ok());
    let Some(seed) = seed else { return };
    let options = Options { trace: true, ..Options::default() };
    let report = run_scenario(staged::after_a_transfer(seed), &options);
    report.trace.iter().for_each(|line| println!("{line}"));
    report.assert_good();
}

#[test]
fn a_seed_with_restarts_reproduces_a_run() {
    for seed in 0..20 {
        let once = run_scenario(staged::now_and_then(seed), &Options::default());
        let again = run_scenario(staged::now_and_then(seed), &Options::default());
        assert_eq!((once.hash, once.counters), (again.hash, again.counters), "seed {seed}");
    }
}
