//! What an operator sees of real processes: exit status, error messages, log lines.

mod harness;

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use harness::{Finished, Group, PATIENCE, eventually, hybster, hybster_with};
use hybster::client::{Client, ClientOptions};
use hybster::services::kv::KvOperation;
use hybster::{ClientId, ClientKeys};
use rustix::process::Signal;

/// `hybster status` with these further arguments.
#[track_caller]
fn status(group: &Group, more: &[&str]) -> Finished {
    let path = group.path_text();
    let mut arguments = vec!["status", "--group", &path];
    arguments.extend(more);
    hybster(&arguments)
}

/// The `health` of each replica in `hybster status --json`.
fn health(finished: &Finished) -> Vec<String> {
    let answer: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    let replicas = answer["replicas"].as_array().unwrap().clone();
    replicas.iter().map(|r| r["health"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn status_exits_with_0_when_all_is_well_and_with_4_when_a_replica_is_missing() {
    let mut group = Group::start(&[]);
    eventually("all replicas are well", || {
        let all = status(&group, &["--json"]);
        (all.status.code() == Some(0)).then(|| assert_eq!(health(&all), ["ok", "ok", "ok"]))
    });
    assert_eq!(status(&group, &[]).status.code(), Some(0));

    // One that is stopped, so its port is open and nobody answers.
    group.replicas[2].as_ref().unwrap().signal(Signal::STOP);
    let one_silent = status(&group, &["--json", "--timeout", "1"]);
    assert_eq!(one_silent.status.code(), Some(4), "{one_silent:?}");
    assert_eq!(health(&one_silent), ["ok", "ok", "no_answer"]);
    assert!(one_silent.stderr.contains("replica 2"), "{}", one_silent.stderr);

    // One that is gone.
    group.kill(2);
    let one_dead = status(&group, &["--timeout", "1"]);
    assert_eq!(one_dead.status.code(), Some(4), "{one_dead:?}");
    assert!(one_dead.stdout.contains("unreachable"), "{}", one_dead.stdout);

    group.kill(1);
    group.kill(0);
    let none = status(&group, &["--json", "--timeout", "1"]);
    assert_eq!(none.status.code(), Some(4), "{none:?}");
    assert_eq!(health(&none), ["no_answer", "no_answer", "no_answer"]);
    assert!(none.stderr.contains("no replica can be reached"), "{}", none.stderr);
}

#[test]
fn what_draws_on_a_terminal_says_what_else_there_is() {
    let group = Group::init(&[]);
    hybster(&["top", "--group", &group.path_text()]).fails_with(&["terminal", "hybster status"]);
}

#[cfg(target_os = "linux")]
#[test]
fn io_uring_that_is_named_and_forbidden_is_an_error_with_the_reason() {
    let mut group = Group::init(&[]);
    let path = group.path_text();
    let arguments = ["replica", "--group", &path, "--id", "0", "--exit-with-parent"];
    let named = [&arguments[..], &["--transport", "io-uring"]].concat();
    let text = hybster_with(&named, harness::sandbox::forbid_io_uring).fails_with(&[
        "io-uring cannot be had",
        "io_uring",
        "epoll",
    ]);
    assert!(text.contains("not permitted"), "the system's reason: {text}");
    // It has not cost the right to start, and `auto` falls back.
    group.start_replica_changed(0, &["--transport", "auto"], harness::sandbox::forbid_io_uring);
    assert!(group.log(0).contains("epoll"), "{}", group.log(0));
}

/// Whatever holds the address, a second start is told that it is one.
#[test]
fn a_start_right_after_a_kill_says_that_the_replica_was_started_before() {
    let mut group = Group::init(&["--durability", "none"]);
    group.start_replica(0);
    group.kill(0);
    let path = group.path_text();
    let again = ["replica", "--group", &path, "--id", "0"];
    let text = hybster(&again).fails_with(&["was started before"]);
    assert!(!text.contains("another replica") && !text.contains("listen"), "{text}");
    let _held = TcpListener::bind(group.addresses[0]).unwrap();
    let text = hybster(&again).fails_with(&["was started before"]);
    assert!(!text.contains("another replica") && !text.contains("listen"), "{text}");
}

/// The kernel gives the sockets of a killed process back a moment after its end.
#[test]
fn a_start_waits_for_an_address_that_is_about_to_be_free() {
    let mut group = Group::init(&[]);
    let held = TcpListener::bind(group.addresses[0]).unwrap();
    // It is in use when the replica tries first. If the replica is slower, nothing is tested.
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(500));
        drop(held);
    });
    group.start_replica(0);
    release.join().unwrap();
}

/// However little memory it may have, a replica ends with a message that says what it needs, or runs.
#[cfg(target_os = "linux")]
#[test]
fn a_limit_of_memory_that_is_too_small_is_an_error_that_names_the_sum_of_bounds() {
    let group = Group::init(&[]);
    let sum = sum_of_bounds(&group);
    let path = group.path_text();
    let arguments = ["replica", "--group", &path, "--id", "0", "--exit-with-parent"];
    // With less, the program itself does not fit in.
    for mebibytes in (24..64).step_by(8) {
        let limit = mebibytes << 20;
        let ended = hybster_with(&arguments, |command| {
            harness::sandbox::limit_address_space(command, limit);
        });
        let text = ended.fails_with(&["not started", &sum, "prlimit", "status --memory"]);
        assert!(text.contains(&limit.to_string()), "{text}");
    }
    assert!(!group.path().join("replica-0.epoch-0.started").exists(), "it was not started");
}

