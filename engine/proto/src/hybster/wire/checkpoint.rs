//! CHECKPOINT and its certificates (TR listing 18), and the message that carries one (listing 20).

use bytes::Bytes;
use hybster_tss::{Digest, Proof, TrustedMac};

use crate::config::GroupConfig;
use crate::ids::{OrderNumber, PillarId, ReplicaId};
use crate::membership::Ending;
use crate::wire::state::CheckpointId;
use crate::wire::{Put, Reader, WireError, digest, kind};

/// Bytes of a CHECKPOINT.
pub const CHECKPOINT_BYTES: usize = HEAD + 32;
/// What the trusted MAC covers.
const HEAD: usize = 48 + Ending::BYTES;

/// A CHECKPOINT: the sender vouches for the state after an order number, by trusted MAC.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Sender.
    pub sender: ReplicaId,
    /// The checkpoint that it vouches for.
    pub id: CheckpointId,
    /// How the epoch ends, if the state says so: who has only this message must know (EPOCHS.md).
    pub ending: Option<Ending>,
    /// Trusted MAC of the instance of the pillar in charge.
    pub proof: Proof,
}

impl Checkpoint {
    /// The digest that the trusted MAC covers.
    #[must_use]
    pub fn certified(
        sender: ReplicaId,
        pillar: PillarId,
        id: &CheckpointId,
        ending: Option<&Ending>,
    ) -> Digest {
        digest(&Self::head(sender, pillar, id, ending))
    }

    fn head(
        sender: ReplicaId,
        pillar: PillarId,
        id: &CheckpointId,
        ending: Option<&Ending>,
    ) -> [u8; HEAD] {
        let mut out = [0; HEAD];
        out[0] = kind::CHECKPOINT;
        out[2..4].copy_from_slice(&pillar.0.to_le_bytes());
        out[4..6].copy_from_slice(&sender.0.to_le_bytes());
        out[8..16].copy_from_slice(&id.order.0.to_le_bytes());
        out[16..48].copy_from_slice(&id.digest.0);
        out[48..].copy_from_slice(&Ending::encode(ending));
        out
    }

    /// The message.
    #[must_use]
    pub fn encode(&self, config: &GroupConfig) -> Bytes {
        let mut out = Vec::with_capacity(CHECKPOINT_BYTES);
        let pillar = config.checkpoint_pillar(self.id.order);
        out.extend_from_slice(&Self::head(self.sender, pillar, &self.id, self.ending.as_ref()));
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
        let ending = read_ending(&mut reader, id, config)?;
        let proof = reader.proof()?;
        reader.end()?;
        if !config.is_checkpoint(id.order) || config.checkpoint_pillar(id.order) != pillar {
            return Err(WireError::Field("order"));
        }
        if sender.0 >= config.replicas {
            return Err(WireError::Field("sender"));
        }
        Ok(Self { sender, id, ending, proof })
    }

    /// The trusted MAC with the instance that must have made it.
    #[must_use]
    pub fn mac(&self, config: &GroupConfig) -> TrustedMac {
        let pillar = config.checkpoint_pillar(self.id.order);
        TrustedMac { instance: config.instance(self.sender, pillar), proof: self.proof }
    }
}

/// The ending that stands beside a checkpoint, which cannot lie beyond it, nor be the one that the epoch begins with.
fn read_ending(
    reader: &mut Reader<'_>,
    id: CheckpointId,
    config: &GroupConfig,
) -> Result<Option<Ending>, WireError> {
    let (ending, begins) = (Ending::read(reader)?, config.membership.beginning.order);
    let fits = |Ending { boundary, .. }: &Ending| {
        config.is_checkpoint(*boundary) && id.order > begins && id.order <= *boundary
    };
    if ending.as_ref().is_none_or(fits) { Ok(ending) } else { Err(WireError::Field("boundary")) }
}

/// f+1 equal CHECKPOINTs of different replicas: at least one correct replica holds the state.
///
/// The certificate of the state that an epoch begins with is empty (TR listing 18,
/// isCorrectCheckpointCertificate).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CheckpointCertificate {
    /// The checkpoint that all of them vouch for.
    pub id: CheckpointId,
    /// How the epoch ends, as all of them say.
    pub ending: Option<Box<Ending>>,
    /// The replicas that vouch, in ascending order, with their MACs.
    pub votes: Vec<(ReplicaId, Proof)>,
}

impl CheckpointCertificate {
    /// Of the state that an epoch begins with.
    pub(crate) fn of_beginning(config: &GroupConfig) -> Self {
        Self { id: config.membership.beginning, ending: None, votes: Vec::new() }
    }

