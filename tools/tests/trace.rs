//! `hybster replica --trace` and `hybster trace`.

mod harness;

use harness::{Finished, Group, eventually, hybster};
use rustix::process::Signal;

#[test]
fn a_group_is_traced_and_its_traces_are_told_in_words() {
    let mut group = Group::init(&["--pillars", "2"]);
    let directory = group.path();
    let files: Vec<String> =
        (0..3).map(|id| directory.join(format!("{id}.trace")).to_str().unwrap().into()).collect();
    for (id, file) in files.iter().enumerate() {
        group.start_replica_with(id, &directory, &["--trace", file]);
    }
    group.kv(&["put", "greeting", "hello"]).ok();
    assert_eq!(group.kv(&["get", "greeting"]).ok(), "hello\n");
    // The leader is killed, as in a machine crash; its trace up to then stays readable.
    eventually("the leader's trace is written", || {
        let trace = hybster(&["trace", &files[0], "--order", "1"]).ok();
        trace.contains("r0 executed o1: ").then_some(())
    });
    group.kill(0);
    group.goes_on("one replica less");
    for id in [1, 2] {
        let mut replica = group.replicas[id].take().unwrap();
        replica.signal(Signal::TERM);
        assert!(replica.wait().success(), "{}", group.log(id));
        assert!(group.log(id).contains(&format!("{id}.trace: ")), "{}", group.log(id));
    }

    let show = |arguments: &[&str]| -> Finished {
        let mut all = vec!["trace"];
        all.extend(arguments);
        hybster(&all)
    };
    let every: Vec<&str> = files.iter().map(String::as_str).collect();
    let text = show(&every).ok();
    for part in ["r0 p0 proposed o1 in v0", "r1 p0 committed o1 in v0", "r2 executed o1: "] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    assert!(
        text.contains("r1 accepted r1 as leader of v") && text.contains("r2 p1 adopted in v"),
        "{text}"
    );
    let times: Vec<&str> = text.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert!(times.is_sorted() || times.first() > times.last(), "unless it was midnight");

    let some = show(&[every[1], every[2], "--replica", "2", "--pillar", "0", "--order", "1"]).ok();
    assert!(some.lines().count() >= 1, "{text}");
    assert!(some.lines().all(|line| line.contains(" r2 p0 ")), "{some}");
    let json = show(&[every[2], "--json", "--order", "1"]).ok();
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        (&lines[0]["protocol"], &lines[0]["quorums"]["commit"]),
        (&"hybster".into(), &2.into())
    );
    let certified = lines.iter().find(|line| line["event"] == "certified").unwrap();
    assert_eq!((&certified["replica"], &certified["proposal"]["first"]), (&2.into(), &1.into()));
    assert!(certified["voters"].as_array().unwrap().len() >= 2, "{certified}");
    let executed = lines.iter().find(|line| line["event"] == "executed").unwrap();
    assert_eq!(executed["results"].as_str().map(str::len), Some(64), "{executed}");

    let other = directory.join("group.toml");
    show(&[other.to_str().unwrap()]).fails_with(&["is no trace of Hybster"]);
    show(&["no such file"]).fails_with(&["no such file"]);
    // A trace is never overwritten, and the right to start is not used up by that.
    let other = Group::init(&[]);
    let directory = other.path_text();
    let options = ["replica", "--group", &directory, "--id", "0", "--trace", every[0]];
    for _ in 0..2 {
        hybster(&options).fails_with(&["0.trace", "does not exist yet"]);
    }
}

/// What a release before this one wrote.
#[test]
fn a_trace_of_version_1_is_shown() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/proto/tests/fixtures/trace-v1.bin");
    let text = hybster(&["trace", file, "--order", "6"]).ok();
    assert!(text.contains("r1 p1 committed o2..=o6 in v3: bbbbbbbb"), "{text}");
    assert!(!text.contains("o256"), "{text}");
    hybster(&["trace", file, "--json"]).fails_with(&["format version 1"]);
    let new = concat!(env!("CARGO_MANIFEST_DIR"), "/../engine/proto/tests/fixtures/trace-v2.bin");
    hybster(&["trace", file, new]).fails_with(&["format version 2, but version 1"]);
}
