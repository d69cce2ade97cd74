//! Clients that ask for more than their wire carries at once.

mod common;

use std::time::{Duration, Instant};

use common::{Running, Scratch, free_addresses};
use hybster::client::{ClientDriver, ClientOptions, Completions, Outcome, RequestKind};
use hybster::group::{Addresses, CreateOptions, create};
use hybster::services::NullService;
use hybster::{ClientId, ClientKeys, Group, GroupConfig, Layout, Replica, ReplicaId, ReplicaKeys};
use hybster::{RunningReplica, Status};

const REPLY_BYTES: usize = 1_000_000;
/// Together more than a link may have waiting, several times over.
const SESSIONS: u32 = 96;
const ROUNDS: u64 = 2;
const PATIENCE: Duration = Duration::from_secs(120);

fn driver(group: &Group, scratch: &Scratch) -> ClientDriver {
    let keys = ClientKeys::load(group, scratch.path(), ClientId(0)).unwrap();
    let options =
        ClientOptions { sessions: SESSIONS, request_timeout: PATIENCE, ..ClientOptions::default() };
    let mut driver = ClientDriver::connect(group, &keys, &options).unwrap();
    driver.await_links(Duration::from_secs(10)).unwrap();
    driver
}

/// Every session has one request at a time; the client reads nothing for a while after its first ones.
fn ask_for_much(driver: &mut ClientDriver) {
    let deadline = Instant::now() + PATIENCE;
    for session in 0..SESSIONS {
        driver.submit(session, b"", RequestKind::Ordered).unwrap();
    }
    driver.poll(Duration::from_millis(1)).unwrap();
    std::thread::sleep(Duration::from_millis(700));
    let (mut submitted, mut done) = (u64::from(SESSIONS), 0);
    let mut completions = Completions::default();
    while done < ROUNDS * u64::from(SESSIONS) {
        assert!(Instant::now() < deadline, "{done} of {submitted} are done");
        driver.poll(Duration::from_millis(20)).unwrap();
        driver.take_completions(&mut completions);
        for completion in completions.iter() {
            assert_eq!(completion.outcome, Outcome::Done);
            assert_eq!(completion.result.len(), REPLY_BYTES);
            done += 1;
            if submitted < ROUNDS * u64::from(SESSIONS) {
                driver.submit(completion.session, b"", RequestKind::Ordered).unwrap();
                submitted += 1;
            }
        }
    }
}

fn check(status: &Status) {
    assert_eq!(status.view, 0, "no leader is suspected: {status:?}");
    assert!(status.refusals.is_empty(), "no link is closed: {:?}", status.refusals);
}

#[test]
fn a_client_that_asks_for_much_gets_it_at_the_speed_of_its_wire() {
    for layout in [Layout::Fused, Layout::Split] {
        let name = format!("large-replies-{layout}");
        let service = || NullService::new(REPLY_BYTES);
        let running = Running::start_with(&name, GroupConfig::default(), layout, service);
        let mut driver = driver(&running.group, &running.scratch);
        ask_for_much(&mut driver);
        (0..3).for_each(|id| check(&running.status(id)));
        // As much as was needed, and what the client had to ask for again while it did not read.
        let sent = running.status(1).traffic.bytes_out;
        let needed = ROUNDS * u64::from(SESSIONS) * REPLY_BYTES as u64;
        assert!(sent < needed + needed / 4, "{sent} bytes sent where {needed} are needed");
        running.shutdown();
    }
}

#[test]
fn so_it_does_from_a_server_without_a_protocol() {
    let scratch = Scratch::new("large-replies-baseline");
    let config = GroupConfig { replicas: 1, faults: 0, pillars: 1, ..GroupConfig::default() };
    let addresses = Addresses::List(free_addresses(1));
    let options = CreateOptions { config, addresses, ..CreateOptions::default() };
    let group = create(scratch.path(), &options).unwrap();
    for layout in [Layout::Fused, Layout::Split] {
        let keys = ReplicaKeys::load(&group, scratch.path(), ReplicaId(0)).unwrap();
        let server = Replica::builder(group.clone(), keys).layout(layout).unreplicated();
        let service = NullService::new(REPLY_BYTES);
        let server: RunningReplica = server.service(service).start().unwrap();
        let mut driver = driver(&group, &scratch);
        ask_for_much(&mut driver);
        check(&server.status());
        server.shutdown().unwrap();
    }
}
