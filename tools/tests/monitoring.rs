//! What monitoring sees of real replicas: metrics, readiness, health.

mod harness;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{Group, PATIENCE, eventually, free_addresses, hybster};
use hybster::client::{Client, ClientOptions};
use hybster::services::kv::KvOperation;
use hybster::{ClientId, ClientKeys};
use rustix::process::Signal;
use serde_json::Value;

/// The status code and the body of an answer.
fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n").as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    (code, body.to_owned())
}

/// Starts these replicas with metrics.
fn start(group: &mut Group, replicas: &[usize], metrics: &[SocketAddr]) {
    for id in replicas {
        let address = metrics[*id].to_string();
        group.start_replica_changed(*id, &["--metrics", &address], |_| {});
    }
}

/// Name and labels, as written, with the value.
fn scrape(address: SocketAddr) -> BTreeMap<String, f64> {
    let (code, text) = get(address, "/metrics");
    assert_eq!(code, 200, "{text}");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// A row of the table of METRICS.md.
struct Row {
    name: String,
    is_counter: bool,
    fields: Vec<String>,
}

fn documented() -> Vec<Row> {
    let rows = include_str!("../METRICS.md").lines().filter(|line| line.starts_with("| `hybster_"));
    rows.map(|line| {
        let cells: Vec<&str> =
            line.split(" | ").map(|cell| cell.trim_matches(['|', ' ', '`'])).collect();
        Row {
            name: cells[0].to_owned(),
            is_counter: cells[1] == "counter",
            fields: cells[3].split(", ").map(str::to_owned).collect(),
        }
    })
    .collect()
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_bool().map(|it| if it { 1.0 } else { 0.0 }))
}

/// The values that `hybster status` has for a row, under the names that the metrics have.
fn expected(row: &Row, status: &Value) -> BTreeMap<String, f64> {
    let field = row.fields.last().unwrap();
    let scale = match field.rsplit('_').next() {
        Some("us") => 1e6,
        Some("ms") => 1e3,
        _ => 1.0,
    };
    if row.name == "hybster_log_sync_seconds" {
        let percentiles = [("50", "p50"), ("99", "p99"), ("100", "longest")];
        let value = |of: &str| status["disk"][format!("sync_{of}_us")].as_f64().unwrap() / scale;
        let name = |percentile| format!("{}{{percentile=\"{percentile}\"}}", row.name);
        return percentiles.iter().map(|(it, of)| (name(it), value(of))).collect();
    }
    if let Some((array, value)) = field.split_once("[].") {
        let (label, key) = match array {
            "pillars" => ("pillar", "pillar"),
            "peers" => ("peer", "replica"),
            "agents" => ("agent", "name"),
            "refusals" => ("reason", "reason"),
            other => panic!("{other}: say here how its metric is labelled"),
        };
        let items = status[array].as_array().unwrap().iter();
        return items
            .map(|item| {
                let of = item[key].to_string();
                let of = of.trim_matches('"');
                (format!("{}{{{label}=\"{of}\"}}", row.name), number(&item[value]).unwrap())
            })
            .collect();
    }
    let value = field.split('.').fold(status, |value, part| &value[part]);
    let value = number(value).unwrap_or_else(|| panic!("{field} is no number: {value}"));
    BTreeMap::from([(row.name.clone(), value / scale)])
}

/// Looks at the metrics before and after the status: in between must be what the status says.
fn differences(group: &Group, address: SocketAddr) -> Vec<String> {
    let before = scrape(address);
    let status = group.status()["replicas"][0]["status"].clone();
    let after = scrape(address);
    let mut wrong = Vec::new();
    let of = |all: &BTreeMap<String, f64>, name: &str| all.get(name).copied();
    for row in documented() {
        match row.name.as_str() {
            "hybster_replica_info" | "hybster_ready" => continue,
            // Who asks for the status is a client itself.
            "hybster_client_links" => continue,
            // By sender, kind and reason; the status has the sum too.
            "hybster_rejected_messages_total" => {
                let sum = |all: &BTreeMap<String, f64>| -> f64 {
                    all.iter().filter(|(name, _)| name.starts_with(&row.name)).map(|it| it.1).sum()
                };
                let value = status["rejected"].as_f64().unwrap();
                assert!(sum(&before) <= value && value <= sum(&after), "{}", row.name);
                continue;
            }
            _ => {}
        }
        for (name, value) in expected(&row, &status) {
            let (first, last) = (of(&before, &name), of(&after, &name));
            if row.is_counter
                || ["hybster_uptime_seconds", "hybster_clock_seconds"].contains(&name.as_str())
            {
                // What was never counted may be absent before.
                let first = first.unwrap_or(0.0);
                let last = last.unwrap_or_else(|| panic!("{name} is missing"));
                assert!(first <= value && value <= last, "{name}: {first} {value} {last}");
            } else if first != Some(value) || last != Some(value) {
                wrong.push(format!("{name}: {first:?} {value} {last:?}"));
            }
        }
    }
    wrong
}

#[test]
fn metrics_say_what_the_status_says() {
    let mut group = Group::init(&[]);
    let metrics = free_addresses(3);
    start(&mut group, &[0, 1, 2], &metrics);
    for key in 0..20 {
        group.kv(&["put", &key.to_string(), "value"]).ok();
    }
    // A refused link has a metric of its own.
    TcpStream::connect(group.addresses[0]).unwrap().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    eventually("the refusal is counted", || {
        scrape(metrics[0])
            .contains_key("hybster_refused_links_total{reason=\"garbage\"}")
            .then_some(())
    });
    // Gauges may move between two readings, so they are looked at until they do not.
    let mut last = Vec::new();
    eventually("the gauges are equal", || {
        last = differences(&group, metrics[0]);
        last.is_empty().then_some(())
    });
    let all = scrape(metrics[0]);
    assert!(all["hybster_requests_total"] >= 20.0);
    let info = all.keys().find(|name| name.starts_with("hybster_replica_info{replica=\"0\""));
    assert!(info.is_some_and(|info| info.contains("durability=\"sync\"")), "{info:?}");
}

