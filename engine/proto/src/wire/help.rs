//! Messages by which pillars of different replicas help each other: ORDER-REQUEST, BATCH-REQUEST and
//! BATCH. None is certified: the link says who asks, and a batch is checked against its digest.

use bytes::Bytes;
use hybster_tss::Digest;

use super::{Put, Reader, WireError, kind};
use crate::ids::{OrderNumber, PillarId, View};

/// Asks the receiver for its ordering messages of a pillar from an order number on.
///
/// The asker is stuck; the link authenticates it, and an answer costs a bounded number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OrderRequest {
    /// Pillar.
    pub pillar: PillarId,
    /// The asker comes back from its log and wants to know what the receiver has seen of it.
    pub is_returning: bool,
    /// The asker's stable view.
    pub view: View,
    /// The first order that it has not committed.
    pub from: OrderNumber,
    /// Which PREPAREs of its view it holds already, the lowest bit for that order, the next one for the
    /// pillar's next order, and so on. It needs the rest: an answer does not carry them again.
    pub held: u64,
}

impl OrderRequest {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = vec![kind::ORDER_REQUEST, u8::from(self.is_returning)];
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
        let is_returning = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(WireError::Field("flags")),
        };
        let pillar = reader.pillar()?;
        reader.zeros(4)?;
        let (view, from) = (reader.view()?, reader.order()?);
        let request = Self { pillar, is_returning, view, from, held: reader.u64()? };
        reader.end()?;
        Ok(request)
    }
}

/// Asks for batches by digest.
#[must_use]
pub fn encode_batch_request(pillar: PillarId, digests: &[Digest]) -> Bytes {
    let mut out = vec![kind::BATCH_REQUEST, 0];
    out.put_u16(pillar.0);
    out.put_u32(digests.len() as u32);
    for digest in digests {
        out.bytes(&digest.0);
    }
    out.into()
}

/// The digests that a BATCH-REQUEST names.
///
/// # Errors
/// If the length or a field is wrong.
pub fn parse_batch_request(bytes: &[u8]) -> Result<Vec<Digest>, WireError> {
    let mut reader = Reader::new(bytes);
    reader.expect_kind(kind::BATCH_REQUEST)?;
    reader.zeros(1)?;
    reader.pillar()?;
    let count = reader.count(32, "digests")?;
    let digests = (0..count).map(|_| reader.digest()).collect::<Result<_, _>>()?;
    reader.end()?;
    Ok(digests)
}

/// Bytes of a BATCH message before the batch.
pub const BATCH_HEAD: usize = 8;

/// A BATCH message.
#[must_use]
pub fn encode_batch(pillar: PillarId, batch: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(BATCH_HEAD + batch.len());
    out.extend_from_slice(&[kind::BATCH, 0]);
    out.put_u16(pillar.0);
    out.put_u32(0);
    out.extend_from_slice(batch);
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_for_help_survive_the_round_trip() {
        let (pillar, view) = (PillarId(3), View(2));
        let is_returning = true;
        let request = OrderRequest { pillar, is_returning, view, from: OrderNumber(8), held: 5 };
        assert_eq!(OrderRequest::parse(&request.encode()).unwrap(), request);
        let digests = [Digest([1; 32]), Digest([2; 32])];
        let message = encode_batch_request(PillarId(3), &digests);
        assert_eq!(parse_batch_request(&message).unwrap(), digests);
        assert!(parse_batch_request(&message[..message.len() - 1]).is_err());
        let batch = encode_batch(PillarId(3), b"records");
        assert_eq!(&batch[BATCH_HEAD..], b"records");
        assert_eq!(super::super::pillar_field(&batch), Some(PillarId(3)));
    }
}
