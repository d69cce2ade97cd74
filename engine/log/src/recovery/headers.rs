//! The first look at a directory: which segments are there, and how they join.

use std::io;

use crate::format::{Header, HeaderSector, SECTOR, segment_name, segment_number};
use crate::{Damage, Disk, LogError};

/// The segments of a directory.
#[derive(Debug)]
pub(super) struct Found {
    /// Those with a header, from the first on, without a gap.
    pub(super) chain: Vec<Header>,
    /// The numbers of those from the first one on that has no header, or behind a gap.
    pub(super) beyond: Vec<u64>,
    /// The number that is missing, if there is a gap behind the chain. Only what is behind it tells
    /// whether it was synced.
    pub(super) missing: Option<u64>,
}

/// Takes the directory for this process.
pub(super) fn lock<D: Disk>(disk: &mut D) -> Result<(), LogError> {
    match disk.lock() {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(LogError::Locked { file: disk.path("lock") })
        }
        Err(source) => Err(super::io(disk, "locking", "lock", source)),
    }
}

/// Reads the headers of all segments.
pub(super) fn read<D: Disk>(disk: &mut D) -> Result<Found, LogError> {
    let names = disk.names().map_err(|e| super::io(disk, "listing", "", e))?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_number(name)).collect();
    numbers.sort_unstable();
    let mut found = Found { chain: Vec::new(), beyond: Vec::new(), missing: None };
    let mut previous: Option<u64> = None;
    for number in numbers {
        let name = segment_name(number);
        let expected = previous.map_or(number, |previous| previous + 1);
        if expected != number && found.beyond.is_empty() {
            found.missing = Some(expected);
        }
        if number == u64::MAX {
            return Err(damaged(disk, &name, Damage::Header));
        }
        previous = Some(number);
        match header(disk, &name)? {
            Some(header) if header.segment == number => {
                if found.missing.is_some() || !found.beyond.is_empty() {
                    found.beyond.push(number);
                } else {
                    joins(disk, found.chain.last(), &header, &name)?;
                    found.chain.push(header);
                }
            }
            // A recycled file whose new header was not written.
            Some(header) if header.segment < number => found.beyond.push(number),
            None => found.beyond.push(number),
            Some(_) => return Err(damaged(disk, &name, Damage::Header)),
        }
    }
    Ok(found)
}

/// The header in a file; `None` if none was ever written.
pub(super) fn header<D: Disk>(disk: &mut D, name: &str) -> Result<Option<Header>, LogError> {
    let file = disk.open(name).map_err(|e| super::io(disk, "opening", name, e))?;
    let mut sector = [0; SECTOR];
    if disk.read(&file, &mut sector, 0).is_err() {
        return Err(damaged(disk, name, Damage::Unreadable));
    }
    match Header::read(&sector) {
        HeaderSector::Empty => Ok(None),
        HeaderSector::Header(header) => Ok(Some(header)),
        HeaderSector::Version(version) => Err(LogError::Version { file: disk.path(name), version }),
        HeaderSector::Garbage => Err(damaged(disk, name, Damage::Header)),
    }
}

fn joins<D: Disk>(
    disk: &D,
    last: Option<&Header>,
    next: &Header,
    name: &str,
) -> Result<(), LogError> {
    let Some(last) = last else { return Ok(()) };
    if last.id != next.id {
        return Err(LogError::AnotherLog { file: disk.path(name) });
    }
    if next.first_ordinal < last.first_ordinal || next.first_cursor < last.first_cursor {
        return Err(damaged(disk, name, Damage::Joint));
    }
    Ok(())
}

fn damaged<D: Disk>(disk: &D, name: &str, damage: Damage) -> LogError {
    LogError::Damaged { file: disk.path(name), offset: 0, damage }
}
