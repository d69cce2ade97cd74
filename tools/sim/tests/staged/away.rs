//! A follower that misses a change of views.

use hybster_proto::wire::kind;
use hybster_sim::random::Random;
use hybster_sim::{Catch, End, Fault, Filter, Scenario};

/// A follower is away while a view changes, hears of the new one and is not answered. Then all fall silent, and it could
/// be told.
pub(crate) fn away(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x57a6_ed09);
    let mut scenario = Scenario::calm("away", seed, 1, random.between(1, 3) as u16);
    scenario.heal_at_us = 1_000_000;
    scenario.patience_us = 5_000_000;
    for client in &mut scenario.clients {
        (client.operations, client.operations_after) = (300, 0);
    }
    let follower = End::Replica(2);
    let back_us = random.between(400, 450) * 1_000;
    for peer in [0, 1].map(End::Replica) {
        for (from, to) in [(peer, follower), (follower, peer)] {
            scenario = scenario.with(0, Fault::Cut(from, to)).with(back_us, Fault::Mend(from, to));
        }
    }
    for client in [0, 1].map(End::Client) {
        scenario = scenario.with(0, Fault::Cut(client, follower));
    }
    let (from, to, pillar) = (None, Some(follower), None);
    let lost = Filter { from, to, kinds: vec![kind::NEW_VIEW], pillar, catch: Catch::Drop };
    scenario
        .with(0, Fault::Filter(lost))
        .with(20_000, Fault::Pause(0))
        .with(250_000, Fault::Resume(0))
}
