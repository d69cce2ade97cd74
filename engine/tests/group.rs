//! A real group over TCP on loopback: every layout, a crash, wrong input, the baseline.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use common::{Running, Scratch, free_addresses, wait_until};
use hybster::client::{Client, ClientDriver, ClientOptions, Completions, Outcome, RequestKind};
use hybster::group::{Addresses, CreateOptions, create};
use hybster::services::CounterService;
use hybster::services::counter::{decode_reply, encode_add, encode_get};
use hybster::{
    ClientId, ClientKeys, GroupConfig, Layout, Replica, ReplicaId, ReplicaKeys,
    RequestAuthenticator, StartError, Status,
};
use hybster_tss::{ClientSigningKey, RequestKey};

/// Adds 1 `count` times on each of several threads and returns the counter's value then.
fn add_in_parallel(client: &Client, threads: u32, count: u32) -> i64 {
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                for _ in 0..count {
                    client.call(&encode_add(1)).unwrap();
                }
            });
        }
    });
    decode_reply(&client.call(&encode_get()).unwrap()).unwrap()
}

fn config(pillars: u16) -> GroupConfig {
    GroupConfig { pillars, ..GroupConfig::default() }
}

/// Requests with signatures go the same way; one that its client did not sign goes nowhere, also
/// beside others in one batch, and harms none of them.
#[test]
fn signed_requests_count_and_forged_ones_do_not() {
    let request_authenticator = RequestAuthenticator::Ed25519;
    let config = GroupConfig { request_authenticator, ..config(2) };
    let running = Running::start("signed", config, Layout::Fused);
    let honest = running.client(0);
    assert_eq!(add_in_parallel(&honest, 4, 50), 200);

    let keys = ClientKeys::load(&running.group, running.scratch.path(), ClientId(1)).unwrap();
    let mac = match &keys.requests {
        RequestKey::Ed25519(key) => {
            hybster_tss::ClientKey::from_bytes(running.group.config().mac, *key.expose_bytes())
        }
        RequestKey::Mac(_) => panic!("the group's clients sign"),
    };
    let request_timeout = Duration::from_millis(300);
    let options = ClientOptions { request_timeout, ..ClientOptions::default() };
    for forged in [ClientSigningKey::generate().unwrap().into(), RequestKey::from(mac)] {
        let forger = ClientKeys { requests: forged, ..keys.clone() };
        let forger = Client::connect(&running.group, &forger, options.clone()).unwrap();
        thread::scope(|scope| {
            scope.spawn(|| forger.call(&encode_add(1)).unwrap_err());
            add_in_parallel(&honest, 4, 50);
        });
    }
    assert_eq!(add_in_parallel(&honest, 1, 1), 601);
    assert!(running.status(0).rejected > 0);
}

#[test]
fn every_layout_counts_exactly_and_sleeps_when_idle() {
    for (layout, pillars) in
        [(Layout::Fused, 1), (Layout::Fused, 4), (Layout::Split, 1), (Layout::Split, 4)]
    {
        let name = format!("layout-{layout}-{pillars}");
        let running = Running::start(&name, config(pillars), layout);
        let client = running.client(0);
        assert_eq!(add_in_parallel(&client, 4, 100), 400, "{name}");
        assert_eq!(decode_reply(&client.query(&encode_get()).unwrap()), Some(400), "{name}");

        // Followers execute all of it too.
        for id in 0..3 {
            wait_until(&name, || running.status(id).requests >= 401);
            let status = running.status(id);
            assert_eq!(status.layout, layout.name());
            assert_eq!((status.view, status.pillars.len()), (0, usize::from(pillars)));
            assert!(status.peers.len() == 2 && status.peers.iter().all(|peer| peer.up));
        }

        // Without load a thread wakes up a few times a second at most.
        thread::sleep(Duration::from_millis(300));
        let turns = |status: &Status| status.agents.iter().map(|agent| agent.turns).sum::<u64>();
        let before = turns(&running.status(1));
        thread::sleep(Duration::from_secs(1));
        let woken = turns(&running.status(1)) - before;
        assert!(woken < 100, "{name}: {woken} turns in an idle second");
        running.shutdown();
    }
}

