//! Hubs over real TCP on the loopback interface. Every wait has a bound.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use hybster_net::cipher::TAG_BYTES;
use hybster_net::frame;
use hybster_net::handshake::{Established, HandshakeConfig, Handshaker, Progress};
use hybster_net::{
    AnyTransport, DownReason, Event, Hub, HubConfig, Identity, KeyRing, Limits, LinkCipher, LinkId,
    Reason, SendError, Source, StaticKey,
};

use crate::KIND;

const CLIENT: Identity = Identity::Client(9);
const PATIENCE: Duration = Duration::from_secs(20);

fn key(identity: Identity) -> StaticKey {
    let (kind, id) = match identity {
        Identity::Replica(id) => (1, u32::from(id)),
        Identity::Client(id) => (2, id),
    };
    let mut seed = [kind; 32];
    seed[..4].copy_from_slice(&id.to_le_bytes());
    StaticKey::from_seed(&seed)
}

fn ring() -> Arc<KeyRing> {
    let mut ring = KeyRing::new();
    for identity in [Identity::Replica(0), Identity::Replica(1), CLIENT] {
        ring.add(identity, key(identity).public()).unwrap();
    }
    Arc::new(ring)
}

fn config(identity: Identity, peers: &[(u16, SocketAddr)]) -> HubConfig {
    let listens = matches!(identity, Identity::Replica(_));
    HubConfig {
        identity,
        key: key(identity),
        keyring: ring(),
        group_digest: [3; 32],
        pillars: 4,
        incarnation: 0,
        application: None,
        cipher: LinkCipher::Gmac,
        listen: listens.then(|| SocketAddr::from(([127, 0, 0, 1], 0))),
        peers: peers.iter().map(|(id, address)| (*id, (*address).into())).collect(),
        limits: Limits::default(),
        jitter_seed: Some(1),
    }
}

fn nowhere() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 1))
}

struct Node {
    hub: Hub<AnyTransport>,
    events: Vec<Event>,
}

impl Node {
    fn new(config: HubConfig) -> Self {
        let transport = AnyTransport::new(KIND).unwrap();
        Self { hub: Hub::new(transport, config).unwrap(), events: Vec::new() }
    }

    fn server() -> Self {
        Self::new(config(Identity::Replica(0), &[(1, nowhere())]))
    }

    fn address(&self) -> SocketAddr {
        self.hub.local_address().unwrap()
    }

    fn step(&mut self) {
        let timeout = Some(Duration::from_millis(1));
        self.hub.poll(timeout, Instant::now(), &mut self.events).unwrap();
    }

    fn received(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        for event in &self.events {
            if let Event::Messages { messages, .. } = event {
                all.extend(messages.iter().map(<[u8]>::to_vec));
            }
        }
        all
    }

    fn rejected(&self, reason: Reason) -> Option<&str> {
        self.events.iter().find_map(|event| match event {
            Event::Rejected { reason: it, message, .. } if *it == reason => Some(message.as_str()),
            _ => None,
        })
    }

    /// Its link to the other replica is up.
    fn has_peer(&self) -> bool {
        (0..2).any(|peer| self.hub.is_peer_up(peer))
    }

    fn client_link(&self) -> Option<LinkId> {
        self.events.iter().rev().find_map(|event| match event {
            Event::ClientUp { link, .. } => Some(*link),
            _ => None,
        })
    }
}

fn until(what: &str, nodes: &mut [&mut Node], mut done: impl FnMut(&[&mut Node]) -> bool) {
    let start = Instant::now();
    while !done(nodes) {
        assert!(start.elapsed() < PATIENCE, "never happened: {what}");
        nodes.iter_mut().for_each(|node| node.step());
    }
}

fn pair(identity: Identity) -> (Node, Node) {
    let mut server = Node::server();
    let mut other = Node::new(config(identity, &[(0, server.address())]));
    until("up", &mut [&mut server, &mut other], |nodes| {
        nodes[1].hub.is_peer_up(0)
            && (nodes[0].hub.is_peer_up(1) || nodes[0].hub.client_count() == 1)
    });
    (server, other)
}

fn pattern(length: usize, seed: usize) -> Bytes {
    (0..length).map(|index| (index * 31 + seed) as u8).collect()
}