/// Memory ends under load: the process says so, and is not aborted.
#[cfg(target_os = "linux")]
#[test]
fn memory_that_ends_under_load_is_an_error_that_names_the_sum_of_bounds() {
    let mut group = Group::init(&[]);
    let limit = 128 << 20;
    // A follower, so that the others go on.
    group.start_replica_changed(2, &[], |command| {
        harness::sandbox::limit_address_space(command, limit);
    });
    group.start_replica(0);
    group.start_replica(1);
    let loaded = hybster::Group::load(group.path()).unwrap();
    let keys = ClientKeys::load(&loaded, loaded.directory(), ClientId(0)).unwrap();
    let options = ClientOptions { request_timeout: PATIENCE, ..ClientOptions::default() };
    let client = Client::connect(&loaded, &keys, options).unwrap();
    let value = vec![7; 500_000];
    let mut limited = group.replicas[2].take().unwrap();
    let mut key = 0_u32;
    let status = eventually("its memory ends", || {
        key += 1;
        let mut operation = Vec::new();
        let put = KvOperation::Put { key: &key.to_le_bytes(), value: &value };
        put.encode(&mut operation).unwrap();
        client.call(&operation).unwrap();
        limited.ended()
    });
    let log = group.log(2);
    assert_eq!(status.code(), Some(1), "{log}");
    for part in ["out of memory", &limit.to_string(), &sum_of_bounds(&group), "status --memory"] {
        assert!(log.contains(part), "{part} is missing in {log}");
    }
}

/// The sum of bounds of a replica as `hybster status --memory` has it.
#[cfg(target_os = "linux")]
fn sum_of_bounds(group: &Group) -> String {
    let path = group.path_text();
    let memory = hybster(&["status", "--group", &path, "--memory", "--json"]).ok();
    let memory: serde_json::Value = serde_json::from_str(&memory).unwrap();
    format!("{} bytes", memory["bounded_bytes"])
}

/// Whatever file is removed, copied or moved afterwards, the key has been used.
#[test]
fn a_start_uses_up_the_key_and_removing_its_mark_does_not_bring_it_back() {
    let mut group = Group::init(&["--durability", "none"]);
    let before = group.copy("before");
    group.start_replica(1);
    group.kill(1);
    let refused = |path: &Path| {
        hybster(&["replica", "--group", path.to_str().unwrap(), "--id", "1"])
            .fails_with(&["replica 1 was started before", "Go on without it"]);
    };
    let mark = group.path().join("replica-1.epoch-0.started");
    refused(&group.path());
    // Without the mark, in place and in a copy of the directory.
    fs::remove_file(&mark).unwrap();
    refused(&group.path());
    refused(&group.copy("after"));
    // With the key file of before, but the mark of the start.
    fs::write(&mark, "").unwrap();
    fs::copy(before.join("replica-1.key"), group.path().join("replica-1.key")).unwrap();
    refused(&group.path());
    // The others are not concerned.
    group.start_replica(0);
    group.start_replica(2);
    group.goes_on("two of three");
}

#[test]
fn levels_and_form_of_the_log_are_set_by_options_and_by_the_environment() {
    let mut group = Group::init(&[]);
    group.start_replica_changed(0, &["--log", "debug", "--log-format", "json"], |_| {});
    group.start_replica_changed(1, &["--log", "off"], |_| {});
    group.start_replica_changed(2, &[], |command| {
        command.env("HYBSTER_LOG", "info").env("RUST_LOG", "off").env("HYBSTER_LOG_FORMAT", "json");
    });
    for id in [0, 2] {
        let log = group.log(id);
        for line in log.lines() {
            let object: serde_json::Value = serde_json::from_str(line).unwrap();
            for field in ["time", "level", "target", "thread", "message"] {
                assert!(object[field].is_string(), "{field} is missing in {line}");
            }
        }
        let listens = format!("replica {id} listens on {}", group.addresses[id]);
        assert!(log.contains(&listens), "{log}");
    }
    assert_eq!(group.log(1), "");

    let path = group.path_text();
    let wrong = hybster(&["status", "--group", &path, "--log", "loud"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("debug or trace"), "{wrong:?}");
    hybster_with(&["status", "--group", &path], |command| {
        command.env("HYBSTER_LOG_FORMAT", "xml");
    })
    .fails_with(&["HYBSTER_LOG_FORMAT", "text or json"]);
    let of_others = hybster_with(&["status", "--group", &path, "--memory"], |command| {
        command.env("RUST_LOG", "another_program[span]=trace");
    });
    assert!(of_others.status.success() && of_others.stderr.is_empty(), "{of_others:?}");
}

#[test]
fn a_group_is_for_one_service_and_no_other_starts_in_it() {
    let group = Group::init(&[]);
    let path = group.path_text();
    let other = hybster(&["replica", "--group", &path, "--id", "0", "--service", "counter"]);
    other.fails_with(&[
        "group.toml",
        "for the service hybster-kv version 1",
        "this program's is hybster-counter version 1",
    ]);
    // An older program in a group that was upgraded.
    let file = group.path().join("group.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("service_version = 1\n", "service_version = 2\n")).unwrap();
    let older = hybster(&["replica", "--group", &path, "--id", "0"]);
    older.fails_with(&["hybster-kv version 2", "hybster-kv version 1", "start a program with"]);
}
