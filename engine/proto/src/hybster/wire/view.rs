//! VIEW-CHANGE, NEW-VIEW and NEW-VIEW-ACK (TR listing 19), as vectors of parts over the pillars.

use bytes::Bytes;
use hybster_tss::{ContinuingCertificate, Counter, CounterValue, Digest, InstanceId, Proof};

use crate::config::GroupConfig;
use crate::hybster::wire::checkpoint::CheckpointCertificate;
use crate::hybster::wire::ordering::{PREPARE_HEAD, PrepareHeader};
use crate::ids::{PillarId, ReplicaId, View};
use crate::wire::{Put, Reader, WireError, kind};

/// One step of a pillar's counter O from one view to a later one: a continuing certificate to
/// `to|0` that discloses the value before.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Link {
    /// The view that the counter moved to.
    pub to: View,
    /// The value before.
    pub previous: CounterValue,
    /// Digest of the VIEW-CHANGE part that was certified with the step.
    pub digest: Digest,
    /// Proof of the continuing certificate.
    pub proof: Proof,
}

/// Bytes of a link.
pub const LINK_BYTES: usize = 88;

impl Link {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.put_u64(self.to.0);
        out.bytes(&self.previous.as_u128().to_le_bytes());
        out.bytes(&self.digest.0);
        out.bytes(&self.proof.0);
    }

    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self {
            to: reader.view()?,
            previous: reader.counter()?,
            digest: reader.digest()?,
            proof: reader.proof()?,
        })
    }

    /// The certificate of the step.
    #[must_use]
    pub fn certificate(&self, instance: InstanceId) -> ContinuingCertificate {
        ContinuingCertificate {
            instance,
            counter: Counter::Ordering,
            value: CounterValue::new(self.to.0, 0),
            previous: self.previous,
            proof: self.proof,
        }
    }
}

/// A pillar's part of a VIEW-CHANGE: its prepared set and the chain of counter steps from the
/// last stable view to the target view. The last link certifies the part.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Part {
    /// Oldest first, never empty in a message.
    pub chain: Vec<Link>,
    /// Contiguous from the checkpoint.
    pub prepared: Vec<PrepareHeader>,
}

/// The fields that all parts of one VIEW-CHANGE share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartScope<'a> {
    /// The replica that leaves.
    pub sender: ReplicaId,
    /// Its last stable view.
    pub from: View,
    /// The view that it leaves for.
    pub to: View,
    /// Its stable checkpoint.
    pub checkpoint: &'a CheckpointCertificate,
}

impl PartScope<'_> {
    /// The digest that the last link of a part certifies: scope, prepared set and the links before
    /// it.
    ///
    /// Since the scope is bound into each part, a liar cannot mix parts of two attempts.
    #[must_use]
    pub fn digest(&self, pillar: PillarId, earlier: &[Link], prepared: &[PrepareHeader]) -> Digest {
        let mut out =
            Vec::with_capacity(96 + earlier.len() * LINK_BYTES + prepared.len() * PREPARE_HEAD);
        out.put_u8(kind::VIEW_CHANGE);
        out.put_u8(0);
        out.put_u16(pillar.0);
        out.put_u16(self.sender.0);
        out.put_u64(self.from.0);
        out.put_u64(self.to.0);
        out.put_u64(self.checkpoint.id.order.0);
        out.bytes(&self.checkpoint.id.digest.0);
        out.put_u32(earlier.len() as u32);
        for link in earlier {
            link.put(&mut out);
        }
        put_headers(&mut out, prepared);
        crate::wire::digest(&out)
    }
}

fn put_headers(out: &mut Vec<u8>, headers: &[PrepareHeader]) {
    out.put_u32(headers.len() as u32);
    for header in headers {
        out.bytes(&header.encode());
    }
}

fn read_headers(
    reader: &mut Reader<'_>,
    config: &GroupConfig,
) -> Result<Vec<PrepareHeader>, WireError> {
    let count = reader.count(PREPARE_HEAD, "prepared")?;
    // TR listing 16, isCorrectPrepareSet: at most one per slot of the window.
    if count as u64 > config.window_slots() {
        return Err(WireError::Field("prepared"));
    }
    (0..count).map(|_| PrepareHeader::parse(reader.take(PREPARE_HEAD)?)).collect()
}

