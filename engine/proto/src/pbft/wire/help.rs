//! Messages by which replicas help each other: ORDER-REQUEST, BODY-REQUEST, BODY, STATE-REQUEST and
//! STABLE. A body is checked against its digest; the others are worth what their sender's word is.

use bytes::Bytes;
use hybster_tss::Digest;

use super::kind;
use crate::config::GroupConfig;
use crate::ids::{OrderNumber, PillarId, View};
use crate::wire::state::CheckpointId;
use crate::wire::{Put, Reader, WireError};

/// Bytes of a BODY before the body.
pub const BODY_MESSAGE_HEAD: usize = 16;
/// Bodies that one BODY-REQUEST names at most; all of them are answered.
pub const BODIES_PER_REQUEST: usize = 8;

/// Asks the receiver for what it has said about the order numbers of a pillar from one on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrderRequest {
    /// Pillar.
    pub pillar: PillarId,
    /// The asker's view.
    pub view: View,
    /// The first order that it has not committed.
    pub from: OrderNumber,
    /// Which proposals of its view it holds already, the lowest bit for that order, the next one for
    /// the pillar's next order, and so on.
    pub held: u64,
}

impl OrderRequest {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![kind::ORDER_REQUEST, 0];
        out.put_u16(self.pillar.0);
        out.put_u32(0);
        out.put_u64(self.view.0);
        out.put_u64(self.from.0);
        out.put_u64(self.held);
        out.into()
    }

    /// Parses a message.
    ///
    /// # Errors
    /// If the length or a field is wrong.
    pub fn parse(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        reader.expect_kind(kind::ORDER_REQUEST)?;
        reader.zeros(1)?;
        let pillar = reader.pillar()?;
        reader.zeros(4)?;
        let (view, from) = (reader.view()?, reader.order()?);
        let request = Self { pillar, view, from, held: reader.u64()? };
        reader.end()?;
        if request.from.0 == 0 {
            return Err(WireError::Field("order"));
        }
        Ok(request)
    }
}

/// Asks for the bodies of proposals.
#[must_use]
pub fn encode_body_request(pillar: PillarId, bodies: &[(OrderNumber, Digest)]) -> Bytes {
    let mut out = vec![kind::BODY_REQUEST, 0];
    out.put_u16(pillar.0);
    out.put_u32(bodies.len() as u32);
    for (order, digest) in bodies {
        out.put_u64(order.0);
        out.bytes(&digest.0);
    }
    out.into()
}

/// The order numbers and digests that a BODY-REQUEST names.
///
/// # Errors
/// If the length or a field is wrong.
pub fn parse_body_request(bytes: &[u8]) -> Result<Vec<(OrderNumber, Digest)>, WireError> {
    let mut reader = Reader::new(bytes);
    reader.expect_kind(kind::BODY_REQUEST)?;
    reader.zeros(1)?;
    reader.pillar()?;
    let count = reader.count(40, "bodies")?;
    if count > BODIES_PER_REQUEST {
        return Err(WireError::Field("bodies"));
    }
    let bodies = (0..count).map(|_| Ok((reader.order()?, reader.digest()?)));
    let bodies = bodies.collect::<Result<_, WireError>>()?;
    reader.end()?;
    Ok(bodies)
}

/// A BODY message.
#[must_use]
pub fn encode_body(pillar: PillarId, order: OrderNumber, body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(BODY_MESSAGE_HEAD + body.len());
    out.extend_from_slice(&[kind::BODY, 0]);
    out.put_u16(pillar.0);
    out.put_u32(0);
    out.put_u64(order.0);
    out.extend_from_slice(body);
    out.into()
}

/// The order number of a BODY; the body follows its head.
///
/// # Errors
/// If the head is short or a field is wrong.
pub fn parse_body_head(bytes: &[u8]) -> Result<OrderNumber, WireError> {
    let mut reader = Reader::new(bytes);
    reader.expect_kind(kind::BODY)?;
    reader.zeros(1)?;
    reader.pillar()?;
    reader.zeros(4)?;
    reader.order()
}

/// A STABLE message: the sender knows that a quorum has this checkpoint.
#[must_use]
pub fn encode_stable(id: &CheckpointId) -> Bytes {
    let mut out = vec![kind::STABLE, 0, 0, 0, 0, 0, 0, 0];
    out.put_u64(id.order.0);
    out.bytes(&id.digest.0);
    out.into()
}

/// Parses a STABLE message.
///
/// # Errors
/// If the length or a field is wrong.
pub fn parse_stable(bytes: &[u8], config: &GroupConfig) -> Result<CheckpointId, WireError> {
    let mut reader = Reader::new(bytes);
    reader.expect_kind(kind::STABLE)?;
    reader.zeros(7)?;
    let id = CheckpointId { order: reader.order()?, digest: reader.digest()? };
    reader.end()?;
    if !config.is_checkpoint(id.order) {
        return Err(WireError::Field("order"));
    }
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::state::StateRequest;

    #[test]
    fn requests_for_help_survive_the_round_trip() {
        let (pillar, view) = (PillarId(3), View(2));
        let request = OrderRequest { pillar, view, from: OrderNumber(8), held: 5 };
        assert_eq!(OrderRequest::parse(&request.encode()), Ok(request));
        let bodies = [(OrderNumber(8), Digest([1; 32])), (OrderNumber(4), Digest([2; 32]))];
        let message = encode_body_request(pillar, &bodies);
        assert_eq!(parse_body_request(&message).unwrap(), bodies);
        assert!(parse_body_request(&message[..message.len() - 1]).is_err());
        let many = [bodies[0]; BODIES_PER_REQUEST + 1];
        assert!(parse_body_request(&encode_body_request(pillar, &many)).is_err());
        let body = encode_body(pillar, OrderNumber(8), b"records");
        assert_eq!(parse_body_head(&body), Ok(OrderNumber(8)));
        assert_eq!(&body[BODY_MESSAGE_HEAD..], b"records");
        let state = StateRequest { latest: View(1), current: View(2), stable: OrderNumber(256) };
        let encoded = state.encode_as(kind::STATE_REQUEST);
        assert_eq!(StateRequest::parse_as(&encoded, kind::STATE_REQUEST), Ok(state));
        let id = CheckpointId { order: OrderNumber(256), digest: Digest([3; 32]) };
        assert_eq!(parse_stable(&encode_stable(&id), &GroupConfig::default()), Ok(id));
        let wrong = CheckpointId { order: OrderNumber(255), ..id };
        assert!(parse_stable(&encode_stable(&wrong), &GroupConfig::default()).is_err());
    }
}
