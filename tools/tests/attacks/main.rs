//! Attacks on real replicas: somebody has the link key of one replica, or the keys of one client, and
//! floods the others with it. Honest clients go on, no replica takes more memory than it says, and the
//! view stays.
//!
//! How much honest clients keep is a matter of time, so no test asserts it; `cargo test --release -p
//! hybster-tools --test attacks -- --ignored --nocapture` prints the table, each attack for as many
//! seconds as `HYBSTER_ATTACK_SECONDS` says (30). The measure for an attack is not a quiet group but one
//! beside an honest flood of as many bytes: on one machine the attacker takes CPU from the group, too. What
//! replicas take of the CPU for each honest operation says more where others use the machine as well.

#[path = "../harness/mod.rs"]
mod harness;

mod attacker;
mod floods;

use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant};

use attacker::Attacker;
use floods::{ClientFlood, PeerFlood};
use harness::{Group, PATIENCE, eventually, hybster};
use hybster::client::{Client, ClientOptions};
use hybster::services::kv::KvOperation;
use hybster::{ClientId, ClientKeys, ReplicaId, ReplicaKeys};

/// Requests of the honest client that are under way at a time.
const UNDER_WAY: usize = 64;
/// Keys that it writes to.
const KEYS: u64 = 2000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attack {
    Peer(PeerFlood),
    Client(ClientFlood),
}

impl Attack {
    fn all() -> impl Iterator<Item = Self> {
        let peers = PeerFlood::ALL.into_iter().map(Attack::Peer);
        peers.chain(ClientFlood::ALL.into_iter().map(Attack::Client))
    }

    /// The honest flood that it is compared with.
    fn measure(self) -> Self {
        match self {
            Self::Peer(_) => Self::Peer(PeerFlood::OldCommits),
            Self::Client(_) => Self::Client(ClientFlood::Requests),
        }
    }
}

/// What an attack did.
#[derive(Debug)]
struct Outcome {
    /// Operations of honest clients per second.
    rate: f64,
    /// Bytes and messages of the attacker per second.
    flood: (f64, f64),
    /// CPU time of all replicas for each operation of honest clients, in microseconds.
    cpu_us: f64,
    /// The most memory that a replica had, in bytes.
    peak: u64,
    /// The sum of its bounds that it states.
    bound: u64,
    view: u64,
}

/// A group of three under attack.
struct Scene {
    processes: Group,
    group: hybster::Group,
    client: Client,
    written: u64,
}

impl Scene {
    fn new(attack: Attack) -> Self {
        let mut processes = Group::init(&["--clients", "2"]);
        let correct = if matches!(attack, Attack::Peer(_)) { 2 } else { 3 };
        (0..correct).for_each(|id| processes.start_replica(id));
        let group = hybster::Group::load(processes.path()).unwrap();
        let keys = ClientKeys::load(&group, processes.path(), ClientId(0)).unwrap();
        let options = ClientOptions { request_timeout: PATIENCE, ..ClientOptions::default() };
        let client = Client::connect(&group, &keys, options).unwrap();
        Self { processes, group, client, written: 0 }
    }

    /// Honest load until `more` says no, which is told how many operations were begun; returns how many
    /// were done by then. All that were begun are waited for: the client gives up by itself, with a reason.
    fn load(&mut self, more: impl Fn(u64) -> bool) -> u64 {
        let (mut begun, mut done) = (0, 0);
        let mut under_way = VecDeque::new();
        loop {
            while under_way.len() < UNDER_WAY && more(begun) {
                under_way.push_back(self.client.submit(&put(self.written % KEYS)));
                self.written += 1;
                begun += 1;
            }
            let Some(oldest) = under_way.pop_front() else { return done };
            oldest.wait().expect("honest clients go on");
            done += u64::from(more(begun));
        }
    }

    fn load_for(&mut self, time: Duration) -> u64 {
        let start = Instant::now();
        self.load(|_| start.elapsed() < time)
    }

    fn attacker(&self, attack: Attack, pace: Option<u64>) -> Attacker {
        let path = self.processes.path();
        match attack {
            Attack::Peer(flood) => {
                let keys = ReplicaKeys::load(&self.group, path, ReplicaId(2)).unwrap();
                Attacker::replica(&self.group, &keys, flood, pace)
            }
            Attack::Client(flood) => {
                let keys = ClientKeys::load(&self.group, path, ClientId(1)).unwrap();
                let operation = match flood {
                    ClientFlood::Queries => encoded(&KvOperation::Get { key: b"1" }),
                    _ => encoded(&KvOperation::Put { key: b"of the attacker", value: &[1; 64] }),
                };
                Attacker::client(&self.group, &keys, operation, flood, pace)
            }
        }
    }

    fn peak(&self) -> u64 {
        let running = self.processes.replicas.iter().flatten();
        running.map(|process| peak_of(process.id())).max().unwrap()
    }

    fn cpu_us(&self) -> u64 {
        let running = self.processes.replicas.iter().flatten();
        running.map(|process| cpu_us_of(process.id())).sum()
    }

