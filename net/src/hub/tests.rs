//! Hubs on a memory network, with a clock of the test's own.

mod clients;
mod handshakes;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::cipher::LinkCipher;
use crate::keys::{KeyRing, StaticKey};
use crate::memory::{MemoryNetwork, MemoryTransport};
use crate::reject::Reason;

const CLIENT: u32 = 9;
const STRANGER: u32 = 99;

fn key(identity: Identity) -> StaticKey {
    let (kind, id) = match identity {
        Identity::Replica(id) => (1, u32::from(id)),
        Identity::Client(id) => (2, id),
    };
    let mut seed = [kind; 32];
    seed[..4].copy_from_slice(&id.to_le_bytes());
    StaticKey::from_seed(&seed)
}

pub(super) fn address(replica: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1], 100 + replica))
}

pub(super) fn config(identity: Identity) -> HubConfig {
    let mut ring = KeyRing::new();
    for id in 0..3 {
        ring.add(Identity::Replica(id), key(Identity::Replica(id)).public()).unwrap();
    }
    ring.add(Identity::Client(CLIENT), key(Identity::Client(CLIENT)).public()).unwrap();
    let own = match identity {
        Identity::Replica(id) => Some(id),
        Identity::Client(_) => None,
    };
    HubConfig {
        identity,
        key: key(identity),
        keyring: Arc::new(ring),
        group_digest: [3; 32],
        pillars: 4,
        incarnation: 0,
        application: None,
        cipher: LinkCipher::Gmac,
        listen: own.map(address),
        peers: (0..3).filter(|&id| Some(id) != own).map(|id| (id, address(id).into())).collect(),
        limits: Limits::default(),
        jitter_seed: Some(1),
    }
}

/// Hubs, and what each reported.
pub(super) struct World {
    network: MemoryNetwork,
    now: Instant,
    pub(super) hubs: Vec<Hub<MemoryTransport>>,
    pub(super) events: Vec<Vec<Event>>,
}

impl World {
    pub(super) fn new(network: MemoryNetwork) -> Self {
        Self { network, now: Instant::now(), hubs: Vec::new(), events: Vec::new() }
    }

    pub(super) fn add(&mut self, config: HubConfig) -> usize {
        self.hubs.push(Hub::new(self.network.endpoint(), config).unwrap());
        self.events.push(Vec::new());
        self.hubs.len() - 1
    }

    /// A hub whose connections come from this address.
    fn add_at(&mut self, config: HubConfig, from: [u8; 4]) -> usize {
        let transport = self.network.endpoint().with_address(from.into());
        self.hubs.push(Hub::new(transport, config).unwrap());
        self.events.push(Vec::new());
        self.hubs.len() - 1
    }

    pub(super) fn step(&mut self) {
        for (hub, events) in self.hubs.iter_mut().zip(&mut self.events) {
            hub.poll(Some(Duration::ZERO), self.now, events).unwrap();
        }
        self.now += Duration::from_millis(1);
    }

    pub(super) fn run(&mut self, steps: usize) {
        (0..steps).for_each(|_| self.step());
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&Self) -> bool) {
        for _ in 0..5000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("never happened: {what}; events: {:?}", self.events);
    }

    fn received(&self, hub: usize) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for event in &self.events[hub] {
            if let Event::Messages { messages, .. } = event {
                all.extend(messages.iter().map(<[u8]>::to_vec));
            }
        }
        all
    }

    fn client_link(&self, hub: usize) -> LinkId {
        let link = |event: &Event| match event {
            Event::ClientUp { link, .. } => Some(*link),
            _ => None,
        };
        self.events[hub].iter().rev().find_map(link).expect("a client came up")
    }

    pub(super) fn rejected(&self, hub: usize, reason: Reason) -> Option<&str> {
        self.events[hub].iter().find_map(|event| match event {
            Event::Rejected { reason: it, message, .. } if *it == reason => Some(message.as_str()),
            _ => None,
        })
    }
}

fn two_replicas(network: MemoryNetwork) -> World {
    let mut world = World::new(network);
    world.add(config(Identity::Replica(0)));
    world.add(config(Identity::Replica(1)));
    world.until("peers up", |w| w.hubs[0].is_peer_up(1) && w.hubs[1].is_peer_up(0));
    world
}

