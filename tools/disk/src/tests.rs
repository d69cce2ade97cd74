//! What the disk does when it is not asked to behave.

use std::io::ErrorKind;

use hybster_log::Disk;

use super::*;

fn with_file(seed: u64) -> (VirtualDisk, Handle) {
    let mut disk = VirtualDisk::new(seed);
    let file = disk.create("a").unwrap();
    disk.write(&file, &[1; 4 * SECTOR], 0).unwrap();
    disk.sync(&file).unwrap();
    disk.sync_directory().unwrap();
    (disk, file)
}

fn sectors(content: &[u8]) -> Vec<u8> {
    content.chunks(SECTOR).map(|sector| sector[0]).collect()
}

#[test]
fn what_was_synced_stays_and_each_other_sector_is_old_or_new() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let (mut disk, file) = with_file(seed);
        disk.write(&file, &[2; 2 * SECTOR], 0).unwrap();
        disk.write(&file, &[3; SECTOR], 0).unwrap();
        let disk = disk.lose_power();
        let content = disk.content("a");
        assert!(content.chunks(SECTOR).all(|sector| sector.iter().all(|byte| *byte == sector[0])));
        let found = sectors(&content);
        assert!((1..=3).contains(&found[0]) && [1, 2].contains(&found[1]), "{found:?}");
        assert_eq!(found[2..], [1, 1]);
        seen.insert(found);
    }
    assert_eq!(seen.len(), 6, "all ways to tear are seen");
}

#[test]
fn names_need_a_sync_of_their_own_and_keep_their_order() {
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..200 {
        let (mut disk, _) = with_file(seed);
        disk.rename("a", "b").unwrap();
        disk.create("a").unwrap();
        disk.create("c").unwrap();
        let disk = disk.lose_power();
        let names: String = disk.files().into_iter().map(|(name, _)| name).collect();
        // Without the renaming there is no room for another `a`.
        assert!(!names.contains('a') || !names.contains('b') || disk.content("a").is_empty());
        seen.insert((names.clone(), disk.content("a").len()));
    }
    assert!(seen.len() >= 5, "{seen:?}");
}

#[test]
fn a_killed_process_loses_nothing_but_its_handles() {
    let (mut disk, file) = with_file(1);
    disk.lock().unwrap();
    disk.write(&file, &[2; SECTOR], 0).unwrap();
    let mut next = disk.kill();
    assert_eq!(sectors(&next.content("a")), [2, 1, 1, 1]);
    assert!(disk.write(&file, &[9; SECTOR], 0).is_err() && disk.names().is_err());
    assert!(next.lock().is_ok());
    assert_eq!(next.lock().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(next.boot().unwrap(), VirtualDisk::new(2).boot().unwrap());
    assert_ne!(next.lose_power().boot().unwrap(), [1; 16]);
}

#[test]
fn a_failed_sync_leaves_pages_that_count_as_clean() {
    let mut lost = 0;
    for seed in 0..20 {
        let (mut disk, file) = with_file(seed);
        disk.set_faults(Faults { sync_fails_at: Some(1), ..Faults::default() });
        disk.write(&file, &[2; SECTOR], 0).unwrap();
        assert_eq!(disk.sync(&file).unwrap_err().raw_os_error(), Some(5));
        disk.sync(&file).unwrap();
        assert_eq!(sectors(&disk.content("a"))[0], 2, "as long as the cache has it");
        disk.forget_clean();
        lost += u32::from(sectors(&disk.content("a"))[0] == 1);
    }
    assert!((1..20).contains(&lost), "{lost}");
}

#[test]
fn a_crash_comes_when_it_is_due() {
    let (mut disk, file) = with_file(1);
    disk.set_faults(Faults { crash: Some(Crash { after_operations: 1 }), ..Faults::default() });
    disk.write(&file, &[2; SECTOR], 0).unwrap();
    assert!(!disk.has_crashed());
    assert!(disk.sync(&file).is_err() && disk.has_crashed() && disk.operations() == 2);
    assert!(disk.names().is_err());
}

#[test]
fn a_full_disk_refuses_to_grow() {
    let (mut disk, file) = with_file(1);
    disk.set_capacity(8 * SECTOR as u64);
    assert!(disk.preallocate(&file, 8 * SECTOR as u64).is_ok());
    let refused = disk.preallocate(&file, 9 * SECTOR as u64).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StorageFull);
    assert!(disk.write(&file, &[3; SECTOR], 7 * SECTOR as u64).is_ok());
    let refused = disk.write(&file, &[3; SECTOR], 8 * SECTOR as u64).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::StorageFull);
    disk.remove("a").unwrap();
    let other = disk.create("b").unwrap();
    assert!(disk.preallocate(&other, 8 * SECTOR as u64).is_ok());
}

#[test]
fn damage_is_done_where_it_was_asked_for() {
    let (mut disk, file) = with_file(1);
    disk.write(&file, &[2; SECTOR], 512).unwrap();
    disk.sync(&file).unwrap();
    let copy = disk.copy();
    assert!(disk.revert("a", 1) && !disk.revert("a", 1));
    assert_eq!(sectors(&disk.content("a")), [1; 4]);
    disk.flip("a", 9);
    assert_eq!(disk.content("a")[1], 3);
    disk.make_unreadable("a", 2);
    let mut buffer = [0; 2 * SECTOR];
    assert!(disk.read(&file, &mut buffer, 0).is_ok());
    assert!(disk.read(&file, &mut buffer, 512).is_err());
    assert_eq!(sectors(&copy.content("a")), [1, 2, 1, 1], "a copy is a disk of its own");
}
