//! How replicas tell each other that an epoch is over (`engine/proto/EPOCHS.md`): the messages, and which of them are
//! kept and sent when. Whether one proves what it says is the protocol's to check.
//!
//! ```text
//! EPOCH-REQUEST: | 22 | 0 × 3 | epoch:u32 |
//! EPOCH:         | 23 | 0 × 3 | epoch:u32 | length:u32 | certificate … | next configuration … |
//! ```

use bytes::Bytes;
use std::collections::VecDeque;

use crate::ids::ReplicaId;
use crate::membership::MAX_DETAILS_BYTES;
use crate::time::Time;
use crate::wire::{Put, Reader, WireError, kind};

/// Epochs whose ends are kept for peers that lag. Who lags further is given the configuration by its operator.
pub const MOST_ENDS: usize = 8;
/// Bytes of an EPOCH message, at most.
pub const MAX_EPOCH_BYTES: usize = 2 * MAX_DETAILS_BYTES;

/// Asks for the end of an epoch.
#[must_use]
pub fn encode_epoch_request(epoch: u32) -> Bytes {
    let mut out = vec![kind::EPOCH_REQUEST, 0, 0, 0];
    out.put_u32(epoch);
    out.into()
}

/// The epoch that a peer asks about.
///
/// # Errors
/// If the length or a field is wrong.
pub fn parse_epoch_request(message: &[u8]) -> Result<u32, WireError> {
    let mut reader = Reader::new(message);
    reader.expect_kind(kind::EPOCH_REQUEST)?;
    reader.zeros(3)?;
    let epoch = reader.u32()?;
    reader.end()?;
    Ok(epoch)
}

/// The end of an epoch: what proves its last checkpoint, and the next configuration. Nothing of it has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpochMessage {
    /// The epoch that is over.
    pub epoch: u32,
    /// The certificate of its last checkpoint, as a message of the protocol.
    pub certificate: Bytes,
    /// The next configuration.
    pub next: Bytes,
}

impl EpochMessage {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![kind::EPOCH, 0, 0, 0];
        out.put_u32(self.epoch);
        out.put_u32(self.certificate.len() as u32);
        out.bytes(&self.certificate);
        out.bytes(&self.next);
        out.into()
    }

    /// Parses a message; its parts stay slices of it.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(message: &Bytes) -> Result<Self, WireError> {
        if message.len() > MAX_EPOCH_BYTES {
            return Err(WireError::Trailing);
        }
        let mut reader = Reader::new(message);
        reader.expect_kind(kind::EPOCH)?;
        reader.zeros(3)?;
        let epoch = reader.u32()?;
        let length = reader.u32()? as usize;
        reader.take(length)?;
        let at = message.len() - reader.left();
        let (certificate, next) = (message.slice(at - length..at), message.slice(at..));
        Ok(Self { epoch, certificate, next })
    }
}

/// What a driver keeps of the epochs that are over, and when it tells whom.
///
/// A peer costs one message in a resend period, whatever it sends.
#[derive(Debug)]
pub struct Epochs {
    resend_us: u64,
    /// The last ones, by rising epoch.
    ends: VecDeque<(u32, Bytes)>,
    /// When each peer was told or asked last.
    told: Vec<Option<Time>>,
    asked: Vec<Option<Time>>,
}

impl Epochs {
    /// Nothing is over yet. Periods are in microseconds.
    #[must_use]
    pub fn new(replicas: u16, resend_us: u64) -> Self {
        let never = vec![None; usize::from(replicas)];
        Self { resend_us, ends: VecDeque::new(), told: never.clone(), asked: never }
    }

    /// An epoch is over; the message was checked, or made, by this replica.
    pub fn ended(&mut self, end: &EpochMessage) {
        let is_later = self.ends.back().is_none_or(|(last, _)| *last < end.epoch);
        assert!(is_later, "epochs rise");
        if self.ends.len() == MOST_ENDS {
            self.ends.pop_front();
        }
        self.ends.push_back((end.epoch, end.encode()));
    }

    /// What a peer is to be told that has said something in an epoch that is over here, at a limited rate.
    pub fn tell(&mut self, peer: ReplicaId, epoch: u32, now: Time) -> Option<Bytes> {
        let (_, message) = self.ends.iter().find(|(of, _)| *of == epoch)?;
        let message = message.clone();
        is_due(&mut self.told, peer, self.resend_us / 2, now).then_some(message)
    }

    /// Whether a peer is to be asked now, that seems to be in a later epoch or may be.
    pub fn may_ask(&mut self, peer: ReplicaId, now: Time) -> bool {
        is_due(&mut self.asked, peer, self.resend_us, now)
    }
}

fn is_due(last: &mut [Option<Time>], peer: ReplicaId, every_us: u64, now: Time) -> bool {
    let Some(last) = last.get_mut(usize::from(peer.0)) else { return false };
    let due = last.is_none_or(|at| now.since_us(at) >= every_us);
    if due {
        *last = Some(now);
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(epoch: u32) -> EpochMessage {
        let (certificate, next) = (Bytes::from_static(b"proof"), Bytes::from_static(b"next"));
        EpochMessage { epoch, certificate, next }
    }

    #[test]
    fn messages_survive_the_round_trip() {
        assert_eq!(EpochMessage::parse(&end(3).encode()).unwrap(), end(3));
        assert_eq!(parse_epoch_request(&encode_epoch_request(7)).unwrap(), 7);
        assert!(EpochMessage::parse(&end(3).encode().slice(..15)).is_err());
        assert!(EpochMessage::parse(&vec![kind::EPOCH; MAX_EPOCH_BYTES + 1].into()).is_err());
        assert_eq!(end(1).encode()[..12], [23, 0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0]);
    }

    #[test]
    fn a_peer_that_lags_is_told_at_a_limited_rate_of_the_last_epochs() {
        let mut epochs = Epochs::new(3, 100);
        let peer = ReplicaId(1);
        assert_eq!(epochs.tell(peer, 0, Time(1)), None);
        (0..10).for_each(|epoch| epochs.ended(&end(epoch)));
        assert_eq!(epochs.tell(peer, 1, Time(1)), None, "it is forgotten");
        assert_eq!(epochs.tell(peer, 2, Time(1)), Some(end(2).encode()));
        assert_eq!(epochs.tell(peer, 3, Time(50)), None, "not so soon");
        assert_eq!(epochs.tell(peer, 3, Time(51)), Some(end(3).encode()));
        assert_eq!(epochs.tell(ReplicaId(9), 3, Time(51)), None);
        assert!(epochs.may_ask(peer, Time(1)) && !epochs.may_ask(peer, Time(99)));
        assert!(epochs.may_ask(ReplicaId(2), Time(99)) && epochs.may_ask(peer, Time(101)));
    }
}
