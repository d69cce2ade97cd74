//! How long a replica with a large state takes to start, and how much memory:
//! `cargo run --release -p hybster --example large_state -- fill DIRECTORY [MiB]`, then any number of times
//! `-- start DIRECTORY`, as root with `cold` behind it for one without the page cache.
//!
//! The group is one replica with the key-value service, so that what is measured is one replica's. It is
//! filled with values of 1 KiB, some of them written again in random order, as a state in use has been.

use std::collections::VecDeque;
use std::error::Error;
use std::path::Path;
use std::time::{Duration, Instant};

use hybster::client::{Client, ClientOptions};
use hybster::group::{CreateOptions, create};
use hybster::services::KvService;
use hybster::services::kv::{KvOperation, KvReply};
use hybster::{
    ClientId, ClientKeys, Group, GroupConfig, Replica, ReplicaId, ReplicaKeys, RunningReplica,
};

/// Writes that are under way at a time.
const IN_FLIGHT: usize = 2_000;
/// One in so many writes is to a record that is there already.
const AGAIN_ONE_IN: u64 = 10;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["fill", directory] => fill(directory.as_ref(), 1024),
        ["fill", directory, mib] => fill(directory.as_ref(), mib.parse()?),
        ["start", directory] => start(directory.as_ref()),
        ["start", directory, "cold"] => {
            std::fs::write("/proc/sys/vm/drop_caches", "3")?;
            start(directory.as_ref())
        }
        _ => Err("write `fill DIRECTORY [MiB]` or `start DIRECTORY [cold]`".into()),
    }
}

fn replica(directory: &Path) -> Result<RunningReplica, Box<dyn Error>> {
    let group = Group::load(directory)?;
    let keys = ReplicaKeys::load(&group, directory, ReplicaId(0))?;
    Ok(Replica::builder(group, keys).service(KvService::new()).pin(false).start()?)
}

fn client(directory: &Path) -> Result<Client, Box<dyn Error>> {
    let group = Group::load(directory)?;
    let keys = ClientKeys::load(&group, directory, ClientId(0))?;
    Ok(Client::connect(&group, &keys, ClientOptions::default())?)
}

fn fill(directory: &Path, mib: u64) -> Result<(), Box<dyn Error>> {
    let config = GroupConfig { replicas: 1, faults: 0, pillars: 1, ..GroupConfig::default() };
    create(directory, &CreateOptions { config, ..CreateOptions::default() })?;
    let replica = replica(directory)?;
    let client = client(directory)?;
    let records = mib << 10;
    let mut under_way = VecDeque::new();
    let (mut next, mut seed, mut operation) = (0, 1_u64, Vec::new());
    let begun = Instant::now();
    while next < records || !under_way.is_empty() {
        if next < records && under_way.len() < IN_FLIGHT {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let drawn = seed >> 33;
            let is_again = next > 0 && drawn.is_multiple_of(AGAIN_ONE_IN);
            let number = if is_again { drawn % next } else { next };
            next += u64::from(!is_again);
            let (key, mut value) = (name(number), [b'v'; 1024]);
            value[..8].copy_from_slice(&seed.to_le_bytes());
            operation.clear();
            KvOperation::Put { key: key.as_bytes(), value: &value }.encode(&mut operation)?;
            under_way.push_back(client.submit(&operation));
        } else if let Some(first) = under_way.pop_front() {
            first.wait()?;
        }
    }
    let took = begun.elapsed().as_secs_f64();
    // The last checkpoint is on disk when the replica has had time for one more.
    std::thread::sleep(Duration::from_secs(2));
    let held = memory_mib("VmRSS")?;
    println!("{records} records in {took:.1} s; {held} MiB in use, client included");
    client.shutdown();
    Ok(replica.shutdown()?)
}

fn start(directory: &Path) -> Result<(), Box<dyn Error>> {
    let begun = Instant::now();
    let replica = replica(directory)?;
    let started = begun.elapsed().as_secs_f64();
    let (peak_at_start, held) = (memory_mib("VmHWM")?, memory_mib("VmRSS")?);
    let client = client(directory)?;
    let mut operation = Vec::new();
    KvOperation::Get { key: name(1).as_bytes() }.encode(&mut operation)?;
    let reply = client.call(&operation)?;
    if !matches!(KvReply::decode(&reply), Ok(KvReply::Value(_))) {
        return Err("a record is missing".into());
    }
    let served = begun.elapsed().as_secs_f64();
    // What is done behind the start is over by then.
    std::thread::sleep(Duration::from_secs(4));
    let (peak, after) = (memory_mib("VmHWM")?, memory_mib("VmRSS")?);
    println!(
        "started in {started:.2} s, served in {served:.2} s; peak {peak_at_start} MiB at the start, of which \
         {held} MiB stayed; 4 s later peak {peak} MiB, {after} MiB in use"
    );
    client.shutdown();
    Ok(replica.shutdown()?)
}

fn name(number: u64) -> String {
    format!("record-{number:010}")
}

/// A line of `/proc/self/status`.
fn memory_mib(of: &str) -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(of)).ok_or("no such line")?;
    let kib: u64 = line.split_whitespace().nth(1).ok_or("no figure")?.parse()?;
    Ok(kib >> 10)
}
