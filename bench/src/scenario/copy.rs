//! Copies of a replica's data.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// A piece that is left out if it is all zeros: a log takes space long before it uses it.
const PIECE: usize = 64 << 10;

/// Copies a directory with all that is in it to a place where nothing is, or an empty directory; returns how many
/// bytes that takes.
///
/// # Errors
/// Those of the system.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<u64> {
    fs::create_dir_all(to)?;
    let mut bytes = 0;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        bytes += match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &to)?,
            false => copy_file(&entry.path(), &to)?,
        };
    }
    Ok(bytes)
}

fn copy_file(from: &Path, to: &Path) -> io::Result<u64> {
    let mut from = File::open(from)?;
    let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(to)?;
    let mut piece = vec![0; PIECE];
    let (mut at, mut bytes) = (0, 0);
    loop {
        let count = from.read(&mut piece)?;
        if count == 0 {
            break;
        }
        if piece[..count].iter().any(|byte| *byte != 0) {
            to.write_all_at(&piece[..count], at)?;
            bytes += count as u64;
        }
        at += count as u64;
    }
    to.set_len(at)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_reads_the_same_and_leaves_zeros_out() {
        let directory = tempfile::tempdir().unwrap();
        let (from, to) = (directory.path().join("from"), directory.path().join("to"));
        fs::create_dir_all(from.join("log")).unwrap();
        let mut content = vec![0; 5 * PIECE + 7];
        content[2 * PIECE + 1] = 1;
        fs::write(from.join("log").join("segment"), &content).unwrap();
        fs::write(from.join("lock"), []).unwrap();
        assert_eq!(copy(&from, &to).unwrap(), PIECE as u64);
        assert_eq!(fs::read(to.join("log").join("segment")).unwrap(), content);
        assert!(fs::read(to.join("lock")).unwrap().is_empty());
        assert!(copy(&from, &to).is_err(), "nothing is written over");
    }
}
