//! Shares of a turn.

use super::super::turns::{CREDIT_NS, MOST_OWED_NS};
use super::*;

const SHARE: usize = 4_000;
const LENGTH: usize = 500;
const LINK: ConnectionId = ConnectionId { slot: 1, generation: 1 };
/// What one read brings, in bytes, at most.
const READ: usize = 4096;

/// A replica with another one and a client, and shares that are small.
fn with_shares() -> World {
    let mut world = World::new(MemoryNetwork::new().with_chunk(READ).with_capacity(2 * READ));
    world.add(config(Identity::Replica(0)));
    world.add(config(Identity::Client(CLIENT)));
    world.add(config(Identity::Replica(1)));
    world.until("links up", |w| w.hubs[0].client_count() == 1 && w.hubs[0].is_peer_up(1));
    world.hubs[0].turns = Turns::new(SHARE);
    // Smaller than a share, and so are reads.
    world.hubs[1].limits.frame_target_bytes = 2000;
    world
}

fn sent(number: u32) -> Vec<u8> {
    let mut message = vec![0; LENGTH];
    message[..4].copy_from_slice(&number.to_le_bytes());
    message
}

/// Messages of a source that the last poll of the replica reported.
fn reported(world: &mut World, of_client: bool) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for event in world.events[0].drain(..) {
        if let Event::Messages { from, messages } = event
            && matches!(from, Source::Client { .. }) == of_client
        {
            all.extend(messages.iter().map(<[u8]>::to_vec));
        }
    }
    all
}

#[test]
fn whoever_sends_most_gets_its_share_of_a_turn_and_nothing_is_lost() {
    let mut world = with_shares();
    for number in 0..2000 {
        world.hubs[1].send_to_peer(0, sent(number).into()).unwrap();
    }
    world.events[0].clear();
    // What fits a share, one frame more, and what one read brings.
    let most = SHARE / (LENGTH + 1024) + READ / LENGTH;
    let mut got = Vec::new();
    for _ in 0..1000 {
        world.step();
        let now = reported(&mut world, true);
        assert!(now.len() <= most, "{} in one turn, {most} at most", now.len());
        got.extend(now);
    }
    assert_eq!(got, (0..2000).map(sent).collect::<Vec<_>>());
    assert!(world.hubs[0].turns.waiting.is_empty());
}

#[test]
fn others_have_their_turn_meanwhile() {
    let mut world = with_shares();
    for number in 0..2000 {
        world.hubs[1].send_to_peer(0, sent(number).into()).unwrap();
    }
    world.run(20);
    assert!(!world.hubs[0].turns.waiting.is_empty(), "the client has sent more than its share");
    world.events[0].clear();
    world.hubs[2].send_to_peer(0, sent(7).into()).unwrap();
    world.run(3);
    assert_eq!(reported(&mut world, false), [sent(7)]);
}

#[test]
fn a_source_without_share_is_not_read_until_it_has_caught_up() {
    let mut world = with_shares();
    for number in 0..2000 {
        world.hubs[1].send_to_peer(0, sent(number).into()).unwrap();
    }
    let arrears = |world: &World| {
        let links = world.hubs[0].connections.iter().flatten();
        let of = |connection: &Connection| match &connection.state {
            State::Live(live) => live.arrears.bytes(),
            State::Handshake { .. } => 0,
        };
        links.map(of).max().unwrap()
    };
    for _ in 0..1000 {
        world.step();
        // A quarter of a share, and what the poll had read that found it out.
        assert!(arrears(&world) <= SHARE / 4 + 2 * READ, "{}", arrears(&world));
    }
    assert_eq!(world.received(0).len(), 2000);
}