fn not_ready(address: SocketAddr, reason: &str) {
    eventually(reason, || {
        let (code, body) = get(address, "/ready");
        (code == 503 && body.contains(reason)).then_some(())
    });
}

/// A client that gives up soon.
fn client(group: &Group) -> Client {
    let loaded = hybster::Group::load(group.path()).unwrap();
    let keys = ClientKeys::load(&loaded, group.path(), ClientId(0)).unwrap();
    let request_timeout = Duration::from_secs(2);
    let options = ClientOptions { sessions: 1, request_timeout, ..ClientOptions::default() };
    Client::connect(&loaded, &keys, options).unwrap()
}

#[test]
fn a_replica_is_ready_while_it_can_take_part() {
    let mut group = Group::init(&[]);
    let metrics = free_addresses(3);
    start(&mut group, &[0], &metrics);
    let (code, body) = get(metrics[0], "/ready");
    assert_eq!(code, 503, "{body}");
    assert!(body.contains("links to 0 peers are up, and a quorum needs 1"), "{body}");
    assert_eq!(get(metrics[0], "/health").0, 200);

    start(&mut group, &[1, 2], &metrics);
    for address in &metrics {
        eventually("all are ready", || (get(*address, "/ready").0 == 200).then_some(()));
        assert_eq!(scrape(*address)["hybster_ready"], 1.0);
    }
    group.goes_on("three of three");

    // The others stand still, so that replica 2 suspects the leader and finds no quorum for a view.
    let client = client(&group);
    let signal = |signal| (0..2).for_each(|id| group.replicas[id].as_ref().unwrap().signal(signal));
    signal(Signal::STOP);
    let mut operation = Vec::new();
    KvOperation::Put { key: b"a", value: b"b" }.encode(&mut operation).unwrap();
    eventually("replica 2 is out of view", || {
        // A client asks all replicas only after a while.
        assert!(client.call(&operation).is_err(), "one replica alone orders nothing");
        let (code, body) = get(metrics[2], "/ready");
        (code == 503 && body.contains("out of view")).then_some(())
    });
    assert_eq!(scrape(metrics[2])["hybster_ready"], 0.0);
    assert_eq!(get(metrics[2], "/health").0, 200, "it is well, though it can do nothing");
    signal(Signal::CONT);
    for address in &metrics {
        eventually("all are in a view", || (get(*address, "/ready").0 == 200).then_some(()));
    }
    drop(client);

    group.kill(0);
    group.kill(1);
    not_ready(metrics[2], "links to 0 peers are up, and a quorum needs 1");
    start(&mut group, &[0, 1], &metrics);
    for address in &metrics {
        eventually("all are ready again", || (get(*address, "/ready").0 == 200).then_some(()));
    }
    group.goes_on("again");
    assert_eq!(get(metrics[0], "/").0, 404);
}

/// As OPERATIONS.md says: one after the other, the leader last, each once the one before is ready.
#[test]
fn a_rolling_upgrade_fails_no_operation() {
    let mut group = Group::init(&[]);
    let metrics = free_addresses(3);
    start(&mut group, &[0, 1, 2], &metrics);
    let all_are_ready = || {
        for address in &metrics {
            eventually("all are ready", || (get(*address, "/ready").0 == 200).then_some(()));
        }
    };
    all_are_ready();
    let loaded = hybster::Group::load(group.path()).unwrap();
    let keys = ClientKeys::load(&loaded, group.path(), ClientId(0)).unwrap();
    let options = ClientOptions { sessions: 1, request_timeout: PATIENCE, ..Default::default() };
    let client = Client::connect(&loaded, &keys, options).unwrap();
    let done = AtomicBool::new(false);
    let operations = std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let mut operations = 0_u32;
            while !done.load(Ordering::Relaxed) {
                let mut operation = Vec::new();
                let value = operations.to_be_bytes();
                KvOperation::Put { key: b"k", value: &value }.encode(&mut operation).unwrap();
                client.call(&operation).unwrap();
                operations += 1;
            }
            operations
        });
        let end = EndOnDrop(&done);
        let leader = group.status()["replicas"][0]["status"]["leader"].as_u64().unwrap() as usize;
        let followers = (0..3).filter(|id| *id != leader);
        for id in followers.chain([leader]) {
            let process = group.replicas[id].as_mut().unwrap();
            process.signal(Signal::TERM);
            assert!(process.wait().success());
            start(&mut group, &[id], &metrics);
            all_are_ready();
        }
        drop(end);
        running.join().unwrap()
    });
    assert!(operations > 0);
    group.goes_on("after the upgrade");
}

/// So that a test that fails does not wait for its thread.
struct EndOnDrop<'a>(&'a AtomicBool);

impl Drop for EndOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn an_address_that_is_taken_costs_no_start() {
    let mut group = Group::init(&["--durability", "none"]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let path = group.path_text();
    let arguments = ["replica", "--group", &path, "--id", "0", "--metrics", &address];
    hybster(&arguments).fails_with(&["--metrics", &address, "free"]);
    // With durability none, a replica that has started once would be refused.
    group.start_replica(0);
}
