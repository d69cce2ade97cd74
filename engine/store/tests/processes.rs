//! Real processes that are killed while they write checkpoints, the thread, and a real file system that
//! gets full.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use hybster_log::Directory;
use hybster_store::{Change, Job, Manifest, Options, PageId, Store, StoreError, StoreThread};

/// Names the directory that a child writes to.
const CHILD: &str = "HYBSTER_STORE_CHILD";
/// No process runs longer than this, whatever happens.
const LONGEST: Duration = Duration::from_secs(60);
const PAGES: u64 = 40;

fn open(path: &Path) -> Store<Directory> {
    let options = Options { sync_bytes: 1 << 16, ..Options::default() };
    Store::open(Directory::open(path).unwrap(), options, [5; 16]).unwrap().0
}

/// The last order at or before this one at which a page changes: the first one changes always.
fn version(index: u64, order: u64) -> u64 {
    let every = 1 + index % 7;
    order - order % every
}

fn content(index: u64, version: u64) -> Vec<u8> {
    let length = 8 + (index * 701 + version * 97) % 20_000;
    (0..length).map(|at| ((index << 32 | version) >> (8 * (at % 8))) as u8).collect()
}

fn manifest(order: u64) -> Manifest {
    let certificate = order.to_le_bytes().to_vec();
    Manifest { order, pages: vec![PAGES / 2, PAGES / 2], certificate, ..Manifest::default() }
}

fn page(index: u64) -> PageId {
    PageId { part: (index % 2) as u8, index: index / 2 }
}

/// What has changed in the checkpoint of this order since the one before, or all of it.
fn changes(order: u64, all: bool) -> impl Iterator<Item = Change<Vec<u8>>> + Send {
    let changed = move |index: &u64| all || version(*index, order) == order;
    (0..PAGES)
        .filter(changed)
        .map(move |index| Change::Put(page(index), content(index, version(index, order))))
}

/// The order of the checkpoint that is there, whose pages must all be its own.
fn check(store: &mut Store<Directory>) -> u64 {
    let Some(found) = store.manifest().cloned() else { return 0 };
    assert_eq!(found, manifest(found.order));
    let mut bytes = Vec::new();
    for index in 0..PAGES {
        store.read_page(page(index), &mut bytes).unwrap();
        assert_eq!(bytes, content(index, version(index, found.order)), "{index}");
    }
    found.order
}

/// What a child does: it writes one checkpoint after the other by the thread, and says which is durable,
/// until it is killed.
fn write_until_killed(path: &Path) {
    let mut store = open(path);
    let mut order = check(&mut store);
    let (written, outcomes) = channel();
    let thread = StoreThread::start(store, move |outcome| written.send(outcome).unwrap()).unwrap();
    let started = Instant::now();
    let mut out = std::io::stdout().lock();
    while started.elapsed() < LONGEST {
        let changes = Box::new(changes(order + 1, order == 0));
        let mut job = Job { manifest: manifest(order + 1), changes };
        // It is told that the last one is written a moment before the thread takes another.
        while let Err(refused) = thread.submit(job) {
            job = refused;
            std::thread::yield_now();
        }
        order = outcomes.recv_timeout(LONGEST).unwrap().unwrap();
        // Somebody who reads this relies on it.
        if writeln!(out, "durable {order}").and_then(|()| out.flush()).is_err() {
            break;
        }
    }
}

/// Not a test by itself: `killed_processes_leave_the_old_checkpoint_or_the_new_one` runs it in processes
/// of its own.
#[test]
fn child() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    write_until_killed(Path::new(&path));
}

/// Runs a child until it has written so many checkpoints, kills it with signal 9, and returns the last one that it
/// called durable.
fn run_and_kill(path: &Path, times: usize, wait: Duration) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--nocapture", "--test-threads", "1"])
        .env(CHILD, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut durable, mut heard) = (0, 0);
    // Lines that it had written when it was killed are read, too.
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(order) = line.split_once("durable ").and_then(|(_, n)| n.parse().ok()) else {
            continue;
        };
        (durable, heard) = (order, heard + 1);
        if heard == times {
            std::thread::sleep(wait);
            child.kill().unwrap();
        }
    }
    let status = child.wait().unwrap();
    assert!(heard >= times && !status.success(), "the child ended by itself: {status}");
    durable
}

