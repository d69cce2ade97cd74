//! Agreed time and randomness over real processes: what a service is told is the same on every
//! replica, before and after the leader is killed.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use common::{Scratch, free_addresses, wait_until};
use hybster::client::{Client, ClientDriver, ClientOptions};
use hybster::group::{Addresses, CreateOptions, create};
use hybster::{
    ClientId, ClientKeys, Context, Group, GroupConfig, Pages, Replica, ReplicaId, ReplicaKeys,
    RestoreError, Service, Snapshot, Status,
};

/// The group's directory and the replica's number, for a process that is to be a replica.
const DIRECTORY: &str = "HYBSTER_TEST_AGREED_DIRECTORY";
const REPLICA: &str = "HYBSTER_TEST_AGREED_REPLICA";
/// Much longer than anything here takes on any machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Calls one after the other, before the leader is killed and after it.
const CALLS: usize = 30;
/// Requests that are under way together, so that batches have several.
const TOGETHER: usize = 64;

/// What a service was told about one operation.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    order: u64,
    time_ms: u64,
    randomness: [u8; 32],
}

impl Told {
    const BYTES: usize = 8 + 8 + 32;

    fn of(context: &Context) -> Self {
        let Context { order, time_ms, .. } = context;
        Self { order: order.0, time_ms: *time_ms, randomness: *context.randomness() }
    }

    fn encode(&self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.order.to_le_bytes());
        into.extend_from_slice(&self.time_ms.to_le_bytes());
        into.extend_from_slice(&self.randomness);
    }

    fn decode(bytes: &[u8]) -> Self {
        let (order, rest) = bytes.split_first_chunk().unwrap();
        let (time_ms, rest) = rest.split_first_chunk().unwrap();
        let (order, time_ms) = (u64::from_le_bytes(*order), u64::from_le_bytes(*time_ms));
        Self { order, time_ms, randomness: rest.try_into().unwrap() }
    }
}

/// A service that answers what it is told and writes it into a file of its replica.
struct Teller {
    executed: u64,
    file: File,
}

impl Service for Teller {
    fn execute(&mut self, context: &Context, _operation: &[u8], reply: &mut Vec<u8>) {
        self.executed += 1;
        Told::of(context).encode(reply);
        self.file.write_all(reply).unwrap();
    }

    fn snapshot(&mut self) -> Arc<dyn Snapshot> {
        Arc::new(Pages(vec![Bytes::copy_from_slice(&self.executed.to_le_bytes())]))
    }

    fn restore(&mut self, _source: &dyn Snapshot) -> Result<(), RestoreError> {
        panic!("the test ends before the first checkpoint, so no state is transferred");
    }
}

fn file_of(directory: &Path, replica: u16) -> PathBuf {
    directory.join(format!("told-{replica}"))
}

/// The operations that a replica has executed so far, in their order.
fn told(directory: &Path, replica: u16) -> Vec<Told> {
    let bytes = fs::read(file_of(directory, replica)).unwrap_or_default();
    // A replica that was killed may have written a part of the last one.
    bytes.chunks_exact(Told::BYTES).map(Told::decode).collect()
}

/// Not a test: what the processes of the test below run.
#[test]
#[ignore = "a replica of the test below; it runs in a process of its own"]
fn replica_process() {
    let (Ok(directory), Ok(id)) = (std::env::var(DIRECTORY), std::env::var(REPLICA)) else {
        return;
    };
    let (directory, id) = (Path::new(&directory), id.parse().unwrap());
    let group = Group::load(directory).unwrap();
    let keys = ReplicaKeys::load(&group, directory, ReplicaId(id)).unwrap();
    let file = File::create(file_of(directory, id)).unwrap();
    let replica = Replica::builder(group, keys).service(Teller { executed: 0, file });
    let replica = replica.start().unwrap();
    // Until the test kills it or ends itself, which closes the pipe.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    replica.shutdown().unwrap();
}

/// A replica in a process of its own, which is killed at the end.
struct Process(Child);

impl Process {
    fn start(directory: &Path, id: u16) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "replica_process", "--ignored", "--nocapture"]);
        command.env(DIRECTORY, directory).env(REPLICA, id.to_string());
        Self(command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    since.as_millis().try_into().unwrap()
}

