//! Random scenarios with Byzantine hosts and clients.

use std::time::{SystemTime, UNIX_EPOCH};

use hybster_proto::ids::ReplicaId;
use hybster_proto::protocol::Protocol;
use hybster_sim::campaign::Campaign;
use hybster_sim::random::spread;
use hybster_sim::shape::Shape;
use hybster_sim::{Behaviour, Counters, Lie, Options, Scenario, Trick, coverage, run_scenario};

fn assert_all_good(first: u64, count: u64) -> Counters {
    let shape = Shape { byzantine: true, ..Shape::default() };
    let outcome = Campaign::new(shape, first, count).run(|_| {});
    println!("{} seeds in {:?}\n{}{}", outcome.runs, outcome.elapsed, outcome.spread, outcome.sum);
    println!("not reached: {:#?}", coverage::missing(Protocol::Hybster, &outcome.sum));
    outcome.assert_good();
    outcome.sum
}

/// Everything that the core can send, reject and do happens in these runs: what the oracles have
/// never seen they cannot vouch for.
#[test]
fn byzantine_seeds_reach_everything() {
    let mut sum = assert_all_good(0, 500);
    assert!(sum.answered > 10_000 && sum.views_entered > 500 && sum.transfers > 20);
    // A liar that names its own invalid batches in a VIEW-CHANGE is rare.
    for seed in 0..40 {
        let mut scenario = Scenario::calm("invalid batches", seed, 1, 2);
        let behaviours =
            [Behaviour::OrderLiar(Trick::CountLie, 200_000), Behaviour::ViewAttack(Lie::None)];
        scenario.hosts = behaviours.map(|behaviour| (ReplicaId(0), behaviour)).into();
        let report = run_scenario(scenario, &Options::default());
        sum.add(&report.assert_good().counters);
    }
    assert_eq!(coverage::missing(Protocol::Hybster, &sum), Vec::<String>::new());
}

/// `HYBSTER_FRESH_SEEDS=500 cargo test -p hybster-sim fresh_byzantine_seeds -- --nocapture`
#[test]
fn fresh_byzantine_seeds() {
    let count = std::env::var("HYBSTER_FRESH_SEEDS").ok().and_then(|n| n.parse().ok());
    let Some(count @ 1..) = count else { return };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    let first = spread(now.as_nanos() as u64) >> 16;
    println!("fresh Byzantine seeds {first}..={}", first + count - 1);
    assert_all_good(first, count);
}

/// `HYBSTER_SEED=17 cargo test -p hybster-sim --test byzantine one_seed -- --nocapture`
#[test]
fn one_seed() {
    let seed = std::env::var("HYBSTER_SEED").ok().and_then(|n| n.parse().ok());
    let Some(seed) = seed else { return };
    let scenario = Scenario::byzantine(seed);
    println!("{scenario:#?}");
    let report = run_scenario(scenario, &Options { trace: true, ..Options::default() });
    for line in &report.trace {
        println!("{line}");
    }
    report.assert_good();
}

/// Seeds that failed once, with the fault in the core.
#[test]
fn seeds_that_found_something() {
    let seeds = [
        // A NEW-VIEW whose batches never come kept out the one of an earlier view.
        108,
        210,
        405,
        // A VIEW-CHANGE that a liar sent to one replica kept it ahead of the rest for ever.
        5313,
        // A state that was installed late was vouched for a second time.
        164_750_835_551_752,
    ];
    for seed in seeds {
        run_scenario(Scenario::byzantine(seed), &Options::default()).assert_good();
    }
}

#[test]
fn a_seed_reproduces_a_run() {
    // 416 once depended on the order of a hash set.
    for seed in (0..100).chain([416]) {
        let once = run_scenario(Scenario::byzantine(seed), &Options::default());
        let again = run_scenario(Scenario::byzantine(seed), &Options::default());
        assert_eq!(once.hash, again.hash, "seed {seed}");
        assert_eq!(once.counters, again.counters, "seed {seed}");
    }
}
