//! Shares of a turn.

use super::*;

const SHARE: usize = 4_000;
const LENGTH: usize = 500;
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
    assert!(!world.hubs[0].turns.is_any_waiting());
}

#[test]
fn others_have_their_turn_meanwhile() {
    let mut world = with_shares();
    for number in 0..2000 {
        world.hubs[1].send_to_peer(0, sent(number).into()).unwrap();
    }
    world.run(20);
    assert!(world.hubs[0].turns.is_any_waiting(), "the client has sent more than its share");
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
    world.hubs[0].charge_peer(1, usize::MAX / 2);
    world.events[0].clear();
    world.hubs[2].send_to_peer(0, sent(1).into()).unwrap();
    world.run(100);
    assert!(reported(&mut world, false).is_empty(), "it has to wait");
    world.run(200);
    assert_eq!(reported(&mut world, false), [sent(1)]);
}
