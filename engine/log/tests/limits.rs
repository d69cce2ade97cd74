//! Full disks, full buffers, directories in use, and what the gate lets pass.

mod common;

use common::{End, World};
use hybster_disk::{Faults, VirtualDisk};
use hybster_log::{AppendError, Cursor, Durability, LogError, Options, Recovery, Step, WhenFull};

const SEGMENT: u64 = 4 * 4096;

fn options() -> Options {
    Options {
        durability: Durability::Sync,
        buffer_bytes: 8192,
        segment_bytes: SEGMENT,
        reserve_bytes: 2 * SEGMENT,
        longest_record: 1_000,
        when_full: WhenFull::Refuse,
    }
}

/// Appends a record and lets the writer work until it has nothing to do.
fn append_and_settle(world: &mut World, open: &mut common::Open) -> bool {
    world.append(open).unwrap();
    for _ in 0..50 {
        match open.writer.step(open.now) {
            Ok(Step::Idle { .. }) => return true,
            Ok(Step::Moved | Step::Worked) => {}
            Err(_) => return false,
        }
    }
    panic!("the writer finds no end");
}

#[test]
fn a_full_disk_is_told_before_the_log_is_full_and_truncation_ends_it() {
    let mut world = World::with(1, options());
    // Room for the first segment, the two in reserve, and half of another.
    world.disk.set_capacity(SEGMENT * 7 / 2);
    let mut open = world.try_open().unwrap().unwrap();
    while !open.log.space().is_short {
        assert!(append_and_settle(&mut world, &mut open));
        assert!(open.log.synced() == open.log.appended());
    }
    // Clients are held from here on. What was accepted has a reserve.
    let left = open.log.space().left;
    assert!(left >= SEGMENT, "{left} bytes left");
    for _ in 0..left / 4096 {
        assert!(
            append_and_settle(&mut world, &mut open),
            "in the reserve, {:?}",
            open.log.failure()
        );
    }
    // A checkpoint comes: what it covers is used again.
    open.log.truncate_below(open.log.synced());
    world.model.needed_from = open.log.synced().0;
    assert!(append_and_settle(&mut world, &mut open));
    assert!(!open.log.space().is_short && open.log.space().left > SEGMENT);
    // Without one the log fails when the reserve is used up, and says what to do.
    while append_and_settle(&mut world, &mut open) {}
    let failure = open.log.failure().unwrap();
    assert!(matches!(*failure, LogError::Full { bytes: SEGMENT, .. }), "{failure}");
    assert!(failure.to_string().contains("Free at least"), "{failure}");
    world.model.synced = open.log.synced().0;
    world.model.written = open.log.written().0;
    world.end(Some(End::PowerLost));
    // And starts again where there is room.
    world.disk.set_capacity(u64::MAX);
    world.try_open().unwrap().unwrap();
}

/// What was accepted when clients are held may be a window of the longest batches, and a change of views has a
/// window of them logged once more.
#[test]
fn long_records_have_clients_held_while_a_window_of_them_still_fits() {
    const WINDOW: u64 = 12;
    for (length, segments) in [(9_000, 60), (9_000, 30), (5_000, 30), (3_800, 20)] {
        // The record after which clients are held is one more.
        let reserve_bytes = 2 * (WINDOW + 1) * 4096;
        let options =
            Options { buffer_bytes: 1 << 15, longest_record: 9_000, reserve_bytes, ..options() };
        let mut world = World::with(1, options);
        world.disk.set_capacity(segments * SEGMENT);
        let mut open = world.try_open().unwrap().unwrap();
        let appender = open.log.appender(0);
        let mut append = || {
            open.log.expect(WINDOW, length);
            appender.append(1, &[&vec![7; length as usize]]).unwrap();
            for _ in 0..200 {
                match open.writer.step(0) {
                    Ok(Step::Idle { .. }) => return true,
                    Ok(Step::Moved | Step::Worked) => {}
                    Err(_) => return false,
                }
            }
            panic!("the writer finds no end");
        };
        while !open.log.lacks_room() {
            assert!(append(), "{length}: full before clients are held");
        }
        for number in 0..WINDOW {
            assert!(append(), "{length}: full after {number} of {WINDOW}");
        }
        let most = options.most_reserve(WINDOW, length);
        assert!(most >= 2 * WINDOW * length && most <= segments * SEGMENT, "{length}: {most}");
    }
}

