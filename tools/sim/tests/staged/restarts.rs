//! Replicas with logs that are started again.

use hybster_sim::random::Random;
use hybster_sim::shape::Shape;
use hybster_sim::{DiskPlan, End, Fault, Scenario, Transport};

/// A random run in which replicas, or all of them, are started again now and then.
pub(crate) fn now_and_then(seed: u64) -> Scenario {
    Shape { restarts: true, ..Shape::default() }.scenario(seed)
}

/// A follower fetches the state and goes on with the leader, without the other follower; its disk is
/// slow. Then the leader is gone for good, and the follower is started again: what the other follower
/// lacks is nowhere, unless the first one did not vouch for a state that it could lose.
pub(crate) fn after_a_transfer(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x57a6_ed01);
    let mut scenario = Scenario::calm("after a transfer", seed, 1, random.between(1, 3) as u16);
    scenario.heal_at_us = 3_000_000;
    for client in &mut scenario.clients {
        (client.operations, client.think_us) = (400, random.between(1_000, 8_000));
    }
    scenario.disk = Some(DiskPlan { sync_us: 200, save_us: 8_000_000, segments: None });
    scenario.patience_us = 20_000_000;
    let (back_us, alone_us) = (random.between(200, 500) * 1_000, random.between(100, 400) * 1_000);
    let end_us = back_us + alone_us + random.between(100, 600) * 1_000;
    let pair = |scenario: Scenario, at_us, a: u16, b: u16, fault: fn(End, End) -> Fault| {
        let (a, b) = (End::Replica(a), End::Replica(b));
        scenario.with(at_us, fault(a, b)).with(at_us, fault(b, a))
    };
    for peer in [0, 1] {
        scenario = pair(scenario, 0, peer, 2, Fault::Cut);
        scenario = pair(scenario, back_us, peer, 2, Fault::Mend);
    }
    for peer in [0, 2] {
        scenario = pair(scenario, back_us + alone_us, peer, 1, Fault::Cut);
    }
    let scenario = scenario.with(end_us, Fault::Crash(0)).with(end_us, Fault::Restart(2, 1_000));
    pair(scenario, end_us + 10_000, 1, 2, Fault::Mend)
}

/// A replica is started again with an older copy of its data: what it promised since is not in its log.
pub(crate) fn from_a_copy(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x57a6_ed04);
    let faults = 1 + (seed % 2) as u16;
    let mut scenario = Scenario::calm("from a copy", seed, faults, random.between(1, 3) as u16);
    scenario.transport = Transport::Streams;
    scenario.disk = Some(DiskPlan { sync_us: 500, save_us: 5_000, segments: None });
    for client in &mut scenario.clients {
        (client.operations, client.operations_after) = (200, 20);
        client.think_us = random.between(100, 3_000);
    }
    let replica = random.below(u64::from(scenario.group.replicas)) as u16;
    let copied_us = random.between(0, 60_000);
    let back_us = copied_us + random.between(30_000, 100_000);
    scenario
        .with(copied_us, Fault::Copy(replica))
        .with(back_us, Fault::RestartFromCopy(replica, random.between(100, 5_000)))
}

/// As [`from_a_copy`], but one peer has had nothing from the replica since the copy, and holds what is to be
/// acknowledged next: what it tells is true, and of no use.
pub(crate) fn from_a_copy_that_one_knows(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x57a6_ed05);
    let mut scenario = Scenario::calm("one knows", seed, 1, random.between(1, 3) as u16);
    // What it has acknowledged since the copy is in its peers' windows yet.
    let pillars = u64::from(scenario.group.pillars);
    (scenario.group.window, scenario.group.checkpoint_interval) = (128 * pillars, 64 * pillars);
    scenario.transport = Transport::Streams;
    scenario.disk = Some(DiskPlan { sync_us: 500, save_us: 5_000, segments: None });
    for client in &mut scenario.clients {
        (client.operations, client.operations_after) = (200, 20);
        client.think_us = random.between(4_000, 12_000);
    }
    let (replica, deaf) = *random.pick(&[(1, 2), (2, 1)]);
    let copied_us = random.between(5_000, 60_000);
    let back_us = copied_us + random.between(10_000, 30_000);
    let down_us = random.between(100, 1_000);
    let (replica_end, deaf_end) = (End::Replica(replica), End::Replica(deaf));
    let late_us = back_us + down_us + random.between(20_000, 60_000);
    scenario
        .with(copied_us, Fault::Copy(replica))
        .with(copied_us, Fault::Cut(replica_end, deaf_end))
        .with(back_us, Fault::RestartFromCopy(replica, down_us))
        // While it is down: what was on its way is lost.
        .with(back_us + down_us / 2, Fault::Mend(replica_end, deaf_end))
        // The leader is the last that it hears from.
        .with(back_us, Fault::Cut(End::Replica(0), replica_end))
        .with(late_us, Fault::Mend(End::Replica(0), replica_end))
}

