//! Real processes that are killed while they append, and a real file system that gets full.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hybster_log::{
    Cursor, Directory, Disk, Durability, Log, LogError, Options, Recovery, Report, WhenFull,
    WriterThread,
};

/// Names the directory that a child appends to, and how.
const CHILD: &str = "HYBSTER_LOG_CHILD";
const MODES: [(&str, Durability); 3] = [
    ("sync", Durability::Sync),
    ("async", Durability::Async { window_ms: 100, window_bytes: 1 << 20 }),
    ("none", Durability::None),
];
/// No process runs longer than this, whatever happens.
const LONGEST: Duration = Duration::from_secs(60);
/// How often a lock is taken and given up while processes are started.
const LOCKS: usize = 20_000;

fn options(durability: Durability) -> Options {
    Options {
        durability,
        buffer_bytes: 1 << 16,
        segment_bytes: 1 << 18,
        reserve_bytes: 1 << 18,
        longest_record: 4_000,
        when_full: WhenFull::Wait,
    }
}

fn content(n: u64) -> Vec<u8> {
    (0..8 + n % 700).map(|at| (n >> (8 * (at % 8))) as u8).collect()
}

/// Reads everything and checks that records are the numbers one after the other; the next number.
fn read(path: &Path, durability: Durability) -> (u64, Report, Recovery<Directory>) {
    let directory = Directory::open(path).unwrap();
    let mut recovery = Recovery::open(directory, options(durability), [5; 16]).unwrap();
    let mut next = None;
    while let Some(record) = recovery.next().unwrap() {
        let n = u64::from_le_bytes(*record.content.first_chunk().unwrap());
        assert!(next.is_none_or(|next| next == n), "{n} behind {next:?}");
        assert_eq!(record.content, content(n));
        next = Some(n + 1);
    }
    let report = recovery.report().unwrap().clone();
    (next.unwrap_or(0), report, recovery)
}

/// What a child does: it appends numbers, and says which cursor has been released and which number was
/// behind it, until it is killed.
fn append_until_killed(path: &Path, durability: Durability) {
    let (mut next, _, recovery) = read(path, durability);
    let (log, writer, _) = recovery.finish().unwrap();
    let _writer = WriterThread::start(writer, || {}).unwrap();
    let (appender, mut gate, started) = (log.appender(0), log.gate(), Instant::now());
    let mut out = std::io::stdout().lock();
    while started.elapsed() < LONGEST {
        for _ in 0..20 {
            appender.append(1, &[&content(next)]).unwrap();
            next += 1;
        }
        appender.wake_writer();
        let released = gate.released(started.elapsed().as_millis() as u64);
        log.truncate_below(Cursor(released.0.saturating_sub(1 << 20)));
        // Somebody who reads this relies on it.
        if writeln!(out, "released {}", released.0).and_then(|()| out.flush()).is_err() {
            break;
        }
    }
}

/// Not a test by itself: `killed_processes_lose_nothing_that_they_released` runs it in processes of
/// its own.
#[test]
fn child() {
    let Some(told) = std::env::var_os(CHILD) else { return };
    let told = told.into_string().unwrap();
    let (mode, path) = told.split_once(':').unwrap();
    let (_, durability) = MODES.iter().find(|(name, _)| *name == mode).unwrap();
    append_until_killed(Path::new(path), *durability);
}