    /// The sum of bounds that the replicas state, and the highest view.
    fn bound_and_view(&self) -> (u64, u64) {
        let path = self.processes.path_text();
        let memory = hybster(&["status", "--group", &path, "--memory", "--json"]);
        let memory: serde_json::Value = serde_json::from_str(&memory.stdout).unwrap();
        // Right behind an attack on a busy machine, the first question may come to nothing.
        let view = eventually("a replica tells its view", || {
            let status = self.processes.status();
            let views = status["replicas"].as_array().unwrap().iter();
            views.filter_map(|replica| replica["status"]["view"].as_u64()).max()
        });
        (memory["bounded_bytes"].as_u64().unwrap(), view)
    }

    fn run(&mut self, attack: Attack, pace: Option<u64>, time: Duration) -> Outcome {
        // There is a checkpoint, and the attacker has seen something of everything.
        self.load_for(time.min(Duration::from_secs(2)));
        let attacker = self.attacker(attack, pace);
        self.load_for(time.min(Duration::from_secs(1)));
        let (before, cpu_us, started) = (attacker.sent(), self.cpu_us(), Instant::now());
        let done = self.load_for(time);
        let took = started.elapsed().as_secs_f64();
        let cpu_us = self.cpu_us() - cpu_us;
        let after = attacker.sent();
        drop(attacker);
        let per_second = |after: u64, before: u64| (after - before) as f64 / took;
        let (bound, view) = self.bound_and_view();
        Outcome {
            rate: done as f64 / time.as_secs_f64(),
            flood: (per_second(after.0, before.0), per_second(after.1, before.1)),
            cpu_us: cpu_us as f64 / done as f64,
            peak: self.peak(),
            bound,
            view,
        }
    }
}

fn encoded(operation: &KvOperation<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    operation.encode(&mut bytes).unwrap();
    bytes
}

fn put(key: u64) -> Vec<u8> {
    encoded(&KvOperation::Put { key: key.to_string().as_bytes(), value: &[7; 1000] })
}

/// The most memory that a process ever had, in bytes.
fn peak_of(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse().unwrap();
    kib << 10
}

/// CPU time of a process so far, in microseconds.
fn cpu_us_of(process: u32) -> u64 {
    /// Of a tick, as the kernel tells it to programs.
    const TICK_US: u64 = 10_000;
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // After the name, which may contain blanks: the state is the third field, user time the 14th.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = fields.split_whitespace().skip(11).take(2);
    ticks.map(|ticks| ticks.parse::<u64>().unwrap() * TICK_US).sum()
}

/// Honest clients go on under an attack, and memory stays within its bound.
fn survives(attack: Attack) {
    let mut scene = Scene::new(attack);
    scene.load(|begun| begun < KEYS);
    let attacker = scene.attacker(attack, None);
    // Some floods need a message to start with, of which a checkpoint takes longest to come.
    eventually("the attacker sends", || {
        scene.load(|begun| begun < KEYS);
        (attacker.sent().1 > 1000).then_some(())
    });
    scene.load(|begun| begun < KEYS);
    drop(attacker);
    // And afterwards: nothing that the attacker left behind holds anybody up.
    scene.load(|begun| begun < KEYS);
    let (peak, (bound, _)) = (scene.peak(), scene.bound_and_view());
    assert!(peak <= bound, "{attack:?}: {peak} bytes of {bound}");
}

#[test]
fn no_flood_of_a_replica_stops_honest_clients() {
    PeerFlood::ALL.into_iter().map(Attack::Peer).for_each(survives);
}

#[test]
fn no_flood_of_a_client_stops_honest_clients() {
    ClientFlood::ALL.into_iter().map(Attack::Client).for_each(survives);
}

#[test]
#[ignore = "takes a minute for each attack; prints a table"]
fn what_attacks_cost_honest_clients() {
    let seconds = std::env::var("HYBSTER_ATTACK_SECONDS").map_or(30, |text| text.parse().unwrap());
    let only = std::env::var("HYBSTER_ATTACK").unwrap_or_default();
    let time = Duration::from_secs(seconds);
    println!(
        "attack | attacker sends | honest, beside as many honest bytes | share | CPU of replicas per \
         operation, beside | peak | view"
    );
    for attack in Attack::all().filter(|attack| format!("{attack:?}").contains(&only)) {
        let attacked = Scene::new(attack).run(attack, None, time);
        let pace = attacked.flood.0 as u64;
        let beside = Scene::new(attack).run(attack.measure(), Some(pace), time);
        println!(
            "{attack:?} | {:.1} MB/s, {:.0}/s | {:.0}/s, {:.0}/s ({:.1} MB/s) | {:.2} | {:.0} us, {:.0} us | \
             {} MiB | {}",
            attacked.flood.0 / 1e6,
            attacked.flood.1,
            attacked.rate,
            beside.rate,
            beside.flood.0 / 1e6,
            attacked.rate / beside.rate,
            attacked.cpu_us,
            beside.cpu_us,
            attacked.peak >> 20,
            attacked.view,
        );
        assert!(attacked.peak <= attacked.bound, "{attacked:?}");
    }
}