#[test]
fn what_was_sent_before_a_link_closed_is_reported_before_that() {
    let mut world = with_shares();
    for number in 0..200 {
        world.hubs[1].send_to_peer(0, sent(number).into()).unwrap();
    }
    world.run(2);
    let before = world.received(0).len();
    drop(world.hubs.swap_remove(1));
    let (now, events) = (world.now, &mut world.events[0]);
    for _ in 0..50 {
        world.hubs[0].poll(Some(Duration::ZERO), now, events).unwrap();
    }
    let down = events.iter().position(|event| matches!(event, Event::ClientDown { .. }));
    let last = events.iter().rposition(|event| matches!(event, Event::Messages { .. }));
    assert!(last < Some(down.expect("the link is down")), "{before} before");
}

#[test]
fn a_peer_that_is_paused_is_read_again() {
    let mut world = with_shares();
    world.hubs[0].pause_peer(1, true);
    world.run(2);
    world.events[0].clear();
    world.hubs[2].send_to_peer(0, sent(1).into()).unwrap();
    world.run(20);
    assert!(reported(&mut world, false).is_empty(), "it is not read");
    world.hubs[0].pause_peer(1, false);
    world.run(20);
    assert_eq!(reported(&mut world, false), [sent(1)]);
}

#[test]
fn whatever_a_source_cost_it_is_heard_again() {
    let mut world = with_shares();
    world.hubs[0].charge_peer(1, u64::MAX / 2);
    world.events[0].clear();
    world.hubs[2].send_to_peer(0, sent(1).into()).unwrap();
    // A quarter of 90 ms is less than the 25 that it owes, a quarter of 110 is not.
    world.run(90);
    assert!(reported(&mut world, false).is_empty(), "it has to wait");
    world.run(20);
    assert_eq!(reported(&mut world, false), [sent(1)]);
}

/// However short turns are, and however many peers owe something, they have half of the time at most.
#[test]
fn what_is_owed_is_paid_by_time() {
    let start = Instant::now();
    for (debtors, cost_ns, parts) in [(1, 10_000_000, 4), (2, 10_000_000, 4), (5, 5_000_000, 10)] {
        let mut turns = Turns::new(SHARE);
        turns.begin(start);
        (0..debtors).for_each(|peer| turns.owe(peer, cost_ns));
        // Turns in which nothing happens pay for nothing.
        (0..1000).for_each(|_| turns.begin(start));
        turns.wait(LINK, Source::Peer(0));
        // What clients owe is paid for besides.
        turns.client_owes(3, MOST_OWED_NS);
        let due = Duration::from_nanos(parts * (cost_ns - CREDIT_NS));
        assert_eq!(turns.next_turn(), Some(due));
        let step = due / 50;
        for at in 1..50 {
            turns.begin(start + step * at);
            assert!((0..debtors).all(|peer| turns.is_over(Source::Peer(peer))), "{debtors}, {at}");
        }
        turns.begin(start + due + Duration::from_micros(1));
        assert!((0..debtors).all(|peer| !turns.is_over(Source::Peer(peer))), "{debtors}");
        assert_eq!(turns.next_turn(), Some(Duration::ZERO));
    }
}

/// What a correct peer costs keeps it from nothing, and nobody waits for what another owes.
#[test]
fn nobody_waits_for_what_others_owe() {
    let mut turns = Turns::new(SHARE);
    turns.begin(Instant::now());
    turns.owe(1, CREDIT_NS);
    turns.owe(2, MOST_OWED_NS);
    let client = Source::Client { client: 3, link: LinkId(LINK) };
    let is_over = [Source::Peer(1), Source::Peer(2), Source::Peer(3), client];
    assert_eq!(is_over.map(|source| turns.is_over(source)), [false, true, false, false]);
}

