//! Groups whose replicas have names instead of addresses, with real processes.

mod harness;

use std::fs;

use harness::{Group, eventually, hybster};

/// A group whose file has these hosts in place of its addresses.
fn named(hosts: [&str; 3]) -> Group {
    let group = Group::init(&[]);
    let path = group.path().join("group.toml");
    let mut text = fs::read_to_string(&path).unwrap();
    for (address, host) in group.addresses.iter().zip(hosts) {
        let (old, new) = (format!("\"{address}\""), format!("\"{host}:{}\"", address.port()));
        assert!(text.contains(&old), "{old} in {text}");
        text = text.replace(&old, &new);
    }
    fs::write(&path, text).unwrap();
    group
}

/// Starts a replica that is reached by a name; it listens where the harness expects it.
fn start(group: &mut Group, id: usize) {
    let (path, address) = (group.path(), group.addresses[id].to_string());
    group.start_replica_with(id, &path, &["--listen", &address]);
}

#[test]
fn replicas_find_each_other_by_name_and_one_without_an_address_is_told_of() {
    let mut group = named(["localhost", "localhost", "no-such-host.invalid"]);
    start(&mut group, 0);
    start(&mut group, 1);
    group.goes_on("by name");
    let path = group.path_text();
    eventually("the look-up fails", || {
        let status = hybster(&["status", "--group", &path, "--timeout", "2"]);
        assert_eq!(status.status.code(), Some(4), "{status:?}");
        status.stdout.contains("no-such-host.invalid").then(|| {
            assert!(status.stdout.contains("localhost:"), "{}", status.stdout);
        })
    });
    // It comes up where it can be reached, and connects to the others by their names.
    start(&mut group, 2);
    eventually("replica 2 has its links", || {
        let status = group.status();
        // Clients cannot look its name up, so the others are asked.
        let peers = status["replicas"][0]["status"]["peers"].as_array()?.clone();
        peers.iter().all(|peer| peer["up"] == true).then_some(())
    });
    group.goes_on("with all of them");
}

#[test]
fn what_is_no_address_is_named_with_file_and_line() {
    let group = Group::init(&[]);
    let path = group.path().join("group.toml");
    let text = fs::read_to_string(&path).unwrap();
    let right = format!("address = \"{}\"", group.addresses[1]);
    let line = 1 + text.lines().position(|line| line == right).expect("it has an address");
    for wrong in ["two words:7100", "host", "10.0.0.300:7100", "::1:7100"] {
        fs::write(&path, text.replace(&right, &format!("address = \"{wrong}\""))).unwrap();
        let place = format!("replica[1].address (line {line})");
        let path = group.path_text();
        let arguments = ["kv", "--group", &path, "get", "x"];
        hybster(&arguments).fails_with(&["group.toml", &place, wrong, ":7100"]);
    }
    let usage = hybster(&["init", "/nowhere", "--addresses", "a,b,c"]);
    assert_eq!(usage.status.code(), Some(2), "{usage:?}");
    assert!(usage.stderr.contains("replica-0.example.org:7100"), "{usage:?}");
}