fn with_client() -> World {
    let mut world = World::new(MemoryNetwork::new());
    world.add(config(Identity::Replica(0)));
    world.add(config(Identity::Client(CLIENT)));
    world.until("client up", |w| w.hubs[0].client_count() == 1 && w.hubs[1].is_peer_up(0));
    world
}

#[test]
fn what_a_hub_has_waited_is_counted() {
    let mut world = with_client();
    let hub = &mut world.hubs[0];
    let before = hub.waited();
    hub.poll(Some(Duration::ZERO), Instant::now(), &mut Vec::new()).unwrap();
    assert_eq!(hub.waited(), before);
    hub.poll(Some(Duration::from_millis(2)), Instant::now(), &mut Vec::new()).unwrap();
    assert!(hub.waited() > before);
}

/// What a link takes while the hub polls busily makes room for the rest, and nothing else may ever happen.
#[test]
fn a_hub_deals_with_what_came_back_before_it_sleeps() {
    let mut world = two_replicas(MemoryNetwork::new().with_capacity(16 << 20));
    let mut hub = world.hubs.swap_remove(0);
    hub.limits.link_window_bytes = 100_000;
    (0..100).for_each(|_| hub.busy_poll.waited(Duration::ZERO));
    assert!(hub.busy_poll.time().is_some());
    for _ in 0..20 {
        hub.send_to_peer(1, vec![7; 64 << 10].into()).unwrap();
    }
    let (waker, (all, is_all)) = (hub.waker(), std::sync::mpsc::channel());
    let thread = std::thread::spawn(move || {
        while hub.unsent_bytes(1) > 0 {
            hub.poll(None, Instant::now(), &mut Vec::new()).unwrap();
        }
        let _ = all.send(());
    });
    let result = is_all.recv_timeout(Duration::from_secs(30));
    if result.is_err() {
        waker.wake();
    }
    assert_eq!(result, Ok(()), "the hub sleeps, and the rest waits");
    thread.join().unwrap();
}

#[test]
fn three_replicas_find_each_other_and_talk() {
    for chunk in [1, 100, usize::MAX] {
        let mut world = World::new(MemoryNetwork::new().with_chunk(chunk));
        for id in 0..3 {
            world.add(config(Identity::Replica(id)));
        }
        let pairs = [(0, 1), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1)];
        world.until("all up", |w| pairs.iter().all(|&(a, b)| w.hubs[a].is_peer_up(b as u16)));
        for (from, to) in pairs {
            let text = format!("from {from} to {to}");
            world.hubs[from].send_to_peer(to as u16, text.into()).unwrap();
            world.hubs[from].send_to_peer_now(to as u16, b"now").unwrap();
        }
        world.until("all received", |w| (0..3).all(|hub| w.received(hub).len() == 4));
        assert!(world.received(2).contains(&b"from 1 to 2".to_vec()));
        assert_eq!(world.hubs[0].rejections().total(), 0);
    }
}

#[test]
fn messages_of_one_flush_share_a_frame() {
    let mut world = two_replicas(MemoryNetwork::new());
    let before = world.hubs[0].traffic().frames_out;
    for order in 0..1000_u64 {
        let message = Bytes::copy_from_slice(&order.to_le_bytes());
        world.hubs[0].send_to_peer(1, message).unwrap();
    }
    world.until("received", |w| w.received(1).len() == 1000);
    assert_eq!(world.hubs[0].traffic().frames_out - before, 1);
    let expected = (0..1000_u64).map(|order| order.to_le_bytes().to_vec());
    assert!(world.received(1).into_iter().eq(expected));
}

#[test]
fn requests_and_replies_flow_and_the_incarnation_arrives() {
    let mut world = World::new(MemoryNetwork::new());
    world.add(config(Identity::Replica(0)));
    for incarnation in [5, 6] {
        world.add(HubConfig { incarnation, ..config(Identity::Client(CLIENT)) });
    }
    world.until("clients up", |w| w.hubs[0].client_count() == 2);
    world.until("replica up", |w| w.hubs[1].is_peer_up(0) && w.hubs[2].is_peer_up(0));
    world.hubs[1].send_to_peer_now(0, b"request").unwrap();
    world.until("request", |w| !w.received(0).is_empty());
    let Some(Event::Messages { from: Source::Client { client: CLIENT, link }, .. }) =
        world.events[0].last()
    else {
        panic!("{:?}", world.events[0])
    };
    let link = *link;
    world.hubs[0].write_to_client(link, |writer| (0..3).for_each(|_| writer.put(b"re"))).unwrap();
    world.until("reply", |w| w.received(1) == [b"rerere".to_vec()]);
    assert!(world.received(2).is_empty());
}

