//! What `hybster doctor` finds on real groups.

mod harness;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use harness::{Finished, Group, eventually, hybster};
use serde_json::Value;

fn doctor(path: &Path, more: &[&str]) -> Finished {
    let mut arguments = vec!["doctor", "--group", path.to_str().unwrap(), "--json"];
    arguments.extend(more);
    hybster(&arguments)
}

/// The checks that found something wrong, with the replica that each is about.
fn wrong(finished: &Finished) -> Vec<(String, Option<u64>)> {
    let report: Value = serde_json::from_str(&finished.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let wrong = findings.filter(|finding| finding["verdict"] == "wrong");
    let found: Vec<_> = wrong
        .map(|finding| {
            assert!(finding["advice"].is_string(), "{finding} says what to change");
            (finding["check"].as_str().unwrap().to_owned(), finding["replica"].as_u64())
        })
        .collect();
    let expected = if found.is_empty() { 0 } else { 4 };
    assert_eq!(finished.status.code(), Some(expected), "{finished:?}");
    assert_eq!(report["well"], found.is_empty());
    found
}

/// Where the tests run may lack room, or have its directories in memory.
fn but_for_the_disk(mut found: Vec<(String, Option<u64>)>) -> Vec<(String, Option<u64>)> {
    found.retain(|(check, _)| check != "data" && check != "disk");
    found
}

#[test]
fn a_group_that_is_well_has_nothing_wrong() {
    let group = Group::start(&[]);
    let path = group.path();
    eventually("all is well", || {
        let looked = doctor(&path, &["--id", "1"]);
        but_for_the_disk(wrong(&looked)).is_empty().then_some(())
    });
    let text = hybster(&["doctor", "--group", path.to_str().unwrap()]);
    for part in ["configuration", "replica 2", "links to all peers are up", "0 wrong"] {
        assert!(text.stdout.contains(part), "{part} is missing in {}", text.stdout);
    }
}

#[test]
fn what_is_wrong_is_named() {
    let mut group = Group::init(&[]);
    let copy = group.copy("other constants");
    let file = copy.join("group.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("resend_us = 50000", "resend_us = 50001")).unwrap();
    group.start_replica(0);
    group.start_replica_from(2, &copy);
    let path = group.path();
    let looked = eventually("the other configuration is found", || {
        let found = but_for_the_disk(wrong(&doctor(&path, &["--timeout", "1"])));
        found.contains(&("configuration".to_owned(), Some(2))).then_some(found)
    });
    assert!(looked.contains(&("reach".to_owned(), Some(1))), "{looked:?}");

    // Without a client's key, it is seen only who listens.
    fs::remove_file(path.join("client-0.key")).unwrap();
    let looked = but_for_the_disk(wrong(&doctor(&path, &[])));
    assert_eq!(looked, [("reach".to_owned(), Some(1))]);

    fs::set_permissions(path.join("replica-1.key"), Permissions::from_mode(0o640)).unwrap();
    let looked = doctor(&path, &["--id", "1", "--offline"]);
    assert_eq!(but_for_the_disk(wrong(&looked)), [("key".to_owned(), Some(1))]);
    assert!(looked.stdout.contains("chmod 600"), "{}", looked.stdout);

    hybster(&["doctor", "--group", path.to_str().unwrap(), "--id", "3"])
        .refuses_options(&["--id 3", "numbered from 0"]);
    hybster(&["doctor", "--group", "/nowhere"]).fails_with(&["hybster init"]);
}
