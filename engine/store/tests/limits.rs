//! Full disks, bounds, wrong calls, other versions, and what the errors say.

mod common;

use common::{World, digest, read, root};
use hybster_disk::{Faults, VirtualDisk};
use hybster_store::{Damage, Manifest, Options, PageId, Store, StoreError};

fn options() -> Options {
    Options { most_bytes: 1 << 20, most_pages: 100, longest_page: 100_000, ..Options::default() }
}

fn open(disk: &VirtualDisk) -> Store<VirtualDisk> {
    Store::open(disk.clone(), options(), [3; 16]).unwrap().0
}

fn page(index: u64) -> PageId {
    PageId { part: 0, index }
}

fn manifest(order: u64, pages: u64) -> Manifest {
    Manifest { order, pages: vec![pages], ..Manifest::default() }
}

/// Writes a checkpoint of pages of this length, as far as there is room.
fn checkpoint(
    store: &mut Store<VirtualDisk>,
    order: u64,
    pages: u64,
    bytes: usize,
) -> Result<(), StoreError> {
    store.begin(manifest(order, pages))?;
    for index in 0..pages {
        store.put_page(page(index), &vec![order as u8; bytes])?;
    }
    store.commit()
}

#[test]
fn a_full_disk_costs_the_new_checkpoint_only_and_room_ends_it() {
    let disk = VirtualDisk::new(1);
    let mut store = open(&disk);
    checkpoint(&mut store, 1, 10, 8192).unwrap();
    disk.set_capacity(store.counters().file_bytes + 8 * 4096);
    let full = checkpoint(&mut store, 2, 10, 8192).unwrap_err();
    assert!(matches!(full, StoreError::Full { bytes: 4096.., .. }) && !full.is_final(), "{full}");
    assert!(full.to_string().contains("Free at least"));
    assert_eq!(store.manifest().unwrap().order, 1);
    // The same update goes on where there is room.
    disk.set_capacity(u64::MAX);
    for index in 0..10 {
        store.put_page(page(index), &[2; 8192]).unwrap();
    }
    store.commit().unwrap();
    // Or it is given up, and a smaller one fits.
    disk.set_capacity(store.counters().file_bytes);
    assert!(checkpoint(&mut store, 3, 100, 8192).is_err());
    store.abandon();
    store.begin(manifest(4, 10)).unwrap();
    store.put_page(page(3), &[4; 20_000]).unwrap();
    store.commit().unwrap();
    drop(store);
    let mut store = open(&disk.kill());
    assert_eq!(store.manifest().unwrap().order, 4);
    let mut content = Vec::new();
    store.read_page(page(3), &mut content).unwrap();
    assert_eq!(content, [4; 20_000]);
    store.read_page(page(9), &mut content).unwrap();
    assert_eq!(content, [2; 8192]);
}

#[test]
fn the_file_stays_within_its_bound() {
    let disk = VirtualDisk::new(1);
    let mut store = open(&disk);
    let mut order = 0;
    for bytes in [40_000, 45_000, 100, 40_000] {
        for _ in 0..3 {
            order += 1;
            checkpoint(&mut store, order, 10, bytes).unwrap();
            assert!(store.counters().file_bytes <= 1 << 20);
        }
    }
    let beyond = checkpoint(&mut store, 99, 10, 90_000).unwrap_err();
    assert!(matches!(beyond, StoreError::Limit { limit: 0x10_0000, .. }), "{beyond}");
    assert!(!beyond.is_final() && disk.files().iter().all(|(_, bytes)| *bytes <= 1 << 20));
    store.abandon();
    checkpoint(&mut store, 100, 10, 40_000).unwrap();
}

#[test]
fn a_page_is_divided_where_no_room_is_together() {
    let mut disk = VirtualDisk::new(1);
    let mut store = open(&disk);
    checkpoint(&mut store, 1, 40, 4096).unwrap();
    // Every other page goes.
    store.begin(manifest(2, 40)).unwrap();
    (0..20).for_each(|index| store.put_page(page(2 * index), &[]).unwrap());
    store.commit().unwrap();
    let file_bytes = store.counters().file_bytes;
    disk.set_capacity(file_bytes);
    for order in [3, 4] {
        let long: Vec<u8> = (0..28_000).map(|at| (at / 100 + order) as u8).collect();
        store.begin(manifest(order, 41)).unwrap();
        store.put_page(page(40), &long).unwrap();
        store.put_page(page(0), &[order as u8; 5_000]).unwrap();
        store.commit().unwrap();
        assert_eq!(store.counters().file_bytes, file_bytes);
        drop(store);
        disk = disk.kill();
        store = open(&disk);
        let (mut content, mut scan, mut scanned) = (Vec::new(), store.scan(), 0);
        store.read_page(page(40), &mut content).unwrap();
        assert_eq!(content, long);
        while let Some((page, content)) = scan.next(&mut store).unwrap() {
            assert!(page.index != 40 || content == long);
            scanned += 1;
        }
        assert_eq!(scanned, 41);
    }
}