#[test]
fn a_slow_peer_holds_a_bounded_number_of_sealed_bytes() {
    let mut world = two_replicas(MemoryNetwork::new().with_capacity(1000));
    world.hubs[0].limits.link_window_bytes = 10_000;
    world.hubs[0].limits.frame_target_bytes = 1000;
    for _ in 0..1000 {
        world.hubs[0].send_to_peer(1, Bytes::from(vec![0; 100])).unwrap();
    }
    let (now, mut events) = (world.now, Vec::new());
    for _ in 0..20 {
        world.hubs[0].poll(Some(Duration::ZERO), now, &mut events).unwrap();
    }
    // 104 bytes each with their length. What is sealed is within the window and one frame.
    let unsealed = world.hubs[0].peers[1].as_ref().unwrap().queue.bytes();
    let sealed = world.hubs[0].unsent_bytes(1) - unsealed;
    assert!((10_000..11_200).contains(&sealed), "{sealed}");
    assert!((850 * 104..950 * 104).contains(&unsealed), "{unsealed}");
    world.until("the rest", |w| w.received(1).len() == 1000);
    assert_eq!(world.hubs[0].unsent_bytes(1), 0);
}

#[test]
fn a_broken_link_is_made_again_without_what_was_queued() {
    let mut world = two_replicas(MemoryNetwork::new());
    world.hubs[0].send_to_peer(1, Bytes::from_static(b"lost")).unwrap();
    world.hubs[0].disconnect_peer(1);
    assert_eq!(world.hubs[0].send_to_peer_now(1, b"x"), Err(SendError::NotConnected));
    let refused = world.hubs[0].send_to_peer(1, Bytes::from_static(b"x"));
    assert_eq!(refused, Err(SendError::NotConnected));
    world.until("up again", |w| w.hubs[0].is_peer_up(1) && w.hubs[1].is_peer_up(0));
    world.hubs[0].send_to_peer(1, Bytes::from_static(b"again")).unwrap();
    world.until("the message", |w| w.received(1) == [b"again".to_vec()]);
    let downs = world.events.concat_downs();
    assert_eq!(downs, [(1, DownReason::Disconnected), (0, DownReason::Closed)]);
}

trait Downs {
    fn concat_downs(&self) -> Vec<(u16, DownReason)>;
}

impl Downs for Vec<Vec<Event>> {
    fn concat_downs(&self) -> Vec<(u16, DownReason)> {
        let down = |event: &Event| match event {
            Event::PeerDown { peer, reason } => Some((*peer, *reason)),
            _ => None,
        };
        self.iter().flatten().filter_map(down).collect()
    }
}

#[test]
fn a_newer_link_takes_the_place_of_the_old_one() {
    let mut world = two_replicas(MemoryNetwork::new());
    // Replica 1 starts again elsewhere while its first process hangs and never closes anything.
    let hung = world.hubs.remove(1);
    world.events.remove(1);
    world.add(HubConfig { listen: None, ..config(Identity::Replica(1)) });
    world.until("superseded", |w| {
        w.events[0].iter().any(|event| {
            matches!(event, Event::PeerDown { peer: 1, reason: DownReason::Superseded })
        })
    });
    world.until("up again", |w| w.hubs[1].is_peer_up(0));
    world.hubs[0].send_to_peer(1, Bytes::from_static(b"new")).unwrap();
    world.until("the message", |w| w.received(1) == [b"new".to_vec()]);
    drop(hung);
    world.run(10);
    assert!(world.hubs[0].is_peer_up(1));

    let mut world = with_client();
    world.add(config(Identity::Client(CLIENT)));
    world.until("superseded", |w| {
        w.events[0]
            .iter()
            .any(|event| matches!(event, Event::ClientDown { reason: DownReason::Superseded, .. }))
    });
    assert_eq!(world.hubs[0].client_count(), 1);
}

