//! How fast the log is here: `cargo run --release -p hybster-log --example log_bench -- DIRECTORY…`
//!
//! For each directory: appends by one to four threads in each mode (records and megabytes in a second,
//! and how long an append takes), then group commit by one thread that waits for each record.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use hybster_log::{Directory, Durability, Log, Options, Recovery, WriterThread};

const RUN: Duration = Duration::from_secs(2);
/// A run ends sooner at so many bytes: disks that are lent have a budget.
const ENOUGH: u64 = 128 << 20;
const ASYNC: Durability = Durability::Async { window_ms: 50, window_bytes: 64 << 20 };

fn main() {
    let mut places: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    if places.is_empty() {
        places.push(std::env::temp_dir());
    }
    for place in places {
        println!("{}", place.display());
        if std::env::var_os("ALONE").is_some() {
            alone(&place);
            for durability in [Durability::Sync, Durability::None] {
                latency(&place, durability);
            }
            continue;
        }
        for (name, mode) in
            [("sync", Durability::Sync), ("async", ASYNC), ("none", Durability::None)]
        {
            for (appenders, bytes) in [(1, 100), (2, 100), (4, 100), (2, 4_000), (2, 40_000)] {
                throughput(&place, name, mode, appenders, bytes);
            }
        }
        alone(&place);
        for durability in [Durability::Sync, Durability::None] {
            latency(&place, durability);
        }
        restart(&place);
    }
}

fn open(place: &Path, durability: Durability) -> (PathBuf, Log, WriterThread) {
    let path = place.join(format!("log-bench-{}", std::process::id()));
    let options = Options { durability, ..Options::default() };
    let directory = Directory::open(&path).expect("a directory");
    let recovery = Recovery::open(directory, options, [1; 16]).expect("a log");
    let (log, writer, _) = recovery.finish().expect("a log");
    (path, log, WriterThread::start(writer, || {}).expect("a thread"))
}

/// Appends as fast as the log takes it, and truncates what is synced.
fn throughput(place: &Path, name: &str, mode: Durability, appenders: u16, bytes: usize) {
    let (path, log, writer) = open(place, mode);
    let start = Instant::now();
    let threads: Vec<_> = (0..appenders)
        .map(|number| {
            let log = log.clone();
            thread::spawn(move || append(&log, number, bytes, start))
        })
        .collect();
    let mut spans: Vec<u32> = Vec::new();
    let mut records = 0;
    for thread in threads {
        let (count, own) = thread.join().expect("an appender");
        records += count;
        spans.extend(own);
    }
    writer.close().expect("a disk that works");
    let took = start.elapsed().as_secs_f64();
    spans.sort_unstable();
    let counters = log.counters();
    println!(
        "  {name:<5} {appenders} appenders, {bytes:>6} B: {:>9.0} records/s {:>7.1} MB/s, append p50 {} ns \
         p99 {} ns, {:.0} syncs/s, {:.1} records a batch, {} waits",
        f64::from(records) / took,
        log.appended().0 as f64 / took / 1e6,
        spans[spans.len() / 2],
        spans[spans.len() * 99 / 100],
        counters.syncs as f64 / took,
        f64::from(records) / counters.batches as f64,
        counters.waits,
    );
    let _ = std::fs::remove_dir_all(path);
}

fn append(log: &Log, number: u16, bytes: usize, start: Instant) -> (u32, Vec<u32>) {
    let (appender, content) = (log.appender(number), vec![7; bytes]);
    let (mut count, mut spans) = (0, Vec::new());
    while start.elapsed() < RUN && log.appended().0 < ENOUGH {
        for at in 0..64 {
            let before = Instant::now();
            appender.append(1, &[&content]).expect("a disk that works");
            if at == 0 {
                spans.push(before.elapsed().as_nanos() as u32);
            }
            count += 1;
        }
        appender.wake_writer();
        log.truncate_below(log.synced());
        // As the intake does.
        while log.is_congested() && start.elapsed() < RUN {
            thread::yield_now();
        }
    }
    (count, spans)
}

/// What appender and writer cost by themselves, on one thread.
fn alone(place: &Path) {
    let path = place.join(format!("log-bench-{}", std::process::id()));
    let options = Options { durability: Durability::None, ..Options::default() };
    let directory = Directory::open(&path).expect("a directory");
    let recovery = Recovery::open(directory, options, [1; 16]).expect("a log");
    let (log, mut writer, _) = recovery.finish().expect("a log");
    let (appender, content) = (log.appender(0), [7; 25_000]);
    let (mut appending, mut writing) = (Duration::ZERO, Duration::ZERO);
    while log.appended().0 < ENOUGH {
        let start = Instant::now();
        while !log.is_congested() {
            appender.append(1, &[&content]).expect("a disk that works");
        }
        let between = Instant::now();
        while writer.has_work() {
            writer.step(0).expect("a disk that works");
        }
        log.truncate_below(log.written());
        appending += between - start;
        writing += between.elapsed();
    }
    let per_mb = |time: Duration| time.as_secs_f64() * 1e12 / log.appended().0 as f64;
    println!("  per MB: {:.0} us to append, {:.0} us to write", per_mb(appending), per_mb(writing));
    let _ = std::fs::remove_dir_all(path);
}

/// From an append to its release, one record at a time.
fn latency(place: &Path, durability: Durability) {
    let (path, log, writer) = open(place, durability);
    let (appender, mut gate) = (log.appender(0), log.gate());
    let mut spans = Vec::new();
    for _ in 0..2_000 {
        let before = Instant::now();
        let end = appender.append(1, &[&[7; 300]]).expect("a disk that works");
        appender.wake_writer();
        while gate.released(0) < end {
            thread::yield_now();
        }
        spans.push(before.elapsed().as_nanos() as f64 / 1e3);
    }
    drop(writer);
    spans.sort_by(f64::total_cmp);
    println!(
        "  {durability:?}, one at a time: p50 {:.0} us, p99 {:.0} us",
        spans[1_000], spans[1_980]
    );
    let _ = std::fs::remove_dir_all(path);
}

/// How long a start takes that reads 256 MiB.
fn restart(place: &Path) {
    let (path, log, writer) = open(place, Durability::None);
    let appender = log.appender(0);
    while log.appended().0 < 2 * ENOUGH {
        appender.append(1, &[&[7; 1_000]]).expect("a disk that works");
    }
    writer.close().expect("a disk that works");
    let start = Instant::now();
    let directory = Directory::open(&path).expect("a directory");
    let mut recovery = Recovery::open(directory, Options::default(), [1; 16]).expect("a log");
    let mut records = 0_u64;
    while recovery.next().expect("an undamaged log").is_some() {
        records += 1;
    }
    println!(
        "  recovery: {records} records, 256 MiB, read in {:.2} s",
        start.elapsed().as_secs_f64()
    );
    drop(recovery);
    let _ = std::fs::remove_dir_all(path);
}
