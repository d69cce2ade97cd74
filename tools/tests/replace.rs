//! A replica whose disk is lost, and another one in its place: real processes, under load.

mod harness;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use harness::{Group, eventually, hybster};
use hybster::client::{Client, ClientOptions};
use hybster::services::kv::{KvOperation, KvReply};
use hybster::{ClientId, ClientKeys};

/// A client that writes one key after the other, for as long as the test runs.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(u64, Client)>,
}

fn put(client: &Client, number: u64) {
    let (key, value) = (format!("load {number}"), number.to_string());
    let operation = KvOperation::Put { key: key.as_bytes(), value: value.as_bytes() };
    let mut bytes = Vec::new();
    operation.encode(&mut bytes).unwrap();
    let reply = client.call(&bytes).unwrap();
    assert!(matches!(KvReply::decode(&reply), Ok(KvReply::Stored { .. })), "{reply:?}");
}

fn value(client: &Client, number: u64) -> Option<String> {
    let key = format!("load {number}");
    let mut bytes = Vec::new();
    KvOperation::Get { key: key.as_bytes() }.encode(&mut bytes).unwrap();
    match KvReply::decode(&client.call(&bytes).unwrap()).unwrap() {
        KvReply::Value(value) => Some(String::from_utf8(value.to_vec()).unwrap()),
        _ => None,
    }
}

impl Load {
    fn start(group: &Group) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let path = group.path();
        let is_over = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let group = hybster::Group::load(&path).unwrap();
            let keys = ClientKeys::load(&group, &path, ClientId(0)).unwrap();
            let timeout = Duration::from_secs(50);
            let options = ClientOptions {
                sessions: 1,
                request_timeout: timeout,
                connect_timeout: timeout,
                ..ClientOptions::default()
            };
            let client = Client::connect(&group, &keys, options).unwrap();
            let mut acknowledged = 0;
            while !is_over.load(Ordering::Relaxed) {
                put(&client, acknowledged);
                acknowledged += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            (acknowledged, client)
        });
        Self { stop, thread }
    }

    /// Ends it, and reads all that was acknowledged, with the same client.
    #[track_caller]
    fn check(self) {
        self.stop.store(true, Ordering::Relaxed);
        let (acknowledged, client) = self.thread.join().unwrap();
        assert!(acknowledged > 0);
        for number in 0..acknowledged {
            assert_eq!(value(&client, number), Some(number.to_string()), "of {acknowledged}");
        }
    }
}

const OPTIONS: &[&str] = &["--administrator", "--checkpoint-interval", "16"];

/// Moves what replica `id` has on its disk to another directory, with which it could start.
fn lose(group: &Group, id: usize, to: &str) -> PathBuf {
    let to = group.path().parent().unwrap().join(to);
    fs::create_dir(&to).unwrap();
    fs::copy(group.path().join("group.toml"), to.join("group.toml")).unwrap();
    let own = format!("replica-{id}.");
    for entry in fs::read_dir(group.path()).unwrap() {
        let name = entry.unwrap().file_name();
        if name.to_str().unwrap().starts_with(&own) {
            fs::rename(group.path().join(&name), to.join(&name)).unwrap();
        }
    }
    to
}

#[track_caller]
fn replace(group: &Group, id: usize, to: &Path) -> String {
    let (path, number, to) = (group.path_text(), id.to_string(), to.to_str().unwrap());
    hybster(&["replace-replica", "--group", &path, "--id", &number, "--to", to]).ok()
}

/// Waits until a replica takes part: it has a checkpoint that is not older than the one of its peers was.
#[track_caller]
fn takes_part(group: &Group, id: usize) {
    let number = |status: &serde_json::Value, id: usize, name: &str| {
        status["replicas"][id]["status"][name].as_u64().unwrap_or(0)
    };
    let status = group.status();
    let executed = (0..3).map(|id| number(&status, id, "executed")).max().unwrap();
    eventually("the replica takes part", || {
        let status = group.status();
        (number(&status, id, "executed") > executed + 16).then_some(())
    });
}

/// The whole of it.
#[test]
fn another_replica_takes_the_place_of_one_that_is_lost() {
    let mut group = Group::start(OPTIONS);
    let load = Load::start(&group);
    group.goes_on("before");
    group.kill(2);
    let old = lose(&group, 2, "old");
    let new = old.with_file_name("new");
    let told = replace(&group, 2, &new);
    assert!(told.contains("Epoch 1 has begun: the old replica 2 counts no more"), "{told}");
    assert!(group.log(0).contains("epoch 1 begins"), "{}", group.log(0));
    group.start_replica_from(2, &new);
    takes_part(&group, 2);
    // The next fault.
    group.kill(0);
    group.goes_on("with the new one");
    // The old one is told that it is over, though it has everything that it ever had.
    let old = old.to_str().unwrap();
    let start = ["replica", "--group", old, "--id", "2", "--exit-with-parent"];
    let elsewhere = [&start[..], &["--listen", "127.0.0.1:0"]].concat();
    hybster(&elsewhere).fails_with(&["replica 2 was replaced", "from epoch 1 on"]);
    // And from then on it knows.
    hybster(&start).fails_with(&["replica 2 was replaced"]);
    // All of them start again in the new epoch.
    group.start_replica(0);
    takes_part(&group, 0);
    group.kill(1);
    group.goes_on("without the other one");
    group.kill(2);
    group.start_replica_from(2, &new);
    group.goes_on("after a restart of the new one");
    load.check();
}

/// The two that are left are killed while they go on to the next epoch, at any moment of it, again and again. The one that
/// is replaced for the last time finds its way through all epochs.
#[test]
fn kills_at_any_moment_of_a_switch_lose_nothing() {
    let mut group = Group::start(OPTIONS);
    let load = Load::start(&group);
    group.goes_on("before");
    group.kill(2);
    let mut new = lose(&group, 2, "old");
    for (round, delay_ms) in [0, 40, 120, 250].into_iter().enumerate() {
        new = new.with_file_name(format!("new-{round}"));
        let (path, to) = (group.path_text(), new.to_str().unwrap().to_owned());
        let options = ["replace-replica", "--group", &path, "--id", "2", "--to", &to];
        let replaced = std::thread::scope(|scope| {
            let replaced = scope.spawn(move || hybster(&options));
            std::thread::sleep(Duration::from_millis(delay_ms));
            for _ in 0..3 {
                for id in [round % 2, 1 - round % 2] {
                    group.kill(id);
                    group.start_replica(id);
                    std::thread::sleep(Duration::from_millis(delay_ms));
                }
            }
            let replaced = replaced.join();
            let logs = [0, 1].map(|id| group.log(id));
            replaced.unwrap_or_else(|_| panic!("round {round}: {logs:#?}"))
        });
        let told = replaced.ok();
        assert!(told.contains(&format!("Epoch {} has begun", round + 1)), "{told}");
        group.goes_on("after a switch");
    }
    group.start_replica_from(2, &new);
    takes_part(&group, 2);
    group.kill(1);
    group.goes_on("with the new one");
    load.check();
}