#[test]
fn a_commit_writes_only_what_has_changed() {
    let disk = VirtualDisk::new(1);
    let mut store = open(&disk);
    checkpoint(&mut store, 1, 50, 8192).unwrap();
    let before = store.counters();
    store.begin(manifest(2, 50)).unwrap();
    store.put_page(page(7), &[2; 8192]).unwrap();
    store.commit().unwrap();
    let now = store.counters();
    // The page, one block of the table, the superblock.
    assert_eq!(now.written_bytes - before.written_bytes, 8192 + 4096 + 512);
    assert_eq!(now.syncs - before.syncs, 2);
}

#[test]
fn calls_at_the_wrong_time_and_out_of_bounds_are_refused_and_change_nothing() {
    let disk = VirtualDisk::new(1);
    let mut store = open(&disk);
    let is_misuse = |error| matches!(error, Err(StoreError::Misuse(_)));
    assert!(is_misuse(store.put_page(page(0), &[])) && is_misuse(store.remove_page(page(0))));
    assert!(is_misuse(store.commit()) && is_misuse(store.verify(digest, |_, _| [0; 32])));
    let too_many = Manifest { pages: vec![60, 60], ..Manifest::default() };
    let overflow = Manifest { pages: vec![u64::MAX, 2], ..Manifest::default() };
    let parts = Manifest { pages: vec![0; 9], ..Manifest::default() };
    let blob = Manifest { certificate: vec![0; 2 << 20], ..Manifest::default() };
    for manifest in [too_many, overflow, parts, blob] {
        assert!(matches!(store.begin(manifest), Err(StoreError::Bounds(_))));
    }
    store.begin(manifest(1, 2)).unwrap();
    assert!(is_misuse(store.begin(manifest(1, 2))));
    let too_long = store.put_page(page(0), &[0; 100_001]);
    assert!(matches!(too_long, Err(StoreError::PageTooLong { limit: 100_000, .. })));
    for wrong in [page(2), page(u64::MAX), PageId { part: 1, index: 0 }] {
        let refused = store.put_page(wrong, &[]);
        assert!(matches!(refused, Err(StoreError::NoSuchPage(page)) if page == wrong));
        store.remove_page(wrong).unwrap();
    }
    store.put_page(page(1), &[1]).unwrap();
    let missing = store.commit();
    assert!(matches!(missing, Err(StoreError::Incomplete(missing)) if missing == page(0)));
    store.put_page(page(0), &[]).unwrap();
    store.commit().unwrap();
    let mut content = vec![9];
    assert!(store.read_page(page(2), &mut content).is_err());
    store.read_page(page(0), &mut content).unwrap();
    assert!(content.is_empty());
    // Nothing may be put once a commit has begun.
    store.begin(manifest(2, 2)).unwrap();
    let _ = store.commit_step().unwrap();
    assert!(is_misuse(store.put_page(page(0), &[])));
    let mut scan = store.scan();
    store.commit().unwrap();
    assert!(matches!(scan.next(&mut store), Err(StoreError::Misuse(_))));
}

#[test]
fn a_write_or_sync_that_failed_is_final() {
    for (faults, action) in [
        (Faults { write_fails_at: Some(2), ..Faults::default() }, "writing"),
        (Faults { sync_fails_at: Some(1), ..Faults::default() }, "syncing"),
        (Faults { sync_fails_at: Some(2), ..Faults::default() }, "syncing"),
    ] {
        let disk = VirtualDisk::new(1);
        let mut store = open(&disk);
        checkpoint(&mut store, 1, 5, 100).unwrap();
        disk.set_faults(faults);
        let failed = checkpoint(&mut store, 2, 5, 100).unwrap_err();
        assert!(failed.is_final() && failed.to_string().contains(action), "{failed}");
        disk.set_faults(Faults::default());
        store.abandon();
        assert!(matches!(store.begin(manifest(3, 5)), Err(StoreError::Failed)));
        // What was committed can still be read.
        let mut content = Vec::new();
        store.read_page(page(4), &mut content).unwrap();
        assert_eq!(content, [1; 100]);
    }
}

#[test]
fn a_directory_belongs_to_one_process() {
    let disk = VirtualDisk::new(1);
    let _store = open(&disk);
    let second = Store::open(disk.clone(), options(), [3; 16]).unwrap_err();
    assert!(matches!(second, StoreError::Locked { .. }), "{second}");
}

