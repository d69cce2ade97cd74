//! Mutation tests of PBFT: each broken rule must be found within a bounded number of seeds.

use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{OrderNumber, ReplicaId, View};
use hybster_proto::internals::mutants::{Mutant, choose};
use hybster_proto::internals::pbft::view::{Known, Pair, ViewChange};
use hybster_proto::internals::pbft::{Decision, decide};
use hybster_proto::protocol::Protocol;
use hybster_proto::wire::CheckpointId;
use hybster_sim::shape::Shape;
use hybster_sim::{Behaviour, Options, PbftLie, Scenario, run_scenario};
use hybster_tss::Digest;

/// Runs scenarios with a broken rule until a property does not hold; the seed and the property.
fn hunt(
    mutant: Mutant,
    seeds: u64,
    scenario: impl Fn(u64) -> Scenario,
) -> Option<(u64, &'static str)> {
    choose(Some(mutant));
    let found = (0..seeds).find_map(|seed| {
        let options = Options { last_events: 0, ..Options::default() };
        let report = run_scenario(scenario(seed), &options);
        report.violation.map(|violation| (seed, violation.property))
    });
    choose(None);
    found
}

fn random(seed: u64, replicas: u16) -> Scenario {
    let protocol = Protocol::Pbft;
    Shape { protocol, replicas: Some(replicas), ..Shape::default() }.scenario(seed)
}

/// Byzantine scenarios in which one liar has these behaviours.
fn liar(seed: u64, replicas: u16, behaviours: &[Behaviour]) -> Scenario {
    let (protocol, byzantine) = (Protocol::Pbft, true);
    let shape = Shape { protocol, byzantine, replicas: Some(replicas), ..Shape::default() };
    let mut scenario = shape.scenario(seed);
    // Something must go on that can be spoilt, and no run needs to wait for long.
    (scenario.patience_us, scenario.service_us) = (10_000_000, 0);
    let liars: Vec<ReplicaId> = scenario.hosts.iter().map(|(liar, _)| *liar).collect();
    let liar = liars.first().copied().unwrap_or(ReplicaId(0));
    scenario.hosts.retain(|(replica, _)| *replica != liar);
    scenario.hosts.extend(behaviours.iter().map(|behaviour| (liar, *behaviour)));
    scenario
}

/// As many liars as the group tolerates, with the same behaviours.
fn liars(seed: u64, replicas: u16, behaviours: &[Behaviour]) -> Scenario {
    let mut scenario = liar(seed, replicas, behaviours);
    scenario.hosts.clear();
    scenario.faults.clear();
    scenario.wrong_clocks.clear();
    for liar in (0..scenario.group.faults).map(ReplicaId) {
        scenario.hosts.extend(behaviours.iter().map(|behaviour| (liar, *behaviour)));
    }
    scenario
}

fn scenario(mutant: Mutant, seed: u64) -> Scenario {
    use Behaviour::{PbftLiar, SharedTwin, Splitter};
    let lies = |lie| PbftLiar(lie, 500_000);
    match mutant {
        Mutant::PbftMajority => liars(seed, 7, &[lies(PbftLie::Proposals)]),
        Mutant::PbftA2LeftOut => {
            liar(seed, 4, &[PbftLiar(PbftLie::Sets, 1_000_000), Splitter { ppm: 100_000 }])
        }
        Mutant::PbftPreparedUnvoted => liar(seed, 4, &[SharedTwin]),
        Mutant::PbftClaimOfOne => liar(seed, 4, &[lies(PbftLie::Votes)]),
        Mutant::PbftStableByOne | Mutant::CheckpointOfOne => {
            liar(seed, 4, &[lies(PbftLie::Checkpoints)])
        }
        Mutant::PbftAcksUncounted => liar(seed, 4, &[PbftLiar(PbftLie::Sets, 1_000_000)]),
        Mutant::PbftChangesUnvouched => liar(seed, 4, &[lies(PbftLie::NewViews)]),
        Mutant::BatchDigest => liar(seed, 4, &[Behaviour::Corrupter { ppm: 100_000 }]),
        Mutant::RepliesOfFew => {
            liar(seed, 4, &[Behaviour::ReplyLiar { ppm: 500_000 }, Splitter { ppm: 300_000 }])
        }
        Mutant::OneReply => liar(seed, 4, &[Behaviour::ReplyLiar { ppm: 300_000 }]),
        _ => random(seed, 4),
    }
}

fn pair(digest: u8, view: u64) -> Pair {
    (Digest([digest; 32]), View(view))
}

/// A VIEW-CHANGE that says something about the first order number.
fn change(sender: u16, prepared: Option<Pair>, pre_prepared: &[Pair]) -> ViewChange {
    let pre_prepared = pre_prepared.to_vec();
    let known = Known { order: OrderNumber(1), prepared, pre_prepared };
    let stable = CheckpointId::default();
    let taken = vec![stable];
    ViewChange { sender: ReplicaId(sender), to: View(9), stable, taken, parts: vec![vec![known]] }
}