/// One client has an eighth of the time, all together have a quarter.
#[test]
fn clients_pay_by_time_as_well() {
    let start = Instant::now();
    for (debtors, parts) in [(1, 8), (2, 8), (5, 20)] {
        let mut turns = Turns::new(SHARE);
        turns.begin(start);
        (0..debtors).for_each(|client| turns.client_owes(client, 5_000_000));
        turns.owe(1, MOST_OWED_NS);
        let source = |client| Source::Client { client, link: LinkId(LINK) };
        assert!((0..debtors).all(|client| turns.is_over(source(client))));
        assert!(!turns.is_over(source(debtors)), "one that owes nothing");
        turns.wait(LINK, source(0));
        let due = Duration::from_nanos(parts * (5_000_000 - CREDIT_NS));
        assert_eq!(turns.next_turn(), Some(due));
        turns.begin(start + due - Duration::from_micros(1));
        assert!((0..debtors).all(|client| turns.is_over(source(client))));
        turns.begin(start + due + Duration::from_micros(1));
        assert!((0..debtors).all(|client| !turns.is_over(source(client))));
        // Nobody is remembered who owes nothing.
        turns.begin(start + due + Duration::from_secs(1));
        assert!(!turns.is_over(source(0)) && turns.owes_nothing());
    }
}

#[test]
fn a_client_that_was_charged_waits_with_all_its_links_and_is_heard_again() {
    let mut world = with_shares();
    world.hubs[0].charge_client(CLIENT, 10_000_000);
    world.events[0].clear();
    world.hubs[1].send_to_peer(0, sent(1).into()).unwrap();
    world.run(70);
    assert!(reported(&mut world, true).is_empty(), "an eighth of 70 ms is not 10");
    world.run(20);
    assert_eq!(reported(&mut world, true), [sent(1)]);
}

#[test]
fn a_frame_without_a_message_is_not_free() {
    let mut turns = Turns::new(SHARE);
    (0..SHARE / 1024 + 1).for_each(|_| turns.spend(Source::Peer(1), 0, 0));
    assert!(turns.is_over(Source::Peer(1)));
}

#[test]
fn what_is_dropped_costs_by_its_length() {
    assert_eq!([0, 1024, 64 << 10].map(dropped_cost_ns), [500, 1100, 38_900]);
}

/// Sources that send and cost what a seed says, at every moment as much as they are let. Each begins
/// in a mood of its own: one that costs nothing is never kept waiting, and one that costs as
/// much as it can is served again and again, at a price of a quarter of the time.
#[test]
fn whatever_others_do_each_source_is_served_in_time() {
    const SOURCES: usize = 6;
    const TURN: Duration = Duration::from_micros(200);
    for seed in 0..100 {
        let mut random = Jitter::new(Some(seed));
        let (start, mut turns) = (Instant::now(), Turns::new(SHARE));
        let mut now = start;
        let source = |at: usize| match at % 2 {
            0 => Source::Peer(at as u16),
            _ => Source::Client { client: at as u32, link: LinkId(LINK) },
        };
        let greed = [0; SOURCES].map(|_| random.below(4) as u64);
        let (mut served_at, mut cost_ns) = ([start; SOURCES], [0; SOURCES]);
        for _ in 0..20_000 {
            turns.begin(now);
            for at in 0..SOURCES {
                // All debts are at their highest, and three of a kind share what pays for them.
                let longest = Duration::from_nanos(MOST_OWED_NS * 12);
                let waited = now - served_at[at];
                assert!(waited <= longest, "seed {seed}: {at} waits for {waited:?}");
                if turns.is_over(source(at)) {
                    // By bytes only, for a turn.
                    let waited = now - served_at[at];
                    assert!(greed[at] > 0 || waited < TURN * 2, "seed {seed}: {at} waits");
                    continue;
                }
                served_at[at] = now;
                turns.spend(source(at), random.below(SHARE), 1);
                let cost = greed[at] * random.below(400_000) as u64;
                cost_ns[at] += cost;
                match source(at) {
                    Source::Peer(peer) => turns.owe(peer, cost),
                    Source::Client { client, .. } => turns.client_owes(client, cost),
                }
            }
            now += Duration::from_nanos(random.below(TURN.as_nanos() as usize) as u64);
        }
        let passed_ns = (now - start).as_nanos() as u64;
        for (at, cost) in cost_ns.into_iter().enumerate() {
            let part = if at % 2 == 0 { 4 } else { 8 };
            assert!(cost <= passed_ns / part + 2 * MOST_OWED_NS, "seed {seed}: {at} costs {cost}");
        }
    }
}
