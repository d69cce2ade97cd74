//! PREPARE and COMMIT (TR listing 16).

use bytes::Bytes;
use hybster_tss::{
    ContinuingCertificate, Counter, CounterValue, Digest, IndependentCertificate, InstanceId, Proof,
};

use crate::ids::{OrderNumber, PillarId, ReplicaId, View};
use crate::wire::{Reader, WireError, digest, kind};

/// Bytes of a PREPARE before its batch.
pub const PREPARE_HEAD: usize = 112;
/// Where the digest of its batch is in a PREPARE.
pub(crate) const BATCH_DIGEST_AT: usize = 32;
/// Bytes of a COMMIT.
pub const COMMIT_BYTES: usize = 96;
/// Bytes of the certified part of both.
const CERTIFIED: usize = 64;

/// The header of a PREPARE: everything but the batch.
///
/// A PREPARE proposes either one batch at one order number (`first == last`, independent
/// certificate at v|o), or a no-op that covers the orders `first, first+P, …, last` of its pillar.
/// A no-op carries a *continuing* certificate to v|last whose previous value lies below v|first:
/// this is how the counter proves that nothing else was certified in between. An independent
/// certificate would let a faulty leader cover an order number twice.
///
/// A batch has a time and a no-op a last order number; on the wire the two share eight bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PrepareHeader {
    /// Pillar of all covered orders.
    pub pillar: PillarId,
    /// Whether it is a no-op.
    pub noop: bool,
    /// Number of requests in the batch, 0 for a no-op.
    pub requests: u32,
    /// View.
    pub view: View,
    /// First covered order.
    pub first: OrderNumber,
    /// Last covered order.
    pub last: OrderNumber,
    /// When its leader proposed the batch, in milliseconds since the Unix epoch; 0 for a no-op.
    pub time_ms: u64,
    /// BLAKE3 of the batch, of nothing for a no-op.
    pub batch: Digest,
    /// No-op: value of O before. Batch: zero.
    pub previous: CounterValue,
    /// Proof of the certificate of O = view|last.
    pub proof: Proof,
}

impl PrepareHeader {
    fn encode_certified(&self) -> [u8; CERTIFIED] {
        let mut out = [0; CERTIFIED];
        out[0] = kind::PREPARE;
        out[1] = u8::from(self.noop);
        out[2..4].copy_from_slice(&self.pillar.0.to_le_bytes());
        out[4..8].copy_from_slice(&self.requests.to_le_bytes());
        out[8..16].copy_from_slice(&self.view.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        let last_or_time = if self.noop { self.last.0 } else { self.time_ms };
        out[24..32].copy_from_slice(&last_or_time.to_le_bytes());
        out[32..64].copy_from_slice(&self.batch.0);
        out
    }

    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; PREPARE_HEAD] {
        let mut out = [0; PREPARE_HEAD];
        out[..CERTIFIED].copy_from_slice(&self.encode_certified());
        out[64..80].copy_from_slice(&self.previous.as_u128().to_le_bytes());
        out[80..112].copy_from_slice(&self.proof.0);
        out
    }

    /// Parses a header from the front of a message.
    ///
    /// # Errors
    /// If it is short or a field is out of range.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::PREPARE)?;
        let noop = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(WireError::Field("flags")),
        };
        let (pillar, requests, view) = (reader.pillar()?, reader.u32()?, reader.view()?);
        let (first, last_or_time) = (reader.order()?, reader.u64()?);
        let (last, time_ms) =
            if noop { (OrderNumber(last_or_time), 0) } else { (first, last_or_time) };
        let header = Self {
            noop,
            pillar,
            requests,
            view,
            first,
            last,
            time_ms,
            batch: reader.digest()?,
            previous: reader.counter()?,
            proof: reader.proof()?,
        };
        if header.first.0 == 0 || header.first > header.last {
            return Err(WireError::Field("order"));
        }
        if !noop && header.previous != CounterValue::ZERO {
            return Err(WireError::Field("previous"));
        }
        if noop != (header.requests == 0) {
            return Err(WireError::Field("requests"));
        }
        Ok(header)
    }

    /// What the certificate and COMMITs refer to.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest(&self.encode_certified())
    }

    /// The counter value that the certificate binds the PREPARE to.
    #[must_use]
    pub fn value(&self) -> CounterValue {
        CounterValue::new(self.view.0, self.last.0)
    }

    /// The certificate of a batch.
    #[must_use]
    pub fn independent(&self, instance: InstanceId) -> IndependentCertificate {
        IndependentCertificate {
            instance,
            counter: Counter::Ordering,
            value: self.value(),
            proof: self.proof,
        }
    }

    /// The certificate of a no-op.
    #[must_use]
    pub fn continuing(&self, instance: InstanceId) -> ContinuingCertificate {
        ContinuingCertificate {
            instance,
            counter: Counter::Ordering,
            value: self.value(),
            previous: self.previous,
            proof: self.proof,
        }
    }
}

