//! LAST-SEEN: what a peer has seen of the receiver itself, so that one that comes back with an older copy of its log
//! stops (DEVIATIONS 32).

use bytes::Bytes;
use hybster_tss::{CounterValue, Verifier};

use super::ordering::{COMMIT_BYTES, Commit, PREPARE_HEAD, PrepareHeader};
use super::view::Link;
use crate::config::GroupConfig;
use crate::hybster::verify::verify_prepare;
use crate::ids::{PillarId, ReplicaId};
use crate::wire::{Put, Reader, WireError, kind};

/// Bytes before what was seen.
const HEAD: usize = 8;

/// The receiver's certificate with the highest value of O in a pillar that the sender has had from it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LastSeen {
    /// None, since the sender was started.
    #[default]
    Nothing,
    /// That of a PREPARE. The batch is not part of it.
    Prepare(PrepareHeader),
    /// That of a COMMIT.
    Commit(Commit),
    /// That of its part of a VIEW-CHANGE.
    Left(PillarId, Link),
}

impl LastSeen {
    /// The message.
    #[must_use]
    pub fn encode(&self, pillar: PillarId) -> Bytes {
        let mut out = Vec::with_capacity(HEAD + PREPARE_HEAD.max(COMMIT_BYTES));
        let what = match self {
            Self::Nothing => 0,
            Self::Prepare(_) => kind::PREPARE,
            Self::Commit(_) => kind::COMMIT,
            Self::Left(..) => kind::VIEW_CHANGE,
        };
        out.extend_from_slice(&[kind::LAST_SEEN, what]);
        out.put_u16(pillar.0);
        out.put_u32(0);
        match self {
            Self::Nothing => {}
            Self::Prepare(header) => out.extend_from_slice(&header.encode()),
            Self::Commit(commit) => out.extend_from_slice(&commit.encoded()),
            Self::Left(_, link) => link.put(&mut out),
        }
        out.into()
    }

    /// Parses a message.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::LAST_SEEN)?;
        let (what, pillar) = (reader.u8()?, reader.pillar()?);
        reader.zeros(4)?;
        let (seen, of) = match what {
            0 => (Self::Nothing, pillar),
            kind::PREPARE => {
                let header = PrepareHeader::parse(reader.take(PREPARE_HEAD)?)?;
                (Self::Prepare(header), header.pillar)
            }
            kind::COMMIT => {
                let commit = Commit::parse(reader.take(COMMIT_BYTES)?)?;
                (Self::Commit(commit), commit.pillar)
            }
            kind::VIEW_CHANGE => (Self::Left(pillar, Link::read(&mut reader)?), pillar),
            _ => return Err(WireError::Field("what was seen")),
        };
        reader.end()?;
        if of == pillar { Ok(seen) } else { Err(WireError::Field("pillar")) }
    }

    /// The value of O; 0 if nothing was seen.
    #[must_use]
    pub fn value(&self) -> CounterValue {
        match self {
            Self::Nothing => CounterValue::ZERO,
            Self::Prepare(header) => header.value(),
            Self::Commit(commit) => CounterValue::new(commit.view.0, commit.last.0),
            Self::Left(_, link) => CounterValue::new(link.to.0, 0),
        }
    }

    /// Whether `replica` has certified it.
    #[must_use]
    pub fn is_by<V: Verifier>(
        &self,
        replica: ReplicaId,
        verifier: &V,
        config: &GroupConfig,
    ) -> bool {
        match self {
            Self::Nothing => false,
            Self::Prepare(header) => {
                config.leader(header.view) == replica
                    && verify_prepare(verifier, config, header, &header.digest())
            }
            Self::Commit(commit) => {
                let certificate = commit.certificate(config.instance(replica, commit.pillar));
                commit.sender == replica
                    && verifier.verify_independent(&certificate, &commit.digest())
            }
            Self::Left(pillar, link) => {
                let certificate = link.certificate(config.instance(replica, *pillar));
                verifier.verify_continuing(&certificate, &link.digest)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hybster_tss::{Digest, Proof};

    use super::*;
    use crate::ids::{OrderNumber, View};

    #[test]
    fn what_was_seen_survives_the_round_trip() {
        let commit = Commit {
            pillar: PillarId(3),
            sender: ReplicaId(1),
            view: View(2),
            first: OrderNumber(8),
            last: OrderNumber(12),
            prepare: Digest([5; 32]),
            proof: Proof([6; 32]),
        };
        let header = PrepareHeader {
            pillar: PillarId(3),
            noop: true,
            requests: 0,
            view: View(2),
            first: OrderNumber(8),
            last: OrderNumber(12),
            time_ms: 0,
            batch: Digest([7; 32]),
            previous: CounterValue::new(2, 4),
            proof: Proof([9; 32]),
        };
        let link = Link {
            to: View(3),
            previous: CounterValue::new(2, 12),
            digest: Digest([8; 32]),
            proof: Proof([4; 32]),
        };
        let left = LastSeen::Left(PillarId(3), link);
        let all = [LastSeen::Nothing, LastSeen::Prepare(header), LastSeen::Commit(commit), left];
        for seen in all {
            let message = seen.encode(PillarId(3));
            assert_eq!(LastSeen::parse(&message).unwrap(), seen);
            assert_eq!(crate::wire::pillar_field(&message), Some(PillarId(3)));
            assert!(LastSeen::parse(&message[..message.len() - 1]).is_err());
            assert!(LastSeen::parse(&[&message[..], &[0]].concat()).is_err());
        }
        assert_eq!(all.map(|seen| seen.value().as_u128() >> 64), [0, 2, 2, 3]);
        let elsewhere = LastSeen::Commit(commit).encode(PillarId(4));
        assert_eq!(LastSeen::parse(&elsewhere), Err(WireError::Field("pillar")));
    }
}