/// Calls one after the other, so that each is in a batch of its own.
fn call_in_turn(client: &Client, clock_skew_ms: u64) -> Vec<Told> {
    let call = |_| {
        let before = unix_ms();
        let told = Told::decode(&client.call(b"").unwrap());
        let near = before - clock_skew_ms..=unix_ms() + clock_skew_ms;
        assert!(near.contains(&told.time_ms), "{told:?} is not near the clock, {near:?}");
        told
    };
    (0..CALLS).map(call).collect()
}

fn call_together(client: &Client) -> Vec<Told> {
    let all: Vec<_> = (0..TOGETHER).map(|_| client.submit(b"")).collect();
    all.into_iter().map(|pending| Told::decode(&pending.wait().unwrap())).collect()
}

/// The present leader, as one of the replicas says.
fn leader(group: &Group, directory: &Path) -> u16 {
    let keys = ClientKeys::load(group, directory, ClientId(1)).unwrap();
    let mut driver = ClientDriver::connect(group, &keys, &ClientOptions::default()).unwrap();
    driver.await_links(PATIENCE).unwrap();
    driver.request_status(ReplicaId(1)).unwrap();
    let mut answers = Vec::new();
    wait_until("a replica tells its status", || {
        driver.poll(Duration::from_millis(50)).unwrap();
        answers = driver.take_statuses();
        !answers.is_empty()
    });
    let status: Status = serde_json::from_slice(&answers[0].1[1..]).unwrap();
    status.leader
}

/// Time never falls, and a batch has one time and random bytes that no other batch has.
fn check_history(history: &[Told]) {
    let mut batches = BTreeMap::new();
    for pair in history.windows(2) {
        assert!(pair[0].order <= pair[1].order && pair[0].time_ms <= pair[1].time_ms, "{pair:?}");
    }
    for told in history {
        assert_eq!(batches.entry(told.order).or_insert(told), &told, "two in one batch differ");
    }
    let mut all: Vec<[u8; 32]> = batches.values().map(|told| told.randomness).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), batches.len(), "two batches have the same random bytes");
    assert!(!all.contains(&[0; 32]));
}

#[test]
fn all_replicas_are_told_the_same_time_and_randomness_also_by_the_next_leader() {
    let scratch = Scratch::new("agreed");
    let directory = scratch.path();
    // Longer than the test: the file of a replica that got its state from others would have a gap.
    let config = GroupConfig { checkpoint_interval: 1024, window: 2048, ..GroupConfig::default() };
    let clock_skew_ms = config.max_clock_skew_ms;
    let addresses = Addresses::List(free_addresses(config.replicas));
    let options = CreateOptions { config, addresses, clients: 2, ..Default::default() };
    let group = create(directory, &options).unwrap();
    let mut replicas: Vec<_> = (0..3).map(|id| Some(Process::start(directory, id))).collect();
    let keys = ClientKeys::load(&group, directory, ClientId(0)).unwrap();
    let options = ClientOptions {
        connect_timeout: PATIENCE,
        request_timeout: PATIENCE,
        ..ClientOptions::default()
    };
    let client = Client::connect(&group, &keys, options).unwrap();

    let mut answers = call_in_turn(&client, clock_skew_ms);
    answers.extend(call_together(&client));
    let executed = |id, count| told(directory, id).len() == count;
    for id in 0..3 {
        wait_until("all operations so far are executed", || executed(id, answers.len()));
    }

    // The leader dies without a word.
    let killed = leader(&group, directory);
    replicas[usize::from(killed)] = None;
    let before = answers.len();
    answers.extend(call_in_turn(&client, clock_skew_ms));
    answers.extend(call_together(&client));
    let left = [0, 1, 2].into_iter().filter(|id| *id != killed);
    let histories = left.map(|id| {
        wait_until("the rest is executed", || executed(id, answers.len()));
        told(directory, id)
    });
    let histories: Vec<_> = histories.collect();
    assert_eq!(histories[0], histories[1]);
    let history = &histories[0];
    assert_eq!(told(directory, killed), history[..before]);
    check_history(history);
    let time_of = |index: usize| history[index].time_ms;
    assert!(time_of(0) < time_of(history.len() - 1), "time stands still: {history:?}");

    // What clients were answered is what the replicas wrote down.
    answers.sort_by_key(|told| told.order);
    assert_eq!(&answers, history);
    client.shutdown();
}
