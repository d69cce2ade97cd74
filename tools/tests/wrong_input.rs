//! Wrong input of every kind gets a clear message or a counted rejection, and the group continues.

mod harness;

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::BytesMut;
use harness::{Group, PATIENCE, eventually, hybster};
use hybster::{ClientId, ClientKeys};
use hybster_net::Identity;
use hybster_net::handshake::{HandshakeConfig, Handshaker, Progress};

fn replica(path: &Path, id: &str) -> harness::Finished {
    hybster(&["replica", "--group", path.to_str().unwrap(), "--id", id])
}

/// Changes the text of a file, keeping its mode.
fn edit(path: &Path, change: impl FnOnce(String) -> String) {
    let text = fs::read_to_string(path).unwrap();
    let changed = change(text.clone());
    assert_ne!(text, changed, "the change must change something");
    fs::write(path, changed).unwrap();
}

#[test]
fn missing_and_unreadable_files_are_named_with_a_cure() {
    let group = Group::init(&[]);
    let nowhere = group.path().join("nowhere");
    for result in [
        replica(&nowhere, "0"),
        hybster(&["kv", "--group", nowhere.to_str().unwrap(), "get", "k"]),
        hybster(&["status", "--group", nowhere.to_str().unwrap()]),
    ] {
        result.fails_with(&["nowhere", "cannot be read", "hybster init"]);
    }
    let copy = group.copy("without key");
    fs::remove_file(copy.join("replica-1.key")).unwrap();
    replica(&copy, "1").fails_with(&["replica-1.key", "cannot be read"]);
    fs::create_dir(copy.join("replica-1.key")).unwrap();
    replica(&copy, "1").fails_with(&["replica-1.key", "not a regular file"]);

    let copy = group.copy("open");
    fs::set_permissions(copy.join("replica-0.key"), Permissions::from_mode(0o644)).unwrap();
    replica(&copy, "0").fails_with(&["replica-0.key", "0644", "chmod 600"]);
    replica(&group.path(), "3").refuses_options(&["there is no replica 3", "numbered from 0"]);

    let path = group.path();
    let arguments = ["replica", "--group", path.to_str().unwrap(), "--id", "0", "--cores", "9999"];
    hybster(&arguments).refuses_options(&["core 9999 cannot be used", "usable cores"]);

    let copy = group.copy("garbled");
    edit(&copy.join("group.toml"), |text| text.replace("pillars = 2", "pillars = \"many\""));
    replica(&copy, "0").fails_with(&["group.toml", "pillars"]);
    let copy = group.copy("impossible");
    edit(&copy.join("group.toml"), |text| text.replace("faults = 1", "faults = 2"));
    replica(&copy, "0").fails_with(&["group.toml", "replicas = 3", "at least 5"]);
}

#[test]
fn a_bad_key_is_told_before_anything_starts() {
    let group = Group::init(&[]);
    let copy = group.copy("swapped");
    fs::copy(copy.join("replica-1.key"), copy.join("replica-0.key")).unwrap();
    replica(&copy, "0").fails_with(&["replica-0.key", "holds the keys of replica 1"]);

    let other = Group::init(&[]);
    let copy = group.copy("foreign");
    fs::copy(other.path().join("replica-0.key"), copy.join("replica-0.key")).unwrap();
    replica(&copy, "0").fails_with(&["replica-0.key", "another group"]);
    fs::copy(other.path().join("client-0.key"), copy.join("client-0.key")).unwrap();
    hybster(&["kv", "--group", copy.to_str().unwrap(), "get", "k"])
        .fails_with(&["client-0.key", "another group"]);

    // One digit of the sealed group key.
    let copy = group.copy("flipped");
    edit(&copy.join("replica-2.key"), |text| {
        let end = text.rfind('"').unwrap();
        let digit = if text.as_bytes()[end - 1] == b'0' { "1" } else { "0" };
        format!("{}{digit}{}", &text[..end - 1], &text[end..])
    });
    replica(&copy, "2").fails_with(&["replica-2.key", "sealed_group_key"]);

    let copy = group.copy("cut");
    edit(&copy.join("replica-2.key"), |text| text[..text.len() / 2].to_owned());
    let text = replica(&copy, "2").fails_with(&["replica-2.key", "is cut off", "never started"]);
    let key = fs::read_to_string(group.path().join("replica-2.key")).unwrap();
    for secret in key.split('"').filter(|part| part.len() >= 64) {
        assert!(!text.contains(secret) && !text.contains(&secret[..32]), "a secret is shown");
    }
}