/// What is decided in a group of four with one pillar, with and without a rule.
fn decided(mutant: Mutant, changes: &[ViewChange]) -> [Option<Decision>; 2] {
    let config = GroupConfig {
        protocol: Protocol::Pbft,
        replicas: 4,
        pillars: 1,
        ..GroupConfig::default()
    };
    [None, Some(mutant)].map(|chosen| {
        choose(chosen);
        let decision = decide(&config, changes.iter());
        choose(None);
        decision
    })
}

/// Replica 0 has prepared 1 in view 3, and it may be committed; before, it had pre-prepared 2 in view 1.
/// A liar claims that 2 was prepared in view 1: f+1 support that. Only what replica 0 has prepared since
/// speaks against it.
#[test]
fn a1_left_out() {
    let changes = [
        change(0, Some(pair(1, 3)), &[pair(2, 1), pair(1, 3)]),
        change(1, None, &[]),
        change(3, Some(pair(2, 1)), &[pair(2, 1)]),
    ];
    let [with, without] = decided(Mutant::PbftA1LeftOut, &changes);
    assert_eq!(with, None, "the fourth is waited for");
    assert_eq!(without.unwrap().chosen, [[Digest([2; 32])]]);
}

/// What two of three have not prepared may be committed all the same.
#[test]
fn free_by_few() {
    let changes =
        [change(0, Some(pair(1, 3)), &[pair(1, 3)]), change(1, None, &[]), change(3, None, &[])];
    let [with, without] = decided(Mutant::PbftFreeByFew, &changes);
    assert_eq!(with, None, "the fourth is waited for");
    assert_eq!(without.unwrap().chosen, [[]; 1]);
}

/// A checkpoint that only a liar has.
#[test]
fn checkpoint_of_one_chosen() {
    let invented = CheckpointId { order: OrderNumber(256), digest: Digest([7; 32]) };
    let mut changes = [change(0, None, &[]), change(1, None, &[]), change(3, None, &[])];
    changes[2].taken.push(invented);
    let [with, without] = decided(Mutant::PbftCheckpointOfOne, &changes);
    assert_eq!(with.unwrap().checkpoint, CheckpointId::default());
    assert_eq!(without.unwrap().checkpoint, invented);
}

/// `HYBSTER_MUTANT_SEEDS=5000` searches longer.
fn is_found(mutant: Mutant, seeds: u64) {
    let more = std::env::var("HYBSTER_MUTANT_SEEDS").ok().and_then(|n| n.parse().ok());
    let found = hunt(mutant, more.unwrap_or(seeds), |seed| scenario(mutant, seed));
    println!("{mutant:?}: {found:?}");
    assert!(found.is_some(), "{mutant:?} survives {seeds} seeds");
}

macro_rules! mutants {
    ($($name:ident: $mutant:ident in $seeds:literal;)*) => {
        $(#[test] fn $name() { is_found(Mutant::$mutant, $seeds); })*

        #[test]
        fn every_mutant_of_pbft_is_hunted() {
            let decided =
                [Mutant::PbftA1LeftOut, Mutant::PbftFreeByFew, Mutant::PbftCheckpointOfOne];
            let hunted = [&decided[..], &[$(Mutant::$mutant),*]].concat();
            let of_pbft = |mutant: &&Mutant| format!("{mutant:?}").starts_with("Pbft");
            assert!(Mutant::ALL.iter().filter(of_pbft).all(|mutant| hunted.contains(mutant)));
        }
    };
}

mutants! {
    majority: PbftMajority in 300;
    a2_left_out: PbftA2LeftOut in 500;
    pre_prepared_forgotten: PbftPrePreparedForgotten in 300;
    prepared_forgotten: PbftPreparedForgotten in 300;
    prepared_unvoted: PbftPreparedUnvoted in 100;
    claim_of_one: PbftClaimOfOne in 300;
    stable_by_one: PbftStableByOne in 300;
    acks_uncounted: PbftAcksUncounted in 300;
    changes_unvouched: PbftChangesUnvouched in 300;
    checkpoint_of_one: CheckpointOfOne in 300;
    batch_digest: BatchDigest in 300;
    one_reply: OneReply in 300;
    replies_of_few: RepliesOfFew in 300;
}

/// The attacks fail against the unbroken rules. `HYBSTER_ATTACK=0,139` makes one run, as text.
#[test]
fn attacks_are_harmless() {
    let hunted = [
        Mutant::PbftMajority,
        Mutant::PbftA2LeftOut,
        Mutant::PbftPreparedUnvoted,
        Mutant::PbftClaimOfOne,
        Mutant::PbftStableByOne,
        Mutant::PbftAcksUncounted,
        Mutant::PbftChangesUnvouched,
        Mutant::RepliesOfFew,
    ];
    if let Ok(text) = std::env::var("HYBSTER_ATTACK") {
        let (attack, seed) = text.split_once(',').expect("attack,seed");
        let mutant = hunted[attack.parse::<usize>().expect("a number")];
        let scenario = scenario(mutant, seed.parse().expect("a number"));
        println!("{scenario:#?}");
        let report = run_scenario(scenario, &Options { trace: true, ..Options::default() });
        report.trace.iter().for_each(|line| println!("{line}"));
        report.assert_good();
        return;
    }
    for seed in 0..12 {
        for mutant in hunted {
            run_scenario(scenario(mutant, seed), &Options::default()).assert_good();
        }
    }
}
