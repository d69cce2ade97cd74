//! A client that floods, beside one that does not, over real links.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::Running;
use hybster::client::{ClientDriver, ClientOptions, Completions, Outcome, RequestKind};
use hybster::services::NullService;
use hybster::{ClientId, ClientKeys, Group, GroupConfig, Layout};
use hybster_net::{AnyTransport, Hub, HubConfig, Identity, Limits, TransportKind};
use hybster_proto::client::FIRST_NUMBER_MIN;
use hybster_proto::ids::{RequestNumber, SessionId};
use hybster_proto::wire::request::{append_proved, retransmission_head};

const SESSIONS: u32 = 32;
const OPERATIONS: u64 = 10_000;
const PATIENCE: Duration = Duration::from_secs(90);
/// Sessions of the client that floods, and requests in each of its messages.
const GREEDY_SESSIONS: u32 = 600;

/// Sends the same requests again and again, flagged as sent before, and now and then new ones; to all
/// replicas, as fast as links take them. It reads no answer.
fn flood(group: &Group, keys: &ClientKeys, ends: &AtomicBool, sent: &AtomicU64) {
    let incarnation = 1 << 20;
    let replicas = group.replicas().iter();
    let config = HubConfig {
        identity: Identity::Client(keys.id.0),
        key: keys.link.clone(),
        keyring: group.key_ring().unwrap().into(),
        group_digest: group.config().digest().0,
        pillars: group.config().pillars,
        incarnation,
        application: None,
        cipher: group.link_cipher(),
        listen: None,
        peers: replicas.map(|entry| (entry.id.0, entry.address.clone())).collect(),
        limits: Limits { peer_queue_bytes: 4 << 20, ..group.link_limits() },
        jitter_seed: None,
    };
    let transport = AnyTransport::new(TransportKind::Auto).unwrap();
    let mut hub = Hub::new(transport, config).unwrap();
    let (mut events, mut message, mut number) = (Vec::new(), Vec::new(), FIRST_NUMBER_MIN);
    for round in 0_u64.. {
        if ends.load(Ordering::Relaxed) {
            return;
        }
        if round % 256 == 0 {
            message.clear();
            message.extend_from_slice(&retransmission_head());
            for index in 0..GREEDY_SESSIONS {
                let session = SessionId::new(keys.id, incarnation, index);
                append_proved(&mut message, session, RequestNumber(number), b"", &keys.requests);
            }
            number += 1;
        }
        for replica in group.config().all_replicas() {
            if hub.send_to_peer_now(replica.0, &message).is_ok() {
                sent.fetch_add(message.len() as u64, Ordering::Relaxed);
            }
        }
        hub.poll(Some(Duration::from_millis(1)), Instant::now(), &mut events).unwrap();
        events.clear();
    }
}

/// Keeps as many sessions busy, as a client does that wants much and behaves.
fn work(group: &Group, keys: &ClientKeys, ends: &AtomicBool, done: &AtomicU64) {
    let options = ClientOptions { sessions: GREEDY_SESSIONS, ..ClientOptions::default() };
    let mut driver = ClientDriver::connect(group, keys, &options).unwrap();
    driver.await_links(Duration::from_secs(10)).unwrap();
    for session in 0..GREEDY_SESSIONS {
        driver.submit(session, b"", RequestKind::Ordered).unwrap();
    }
    let mut completions = Completions::default();
    while !ends.load(Ordering::Relaxed) {
        driver.poll(Duration::from_millis(1)).unwrap();
        driver.take_completions(&mut completions);
        for completion in completions.iter() {
            assert_eq!(completion.outcome, Outcome::Done);
            done.fetch_add(1, Ordering::Relaxed);
            driver.submit(completion.session, b"", RequestKind::Ordered).unwrap();
        }
    }
}

/// Operations per second of a client that keeps its sessions busy.
fn rate(driver: &mut ClientDriver) -> f64 {
    let start = Instant::now();
    let (mut submitted, mut done) = (0, 0);
    let mut completions = Completions::default();
    while done < OPERATIONS {
        assert!(start.elapsed() < PATIENCE, "{done} of {OPERATIONS} are done");
        if submitted == 0 {
            for session in 0..SESSIONS {
                driver.submit(session, b"", RequestKind::Ordered).unwrap();
                submitted += 1;
            }
        }
        driver.poll(Duration::from_millis(20)).unwrap();
        driver.take_completions(&mut completions);
        for completion in completions.iter() {
            assert_eq!(completion.outcome, Outcome::Done);
            done += 1;
            if submitted < OPERATIONS {
                driver.submit(completion.session, b"", RequestKind::Ordered).unwrap();
                submitted += 1;
            }
        }
    }
    OPERATIONS as f64 / start.elapsed().as_secs_f64()
}

/// The rate while another client is at work, and how fast that one's count grows; it is waited for to reach
/// `begun`.
fn beside(
    driver: &mut ClientDriver,
    group: &Group,
    keys: ClientKeys,
    begun: u64,
    other: fn(&Group, &ClientKeys, &AtomicBool, &AtomicU64),
) -> (f64, f64) {
    let shared = Arc::new((AtomicBool::new(false), AtomicU64::new(0)));
    let (ends, count) = &*shared;
    let thread = {
        let (group, shared) = (group.clone(), Arc::clone(&shared));
        std::thread::spawn(move || other(&group, &keys, &shared.0, &shared.1))
    };
    common::wait_until("the other has begun", || count.load(Ordering::Relaxed) > begun);
    let (before, start) = (count.load(Ordering::Relaxed), Instant::now());
    let rate = rate(driver);
    let grown = count.load(Ordering::Relaxed) - before;
    let other_rate = grown as f64 / start.elapsed().as_secs_f64();
    ends.store(true, Ordering::Relaxed);
    thread.join().unwrap();
    (rate, other_rate)
}

/// The other client goes on, nobody is suspected and no link but the greedy one's is closed.
#[test]
fn a_flood_of_repeated_requests_stops_nobody_else() {
    for layout in [Layout::Fused, Layout::Split] {
        let name = format!("greedy-{layout}");
        // A host with fewer cores than threads may keep a leader from its turn for longer than the
        // default, with nobody greedy. Whom a flood starves waits for as long as it lasts.
        let config = GroupConfig { request_timeout_us: 5_000_000, ..GroupConfig::default() };
        let running = Running::start_with(&name, config, layout, || NullService::new(0));
        let keys =
            |id| ClientKeys::load(&running.group, running.scratch.path(), ClientId(id)).unwrap();
        let options = ClientOptions { sessions: SESSIONS, ..ClientOptions::default() };
        let mut driver = ClientDriver::connect(&running.group, &keys(0), &options).unwrap();
        driver.await_links(Duration::from_secs(10)).unwrap();
        let alone = rate(&mut driver);
        let (shared, _) = beside(&mut driver, &running.group, keys(2), 1_000, work);
        let (flooded, bytes_per_s) = beside(&mut driver, &running.group, keys(1), 1 << 20, flood);
        println!(
            "{layout}: {alone:.0}/s alone, {shared:.0}/s beside {GREEDY_SESSIONS} busy sessions, \
             {flooded:.0}/s beside a flood of {:.1} MB/s",
            bytes_per_s / 1e6
        );
        for id in 0..3 {
            let status = running.status(id);
            assert_eq!(status.view, 0, "no leader is suspected: {status:?}");
        }
        assert_eq!(driver.connected(), 3, "the other client's links are up");
        running.shutdown();
    }
}
