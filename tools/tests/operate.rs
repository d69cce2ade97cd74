//! What an operator sees of real processes: exit status, error messages, log lines.

mod harness;

use harness::{Finished, Group, eventually, hybster, hybster_with};
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