#[test]
fn killed_processes_leave_the_old_checkpoint_or_the_new_one() {
    let path = scratch("killed");
    for round in 0..12 {
        let durable =
            run_and_kill(&path.0, 1 + round % 5, Duration::from_micros(round as u64 * 300));
        let found = check(&mut open(&path.0));
        // One more may have been written and not been told.
        assert!((durable..=durable + 1).contains(&found), "{found} after {durable}");
    }
}

#[test]
fn the_thread_takes_one_checkpoint_at_a_time_and_ends_within_a_step() {
    let path = scratch("thread");
    let (written, outcomes) = channel();
    let store = open(&path.0);
    let thread = StoreThread::start(store, move |outcome| written.send(outcome).unwrap()).unwrap();
    let (go, gate) = channel::<()>();
    // The writer asks for changes one by one.
    let gated = changes(1, true).inspect(move |_| gate.recv_timeout(LONGEST).unwrap());
    thread.submit(Job { manifest: manifest(1), changes: Box::new(gated) }).unwrap();
    assert!(thread.is_busy());
    let second = Job { manifest: manifest(2), changes: Box::new(changes(2, false)) };
    assert_eq!(thread.submit(second).unwrap_err().manifest.order, 2, "it comes back");
    (0..PAGES).for_each(|_| go.send(()).unwrap());
    assert_eq!(outcomes.recv_timeout(LONGEST).unwrap().unwrap(), 1);
    while thread.is_busy() {
        std::thread::yield_now();
    }
    // One with pages missing is told, and does no harm.
    let more = Manifest { pages: vec![PAGES, PAGES], ..manifest(2) };
    let none = std::iter::empty::<Change<Vec<u8>>>();
    thread.submit(Job { manifest: more, changes: Box::new(none) }).unwrap();
    let told = outcomes.recv_timeout(LONGEST).unwrap();
    assert!(matches!(told, Err(StoreError::Incomplete(_))), "{told:?}");
    while thread.is_busy() {
        std::thread::yield_now();
    }
    // It is dropped while there is no end to its changes.
    let endless = std::iter::repeat_with(|| Change::Put(page(0), vec![1; 100]));
    thread.submit(Job { manifest: manifest(3), changes: Box::new(endless) }).unwrap();
    drop(thread);
    assert!(outcomes.recv_timeout(LONGEST).is_err(), "what was given up is not reported");
    assert_eq!(check(&mut open(&path.0)), 1);
}

#[test]
fn a_full_file_system_keeps_the_last_checkpoint() {
    let path = scratch("full");
    std::fs::create_dir(&path.0).unwrap();
    let Some(_mounted) = Mounted::new(&path.0, "size=1m") else {
        println!("skipped: this process may not mount a tmpfs");
        return;
    };
    let path = path.0.join("store");
    let mut store = open(&path);
    let mut order = 0;
    let put = |store: &mut Store<Directory>, order| {
        store.begin(manifest(order))?;
        for change in changes(order, true) {
            let Change::Put(page, content) = change else { continue };
            store.put_page(page, &content)?;
        }
        store.commit()
    };
    // One checkpoint has some 400 KiB, so that two fit; a file of others takes the rest.
    while order < 3 {
        order += 1;
        put(&mut store, order).unwrap();
    }
    assert!(std::fs::write(path.parent().unwrap().join("other"), vec![1; 1 << 20]).is_err());
    let big = Manifest { pages: vec![PAGES / 2, PAGES], ..manifest(9) };
    store.begin(big).unwrap();
    let full = (0..PAGES)
        .map(|index| store.put_page(PageId { part: 1, index }, &[1; 60_000]))
        .find_map(Result::err)
        .unwrap();
    assert!(matches!(full, StoreError::Full { .. }), "{full}");
    store.abandon();
    assert_eq!(check(&mut store), 3);
    // What it has is enough to go on with.
    put(&mut store, 4).unwrap();
    drop(store);
    assert_eq!(check(&mut open(&path)), 4);
}

/// A tmpfs, which is unmounted in the end.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: &Path, options: &str) -> Option<Self> {
        let arguments = ["-t", "tmpfs", "-o", options, "tmpfs"];
        let status = Command::new("mount").args(arguments).arg(path).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success()).then(|| Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// A path for a new directory, which is removed in the end.
struct Scratch(PathBuf);

fn scratch(name: &str) -> Scratch {
    let path = std::env::temp_dir().join(format!("hybster-store-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    Scratch(path)
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
