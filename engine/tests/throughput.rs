//! A quick look at speed, everything in one process; the figures that count come from the benchmark.
//!
//! `cargo test --release -p hybster --test throughput -- --ignored --nocapture`

mod common;

use std::time::{Duration, Instant};

use common::Running;
use hybster::client::{ClientDriver, ClientOptions, Completions, RequestKind};
use hybster::services::NullService;
use hybster::{ClientId, ClientKeys, GroupConfig, Layout};

const CONNECTIONS: u32 = 4;
const SESSIONS: u32 = 512;
const SECONDS: u64 = 4;

/// CPU seconds of this process so far, as Linux counts them (in hundredths).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    // User and system time are the 14th and 15th field; the first two are cut off.
    fields.skip(11).take(2).map(|field| field.parse().unwrap_or(0.0)).sum::<f64>() / 100.0
}

/// Sessions in a closed loop over one connection to each replica; returns completed operations.
fn load(running: &Running, connection: u32) -> u64 {
    let client = ClientId(connection);
    let keys = ClientKeys::load(&running.group, running.scratch.path(), client).unwrap();
    let options = ClientOptions { sessions: SESSIONS, ..ClientOptions::default() };
    let mut driver = ClientDriver::connect(&running.group, &keys, &options).unwrap();
    driver.await_links(Duration::from_secs(5)).unwrap();
    for session in 0..SESSIONS {
        driver.submit(session, b"", RequestKind::Ordered).unwrap();
    }
    let mut completions = Completions::default();
    let mut completed = 0;
    let end = Instant::now() + Duration::from_secs(SECONDS);
    while Instant::now() < end {
        driver.poll(Duration::from_millis(100)).unwrap();
        driver.take_completions(&mut completions);
        for completion in completions.iter() {
            completed += 1;
            driver.submit(completion.session, b"", RequestKind::Ordered).unwrap();
        }
    }
    completed
}

#[test]
#[ignore = "measures; run it alone and with --release"]
fn null_operations_per_second() {
    for layout in [Layout::Fused, Layout::Split] {
        let config = GroupConfig::default();
        let service = || NullService::new(0);
        let running = Running::start_with("throughput", config, layout, service);
        let cpu_before = cpu_seconds();
        let loads: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..CONNECTIONS)
                .map(|connection| {
                    scope.spawn({
                        let running = &running;
                        move || load(running, connection)
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let total: u64 = loads.iter().sum();
        let cpu = cpu_seconds() - cpu_before;
        let status = running.status(0);
        let executed: Vec<u64> = (0..3).map(|id| running.status(id).requests).collect();
        assert!(executed.iter().filter(|count| **count >= total).count() >= 2, "{executed:?}");
        println!(
            "{layout}: {} operations a second; {:.2} CPU s per million; {} requests per batch; turns {:?}, sleeps {:?}; {:?}",
            total / SECONDS,
            cpu * 1e6 / total as f64,
            status.requests / status.batches.max(1),
            status.agents.iter().map(|agent| agent.turns).collect::<Vec<_>>(),
            status.agents.iter().map(|agent| agent.sleeps).collect::<Vec<_>>(),
            status.rejections,
        );
        running.shutdown();
    }
}