#[test]
fn a_taken_port_is_named() {
    let group = Group::init(&[]);
    let taken = TcpListener::bind(group.addresses[0]).unwrap();
    let address = group.addresses[0].to_string();
    replica(&group.path(), "0").fails_with(&["cannot listen", &address, "another replica"]);
    drop(taken);
}

#[test]
fn options_that_contradict_each_other_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("group");
    let path = path.to_str().unwrap();
    hybster(&["init", path, "--replicas", "4", "--faults", "2"])
        .refuses_options(&["replicas", "at least 5"]);
    hybster(&["init", path, "--replicas", "3", "--addresses", "127.0.0.1:1,127.0.0.1:2"])
        .refuses_options(&["addresses", "3"]);
    // A group without a fault to give is made by nobody who does not say so.
    hybster(&["init", path, "--addresses", "127.0.0.1:1,127.0.0.1:2"]).refuses_options(&[
        "f = 0",
        "3 replicas",
        "--faults 0",
    ]);
    hybster(&["init", path, "--addresses", "127.0.0.1:1,127.0.0.1:2,127.0.0.1:1"])
        .refuses_options(&["127.0.0.1:1", "twice"]);
    for wrong in [
        ["--authenticator", "rot13"],
        ["--request-authenticator", "rot13"],
        ["--layout", "cubist"],
        ["--addresses", "here"],
    ] {
        let result = hybster(&["init", path, wrong[0], wrong[1]]);
        assert_eq!(result.status.code(), Some(2), "{result:?}");
        assert!(result.stderr.contains(wrong[1]), "{}", result.stderr);
    }
    assert!(!Path::new(path).exists(), "a refused init leaves nothing");
    let told = hybster(&["init", path, "--faults", "0", "--addresses", "127.0.0.1:1,127.0.0.1:2"]);
    assert!(told.ok().contains("tolerates no fault"));
}

#[test]
fn a_replica_with_another_configuration_is_refused_and_the_others_go_on() {
    let mut group = Group::init(&[]);
    let copy = group.copy("other constants");
    edit(&copy.join("group.toml"), |text| {
        let line = text.lines().find(|l| l.starts_with("request_timeout_us")).unwrap().to_owned();
        text.replace(&line, "request_timeout_us = 123456")
    });
    group.start_replica(0);
    group.start_replica(1);
    group.start_replica_from(2, &copy);
    group.goes_on("two of three");
    eventually("the refusal is logged", || {
        let logs = [group.log(0), group.log(1), group.log(2)].concat();
        logs.contains("configuration").then_some(())
    });
    let status = group.status();
    assert_eq!(status["replicas"][2]["reachable"], false, "{status}");
    let problem = status["replicas"][2]["problem"].as_str().unwrap();
    assert!(problem.contains("configuration"), "{problem}");
}

#[test]
fn a_client_that_the_replicas_do_not_know_is_refused_with_the_reason() {
    let mut group = Group::init(&["--clients", "2"]);
    // The replicas' group file lists client 0 only.
    let replicas = group.copy("one client");
    edit(&replicas.join("group.toml"), |text| {
        let (kept, dropped) = text.split_at(text.rfind("[[client]]").unwrap());
        assert!(dropped.contains("id = 1"), "{dropped}");
        kept.to_owned()
    });
    for id in 0..3 {
        group.start_replica_from(id, &replicas);
    }
    group.kv(&["--client", "1", "get", "k"]).fails_with(&["key"]);
    group.kv(&["--client", "7", "get", "k"]).refuses_options(&["no client 7", "numbered from 0"]);
    group.goes_on("client 0 is served");
    // The client may have given up on the first refusal, from any replica.
    eventually("a refusal is counted", || {
        let status = group.status();
        (0..3).any(|replica| refused(&status, replica, "unknown_key") > 0).then_some(())
    });
}

