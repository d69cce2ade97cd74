//! A directory of the system's.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::Disk;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const LOCK: &str = "lock";

/// A directory of the system's, for one log.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// Open, to sync the names in it.
    handle: File,
    /// Held while it is open.
    lock: Option<File>,
}

impl Directory {
    /// Opens the directory, which is made if it is missing (not its parents), for its owner only.
    ///
    /// # Errors
    /// Those of the system, with the path.
    pub fn open(path: impl AsRef<Path>) -> io::Result<Self> {
        let path = path.as_ref();
        let open = || {
            match DirBuilder::new().mode(0o700).create(path) {
                Ok(()) => sync_parent(path)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            File::open(path)
        };
        match open() {
            Ok(handle) => Ok(Self { path: path.to_owned(), handle, lock: None }),
            Err(e) => Err(io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
        }
    }

    /// Bytes that are free on the disk of a directory, for users that are not privileged.
    ///
    /// # Errors
    /// Those of the system.
    pub fn free_bytes(path: impl AsRef<Path>) -> io::Result<u64> {
        let disk = statvfs(path.as_ref())?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    fn options() -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600);
        options
    }
}

impl Drop for Directory {
    /// The lock ends here. Closing the file is not enough: a process that another thread of this one is just
    /// starting has the file open, too, until it runs its program.
    fn drop(&mut self) {
        if let Some(lock) = &self.lock {
            // Where this fails, the lock goes with the last who has the file open.
            let _ = lock.unlock();
        }
    }
}

/// The name of a new directory is durable only once its parent is.
fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

impl Disk for Directory {
    type File = File;

    fn lock(&mut self) -> io::Result<()> {
        let file = Self::options().create(true).truncate(false).open(self.path.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => {
                self.lock = Some(file);
                Ok(())
            }
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    fn names(&mut self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.path)?;
        // The log's own names are ASCII; what is not is none of them.
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    fn open(&mut self, name: &str) -> io::Result<File> {
        Self::options().open(self.path.join(name))
    }

    fn create(&mut self, name: &str) -> io::Result<File> {
        Self::options().create_new(true).open(self.path.join(name))
    }

    fn length(&mut self, file: &File) -> io::Result<u64> {
        Ok(file.metadata()?.len())
    }

    fn read(&mut self, file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        buffer[filled..].fill(0);
        Ok(())
    }

    fn write(&mut self, file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
        file.write_all_at(bytes, offset)
    }

    fn preallocate(&mut self, file: &File, length: u64) -> io::Result<()> {
        match fallocate(file, FallocateFlags::empty(), 0, length) {
            // Some file systems cannot: then the zeros are written.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(file, length),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(()),
        }
    }

    fn set_length(&mut self, file: &File, length: u64) -> io::Result<()> {
        file.set_len(length)
    }

    fn sync(&mut self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn boot(&mut self) -> io::Result<[u8; 16]> {
        let text = fs::read_to_string(BOOT_ID)?;
        parse_boot(text.trim())
            .ok_or_else(|| io::Error::other(format!("{BOOT_ID} has no UUID: {text:?}")))
    }

    fn path(&self, name: &str) -> String {
        self.path.join(name).display().to_string()
    }
}

/// Writes zeros from the end of the file up to this length.
fn fill(file: &File, length: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut at = file.metadata()?.len();
    while at < length {
        let count = (length - at).min(zeros.len() as u64) as usize;
        file.write_all_at(&zeros[..count], at)?;
        at += count as u64;
    }
    Ok(())
}

fn parse_boot(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b'-').collect();
    let digits = std::str::from_utf8(&digits).ok().filter(|digits| digits.len() == 32)?;
    Some(u128::from_str_radix(digits, 16).ok()?.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_identity_of_a_boot_is_a_uuid() {
        let boot = parse_boot("00010203-0405-0607-0809-0a0b0c0d0e0f");
        assert_eq!(boot, Some(std::array::from_fn(|at| at as u8)));
        assert_eq!(parse_boot("00010203-0405-0607-0809-0a0b0c0d0e"), None);
        assert_eq!(parse_boot("x0010203-0405-0607-0809-0a0b0c0d0e0f"), None);
    }
}
