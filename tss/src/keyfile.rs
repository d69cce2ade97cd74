//! Key files: the group key on disk, sealed for one replica.
//!
//! Two files belong together. The *sealing secret* (32 random bytes, one per replica) replaces what
//! a real trusted platform would keep in hardware. The *key file* holds the group key, encrypted
//! under it. Keep them apart if you can: the key file alone is worthless.
//!
//! A key also says whether a replica has started with it ([`StartRight`]). The counters of the
//! in-process TrInX are lost with their process, so one start is all that a key allows; a start seals the
//! key again as used and puts that file in the place of the old one ([`Replacement`]).
//!
//! ```text
//! offset  bytes  field
//!      0      8  magic "HYBSTKEY"                      \
//!      8      2  format version, 2                      |
//!     10      2  replica                                | associated data
//!     12      4  epoch                                  |
//!     16     32  BLAKE3 of the group's name             |
//!     48      1  right to start: 0 unused, 1 used       |
//!     49      3  zero                                  /
//!     52     12  nonce, random, fresh for each file
//!     64     32  group key, AES-256-GCM
//!     96     16  tag
//! ```
//!
//! In a group whose members share no key, that field is zero and means nothing: the file then seals the right
//! to start alone.
//!
//! Numbers are little-endian. The associated data makes a file that was sealed for another replica,
//! epoch or group useless, even under the same secret, and nobody can edit a used key into an unused one. (A random nonce is safe here and nowhere
//! else in this crate: a secret seals only a handful of files in its life.)

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use aes_gcm::{
    Aes256Gcm,
    aead::{Aead, KeyInit, Payload},
};
use thiserror::Error;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::keys::{GroupKey, RandomSourceError, fill_random};

mod replace;

pub use replace::Replacement;

/// Length of a sealed key file in bytes.
pub const SEALED_BYTES: usize = 112;

/// The longest private file that [`read_private`] reads, in bytes.
pub const PRIVATE_FILE_LIMIT_BYTES: u64 = 64 * 1024;

const MAGIC: [u8; 8] = *b"HYBSTKEY";
const VERSION: u16 = 2;
const HEADER_BYTES: usize = 52;
const NONCE_BYTES: usize = 12;
const SEALING_CONTEXT: &str = "hybster-tss v1 key file";

/// The secret that seals the key file of one replica. Wiped when it is dropped and never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SealingSecret([u8; 32]);

impl SealingSecret {
    /// Length of a sealing secret in bytes.
    pub const BYTES: usize = 32;

    /// A new secret from the random source of the operating system.
    pub fn generate() -> Result<Self, RandomSourceError> {
        let mut secret = Self([0; 32]);
        fill_random(&mut secret.0)?;
        Ok(secret)
    }

    /// The secret with these bytes. They must come from a good random source.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes themselves.
    pub const fn expose_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Reads the secret from its file, which must be private.
    pub fn read(path: &Path) -> Result<Self, KeyFileError> {
        let bytes = read_private(path)?;
        let bytes = <[u8; 32]>::try_from(bytes.as_slice())
            .map_err(|_| Problem::SecretLength(bytes.len()).in_file(path))?;
        Ok(Self(bytes))
    }

    /// Writes the secret to a new private file.
    pub fn write(&self, path: &Path) -> Result<(), KeyFileError> {
        write_private(path, &self.0)
    }

    fn cipher(&self) -> Aes256Gcm {
        let key = Zeroizing::new(blake3::derive_key(SEALING_CONTEXT, &self.0));
        Aes256Gcm::new((&*key).into())
    }
}

impl fmt::Debug for SealingSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealingSecret(..)")
    }
}

/// Whether a replica may still start with a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartRight {
    /// No replica has started with it.
    Unused,
    /// A replica has, and its counters were lost with its process.
    Used,
}

/// What a sealed key file holds.
#[derive(Clone, Debug)]
pub struct Unsealed {
    /// The key of the group's trusted subsystems.
    pub group_key: GroupKey,
    /// Whether the replica may still start with it.
    pub right: StartRight,
}

/// Seals `group_key` for one replica, epoch and group. Each call draws a fresh nonce.
pub fn seal(
    group_key: &GroupKey,
    right: StartRight,
    secret: &SealingSecret,
    replica: u16,
    epoch: u32,
    group: &str,
) -> Result<Vec<u8>, KeyFileError> {
    let header = header(right, replica, epoch, group);
    let mut nonce = [0; NONCE_BYTES];
    fill_random(&mut nonce).map_err(|error| Problem::Random(error).anywhere())?;
    let payload = Payload { msg: group_key.expose_bytes(), aad: &header };
    let sealed =
        secret.cipher().encrypt(&nonce.into(), payload).map_err(|_| Problem::Sealing.anywhere())?;
    let bytes = [&header[..], &nonce, &sealed].concat();
    debug_assert_eq!(bytes.len(), SEALED_BYTES);
    Ok(bytes)
}