#[test]
fn single_replies_of_followers_go_through_the_leader() {
    let running = Running::start("relayed", config(2), Layout::Fused);
    let client = running.client(0);
    assert_eq!(add_in_parallel(&client, 1, 300), 300);
    let relayed = |id: usize| running.status(id).relayed_replies;
    wait_until("a reply goes through the leader", || relayed(1) + relayed(2) > 0);
    assert_eq!(relayed(0), 0);
    running.shutdown();
}

#[test]
fn checkpoints_become_stable_and_windows_move() {
    let config = GroupConfig { checkpoint_interval: 8, window: 16, ..config(2) };
    let running = Running::start("checkpoints", config, Layout::Split);
    assert_eq!(add_in_parallel(&running.client(0), 2, 100), 200);
    for id in 0..3 {
        wait_until("a stable checkpoint", || running.status(id).stable_checkpoint >= 64);
    }
    running.shutdown();
}

#[test]
fn the_group_survives_the_crash_of_its_leader() {
    for layout in [Layout::Fused, Layout::Split] {
        let config = GroupConfig { checkpoint_interval: 32, window: 128, ..config(2) };
        let mut running = Running::start(&format!("crash-{layout}"), config, layout);
        let client = running.client(0);
        assert_eq!(add_in_parallel(&client, 2, 50), 100);
        running.stop(0);
        assert_eq!(add_in_parallel(&client, 2, 50), 200);
        for id in 1..3 {
            let status = running.status(id);
            assert!(status.view > 0 && status.leader != 0, "{status:?}");
            assert!(!status.peers[0].up);
        }
        running.shutdown();
    }
}

#[test]
fn garbage_is_counted_and_the_group_goes_on() {
    let running = Running::start("garbage", config(2), Layout::Auto);
    let client = running.client(0);
    let address = running.replicas[0].as_ref().unwrap().local_address();
    let four_gibibytes = [0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0];
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".as_slice(), &[0; 4096], &four_gibibytes] {
        let mut socket = TcpStream::connect(address).unwrap();
        let _ = socket.write_all(bytes);
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = socket.read(&mut [0; 64]);
    }
    let refused = || running.status(0).refusals.iter().map(|refusal| refusal.count).sum::<u64>();
    wait_until("three refusals", || refused() >= 3);
    assert_eq!(add_in_parallel(&client, 1, 10), 10);
    running.shutdown();
}

#[test]
fn a_replica_tells_its_status_over_the_network() {
    let running = Running::start("status", config(2), Layout::Split);
    assert_eq!(add_in_parallel(&running.client(0), 1, 10), 10);
    let keys = ClientKeys::load(&running.group, running.scratch.path(), ClientId(1)).unwrap();
    let mut driver =
        ClientDriver::connect(&running.group, &keys, &ClientOptions::default()).unwrap();
    driver.await_links(Duration::from_secs(5)).unwrap();
    driver.request_status(ReplicaId(2)).unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut answers = Vec::new();
    while answers.is_empty() {
        assert!(Instant::now() < deadline);
        driver.poll(Duration::from_millis(50)).unwrap();
        answers = driver.take_statuses();
    }
    let (from, message) = &answers[0];
    let status: Status = serde_json::from_slice(&message[1..]).unwrap();
    assert_eq!((*from, status.replica), (ReplicaId(2), 2));
    assert!(status.replicated && status.agents.len() == 5);
    running.shutdown();
}

