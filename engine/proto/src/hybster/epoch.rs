//! The end of an epoch, as Hybster proves it: f+1 CHECKPOINTs at the boundary that they name themselves
//! (`engine/proto/EPOCHS.md`).

use hybster_tss::Verifier;

use super::verify::verify_checkpoint_certificate;
use super::wire::checkpoint::parse_state;
use crate::config::GroupConfig;
use crate::membership::{Membership, NextConfiguration};
use crate::wire::WireError;

/// Why something does not prove the end of an epoch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EndError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Malformed(#[from] WireError),
    /// Too few replicas of the epoch vouch, or a MAC is not that of the replica that it names.
    #[error("no f+1 replicas of this epoch have certified it")]
    Unproved,
    /// The checkpoint is none that the epoch ends with.
    #[error("the epoch does not end with this checkpoint")]
    NotTheLast,
    /// The configuration is not the one that the checkpoint names.
    #[error("this is not the configuration that the last checkpoint names")]
    AnotherConfiguration,
}

/// The constants of the epoch that follows on that of `config`.
///
/// # Errors
/// If `certificate` does not prove the end of this epoch, or that `next` follows.
pub fn next_epoch<V: Verifier>(
    verifier: &V,
    config: &GroupConfig,
    certificate: &[u8],
    next: &[u8],
) -> Result<GroupConfig, EndError> {
    let certificate = parse_state(certificate, config)?;
    let ending = certificate.ending.as_deref().ok_or(EndError::NotTheLast)?;
    if ending.boundary != certificate.id.order {
        return Err(EndError::NotTheLast);
    }
    verify_checkpoint_certificate(verifier, config, &certificate)
        .map_err(|_| EndError::Unproved)?;
    let next = NextConfiguration::parse(next)?.after(config);
    let follows = config.epoch.checked_add(1) == Some(next.epoch);
    if !follows || next.constants_digest() != ending.next {
        return Err(EndError::AnotherConfiguration);
    }
    let membership = Membership { beginning: certificate.id, ..next.membership };
    Ok(GroupConfig { membership, ..next })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hybster_tss::{
        ClientSigningKey, Digest, GroupKey, InProcessTrInX, InProcessVerifier, Life, TrInX,
    };

    use super::*;
    use crate::hybster::verify::verify_ack;
    use crate::hybster::wire::checkpoint::{Checkpoint, CheckpointCertificate, encode_state};
    use crate::hybster::wire::view::NewViewAck;
    use crate::ids::{ClientId, OrderNumber, PillarId, ReplicaId, View};
    use crate::membership::{Administrator, Ending};
    use crate::output::Reject;
    use crate::wire::CheckpointId;

    const B: OrderNumber = OrderNumber(1280);

    fn key() -> GroupKey {
        GroupKey::from_bytes([1; 32])
    }

    fn config() -> GroupConfig {
        let key = ClientSigningKey::from_bytes([5; 32]).public();
        let administrator = Some(Administrator { client: ClientId(7), key });
        GroupConfig { administrator, ..GroupConfig::default() }
    }

    fn trinx(config: &GroupConfig, replica: u16, pillar: PillarId) -> InProcessTrInX {
        let instance = config.instance(ReplicaId(replica), pillar);
        InProcessTrInX::new(&key(), config.mac, config.digest(), instance)
    }

    fn verifier(config: &GroupConfig) -> InProcessVerifier {
        InProcessVerifier::new(&key(), config.mac, config.digest())
    }

    fn next(config: &GroupConfig) -> NextConfiguration {
        NextConfiguration::replacing(config, ReplicaId(1), Life(9), Bytes::from_static(b"there"))
    }

    /// The certificate of a checkpoint by two replicas, as a message.
    fn certificate(config: &GroupConfig, order: OrderNumber, ending: Option<Ending>) -> Bytes {
        let id = CheckpointId { order, digest: Digest([4; 32]) };
        let pillar = config.checkpoint_pillar(order);
        let votes = [0, 2].map(|replica| {
            let digest = Checkpoint::certified(ReplicaId(replica), pillar, &id, ending.as_ref());
            let mac = trinx(config, replica, pillar).certify_mac(&digest).unwrap();
            (ReplicaId(replica), mac.proof)
        });
        let ending = ending.map(Box::new);
        encode_state(&CheckpointCertificate { id, ending, votes: votes.to_vec() })
    }

    fn ending(config: &GroupConfig) -> Ending {
        Ending { boundary: B, next: next(config).after(config).constants_digest() }
    }

    #[test]
    fn an_epoch_is_over_when_its_last_checkpoint_is_proved() {
        let config = config();
        let bytes = next(&config).encode();
        let check = |certificate: &[u8], next: &[u8]| {
            next_epoch(&verifier(&config), &config, certificate, next)
        };
        let good = certificate(&config, B, Some(ending(&config)));
        let after = check(&good, &bytes).unwrap();
        assert_eq!((after.epoch, after.life_of(ReplicaId(1))), (1, Life(9)));
        assert_eq!(after.membership.beginning.order, B);
        assert_eq!(after.constants_digest(), ending(&config).next);
        assert_ne!(after.digest(), after.constants_digest());
        assert_eq!(after.genesis(), config.digest());
        after.validate().unwrap();

        let early = certificate(&config, OrderNumber(1024), Some(ending(&config)));
        assert_eq!(check(&early, &bytes), Err(EndError::NotTheLast));
        let usual = certificate(&config, B, None);
        assert_eq!(check(&usual, &bytes), Err(EndError::NotTheLast));
        let other = NextConfiguration { lives: vec![Life(1); 3], ..next(&config) };
        assert_eq!(check(&good, &other.encode()), Err(EndError::AnotherConfiguration));
        let other = NextConfiguration { details: Bytes::from_static(b"here"), ..next(&config) };
        assert_eq!(check(&good, &other.encode()), Err(EndError::AnotherConfiguration));
        for at in 0..good.len() {
            let mut changed = good.to_vec();
            changed[at] ^= 1;
            assert!(check(&changed, &bytes).is_err(), "byte {at}");
        }
        // Who has gone on cannot prove another end of what is over.
        let again = certificate(&after, B, Some(ending(&config)));
        assert!(check(&again, &bytes).is_err());
    }

    /// The state that an epoch begins with says how the one before ended. What proves it there is no end of this one.
    #[test]
    fn an_epoch_does_not_end_where_it_begins() {
        let old = config();
        let bytes = next(&old).encode();
        let proof = certificate(&old, B, Some(ending(&old)));
        let new = next_epoch(&verifier(&old), &old, &proof, &bytes).unwrap();
        let again = certificate(&new, B, Some(ending(&old)));
        assert!(next_epoch(&verifier(&new), &new, &again, &bytes).is_err());
        // Nor does another configuration of the same epoch follow, wherever it ends.
        let boundary = OrderNumber(B.0 + 1024);
        let later = certificate(&new, boundary, Some(Ending { boundary, ..ending(&old) }));
        let refused = next_epoch(&verifier(&new), &new, &later, &bytes);
        assert_eq!(refused, Err(EndError::AnotherConfiguration));
    }

    /// What an honest host has vouched for in one epoch is nothing in another one, also where no counter tells them
    /// apart: a trusted MAC of a view of the old epoch would support that view in the new one, and what was committed
    /// there would be lost.
    #[test]
    fn macs_of_the_old_epoch_do_not_count() {
        let old = config();
        let certificate_of_old = certificate(&old, B, Some(ending(&old)));
        let next = next(&old).encode();
        let new = next_epoch(&verifier(&old), &old, &certificate_of_old, &next).unwrap();
        let ack = |of: &GroupConfig, begins: &GroupConfig| {
            let mut ack = NewViewAck {
                sender: ReplicaId(2),
                view: View(3),
                checkpoint: CheckpointCertificate::of_beginning(begins),
                prepared: vec![Vec::new(); usize::from(of.pillars)],
                proof: hybster_tss::Proof([0; 32]),
            };
            let mut trinx = trinx(of, 2, PillarId(0));
            ack.proof = trinx.certify_mac(&ack.digest()).unwrap().proof;
            ack
        };
        let (of_old, of_new) = (ack(&old, &old), ack(&new, &new));
        assert_eq!(verify_ack(&verifier(&old), &old, &of_old), Ok(()));
        assert_eq!(verify_ack(&verifier(&new), &new, &of_new), Ok(()));
        let replayed = ack(&old, &new);
        let refused = Err(Reject::BadCertificate);
        assert_eq!(verify_ack(&verifier(&new), &new, &replayed), refused);
        // By the epoch and by the digest, each by itself.
        let mixed = GroupConfig { epoch: old.epoch, ..new.clone() };
        assert_eq!(verify_ack(&verifier(&new), &mixed, &replayed), refused);
        assert_eq!(verify_ack(&verifier(&old), &new, &replayed), refused);
        // A certificate of a checkpoint, too, but for the one that the epoch begins with.
        let state = parse_state(&certificate_of_old, &old).unwrap();
        let verify = |state| verify_checkpoint_certificate(&verifier(&new), &new, state);
        assert_eq!(verify(&state), refused);
        assert_eq!(verify(&CheckpointCertificate::of_beginning(&new)), Ok(()));
    }

    /// Both lives of a replica, in both epochs: only the one that the configuration names counts.
    #[test]
    fn a_life_counts_in_the_epoch_that_names_it() {
        let old = config();
        let next = next(&old).encode();
        let proof = certificate(&old, B, Some(ending(&old)));
        let new = next_epoch(&verifier(&old), &old, &proof, &next).unwrap();
        let valid = |config: &GroupConfig, life, epoch| {
            let instance = hybster_tss::InstanceId {
                life,
                epoch,
                ..config.instance(ReplicaId(1), PillarId(0))
            };
            let mut trinx = InProcessTrInX::new(&key(), config.mac, config.digest(), instance);
            let mac = trinx.certify_mac(&Digest([8; 32])).unwrap();
            // A verifier takes the instance from its configuration.
            let instance = config.instance(ReplicaId(1), PillarId(0));
            let mac = hybster_tss::TrustedMac { instance, ..mac };
            verifier(config).verify_mac(&mac, &Digest([8; 32]))
        };
        assert!(valid(&old, Life::FIRST, 0) && valid(&new, Life(9), 1));
        assert!(!valid(&new, Life::FIRST, 1), "the old life goes on in the new epoch");
        assert!(!valid(&old, Life(9), 0), "the new life counts before its time");
        assert!(!valid(&new, Life(10), 1), "another life of the same host");
        assert!(!valid(&new, Life(9), 0), "an epoch that is over");
    }
}
