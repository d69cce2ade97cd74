//! Tests of hubs whose peers have names.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::resolver::LookUp;
use super::tests::{World, address, config};
use super::*;
use crate::address::PeerAddress;
use crate::memory::MemoryNetwork;

/// A hub of replica 2 that knows replica 0 by name.
fn named(world: &mut World, look_up: Arc<LookUp>) -> usize {
    let mut config = config(Identity::Replica(2));
    config.peers[0].1 = "replica-0.test:100".parse().unwrap();
    let at = world.add(config);
    let waker = world.hubs[at].waker();
    world.hubs[at].resolver = Resolver::with(look_up, waker);
    at
}

/// As [`World::until`], while other threads work.
fn wait(world: &mut World, what: &str, mut done: impl FnMut(&World) -> bool) {
    for _ in 0..10_000 {
        if done(world) {
            return;
        }
        world.step();
        thread::sleep(Duration::from_millis(1));
    }
    panic!("never happened: {what}; events: {:?}", world.events);
}

fn not_found() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such host")
}

#[test]
fn a_name_that_appears_later_is_looked_up_again() {
    let mut world = World::new(MemoryNetwork::new());
    world.add(config(Identity::Replica(0)));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let hub = named(
        &mut world,
        Arc::new(move |name, port| {
            assert_eq!((name, port), ("replica-0.test", 100));
            match count.fetch_add(1, Ordering::Relaxed) {
                0..3 => Err(not_found()),
                _ => Ok(vec![address(0)]),
            }
        }),
    );
    wait(&mut world, "a link", |w| w.hubs[hub].is_peer_up(0));
    assert_eq!(asked.load(Ordering::Relaxed), 4);
    assert_eq!(world.hubs[hub].rejections().count(Reason::Unresolved), 3);
    let text = world.rejected(hub, Reason::Unresolved).unwrap();
    assert!(text.contains("replica-0.test:100") && text.contains("no such host"), "{text}");
    // It is looked up again for the next link.
    world.hubs[hub].disconnect_peer(0);
    wait(&mut world, "another look-up", |_| asked.load(Ordering::Relaxed) == 5);
    wait(&mut world, "a link", |w| w.hubs[hub].is_peer_up(0));
}

#[test]
fn of_several_addresses_each_has_its_turn() {
    let mut world = World::new(MemoryNetwork::new());
    world.add(config(Identity::Replica(0)));
    let nobody = [SocketAddr::from(([10, 9, 9, 9], 1)), SocketAddr::from(([10, 9, 9, 8], 1))];
    let all = [nobody[0], nobody[1], address(0)].to_vec();
    let hub = named(&mut world, Arc::new(move |_, _| Ok(all.clone())));
    wait(&mut world, "a link", |w| w.hubs[hub].is_peer_up(0));
    assert_eq!(world.hubs[hub].peer(0).unwrap().tried, Some(address(0)));
}

/// Nothing waits for a name server: the other link comes up, and this one does once it has answered.
#[test]
fn a_look_up_that_takes_long_holds_up_nobody() {
    let mut world = World::new(MemoryNetwork::new());
    world.add(config(Identity::Replica(0)));
    world.add(config(Identity::Replica(1)));
    let (release, released) = channel::<()>();
    let released: Mutex<Receiver<()>> = Mutex::new(released);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let hub = named(
        &mut world,
        Arc::new(move |_, _| {
            count.fetch_add(1, Ordering::Relaxed);
            let _ = released.lock().unwrap().recv();
            Ok(vec![address(0)])
        }),
    );
    wait(&mut world, "the other link", |w| w.hubs[hub].is_peer_up(1));
    // It says so, and has one look-up under way however long that takes.
    wait(&mut world, "a word", |w| w.rejected(hub, Reason::Unresolved).is_some());
    world.run(20_000);
    assert!(!world.hubs[hub].is_peer_up(0));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    drop(release);
    wait(&mut world, "the link", |w| w.hubs[hub].is_peer_up(0));
}

/// Replica 0 waits for the others to connect, and keeps places for the addresses of their names.
#[test]
fn who_connects_to_this_side_has_places_under_its_name_too() {
    let mut world = World::new(MemoryNetwork::new());
    let mut config = config(Identity::Replica(0));
    for (id, address) in &mut config.peers {
        *address = PeerAddress::Host { name: format!("replica-{id}.test").into(), port: 7 };
    }
    let hub = world.add(config);
    let waker = world.hubs[hub].waker();
    let of_name = |name: &str, port| match name {
        "replica-1.test" => Ok(vec![SocketAddr::from(([10, 0, 0, 1], port))]),
        _ => Err(not_found()),
    };
    world.hubs[hub].resolver = Resolver::with(Arc::new(of_name), waker);
    wait(&mut world, "a look-up", |w| !w.hubs[hub].peer(1).unwrap().known.is_empty());
    wait(&mut world, "the other", |w| w.rejected(hub, Reason::Unresolved).is_some());
    // Not again and again.
    world.run(1000);
    assert_eq!(world.hubs[hub].rejections().count(Reason::Unresolved), 1);
}

#[test]
fn the_system_knows_this_host_and_not_one_that_cannot_be() {
    let network = MemoryNetwork::new();
    let mut resolver = Resolver::new(network.endpoint().waker());
    resolver.start(1, "localhost".into(), 7).unwrap();
    resolver.start(2, "no-such-host.invalid".into(), 7).unwrap();
    let mut ended = Vec::new();
    // A name server may be asked for the second one, and may not answer.
    for _ in 0..6_000 {
        ended.extend(std::iter::from_fn(|| resolver.ended()));
        if ended.len() == 2 {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    for resolver::LookedUp { peer, addresses } in ended {
        match addresses {
            Ok(addresses) => {
                assert_eq!(peer, 1);
                assert!(addresses.iter().all(|it| it.ip().is_loopback() && it.port() == 7));
            }
            Err(error) => assert_eq!(peer, 2, "{error}"),
        }
    }
}
