//! Attacks staged by hand: schedules that random draws hardly reach, in which breaking a single
//! rule of the view change costs agreement. Seeds vary pillars, timing and who lies.

pub(crate) mod away;
pub(crate) mod clients;
pub(crate) mod resources;
pub(crate) mod restarts;
pub(crate) mod slow;

use hybster_proto::ids::ReplicaId;
use hybster_proto::wire::kind;
use hybster_sim::random::Random;
use hybster_sim::{Behaviour, Catch, End, Fault, Filter, Layout, Lie, Scenario};

fn stage(name: &str, seed: u64) -> (Scenario, Random) {
    let mut random = Random::new(seed ^ 0x57a6_ed00);
    let pillars = random.between(1, 3) as u16;
    let mut scenario = Scenario::calm(name, seed, 1, pillars);
    scenario.heal_at_us = 3_000_000;
    for client in &mut scenario.clients {
        (client.operations, client.think_us) = (400, random.between(1_000, 8_000));
    }
    (scenario, random)
}

fn part(scenario: Scenario, at_us: u64, a: u16, b: u16) -> Scenario {
    let (a, b) = (End::Replica(a), End::Replica(b));
    scenario.with(at_us, Fault::Cut(a, b)).with(at_us, Fault::Cut(b, a))
}

fn join(scenario: Scenario, at_us: u64, a: u16, b: u16) -> Scenario {
    let (a, b) = (End::Replica(a), End::Replica(b));
    scenario.with(at_us, Fault::Mend(a, b)).with(at_us, Fault::Mend(b, a))
}

fn drops(from: u16, to: u16, kinds: &[u8]) -> Fault {
    Fault::Filter(Filter {
        from: Some(End::Replica(from)),
        to: Some(End::Replica(to)),
        kinds: kinds.to_vec(),
        pillar: None,
        catch: Catch::Drop,
    })
}

/// Leader and liar commit without the third replica; then the leader is cut off, and the liar
/// changes views with the third one, whose only source it is. What was committed must not be lost.
pub(crate) fn lonely_commit(seed: u64, liar: Option<u16>, behaviour: Behaviour) -> Scenario {
    let (mut scenario, mut random) = stage("lonely commit", seed);
    let liar = liar.unwrap_or_else(|| random.between(1, 2) as u16);
    let third = 3 - liar;
    scenario.hosts = vec![(ReplicaId(liar), behaviour)];
    let alone_us = random.between(5, 400) * 1_000;
    part(part(scenario, 0, 0, third), alone_us, 0, liar)
}

/// As well, and what leader and liar do is kept from the third replica until it has left its view, which is
/// when the liar hides what it knows.
pub(crate) fn hidden_link(seed: u64) -> Scenario {
    let (mut scenario, mut random) = stage("hidden link", seed);
    scenario.hosts = vec![(ReplicaId(1), Behaviour::ViewAttack(Lie::HideLink))];
    let alone_us = random.between(5, 200) * 1_000;
    let told_us = alone_us + random.between(100, 400) * 1_000;
    let ordered = [kind::PREPARE, kind::COMMIT, kind::CHECKPOINT];
    part(part(scenario, 0, 0, 2), alone_us, 0, 1)
        .with(0, drops(1, 2, &ordered))
        .with(told_us, Fault::NoFilters)
}

/// The first leader is cut off; the others establish view 1 and commit in it. Then its leader is
/// cut off, and the liar changes views with the first leader as if view 1 had never been.
pub(crate) fn hidden_view(seed: u64) -> Scenario {
    let (mut scenario, mut random) = stage("hidden view", seed);
    scenario.hosts = vec![(ReplicaId(2), Behaviour::ViewAttack(Lie::OldestChain))];
    let swap_us = random.between(100, 400) * 1_000;
    let of_view_1 = [kind::NEW_VIEW, kind::PREPARE, kind::COMMIT, kind::CHECKPOINT];
    let scenario = part(part(scenario, 0, 0, 1), 0, 0, 2);
    let scenario = join(part(scenario, swap_us, 1, 2), swap_us, 0, 2);
    scenario.with(0, drops(2, 0, &of_view_1))
}

/// No liar. What the first leader prepares in view 0 reaches nobody. View 1 orders something else;
/// then its leader dies, and the first leader, which has left view 0 for view 2 and learns of
/// view 1 belatedly, brings its old PREPAREs along.
pub(crate) fn old_prepares(seed: u64) -> Scenario {
    let (mut scenario, mut random) = stage("old prepares", seed);
    // The first leader has a full window to bring along, and view 1 does not last for long.
    scenario.group.batch_max_requests = 1;
    for client in &mut scenario.clients {
        (client.sessions, client.operations, client.think_us) = (6, 60, 500);
    }
    let dead_us = random.between(52_000, 80_000);
    let told_us = dead_us + random.between(60, 200) * 1_000;
    let (r0, r2) = (End::Replica(0), End::Replica(2));
    let of_view_1 = [kind::NEW_VIEW, kind::PREPARE, kind::COMMIT, kind::CHECKPOINT];
    part(scenario, 0, 0, 1)
        .with(0, Fault::Cut(r0, r2))
        .with(0, drops(2, 0, &of_view_1))
        .with(dead_us, Fault::Crash(1))
        .with(told_us, Fault::NoFilters)
        .with(told_us, Fault::Mend(r0, r2))
}

/// No liar. NEW-VIEW of view 1 is so late that replica 2 has left for view 2, which it leads, while
/// replica 1 was in view 1: view 2 needs the NEW-VIEW-ACK of replica 2.
pub(crate) fn belated_new_view(seed: u64) -> Scenario {
    let mut random = Random::new(seed);
    let pillars = random.between(1, 4) as u16;
    let late = Filter {
        from: Some(End::Replica(1)),
        to: None,
        kinds: vec![kind::NEW_VIEW],
        pillar: None,
        catch: Catch::Delay { by_us: 200_000 },
    };
    let mut scenario = Scenario::calm("belated NEW-VIEW", seed, 1, pillars)
        .with(10_000, Fault::Crash(0))
        .with(10_000, Fault::Filter(late));
    scenario.heal_at_us = 3_000_000;
    scenario
}

/// The leader spoils every reply that it is to relay, for ever. Both followers have the right one, so a
/// client must get it on the direct way, although others keep the followers so busy that something
/// goes to the leader in every turn.
pub(crate) fn relays_lost(seed: u64) -> Scenario {
    let mut scenario = Scenario::calm("relays lost", seed, 1, 1 + (seed % 2) as u16);
    scenario.layout = Layout::Fused;
    scenario.group.batch_max_requests = 32;
    scenario.keys = 1_000;
    scenario.hosts = vec![(ReplicaId(0), Behaviour::ReplyLiar { ppm: 1_000_000 })];
    for (client, sessions) in scenario.clients.iter_mut().zip([1, 32]) {
        (client.sessions, client.think_us, client.queries_ppm) = (sessions, 0, 0);
        (client.operations, client.operations_after) = (800, 1);
    }
    (scenario.heal_at_us, scenario.patience_us) = (2_000_000, 10_000_000);
    scenario.longest_call_us = Some(1_000_000);
    scenario
}
