//! Configuration and key files.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use hybster::group::{Addresses, CreateOptions, create};
use hybster::{ClientId, ClientKeys, Group, ReplicaId, ReplicaKeys};
use hybster_tss::SealingSecret;
use hybster_tss::keyfile::unseal;

/// `group.toml`: whatever is accepted can be worked with.
pub fn group(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Group::parse(Path::new("group.toml"), text) {
        Ok(group) => {
            group.config().validate().expect("a group that was read is valid");
            assert_eq!(group.replicas().len(), usize::from(group.config().replicas));
            group.key_ring().expect("a group that was read has all keys once");
            let _ = (group.link_limits(), group.name());
        }
        Err(error) => assert!(error.to_string().contains("group.toml"), "{error}"),
    }
}

/// A group directory that is made once per process.
struct Directory {
    path: PathBuf,
    group: Group,
}

fn directory() -> &'static Directory {
    static DIRECTORY: OnceLock<Directory> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("hybster-fuzz-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        let addresses =
            Addresses::List((0..3).map(|at| ([127, 0, 0, 1], 7000 + at).into()).collect());
        let options = CreateOptions { addresses, clients: 1, ..CreateOptions::default() };
        let group = create(&path, &options).expect("the directory can be made");
        Directory { path, group }
    })
}

fn text_of(file: &str) -> Vec<u8> {
    std::fs::read(directory().path.join(file)).expect("the file was made")
}

pub fn group_seeds() -> Vec<Vec<u8>> {
    vec![text_of("group.toml")]
}

/// Key files of replicas and clients, and sealed group keys: what is accepted is what was made.
pub fn keys(data: &[u8]) {
    let Some((which, content)) = data.split_first() else { return };
    let Directory { path, group } = directory();
    let scratch = path.join("fuzzed");
    let _ = std::fs::create_dir(&scratch);
    let file = scratch.join(if which % 2 == 0 { "replica-0.key" } else { "client-0.key" });
    let _ = std::fs::remove_file(&file);
    hybster_tss::keyfile::write_private(&file, content).expect("a new private file");
    if which % 2 == 0 {
        if let Ok(keys) = ReplicaKeys::load(group, &scratch, ReplicaId(0)) {
            assert_eq!(keys.link.public(), group.replicas()[0].public_key);
        }
    } else if let Ok(keys) = ClientKeys::load(group, &scratch, ClientId(0)) {
        assert_eq!(keys.link.public(), group.clients()[0].public_key);
    }
    let opened = unseal(content, &SealingSecret::from_bytes([1; 32]), 0, 0, "group");
    assert!(opened.is_err(), "nobody has sealed anything under this secret");
}

pub fn key_seeds() -> Vec<Vec<u8>> {
    let seed = |which: u8, file| [&[which][..], &text_of(file)].concat();
    let sealed = [&b"\x01HYBSTKEY\x01\0\0\0\0\0\0\0"[..], &[3; 92]].concat();
    vec![seed(0, "replica-0.key"), seed(1, "client-0.key"), sealed]
}

/// Removes what the targets wrote.
pub fn clean() {
    let _ = std::fs::remove_dir_all(&directory().path);
}
