//! What the log asks of a disk: one flat directory of files. [`crate::Directory`] is a real one; a
//! virtual one that loses, tears and damages what it was given is in `tools/disk`.

use std::io;

/// One directory, held by one process.
///
/// Nothing is durable before it has been synced: the content of a file by [`Self::sync`], the names
/// of files by [`Self::sync_directory`]. Until then each sector of 512 bytes may, after a loss of
/// power, be as it was or as it was written.
pub trait Disk {
    /// An open file.
    type File;

    /// Takes the directory for this process until `self` is dropped.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if somebody has it.
    fn lock(&mut self) -> io::Result<()>;

    /// The names of all files.
    ///
    /// # Errors
    /// Those of the system.
    fn names(&mut self) -> io::Result<Vec<String>>;

    /// Opens a file, to read and to write.
    ///
    /// # Errors
    /// Those of the system.
    fn open(&mut self, name: &str) -> io::Result<Self::File>;

    /// Makes an empty file.
    ///
    /// # Errors
    /// Those of the system; there must be none with that name.
    fn create(&mut self, name: &str) -> io::Result<Self::File>;

    /// The length of a file.
    ///
    /// # Errors
    /// Those of the system.
    fn length(&mut self, file: &Self::File) -> io::Result<u64>;

    /// Fills the buffer from the file; behind its end there are zeros.
    ///
    /// # Errors
    /// Those of the system.
    fn read(&mut self, file: &Self::File, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes all bytes.
    ///
    /// # Errors
    /// Those of the system. What was written then is unknown.
    fn write(&mut self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file that long and takes the space for it, so that writing cannot find the disk
    /// full. What is new reads as zeros.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] if there is no room.
    fn preallocate(&mut self, file: &Self::File, length: u64) -> io::Result<()>;

    /// Cuts the file off.
    ///
    /// # Errors
    /// Those of the system.
    fn set_length(&mut self, file: &Self::File, length: u64) -> io::Result<()>;

    /// Makes the content of the file durable (fdatasync).
    ///
    /// # Errors
    /// Those of the system. What is durable then is unknown, and asking again proves nothing.
    fn sync(&mut self, file: &Self::File) -> io::Result<()>;

    /// Makes the names of all files durable.
    ///
    /// # Errors
    /// Those of the system.
    fn sync_directory(&mut self) -> io::Result<()>;

    /// Gives a file another name; one that has it already is removed.
    ///
    /// # Errors
    /// Those of the system.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// Those of the system.
    fn remove(&mut self, name: &str) -> io::Result<()>;

    /// An identity that is another one after each boot of the system: while it stays, what was
    /// written is there, even if the process was killed.
    ///
    /// # Errors
    /// Those of the system.
    fn boot(&mut self) -> io::Result<[u8; 16]>;

    /// How an operator finds the file: for error messages.
    fn path(&self, name: &str) -> String {
        name.to_owned()
    }
}
