//! A state that is saved beside a replica that runs, and restored into a new group, with real processes.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};

use harness::{Finished, Group, eventually, hybster};

/// The value that every key gets first.
fn value(key: usize) -> String {
    format!("value {key}")
}

/// A group that has keys, and checkpoints on its disks.
fn group_with_checkpoints() -> Group {
    let group = Group::start(&["--checkpoint-interval", "8", "--pillars", "2"]);
    for key in 0..30 {
        group.kv(&["put", &format!("key {key}"), &value(key)]).ok();
    }
    eventually("each replica has a checkpoint on disk", || {
        let status = group.status();
        let saved = |id: usize| status["replicas"][id]["status"]["disk"]["checkpoint"].as_u64();
        (0..3).all(|id| saved(id).unwrap_or(0) >= 16).then_some(())
    });
    group
}

fn backup(group: &Group, id: usize, to: &Path) -> Finished {
    let (path, id) = (group.path_text(), id.to_string());
    hybster(&["backup", "--group", &path, "--id", &id, "--to", to.to_str().unwrap()])
}

/// The digest that a backup printed.
fn digest(printed: &str) -> String {
    printed.lines().find_map(|line| line.strip_prefix("digest ")).unwrap().to_owned()
}

/// A restore that must fail, of this directory.
fn refused(group: &Group, from: &Path, options: &[&str], parts: &[&str]) {
    let to = group.path().join("refused");
    let fixed = ["restore", to.to_str().unwrap(), "--from", from.to_str().unwrap()];
    hybster(&[&fixed[..], options].concat()).fails_with(parts);
    assert!(!to.exists(), "a restore that is refused leaves nothing");
}

fn copy(from: &Path, to: PathBuf) -> PathBuf {
    fs::create_dir(&to).unwrap();
    fs::copy(from.join("pages.store"), to.join("pages.store")).unwrap();
    to
}

#[test]
fn a_new_group_begins_with_what_was_saved_while_the_old_one_ran() {
    let old = group_with_checkpoints();
    let saved = old.path().join("saved");
    let printed = backup(&old, 1, &saved).ok();
    assert!(printed.contains("(service hybster-kv)"), "{printed}");
    backup(&old, 1, &saved).fails_with(&["exists already"]);
    // The old group goes on, and what it does from here on is not in the backup.
    old.kv(&["put", "key 0", "later"]).ok();
    old.goes_on("after the backup");
    let (old_path, digest) = (old.path_text(), digest(&printed));

    // With other constants: order numbers go on behind the next checkpoint of the new group.
    let from = ["--from", saved.to_str().unwrap(), "--digest", &digest];
    let of_old = ["--old-group", &old_path, "--old-id", "2"];
    let constants = ["--pillars", "3", "--checkpoint-interval", "9", "--clients", "2"];
    let options = [&from[..], &of_old, &constants].concat();
    let mut new = Group::make("restore", &options);
    // Two of its replicas, then the third.
    new.start_replica(0);
    new.start_replica(2);
    let found: Vec<bool> = (0..30)
        .map(|key| match new.kv(&["get", &format!("key {key}")]) {
            got if got.status.success() => {
                assert_eq!(got.stdout.trim_end(), value(key));
                true
            }
            _ => false,
        })
        .collect();
    // All up to some operation, which was the last one in the checkpoint.
    let last = found.iter().rposition(|is_there| *is_there).expect("some of it is there");
    assert!(last >= 10 && found[..=last].iter().all(|is_there| *is_there), "{found:?}");
    new.start_replica(1);
    new.goes_on("of all three");
    for round in 0..30 {
        new.kv(&["put", "round", &round.to_string()]).ok();
    }
    new.kill(0);
    new.goes_on("without the leader");
    new.start_replica(0);
    assert!(new.log(0).contains("replica 0 comes back from"), "{}", new.log(0));
    eventually("all are well again", || {
        hybster(&["status", "--group", &new.path_text()]).status.success().then_some(())
    });
    let status = new.status();
    let executed = status["replicas"][0]["status"]["executed"].as_u64().unwrap();
    assert!(executed > 16 + 30, "order numbers go on where the old group was: {executed}");
    // From the new group as from any other.
    backup(&new, 0, &new.path().join("again")).ok();
}