#[test]
fn more_than_a_frame_goes_in_several_and_too_long_is_refused() {
    let mut world = with_client();
    let link = world.client_link(0);
    for size in [1 << 19, 1 << 19, 10, (1 << 20) - 4, 0] {
        world.hubs[0].send_to_client(link, &vec![1; size]).unwrap();
    }
    let limit = (1 << 20) - 4;
    let error = world.hubs[0].send_to_client(link, &vec![1; 1 << 20]).unwrap_err();
    assert_eq!(error, SendError::TooLong { length: 1 << 20, limit });
    world.until("all", |w| w.received(1).len() == 5);
    let sizes: Vec<_> = world.received(1).iter().map(Vec::len).collect();
    assert_eq!(sizes, [1 << 19, 1 << 19, 10, limit, 0]);
    let message = Bytes::from(vec![0; 1 << 20]);
    assert!(matches!(world.hubs[1].send_to_peer(0, message), Err(SendError::TooLong { .. })));
    let unknown = world.hubs[1].send_to_peer_now(7, b"");
    assert_eq!(unknown, Err(SendError::UnknownPeer(7)));
}

#[test]
fn pausing_clients_stops_them_but_not_peers() {
    let mut world = two_replicas(MemoryNetwork::new());
    let client = world.add(config(Identity::Client(CLIENT)));
    world.until("client up", |w| w.hubs[client].is_peer_up(0));
    world.until("client up", |w| w.hubs[0].client_count() == 1);
    world.hubs[0].pause_clients(true);
    world.hubs[client].send_to_peer_now(0, b"request").unwrap();
    world.hubs[1].send_to_peer_now(0, b"prepare").unwrap();
    world.run(20);
    assert_eq!(world.received(0), [b"prepare".to_vec()]);
    world.hubs[0].pause_clients(false);
    world.until("the request", |w| w.received(0).len() == 2);
}

#[test]
fn another_group_configuration_is_reported_on_both_sides() {
    let mut world = World::new(MemoryNetwork::new());
    world.add(config(Identity::Replica(0)));
    world.add(HubConfig { group_digest: [4; 32], ..config(Identity::Replica(1)) });
    let reason = Reason::ConfigurationMismatch;
    world.until("reported", |w| (0..2).all(|hub| w.rejected(hub, reason).is_some()));
    let text = world.rejected(0, reason).unwrap();
    assert!(text.contains("replica 1 runs another group configuration"), "{text}");
    assert!(!world.hubs[0].is_peer_up(1));
}

#[test]
fn an_unknown_client_is_refused() {
    let mut world = World::new(MemoryNetwork::new());
    world.add(config(Identity::Replica(0)));
    world.add(config(Identity::Client(STRANGER)));
    world.until("refused", |w| w.rejected(0, Reason::UnknownKey).is_some());
    world.until("told", |w| w.rejected(1, Reason::RefusedByPeer).is_some());
    assert_eq!(world.hubs[0].client_count(), 0);
}

#[test]
fn places_for_clients_are_limited_and_the_client_is_told() {
    for by_client in [true, false] {
        let mut world = World::new(MemoryNetwork::new());
        let mut server = config(Identity::Replica(0));
        if by_client {
            server.limits.links_per_client = 1;
        } else {
            server.limits.clients = 1;
        }
        world.add(server);
        world.add(HubConfig { incarnation: 1, ..config(Identity::Client(CLIENT)) });
        world.until("first", |w| w.hubs[1].is_peer_up(0));
        world.add(HubConfig { incarnation: 2, ..config(Identity::Client(CLIENT)) });
        world.until("second", |w| w.rejected(2, Reason::RefusedByPeer).is_some());
        assert_eq!(world.hubs[0].rejections().count(Reason::Capacity), 1);
        assert!(world.hubs[0].client_count() == 1 && world.hubs[1].is_peer_up(0));
    }
}

