//! CHECKPOINT and its certificates (TR listing 18), and the messages of state transfer
//! (TR listing 20).

use bytes::Bytes;
use hybster_tss::{Digest, InstanceId, Proof, TrustedMac};

use super::{Put, Reader, WireError, digest, kind};
use crate::config::GroupConfig;
use crate::ids::{OrderNumber, PillarId, ReplicaId, View};

/// A checkpoint: the order number that was executed last and the Merkle root of the state.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct CheckpointId {
    /// Order number; 0 for the initial state.
    pub order: OrderNumber,
    /// Root digest; zero for the initial state.
    pub digest: Digest,
}

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
    pub fn parse(bytes: &[u8], config: &GroupConfig) -> Result<Checkpoint, WireError> {
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
        Ok(Checkpoint { sender, id, proof })
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

    pub(crate) fn read(
        reader: &mut Reader<'_>,
        config: &GroupConfig,
    ) -> Result<CheckpointCertificate, WireError> {
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
        Ok(CheckpointCertificate { id, votes })
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

/// A STATE-REQUEST: the sender's state, so that others send what it lacks (TR listing 20).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StateRequest {
    /// The latest NEW-VIEW that it knows.
    pub latest: View,
    /// Its current view.
    pub current: View,
    /// Its stable checkpoint.
    pub stable: OrderNumber,
}

impl StateRequest {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![kind::STATE_REQUEST, 0, 0, 0, 0, 0, 0, 0];
        out.put_u64(self.latest.0);
        out.put_u64(self.current.0);
        out.put_u64(self.stable.0);
        out.into()
    }

    /// Parses a message.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8]) -> Result<StateRequest, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::STATE_REQUEST)?;
        reader.zeros(7)?;
        let request = StateRequest {
            latest: reader.view()?,
            current: reader.view()?,
            stable: reader.order()?,
        };
        reader.end()?;
        Ok(request)
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

/// A position in the Merkle tree of a checkpoint: level 0 has the pages, the highest level the
/// root.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId {
    /// Level.
    pub level: u8,
    /// Index inside the level.
    pub index: u64,
}

/// Most nodes that one FETCH may name.
pub const MAX_FETCH: usize = 128;

/// Asks for nodes and pages of a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetch {
    /// The checkpoint.
    pub order: OrderNumber,
    /// The nodes that are wanted, at most [`MAX_FETCH`].
    pub nodes: Vec<NodeId>,
}

impl Fetch {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![kind::FETCH, 0, 0, 0, 0, 0, 0, 0];
        out.put_u64(self.order.0);
        out.put_u32(self.nodes.len() as u32);
        for node in &self.nodes {
            out.put_u8(node.level);
            out.put_u64(node.index);
        }
        out.into()
    }

    /// Parses a message.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Fetch, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::FETCH)?;
        reader.zeros(7)?;
        let order = reader.order()?;
        let count = reader.count(9, "nodes")?;
        if count > MAX_FETCH {
            return Err(WireError::Field("nodes"));
        }
        let mut nodes = Vec::with_capacity(count);
        for _ in 0..count {
            nodes.push(NodeId { level: reader.u8()?, index: reader.u64()? });
        }
        reader.end()?;
        Ok(Fetch { order, nodes })
    }
}

/// Bytes of a FETCHED message before its content.
pub const FETCHED_HEAD: usize = 32;

/// A node or page of a checkpoint; checked against its digest, so it needs no authenticator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fetched {
    /// The checkpoint.
    pub order: OrderNumber,
    /// Which node.
    pub node: NodeId,
    /// The content; `None` if the sender does not have that checkpoint, or no longer has it.
    pub content: Option<Bytes>,
}

impl Fetched {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let content = self.content.as_deref().unwrap_or_default();
        let mut out = Vec::with_capacity(FETCHED_HEAD + content.len());
        out.extend_from_slice(&[kind::FETCHED, u8::from(self.content.is_some())]);
        out.bytes(&[self.node.level, 0, 0, 0, 0, 0]);
        out.put_u64(self.order.0);
        out.put_u64(self.node.index);
        out.put_u64(content.len() as u64);
        out.extend_from_slice(content);
        out.into()
    }

    /// Parses a message; the content stays a slice of it.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &Bytes) -> Result<Fetched, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::FETCHED)?;
        let held = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(WireError::Field("held")),
        };
        let level = reader.u8()?;
        reader.zeros(5)?;
        let order = reader.order()?;
        let index = reader.u64()?;
        let length = reader.u64()?;
        if length != reader.left() as u64 || (!held && length != 0) {
            return Err(WireError::Field("length"));
        }
        let content = held.then(|| bytes.slice(FETCHED_HEAD..));
        Ok(Fetched { order, node: NodeId { level, index }, content })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn state_messages_survive_the_round_trip() {
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
        let request = StateRequest { latest: View(1), current: View(2), stable: OrderNumber(512) };
        assert_eq!(StateRequest::parse(&request.encode()).unwrap(), request);
        let fetch = Fetch {
            order: OrderNumber(512),
            nodes: vec![NodeId { level: 1, index: 3 }, NodeId { level: 0, index: 70 }],
        };
        assert_eq!(Fetch::parse(&fetch.encode()).unwrap(), fetch);
        for content in [None, Some(Bytes::new()), Some(Bytes::from_static(b"page"))] {
            let fetched =
                Fetched { order: OrderNumber(512), node: NodeId { level: 0, index: 1 }, content };
            assert_eq!(Fetched::parse(&fetched.encode()).unwrap(), fetched);
        }
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
