//! A stable checkpoint outside of its group: what proves it there, and how another group begins with one.
//!
//! **What proves it** is what proves it to a replica: f+1 CHECKPOINTs, as a STATE message has them. Their trusted MACs
//! are checked with the key of the group's trusted subsystems, which each replica of that group has; nobody
//! else can check them, and who has that key could make them.
//!
//! **A group that begins with a state** begins as if each of its replicas had, before anything else, heard of a
//! stable checkpoint and fetched it: its log has the certificate and the windows that moved ([`beginning`]), and its
//! disk has the state. From there on there is nothing special about it. The certificate is made by whoever
//! makes the group ([`certify`]), who has all of its keys until they are given to the replicas; nothing has been
//! ordered yet that it could contradict.

use bytes::Bytes;
use hybster_tss::{InstanceId, Refusal, TrInX, Verifier};

use super::record;
use super::verify::verify_checkpoint_certificate;
use super::wire::checkpoint::{Checkpoint, CheckpointCertificate, encode_state, parse_state};
use crate::config::GroupConfig;
use crate::output::LogRecord;
use crate::wire::{CheckpointId, WireError};

/// Why something is not the certificate of a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// It is no message of this group.
    #[error("it cannot be read: {0}")]
    Malformed(#[from] WireError),
    /// Too few replicas vouch, or a MAC is not that of the replica that it names.
    #[error("no f+1 replicas of that group have certified it")]
    Unproved,
}

/// The checkpoint that f+1 replicas of a group vouch for.
///
/// # Errors
/// If this is not what proves one in the group that the verifier is for.
pub fn verify<V: Verifier>(
    verifier: &V,
    config: &GroupConfig,
    certificate: &[u8],
) -> Result<CheckpointId, CertificateError> {
    let certificate = parse_state(certificate, config)?;
    // The state that an epoch begins with needs no proof in that epoch, so votes that come with it are not checked; its
    // proof is of the epoch before.
    if certificate.votes.is_empty() || certificate.id == config.membership.beginning {
        return Err(CertificateError::Unproved);
    }
    match verify_checkpoint_certificate(verifier, config, &certificate) {
        Ok(()) => Ok(certificate.id),
        Err(_) => Err(CertificateError::Unproved),
    }
}

/// The certificate of the checkpoint that a new group begins with. `trinx` gives an instance that has done nothing yet.
///
/// # Errors
/// If an instance refuses.
///
/// # Panics
/// If the group takes no checkpoints at this order number.
pub fn certify<T: TrInX>(
    config: &GroupConfig,
    id: CheckpointId,
    mut trinx: impl FnMut(InstanceId) -> T,
) -> Result<Bytes, Refusal> {
    assert!(config.is_checkpoint(id.order), "a group begins with one of its checkpoints");
    let pillar = config.checkpoint_pillar(id.order);
    let vouching = config.all_replicas().take(config.acknowledging());
    let votes = vouching.map(|sender| {
        let digest = Checkpoint::certified(sender, pillar, &id, None);
        let mac = trinx(config.instance(sender, pillar)).certify_mac(&digest)?;
        Ok((sender, mac.proof))
    });
    let votes = votes.collect::<Result<_, _>>()?;
    Ok(encode_state(&CheckpointCertificate { id, ending: None, votes }))
}

/// What the log of each replica has of a group that begins with the checkpoint that this certifies.
///
/// # Errors
/// If it is no certificate of this group.
pub fn beginning(config: &GroupConfig, certificate: &[u8]) -> Result<Vec<LogRecord>, WireError> {
    let certificate = parse_state(certificate, config)?;
    let base = config.slots_before(certificate.id.order);
    let windows = config.all_pillars().map(|pillar| record::forwarded(pillar, base));
    Ok(std::iter::once(record::stable(&certificate)).chain(windows).collect())
}

/// What the log of a replica begins with in an epoch that begins with a checkpoint.
///
/// The replica is one that was told of the checkpoint: whether it has the state says what is beside the log.
#[must_use]
pub fn beginning_of_epoch(config: &GroupConfig) -> Vec<LogRecord> {
    let certificate = CheckpointCertificate::of_beginning(config);
    let base = config.slots_before(certificate.id.order);
    let windows = config.all_pillars().map(|pillar| record::forwarded(pillar, base));
    std::iter::once(record::stable(&certificate)).chain(windows).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hybster_tss::{Digest, GroupKey, InProcessTrInX, InProcessVerifier};

    use super::*;
    use crate::hybster::Recovered;
    use crate::ids::{OrderNumber, ReplicaId};

    fn key(byte: u8) -> GroupKey {
        GroupKey::from_bytes([byte; 32])
    }

    fn id() -> CheckpointId {
        CheckpointId { order: OrderNumber(512), digest: Digest([4; 32]) }
    }

    fn certificate(config: &GroupConfig) -> Bytes {
        let trinx = |instance| InProcessTrInX::new(&key(1), config.mac, config.digest(), instance);
        certify(config, id(), trinx).unwrap()
    }

    #[test]
    fn only_the_key_and_the_constants_of_the_group_prove_a_checkpoint() {
        let config = GroupConfig::default();
        let made = certificate(&config);
        let check = |byte, of: &GroupConfig, bytes: &[u8]| {
            verify(&InProcessVerifier::new(&key(byte), of.mac, of.digest()), of, bytes)
        };
        assert_eq!(check(1, &config, &made), Ok(id()));
        assert_eq!(check(2, &config, &made), Err(CertificateError::Unproved));
        let other = GroupConfig { group: [9; 16], ..config.clone() };
        assert_eq!(check(1, &other, &made), Err(CertificateError::Unproved));
        for at in 0..made.len() {
            let mut changed = made.to_vec();
            changed[at] ^= 1;
            assert!(check(1, &config, &changed).is_err(), "byte {at}");
        }
        // One vote alone, and the initial state, which needs none.
        let alone = parse_state(&made, &config).unwrap();
        let alone = CheckpointCertificate { votes: alone.votes[..1].to_vec(), ..alone };
        assert_eq!(check(1, &config, &encode_state(&alone)), Err(CertificateError::Unproved));
        let initial = encode_state(&CheckpointCertificate::default());
        assert_eq!(check(1, &config, &initial), Err(CertificateError::Unproved));
    }

    #[test]
    fn a_replica_whose_log_begins_so_is_at_the_checkpoint_and_has_certified_nothing() {
        let config = Arc::new(GroupConfig::default());
        let records = beginning(&config, &certificate(&config)).unwrap();
        let records = records.iter().map(|record| Bytes::from(record.parts().concat()));
        let order = id().order;
        let read =
            Recovered::read(Arc::clone(&config), ReplicaId(2), order, true, records).unwrap();
        assert_eq!(read.stable_checkpoint(), order);
        assert_eq!((read.stable_view().0, read.current_view().0), (0, 0));
        for pillar in config.all_pillars() {
            assert!(read.counters(pillar).iter().all(|it| it.view() == 0 && it.order() == 0));
            let it = &read.pillars[usize::from(pillar.0)];
            assert_eq!((it.base, it.prepared, it.committed), (256, 256, 256));
        }
        assert!(read.control.is_reached);
    }
}
