//! The durable log: files of any content in its directory.

use hybster_disk::VirtualDisk;
use hybster_log::{Durability, LogError, Options, Recovery, Step, WhenFull};

use super::Choices;

const SEGMENT: u64 = 2 * 4096;

fn options() -> Options {
    Options {
        durability: Durability::Sync,
        buffer_bytes: 4096,
        segment_bytes: SEGMENT,
        reserve_bytes: 0,
        longest_record: 1000,
        when_full: WhenFull::Refuse,
    }
}

/// Kind, content and end of each record.
type Records = Vec<(u16, Vec<u8>, u64)>;

/// Reads the log and appends a record to it.
fn start(disk: VirtualDisk) -> Result<Records, LogError> {
    let mut recovery = Recovery::open(disk, options(), [1; 16])?;
    let mut records = Vec::new();
    while let Some(record) = recovery.next()? {
        records.push((record.kind, record.content.to_vec(), record.end.0));
    }
    let (log, mut writer, report) = recovery.finish()?;
    assert_eq!(report.end, log.appended());
    log.appender(0).append(9, &[b"one more"]).expect("there is room");
    while !matches!(writer.step(0).expect("the disk works"), Step::Idle { .. }) {}
    assert_eq!(log.synced(), log.appended());
    Ok(records)
}

/// Segments as they are, or with checksums that are made right. A log that can be read is read as the same
/// once more, with what was appended behind it.
pub fn segments(data: &[u8]) {
    let mut choices = Choices(data);
    let reseals = choices.byte() % 2 == 0;
    let disk = VirtualDisk::new(1);
    for number in 1..4 {
        let mut file = choices.piece().to_vec();
        if file.is_empty() {
            break;
        }
        file.resize(file.len().min(SEGMENT as usize), 0);
        if reseals {
            hybster_log::internals::reseal(&mut file);
        }
        disk.put(&format!("segment-{number:016}.log"), &file);
    }
    let Ok(mut records) = start(disk.clone()) else { return };
    let again = start(disk.kill()).expect("what could be read can be read again");
    let last = again.last().expect("a record was appended");
    records.push((9, b"one more".to_vec(), last.2));
    assert!(again == records, "other records at the second time");
}

/// A log of one segment, one that was started twice, and one with torn sectors.
pub fn seeds() -> Vec<Vec<u8>> {
    let seed = |starts: u32, hole: bool| {
        let mut disk = VirtualDisk::new(1);
        for _ in 0..starts {
            start(disk.clone()).expect("a new log");
            disk = disk.kill();
        }
        let mut files: Vec<Vec<u8>> =
            disk.files().iter().map(|(name, _)| disk.content(name)).collect();
        files.truncate(starts as usize);
        if hole {
            files[0].truncate(5000);
        }
        let files: Vec<&[u8]> = files.iter().map(Vec::as_slice).collect();
        [&[0][..], &super::joined(&files)].concat()
    };
    vec![seed(1, false), seed(2, false), seed(1, true)]
}