#[test]
fn too_many_open_files_are_explained_with_the_number_needed() {
    let mut world = World::new(MemoryNetwork::new());
    world.add(config(Identity::Client(CLIENT)));
    let hub = &mut world.hubs[0];
    let listener = crate::transport::ListenerId(0);
    let error = || std::io::Error::from_raw_os_error(24);
    hub.complete(Completion::AcceptFailed { listener, error: error() });
    let Some(Dial::Busy(connection, _)) = ({
        hub.dial(world.now);
        hub.start_clocks(world.now);
        hub.dial(world.now);
        hub.peers[0].as_ref().map(|peer| peer.dial)
    }) else {
        panic!("it connects")
    };
    hub.complete(Completion::ConnectFailed { connection, error: error() });
    world.step();
    let needed = format!("ulimit -n {}", world.hubs[0].files.needed);
    let told = world.events[0].iter().filter(|event| match event {
        Event::Rejected { reason: Reason::Capacity, message, .. } => message.contains(&needed),
        _ => false,
    });
    assert_eq!(told.count(), 2, "{:?}", world.events[0]);
}

#[test]
fn an_idle_hub_sleeps_until_its_next_deadline() {
    let world = with_client();
    let (hub, now) = (&world.hubs[0], world.now);
    assert_eq!(hub.timeout(Some(Duration::from_secs(1)), now), Some(Duration::from_secs(1)));
    assert!(hub.timeout(None, now).is_none_or(|it| it > Duration::from_secs(1)));
}

#[test]
fn a_configuration_that_contradicts_itself_is_refused() {
    let network = MemoryNetwork::new();
    let mut twice = config(Identity::Replica(0));
    twice.peers.push((1, address(1).into()));
    assert!(matches!(Hub::new(network.endpoint(), twice), Err(HubError::BadPeer(1))));
    let mut keyless = config(Identity::Replica(0));
    keyless.peers.push((7, address(7).into()));
    assert!(matches!(Hub::new(network.endpoint(), keyless), Err(HubError::NoKey(_))));
    let _first = Hub::new(network.endpoint(), config(Identity::Replica(0))).unwrap();
    let second = Hub::new(network.endpoint(), config(Identity::Replica(0)));
    assert!(matches!(second, Err(HubError::Listen { .. })));
}

#[test]
fn an_envelope_reaches_the_client_through_a_peer_and_no_other_way() {
    let mut world = two_replicas(MemoryNetwork::new());
    world.add(config(Identity::Client(CLIENT)));
    world.until("client up", |w| (0..2).all(|id| w.hubs[2].is_peer_up(id)));
    world.until("client known", |w| (0..2).all(|id| w.hubs[id].client_count() == 1));
    let links = [world.client_link(0), world.client_link(1)];

    let mut envelope = Vec::new();
    assert!(world.hubs[1].seal_for_client(links[1], b"reply", &mut envelope));
    world.hubs[0].relay_to_client(links[0], |writer| writer.put(&envelope)).unwrap();
    world.until("relayed", |w| w.received(2) == [envelope.clone()]);
    let mut open = |peer, envelope: &[u8]| {
        world.hubs[2].open_from_peer(peer, &mut envelope.to_vec()).map(<[u8]>::to_vec)
    };
    assert_eq!(open(1, &envelope), Some(b"reply".to_vec()));
    assert_eq!((open(0, &envelope), open(2, &envelope), open(9, &envelope)), (None, None, None));
    assert_eq!(open(1, b"short"), None);

    // Half of what may wait is enough: the link is not lost by what others send over it.
    let piece = vec![0; 32 << 10];
    let mut taken = 0;
    let refused = loop {
        match world.hubs[0].relay_to_client(links[0], |writer| writer.put(&piece)) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, SendError::QueueFull { .. }), "{refused:?}");
    assert!((60..=64).contains(&taken), "{taken} pieces");
    world.hubs[0].send_to_client(links[0], &piece).unwrap();
    world.until("the rest", |w| w.received(2).len() == 1 + taken + 1);

    // A new link has new keys.
    world.hubs[1].disconnect_client(links[1]);
    world.until("down", |w| !w.hubs[2].is_peer_up(1));
    world.until("up again", |w| w.hubs[2].is_peer_up(1));
    assert_eq!(world.hubs[2].open_from_peer(1, &mut envelope), None);
    assert!(!world.hubs[1].seal_for_client(links[1], b"reply", &mut envelope));
}
