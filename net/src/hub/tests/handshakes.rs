//! Handshakes that do not end, floods of them, and garbage.

use super::*;

/// A transport that is used by hand, to misbehave.
struct Attacker {
    transport: MemoryTransport,
    connection: ConnectionId,
}

impl Attacker {
    fn connect(network: &MemoryNetwork) -> Self {
        Self::connect_from(network, [127, 0, 0, 1])
    }

    fn connect_from(network: &MemoryNetwork, from: [u8; 4]) -> Self {
        let mut transport = network.endpoint().with_address(from.into());
        let connection = transport.connect(address(0));
        Self { transport, connection }
    }

    fn poll(&mut self) -> Vec<Completion> {
        let mut completions = Vec::new();
        self.transport.poll(Some(Duration::ZERO), &mut completions).unwrap();
        completions
    }

    fn send(&mut self, data: &[u8]) {
        self.transport.send(self.connection, data.to_vec());
    }
}

#[test]
fn garbage_closes_the_connection_and_is_counted() {
    let mut world = World::new(MemoryNetwork::new());
    world.add(config(Identity::Replica(0)));
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0xff; 4096], &[22, 3, 3, 0xff, 0xff]] {
        let mut attacker = Attacker::connect(&world.network);
        world.run(2);
        attacker.poll();
        attacker.send(garbage);
        attacker.poll();
        world.run(2);
        let closed = attacker.poll();
        assert!(matches!(closed.last(), Some(Completion::Closed { .. })), "{closed:?}");
    }
    assert_eq!(world.hubs[0].rejections().count(Reason::Garbage), 3);
    assert_eq!(world.hubs[0].half_open.len(), 0);
}

#[test]
fn half_open_and_slow_handshakes_end_at_their_deadline() {
    let mut world = World::new(MemoryNetwork::new());
    world.add(config(Identity::Replica(0)));
    let mut silent = Attacker::connect(&world.network);
    let mut slow = Attacker::connect(&world.network);
    world.run(4900);
    silent.poll();
    slow.poll();
    slow.send(&[22, 3, 1, 2, 0, 1]);
    slow.poll();
    world.run(50);
    assert_eq!(world.hubs[0].rejections().total(), 0);
    world.run(200);
    assert_eq!(world.hubs[0].rejections().count(Reason::Timeout), 2);
    assert_eq!(world.hubs[0].half_open.len(), 0);
    assert!(matches!(silent.poll().last(), Some(Completion::Closed { .. })));
}

#[test]
fn time_in_which_nobody_polled_does_not_count_for_handshakes() {
    let mut world = World::new(MemoryNetwork::new());
    world.add(config(Identity::Replica(0)));
    assert!(!world.hubs[0].is_connecting());
    let _silent = Attacker::connect(&world.network);
    world.run(100);
    assert!(world.hubs[0].is_connecting());
    let busy = Duration::from_secs(60);
    world.now += busy;
    world.hubs[0].held_up(busy);
    world.run(4800);
    assert_eq!(world.hubs[0].rejections().total(), 0);
    world.run(200);
    assert_eq!(world.hubs[0].rejections().count(Reason::Timeout), 1);
    assert!(!world.hubs[0].is_connecting());
}

#[test]
fn a_replica_that_never_answers_is_given_up_and_tried_again() {
    let mut world = World::new(MemoryNetwork::new());
    let mut mute = world.network.endpoint();
    mute.listen(address(0)).unwrap();
    world.add(config(Identity::Replica(1)));
    let mut attempts = 0;
    for _ in 0..12_000 {
        world.step();
        let mut completions = Vec::new();
        mute.poll(Some(Duration::ZERO), &mut completions).unwrap();
        attempts += completions
            .iter()
            .filter(|completion| matches!(completion, Completion::Accepted { .. }))
            .count();
    }
    assert_eq!(attempts, 3);
    assert_eq!(world.hubs[0].rejections().count(Reason::Timeout), 2);
}

#[test]
fn a_flood_of_half_open_connections_does_not_keep_others_out() {
    let mut world = World::new(MemoryNetwork::new());
    let mut server = config(Identity::Replica(0));
    server.limits.handshakes = 4;
    world.add(server);
    let _flood: Vec<_> = (0..20).map(|_| Attacker::connect(&world.network)).collect();
    world.run(3);
    assert_eq!(world.hubs[0].half_open.len(), 4);
    assert_eq!(world.hubs[0].rejections().count(Reason::Capacity), 16);
    world.add(config(Identity::Client(CLIENT)));
    world.until("client up", |w| w.hubs[1].is_peer_up(0));
}