#[test]
fn large_and_small_messages_arrive_in_order_both_ways() {
    let (mut a, mut b) = pair(Identity::Replica(1));
    let sizes = [0, 1, 40, 5_000_000, 3, 300_000, 70_000, 20_000_000, 64];
    for (index, &size) in sizes.iter().enumerate() {
        a.hub.send_to_peer(1, pattern(size, index)).unwrap();
        b.hub.send_to_peer(0, pattern(size, index + 7)).unwrap();
    }
    let count = |node: &Node| node.hub.traffic().messages_in as usize;
    until("all", &mut [&mut a, &mut b], |nodes| nodes.iter().all(|it| count(it) == sizes.len()));
    for (node, shift) in [(&b, 0), (&a, 7)] {
        for (index, (message, &size)) in node.received().iter().zip(&sizes).enumerate() {
            assert!(*message == pattern(size, index + shift), "message {index} of {size} bytes");
        }
    }
}

#[test]
fn a_client_asks_and_is_answered() {
    let (mut server, mut client) = pair(CLIENT);
    for round in 0..100_u32 {
        client.hub.send_to_peer_now(0, &round.to_le_bytes()).unwrap();
    }
    until("requests", &mut [&mut server, &mut client], |nodes| nodes[0].received().len() == 100);
    let link = server.client_link().unwrap();
    let source = Source::Client { client: 9, link };
    for event in std::mem::take(&mut server.events) {
        if let Event::Messages { from, messages } = event {
            assert_eq!(from, source);
            messages.iter().for_each(|it| server.hub.send_to_client(link, it).unwrap());
        }
    }
    until("replies", &mut [&mut server, &mut client], |nodes| nodes[1].received().len() == 100);
}

#[test]
fn a_link_is_made_again_when_the_other_side_comes_back() {
    let (mut a, b) = pair(Identity::Replica(1));
    drop(b);
    until("down", &mut [&mut a], |nodes| !nodes[0].hub.is_peer_up(1));
    let refused = a.hub.send_to_peer(1, Bytes::from_static(b"lost"));
    assert_eq!(refused, Err(SendError::NotConnected));
    let mut b = Node::new(config(Identity::Replica(1), &[(0, a.address())]));
    until("up", &mut [&mut a, &mut b], |nodes| nodes[0].hub.is_peer_up(1));
    a.hub.send_to_peer(1, Bytes::from_static(b"kept")).unwrap();
    until("message", &mut [&mut a, &mut b], |nodes| nodes[1].received() == [b"kept".to_vec()]);
    // The acceptor goes away and comes back at the same address.
    let address = a.address();
    drop(a);
    until("down", &mut [&mut b], |nodes| !nodes[0].hub.is_peer_up(0));
    (0..50).for_each(|_| b.step());
    let again =
        HubConfig { listen: Some(address), ..config(Identity::Replica(0), &[(1, nowhere())]) };
    let mut a = Node::new(again);
    until("up again", &mut [&mut a, &mut b], |nodes| nodes[1].hub.is_peer_up(0));
}

#[test]
fn pausing_clients_holds_back_what_they_send() {
    let (mut server, mut client) = pair(CLIENT);
    server.hub.pause_clients(true);
    client.hub.send_to_peer_now(0, b"request").unwrap();
    for _ in 0..50 {
        client.step();
        server.step();
    }
    assert!(server.received().is_empty());
    server.hub.pause_clients(false);
    until("request", &mut [&mut server, &mut client], |nodes| nodes[0].received().len() == 1);
}

#[test]
fn a_sleeping_poll_is_woken_from_another_thread() {
    let mut server = Node::server();
    let waker = server.hub.waker();
    let start = Instant::now();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        waker.wake();
    });
    server.hub.poll(Some(PATIENCE), Instant::now(), &mut server.events).unwrap();
    thread.join().unwrap();
    assert!(start.elapsed() < PATIENCE);
    // A wake-up while nobody sleeps is kept for the next poll.
    server.hub.waker().wake();
    server.hub.poll(Some(PATIENCE), Instant::now(), &mut server.events).unwrap();
    assert!(start.elapsed() < PATIENCE);
}

