//! A store that is read, and copied, beside the process that goes on writing it.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use hybster_log::Directory;
use hybster_store::{Manifest, Observer, Options, PageId, Store, StoreError};

const PAGES: u64 = 60;

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("hybster-observer-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(path: &Path) -> Store<Directory> {
    Store::open(Directory::open(path).unwrap(), Options::default(), [5; 16]).unwrap().0
}

/// The number of pages rises and falls, and every page changes with the order number or with a multiple of it.
fn pages_of(order: u64) -> u64 {
    PAGES + order % 13
}

fn content(index: u64, order: u64) -> Vec<u8> {
    let version = order - order % (1 + index % 5);
    let length = 100 + (index * 977 + version * 131) % 30_000;
    (0..length).map(|at| ((index << 32 | version) >> (8 * (at % 8))) as u8).collect()
}

fn manifest(order: u64) -> Manifest {
    let certificate = order.to_le_bytes().to_vec();
    Manifest { order, pages: vec![pages_of(order)], certificate, ..Manifest::default() }
}

/// Writes the checkpoint of this order number; the store has that of the one before.
fn write(store: &mut Store<Directory>, order: u64) {
    let page = |index| PageId { part: 0, index };
    store.begin(manifest(order)).unwrap();
    for index in 0..pages_of(order) {
        let is_new = order == 1 || index >= pages_of(order - 1);
        if is_new || content(index, order) != content(index, order - 1) {
            store.put_page(page(index), &content(index, order)).unwrap();
        }
    }
    (pages_of(order)..pages_of(order - 1)).for_each(|at| store.remove_page(page(at)).unwrap());
    store.commit().unwrap();
}

/// A copy that is whole and of one checkpoint; its order number.
#[track_caller]
fn check(path: &Path) -> u64 {
    let mut store = open(path);
    let order = store.manifest().unwrap().order;
    assert_eq!(*store.manifest().unwrap(), manifest(order));
    let mut bytes = Vec::new();
    for index in 0..pages_of(order) {
        store.read_page(PageId { part: 0, index }, &mut bytes).unwrap();
        assert!(bytes == content(index, order), "page {index} of {order}");
    }
    order
}

#[test]
fn copies_are_of_one_checkpoint_whatever_is_written_meanwhile() {
    let scratch = Scratch::new("live");
    let (from, done) = (scratch.0.join("from"), AtomicBool::new(false));
    let mut store = open(&from);
    write(&mut store, 1);
    let last = std::thread::scope(|scope| {
        let done = &done;
        let writer = scope.spawn(move || {
            let mut order = 1;
            while !done.load(Ordering::Relaxed) {
                order += 1;
                write(&mut store, order);
            }
            order
        });
        let observer = Observer::open(&from).unwrap();
        let mut orders = Vec::new();
        for round in 0..20 {
            let path = scratch.0.join(format!("copy-{round}"));
            let mut copy = open(&path);
            // The writer does nothing else, so a copy may give up; what it must not do is mix.
            match observer.copy_into(&mut copy, Manifest::clone) {
                Ok(copied) => {
                    drop(copy);
                    orders.push(check(&path));
                    assert_eq!(copied, Some(manifest(*orders.last().unwrap())));
                }
                Err(StoreError::Busy { .. }) => assert!(copy.manifest().is_none()),
                Err(error) => panic!("{error}"),
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(orders.is_sorted(), "{orders:?}");
        writer.join().unwrap()
    });
    let path = scratch.0.join("at-rest");
    let observer = Observer::open(&from).unwrap();
    observer.copy_into(&mut open(&path), Manifest::clone).unwrap();
    assert_eq!(check(&path), last);
}

#[test]
fn a_page_that_is_damaged_and_not_overtaken_is_told() {
    let scratch = Scratch::new("damaged");
    let from = scratch.0.join("from");
    write(&mut open(&from), 1);
    let file = std::fs::OpenOptions::new().write(true).open(from.join("pages.store")).unwrap();
    file.write_all_at(&[7; 64], file.metadata().unwrap().len() / 2).unwrap();
    let mut copy = open(&scratch.0.join("copy"));
    let error = Observer::open(&from).unwrap().copy_into(&mut copy, Manifest::clone).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert!(copy.manifest().is_none());
    // Without the end, and without superblocks.
    file.set_len(file.metadata().unwrap().len() / 3).unwrap();
    let error = Observer::open(&from).unwrap().copy_into(&mut copy, Manifest::clone).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    file.set_len(0).unwrap();
    let error = Observer::open(&from).unwrap().last().unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn there_is_nothing_to_copy_before_the_first_checkpoint() {
    let scratch = Scratch::new("empty");
    let from = scratch.0.join("from");
    assert!(matches!(Observer::open(&from), Err(StoreError::Io { .. })));
    let store = open(&from);
    let observer = Observer::open(&from).unwrap();
    assert!(observer.last().unwrap().is_none());
    let mut copy = open(&scratch.0.join("copy"));
    assert_eq!(observer.copy_into(&mut copy, Manifest::clone).unwrap(), None);
    drop(store);
}