/// Connections that are opened, and more again with every millisecond.
struct Flood {
    network: MemoryNetwork,
    addresses: Vec<[u8; 4]>,
    open: Vec<Attacker>,
}

impl Flood {
    /// So many new connections in each millisecond; those closed are given up.
    fn step(&mut self, count: usize) {
        for _ in 0..count {
            let from = self.addresses[self.open.len() % self.addresses.len()];
            self.open.push(Attacker::connect_from(&self.network, from));
        }
    }
}

/// Runs a flood, and polls all hubs but the first, which it is for, only every 20 ms: their round
/// trips take 40 ms.
fn flood_until(
    world: &mut World,
    flood: &mut Flood,
    steps: usize,
    done: impl Fn(&World) -> bool,
) -> bool {
    for step in 0..steps {
        flood.step(2);
        for (index, hub) in world.hubs.iter_mut().enumerate() {
            if index == 0 || step % 40 == 0 {
                hub.poll(Some(Duration::ZERO), world.now, &mut world.events[index]).unwrap();
            }
        }
        world.now += Duration::from_millis(1);
        if done(world) {
            return true;
        }
    }
    false
}

fn server_with_places(handshakes: usize) -> World {
    let mut world = World::new(MemoryNetwork::new());
    let mut server = config(Identity::Replica(0));
    server.limits.handshakes = handshakes;
    world.add(server);
    world
}

#[test]
fn a_flood_from_one_address_does_not_keep_slow_clients_and_peers_out() {
    let mut world = server_with_places(16);
    world.add_at(config(Identity::Client(CLIENT)), [10, 0, 7, 1]);
    world.add_at(HubConfig { listen: None, ..config(Identity::Replica(1)) }, [10, 0, 0, 1]);
    let network = world.network.clone();
    let mut flood = Flood { network, addresses: vec![[10, 66, 0, 1]], open: Vec::new() };
    let both = |w: &World| w.hubs[0].client_count() == 1 && w.hubs[0].is_peer_up(1);
    assert!(flood_until(&mut world, &mut flood, 400, both));
    assert!(world.hubs[0].rejections().count(Reason::Capacity) > 100);
    assert_eq!(world.hubs[1].rejections().total() + world.hubs[2].rejections().total(), 0);
}

#[test]
fn a_flood_from_everywhere_does_not_keep_a_slow_peer_out() {
    let mut world = server_with_places(16);
    world.add_at(HubConfig { listen: None, ..config(Identity::Replica(1)) }, [10, 0, 0, 1]);
    let network = world.network.clone();
    let addresses = (0..200).map(|last| [10, 66, 1, last]).collect();
    let mut flood = Flood { network, addresses, open: Vec::new() };
    assert!(flood_until(&mut world, &mut flood, 400, |w| w.hubs[0].is_peer_up(1)));
    assert_eq!(world.hubs[1].rejections().total(), 0);
}

/// At both stages: before the first message arrived, and in the middle.
#[test]
fn who_gives_way_is_told_why_and_what_to_do() {
    for steps_before in [0, 45] {
        let mut world = server_with_places(1);
        world.add_at(config(Identity::Client(CLIENT)), [10, 66, 0, 1]);
        let network = world.network.clone();
        let mut flood = Flood { network, addresses: vec![[10, 66, 0, 1]], open: Vec::new() };
        let told = |w: &World| w.rejected(1, Reason::Capacity).is_some();
        for step in 0..steps_before {
            for (index, hub) in world.hubs.iter_mut().enumerate() {
                if index == 0 || step % 40 == 0 {
                    hub.poll(Some(Duration::ZERO), world.now, &mut world.events[index]).unwrap();
                }
            }
            world.now += Duration::from_millis(1);
        }
        assert!(flood_until(&mut world, &mut flood, 2000, told), "{:?}", world.events[1]);
        let text = world.rejected(1, Reason::Capacity).unwrap();
        assert!(text.contains("too many") && text.contains("start fewer clients"), "{text}");
    }
}
