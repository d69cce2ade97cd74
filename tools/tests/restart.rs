//! Real processes that are killed and started again: what was acknowledged is there, and what must
//! not come back is refused.

mod harness;

use std::fs;
use std::path::Path;

use harness::{Group, eventually, hybster};
use rustix::process::Signal;

/// The value of a key, read by all replicas.
#[track_caller]
fn expect(group: &Group, key: &str, value: &str) {
    assert_eq!(group.kv(&["get", key]).ok().trim_end(), value, "{key}");
}

#[track_caller]
fn put(group: &Group, key: &str, value: &str) {
    group.kv(&["put", key, value]).ok();
}

fn data(group: &Group, id: usize) -> std::path::PathBuf {
    group.path().join(format!("replica-{id}.epoch-0.data"))
}

/// In each mode and layout: one after the other, and all at once.
#[test]
fn what_was_acknowledged_outlives_kills_of_one_and_of_all() {
    for (mode, layout) in [("sync", "fused"), ("async", "split")] {
        let mut group = Group::start(&["--durability", mode, "--layout", layout]);
        put(&group, "first", mode);
        for id in 0..3 {
            group.kill(id);
            put(&group, &format!("without {id}"), mode);
            group.start_replica(id);
            let log = group.log(id);
            assert!(log.contains(&format!("replica {id} comes back from")), "{log}");
            put(&group, &format!("with {id}"), mode);
            // The next one is stopped when this one can do without it.
            eventually("the replica has caught up", || {
                let status = group.status();
                let executed = |id: usize| status["replicas"][id]["status"]["executed"].as_u64();
                (executed(id) == executed((id + 1) % 3) && executed(id).is_some()).then_some(())
            });
        }
        (0..3).for_each(|id| group.kill(id));
        (0..3).for_each(|id| group.start_replica(id));
        expect(&group, "first", mode);
        for id in 0..3 {
            expect(&group, &format!("without {id}"), mode);
            expect(&group, &format!("with {id}"), mode);
        }
        group.goes_on("after all of it");
    }
}

/// With checkpoints, so that a restart begins with one, and the log in front of it is gone.
#[test]
fn a_replica_comes_back_from_a_checkpoint() {
    let mut group = Group::start(&["--checkpoint-interval", "8", "--pillars", "2"]);
    for round in 0..40 {
        put(&group, &format!("key {}", round % 7), &format!("{round}"));
    }
    let saved = |group: &Group, id: usize| {
        let status = group.status();
        status["replicas"][id]["status"]["disk"]["checkpoint"].as_u64().unwrap_or(0)
    };
    eventually("each has a checkpoint on disk", || {
        (0..3).all(|id| saved(&group, id) >= 8).then_some(())
    });
    let disk = &group.status()["replicas"][0]["status"]["disk"];
    let took = |name: &str| disk[name].as_u64().unwrap();
    assert!(took("sync_longest_us") > 0 && took("sync_p50_us") <= took("sync_p99_us"), "{disk}");
    let before = (0..3).map(|id| saved(&group, id)).min().unwrap();
    (0..3).for_each(|id| group.kill(id));
    (0..3).for_each(|id| group.start_replica(id));
    for id in 0..3 {
        let log = group.log(id);
        let line = log.lines().find(|line| line.contains("comes back")).unwrap_or_default();
        assert!(!line.contains("checkpoint of order 0,"), "since {before}: {line}");
    }
    for key in 0..7 {
        let last = (0..40).rev().find(|round| round % 7 == key).unwrap();
        expect(&group, &format!("key {key}"), &format!("{last}"));
    }
    group.goes_on("after all of it");
}

#[test]
fn a_stopped_replica_closes_its_log_and_comes_back() {
    let mut group = Group::start(&[]);
    put(&group, "a", "1");
    let mut replica = group.replicas[1].take().unwrap();
    replica.signal(Signal::TERM);
    assert!(replica.wait().success());
    group.start_replica(1);
    group.kill(0);
    group.goes_on("with the one that was stopped");
    expect(&group, "a", "1");
}

/// Where the counters are is only known from the log.
#[test]
fn a_replica_whose_data_is_lost_or_not_its_own_is_refused() {
    let mut group = Group::start(&[]);
    put(&group, "a", "1");
    group.kill(1);
    let path = group.path_text();
    let start = ["replica", "--group", &path, "--id", "1", "--exit-with-parent"];
    let kept = group.path().join("kept");
    fs::rename(data(&group, 1), &kept).unwrap();
    let refused = ["there is no log, but replica 1 has run before", "never an older copy"];
    hybster(&start).fails_with(&refused);
    // A refused start leaves nothing that a next one would take for a log.
    hybster(&start).fails_with(&refused);
    // Another replica's.
    group.kill(2);
    let other = data(&group, 2);
    let with_other = [&start[..], &["--data", other.to_str().unwrap()]].concat();
    hybster(&with_other).fails_with(&["not the data of replica 1", "--data"]);
    // Its own, from where it was put.
    let own = group.path();
    group.start_replica_with(1, &own, &["--data", kept.to_str().unwrap()]);
    group.goes_on("with its own data");
    // What another process has open is not opened.
    let with_kept = [&start[..], &["--listen", "127.0.0.1:0"], &["--data", kept.to_str().unwrap()]];
    hybster(&with_kept.concat()).fails_with(&["locked"]);
}

/// A disk that was changed is found, and nothing is made of it.
#[test]
fn a_damaged_log_is_refused() {
    let mut group = Group::start(&[]);
    for round in 0..20 {
        put(&group, "a", &format!("{round}"));
    }
    group.kill(1);
    let segment = data(&group, 1).join("log").join("segment-0000000000000001.log");
    let mut bytes = fs::read(&segment).unwrap();
    // In the middle of what the log has, behind the header's block.
    bytes[4096 + 700] ^= 1;
    fs::write(&segment, bytes).unwrap();
    let path = group.path_text();
    let start = ["replica", "--group", &path, "--id", "1", "--exit-with-parent"];
    hybster(&start).fails_with(&["segment-0000000000000001.log", "damaged"]);
    group.goes_on("without it");
}

/// A copy of the files of a directory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// As if somebody had restored a backup: of a follower's data, then of the leader's.
#[test]
fn an_older_copy_of_the_data_is_refused() {
    for id in [1, 0] {
        let mut group = Group::start(&["--checkpoint-interval", "8"]);
        put(&group, "a", "1");
        let (data, older) = (data(&group, id), group.path().join("older"));
        let newest = group.path().join("newest");
        group.kill(id);
        copy(&data, &older);
        group.start_replica(id);
        for round in 0..20 {
            put(&group, "a", &format!("{round}"));
        }
        eventually("the replica has caught up", || {
            let status = group.status();
            let executed = |id: usize| status["replicas"][id]["status"]["executed"].as_u64();
            (executed(id) == executed(2) && executed(id).is_some()).then_some(())
        });
        group.kill(id);
        fs::rename(&data, &newest).unwrap();
        fs::rename(&older, &data).unwrap();
        let (path, number) = (group.path_text(), id.to_string());
        let start = ["replica", "--group", &path, "--id", &number, "--exit-with-parent"];
        hybster(&start).fails_with(&["the replica's data is an older copy", "newest"]);
        group.goes_on("without it");
        fs::remove_dir_all(&data).unwrap();
        fs::rename(&newest, &data).unwrap();
        group.start_replica(id);
        group.kill(2);
        expect(&group, "a", "19");
        group.goes_on("with the newest data");
    }
}