/// A socket that takes all at once says nothing later. So what it took is told before a poll waits: somebody
/// may wait for just that, as the rest of this queue does.
#[test]
fn what_was_sent_is_told_before_a_poll_waits() {
    let (mut server, mut other) = pair(Identity::Replica(1));
    let is_done = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&is_done);
    let thread = std::thread::spawn(move || {
        while !ends.load(Ordering::Relaxed) {
            other.step();
            other.events.clear();
        }
    });
    let start = Instant::now();
    for _ in 0..20 {
        for _ in 0..64 {
            server.hub.send_to_peer(1, vec![7; 64 << 10].into()).unwrap();
        }
        while server.hub.unsent_bytes(1) >= Limits::default().link_window_bytes {
            server.hub.poll(Some(PATIENCE), Instant::now(), &mut server.events).unwrap();
            assert!(start.elapsed() < PATIENCE, "it waits, and the rest of the queue with it");
        }
    }
    is_done.store(true, Ordering::Relaxed);
    thread.join().unwrap();
}

/// A hub that looks again before it sleeps must not take a wake-up for nothing.
#[test]
fn a_lingering_poll_is_woken_from_another_thread() {
    let mut server = Node::server();
    let quick = config(Identity::Replica(1), &[(0, server.address())]);
    let busy_poll = Duration::from_millis(2);
    let limits = Limits { busy_poll, ..Limits::default() };
    let mut a = Node::new(HubConfig { limits, ..quick });
    until("up", &mut [&mut server, &mut a], |nodes| nodes.iter().all(|node| node.has_peer()));
    // Messages that follow each other closely make it busy_poll.
    for _ in 0..30 {
        server.hub.send_to_peer(1, Bytes::from_static(b"m")).unwrap();
        server.step();
        a.hub.poll(Some(PATIENCE), Instant::now(), &mut a.events).unwrap();
    }
    let waker = a.hub.waker();
    let start = Instant::now();
    let (give, take) = std::sync::mpsc::channel::<u64>();
    let (gave, woke) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        for delay in take {
            std::thread::sleep(Duration::from_micros(delay));
            gave.send(()).unwrap();
            waker.wake();
        }
    });
    for round in 0..200 {
        give.send(round * 20).unwrap();
        while woke.try_recv().is_err() {
            a.hub.poll(Some(PATIENCE), Instant::now(), &mut a.events).unwrap();
            assert!(start.elapsed() < PATIENCE, "the wake-up of round {round} was lost");
        }
    }
    drop(give);
    thread.join().unwrap();
}

#[test]
fn another_group_configuration_is_told_to_both() {
    let mut a = Node::server();
    let other = config(Identity::Replica(1), &[(0, a.address())]);
    let mut b = Node::new(HubConfig { pillars: 8, ..other });
    let reason = Reason::ConfigurationMismatch;
    until("told", &mut [&mut a, &mut b], |nodes| {
        nodes.iter().all(|it| it.rejected(reason).is_some())
    });
    assert!(a.rejected(reason).unwrap().contains("8 pillars, 4 here"));
}

#[test]
fn an_unknown_client_is_refused_and_told() {
    let mut server = Node::server();
    let mut client = Node::new(config(Identity::Client(77), &[(0, server.address())]));
    until("refused", &mut [&mut server, &mut client], |nodes| {
        nodes[0].rejected(Reason::UnknownKey).is_some()
            && nodes[1].rejected(Reason::RefusedByPeer).is_some()
    });
}

#[test]
fn a_burst_of_connections_is_accepted_to_the_last() {
    let mut server = Node::server();
    let burst: Vec<_> = (0..100).map(|_| TcpStream::connect(server.address()).unwrap()).collect();
    // A poll may accept some of them only. The others must not wait for another connection to come.
    for _ in 0..4 {
        let timeout = Some(Duration::from_millis(20));
        server.hub.poll(timeout, Instant::now(), &mut server.events).unwrap();
    }
    drop(burst);
    until("all gone", &mut [&mut server], |nodes| {
        nodes[0].hub.rejections().count(Reason::HandshakeFailed) == 100
    });
}

#[test]
fn garbage_on_the_port_closes_the_connection() {
    let mut server = Node::server();
    for garbage in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[0; 100_000], &[22, 3, 1, 0xff, 0xff]] {
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let _ = stream.write(garbage);
        let before = server.hub.rejections().count(Reason::Garbage);
        until("refused", &mut [&mut server], |nodes| {
            nodes[0].hub.rejections().count(Reason::Garbage) > before
        });
    }
}

