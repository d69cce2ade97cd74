//! What is to go wrong, and when.

use std::io;

/// What is to go wrong, counted from [`crate::VirtualDisk::set_faults`].
#[derive(Clone, Copy, Default, Debug)]
pub struct Faults {
    /// The process stops: every later operation fails. What becomes of the disk then says
    /// [`crate::VirtualDisk::kill`] or [`crate::VirtualDisk::lose_power`].
    pub crash: Option<Crash>,
    /// The n-th sync of a file fails, and later ones do not.
    pub sync_fails_at: Option<u64>,
    /// The n-th operation fails if it is a write.
    pub write_fails_at: Option<u64>,
}

/// When the process stops.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// After so many operations.
    pub after_operations: u64,
}

/// What a process that is not there any more gets.
pub(crate) fn crashed() -> io::Error {
    io::Error::other("the process has crashed")
}

/// EIO.
pub(crate) fn broken() -> io::Error {
    io::Error::from_raw_os_error(5)
}