/// A COMMIT: the sender acknowledges one PREPARE, in slot order of its pillar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Commit {
    /// Pillar.
    pub pillar: PillarId,
    /// The acknowledging follower.
    pub sender: ReplicaId,
    /// View.
    pub view: View,
    /// First covered order.
    pub first: OrderNumber,
    /// Last covered order; the certificate is for O = view|last.
    pub last: OrderNumber,
    /// [`PrepareHeader::digest`] of the PREPARE.
    pub prepare: Digest,
    /// Proof of the independent certificate.
    pub proof: Proof,
}

impl Commit {
    fn encode_certified(&self) -> [u8; CERTIFIED] {
        let mut out = [0; CERTIFIED];
        out[0] = kind::COMMIT;
        out[2..4].copy_from_slice(&self.pillar.0.to_le_bytes());
        out[4..6].copy_from_slice(&self.sender.0.to_le_bytes());
        out[8..16].copy_from_slice(&self.view.0.to_le_bytes());
        out[16..24].copy_from_slice(&self.first.0.to_le_bytes());
        out[24..32].copy_from_slice(&self.last.0.to_le_bytes());
        out[32..64].copy_from_slice(&self.prepare.0);
        out
    }

    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        Bytes::copy_from_slice(&self.encoded())
    }

    /// The bytes of the message.
    pub(crate) fn encoded(&self) -> [u8; COMMIT_BYTES] {
        let mut out = [0; COMMIT_BYTES];
        out[..CERTIFIED].copy_from_slice(&self.encode_certified());
        out[CERTIFIED..].copy_from_slice(&self.proof.0);
        out
    }

    /// Parses a message.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::COMMIT)?;
        reader.zeros(1)?;
        let pillar = reader.pillar()?;
        let sender = reader.replica()?;
        reader.zeros(2)?;
        let commit = Self {
            pillar,
            sender,
            view: reader.view()?,
            first: reader.order()?,
            last: reader.order()?,
            prepare: reader.digest()?,
            proof: reader.proof()?,
        };
        reader.end()?;
        if commit.first.0 == 0 || commit.first > commit.last {
            return Err(WireError::Field("order"));
        }
        Ok(commit)
    }

    /// What the certificate covers.
    #[must_use]
    pub fn digest(&self) -> Digest {
        digest(&self.encode_certified())
    }

    /// The certificate.
    #[must_use]
    pub fn certificate(&self, instance: InstanceId) -> IndependentCertificate {
        IndependentCertificate {
            instance,
            counter: Counter::Ordering,
            value: CounterValue::new(self.view.0, self.last.0),
            proof: self.proof,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> PrepareHeader {
        PrepareHeader {
            pillar: PillarId(1),
            noop: false,
            requests: 5,
            view: View(3),
            first: OrderNumber(10),
            last: OrderNumber(10),
            time_ms: 1_700_000_000_123,
            batch: Digest([7; 32]),
            previous: CounterValue::ZERO,
            proof: Proof([9; 32]),
        }
    }

    #[test]
    fn headers_and_commits_survive_the_round_trip() {
        assert_eq!(PrepareHeader::parse(&header().encode()).unwrap(), header());
        let noop = PrepareHeader {
            noop: true,
            requests: 0,
            last: OrderNumber(20),
            time_ms: 0,
            previous: CounterValue::new(3, 8),
            ..header()
        };
        assert_eq!(PrepareHeader::parse(&noop.encode()).unwrap(), noop);
        let commit = Commit {
            pillar: PillarId(1),
            sender: ReplicaId(2),
            view: View(3),
            first: OrderNumber(10),
            last: OrderNumber(10),
            prepare: header().digest(),
            proof: Proof([3; 32]),
        };
        assert_eq!(Commit::parse(&commit.encode()).unwrap(), commit);
        assert_eq!(commit.encode().len(), COMMIT_BYTES);
    }

    #[test]
    fn what_no_header_can_say_is_refused() {
        let wrong = PrepareHeader { requests: 0, ..header() };
        assert!(PrepareHeader::parse(&wrong.encode()).is_err());
        let wrong = PrepareHeader { first: OrderNumber(0), ..header() };
        assert!(PrepareHeader::parse(&wrong.encode()).is_err());
        let wrong = PrepareHeader { previous: CounterValue::new(3, 9), ..header() };
        assert!(PrepareHeader::parse(&wrong.encode()).is_err());
        let noop = PrepareHeader { noop: true, requests: 0, last: OrderNumber(9), ..header() };
        assert!(PrepareHeader::parse(&noop.encode()).is_err());
    }

    #[test]
    fn the_certificate_covers_the_time_of_a_batch() {
        let other = PrepareHeader { time_ms: header().time_ms + 1, ..header() };
        assert_ne!(other.digest(), header().digest());
        // The byte diagram of WIRE.md.
        assert_eq!(header().encode()[24..32], header().time_ms.to_le_bytes());
        assert_eq!(header().encode()[BATCH_DIGEST_AT..][..32], header().batch.0);
    }
}
