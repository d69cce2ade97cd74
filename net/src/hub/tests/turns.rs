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
