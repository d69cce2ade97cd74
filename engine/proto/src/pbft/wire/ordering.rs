//! PRE-PREPARE, PREPARE, COMMIT and COMMITTED (Castro 2.3.3), and CHECKPOINT (2.3.4).

use bytes::Bytes;
use hybster_tss::Digest;

use super::kind;
use crate::config::GroupConfig;
use crate::ids::{OrderNumber, PillarId, View};
use crate::input::Agreed;
use crate::wire::state::CheckpointId;
use crate::wire::{Put, Reader, WireError, digest};

/// Bytes of a PRE-PREPARE before its records.
pub const PRE_PREPARE_HEAD: usize = BODY_AT + BODY_HEAD;
/// Bytes of a PRE-PREPARE before its body.
pub const BODY_AT: usize = 24;
/// Bytes of a body before its records.
pub const BODY_HEAD: usize = 48;
/// Bytes of a PREPARE, COMMIT or COMMITTED.
pub const VOTE_BYTES: usize = 64;
/// Bytes of a CHECKPOINT.
pub const CHECKPOINT_BYTES: usize = 48;
/// Bytes of a PRE-PREPARE of no-ops.
const NOOP_BYTES: usize = 32;

/// The digest of the null request (Castro 2.3.5): an order number with nothing to do.
pub const NULL: Digest = Digest([0; 32]);

/// What is proposed for an order number: the same in every view.
///
/// The digest covers the leader's time and the records, so that whoever agrees on it agrees on both.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Body {
    /// Digest, head and records; empty for the null request.
    pub bytes: Bytes,
    /// What PREPAREs and COMMITs name; [`NULL`] for the null request.
    pub digest: Digest,
    /// Number of requests.
    pub requests: u32,
    /// When its leader proposed it, in milliseconds since the Unix epoch.
    pub time_ms: u64,
}

impl Body {
    /// The null request.
    #[must_use]
    pub const fn null() -> Self {
        Self { bytes: Bytes::new(), digest: NULL, requests: 0, time_ms: 0 }
    }

    /// Whether it is the null request.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.digest == NULL
    }

    /// Parses a body and compares it with the digest that it carries.
    ///
    /// # Errors
    /// If the layout or the digest is wrong.
    pub fn parse(bytes: Bytes, checks_digest: bool) -> Result<Self, WireError> {
        let mut reader = Reader::new(&bytes);
        let named = reader.digest()?;
        reader.expect_kind(kind::PRE_PREPARE)?;
        reader.zeros(3)?;
        let (requests, time_ms) = (reader.u32()?, reader.u64()?);
        if requests == 0 || named == NULL {
            return Err(WireError::Field("requests"));
        }
        if checks_digest && digest(&bytes[32..]) != named {
            return Err(WireError::Field("digest"));
        }
        Ok(Self { digest: named, requests, time_ms, bytes })
    }

    /// The records of its requests.
    #[must_use]
    pub fn records(&self) -> &[u8] {
        self.bytes.get(BODY_HEAD..).unwrap_or_default()
    }

    /// For the execution stage.
    #[must_use]
    pub fn agreed(&self) -> Agreed {
        if self.is_null() {
            return Agreed::alone(Bytes::new(), 0);
        }
        Agreed::new(self.bytes.clone(), BODY_HEAD, 0, self.time_ms)
    }
}

/// A PRE-PREPARE: what the leader of a view proposes for one order number of a pillar, or that some
/// of them that follow one another in the pillar have nothing to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PrePrepare {
    /// Pillar of all covered orders.
    pub pillar: PillarId,
    /// View.
    pub view: View,
    /// First covered order.
    pub first: OrderNumber,
    /// Last covered order; larger than the first only for no-ops.
    pub last: OrderNumber,
    /// What is proposed for each of them.
    pub body: Body,
}

