//! How fast two hubs exchange small messages over loopback TCP, one thread each.
//!
//! Arguments, all optional: message bytes, messages outstanding, seconds.
//! `cargo run --release -p hybster-net --example link_speed 40 20000 3`

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hybster_net::limits::PollLimits;
use hybster_net::{
    Event, Hub, HubConfig, Identity, KeyRing, Limits, LinkCipher, PollTransport, SendError, Source,
    StaticKey,
};

const SERVER: Identity = Identity::Replica(0);
const CLIENT: Identity = Identity::Client(1);

fn main() {
    let mut arguments = std::env::args().skip(1);
    let size = arguments.next().map_or(40, |it| it.parse().expect("message bytes"));
    let window = arguments.next().map_or(20_000, |it| it.parse().expect("messages outstanding"));
    let seconds = arguments.next().map_or(3, |it| it.parse().expect("seconds"));
    for cipher in LinkCipher::ALL {
        let (rate, per_frame) = echo(cipher, size, window, Duration::from_secs(seconds));
        println!(
            "{:12} {size} B: {rate:10.0} round trips/s, {:6.1} ns each, {per_frame:.0} per frame",
            cipher.name(),
            1e9 / rate
        );
    }
}

/// The client sends, the server answers each message with one of the same size.
fn echo(cipher: LinkCipher, size: usize, window: u64, time: Duration) -> (f64, f64) {
    let mut server = hub(SERVER, cipher, &[]);
    let address = server.local_address().expect("it listens");
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let thread = std::thread::spawn(move || {
        let mut events = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            let timeout = Some(Duration::from_millis(10));
            server.poll(timeout, Instant::now(), &mut events).expect("epoll works");
            for event in events.drain(..) {
                let Event::Messages { from: Source::Client { link, .. }, messages } = event else {
                    continue;
                };
                for message in &messages {
                    server.send_to_client(link, message).expect("the client reads");
                }
            }
        }
    });
    let mut client = hub(CLIENT, cipher, &[(0, address)]);
    let mut events = Vec::new();
    let (mut outstanding, mut done, mut start) = (0, 0, Instant::now());
    let message = vec![7; size];
    while done == 0 || start.elapsed() < time {
        while outstanding < window {
            match client.send_to_peer_now(0, &message) {
                Ok(()) => outstanding += 1,
                Err(SendError::NotConnected) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let timeout = Some(Duration::from_millis(10));
        client.poll(timeout, Instant::now(), &mut events).expect("epoll works");
        for event in events.drain(..) {
            if let Event::Messages { messages, .. } = event {
                if done == 0 {
                    start = Instant::now();
                }
                outstanding -= messages.len() as u64;
                done += messages.iter().filter(|it| it.len() == size).count() as u64;
            }
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    thread.join().expect("the server did not panic");
    let traffic = client.traffic();
    (done as f64 / elapsed, traffic.messages_in as f64 / traffic.frames_in as f64)
}

fn hub(identity: Identity, cipher: LinkCipher, peers: &[(u16, SocketAddr)]) -> Hub<PollTransport> {
    let key = |identity| match identity {
        SERVER => StaticKey::from_seed(&[1; 32]),
        _ => StaticKey::from_seed(&[2; 32]),
    };
    let mut keyring = KeyRing::new();
    for identity in [SERVER, CLIENT] {
        keyring.add(identity, key(identity).public()).expect("different keys");
    }
    let config = HubConfig {
        identity,
        key: key(identity),
        keyring: Arc::new(keyring),
        group_digest: [0; 32],
        pillars: 1,
        incarnation: 0,
        application: None,
        cipher,
        listen: (identity == SERVER).then(|| SocketAddr::from(([127, 0, 0, 1], 0))),
        peers: peers.iter().map(|(id, address)| (*id, (*address).into())).collect(),
        limits: Limits::default(),
        jitter_seed: None,
    };
    let transport = PollTransport::new(PollLimits::default()).expect("epoll works");
    Hub::new(transport, config).expect("a free port")
}