/// A VIEW-CHANGE: the sender leaves for a view and discloses the slots that it took part in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ViewChange {
    /// The replica that leaves.
    pub sender: ReplicaId,
    /// Its last stable view, v_from.
    pub from: View,
    /// The view that it leaves for, v_to.
    pub to: View,
    /// Its stable checkpoint.
    pub checkpoint: CheckpointCertificate,
    /// One part per pillar.
    pub parts: Vec<Part>,
}

/// Links that a part may have: one per view skipped since the last stable one.
pub const MAX_LINKS: usize = 4096;

impl ViewChange {
    /// The scope of the parts.
    #[must_use]
    pub fn scope(&self) -> PartScope<'_> {
        PartScope {
            sender: self.sender,
            from: self.from,
            to: self.to,
            checkpoint: &self.checkpoint,
        }
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.bytes(&[kind::VIEW_CHANGE, 0]);
        out.put_u16(self.sender.0);
        out.put_u32(self.parts.len() as u32);
        out.put_u64(self.from.0);
        out.put_u64(self.to.0);
        self.checkpoint.put(out);
        for part in &self.parts {
            out.put_u32(part.chain.len() as u32);
            for link in &part.chain {
                link.put(out);
            }
            put_headers(out, &part.prepared);
        }
    }

    fn read(reader: &mut Reader<'_>, config: &GroupConfig) -> Result<Self, WireError> {
        reader.expect_kind(kind::VIEW_CHANGE)?;
        reader.zeros(1)?;
        let sender = reader.replica()?;
        if reader.u32()? != u32::from(config.pillars) {
            return Err(WireError::Field("parts"));
        }
        let (from, to) = (reader.view()?, reader.view()?);
        let checkpoint = CheckpointCertificate::read(reader, config)?;
        let mut parts = Vec::with_capacity(usize::from(config.pillars));
        for _ in 0..config.pillars {
            let count = reader.count(LINK_BYTES, "links")?;
            if count == 0 || count > MAX_LINKS {
                return Err(WireError::Field("links"));
            }
            let chain = (0..count).map(|_| Link::read(reader)).collect::<Result<_, _>>()?;
            parts.push(Part { chain, prepared: read_headers(reader, config)? });
        }
        if sender.0 >= config.replicas || from >= to {
            return Err(WireError::Field("sender or views"));
        }
        Ok(Self { sender, from, to, checkpoint, parts })
    }

    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        self.put(&mut out);
        out.into()
    }

    /// Parses a message.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8], config: &GroupConfig) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let view_change = Self::read(&mut reader, config)?;
        reader.end()?;
        Ok(view_change)
    }
}

/// A NEW-VIEW-ACK: the sender accepted the NEW-VIEW of a view after it had left for a later one,
/// so its counters are beyond that view and it did nothing in it.
///
/// The TR's abort state of an ack is for the acknowledged view, with counter 0 (DEVIATIONS 5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewViewAck {
    /// Sender.
    pub sender: ReplicaId,
    /// The acknowledged view.
    pub view: View,
    /// The sender's stable checkpoint.
    pub checkpoint: CheckpointCertificate,
    /// Per pillar, the PREPAREs that the acknowledged NEW-VIEW re-issued, from the checkpoint on.
    pub prepared: Vec<Vec<PrepareHeader>>,
    /// Trusted MAC of pillar 0's instance.
    pub proof: Proof,
}

impl NewViewAck {
    fn put_certified(&self, out: &mut Vec<u8>) {
        out.bytes(&[kind::NEW_VIEW_ACK, 0]);
        out.put_u16(self.sender.0);
        out.put_u32(self.prepared.len() as u32);
        out.put_u64(self.view.0);
        self.checkpoint.put(out);
        for headers in &self.prepared {
            put_headers(out, headers);
        }
    }

