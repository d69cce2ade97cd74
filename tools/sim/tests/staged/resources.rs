//! Attacks on memory and attention, staged by hand.

use hybster_proto::ids::ReplicaId;
use hybster_sim::random::Random;
use hybster_sim::{Behaviour, End, Fault, Flood, Scenario, Transport};

/// A liar sends more than stages can handle.
pub(crate) fn flood(seed: u64, flood: Flood) -> Scenario {
    let mut random = Random::new(seed ^ 0xf1_00d5);
    let mut scenario = Scenario::calm("flood", seed, 1, random.between(1, 2) as u16);
    scenario.heal_at_us = 150_000;
    scenario.patience_us = 5_000_000;
    let liar = ReplicaId(random.below(3) as u16);
    scenario.hosts = vec![(liar, Behaviour::Flooder { flood, count: 1_000 })];
    scenario
}

/// A liar asks for pages of 16 KiB, and what is sent to it does not arrive.
pub(crate) fn unread_answers(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x0a_5ced);
    let mut scenario = Scenario::calm("unread answers", seed, 1, 1);
    scenario.transport = Transport::Streams;
    (scenario.keys, scenario.page_bytes) = (1_500, 16 << 10);
    scenario.heal_at_us = 300_000;
    scenario.patience_us = 5_000_000;
    let liar = random.between(1, 2) as u16;
    let behaviour = Behaviour::Flooder { flood: Flood::Fetches, count: 10 };
    scenario.hosts = vec![(ReplicaId(liar), behaviour)];
    for from in (0..3).filter(|from| *from != liar) {
        scenario = scenario.with(100_000, Fault::Cut(End::Replica(from), End::Replica(liar)));
    }
    scenario
}