/// Opens what [`seal`] made, if it was made for this replica, epoch and group under this secret.
pub fn unseal(
    bytes: &[u8],
    secret: &SealingSecret,
    replica: u16,
    epoch: u32,
    group: &str,
) -> Result<Unsealed, KeyFileError> {
    unseal_bytes(bytes, secret, replica, epoch, group).map_err(Problem::anywhere)
}

/// [`seal`]s an unused key to a new private file.
pub fn write_sealed(
    path: &Path,
    group_key: &GroupKey,
    secret: &SealingSecret,
    replica: u16,
    epoch: u32,
    group: &str,
) -> Result<(), KeyFileError> {
    let sealed = seal(group_key, StartRight::Unused, secret, replica, epoch, group)
        .map_err(|error| error.problem.in_file(path))?;
    write_private(path, &sealed)
}

/// [`unseal`]s a private file; errors name it.
pub fn read_sealed(
    path: &Path,
    secret: &SealingSecret,
    replica: u16,
    epoch: u32,
    group: &str,
) -> Result<Unsealed, KeyFileError> {
    let bytes = read_private(path)?;
    unseal_bytes(&bytes, secret, replica, epoch, group).map_err(|problem| problem.in_file(path))
}

/// Writes a new file that only its owner may read (mode 0600 on Unix), and makes it durable.
/// Refuses to overwrite, and leaves no half-written file behind.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), KeyFileError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Problem::Exists.in_file(path),
        _ => Problem::Write(error).in_file(path),
    })?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all());
    drop(file);
    if let Err(error) = written.and_then(|()| sync_parent(path)) {
        // The file is ours and incomplete. If removing it fails too, the first error says more.
        let _ = fs::remove_file(path);
        return Err(Problem::Write(error).in_file(path));
    }
    Ok(())
}

/// Reads a file with a secret, of at most [`PRIVATE_FILE_LIMIT_BYTES`]. On Unix it refuses a file
/// that anyone but its owner may read or write.
pub fn read_private(path: &Path) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let read = |error| Problem::Read(error).in_file(path);
    // Checked before opening, because opening a pipe would wait for a writer.
    if !fs::metadata(path).map_err(read)?.is_file() {
        return Err(Problem::NotAFile.in_file(path));
    }
    let file = File::open(path).map_err(read)?;
    let metadata = file.metadata().map_err(read)?;
    if !metadata.is_file() {
        return Err(Problem::NotAFile.in_file(path));
    }
    #[cfg(unix)]
    {
        let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
        if mode & 0o077 != 0 {
            return Err(Problem::Public(mode).in_file(path));
        }
    }
    // Reserved at once, because a vector that grows leaves copies of the secret behind.
    let capacity = metadata.len().min(PRIVATE_FILE_LIMIT_BYTES) as usize + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(capacity));
    file.take(PRIVATE_FILE_LIMIT_BYTES + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > PRIVATE_FILE_LIMIT_BYTES {
        return Err(Problem::TooLong.in_file(path));
    }
    Ok(bytes)
}

/// An error in a key file, with the file and what to do.
#[derive(Debug)]
pub struct KeyFileError {
    file: Option<PathBuf>,
    problem: Problem,
}

impl KeyFileError {
    /// What is wrong.
    pub const fn problem(&self) -> &Problem {
        &self.problem
    }

    /// The file, if the bytes came from one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

impl fmt::Display for KeyFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.file {
            Some(file) => write!(f, "{}: {}", file.display(), self.problem),
            None => write!(f, "key file: {}", self.problem),
        }
    }
}

impl std::error::Error for KeyFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&self.problem)
    }
}

/// An error in a key file, and what to do.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Problem {
    /// [`write_private`] does not overwrite.
    #[error("already exists and is not overwritten: move it away or choose another place")]
    Exists,
    /// The system refused to write.
    #[error("cannot be written ({0}): check that the directory exists, is yours and has room")]
    Write(io::Error),
    /// The system refused to read.
    #[error("cannot be read ({0}): check the path in the configuration, and the owner of the file")]
    Read(io::Error),
    /// The path names a directory, a pipe or a device.
    #[error("is not a regular file: name the file itself in the configuration")]
    NotAFile,
    /// Users other than the owner may access the file.
    #[error(
        "holds a secret but has mode {0:04o}, which opens it to other users: run `chmod 600` on \
         it, and make new keys if somebody may have read it"
    )]
    Public(u32),
    /// The file is too long to be a key file.
    #[error(
        "is longer than {PRIVATE_FILE_LIMIT_BYTES} bytes, so it is not a key file: check the path"
    )]
    TooLong,
    /// The sealing secret does not have its fixed length.
    #[error(
        "has {0} bytes where a sealing secret has 32: check that the paths of the key file and \
         of the secret are not swapped"
    )]
    SecretLength(usize),
    /// The key file does not have its fixed length.
    #[error(
        "has {0} bytes where a sealed key file has {SEALED_BYTES}: check that the paths of the key \
         file and of the secret are not swapped"
    )]
    Length(usize),
    /// The file does not start with the magic bytes.
    #[error("is not a sealed key file of hybster: check the path in the configuration")]
    Magic,
    /// Written by another version.
    #[error(
        "has format version {0}, and this program reads version {VERSION}: use the matching program"
    )]
    Version(u16),
    /// Sealed for another replica.
    #[error(
        "was sealed for replica {found}, and this is replica {expected}: install the \
         file of replica {expected}"
    )]
    Replica {
        /// The replica that the file names.
        found: u16,
        /// The replica that asked.
        expected: u16,
    },
    /// Sealed for another epoch.
    #[error(
        "was sealed for epoch {found}, and this replica starts in epoch {expected}: seal the group \
         key again for epoch {expected}"
    )]
    Epoch {
        /// The epoch that the file names.
        found: u32,
        /// The epoch that asked.
        expected: u32,
    },
    /// Sealed for another group.
    #[error("was sealed for another group: install the key file that was made for this group")]
    Group,
    /// The seal is broken: the file was damaged, or the secret is another one.
    #[error(
        "does not open: it was changed, or the sealing secret is that of another replica: install \
         the key file and the secret that were made together"
    )]
    Broken,
    /// The cipher refused. It does so for no input that this crate makes.
    #[error("could not be sealed: this is a bug, please report it")]
    Sealing,
    /// No random bytes for the nonce.
    #[error(transparent)]
    Random(RandomSourceError),
}

