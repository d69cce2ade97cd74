//! A disk of its own for a replica, in memory and small, so that it gets full.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// A file system that is mounted nowhere: it is there as long as this process has it open, however that ends.
#[derive(Debug)]
pub(super) struct SmallDisk {
    path: PathBuf,
    _mount: OwnedFd,
}

/// What takes the room.
const FILLER: &str = "filler";

impl SmallDisk {
    /// One of this size.
    ///
    /// # Errors
    /// Those of the system, which may not allow it to this user.
    pub(super) fn new(bytes: u64) -> io::Result<Self> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(&context, "size", bytes.to_string())?;
        fsconfig_set_string(&context, "mode", "0700")?;
        fsconfig_create(&context)?;
        let flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, flags)?;
        // Other processes of this user find it by this one's descriptor.
        let path = format!("/proc/{}/fd/{}", std::process::id(), mount.as_raw_fd());
        Ok(Self { path: path.into(), _mount: mount })
    }

    /// Where it is, for this process and its children.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes so much of its room.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn fill(&self, bytes: u64) -> io::Result<()> {
        let filler = File::create(self.path.join(FILLER))?;
        loop {
            match fallocate(&filler, FallocateFlags::empty(), 0, bytes) {
                Err(Errno::INTR) => {}
                taken => return Ok(taken?),
            }
        }
    }

    /// Gives back what [`Self::fill`] has taken.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn free(&self) -> io::Result<()> {
        fs::remove_file(self.path.join(FILLER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gets_full_and_has_room_again() {
        let disk = match SmallDisk::new(1 << 20) {
            Ok(disk) => disk,
            Err(error) => {
                println!("left out: the system gives this user no file system: {error}");
                return;
            }
        };
        let file = disk.path().join("file");
        disk.fill((1 << 20) - 4096).unwrap();
        let error = fs::write(&file, [1; 8192]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
        disk.free().unwrap();
        fs::write(&file, [1; 8192]).unwrap();
        assert_eq!(fs::read(&file).unwrap(), [1; 8192]);
        let path = disk.path().to_owned();
        drop(disk);
        assert!(!path.join("file").exists());
    }
}
