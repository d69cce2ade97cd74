//! A follower's replies on their way through the leader: RELAY to it, RELAYED from it to the client.
//!
//! The follower seals them for the client in an *envelope* (`net/WIRE.md`), so the leader can drop,
//! delay or repeat them, but not forge them. The leader takes the follower's word for the client
//! that a RELAY names. A faulty follower can use this only to waste the leader's link to that
//! client, and may fill half of its queue.
//!
//! ```text
//!  RELAY:    | 19 | 0 × 3 | client:u32 | incarnation:u64 | envelope … |
//!  RELAYED:  | 20 | 0 | replica:u16 | 0 × 4 | envelope … |
//! ```

use super::{Put, Reader, WireError, kind};
use crate::ids::{ClientId, ClientLink, ReplicaId};

/// Bytes of a RELAY before its envelope.
pub const RELAY_HEAD: usize = 16;
/// Bytes of a RELAYED before its envelope.
pub const RELAYED_HEAD: usize = 8;

/// The longest REPLIES message that is worth the leader's work, in bytes.
pub const RELAY_REPLIES_MAX: usize = 1024;

/// The longest envelope that a leader passes on, in bytes: such replies, and what sealing them
/// adds.
pub const RELAY_ENVELOPE_MAX: usize = RELAY_REPLIES_MAX + 64;

/// Starts a RELAY to a leader; the envelope follows.
pub fn begin_relay(out: &mut Vec<u8>, to: ClientLink) {
    out.put_u8(kind::RELAY);
    out.bytes(&[0; 3]);
    out.put_u32(to.client.0);
    out.put_u64(to.incarnation);
}

/// Splits a RELAY into the link that the envelope is for, and the envelope.
///
/// # Errors
/// If the message is no RELAY, or too long.
pub fn parse_relay(message: &[u8]) -> Result<(ClientLink, &[u8]), WireError> {
    let mut reader = Reader::new(message);
    reader.expect_kind(kind::RELAY)?;
    reader.zeros(3)?;
    let client = ClientId(reader.u32()?);
    let link = ClientLink { client, incarnation: reader.u64()? };
    Ok((link, envelope(reader)?))
}

/// The head of a RELAYED with an envelope of `from`, which follows.
#[must_use]
pub fn relayed_head(from: ReplicaId) -> [u8; RELAYED_HEAD] {
    let [low, high] = from.0.to_le_bytes();
    [kind::RELAYED, 0, low, high, 0, 0, 0, 0]
}

/// Splits a RELAYED into the replica that is said to have sealed the envelope, and the envelope.
///
/// # Errors
/// If the message is no RELAYED, or too long.
pub fn parse_relayed(message: &[u8]) -> Result<(ReplicaId, &[u8]), WireError> {
    let mut reader = Reader::new(message);
    reader.expect_kind(kind::RELAYED)?;
    reader.zeros(1)?;
    let from = reader.replica()?;
    reader.zeros(4)?;
    Ok((from, envelope(reader)?))
}

fn envelope<'a>(mut reader: Reader<'a>) -> Result<&'a [u8], WireError> {
    let length = reader.left();
    if length > RELAY_ENVELOPE_MAX {
        return Err(WireError::Field("envelope"));
    }
    reader.take(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_messages_survive_the_round_trip() {
        let link = ClientLink { client: ClientId(7), incarnation: 0x1_0203_0405 };
        let mut relay = Vec::new();
        begin_relay(&mut relay, link);
        assert_eq!(relay.len(), RELAY_HEAD);
        relay.extend_from_slice(&[9; RELAY_ENVELOPE_MAX]);
        assert_eq!(parse_relay(&relay), Ok((link, &[9; RELAY_ENVELOPE_MAX][..])));
        let mut relayed = Vec::from(relayed_head(ReplicaId(0x102)));
        relayed.extend_from_slice(b"envelope");
        assert_eq!(parse_relayed(&relayed), Ok((ReplicaId(0x102), &b"envelope"[..])));

        relay.push(9);
        assert_eq!(parse_relay(&relay), Err(WireError::Field("envelope")));
        assert!(parse_relay(&relayed).is_err() && parse_relayed(&relay).is_err());
        for cut in 0..RELAY_HEAD {
            assert_eq!(parse_relay(&relay[..cut]), Err(WireError::Short));
        }
        for cut in 0..RELAYED_HEAD {
            assert_eq!(parse_relayed(&relayed[..cut]), Err(WireError::Short));
        }
    }
}
