//! Damage of files that nobody was writing: it is told, never cut off.

mod common;

use common::{End, World, campaign, damaged, is_damaged};
use hybster_disk::VirtualDisk;
use hybster_log::{Damage, Durability, LogError, Options, Recovery, WhenFull};

const FIRST: &str = "segment-0000000000000001.log";
const SECOND: &str = "segment-0000000000000002.log";

#[test]
fn random_damage() {
    if let Err(error) = campaign(damaged, 0..6_000) {
        panic!("{error}");
    }
}

fn options() -> Options {
    Options {
        durability: Durability::Sync,
        buffer_bytes: 8192,
        segment_bytes: 4 * 4096,
        reserve_bytes: 0,
        longest_record: 1_000,
        when_full: WhenFull::Refuse,
    }
}

/// A log of one process: so many batches of one record, each synced.
fn batches(count: usize) -> World {
    let mut world = World::with(9, options());
    let mut open = world.try_open().unwrap().unwrap();
    for _ in 0..count {
        world.append(&open).unwrap();
        while open.writer.has_work() {
            assert!(world.step(&mut open).unwrap());
        }
        assert!(world.step(&mut open).unwrap());
    }
    assert_eq!(open.log.synced(), open.log.appended());
    world.end(Some(End::PowerLost));
    world
}

fn outcome(world: &mut World) -> Option<Damage> {
    world.end(Some(End::Killed));
    is_damaged(world.recover())
}

#[test]
fn a_flipped_bit_of_the_last_batch_is_no_torn_tail() {
    let mut world = batches(2);
    // Sector 16 is the first of the second batch.
    world.disk.flip(FIRST, 16 * 512 * 8 + 300);
    assert_eq!(outcome(&mut world), Some(Damage::Checksum));
}

#[test]
fn a_sector_that_cannot_be_read_is_damage_wherever_it_is() {
    for sector in [8, 16, 17, 24, 31] {
        let mut world = batches(2);
        world.disk.make_unreadable(FIRST, sector);
        assert!(
            matches!(outcome(&mut world), Some(Damage::Unreadable | Damage::Checksum)),
            "{sector}"
        );
    }
}

#[test]
fn a_lost_sector_is_found_by_what_was_written_after_it() {
    for sector in 8..16 {
        let mut world = batches(2);
        assert!(world.disk.revert(FIRST, sector));
        assert_eq!(outcome(&mut world), Some(Damage::LostSector), "{sector}");
    }
}

/// What no log can tell, because it looks as if the last batch had never been written: a disk that lies
/// about its last sync.
#[test]
fn control_a_lie_about_the_last_sync_is_not_found() {
    let world = batches(2);
    for sector in 16..24 {
        assert!(world.disk.revert(FIRST, sector));
    }
    let (_, _, report, found) = world.recover().unwrap();
    assert_eq!((found.len(), report.cut), (1, None));
}

/// ... and what a batch behind it, or the closing of the log, does tell.
#[test]
fn a_lie_about_the_last_sync_is_found_if_the_log_was_closed() {
    let mut world = batches(1);
    let open = world.try_open().unwrap().unwrap();
    world.append(&open).unwrap();
    open.writer.close().unwrap();
    world.end(Some(End::PowerLost));
    for sector in 8..16 {
        assert!(world.disk.revert(SECOND, sector));
    }
    assert_eq!(outcome(&mut world), Some(Damage::LostSector));
}

/// Likewise an older copy of the directory: its owner must know better.
#[test]
fn control_an_older_copy_is_a_log() {
    let world = batches(1);
    let copy = world.disk.copy();
    let recovery = Recovery::open(copy, options(), [1; 16]).unwrap();
    let (_, _, report) = recovery.finish().unwrap();
    assert_eq!((report.id, report.segments, report.last_break), ([7; 16], 1, None));
}

#[test]
fn a_lost_header_and_a_lost_file_are_found() {
    let mut world = batches(1);
    let mut open = world.try_open().unwrap().unwrap();
    world.append(&open).unwrap();
    while open.log.synced() != open.log.appended() {
        assert!(world.step(&mut open).unwrap());
    }
    world.end(Some(End::PowerLost));
    let second = world.disk.content(SECOND);
    let mut headless = second.clone();
    headless[..4096].fill(0);
    world.disk.put(SECOND, &headless);
    assert_eq!(outcome(&mut world), Some(Damage::LostHeader));

    world.disk.put(SECOND, &second);
    world.disk.put("segment-0000000000000003.log", &second);
    world.disk.flip("segment-0000000000000003.log", 8);
    assert_eq!(outcome(&mut world), Some(Damage::Header));
}

#[test]
fn a_segment_in_between_may_not_be_missing() {
    let mut world = batches(8);
    for _ in 0..2 {
        let _ = world.try_open().unwrap().unwrap();
        world.end(Some(End::Killed));
    }
    let names: Vec<String> = world.disk.files().into_iter().map(|(name, _)| name).collect();
    let segments: Vec<&String> = names.iter().filter(|name| name.starts_with("segment")).collect();
    assert!(segments.len() >= 3, "{names:?}");
    let other = VirtualDisk::new(1);
    for name in segments.iter().filter(|name| **name != segments[1]) {
        other.put(name, &world.disk.content(name));
    }
    let missing = Recovery::open(other, options(), [1; 16]).and_then(Recovery::finish);
    assert!(matches!(missing, Err(LogError::Missing { file }) if file == **segments[1]));
}

#[test]
fn segments_of_two_logs_are_not_mixed() {
    let world = batches(1);
    let mut third = VirtualDisk::new(1);
    for _ in 0..2 {
        third = third.kill();
        drop(Recovery::open(third.clone(), options(), [8; 16]).unwrap().finish().unwrap());
    }
    third.put(FIRST, &world.disk.content(FIRST));
    let mixed = Recovery::open(third.kill(), options(), [8; 16]);
    assert!(matches!(mixed.map(|_| ()), Err(LogError::AnotherLog { .. })));
}
