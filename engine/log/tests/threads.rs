//! The log with its thread, in a real directory, under several appenders.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use hybster_log::{
    Cursor, Directory, Durability, LogError, Options, Recovery, WhenFull, WriterThread,
};

const LONG: Duration = Duration::from_secs(60);

/// A new directory, which is removed in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hybster-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn options(durability: Durability) -> Options {
    Options {
        durability,
        buffer_bytes: 1 << 14,
        segment_bytes: 1 << 18,
        reserve_bytes: 1 << 18,
        longest_record: 4_000,
        when_full: WhenFull::Wait,
    }
}

fn open(scratch: &Scratch, options: Options) -> Recovery<Directory> {
    Recovery::open(Directory::open(&scratch.0).unwrap(), options, [3; 16]).unwrap()
}

/// Four threads in a buffer that is far too small for them: they wait for the disk, and nothing is
/// lost or mixed.
#[test]
fn four_appenders_through_a_small_buffer() {
    for durability in [
        Durability::Sync,
        Durability::None,
        Durability::Async { window_ms: 50, window_bytes: 9_999 },
    ] {
        let scratch = Scratch::new("four");
        let (log, writer, report) = open(&scratch, options(durability)).finish().unwrap();
        assert!(report.is_new);
        let moved = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&moved);
        let writer = WriterThread::start(writer, move || {
            counter.fetch_add(1, Ordering::Relaxed);
        });
        let writer = writer.unwrap();
        let appenders: Vec<_> = (0..4_u16)
            .map(|number| {
                let log = log.clone();
                thread::spawn(move || {
                    let appender = log.appender(number);
                    let mut last = Cursor(0);
                    for n in 0..2_000_u32 {
                        let content = vec![n as u8; (n * 7 % 900) as usize];
                        let end = appender.append(number, &[&n.to_le_bytes(), &content]).unwrap();
                        assert!(end > last && end <= appender.appended());
                        last = end;
                        appender.wake_writer();
                        if n % 500 == 0 && durability == Durability::Sync {
                            assert!(log.wait_synced(end, LONG), "{:?}", log.failure());
                        }
                    }
                })
            })
            .collect();
        appenders.into_iter().for_each(|appender| appender.join().unwrap());
        writer.close().unwrap();
        assert!(log.counters().waits > 0 && moved.load(Ordering::Relaxed) > 0);
        assert!(matches!(*log.failure().unwrap(), LogError::Closed));

        let mut recovery = open(&scratch, options(durability));
        let mut next = [0_u32; 4];
        while let Some(record) = recovery.next().unwrap() {
            let n = next[usize::from(record.writer)];
            let (head, tail) = record.content.split_at(4);
            assert_eq!((record.kind, head), (record.writer, &n.to_le_bytes()[..]));
            assert!(tail.len() == (n * 7 % 900) as usize && tail.iter().all(|b| *b == n as u8));
            next[usize::from(record.writer)] += 1;
        }
        assert_eq!(next, [2_000; 4]);
        let report = recovery.report().unwrap().clone();
        assert!(report.was_closed && report.is_same_boot && report.last_break.is_none());
        assert_eq!(report.end, log.appended());
    }
}

/// The writer sleeps whenever it has nothing to do: one lost wake-up, and a wait ends by its limit.
#[test]
fn a_sleeping_writer_is_woken() {
    let scratch = Scratch::new("sleeping");
    let (log, writer, _) = open(&scratch, options(Durability::Sync)).finish().unwrap();
    let writer = WriterThread::start(writer, || {}).unwrap();
    let appender = log.appender(0);
    for n in 0..500_u32 {
        let end = appender.append(0, &[&n.to_le_bytes()]).unwrap();
        appender.wake_writer();
        assert!(log.wait_synced(end, LONG), "{:?}", log.failure());
    }
    assert!(!log.wait_synced(Cursor(u64::MAX), Duration::ZERO));
    drop(writer);
    assert!(log.failure().is_some(), "dropping the thread closes the log");
}

#[test]
fn a_second_process_is_refused_and_the_message_names_the_file() {
    let scratch = Scratch::new("locked");
    let first = open(&scratch, options(Durability::Sync));
    let second =
        Recovery::open(Directory::open(&scratch.0).unwrap(), options(Durability::Sync), [3; 16]);
    let error = second.map(|_| ()).unwrap_err().to_string();
    let path = scratch.0.join("lock").display().to_string();
    assert!(error.starts_with(&path) && error.contains("another process"), "{error}");
    drop(first);
}