/// A follower leaves the view while the leader is away, hears nothing of the next one, and does not know it when it
/// is started from a copy. It hears from both then: the old leader, who goes on in its view, and the peer.
pub(crate) fn from_a_copy_of_an_earlier_view(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x57a6_ed06);
    let mut scenario = Scenario::calm("earlier view", seed, 1, random.between(1, 3) as u16);
    scenario.transport = Transport::Streams;
    scenario.disk = Some(DiskPlan { sync_us: 500, save_us: 5_000, segments: None });
    for client in &mut scenario.clients {
        (client.operations, client.operations_after) = (200, 20);
        client.think_us = random.between(100, 3_000);
    }
    let copied_us = random.between(20_000, 60_000);
    let leader = End::Replica(0);
    for follower in [End::Replica(1), End::Replica(2)] {
        scenario = scenario
            .with(copied_us, Fault::Cut(leader, follower))
            .with(copied_us, Fault::Cut(follower, leader));
    }
    let back_us = copied_us + random.between(200_000, 300_000);
    let (peer, copy) = (End::Replica(1), End::Replica(2));
    scenario
        .with(copied_us, Fault::Cut(peer, copy))
        .with(back_us, Fault::Mend(peer, copy))
        .with(copied_us, Fault::Copy(2))
        .with(back_us, Fault::RestartFromCopy(2, random.between(100, 3_000)))
        .with(back_us, Fault::Mend(leader, copy))
        .with(back_us, Fault::Mend(copy, leader))
}

/// A follower is started from a copy, and hears from nobody for longer than its clients like to wait.
pub(crate) fn from_a_copy_that_hears_nothing(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x57a6_ed07);
    let mut scenario = Scenario::calm("hears nothing", seed, 1, random.between(1, 3) as u16);
    scenario.transport = Transport::Streams;
    scenario.disk = Some(DiskPlan { sync_us: 500, save_us: 5_000, segments: None });
    for client in &mut scenario.clients {
        (client.operations, client.operations_after) = (200, 20);
        client.think_us = random.between(100, 3_000);
    }
    let copied_us = random.between(5_000, 60_000);
    let back_us = copied_us + random.between(10_000, 40_000);
    let mended_us = back_us + random.between(150_000, 300_000);
    let copy = random.between(1, 2) as u16;
    for peer in (0..3).filter(|peer| *peer != copy).map(End::Replica) {
        let copy = End::Replica(copy);
        scenario =
            scenario.with(back_us, Fault::Cut(peer, copy)).with(mended_us, Fault::Mend(peer, copy));
    }
    // Then clients ask all.
    scenario
        .with(back_us, Fault::Pause(0))
        .with(mended_us, Fault::Resume(0))
        .with(copied_us, Fault::Copy(copy))
        .with(back_us, Fault::RestartFromCopy(copy, random.between(100, 3_000)))
}

/// All lose power, and the leader's disk with it, while the followers' logs are not synced: what these
/// have answered is nowhere, unless they waited with their answers.
pub(crate) fn without_the_leader(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x57a6_ed02);
    let mut scenario = Scenario::calm("without the leader", seed, 1, random.between(1, 3) as u16);
    scenario.disk = Some(DiskPlan { sync_us: 20_000, save_us: 1_000, segments: None });
    for client in &mut scenario.clients {
        (client.sessions, client.operations) = (4, 100);
        (client.think_us, client.queries_ppm) = (random.between(100, 5_000), 0);
    }
    let at_us = random.between(30, 300) * 1_000;
    scenario.with(at_us, Fault::Crash(0)).with(at_us, Fault::PowerLoss(1_000))
}