#[test]
fn a_replica_without_the_state_that_its_group_began_with_does_not_start() {
    let old = group_with_checkpoints();
    let saved = old.path().join("saved");
    let digest = digest(&backup(&old, 0, &saved).ok());
    let new = Group::make("restore", &["--from", saved.to_str().unwrap(), "--digest", &digest]);
    let copy = new.copy("without data");
    let start = ["replica", "--group", copy.to_str().unwrap(), "--id", "1", "--exit-with-parent"];
    let refused = ["replica 1 began with the state behind order", "hybster restore"];
    hybster(&start).fails_with(&refused);
    // It has left nothing with which it would start.
    hybster(&start).fails_with(&refused);
}

#[test]
fn backups_that_are_altered_mixed_or_others_are_refused() {
    let old = group_with_checkpoints();
    let (saved, later) = (old.path().join("saved"), old.path().join("later"));
    let right = digest(&backup(&old, 0, &saved).ok());
    let before = old.status()["replicas"][0]["status"]["disk"]["checkpoint"].as_u64().unwrap();
    for round in 0..30 {
        old.kv(&["put", &format!("more {round}"), &value(round)]).ok();
    }
    eventually("there is a later checkpoint", || {
        let saved = old.status()["replicas"][0]["status"]["disk"]["checkpoint"].as_u64();
        (saved > Some(before)).then_some(())
    });
    let other = digest(&backup(&old, 0, &later).ok());
    assert_ne!(right, other);

    // Nothing says which backup is wanted.
    let to = old.path().join("refused");
    hybster(&["restore", to.to_str().unwrap(), "--from", saved.to_str().unwrap()])
        .refuses_options(&["--digest"]);
    refused(&old, &saved, &["--digest", &other], &[&right, &other, "another one"]);
    let with_right = ["--digest", &right];
    refused(
        &old,
        &saved,
        &[&with_right[..], &["--service", "counter"]].concat(),
        &["name the service"],
    );
    refused(&old, &saved, &[&with_right[..], &["--durability", "none"]].concat(), &["durability"]);
    // A key of another group proves nothing.
    let stranger = Group::init(&[]);
    let path = stranger.path_text();
    refused(&old, &saved, &["--old-group", &path, "--old-id", "0"], &["is of the group"]);

    // Cut short, and changed anywhere.
    let bytes = fs::read(saved.join("pages.store")).unwrap();
    for length in [0, 100, bytes.len() / 2] {
        let cut = copy(&saved, old.path().join(format!("cut to {length}")));
        fs::write(cut.join("pages.store"), &bytes[..length]).unwrap();
        refused(&old, &cut, &with_right, &["pages.store"]);
    }
    for at in [20, 4096 + 40, 2 * 4096 + 8, 3 * 4096 + 5] {
        let changed = copy(&saved, old.path().join(format!("changed {at}")));
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        fs::write(changed.join("pages.store"), bytes).unwrap();
        refused(&old, &changed, &with_right, &["pages.store"]);
    }
    // The pages of one and the table of the other: blocks 0 and 1 say where the table is.
    let mixed = copy(&saved, old.path().join("mixed"));
    let mut of_both = fs::read(later.join("pages.store")).unwrap();
    of_both[..2 * 4096].copy_from_slice(&bytes[..2 * 4096]);
    fs::write(mixed.join("pages.store"), of_both).unwrap();
    refused(&old, &mixed, &with_right, &["pages.store"]);
    // No backup at all.
    refused(&old, &old.path(), &with_right, &["pages.store"]);
}

#[test]
fn there_is_nothing_to_save_without_a_checkpoint_or_a_disk() {
    let group = Group::start(&["--durability", "sync"]);
    backup(&group, 0, &group.path().join("early")).fails_with(&["no checkpoint yet"]);
    assert!(!group.path().join("early").exists());
    let group = Group::init(&["--durability", "none"]);
    backup(&group, 0, &group.path().join("never")).fails_with(&["durability \"none\""]);
}