impl PrePrepare {
    /// Fills the room in front of a batch's records; the whole is the message.
    pub fn write_head(
        message: &mut [u8],
        (pillar, view, order): (PillarId, View, OrderNumber),
        requests: u32,
        time_ms: u64,
    ) -> Digest {
        let mut head = Vec::with_capacity(PRE_PREPARE_HEAD);
        put_head(&mut head, kind::PRE_PREPARE, false, pillar, view, order);
        head.extend_from_slice(&NULL.0);
        head.extend_from_slice(&[kind::PRE_PREPARE, 0, 0, 0]);
        head.put_u32(requests);
        head.put_u64(time_ms);
        message[..PRE_PREPARE_HEAD].copy_from_slice(&head);
        let of = digest(&message[BODY_AT + 32..]);
        message[BODY_AT..BODY_AT + 32].copy_from_slice(&of.0);
        of
    }

    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let noop = self.body.is_null();
        let mut out = Vec::with_capacity(BODY_AT + self.body.bytes.len().max(8));
        put_head(&mut out, kind::PRE_PREPARE, noop, self.pillar, self.view, self.first);
        if noop {
            out.put_u64(self.last.0);
        } else {
            out.extend_from_slice(&self.body.bytes);
        }
        out.into()
    }

    /// The place and view that it is for, without a look at its body.
    ///
    /// # Errors
    /// If the head is short or a field is out of range.
    pub fn parse_head(
        bytes: &[u8],
    ) -> Result<(PillarId, View, OrderNumber, OrderNumber), WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::PRE_PREPARE)?;
        let noop = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(WireError::Field("flags")),
        };
        let pillar = reader.pillar()?;
        reader.zeros(4)?;
        let (view, first) = (reader.view()?, reader.order()?);
        let last = if noop { reader.order()? } else { first };
        if noop {
            reader.end()?;
        }
        if first.0 == 0 || first > last {
            return Err(WireError::Field("order"));
        }
        Ok((pillar, view, first, last))
    }

    /// Parses a message; its body is compared with its digest.
    ///
    /// # Errors
    /// If the layout or the digest is wrong.
    pub fn parse(bytes: &Bytes, checks_digest: bool) -> Result<Self, WireError> {
        let (pillar, view, first, last) = Self::parse_head(bytes)?;
        let body = if bytes[1] == 1 && bytes.len() == NOOP_BYTES {
            Body::null()
        } else {
            Body::parse(bytes.slice(BODY_AT..), checks_digest)?
        };
        Ok(Self { pillar, view, first, last, body })
    }
}

fn put_head(
    out: &mut Vec<u8>,
    kind: u8,
    noop: bool,
    pillar: PillarId,
    view: View,
    first: OrderNumber,
) {
    out.extend_from_slice(&[kind, u8::from(noop)]);
    out.put_u16(pillar.0);
    out.put_u32(0);
    out.put_u64(view.0);
    out.put_u64(first.0);
}

/// A PREPARE, COMMIT or COMMITTED. The sender is the peer of the link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vote {
    /// Which of them.
    pub kind: u8,
    /// Pillar.
    pub pillar: PillarId,
    /// View; 0 in a COMMITTED, which holds in any.
    pub view: View,
    /// First order.
    pub first: OrderNumber,
    /// Last order; larger than the first only for the null request.
    pub last: OrderNumber,
    /// [`Body::digest`] of what it is for.
    pub digest: Digest,
}

impl Vote {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(VOTE_BYTES);
        put_head(&mut out, self.kind, false, self.pillar, self.view, self.first);
        out.put_u64(self.last.0);
        out.extend_from_slice(&self.digest.0);
        out.into()
    }

    /// Parses a message of one of these kinds.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        if ![kind::PREPARE, kind::COMMIT, kind::COMMITTED].contains(&kind) {
            return Err(WireError::Field("kind"));
        }
        reader.zeros(1)?;
        let pillar = reader.pillar()?;
        reader.zeros(4)?;
        let (view, first, last) = (reader.view()?, reader.order()?, reader.order()?);
        let vote = Self { kind, pillar, view, first, last, digest: reader.digest()? };
        reader.end()?;
        if first.0 == 0 || first > last || (first < last && vote.digest != NULL) {
            return Err(WireError::Field("order"));
        }
        if kind == kind::COMMITTED && view != View(0) {
            return Err(WireError::Field("view"));
        }
        Ok(vote)
    }
}

