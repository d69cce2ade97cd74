//! Greedy clients, staged by hand.

use hybster_proto::config::GroupConfig;
use hybster_sim::random::Random;
use hybster_sim::{Layout, RoguePlan, RogueTrick, Scenario, Transport};

/// A client sends far more than its share, to all replicas, from the beginning to the end.
pub(crate) fn greedy(seed: u64, trick: RogueTrick) -> Scenario {
    let mut random = Random::new(seed ^ 0x9_4eed);
    let mut scenario = Scenario::calm("greedy client", seed, 1, random.between(1, 2) as u16);
    scenario.group.max_sessions_per_client = 1024;
    scenario.heal_at_us = 100_000;
    scenario.patience_us = 1_500_000;
    for client in &mut scenario.clients {
        (client.operations, client.operations_after) = (20, 3);
    }
    scenario.rogues = vec![RoguePlan { tricks: vec![trick], every_us: 150, times: 600 }];
    scenario
}

/// Clients send new requests to the followers, as if they had been sent before: more than the followers' wires
/// carry to the leader.
pub(crate) fn detour(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0xde_7042);
    let mut scenario = Scenario::calm("detour", seed, 1, random.between(1, 2) as u16);
    scenario.group = GroupConfig {
        group: scenario.group.group,
        pillars: scenario.group.pillars,
        max_clients: 16,
        max_sessions_per_client: 1024,
        ..GroupConfig::default()
    };
    scenario.transport = Transport::Streams;
    scenario.bytes_per_s = 10_000_000;
    scenario.clients.iter_mut().for_each(|client| client.operations = 200);
    scenario.heal_at_us = 1_500_000;
    scenario.patience_us = 20_000_000;
    let rogue = RoguePlan { tricks: vec![RogueTrick::Detour], every_us: 20_000, times: 75 };
    scenario.rogues = vec![rogue; 4];
    scenario
}

/// Clients ask for far more than their wires carry at once. Nothing else happens, so what waits is woken by
/// what it waits for, or by nothing.
pub(crate) fn large_replies(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x1a4_6e5e);
    let mut scenario = Scenario::calm("large replies", seed, 1, random.between(1, 2) as u16);
    scenario.make_replies_large(&mut random);
    scenario.layout = if random.chance(500_000) { Layout::Split } else { Layout::Fused };
    scenario.clients.truncate(1);
    let client = &mut scenario.clients[0];
    (client.sessions, client.operations, client.parallel) = (24, 8, 1);
    (client.queries_ppm, client.think_us) = (50_000, 0);
    scenario
}