/// A process that stood still, or had nothing to do, for longer than a request may take: an answer that has
/// arrived meanwhile counts, and a request that begins after it has its time.
#[test]
fn a_client_that_stood_still_takes_its_answers() {
    let running = Running::start("stood-still", config(1), Layout::Fused);
    let keys = ClientKeys::load(&running.group, running.scratch.path(), ClientId(1)).unwrap();
    let request_timeout = Duration::from_secs(2);
    let options = ClientOptions { request_timeout, ..ClientOptions::default() };
    let mut driver = ClientDriver::connect(&running.group, &keys, &options).unwrap();
    driver.await_links(Duration::from_secs(5)).unwrap();
    let mut completions = Completions::default();
    for _ in 0..2 {
        driver.submit(0, &encode_add(1), RequestKind::Ordered).unwrap();
        driver.poll(Duration::ZERO).unwrap();
        thread::sleep(2 * request_timeout);
        while completions.iter().next().is_none() {
            driver.poll(Duration::from_millis(50)).unwrap();
            driver.take_completions(&mut completions);
        }
        assert!(completions.iter().all(|it| it.outcome == Outcome::Done));
        completions.clear();
        thread::sleep(2 * request_timeout);
    }
    running.shutdown();
}

#[test]
fn the_baseline_serves_without_a_protocol() {
    let scratch = Scratch::new("baseline");
    let config = GroupConfig { replicas: 1, faults: 0, pillars: 1, ..GroupConfig::default() };
    let addresses = Addresses::List(free_addresses(1));
    let options = CreateOptions { config, addresses, ..CreateOptions::default() };
    let group = create(scratch.path(), &options).unwrap();
    for layout in [Layout::Fused, Layout::Split] {
        let keys = ReplicaKeys::load(&group, scratch.path(), ReplicaId(0)).unwrap();
        let server = Replica::builder(group.clone(), keys).layout(layout).unreplicated();
        let server = server.service(CounterService::new()).start().unwrap();
        let keys = ClientKeys::load(&group, scratch.path(), ClientId(0)).unwrap();
        let client = Client::connect(&group, &keys, ClientOptions::default()).unwrap();
        assert_eq!(add_in_parallel(&client, 2, 100), 200);
        assert!(!server.status().replicated && server.status().requests >= 201);
        server.shutdown().unwrap();
    }
}

#[test]
fn a_taken_port_and_a_wrong_shape_are_told() {
    let running = Running::start("taken", config(1), Layout::Fused);
    let keys = || ReplicaKeys::load(&running.group, running.scratch.path(), ReplicaId(0)).unwrap();
    let builder = || Replica::builder(running.group.clone(), keys()).service(CounterService::new());
    let address = running.replicas[0].as_ref().unwrap().local_address().to_string();
    let error = builder().start().unwrap_err();
    assert!(matches!(error, StartError::AddressTaken { .. }), "{error}");
    // Another group at the same address.
    let scratch = Scratch::new("taken-by-another");
    let mut list = free_addresses(2);
    list.insert(0, address.parse().unwrap());
    let options = CreateOptions { addresses: Addresses::List(list), ..CreateOptions::default() };
    let group = create(scratch.path(), &options).unwrap();
    let fresh = || {
        let keys = ReplicaKeys::load(&group, scratch.path(), ReplicaId(0)).unwrap();
        Replica::builder(group.clone(), keys).service(CounterService::new())
    };
    let error = fresh().start().unwrap_err();
    assert!(matches!(error, StartError::AddressTaken { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    let error = builder().unreplicated().start().unwrap_err();
    assert!(matches!(error, StartError::NotASingleServer { replicas: 3, .. }), "{error}");
    let error = fresh().cores(vec![100_000]).start().unwrap_err();
    assert!(matches!(error, StartError::Core { core: 100_000, .. }), "{error}");
    running.shutdown();
}

#[test]
fn wait_returns_when_another_thread_stops_the_replica() {
    let mut running = Running::start("stopper", config(1), Layout::Split);
    let replica = running.replicas[0].take().unwrap();
    let stopper = replica.stopper();
    let waiting = thread::spawn(move || replica.wait());
    thread::sleep(Duration::from_millis(50));
    assert!(!waiting.is_finished());
    stopper.stop();
    waiting.join().unwrap().unwrap();
    running.shutdown();
}