    fn read(reader: &mut Reader<'_>, config: &GroupConfig) -> Result<Self, WireError> {
        reader.expect_kind(kind::NEW_VIEW_ACK)?;
        reader.zeros(1)?;
        let sender = reader.replica()?;
        if reader.u32()? != u32::from(config.pillars) || sender.0 >= config.replicas {
            return Err(WireError::Field("sender or parts"));
        }
        let view = reader.view()?;
        let checkpoint = CheckpointCertificate::read(reader, config)?;
        let prepared =
            config.all_pillars().map(|_| read_headers(reader, config)).collect::<Result<_, _>>()?;
        Ok(Self { sender, view, checkpoint, prepared, proof: reader.proof()? })
    }

    /// The digest that the trusted MAC covers.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut out = Vec::new();
        self.put_certified(&mut out);
        crate::wire::digest(&out)
    }

    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        self.put_certified(&mut out);
        out.bytes(&self.proof.0);
        out.into()
    }

    /// Parses a message.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8], config: &GroupConfig) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let ack = Self::read(&mut reader, config)?;
        reader.end()?;
        Ok(ack)
    }
}

/// A NEW-VIEW: the leader of a view establishes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewView {
    /// The established view; its leader is the sender.
    pub view: View,
    /// The checkpoint K that the re-issued PREPAREs start from.
    pub checkpoint: CheckpointCertificate,
    /// The VIEW-CHANGEs V, rising by sender.
    pub view_changes: Vec<ViewChange>,
    /// The NEW-VIEW-ACKs A, rising by sender.
    pub acks: Vec<NewViewAck>,
    /// Per pillar the re-issued PREPAREs P′.
    pub prepares: Vec<Vec<PrepareHeader>>,
    /// Proof of the independent certificate of counter N = view of pillar 0's instance.
    pub proof: Proof,
}

impl NewView {
    fn put_certified(&self, out: &mut Vec<u8>) {
        out.bytes(&[kind::NEW_VIEW, 0, 0, 0]);
        out.put_u32(self.prepares.len() as u32);
        out.put_u64(self.view.0);
        self.checkpoint.put(out);
        out.put_u32(self.view_changes.len() as u32);
        for view_change in &self.view_changes {
            view_change.put(out);
        }
        out.put_u32(self.acks.len() as u32);
        for ack in &self.acks {
            ack.put_certified(out);
            out.bytes(&ack.proof.0);
        }
        for headers in &self.prepares {
            put_headers(out, headers);
        }
    }

    /// The digest that the certificate of counter N covers.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut out = Vec::new();
        self.put_certified(&mut out);
        crate::wire::digest(&out)
    }

    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        self.put_certified(&mut out);
        out.bytes(&self.proof.0);
        out.into()
    }

    /// Parses a message.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8], config: &GroupConfig) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::NEW_VIEW)?;
        reader.zeros(3)?;
        if reader.u32()? != u32::from(config.pillars) {
            return Err(WireError::Field("parts"));
        }
        let view = reader.view()?;
        let checkpoint = CheckpointCertificate::read(&mut reader, config)?;
        let replicas = usize::from(config.replicas);
        let bounded = |count: usize, name| {
            if count <= replicas { Ok(count) } else { Err(WireError::Field(name)) }
        };
        let count = bounded(reader.count(1, "view changes")?, "view changes")?;
        let view_changes: Vec<ViewChange> =
            (0..count).map(|_| ViewChange::read(&mut reader, config)).collect::<Result<_, _>>()?;
        let count = bounded(reader.count(1, "acks")?, "acks")?;
        let acks: Vec<NewViewAck> =
            (0..count).map(|_| NewViewAck::read(&mut reader, config)).collect::<Result<_, _>>()?;
        let prepares = config
            .all_pillars()
            .map(|_| read_headers(&mut reader, config))
            .collect::<Result<_, _>>()?;
        let proof = reader.proof()?;
        reader.end()?;
        // One message of each kind per replica, in one fixed order.
        if !view_changes.windows(2).all(|w| w[0].sender < w[1].sender)
            || !acks.windows(2).all(|w| w[0].sender < w[1].sender)
        {
            return Err(WireError::Field("senders"));
        }
        Ok(Self { view, checkpoint, view_changes, acks, prepares, proof })
    }
}
