//! CHECKPOINT and its certificates (TR listing 18), and the message that carries one (listing 20).

use bytes::Bytes;
use hybster_tss::{Digest, InstanceId, Proof, TrustedMac};

use crate::config::GroupConfig;
use crate::ids::{PillarId, ReplicaId};
use crate::wire::state::CheckpointId;
use crate::wire::{Put, Reader, WireError, digest, kind};

/// Bytes of a CHECKPOINT.
pub const CHECKPOINT_BYTES: usize = 80;

/// A CHECKPOINT: the sender vouches for the state after an order number, by trusted MAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Sender.
    pub sender: ReplicaId,
    /// The checkpoint that it vouches for.
    pub id: CheckpointId,
    /// Trusted MAC of the instance of the pillar in charge.
    pub proof: Proof,
}

impl Checkpoint {
    /// The digest that the trusted MAC covers.
    #[must_use]
    pub fn certified(sender: ReplicaId, pillar: PillarId, id: &CheckpointId) -> Digest {
        digest(&Self::head(sender, pillar, id))
    }

    fn head(sender: ReplicaId, pillar: PillarId, id: &CheckpointId) -> [u8; 48] {
        let mut out = [0; 48];
        out[0] = kind::CHECKPOINT;
        out[2..4].copy_from_slice(&pillar.0.to_le_bytes());
        out[4..6].copy_from_slice(&sender.0.to_le_bytes());
        out[8..16].copy_from_slice(&id.order.0.to_le_bytes());
        out[16..48].copy_from_slice(&id.digest.0);
        out
    }

    /// The message.
    #[must_use]
    pub fn encode(&self, config: &GroupConfig) -> Bytes {
        let mut out = Vec::with_capacity(CHECKPOINT_BYTES);
        let pillar = config.checkpoint_pillar(self.id.order);
        out.extend_from_slice(&Self::head(self.sender, pillar, &self.id));
        out.extend_from_slice(&self.proof.0);
        out.into()
    }

    /// Parses a message.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8], config: &GroupConfig) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::CHECKPOINT)?;
        reader.zeros(1)?;
        let pillar = reader.pillar()?;
        let sender = reader.replica()?;
        reader.zeros(2)?;
        let id = CheckpointId { order: reader.order()?, digest: reader.digest()? };
        let proof = reader.proof()?;
        reader.end()?;
        if !config.is_checkpoint(id.order) || config.checkpoint_pillar(id.order) != pillar {
            return Err(WireError::Field("order"));
        }
        if sender.0 >= config.replicas {
            return Err(WireError::Field("sender"));
        }
        Ok(Self { sender, id, proof })
    }

    /// The trusted MAC with the instance that must have made it.
    #[must_use]
    pub fn mac(&self, config: &GroupConfig) -> TrustedMac {
        let pillar = config.checkpoint_pillar(self.id.order);
        TrustedMac {
            instance: InstanceId { replica: self.sender.0, pillar: pillar.0, epoch: config.epoch },
            proof: self.proof,
        }
    }
}

/// f+1 equal CHECKPOINTs of different replicas: at least one correct replica holds the state.
///
/// The certificate of the initial state is empty (TR listing 18, isCorrectCheckpointCertificate).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckpointCertificate {
    /// The checkpoint that all of them vouch for.
    pub id: CheckpointId,
    /// The replicas that vouch, in ascending order, with their MACs.
    pub votes: Vec<(ReplicaId, Proof)>,
}

impl CheckpointCertificate {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.id.order.0);
        out.bytes(&self.id.digest.0);
        out.put_u32(self.votes.len() as u32);
        for (replica, proof) in &self.votes {
            out.put_u16(replica.0);
            out.bytes(&proof.0);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>, config: &GroupConfig) -> Result<Self, WireError> {
        let id = CheckpointId { order: reader.order()?, digest: reader.digest()? };
        let count = reader.count(34, "votes")?;
        if count > usize::from(config.replicas) {
            return Err(WireError::Field("votes"));
        }
        let mut votes = Vec::with_capacity(count);
        for _ in 0..count {
            votes.push((reader.replica()?, reader.proof()?));
        }
        let rising = votes.windows(2).all(|w| w[0].0 < w[1].0);
        if !rising || votes.last().is_some_and(|v| v.0.0 >= config.replicas) {
            return Err(WireError::Field("votes"));
        }
        let initial = id == CheckpointId::default();
        if initial != votes.is_empty() || !(initial || config.is_checkpoint(id.order)) {
            return Err(WireError::Field("checkpoint"));
        }
        Ok(Self { id, votes })
    }

    /// The CHECKPOINT messages inside.
    pub fn checkpoints(&self) -> impl Iterator<Item = Checkpoint> + '_ {
        self.votes.iter().map(|(sender, proof)| Checkpoint {
            sender: *sender,
            id: self.id,
            proof: *proof,
        })
    }
}

/// A STATE message: the sender's stable checkpoint certificate.
#[must_use]
pub fn encode_state(certificate: &CheckpointCertificate) -> Bytes {
    let mut out = vec![kind::STATE, 0, 0, 0, 0, 0, 0, 0];
    certificate.put(&mut out);
    out.into()
}

/// Parses a STATE message.
///
/// # Errors
/// If the length or a field is wrong.
pub fn parse_state(bytes: &[u8], config: &GroupConfig) -> Result<CheckpointCertificate, WireError> {
    let mut reader = Reader::new(bytes);
    reader.expect_kind(kind::STATE)?;
    reader.zeros(7)?;
    let certificate = CheckpointCertificate::read(&mut reader, config)?;
    reader.end()?;
    Ok(certificate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::OrderNumber;

    #[test]
    fn checkpoints_survive_the_round_trip() {
        let config = GroupConfig::default();
        let id = CheckpointId { order: OrderNumber(512), digest: Digest([4; 32]) };
        let checkpoint = Checkpoint { sender: ReplicaId(2), id, proof: Proof([5; 32]) };
        let bytes = checkpoint.encode(&config);
        assert_eq!(Checkpoint::parse(&bytes, &config).unwrap(), checkpoint);
        let certificate = CheckpointCertificate {
            id,
            votes: vec![(ReplicaId(0), Proof([1; 32])), (ReplicaId(2), Proof([2; 32]))],
        };
        assert_eq!(parse_state(&encode_state(&certificate), &config).unwrap(), certificate);
    }

    #[test]
    fn votes_must_rise_and_the_initial_certificate_is_empty() {
        let config = GroupConfig::default();
        let id = CheckpointId { order: OrderNumber(512), digest: Digest([4; 32]) };
        let twice = CheckpointCertificate { id, votes: vec![(ReplicaId(1), Proof([1; 32])); 2] };
        assert!(parse_state(&encode_state(&twice), &config).is_err());
        let none = CheckpointCertificate { id, votes: vec![] };
        assert!(parse_state(&encode_state(&none), &config).is_err());
        let initial = CheckpointCertificate::default();
        assert_eq!(parse_state(&encode_state(&initial), &config).unwrap(), initial);
    }
}