#[test]
fn a_silent_connection_is_closed_in_time() {
    let limits = Limits { handshake_timeout: Duration::from_millis(100), ..Limits::default() };
    let base = config(Identity::Replica(0), &[(1, nowhere())]);
    let mut server = Node::new(HubConfig { limits, ..base });
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    until("timed out", &mut [&mut server], |nodes| nodes[0].rejected(Reason::Timeout).is_some());
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
}

/// A client with a good key that then does as it likes.
struct Rogue {
    stream: TcpStream,
    established: Box<Established>,
}

impl Rogue {
    fn connect(server: &mut Node) -> Self {
        let config = HandshakeConfig {
            identity: CLIENT,
            key: key(CLIENT),
            keyring: ring(),
            group_digest: [3; 32],
            pillars: 4,
            incarnation: 5,
            application: None,
            cipher: LinkCipher::Gmac,
            peer_frame_bytes: 1 << 20,
            client_frame_bytes: 1 << 20,
            handshake_bytes: 1 << 15,
        };
        let mut handshake = Handshaker::new(config).unwrap().connect(Identity::Replica(0)).unwrap();
        let mut stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let (mut input, start) = (BytesMut::new(), Instant::now());
        loop {
            assert!(start.elapsed() < PATIENCE, "no handshake");
            let mut out = Vec::new();
            let progress = handshake.receive(&mut input, &mut out).unwrap();
            stream.write_all(&out).unwrap();
            match progress {
                Progress::Pending => {}
                Progress::Identified { .. } => {
                    handshake.admit();
                    continue;
                }
                Progress::Established(established) => {
                    until("client up", &mut [server], |nodes| nodes[0].hub.client_count() == 1);
                    return Self { stream, established };
                }
            }
            server.step();
            let mut chunk = [0; 4096];
            if let Ok(count) = stream.read(&mut chunk) {
                input.extend_from_slice(&chunk[..count]);
            }
        }
    }
}

fn expect_rejection(reason: Reason, misbehave: impl FnOnce(&mut Rogue)) {
    let mut server = Node::server();
    let mut rogue = Rogue::connect(&mut server);
    misbehave(&mut rogue);
    until("closed", &mut [&mut server], |nodes| nodes[0].hub.client_count() == 0);
    assert_eq!(server.hub.rejections().count(reason), 1, "{:?}", server.events);
    let down = DownReason::Rejected(reason);
    let is_down =
        |event: &Event| matches!(event, Event::ClientDown { reason, .. } if *reason == down);
    assert!(server.events.iter().any(is_down));
    assert!(server.received().is_empty());
}

#[test]
fn hostile_frames_close_the_link_with_their_reason() {
    expect_rejection(Reason::TooLong, |rogue| {
        let mut claim = frame::header(0);
        claim[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        rogue.stream.write_all(&claim).unwrap();
    });
    expect_rejection(Reason::BadMac, |rogue| {
        let mut forged = frame::header(5).to_vec();
        forged.extend_from_slice(&[1, 0, 0, 0, 9]);
        forged.extend_from_slice(&[0; TAG_BYTES]);
        rogue.stream.write_all(&forged).unwrap();
    });
    expect_rejection(Reason::Malformed, |rogue| {
        let mut sealed = Vec::new();
        rogue.established.link.sealer.seal_slices(&mut sealed, &[&[9, 0, 0, 0, 1]]).unwrap();
        rogue.stream.write_all(&sealed).unwrap();
    });
    expect_rejection(Reason::Garbage, |rogue| {
        rogue.stream.write_all(b"no frame at all").unwrap();
    });
}

#[test]
fn a_client_that_never_reads_is_disconnected() {
    let mut config = config(Identity::Replica(0), &[(1, nowhere())]);
    config.limits.client_stall = Duration::from_millis(300);
    let mut server = Node::new(config);
    let _rogue = Rogue::connect(&mut server);
    let link = server.client_link().unwrap();
    let reply = vec![0; 10_000];
    let start = Instant::now();
    // The kernel's buffers take their share first.
    while server.rejected(Reason::SlowReader).is_none() {
        assert!(start.elapsed() < PATIENCE, "never disconnected");
        while server.hub.traffic().bytes_out < 1 << 30
            && server.hub.send_to_client(link, &reply).is_ok()
            && start.elapsed() < PATIENCE
        {
            let now = Instant::now();
            server.hub.poll(Some(Duration::ZERO), now, &mut server.events).unwrap();
        }
        server.step();
    }
    assert_eq!(server.hub.client_count(), 0);
}
