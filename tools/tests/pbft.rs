//! A group that runs PBFT, from `hybster init` to the loss of its leader: four replicas, none of which has a
//! trusted subsystem or a log.

mod harness;

use harness::{Group, hybster};

#[test]
fn a_group_of_four_serves_and_survives_the_loss_of_its_leader() {
    let mut group = Group::make_of(4, "init", &["--protocol", "pbft"]);
    group.start_all();
    for number in 0..20 {
        group.kv(&["put", &format!("key-{number}"), "value"]).ok();
    }
    let status = group.status();
    let replicas = status["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 4);
    for replica in replicas {
        assert_eq!(replica["reachable"], true, "{replica}");
        assert_eq!(replica["status"]["view"], 0);
    }
    let path = group.path_text();
    let table = hybster(&["status", "--group", &path]).ok();
    assert!(table.contains("checkpoint") && table.contains("pillar 1"), "{table}");

    group.kill(0);
    group.goes_on("one replica less");
    for number in 0..20 {
        assert_eq!(group.kv(&["get", &format!("key-{number}")]).ok(), "value\n");
    }
    let status = group.status();
    assert_eq!(status["replicas"][0]["reachable"], false);
    assert!(status["replicas"][1]["status"]["view"].as_u64().unwrap() >= 1);

    // What it has said is forgotten.
    let again = hybster(&["replica", "--group", &path, "--id", "0"]);
    again.fails_with(&["replica 0 was started before", "Go on without it"]);
    group.goes_on("still");
    // There is nothing on any disk that could be saved.
    let to = group.path().join("backup");
    let to = to.to_str().unwrap();
    let backup = hybster(&["backup", "--group", &path, "--id", "1", "--to", to]);
    backup.fails_with(&["runs pbft cannot be saved", "With hybster"]);
}

#[test]
fn init_makes_as_many_replicas_as_the_faults_need() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let pbft = |name: &str, options: &[&str]| {
        let path = path(name);
        let all = [&["init", &path, "--protocol", "pbft"], options].concat();
        hybster(&all)
    };
    let text = pbft("one", &[]).ok();
    assert!(text.contains("4 replicas (f = 1)") && text.contains("starts\nonce"), "{text}");
    let text = pbft("two", &["--faults", "2"]).ok();
    assert!(text.contains("7 replicas (f = 2)"), "{text}");
    let text = std::fs::read_to_string(dir.path().join("two").join("group.toml")).unwrap();
    for line in
        ["protocol = \"pbft\"", "durability = \"none\"", "request_authenticator = \"ed25519\""]
    {
        assert!(text.contains(line), "{line}: {text}");
    }
    pbft("few", &["--replicas", "3"]).refuses_options(&["One fault needs 4 replicas with pbft"]);
    pbft("three", &["--replicas", "3", "--faults", "1"]).refuses_options(&["at least 4 with pbft"]);
    pbft("log", &["--durability", "sync"]).refuses_options(&["durability", "write none"]);
    pbft("mac", &["--request-authenticator", "mac"]).refuses_options(&["write ed25519"]);
    // Of Hybster the same.
    let five = path("five");
    let text = hybster(&["init", &five, "--faults", "2"]).ok();
    assert!(text.contains("5 replicas (f = 2)"), "{text}");
}
