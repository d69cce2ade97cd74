//! Mutation tests of PBFT: each broken rule must be found within a bounded number of seeds.

use std::sync::Arc;

use bytes::Bytes;
use hybster_proto::config::GroupConfig;
use hybster_proto::ids::{OrderNumber, PillarId, ReplicaId, View};
use hybster_proto::internals::mutants::{Mutant, choose};
use hybster_proto::internals::pbft::view::{Known, NewView, Pair, ViewChange, ViewChangeAck};
use hybster_proto::internals::pbft::{Control, ControlInput, Decision, PillarInput, decide};
use hybster_proto::output::{Input, Output, ToControl, ToPillar};
use hybster_proto::protocol::Protocol;
use hybster_proto::time::Time;
use hybster_proto::wire::{self, CheckpointId};
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

/// A group of four with one pillar.
fn config() -> GroupConfig {
    GroupConfig { protocol: Protocol::Pbft, replicas: 4, pillars: 1, ..GroupConfig::default() }
}

/// What is decided, with and without a rule.
fn decided(mutant: Mutant, changes: &[ViewChange]) -> [Option<Decision>; 2] {
    [None, Some(mutant)].map(|chosen| {
        choose(chosen);
        let decision = decide(&config(), changes.iter());
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

/// What only a liar claims to have prepared, in a later view than anybody else.
#[test]
fn a2_left_out() {
    let honest = |sender| change(sender, Some(pair(1, 3)), &[pair(1, 3)]);
    let changes = [honest(0), honest(1), change(3, Some(pair(2, 8)), &[pair(2, 8)])];
    let [with, without] = decided(Mutant::PbftA2LeftOut, &changes);
    assert_eq!(with, None, "the fourth is waited for");
    assert_eq!(without.unwrap().chosen, [[Digest([2; 32])]]);
}

/// What a control stage of replica `id` does with messages for view 1, which it has left for: whether it
/// asks for the bodies of that view as its leader, or enters it.
fn goes_on(mutant: Option<Mutant>, id: u16, messages: &[(u16, Bytes)]) -> bool {
    choose(mutant);
    let (mut stage, mut out) = (Control::new(Arc::new(config()), ReplicaId(id)), Output::default());
    stage.handle(ToControl::Suspect { view: View(0) }, Time(1), &mut out);
    let (pillar, to) = (PillarId(0), View(1));
    let left = ControlInput::Left { pillar, to, known: Vec::new() };
    stage.handle(ToControl::Pbft(left), Time(1), &mut out);
    for (from, message) in messages {
        let message = ToControl::Message { from: ReplicaId(*from), message: message.clone() };
        stage.handle(message, Time(1), &mut out);
    }
    choose(None);
    out.inputs.iter().any(|input| {
        let Input::Pillar(_, ToPillar::Pbft(input)) = input else { return false };
        matches!(input, PillarInput::Hold { .. } | PillarInput::Enter { .. })
    })
}

/// The VIEW-CHANGE of a replica for view 1 that has done nothing.
fn leaves(sender: u16) -> (Digest, ViewChange) {
    let change = ViewChange { to: View(1), parts: vec![Vec::new()], ..change(sender, None, &[]) };
    (wire::digest(&change.encode()), change)
}

fn acknowledges(sender: u16) -> Bytes {
    let got = vec![(ReplicaId(sender), leaves(sender).0)];
    ViewChangeAck { view: View(1), got }.encode()
}

/// The leader of view 1 takes a VIEW-CHANGE only if a third replica has got the same one.
#[test]
fn acks_uncounted() {
    let all = [
        (2, leaves(2).1.encode()),
        (3, leaves(3).1.encode()),
        (3, acknowledges(2)),
        // Nobody acknowledges its own.
        (3, acknowledges(3)),
    ];
    assert!(!goes_on(None, 1, &all));
    assert!(goes_on(None, 1, &[&all[..], &[(0, acknowledges(3))]].concat()));
    assert!(goes_on(Some(Mutant::PbftAcksUncounted), 1, &all));
}

/// A backup believes a NEW-VIEW only if it has got each VIEW-CHANGE in it, or f others beside the leader
/// have; or if f+1 pass it on.
#[test]
fn changes_unvouched() {
    let changes = vec![leaves(1), leaves(2), leaves(3)];
    let new_view = NewView { view: View(1), changes }.encode();
    let all = [(1, leaves(1).1.encode()), (1, new_view.clone()), (1, acknowledges(3))];
    assert!(!goes_on(None, 2, &all));
    for believed in [(3, leaves(3).1.encode()), (0, acknowledges(3)), (0, new_view)] {
        assert!(goes_on(None, 2, &[&all[..], &[believed]].concat()));
    }
    assert!(goes_on(Some(Mutant::PbftChangesUnvouched), 2, &all));
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
            let decided = [
                Mutant::PbftA1LeftOut,
                Mutant::PbftA2LeftOut,
                Mutant::PbftFreeByFew,
                Mutant::PbftCheckpointOfOne,
                Mutant::PbftAcksUncounted,
                Mutant::PbftChangesUnvouched,
            ];
            let hunted = [&decided[..], &[$(Mutant::$mutant),*]].concat();
            let of_pbft = |mutant: &&Mutant| format!("{mutant:?}").starts_with("Pbft");
            assert!(Mutant::ALL.iter().filter(of_pbft).all(|mutant| hunted.contains(mutant)));
        }
    };
}

mutants! {
    majority: PbftMajority in 300;
    pre_prepared_forgotten: PbftPrePreparedForgotten in 300;
    prepared_forgotten: PbftPreparedForgotten in 300;
    prepared_unvoted: PbftPreparedUnvoted in 100;
    claim_of_one: PbftClaimOfOne in 300;
    stable_by_one: PbftStableByOne in 300;
    checkpoint_of_one: CheckpointOfOne in 300;
    batch_digest: BatchDigest in 300;
    one_reply: OneReply in 300;
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
