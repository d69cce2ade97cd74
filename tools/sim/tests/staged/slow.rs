//! Groups in which much is slow and nobody is faulty, or only a leader that leaves out a client.

use hybster_proto::ids::ReplicaId;
use hybster_proto::wire::kind;
use hybster_sim::{Behaviour, Catch, Fault, Filter, Layout, Scenario};

/// A service that takes longer for an operation than a request may wait, and a window of a few batches of one
/// request each.
pub(crate) fn small_window(seed: u64, layout: Layout, service_us: u64) -> Scenario {
    let mut scenario = Scenario::calm("small window", seed, 1, 2);
    (scenario.layout, scenario.service_us) = (layout, service_us);
    (scenario.group.window, scenario.group.checkpoint_interval) = (4, 2);
    scenario.group.batch_max_requests = 1;
    scenario.clients.iter_mut().for_each(|client| client.queries_ppm = 0);
    scenario
}

/// Few requests are under way, so that one that is brought to a follower has been committed as a rule.
pub(crate) fn few_requests(seed: u64) -> Scenario {
    let mut scenario = small_window(seed, Layout::Split, 60_000);
    scenario.group.window = 8;
    scenario.group.pillars = 1;
    scenario.clients.iter_mut().for_each(|client| client.sessions = 1);
    scenario
}

/// Checkpoints become stable late, so the window is full most of the time.
pub(crate) fn full_window(seed: u64) -> Scenario {
    late_checkpoints(seed, 150_000)
}

/// CHECKPOINTs arrive so much later than all else.
pub(crate) fn late_checkpoints(seed: u64, by_us: u64) -> Scenario {
    let layout = if seed.is_multiple_of(2) { Layout::Split } else { Layout::Fused };
    let mut scenario = small_window(seed, layout, 0);
    scenario.heal_at_us = 2_000_000;
    let catch = Catch::Delay { by_us };
    let kinds = vec![kind::CHECKPOINT];
    scenario.with(0, Fault::Filter(Filter { from: None, to: None, kinds, pillar: None, catch }))
}

/// A leader fills such a window again and again with what one client wants, and leaves out the other one.
pub(crate) fn left_out(seed: u64) -> Scenario {
    let mut scenario = full_window(seed);
    scenario.heal_at_us = 8_000_000;
    scenario.hosts = vec![(ReplicaId(0), Behaviour::LeavesOut { client: 1 })];
    (scenario.clients[0].operations, scenario.clients[1].operations) = (400, 1);
    scenario.longest_call_us = Some(4_000_000);
    scenario
}
