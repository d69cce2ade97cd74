//! What disks do to the files of a log that nobody has open: for tests of real processes, which have no
//! virtual disk.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::format::{
    BLOCK, BLOCK_PAYLOAD, BLOCK_SECTORS, HEAD, Header, HeaderSector, PAYLOAD, SECTOR, Sector,
    SectorHead, read_sector, record_word, seal, seed, segment_number,
};

/// A number below the one that it is given.
type Draw<'a> = &'a mut dyn FnMut(u64) -> u64;

/// The most blocks of the batch that is torn.
const MOST_BLOCKS: u64 = 4;

/// Leaves the log as a loss of power does while one more batch is written: some of its sectors are there. None
/// of it was synced, so nobody relied on it, and everything before it stays. Returns whether it could: the
/// last segment has a header and room.
///
/// A batch that is there is never taken back, not even the last: it may have been synced, and nothing in the
/// files would tell.
///
/// # Errors
/// Those of the system.
pub fn tear(directory: &Path, draw: Draw<'_>) -> io::Result<bool> {
    let Some(last) = segments(directory)?.pop() else { return Ok(false) };
    let Segment { path, header, sectors, synced } = last;
    let at = BLOCK as u64 + sectors * SECTOR as u64;
    let room = header.bytes.saturating_sub(at) / BLOCK as u64;
    if room == 0 {
        return Ok(false);
    }
    let blocks = 1 + draw(MOST_BLOCKS.min(room));
    // Of one record that goes on behind what was written.
    let length = blocks as u32 * BLOCK_PAYLOAD as u32 + 8 * draw(100) as u32;
    let file = OpenOptions::new().write(true).open(path)?;
    let count = blocks * BLOCK_SECTORS;
    let certain = draw(count);
    for number in 0..count {
        let mut sector = [0; SECTOR];
        sector[HEAD..].fill(draw(256) as u8);
        if number == 0 {
            sector[HEAD..HEAD + 8].copy_from_slice(&record_word(2, 0, length).to_le_bytes());
        }
        let ordinal = header.first_ordinal + sectors + number;
        let (used, segment) = (PAYLOAD as u16, header.segment);
        let head = SectorHead { used, flags: 0, segment, ordinal, synced };
        seal(&mut sector, &head, seed(&header.id));
        if number == certain || draw(2) == 0 {
            file.write_all_at(&sector, at + number * SECTOR as u64)?;
        }
    }
    Ok(true)
}

/// Flips a bit of what the log has, and returns in which file; `None` if it has nothing.
///
/// # Errors
/// Those of the system.
pub fn rot(directory: &Path, draw: Draw<'_>) -> io::Result<Option<PathBuf>> {
    let mut segments = segments(directory)?;
    segments.retain(|segment| segment.sectors > 0);
    if segments.is_empty() {
        return Ok(None);
    }
    let Segment { path, sectors, .. } = segments.swap_remove(draw(segments.len() as u64) as usize);
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let at = BLOCK as u64 + draw(sectors) * SECTOR as u64 + draw(SECTOR as u64);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at)?;
    byte[0] ^= 1 << draw(8);
    file.write_all_at(&byte, at)?;
    Ok(Some(path))
}

/// A segment with a header.
struct Segment {
    path: PathBuf,
    header: Header,
    /// How many it has, from its beginning.
    sectors: u64,
    /// What the last one says was synced.
    synced: u64,
}

/// In the order of their numbers, up to the first whose header is not its own.
fn segments(directory: &Path) -> io::Result<Vec<Segment>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let number = entry.file_name().to_str().and_then(segment_number);
        names.extend(number.map(|number| (number, entry.path())));
    }
    names.sort_unstable();
    let mut segments: Vec<Segment> = Vec::new();
    for (number, path) in names {
        let content = fs::read(&path)?;
        let Some((first, rest)) = content.split_at_checked(BLOCK) else { break };
        let header = match Header::read(&first[..SECTOR]) {
            HeaderSector::Header(header) if header.segment == number => header,
            _ => break,
        };
        if let Some(before) = segments.last_mut() {
            before.sectors = before.sectors.min(header.first_ordinal - before.header.first_ordinal);
        }
        let (mut sectors, mut synced) = (0, header.synced);
        for sector in rest.as_chunks::<SECTOR>().0 {
            match read_sector(sector, seed(&header.id)) {
                Sector::Sealed(head)
                    if (head.segment, head.ordinal) == (number, header.first_ordinal + sectors) =>
                {
                    (sectors, synced) = (sectors + 1, head.synced);
                }
                _ => break,
            }
        }
        segments.push(Segment { path, header, sectors, synced });
    }
    Ok(segments)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Directory, LogError, Options, Recovery, WriterThread};

    /// A log of so many records that was killed, and how many of them it has.
    fn log(path: &Path, records: u64) -> Result<u64, LogError> {
        let options =
            Options { segment_bytes: 1 << 20, longest_record: 60_000, ..Options::default() };
        let directory = Directory::open(path).expect("a directory");
        let mut recovery = Recovery::open(directory, options, [4; 16])?;
        let mut found = 0;
        while let Some(record) = recovery.next()? {
            assert_eq!(record.content, content(found));
            found += 1;
        }
        let (log, writer, _) = recovery.finish()?;
        let writer = WriterThread::start(writer, || ()).expect("a thread");
        let appender = log.appender(0);
        for number in found..found + records {
            appender.append(2, &[&content(number)]).expect("room");
        }
        appender.wake_writer();
        while log.synced() < log.appended() {
            std::thread::yield_now();
        }
        // Dropped, not closed: as if it had been killed.
        drop(writer);
        Ok(found)
    }

    fn content(number: u64) -> Vec<u8> {
        vec![number as u8; (number % 7) as usize * 333]
    }

    fn scratch(name: &str) -> PathBuf {
        let name = format!("hybster-log-{name}-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn draws(seed: u64) -> impl FnMut(u64) -> u64 {
        let mut state = seed;
        move |below| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040);
            (state >> 33) % below
        }
    }

    #[test]
    fn a_torn_tail_costs_nothing() {
        let path = scratch("torn");
        let mut expected = 0;
        for seed in 0..40 {
            let records = seed % 5;
            assert_eq!(log(&path, records).unwrap(), expected, "seed {seed}");
            expected += records;
            assert!(tear(&path, &mut draws(seed)).unwrap());
        }
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn rot_is_found() {
        for seed in 0..20 {
            let path = scratch("rot");
            for _ in 0..3 {
                log(&path, 8).unwrap();
            }
            let file = rot(&path, &mut draws(seed)).unwrap().expect("a log with records");
            let error = log(&path, 0).unwrap_err();
            assert!(matches!(&error, LogError::Damaged { .. }), "seed {seed}: {error}");
            assert!(error.to_string().contains(file.to_str().unwrap()), "seed {seed}: {error}");
            fs::remove_dir_all(&path).unwrap();
        }
    }
}