/// A client decides how long a batch is, and a single long one must not take a window of such from the disk for
/// ever. While one is needed, what a change of views takes is kept.
#[test]
fn what_was_taken_for_long_records_is_given_back_once_none_is_needed() {
    const WINDOW: u64 = 12;
    let options = Options { buffer_bytes: 1 << 15, longest_record: 9_000, ..options() };
    let mut world = World::with(1, options);
    let mut open = world.try_open().unwrap().unwrap();
    let appender = open.log.appender(0);
    let mut append = |length: u64| {
        open.log.expect(WINDOW, length);
        appender.append(1, &[&vec![7; length as usize]]).unwrap();
        for _ in 0..1_000 {
            match open.writer.step(0) {
                Ok(Step::Idle { .. }) => return open.log.space().left,
                Ok(Step::Moved | Step::Worked) => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the writer finds no end");
    };
    let files = |world: &World| world.disk.files().len() as u64;
    let mut before = Vec::new();
    for _ in 0..40 {
        append(3_000);
        before.push(open.log.synced());
    }
    let short = append(100);
    let long = append(9_000);
    let at_most = files(&world);
    assert!(long >= short + WINDOW * 9_000, "{long} bytes ahead, {short} before");
    // What was before it is given up, segment by segment, but not the long one.
    for cursor in before {
        open.log.truncate_below(cursor);
        let left = append(3_000);
        assert!(left >= long - 2 * SEGMENT, "{left} bytes ahead, {long} before");
    }
    // Now it is not, and nor are those behind it, again and again.
    for _ in 0..100 {
        open.log.truncate_below(open.log.synced());
        for _ in 0..2 * SEGMENT / 3_000 {
            append(3_000);
        }
    }
    let left = append(100);
    assert!(left <= short + SEGMENT, "{left} bytes ahead, {short} at first");
    assert!(files(&world) + 15 < at_most, "{} files, {at_most} at most", files(&world));
    // And it can be had again.
    assert!(append(9_000) >= long - 2 * SEGMENT);
}

/// Clients would be held for ever, as what makes room needs some of them to be served first.
#[test]
fn a_disk_that_is_too_small_for_long_records_holds_no_clients_before_half_of_it_is_used() {
    let mut world = World::with(1, options());
    world.disk.set_capacity(5 * SEGMENT);
    let mut open = world.try_open().unwrap().unwrap();
    open.log.expect(1_000, 9_000);
    assert!(append_and_settle(&mut world, &mut open));
    let most = open.log.space().left;
    assert!(open.log.space().is_short && !open.log.lacks_room());
    while !open.log.lacks_room() {
        assert!(append_and_settle(&mut world, &mut open));
    }
    let left = open.log.space().left;
    assert!(left >= most / 2 - 2 * 4096 && left <= most / 2, "{left} of {most}");
}

#[test]
fn space_is_asked_for_again_when_some_was_freed_by_others() {
    let mut world = World::with(1, options());
    world.disk.set_capacity(SEGMENT);
    let mut open = world.try_open().unwrap().unwrap();
    assert!(append_and_settle(&mut world, &mut open));
    assert!(open.log.space().is_short);
    world.disk.set_capacity(u64::MAX);
    assert!(matches!(open.writer.step(0), Ok(Step::Idle { again_ms: Some(1..=1_000) })));
    open.now = 1_000;
    assert!(append_and_settle(&mut world, &mut open));
    assert!(!open.log.space().is_short);
}

#[test]
fn a_directory_belongs_to_one_process() {
    let disk = VirtualDisk::new(1);
    let first = Recovery::open(disk.clone(), options(), [1; 16]).unwrap();
    let second = Recovery::open(disk.clone(), options(), [1; 16]).map(|_| ());
    assert!(matches!(second, Err(LogError::Locked { .. })));
    drop(first);
    assert!(Recovery::open(disk.kill(), options(), [1; 16]).is_ok());
}

#[test]
fn a_full_buffer_refuses_and_a_congested_one_says_so_before() {
    let mut world = World::with(1, options());
    let mut open = world.try_open().unwrap().unwrap();
    let appender = open.log.appender(0);
    let mut appended = 0;
    let refusal = loop {
        match appender.append(1, &[&[5; 100]]) {
            Ok(end) => appended = end.0,
            Err(error) => break error,
        }
        assert_eq!(open.log.is_congested(), appended > 4096);
    };
    assert_eq!((refusal, appended), (AppendError::Full, 8192 / 112 * 112));
    assert_eq!(open.log.appended(), Cursor(appended), "a refusal leaves no trace");
    let long = appender.append(1, &[&[5; 1_001]]);
    assert_eq!(long, Err(AppendError::TooLong { bytes: 1_001, limit: 1_000 }));
    while open.writer.has_work() {
        open.writer.step(0).unwrap();
    }
    assert!(!open.log.is_congested() && appender.append(1, &[]).is_ok());
}

/// The whole buffer, to its last byte, is one batch: its first word is not read twice.
#[test]
fn a_buffer_that_is_full_to_its_last_byte_is_written_once() {
    let mut world = World::with(1, options());
    let mut open = world.try_open().unwrap().unwrap();
    for _ in 0..8192 / 64 {
        open.log.appender(0).append(1, &[&[5; 56]]).unwrap();
    }
    while open.writer.has_work() {
        open.writer.step(0).unwrap();
    }
    assert_eq!((open.log.written(), open.log.counters().batches), (Cursor(8192), 1));
}

fn open_with(durability: Durability) -> (World, common::Open) {
    let mut world = World::with(1, Options { durability, ..options() });
    let open = world.try_open().unwrap().unwrap();
    (world, open)
}

#[test]
fn the_gate_of_sync_opens_by_a_sync_only() {
    let (_, mut open) = open_with(Durability::Sync);
    let end = open.log.appender(0).append(1, &[b"abc"]).unwrap();
    assert_eq!(open.writer.step(0).unwrap(), Step::Worked);
    assert_eq!((open.log.written(), open.gate.released(0)), (end, Cursor(0)));
    assert_eq!(open.writer.step(0).unwrap(), Step::Moved);
    assert_eq!((open.log.synced(), open.gate.released(0)), (end, end));
}

#[test]
fn the_gate_of_none_opens_by_a_write() {
    let (world, mut open) = open_with(Durability::None);
    let end = open.log.appender(0).append(1, &[b"abc"]).unwrap();
    assert_eq!(open.gate.released(0), Cursor(0), "a killed process would lose it");
    assert_eq!(open.writer.step(0).unwrap(), Step::Moved);
    assert_eq!(open.gate.released(0), end);
    world.disk.set_faults(Faults::default());
    while !matches!(open.writer.step(0).unwrap(), Step::Idle { .. }) {}
    assert_eq!((open.log.counters().syncs, open.log.synced()), (0, Cursor(0)));
}

#[test]
fn the_gate_of_async_closes_while_the_disk_takes_too_long() {
    let (_, mut open) = open_with(Durability::Async { window_ms: 100, window_bytes: 3_000 });
    let append = |open: &common::Open| open.log.appender(0).append(1, &[&[1; 92]]).unwrap();
    // Written, not yet synced: released at once. A quarter of the window later it is synced.
    let first = append(&open);
    assert_eq!(open.writer.step(0).unwrap(), Step::Moved);
    assert_eq!((open.gate.released(0), open.log.synced()), (first, Cursor(0)));
    while !matches!(open.writer.step(1).unwrap(), Step::Idle { again_ms: Some(24) }) {}
    // The disk takes long: what comes later than half of the window is held.
    let second = append(&open);
    assert_eq!(open.writer.step(1).unwrap(), Step::Moved);
    assert_eq!(open.gate.released(40), second);
    let third = append(&open);
    open.writer.step(2).unwrap();
    assert_eq!((open.log.written(), open.gate.released(51)), (third, second));
    assert_eq!(open.gate.released(500), second);
    assert_eq!(open.writer.step(500).unwrap(), Step::Moved);
    assert_eq!((open.log.synced(), open.gate.released(500)), (third, third));
    // And so is what is more than the window holds.
    while open.log.appended().0 < third.0 + 4_000 {
        append(&open);
    }
    assert_eq!(open.writer.step(501).unwrap(), Step::Moved);
    assert!(open.log.written() == open.log.appended());
    assert_eq!(open.gate.released(501), Cursor(third.0 + 3_000));
    assert_eq!(open.writer.step(501).unwrap(), Step::Moved, "a quarter of the bytes is due");
    assert_eq!(open.gate.released(501), open.log.appended());
}

#[test]
fn one_failed_sync_is_the_end() {
    let (mut world, mut open) = open_with(Durability::Sync);
    assert!(append_and_settle(&mut world, &mut open));
    let synced = open.log.synced();
    world.disk.set_faults(Faults { sync_fails_at: Some(1), ..Faults::default() });
    assert!(!append_and_settle(&mut world, &mut open));
    for _ in 0..3 {
        assert!(!append_and_settle(&mut world, &mut open));
    }
    assert_eq!((open.log.synced(), open.gate.released(9)), (synced, synced));
    let failure = open.log.failure().unwrap().to_string();
    assert!(failure.starts_with("segment-0000000000000001.log: syncing failed"), "{failure}");
    assert!(open.writer.close().is_err());
}

#[test]
fn a_closed_log_takes_nothing_more() {
    let (_, open) = open_with(Durability::Sync);
    open.log.appender(0).append(1, &[b"abc"]).unwrap();
    open.writer.close().unwrap();
    assert_eq!(open.log.synced(), open.log.appended());
    assert!(matches!(*open.log.failure().unwrap(), LogError::Closed));
}

#[test]
fn segments_are_used_again_and_the_rest_is_removed() {
    let (mut world, mut open) = open_with(Durability::Sync);
    while open.log.counters().segments < 12 {
        assert!(append_and_settle(&mut world, &mut open));
    }
    assert!(world.disk.files().len() >= 15);
    open.log.truncate_below(open.log.synced());
    assert!(append_and_settle(&mut world, &mut open));
    let names: Vec<String> = world.disk.files().into_iter().map(|(name, _)| name).collect();
    assert!(names.len() <= 4, "{names:?}");
}