/// A CHECKPOINT: the sender has executed everything up to an order number and has this state.
#[must_use]
pub fn encode_checkpoint(id: &CheckpointId, config: &GroupConfig) -> Bytes {
    let mut out = Vec::with_capacity(CHECKPOINT_BYTES);
    out.extend_from_slice(&[kind::CHECKPOINT, 0]);
    out.put_u16(config.checkpoint_pillar(id.order).0);
    out.put_u32(0);
    out.put_u64(id.order.0);
    out.extend_from_slice(&id.digest.0);
    out.into()
}

/// Parses a CHECKPOINT.
///
/// # Errors
/// If the length or a field is wrong.
pub fn parse_checkpoint(bytes: &[u8], config: &GroupConfig) -> Result<CheckpointId, WireError> {
    let mut reader = Reader::new(bytes);
    reader.expect_kind(kind::CHECKPOINT)?;
    reader.zeros(1)?;
    let pillar = reader.pillar()?;
    reader.zeros(4)?;
    let id = CheckpointId { order: reader.order()?, digest: reader.digest()? };
    reader.end()?;
    if !config.is_checkpoint(id.order) || config.checkpoint_pillar(id.order) != pillar {
        return Err(WireError::Field("order"));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch() -> Bytes {
        let mut message = vec![0; PRE_PREPARE_HEAD];
        message.extend_from_slice(b"records");
        PrePrepare::write_head(&mut message, (PillarId(1), View(3), OrderNumber(9)), 2, 77);
        message.into()
    }

    #[test]
    fn proposals_survive_the_round_trip() {
        let message = batch();
        let parsed = PrePrepare::parse(&message, true).unwrap();
        assert_eq!((parsed.body.requests, parsed.body.time_ms), (2, 77));
        assert_eq!(parsed.body.records(), b"records");
        assert_eq!(parsed.encode(), message);
        assert_eq!(parsed.body.agreed().digest(), parsed.body.digest);
        let noop = PrePrepare { last: OrderNumber(13), body: Body::null(), ..parsed };
        assert_eq!(PrePrepare::parse(&noop.encode(), true), Ok(noop));
    }

    #[test]
    fn each_byte_of_a_body_counts() {
        let message = batch();
        for at in BODY_AT..message.len() {
            let mut changed = message.to_vec();
            changed[at] ^= 1;
            assert!(PrePrepare::parse(&changed.into(), true).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_digest_does_not_depend_on_place_and_view() {
        let mut message = batch().to_vec();
        let place = (PillarId(0), View(4), OrderNumber(2));
        let first = PrePrepare::parse(&batch(), true).unwrap().body.digest;
        assert_eq!(PrePrepare::write_head(&mut message, place, 2, 77), first);
        assert_ne!(PrePrepare::write_head(&mut message, place, 2, 78), first);
    }

    #[test]
    fn votes_survive_the_round_trip_and_only_null_requests_have_ranges() {
        let vote = Vote {
            kind: kind::COMMIT,
            pillar: PillarId(2),
            view: View(4),
            first: OrderNumber(5),
            last: OrderNumber(5),
            digest: Digest([7; 32]),
        };
        assert_eq!(vote.encode().len(), VOTE_BYTES);
        assert_eq!(Vote::parse(&vote.encode()), Ok(vote));
        let last = OrderNumber(8);
        assert!(Vote::parse(&Vote { last, ..vote }.encode()).is_err());
        let null = Vote { last, digest: NULL, ..vote };
        assert_eq!(Vote::parse(&null.encode()), Ok(null));
        assert!(Vote::parse(&Vote { kind: kind::COMMITTED, ..vote }.encode()).is_err());
    }

    #[test]
    fn checkpoints_name_the_pillar_in_charge() {
        let config = GroupConfig::default();
        let id = CheckpointId { order: OrderNumber(256), digest: Digest([3; 32]) };
        let message = encode_checkpoint(&id, &config);
        assert_eq!(parse_checkpoint(&message, &config), Ok(id));
        let mut other = message.to_vec();
        other[2] ^= 1;
        assert!(parse_checkpoint(&other, &config).is_err());
    }
}
