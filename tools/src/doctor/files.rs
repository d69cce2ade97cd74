//! A replica's files on this machine: its key, the keys of others, its data.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hybster::durable::Durability;
use hybster::{Group, PeerAddress, ReplicaId, ReplicaKeys};
use rustix::fs::{Access, access, statfs, statvfs};

use super::Finding;
use crate::memory::size;

/// Room on a disk below which a replica will soon hold its clients.
const LITTLE_ROOM_BYTES: u64 = 1 << 30;
/// Room below which it does not start.
const NO_ROOM_BYTES: u64 = 64 << 20;
/// The type that a file system in memory has (`man statfs`).
const TMPFS_MAGIC: u64 = 0x0102_1994;

pub(super) fn look(group: &Group, id: ReplicaId, data: Option<&Path>) -> Vec<Finding> {
    let mut findings = vec![key(group, id), other_keys(group, id)];
    if group.durability() != Durability::None {
        findings.push(room_for_data(group, id, data));
    }
    findings
}

/// Reading the key checks its owner's mode, its length, and whose it is.
fn key(group: &Group, id: ReplicaId) -> Finding {
    let path = ReplicaKeys::path(group.directory(), id);
    if let Err(error) = ReplicaKeys::load(group, group.directory(), id) {
        return Finding::wrong("key", path.display().to_string(), error.to_string()).of(id);
    }
    let finding = match access(group.directory(), Access::WRITE_OK) {
        Ok(()) => Finding::ok("key", format!("{} is in order", path.display())),
        Err(error) => Finding::wrong(
            "key",
            format!("{} cannot be written: {error}", group.directory().display()),
            "a start marks the key as used: make the directory writable for the replica's user",
        ),
    };
    finding.of(id)
}

fn other_keys(group: &Group, id: ReplicaId) -> Finding {
    let there = |other: &ReplicaId| ReplicaKeys::path(group.directory(), *other).exists();
    let others: Vec<ReplicaId> =
        group.replicas().iter().map(|it| it.id).filter(|other| *other != id).collect();
    let found: Vec<String> =
        others.iter().filter(|it| there(it)).map(|it| it.0.to_string()).collect();
    let is_local = group.replicas().iter().all(|entry| is_loopback(&entry.address));
    other_keys_are_elsewhere(&found, is_local)
}

fn is_loopback(address: &PeerAddress) -> bool {
    match address {
        PeerAddress::Ip(address) => address.ip().is_loopback(),
        named => named.to_string().parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback()),
    }
}

fn other_keys_are_elsewhere(found: &[String], is_local: bool) -> Finding {
    if found.is_empty() {
        return Finding::ok("other_keys", "no keys of other replicas are here");
    }
    let text = format!("keys of other replicas are here: {}", found.join(", "));
    if is_local {
        return Finding::ok("other_keys", format!("{text}; all addresses are of this machine"));
    }
    Finding::warning(
        "other_keys",
        text,
        "copy each to its own machine before its first start, and remove it here: who has it can speak \
         for that replica, and one that is restored later breaks the group's promises",
    )
}

fn room_for_data(group: &Group, id: ReplicaId, data: Option<&Path>) -> Finding {
    let usual = format!("replica-{}.epoch-{}.data", id.0, group.config().epoch);
    let directory = data.map_or_else(|| group.directory().join(usual), Path::to_owned);
    // It is made by the first start.
    let place = existing(&directory);
    let shown = directory.display();
    let finding = match (statvfs(&place), statfs(&place), access(&place, Access::WRITE_OK)) {
        (Ok(room), Ok(kind), Ok(())) => {
            let free = room.f_bavail.saturating_mul(room.f_frsize);
            let in_memory = u64::try_from(kind.f_type) == Ok(TMPFS_MAGIC);
            room_is_enough(&shown.to_string(), free, in_memory, group.durability())
        }
        (_, _, Err(error)) => Finding::wrong(
            "data",
            format!("{} cannot be written: {error}", place.display()),
            "make it writable for the replica's user, or name another place with --data",
        ),
        (Err(error), ..) | (_, Err(error), _) => Finding::wrong(
            "data",
            format!("{}: {error}", place.display()),
            "name a directory that can be used with --data",
        ),
    };
    finding.of(id)
}

/// The first of this directory and those above it that exists.
fn existing(directory: &Path) -> PathBuf {
    let found = directory.ancestors().find(|path| match path.symlink_metadata() {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::NotFound,
    });
    found.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

fn room_is_enough(shown: &str, free: u64, in_memory: bool, durability: Durability) -> Finding {
    let found = format!("{shown}: {} are free", size(free));
    if in_memory {
        return Finding::wrong(
            "data",
            format!("{shown} is on a file system in memory"),
            format!(
                "durability {} promises more: name a directory on a disk with --data",
                durability.name()
            ),
        );
    }
    let advice = "make room: a replica whose disk is full holds its clients, and stops when its reserve is \
                  used up";
    match free {
        ..NO_ROOM_BYTES => Finding::wrong("data", found, advice),
        NO_ROOM_BYTES..LITTLE_ROOM_BYTES => Finding::warning("data", found, advice),
        _ => Finding::ok("data", found),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn room_and_place_of_data_are_judged() {
        let judged =
            |free, in_memory| room_is_enough("data", free, in_memory, Durability::Sync).verdict;
        assert_eq!(judged(2 << 30, false), Verdict::Ok);
        assert_eq!(judged(512 << 20, false), Verdict::Warning);
        assert_eq!(judged(1 << 20, false), Verdict::Wrong);
        assert_eq!(judged(2 << 30, true), Verdict::Wrong);
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(existing(&dir.path().join("a/b")), dir.path());
        assert_eq!(existing(Path::new("no-such-directory")), Path::new("."));
    }

    #[test]
    fn keys_of_others_may_only_lie_where_all_replicas_are() {
        let found = ["1".to_owned()];
        assert_eq!(other_keys_are_elsewhere(&[], false).verdict, Verdict::Ok);
        assert_eq!(other_keys_are_elsewhere(&found, true).verdict, Verdict::Ok);
        assert_eq!(other_keys_are_elsewhere(&found, false).verdict, Verdict::Warning);
        assert!(is_loopback(&"127.0.0.1:1".parse().map(PeerAddress::Ip).unwrap()));
    }
}