/// How often a replica refused connections for a reason.
fn refused(status: &serde_json::Value, replica: usize, reason: &str) -> u64 {
    let refusals = status["replicas"][replica]["status"]["refusals"].as_array().cloned();
    let refusals = refusals.unwrap_or_default();
    let counts = refusals.iter().filter(|r| r["reason"] == reason).map(|r| r["count"].as_u64());
    counts.map(Option::unwrap_or_default).sum()
}

#[test]
fn garbage_on_a_port_is_counted_and_the_group_goes_on() {
    let group = Group::start(&[]);
    let noise: Vec<u8> =
        (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    // A frame header of the link protocol that claims 4 GiB, where a handshake is expected.
    let mut huge = vec![0xff; 4];
    huge.extend_from_slice(&[1, 0, 0, 0]);
    huge.resize(1000, 0);
    // A TLS handshake record whose message claims 16 MiB.
    let mut record = vec![0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff];
    record.resize(5000, 0);
    for address in &group.addresses {
        for bytes in [&noise[..], &huge, &record, b"GET / HTTP/1.1\r\n\r\n"] {
            expect_closed(address, bytes);
        }
        // Connects and sends nothing.
        drop(TcpStream::connect(address).unwrap());
    }
    group.goes_on("in spite of it");
    let status = group.status();
    for replica in 0..3 {
        assert!(refused(&status, replica, "garbage") >= 3, "{status}");
    }
}

#[test]
fn a_frame_that_claims_four_gibibytes_ends_its_link_and_nothing_else() {
    let group = Group::start(&[]);
    for replica in 0..3 {
        let mut stream = authenticated(&group, replica);
        // As `net/WIRE.md` says: length, version, flags, zero. The client's key is a good one.
        let mut frame = vec![0xff; 4];
        frame.extend_from_slice(&[1, 0, 0, 0]);
        frame.resize(100_000, 7);
        let _ = stream.write_all(&frame);
        expect_end(&mut stream);
    }
    group.goes_on("in spite of it");
    let status = group.status();
    for replica in 0..3 {
        assert_eq!(refused(&status, replica, "too_long"), 1, "{status}");
    }
}

/// A connection to a replica on which client 0 has completed the handshake.
fn authenticated(group: &Group, replica: u16) -> TcpStream {
    let loaded = hybster::Group::load(group.path()).unwrap();
    let keys = ClientKeys::load(&loaded, loaded.directory(), ClientId(0)).unwrap();
    let limits = loaded.link_limits();
    let mut handshaker = Handshaker::new(HandshakeConfig {
        identity: Identity::Client(0),
        key: keys.link,
        keyring: Arc::new(loaded.key_ring().unwrap()),
        group_digest: loaded.config().digest().0,
        pillars: loaded.config().pillars,
        incarnation: 1,
        application: None,
        cipher: loaded.link_cipher(),
        peer_frame_bytes: limits.peer_frame_bytes,
        client_frame_bytes: limits.client_frame_bytes,
        handshake_bytes: limits.handshake_bytes,
    })
    .unwrap();
    let mut handshake = handshaker.connect(Identity::Replica(replica)).unwrap();
    let mut stream = TcpStream::connect(group.addresses[usize::from(replica)]).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let (mut input, mut output, mut buffer) = (BytesMut::new(), Vec::new(), [0; 4096]);
    loop {
        let progress = handshake.receive(&mut input, &mut output).unwrap();
        stream.write_all(&output).unwrap();
        output.clear();
        match progress {
            Progress::Established(_) => return stream,
            Progress::Identified { .. } => handshake.admit(),
            Progress::Pending => {
                let count = stream.read(&mut buffer).unwrap();
                assert_ne!(count, 0, "the replica refused a good client");
                input.extend_from_slice(&buffer[..count]);
            }
        }
    }
}

/// Sends bytes and waits until the other side has closed the connection.
fn expect_closed(address: &SocketAddr, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // The other side may close before everything is sent.
    let _ = stream.write_all(bytes);
    expect_end(&mut stream);
}

fn expect_end(stream: &mut TcpStream) {
    let mut answer = [0; 512];
    loop {
        match stream.read(&mut answer) {
            Ok(1..) => {}
            Ok(0) => return,
            Err(e) => {
                let kind = e.kind();
                assert_eq!(kind, std::io::ErrorKind::ConnectionReset, "the link stays open: {e}");
                return;
            }
        }
    }
}
