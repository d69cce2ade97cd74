//! What is sealed, what is refused, and what the errors say.

use super::StartRight::{Unused, Used};
use super::*;

static SECRET: SealingSecret = SealingSecret::from_bytes([1; 32]);
static KEY: GroupKey = GroupKey::from_bytes([2; 32]);

/// A directory of its own for each test, gone afterwards.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("hybster-tss-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn what_was_sealed_is_unsealed() {
    let sealed = seal(&KEY, Unused, &SECRET, 1, 7, "group").unwrap();
    let again = unseal(&sealed, &SECRET, 1, 7, "group").unwrap();
    assert_eq!(again.group_key.expose_bytes(), KEY.expose_bytes());
    assert_eq!(again.right, Unused);
    let second = seal(&KEY, Unused, &SECRET, 1, 7, "group").unwrap();
    assert_ne!(sealed[HEADER_BYTES..64], second[HEADER_BYTES..64], "a fresh nonce");
}

#[test]
fn a_file_of_another_replica_epoch_or_group_is_refused() {
    let sealed = seal(&KEY, Unused, &SECRET, 1, 7, "group").unwrap();
    let problem = |secret, replica, epoch, group| {
        unseal(&sealed, secret, replica, epoch, group).unwrap_err().problem
    };
    assert!(matches!(problem(&SECRET, 2, 7, "group"), Problem::Replica { found: 1, expected: 2 }));
    assert!(matches!(problem(&SECRET, 1, 8, "group"), Problem::Epoch { found: 7, expected: 8 }));
    assert!(matches!(problem(&SECRET, 1, 7, "other"), Problem::Group));
    let other = SealingSecret::from_bytes([9; 32]);
    assert!(matches!(problem(&other, 1, 7, "group"), Problem::Broken));
}

#[test]
fn a_used_key_opens_says_so_and_cannot_be_edited_into_an_unused_one() {
    let mut sealed = seal(&KEY, Used, &SECRET, 1, 7, "group").unwrap();
    let unsealed = unseal(&sealed, &SECRET, 1, 7, "group").unwrap();
    assert_eq!(unsealed.group_key.expose_bytes(), KEY.expose_bytes());
    assert_eq!(unsealed.right, Used);
    sealed[48] = 0;
    let error = unseal(&sealed, &SECRET, 1, 7, "group").unwrap_err();
    assert!(matches!(error.problem, Problem::Broken));
    sealed[48] = 2;
    let error = unseal(&sealed, &SECRET, 1, 7, "group").unwrap_err();
    assert!(matches!(error.problem, Problem::Broken));
}

/// Version 1 had no right to start.
#[test]
fn a_file_of_another_version_is_told() {
    let mut old = seal(&KEY, Unused, &SECRET, 1, 7, "group").unwrap();
    old[8] = 1;
    old.truncate(108);
    let error = unseal(&old, &SECRET, 1, 7, "group").unwrap_err();
    assert!(matches!(error.problem, Problem::Version(1)), "{error}");
}

#[test]
fn a_replacement_is_all_or_nothing_and_leaves_nothing_behind() {
    let directory = Directory::new("replace");
    let path = directory.0.join("key");
    write_private(&path, b"old").unwrap();
    let names = || fs::read_dir(&directory.0).unwrap().count();
    let prepared = Replacement::prepare(&path, b"new").unwrap();
    assert_eq!((&*fs::read(&path).unwrap(), names()), (&b"old"[..], 2));
    drop(prepared);
    assert_eq!((&*fs::read(&path).unwrap(), names()), (&b"old"[..], 1));
    Replacement::prepare(&path, b"new").unwrap().commit().unwrap();
    assert_eq!((&**read_private(&path).unwrap(), names()), (&b"new"[..], 1));
    assert!(Replacement::prepare(&directory.0.join("none"), b"new").is_err());
    #[cfg(unix)]
    {
        let link = directory.0.join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        Replacement::prepare(&link, b"newer").unwrap().commit().unwrap();
        assert_eq!(&**read_private(&path).unwrap(), b"newer", "not the link is replaced");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}

/// To edit the clear header so that it fits does not help: it is associated data.
#[test]
fn every_flipped_bit_and_every_edited_header_is_refused() {
    let sealed = seal(&KEY, Unused, &SECRET, 1, 7, "group").unwrap();
    for bit in 0..SEALED_BYTES * 8 {
        let mut bytes = sealed.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(unseal(&bytes, &SECRET, 1, 7, "group").is_err(), "bit {bit}");
    }
    let mut bytes = sealed.clone();
    bytes[..HEADER_BYTES].copy_from_slice(&header(Unused, 2, 7, "group"));
    let error = unseal(&bytes, &SECRET, 2, 7, "group").unwrap_err();
    assert!(matches!(error.problem, Problem::Broken));
    for length in 0..SEALED_BYTES {
        assert!(unseal(&sealed[..length], &SECRET, 1, 7, "group").is_err());
    }
}

#[test]
fn files_are_private_and_never_overwritten() {
    let directory = Directory::new("private");
    let path = directory.0.join("secret");
    SECRET.write(&path).unwrap();
    assert_eq!(SealingSecret::read(&path).unwrap().0, SECRET.0);
    let error = SECRET.write(&path).unwrap_err();
    assert!(matches!(error.problem, Problem::Exists));
    assert!(error.to_string().contains(path.to_str().unwrap()));

    let key_path = directory.0.join("key");
    write_sealed(&key_path, &KEY, &SECRET, 1, 0, "group").unwrap();
    assert!(read_sealed(&key_path, &SECRET, 1, 0, "group").is_ok());
    let error = read_sealed(&key_path, &SECRET, 0, 0, "group").unwrap_err();
    assert_eq!(error.file(), Some(key_path.as_path()));
    let error = SealingSecret::read(&key_path).unwrap_err();
    assert!(matches!(error.problem, Problem::SecretLength(SEALED_BYTES)));
}

#[cfg(unix)]
#[test]
fn a_file_that_others_may_read_is_refused_with_the_cure() {
    use std::os::unix::fs::PermissionsExt;

    let directory = Directory::new("public");
    let path = directory.0.join("secret");
    write_private(&path, b"x").unwrap();
    let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    for mode in [0o640, 0o604, 0o660, 0o602, 0o644] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = read_private(&path).unwrap_err();
        assert!(matches!(error.problem, Problem::Public(found) if found == mode));
        assert!(error.to_string().contains("chmod 600"));
    }
}

#[test]
fn what_is_no_key_file_is_refused() {
    let directory = Directory::new("wrong");
    assert!(matches!(read_private(&directory.0).unwrap_err().problem, Problem::NotAFile));
    let missing = read_private(&directory.0.join("none")).unwrap_err();
    assert!(matches!(missing.problem, Problem::Read(_)));
    let long = directory.0.join("long");
    write_private(&long, &vec![0; PRIVATE_FILE_LIMIT_BYTES as usize + 1]).unwrap();
    assert!(matches!(read_private(&long).unwrap_err().problem, Problem::TooLong));
    let limit = directory.0.join("limit");
    write_private(&limit, &vec![0; PRIVATE_FILE_LIMIT_BYTES as usize]).unwrap();
    assert_eq!(read_private(&limit).unwrap().len() as u64, PRIVATE_FILE_LIMIT_BYTES);
}
