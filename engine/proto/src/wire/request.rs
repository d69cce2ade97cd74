//! Client requests: the records inside a REQUESTS message and inside a batch.
//!
//! ```text
//!  0      4        8         16       24            24+len    +16
//!  | len  | client | session | number | operation … | mac     |
//! ```
//! The MAC (one trusted MAC under the client's key, DESIGN 6) covers everything before it.

use super::{WireError, kind};
use crate::ids::{ClientId, RequestNumber, SessionId};

/// Bytes before the operation.
pub const REQUEST_HEADER: usize = 24;
/// Bytes after the operation.
pub const REQUEST_MAC: usize = 16;
/// Bytes of a request beside the operation.
pub const REQUEST_OVERHEAD: usize = REQUEST_HEADER + REQUEST_MAC;
/// Bytes before the first record of a REQUESTS or QUERIES message: kind and padding.
pub const REQUESTS_HEAD: usize = 8;

/// A request parsed in place. Its MAC has not been checked.
#[derive(Clone, Copy, Debug)]
pub struct RequestRef<'a> {
    /// The session that issued it.
    pub session: SessionId,
    /// The session's number for it.
    pub number: RequestNumber,
    /// The service's operation.
    pub operation: &'a [u8],
    /// What the MAC covers.
    pub covered: &'a [u8],
    /// The trusted MAC under the client's key.
    pub mac: &'a [u8; REQUEST_MAC],
}

impl<'a> RequestRef<'a> {
    /// Splits the first request off `bytes`.
    ///
    /// # Errors
    /// If the bytes are shorter than the record says.
    #[inline]
    pub fn split(bytes: &'a [u8]) -> Result<(RequestRef<'a>, &'a [u8]), WireError> {
        let (header, _) = bytes.split_first_chunk::<REQUEST_HEADER>().ok_or(WireError::Short)?;
        let field = |at: usize| -> u64 {
            let mut value = [0; 8];
            value.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(value)
        };
        let first = field(0);
        let (length, client) = (first as u32 as usize, (first >> 32) as u32);
        let (covered, rest) =
            bytes.split_at_checked(REQUEST_HEADER + length).ok_or(WireError::Short)?;
        let (mac, rest) = rest.split_first_chunk::<REQUEST_MAC>().ok_or(WireError::Short)?;
        let request = RequestRef {
            session: SessionId { client: ClientId(client), session: field(8) },
            number: RequestNumber(field(16)),
            operation: &covered[REQUEST_HEADER..],
            covered,
            mac,
        };
        Ok((request, rest))
    }

    /// The whole record.
    #[must_use]
    pub fn record_len(&self) -> usize {
        self.covered.len() + REQUEST_MAC
    }
}

/// Iterates over the requests of a batch or message body.
#[derive(Clone, Copy, Debug)]
pub struct Requests<'a> {
    bytes: &'a [u8],
}

impl<'a> Requests<'a> {
    /// Over back-to-back records.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Requests { bytes }
    }

    /// Bytes not yet consumed.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for Requests<'a> {
    type Item = Result<RequestRef<'a>, WireError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        match RequestRef::split(self.bytes) {
            Ok((request, rest)) => {
                self.bytes = rest;
                Some(Ok(request))
            }
            Err(error) => {
                self.bytes = &[];
                Some(Err(error))
            }
        }
    }
}

/// Appends a request record; `tag` computes the MAC over the covered bytes.
pub fn append_request(
    out: &mut Vec<u8>,
    session: SessionId,
    number: RequestNumber,
    operation: &[u8],
    tag: impl FnOnce(&[u8]) -> [u8; REQUEST_MAC],
) {
    let start = out.len();
    let length = u32::try_from(operation.len()).expect("the caller bounds operations");
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&session.client.0.to_le_bytes());
    out.extend_from_slice(&session.session.to_le_bytes());
    out.extend_from_slice(&number.0.to_le_bytes());
    out.extend_from_slice(operation);
    let mac = tag(&out[start..]);
    out.extend_from_slice(&mac);
}

/// The head of a REQUESTS or QUERIES message.
#[must_use]
pub fn requests_head(kind: u8) -> [u8; REQUESTS_HEAD] {
    [kind, 0, 0, 0, 0, 0, 0, 0]
}

/// The head of a REQUESTS message that holds requests which were sent before: the leader orders
/// such a request only if it did not do so lately. Nothing depends on the flag but work.
#[must_use]
pub fn retransmission_head() -> [u8; REQUESTS_HEAD] {
    [kind::REQUESTS, 1, 0, 0, 0, 0, 0, 0]
}

/// Whether a REQUESTS message says that it holds retransmissions.
#[must_use]
pub fn is_retransmission(message: &[u8]) -> bool {
    message.get(1) == Some(&1)
}

/// The records of a REQUESTS or QUERIES message.
///
/// # Errors
/// If the head is not one of these messages.
pub fn requests_body(message: &[u8]) -> Result<&[u8], WireError> {
    let (head, body) = message.split_first_chunk::<REQUESTS_HEAD>().ok_or(WireError::Short)?;
    let flags = match head[0] {
        kind::REQUESTS => 1,
        kind::QUERIES => 0,
        _ => return Err(WireError::Field("kind")),
    };
    if head[1] <= flags && head[2..] == [0; 6] { Ok(body) } else { Err(WireError::Field("flags")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_survive_the_round_trip_and_short_bytes_are_refused() {
        let session = SessionId::new(ClientId(7), 99, 3);
        let mut bytes = Vec::new();
        for i in 0..3u64 {
            let operation = vec![i as u8; i as usize * 5];
            append_request(&mut bytes, session, RequestNumber(i), &operation, |c| {
                [c.len() as u8; 16]
            });
        }
        let parsed: Vec<_> = Requests::new(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(parsed.len(), 3);
        assert_eq!(parsed[2].operation, [2; 10]);
        assert_eq!(parsed[2].session, session);
        assert_eq!(parsed[1].mac, &[29; 16]);
        for cut in 1..bytes.len() {
            let whole = Requests::new(&bytes[..cut]).filter(Result::is_ok).count();
            let bad = Requests::new(&bytes[..cut]).any(|r| r.is_err());
            assert!(whole < 3 && (bad || cut == 40 || cut == 85));
        }
    }

    #[test]
    fn a_claim_of_four_gibibytes_is_short() {
        let mut bytes = vec![0xff; 4];
        bytes.extend_from_slice(&[0; 60]);
        assert_eq!(RequestRef::split(&bytes).unwrap_err(), WireError::Short);
    }
}