/// Runs a child until it has released something so many times, kills it with signal 9, and returns the last cursor
/// that it released.
fn run_and_kill(path: &Path, mode: &str, times: usize) -> Cursor {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads", "1"])
        .env(CHILD, format!("{mode}:{}", path.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut released, mut heard) = (None, 0);
    // Lines that it had written when it was killed are read, too.
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(cursor) = line.split_once("released ").and_then(|(_, n)| n.parse().ok()) else {
            continue;
        };
        heard += usize::from(released.is_some_and(|released| released < Cursor(cursor)));
        released = Some(Cursor(cursor));
        if heard == times {
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(heard >= times && !status.success(), "the child ended by itself: {status}");
    released.unwrap()
}

#[test]
fn killed_processes_lose_nothing_that_they_released() {
    for (mode, durability) in MODES {
        let path = scratch(&format!("killed-{mode}"));
        for round in 0..4 {
            let released = run_and_kill(&path.0, mode, 5 + 30 * round);
            let (next, report, _) = read(&path.0, durability);
            assert!(report.end >= released, "{mode} {round}: {report:?}, released {released:?}");
            assert!(next > 0 && report.is_same_boot && !report.was_closed);
            assert_eq!(report.last_break, None, "the page cache stayed");
        }
    }
}

/// A process that is being started has every file of its parent open until it runs its own program. That must not
/// keep a lock that its parent has given up.
#[test]
fn a_lock_ends_with_its_directory_while_processes_are_started() {
    let path = scratch("lock");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let starter = scope.spawn(|| {
            let mut started = 0;
            while !ended.load(Relaxed) {
                let mut child = Command::new(std::env::current_exe().unwrap())
                    .arg("--list")
                    .stdout(Stdio::null())
                    .spawn()
                    .unwrap();
                child.wait().unwrap();
                started += 1;
            }
            started
        });
        let locked = (0..LOCKS).all(|_| Directory::open(&path.0).unwrap().lock().is_ok());
        ended.store(true, Relaxed);
        assert!(starter.join().unwrap() > 0);
        assert!(locked, "a lock outlived its directory");
    });
}

#[test]
fn a_full_file_system_is_told_before_the_log_fails() {
    let path = scratch("full");
    std::fs::create_dir(&path.0).unwrap();
    let Some(_mounted) = Mounted::new(&path.0, "size=1m") else {
        println!("skipped: this process may not mount a tmpfs");
        return;
    };
    let path = path.0.join("log");
    let options = Options { reserve_bytes: 1 << 19, ..options(Durability::Sync) };
    let recovery = Recovery::open(Directory::open(&path).unwrap(), options, [5; 16]).unwrap();
    let (log, writer, _) = recovery.finish().unwrap();
    let writer = WriterThread::start(writer, || {}).unwrap();
    let mut next = 0;
    while !log.space().is_short {
        assert!(append(&log, &mut next), "{:?}", log.failure());
    }
    // From here on clients wait. A batch of one record takes a block.
    for _ in 0..log.space().left / 4096 - 1 {
        assert!(append(&log, &mut next), "in the reserve: {:?}", log.failure());
    }
    while append(&log, &mut next) {}
    let failure = log.failure().unwrap();
    assert!(matches!(*failure, LogError::Full { .. }), "{failure}");
    let synced = log.synced();
    assert!(writer.close().is_err());
    // Where there is room again all is there.
    assert!(mount(&["-o", "remount,size=4m"], path.parent().unwrap()));
    let (found, report, recovery) = read(&path, Durability::Sync);
    assert!(report.end >= synced && found >= next - 1, "{report:?}, {synced:?}");
    recovery.finish().unwrap();
}

/// Appends the next number and waits until it is synced.
fn append(log: &Log, next: &mut u64) -> bool {
    let Ok(end) = log.appender(0).append(1, &[&content(*next)]) else { return false };
    *next += 1;
    log.wait_synced(end, LONGEST)
}

/// A tmpfs, which is unmounted in the end.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: &Path, options: &str) -> Option<Self> {
        let is_mounted = mount(&["-t", "tmpfs", "-o", options, "tmpfs"], path);
        is_mounted.then(|| Self(path.to_owned()))
    }
}

fn mount(arguments: &[&str], path: &Path) -> bool {
    let status = Command::new("mount").args(arguments).arg(path).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A path for a new directory, which is removed in the end.
struct Scratch(PathBuf);

fn scratch(name: &str) -> Scratch {
    let path = std::env::temp_dir().join(format!("hybster-log-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    Scratch(path)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
