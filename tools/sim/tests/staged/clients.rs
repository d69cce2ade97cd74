//! Greedy clients, staged by hand.

use hybster_sim::random::Random;
use hybster_sim::{RoguePlan, RogueTrick, Scenario};

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
