//! Clients that read slowly, or not at all, and those that are not read.

use super::*;

/// Polls the replica alone: the client's process hangs.
fn poll_replica(world: &mut World, steps: usize) {
    for _ in 0..steps {
        let (now, events) = (world.now, &mut world.events[0]);
        world.hubs[0].poll(Some(Duration::ZERO), now, events).unwrap();
        world.now += Duration::from_millis(1);
    }
}

#[test]
fn a_client_that_takes_nothing_for_long_is_disconnected_and_counted() {
    let mut world = with_client();
    let link = world.client_link(0);
    let reply = [0; 1000];
    let sent = (0..10_000).take_while(|_| world.hubs[0].send_to_client(link, &reply).is_ok());
    let sent = sent.count();
    assert!((4100..4300).contains(&sent), "{sent}");
    poll_replica(&mut world, 9_900);
    assert_eq!(world.hubs[0].rejections().total(), 0, "bytes alone are no reason");
    assert_eq!(world.hubs[0].client_count(), 1);
    poll_replica(&mut world, 2_000);
    assert_eq!(world.hubs[0].rejections().count(Reason::SlowReader), 1);
    assert_eq!(world.hubs[0].send_to_client(link, &reply), Err(SendError::NotConnected));
    assert!(matches!(
        world.events[0].last(),
        Some(Event::ClientDown { reason: DownReason::Rejected(Reason::SlowReader), .. })
    ));
    assert_eq!((world.hubs[0].client_count(), world.hubs[0].full.len()), (0, 0));
}

/// However much waits for a client that reads, and however slowly: it is told to whom it concerns,
/// once, and so is that there is room again.
#[test]
fn a_client_that_reads_slowly_keeps_its_link() {
    let mut world = World::new(MemoryNetwork::new().with_capacity(1000));
    world.add(config(Identity::Replica(0)));
    world.add(config(Identity::Client(CLIENT)));
    world.until("client up", |w| w.hubs[0].client_count() == 1 && w.hubs[1].is_peer_up(0));
    let link = world.client_link(0);
    world.hubs[0].limits.client_queue_bytes = 100_000;
    world.hubs[0].limits.frame_target_bytes = 500;
    let told = |world: &World| {
        let full = |event: &&Event| matches!(event, Event::ClientFull { .. });
        let room = |event: &&Event| matches!(event, Event::ClientRoom { .. });
        let events = &world.events[0];
        (events.iter().filter(full).count(), events.iter().filter(room).count())
    };
    assert_eq!(world.hubs[0].client_room(link), 50_000);
    while world.hubs[0].send_to_client(link, &[7; 500]).is_ok() {}
    assert_eq!(world.hubs[0].client_room(link), 0);
    // Far less than all of it in each tenth of the time in which it must take something.
    for _ in 0..40 {
        poll_replica(&mut world, 2_000);
        world.step();
    }
    assert_eq!(world.hubs[0].rejections().total(), 0);
    assert_eq!(told(&world), (1, 0));
    world.until("all of it", |w| w.received(1).len() >= 180);
    world.run(200);
    assert_eq!(told(&world), (1, 1));
    assert_eq!(world.hubs[0].client_room(link), 50_000);
}

/// Whoever found no room can wait for some: a message that is sealed at once fills the link as well.
#[test]
fn a_link_without_room_tells_when_it_has_some() {
    let mut world = World::new(MemoryNetwork::new().with_capacity(1000));
    world.add(config(Identity::Replica(0)));
    world.add(config(Identity::Client(CLIENT)));
    world.until("client up", |w| w.hubs[0].client_count() == 1 && w.hubs[1].is_peer_up(0));
    let link = world.client_link(0);
    world.hubs[0].limits.client_queue_bytes = 100_000;
    world.hubs[0].limits.frame_target_bytes = 500;
    world.hubs[0].await_client_room(link);
    poll_replica(&mut world, 1);
    assert!(matches!(world.events[0].pop(), Some(Event::ClientRoom { .. })), "it has room");
    // One message of half the queue, which is sealed at once.
    world.hubs[0].send_to_client(link, &[7; 50_000]).unwrap();
    assert_eq!((world.hubs[0].client_room(link), world.hubs[0].full.len()), (0, 1));
    poll_replica(&mut world, 1);
    assert!(matches!(world.events[0].pop(), Some(Event::ClientFull { .. })));
    world.hubs[0].await_client_room(link);
    let told = |world: &World| {
        world.events[0].iter().filter(|event| matches!(event, Event::ClientRoom { .. })).count()
    };
    world.until("room", |w| told(w) > 0);
    world.run(200);
    assert_eq!((told(&world), world.hubs[0].client_room(link)), (1, 50_000));
    // Far from full, and somebody waits for more room than there is.
    world.hubs[0].send_to_client(link, &[7; 30_000]).unwrap();
    world.hubs[0].await_client_room(link);
    world.until("room again", |w| told(w) > 1);
    assert_eq!((told(&world), world.hubs[0].full.len()), (2, 0));
}

#[test]
fn pausing_one_client_does_not_pause_others() {
    let mut world = World::new(MemoryNetwork::new());
    world.add(config(Identity::Replica(0)));
    for incarnation in [1, 2] {
        world.add(HubConfig { incarnation, ..config(Identity::Client(CLIENT)) });
        world.until("client up", |w| w.hubs[incarnation as usize].is_peer_up(0));
    }
    world.until("clients up", |w| w.hubs[0].client_count() == 2);
    let second = world.client_link(0);
    world.hubs[0].pause_client(second, true);
    // What pauses all, and ends, leaves the one paused.
    world.hubs[0].pause_clients(true);
    world.hubs[0].pause_clients(false);
    world.hubs[1].send_to_peer_now(0, b"first").unwrap();
    world.hubs[2].send_to_peer_now(0, b"second").unwrap();
    world.run(20);
    assert_eq!(world.received(0), [b"first".to_vec()]);
    world.hubs[0].pause_client(second, false);
    world.until("the second", |w| w.received(0).len() == 2);
}