#[test]
fn another_version_and_damaged_pages_are_named() {
    let disk = VirtualDisk::new(1);
    let mut store = open(&disk);
    checkpoint(&mut store, 1, 5, 9000).unwrap();
    checkpoint(&mut store, 2, 5, 9000).unwrap();
    drop(store);
    let copy = |change: &dyn Fn(&mut Vec<u8>)| {
        let copy = disk.copy();
        let mut content = copy.content("pages.store");
        change(&mut content);
        copy.put("pages.store", &content);
        Store::open(copy, options(), [3; 16])
    };
    let error = copy(&|content| {
        content[8] = 2;
        let checksum = crc32c(&content[..12], &content[16..512]);
        content[12..16].copy_from_slice(&checksum.to_le_bytes());
    });
    assert!(matches!(error, Err(StoreError::Version { version: 2, .. })), "{error:?}");
    let damage = |opened: Result<_, StoreError>| match opened {
        Err(StoreError::Damaged { damage, .. }) => Some(damage),
        _ => None,
    };
    assert_eq!(damage(copy(&|content| content[600 - 512] ^= 1)), Some(Damage::Superblock));
    assert_eq!(damage(copy(&|content| content.truncate(3 * 4096))), Some(Damage::Short));
    let swapped = damage(copy(&|content| content.copy_within(..512, 4096)));
    assert_eq!(swapped, Some(Damage::Superblocks));
    // A page is looked at when it is read.
    let at = disk.content("pages.store").windows(9000).position(|bytes| bytes == [2; 9000]);
    let (mut store, _) = copy(&|content| content[at.unwrap() + 8999] ^= 1).unwrap();
    let read = read(&mut store).unwrap_err();
    let named = Damage::Page(page(0));
    assert!(matches!(read, StoreError::Damaged { damage, .. } if damage == named), "{read}");
    assert!(read.to_string().contains("page 0 of part 0"), "{read}");
}

fn crc32c(first: &[u8], second: &[u8]) -> u32 {
    let table = |index: u32| {
        (0..8).fold(index, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
    };
    let bytes = first.iter().chain(second);
    !bytes.fold(!0, |crc, byte| table((crc ^ u32::from(*byte)) & 0xff) ^ crc >> 8)
}

#[test]
fn pages_are_compared_with_the_digest_of_the_manifest() {
    let mut world = World::new(5);
    let mut store = world.open().unwrap();
    while world.committed.as_ref().is_none_or(|state| state.pages.len() <= 3) {
        assert!(world.checkpoint(&mut store).unwrap());
    }
    store.verify(digest, |_, parts| root(parts)).unwrap();
    let order = world.committed.as_ref().map_or(0, |state| state.manifest.order);
    let other = store.verify(|_, _| [0; 32], |_, parts| root(parts)).unwrap_err();
    assert!(matches!(other, StoreError::Digest { order: told, .. } if told == order), "{other}");
}

/// Pages of all sizes, empty ones and some that are longer than what is digested at a time; also damaged ones.
#[test]
fn digests_made_beside_are_those_made_at_once() {
    let disk = VirtualDisk::new(8);
    let options = Options { longest_page: 4 << 20, ..Options::default() };
    let (mut store, _) = Store::open(disk.clone(), options, [3; 16]).unwrap();
    let verified = |store: &mut Store<VirtualDisk>| {
        let mut parts = [Vec::new(), Vec::new()];
        let beside = store.verify_beside(digest, |_, digests| {
            parts[0] = digests.to_vec();
            root(digests)
        });
        let at_once = store.verify(digest, |_, digests| {
            parts[1] = digests.to_vec();
            root(digests)
        });
        assert_eq!(parts[0], parts[1]);
        (beside, at_once)
    };
    let none = verified(&mut store);
    assert!(matches!(none, (Err(StoreError::Misuse(_)), Err(StoreError::Misuse(_)))));
    let many = (0..900).map(|n| n * 7 % 9_000).chain([3 << 20, 0, 1_000_000]).collect();
    for (order, lengths) in [(1, vec![]), (2, vec![0]), (3, vec![1 << 20, 1]), (4, many)] {
        let lengths: Vec<usize> = lengths;
        let contents = || (0..).zip(&lengths).map(|(n, length)| (page(n), vec![n as u8; *length]));
        let digests = contents().map(|(page, content)| digest(page, &content)).collect();
        let root = root(&[digests]);
        store.begin(Manifest { root, ..manifest(order, lengths.len() as u64) }).unwrap();
        contents().for_each(|(page, content)| store.put_page(page, &content).unwrap());
        store.commit().unwrap();
        let (beside, at_once) = verified(&mut store);
        assert!(beside.is_ok() && at_once.is_ok(), "{order}: {beside:?}, {at_once:?}");
    }
    disk.flip("pages.store", 8 * (2 << 20));
    let (beside, at_once) = verified(&mut store);
    let is_damage = |outcome: Result<(), StoreError>| {
        matches!(outcome, Err(StoreError::Damaged { damage: Damage::Page(_), .. }))
    };
    assert!(is_damage(beside) && is_damage(at_once));
}