impl Problem {
    fn in_file(self, path: &Path) -> KeyFileError {
        KeyFileError { file: Some(path.to_owned()), problem: self }
    }

    const fn anywhere(self) -> KeyFileError {
        KeyFileError { file: None, problem: self }
    }
}

fn header(right: StartRight, replica: u16, epoch: u32, group: &str) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..8].copy_from_slice(&MAGIC);
    header[8..10].copy_from_slice(&VERSION.to_le_bytes());
    header[10..12].copy_from_slice(&replica.to_le_bytes());
    header[12..16].copy_from_slice(&epoch.to_le_bytes());
    header[16..48].copy_from_slice(blake3::hash(group.as_bytes()).as_bytes());
    header[48] = match right {
        StartRight::Unused => 0,
        StartRight::Used => 1,
    };
    header
}

fn unseal_bytes(
    bytes: &[u8],
    secret: &SealingSecret,
    replica: u16,
    epoch: u32,
    group: &str,
) -> Result<Unsealed, Problem> {
    check_version(bytes)?;
    let bytes: &[u8; SEALED_BYTES] = bytes.try_into().map_err(|_| Problem::Length(bytes.len()))?;
    let (found, rest) = bytes.split_at(HEADER_BYTES);
    let (nonce, sealed) = rest.split_at(NONCE_BYTES);
    // Any other value makes the header differ from what is expected, which is reported below.
    let right = if found[48] == 1 { StartRight::Used } else { StartRight::Unused };
    let expected = header(right, replica, epoch, group);
    if found != expected {
        return Err(header_problem(bytes, replica, epoch));
    }
    let nonce = <[u8; NONCE_BYTES]>::try_from(nonce).map_err(|_| Problem::Broken)?;
    let payload = Payload { msg: sealed, aad: &expected };
    let opened = secret.cipher().decrypt(&nonce.into(), payload).map_err(|_| Problem::Broken)?;
    let opened = Zeroizing::new(opened);
    let key = <[u8; 32]>::try_from(opened.as_slice()).map_err(|_| Problem::Broken)?;
    Ok(Unsealed { group_key: GroupKey::from_bytes(key), right })
}

/// Files of other versions have other lengths.
fn check_version(bytes: &[u8]) -> Result<(), Problem> {
    let Some(([magic @ .., low, high], _)) = bytes.split_first_chunk::<10>() else {
        return Ok(());
    };
    let version = u16::from_le_bytes([*low, *high]);
    if *magic == MAGIC && version != VERSION {
        return Err(Problem::Version(version));
    }
    Ok(())
}

/// The field that differs. It is not authenticated, and only serves the error message.
fn header_problem(bytes: &[u8; SEALED_BYTES], replica: u16, epoch: u32) -> Problem {
    let found_replica = u16::from_le_bytes([bytes[10], bytes[11]]);
    let found_epoch = u32::from_le_bytes([bytes[12], bytes[13], bytes[14], bytes[15]]);
    if bytes[..8] != MAGIC {
        Problem::Magic
    } else if found_replica != replica {
        Problem::Replica { found: found_replica, expected: replica }
    } else if found_epoch != epoch {
        Problem::Epoch { found: found_epoch, expected: epoch }
    } else if bytes[48] > 1 || bytes[49..HEADER_BYTES] != [0; 3] {
        Problem::Broken
    } else {
        Problem::Group
    }
}

/// A new name is durable once its directory is.
fn sync_parent(path: &Path) -> io::Result<()> {
    if cfg!(not(unix)) {
        return Ok(());
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

#[cfg(test)]
mod tests;
