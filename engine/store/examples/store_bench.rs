//! How fast the store is here: `cargo run --release -p hybster-store --example store_bench -- DIRECTORY [MiB [page bytes]]`
//!
//! For pages of several sizes: checkpoints in which all pages have changed, and one in a hundred; then a
//! start without the page cache (as root; else with it): open, scan, and pages by number.

use std::io::Read;
use std::path::Path;
use std::time::Instant;

use hybster_log::Directory;
use hybster_store::{Manifest, Options, PageId, Store};

const ROUNDS: [(u64, u64); 7] = [(0, 100), (1, 100), (2, 1), (3, 1), (4, 1), (5, 100), (6, 1)];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let place = arguments.next().map_or_else(std::env::temp_dir, Into::into);
    let mib: u64 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(1024);
    let only: Option<u64> = arguments.next().and_then(|n| n.parse().ok());
    for page_bytes in only.map_or(vec![4 << 20, 64 << 10, 4096, 3000], |only| vec![only]) {
        let path = place.join(format!("store-bench-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let pages = (mib << 20) / page_bytes;
        println!("{pages} pages of {page_bytes} B");
        write(&path, pages, page_bytes as usize);
        start(&path, pages);
        let _ = std::fs::remove_dir_all(&path);
    }
}

fn open(path: &Path) -> Store<Directory> {
    let directory = Directory::open(path).expect("a directory");
    let sync_mib = std::env::var("SYNC_MIB").ok().and_then(|n| n.parse::<u64>().ok());
    let valid = Options::default();
    let sync_bytes = sync_mib.map_or(valid.sync_bytes, |mib| mib << 20);
    Store::open(directory, Options { sync_bytes, ..valid }, [1; 16]).expect("a store").0
}

fn write(path: &Path, pages: u64, page_bytes: usize) {
    let mut store = open(path);
    let mut content = vec![0; page_bytes];
    let mut before = store.counters();
    for (round, share) in ROUNDS {
        let begun = Instant::now();
        let manifest = Manifest { order: round, pages: vec![0, pages], ..Manifest::default() };
        store.begin(manifest).expect("no other update");
        let (mut changed, mut longest) = (0, 0.0_f64);
        for index in 0..pages {
            let is_chosen =
                (index.wrapping_mul(2_654_435_761) >> 7).wrapping_add(round * 13) % 100 < share;
            if is_chosen {
                fill(&mut content, index * 31 + round);
                let put = Instant::now();
                store.put_page(PageId { part: 1, index }, &content).expect("a disk that works");
                longest = longest.max(put.elapsed().as_secs_f64());
                changed += 1;
            }
        }
        let put = begun.elapsed().as_secs_f64();
        store.commit().expect("a disk that works");
        let now = store.counters();
        let payload = (changed * page_bytes) as f64;
        let written = (now.written_bytes - before.written_bytes) as f64;
        println!(
            "  {share:>3} %: {:>7.1} MB of pages, {:>7.1} MB written ({:.2}), {:.2} s to put, {:.2} s to commit, \
             longest put {:.0} ms, {} syncs, file {:.0} MB, {} moved",
            payload / 1e6,
            written / 1e6,
            written / payload,
            put,
            begun.elapsed().as_secs_f64() - put,
            longest * 1e3,
            now.syncs - before.syncs,
            now.file_bytes as f64 / 1e6,
            now.moved_pages - before.moved_pages,
        );
        before = now;
    }
    // Pages that follow each other are not beside each other any more.
    let mut seed = 1_u64;
    for round in 100..150 {
        let manifest = Manifest { order: round, pages: vec![0, pages], ..Manifest::default() };
        store.begin(manifest).expect("no other update");
        for _ in 0..pages / 100 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = (seed >> 33) % pages;
            store.put_page(PageId { part: 1, index }, &content).expect("a disk that works");
        }
        store.commit().expect("a disk that works");
    }
}

/// Pages by number, all pages, and the file as it is, in turns: the second look at a disk that is lent is
/// often faster than the first.
fn start(path: &Path, pages: u64) {
    for way in ["raw", "scanned", "by number", "raw", "scanned", "by number"] {
        let is_cold = std::fs::write("/proc/sys/vm/drop_caches", "3").is_ok();
        let begun = Instant::now();
        let mut store = open(path);
        let opened = begun.elapsed().as_secs_f64();
        let bytes = match way {
            "raw" => raw(path),
            "scanned" => scan(&mut store),
            _ => by_number(&mut store, pages),
        };
        println!(
            "  start, {}: open {opened:.2} s, {:.0} MB {way} in {:.2} s, {} MB of memory",
            if is_cold { "cold" } else { "warm" },
            bytes as f64 / 1e6,
            begun.elapsed().as_secs_f64() - opened,
            memory_mb(),
        );
    }
}

fn raw(path: &Path) -> usize {
    let mut file = std::fs::File::open(path.join("pages.store")).expect("the file");
    let (mut buffer, mut bytes) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer).expect("a disk that works") {
            0 => return bytes,
            count => bytes += count,
        }
    }
}

fn scan(store: &mut Store<Directory>) -> usize {
    let (mut scan, mut bytes) = (store.scan(), 0);
    while let Some((_, content)) = scan.next(store).expect("no damage") {
        bytes += content.len();
    }
    bytes
}

fn by_number(store: &mut Store<Directory>, pages: u64) -> usize {
    let (mut content, mut bytes) = (Vec::new(), 0);
    for index in 0..pages {
        store.read_page(PageId { part: 1, index }, &mut content).expect("no damage");
        bytes += content.len();
    }
    bytes
}

fn memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|kb| kb.parse().ok()).unwrap_or(0_u64) / 1024
}

fn fill(content: &mut [u8], seed: u64) {
    let mut word = seed | 1;
    for bytes in content.chunks_mut(8) {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        let length = bytes.len();
        bytes.copy_from_slice(&word.to_le_bytes()[..length]);
    }
}
