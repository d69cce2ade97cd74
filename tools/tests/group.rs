//! From `hybster init` to a group that serves, loses its leader and continues.

mod harness;

use std::os::unix::fs::PermissionsExt;

use harness::{Group, eventually, hybster};
use rustix::process::Signal;

#[test]
fn a_group_is_made_serves_and_survives_the_loss_of_its_leader() {
    let mut group = Group::start(&["--pillars", "2"]);

    group.kv(&["put", "greeting", "hello"]).ok();
    assert_eq!(group.kv(&["get", "greeting"]).ok(), "hello\n");
    let absent = group.kv(&["get", "nothing"]);
    assert_eq!((absent.status.code(), absent.stdout.as_str()), (Some(3), ""));
    group.kv(&["cas", "greeting", "good day", "--expect", "hello"]).ok();
    let other = group.kv(&["cas", "greeting", "never", "--expect", "hello"]);
    assert_eq!((other.status.code(), other.stdout.as_str()), (Some(3), "good day\n"));
    group.kv(&["cas", "new", "value", "--absent"]).ok();
    assert_eq!(group.kv(&["scan"]).ok(), "greeting\tgood day\nnew\tvalue\n");
    assert_eq!(group.kv(&["scan", "h", "--limit", "5"]).ok(), "new\tvalue\n");
    assert_eq!(group.kv(&["scan", "--end", "h"]).ok(), "greeting\tgood day\n");
    group.kv(&["del", "new"]).ok();
    assert_eq!(group.kv(&["del", "new"]).status.code(), Some(3));

    let status = group.status();
    assert_eq!(status["format"], 1);
    let replicas = status["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 3);
    for replica in replicas {
        assert_eq!(replica["reachable"], true, "{replica}");
        assert_eq!(replica["status"]["view"], 0);
        assert_eq!(replica["status"]["pillars"].as_array().unwrap().len(), 2);
    }
    let path = group.path_text();
    let table = hybster(&["status", "--group", &path]).ok();
    assert!(table.contains("checkpoint") && table.contains("pillar 1"), "{table}");
    let memory = hybster(&["status", "--group", &path, "--memory", "--json"]).ok();
    let memory: serde_json::Value = serde_json::from_str(&memory).unwrap();
    let bytes = |buffer: &serde_json::Value| buffer["bytes"].as_u64().unwrap_or(0);
    let sum: u64 = memory["buffers"].as_array().unwrap().iter().map(bytes).sum();
    assert_eq!(memory["bounded_bytes"], sum);

    group.kill(0);
    group.goes_on("one replica less");
    assert_eq!(group.kv(&["get", "greeting"]).ok(), "good day\n");
    let status = group.status();
    assert_eq!(status["replicas"][0]["reachable"], false);
    assert!(status["replicas"][0]["problem"].is_string());
    assert!(status["replicas"][1]["status"]["view"].as_u64().unwrap() >= 1);

    for id in [1, 2] {
        let mut replica = group.replicas[id].take().unwrap();
        replica.signal(if id == 1 { Signal::TERM } else { Signal::INT });
        assert!(replica.wait().success(), "{}", group.log(id));
    }
    let none = hybster(&["status", "--group", &path, "--timeout", "0.5"]);
    assert_eq!(none.status.code(), Some(4), "{none:?}");
    assert!(none.stderr.contains("no replica can be reached"), "{none:?}");
}

#[test]
fn init_writes_private_keys_and_says_what_to_do_next() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("my group");
    let text = hybster(&[
        "init",
        path.to_str().unwrap(),
        "--replicas",
        "5",
        "--pillars",
        "3",
        "--clients",
        "2",
        "--base-port",
        "20000",
        "--service",
        "counter",
        "--authenticator",
        "blake3",
        "--link-cipher",
        "aes-128-gcm",
        "--layout",
        "split",
    ])
    .ok();
    assert!(text.contains("5 replicas (f = 2), 3 pillars, 2 client keys"), "{text}");
    assert!(text.contains("--id 4 --service counter    # 127.0.0.1:20004"), "{text}");
    let names = ["group.toml", "client-1.key", "replica-0.key", "replica-4.key"];
    for name in names {
        let mode = std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert!(!name.ends_with(".key") || mode == 0o600, "{name} has mode {mode:o}");
    }
    let again = hybster(&["init", path.to_str().unwrap()]);
    again.fails_with(&["group.toml", "exists already and is not overwritten"]);
}

#[test]
fn a_replica_stops_when_its_parent_lets_go_of_it() {
    let mut group = Group::init(&[]);
    group.start_replica(0);
    let mut replica = group.replicas[0].take().unwrap();
    drop(replica.stdin());
    assert!(replica.wait().success(), "{}", group.log(0));
}

#[test]
fn keys_and_values_are_bytes_with_limits() {
    let group = Group::start(&["--pillars", "1"]);
    let value = "tab\there and a newline\n";
    group.kv(&["put", "bytes", value]).ok();
    assert_eq!(group.kv(&["get", "bytes"]).ok(), format!("{value}\n"));
    let long = "k".repeat(2000);
    group.kv(&["put", &long, "v"]).fails_with(&["key is too long", "1024"]);
    let links = eventually("all links are up", || {
        let status = group.status();
        let peers = status["replicas"][0]["status"]["peers"].as_array()?.clone();
        peers.iter().all(|p| p["up"] == true).then_some(peers.len())
    });
    assert_eq!(links, 2);
}