    /// The last order number of the epoch, if it is known from this.
    #[must_use]
    pub fn boundary(&self) -> Option<OrderNumber> {
        self.ending.as_ref().map(|ending| ending.boundary)
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.id.order.0);
        out.bytes(&self.id.digest.0);
        out.bytes(&Ending::encode(self.ending.as_deref()));
        out.put_u32(self.votes.len() as u32);
        for (replica, proof) in &self.votes {
            out.put_u16(replica.0);
            out.bytes(&proof.0);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>, config: &GroupConfig) -> Result<Self, WireError> {
        let id = CheckpointId { order: reader.order()?, digest: reader.digest()? };
        let ending = read_ending(reader, id, config)?.map(Box::new);
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
        let initial = id == config.membership.beginning;
        if (initial && ending.is_some())
            || initial != votes.is_empty()
            || !(initial || config.is_checkpoint(id.order))
        {
            return Err(WireError::Field("checkpoint"));
        }
        Ok(Self { id, ending, votes })
    }

    /// The CHECKPOINT messages inside.
    pub fn checkpoints(&self) -> impl Iterator<Item = Checkpoint> + '_ {
        self.votes.iter().map(|(sender, proof)| Checkpoint {
            sender: *sender,
            id: self.id,
            ending: self.ending.as_deref().copied(),
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
        let ends = Ending { boundary: OrderNumber(1024), next: Digest([6; 32]) };
        for ending in [None, Some(ends)] {
            let proof = Proof([5; 32]);
            let checkpoint = Checkpoint { sender: ReplicaId(2), id, ending, proof };
            let bytes = checkpoint.encode(&config);
            assert_eq!(bytes.len(), CHECKPOINT_BYTES);
            assert_eq!(Checkpoint::parse(&bytes, &config).unwrap(), checkpoint);
            let certificate = CheckpointCertificate {
                id,
                ending: ending.map(Box::new),
                votes: vec![(ReplicaId(0), Proof([1; 32])), (ReplicaId(2), Proof([2; 32]))],
            };
            assert_eq!(parse_state(&encode_state(&certificate), &config).unwrap(), certificate);
        }
    }

    #[test]
    fn the_certified_head_is_that_of_the_diagram() {
        let id = CheckpointId { order: OrderNumber(0x0201), digest: Digest([4; 32]) };
        let ending = Ending { boundary: OrderNumber(0x0403), next: Digest([6; 32]) };
        let head = Checkpoint::head(ReplicaId(7), PillarId(9), &id, Some(&ending));
        assert_eq!(head[..8], [kind::CHECKPOINT, 0, 9, 0, 7, 0, 0, 0]);
        assert_eq!(head[8..16], [1, 2, 0, 0, 0, 0, 0, 0]);
        assert_eq!(head[16..48], [4; 32]);
        assert_eq!(head[48..56], [3, 4, 0, 0, 0, 0, 0, 0]);
        assert_eq!(head[56..], [6; 32]);
        let without = Checkpoint::head(ReplicaId(7), PillarId(9), &id, None);
        assert_eq!(without[48..], [0; 40]);
    }

    #[test]
    fn an_epoch_ends_at_a_checkpoint_that_is_not_passed() {
        let config = GroupConfig::default();
        let id = CheckpointId { order: OrderNumber(512), digest: Digest([4; 32]) };
        for (boundary, is_good) in [(256, false), (512, true), (600, false), (768, true)] {
            let ending = Some(Ending { boundary: OrderNumber(boundary), next: Digest([6; 32]) });
            let proof = Proof([5; 32]);
            let bytes = Checkpoint { sender: ReplicaId(2), id, ending, proof }.encode(&config);
            assert_eq!(Checkpoint::parse(&bytes, &config).is_ok(), is_good, "{boundary}");
        }
    }

    #[test]
    fn votes_must_rise_and_the_initial_certificate_is_empty() {
        let config = GroupConfig::default();
        let id = CheckpointId { order: OrderNumber(512), digest: Digest([4; 32]) };
        let votes = vec![(ReplicaId(1), Proof([1; 32])); 2];
        let twice = CheckpointCertificate { id, ending: None, votes };
        assert!(parse_state(&encode_state(&twice), &config).is_err());
        let none = CheckpointCertificate { id, ending: None, votes: vec![] };
        assert!(parse_state(&encode_state(&none), &config).is_err());
        let initial = CheckpointCertificate::default();
        assert_eq!(parse_state(&encode_state(&initial), &config).unwrap(), initial);
    }
}
