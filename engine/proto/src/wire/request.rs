//! Client requests: the records inside a REQUESTS message and inside a batch.
//!
//! ```text
//!  0      4        8         16       24            24+len    +16 or +64
//!  | len  | client | session | number | operation … | proof    |
//! ```
//! The proof covers everything before it. The top two bits of `len` say which form it has, and the
//! proof covers them too:
//!
//! | bits | proof |
//! |---|---|
//! | 00 | one trusted MAC under the client's key, 16 bytes |
//! | 10 | the client's Ed25519 signature, 64 bytes (DEVIATIONS 19) |
//! | 01 | reserved for a vector of n MACs, 16 bytes each: the i-th under a key that the client shares with replica i alone, for protocols without trusted counters. Refused |
//! | 11 | refused |

use hybster_tss::{RequestAuthenticator, RequestKey};

use super::{WireError, kind, put_some};
use crate::ids::{ClientId, RequestNumber, SessionId};
use crate::mix::mix;

/// Bytes before the operation.
pub const REQUEST_HEADER: usize = 24;
/// Bytes after the operation, if they are a MAC.
pub const REQUEST_MAC: usize = 16;
/// Bytes after the operation, if they are a signature.
pub const REQUEST_SIGNATURE: usize = hybster_tss::SIGNATURE_BYTES;
/// Most bytes of a request besides the operation.
pub const REQUEST_OVERHEAD_MAX: usize = REQUEST_HEADER + REQUEST_SIGNATURE;
/// Set in the length of a signed request.
const SIGNED: u32 = 1 << 31;
/// Reserved, in the length of a request with a vector of MACs.
const VECTOR: u32 = 1 << 30;
/// Bytes before the first record of a REQUESTS or QUERIES message: kind and padding.
pub const REQUESTS_HEAD: usize = 8;

/// The alleged proof that a request comes from its client. It has not been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestProof<'a> {
    /// The trusted MAC under the client's key.
    Mac(&'a [u8; REQUEST_MAC]),
    /// The client's signature.
    Signature(&'a [u8; REQUEST_SIGNATURE]),
}

impl<'a> RequestProof<'a> {
    /// The bytes in the record.
    #[must_use]
    pub fn bytes(self) -> &'a [u8] {
        match self {
            RequestProof::Mac(mac) => mac,
            RequestProof::Signature(signature) => signature,
        }
    }
}

/// A request parsed in place. Its proof has not been checked.
#[derive(Clone, Copy, Debug)]
pub struct RequestRef<'a> {
    /// The session that issued it.
    pub session: SessionId,
    /// The session's number for it.
    pub number: RequestNumber,
    /// The service's operation.
    pub operation: &'a [u8],
    /// The bytes that the proof covers.
    pub covered: &'a [u8],
    /// The whole record, with the proof at the end.
    pub record: &'a [u8],
}

/// Tells a request from others that carry the same session and number: two clients of one identity
/// may use the same ones, if they are copies of one process or a clock went back. The result or
/// reply of one must never be taken for the other's.
///
/// For an ordered request it is the first bytes of its proof, so the proof must be the same each
/// time the request is sent, as MACs and Ed25519 signatures (RFC 8032) are. A query has no proof:
/// its tag is a hash of what a proof would cover. Only the owner of the client's key can make two
/// tags equal, which harms that client alone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct RequestTag(u64);

impl RequestTag {
    /// Bits of a tag.
    pub const BITS: u32 = 64 - SessionId::INDEX_BITS;
    /// Of a place that holds no result.
    pub(crate) const EMPTY: Self = Self(0);
    /// No request has it.
    pub(crate) const NONE: Self = Self(u64::MAX);

    /// The tag with a value, of which the lowest [`Self::BITS`] bits count.
    #[must_use]
    pub fn new(value: u64) -> Self {
        Self(value & (u64::MAX >> SessionId::INDEX_BITS))
    }

    /// Of an ordered request.
    #[inline]
    #[must_use]
    pub fn of_proof(proof: RequestProof<'_>) -> Self {
        let (first, _) = proof.bytes().split_first_chunk().expect("proofs have 16 bytes at least");
        Self::new(u64::from_le_bytes(*first))
    }

    /// Of a query, from what its record holds before the place of the proof.
    #[must_use]
    pub fn of_query(covered: &[u8]) -> Self {
        let hash = covered.chunks(8).fold(covered.len() as u64, |hash, chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            mix(hash, u64::from_le_bytes(word))
        });
        Self::new(hash)
    }

    /// Its value, in the lowest [`Self::BITS`] bits.
    #[inline]
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }
}

impl<'a> RequestRef<'a> {
    /// Splits the first request off `bytes`.
    ///
    /// # Errors
    /// If the bytes are shorter than the record says, or its proof has a form that nobody can check.
    #[inline]
    pub fn split(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), WireError> {
        let (header, _) = bytes.split_first_chunk::<REQUEST_HEADER>().ok_or(WireError::Short)?;
        let field = |at: usize| -> u64 {
            let mut value = [0; 8];
            value.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(value)
        };
        let first = field(0);
        let (length, client) = ((first as u32 & !SIGNED) as usize, (first >> 32) as u32);
        let is_signed = first as u32 & SIGNED != 0;
        let covered = REQUEST_HEADER + length;
        let proof = if is_signed { REQUEST_SIGNATURE } else { REQUEST_MAC };
        // Read as a length, the bit of the vector means a gibibyte, more than any message has. So
        // the check of the length refuses it, at no cost.
        let (record, rest) =
            bytes.split_at_checked(covered + proof).ok_or_else(|| refusal(first as u32))?;
        let covered = &record[..covered];
        let request = RequestRef {
            session: SessionId { client: ClientId(client), session: field(8) },
            number: RequestNumber(field(16)),
            operation: &covered[REQUEST_HEADER..],
            covered,
            record,
        };
        Ok((request, rest))
    }

    /// The client's proof.
    #[inline]
    #[must_use]
    pub fn proof(&self) -> RequestProof<'a> {
        let proof = &self.record[self.covered.len()..];
        let made = "the record was split so";
        if self.is_signed() {
            RequestProof::Signature(proof.first_chunk().expect(made))
        } else {
            RequestProof::Mac(proof.first_chunk().expect(made))
        }
    }

    /// What tells it from others of the same session and number, if it is not a query.
    #[inline]
    #[must_use]
    pub fn tag(&self) -> RequestTag {
        RequestTag::of_proof(self.proof())
    }

    /// Which form the proof has.
    #[inline]
    #[must_use]
    pub fn authenticator(&self) -> RequestAuthenticator {
        if self.is_signed() { RequestAuthenticator::Ed25519 } else { RequestAuthenticator::Mac }
    }

    /// By the record's own bit, not by the length of the proof: a vector of four MACs would be as long
    /// as a signature.
    #[inline]
    fn is_signed(&self) -> bool {
        self.covered[3] & (SIGNED >> 24) as u8 != 0
    }
}

/// Why a record could not be split off.
#[cold]
fn refusal(length: u32) -> WireError {
    if length & VECTOR != 0 { WireError::Unsupported("a vector of MACs") } else { WireError::Short }
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

/// The bytes of a proof; their form goes into the record's length.
pub trait ProofBytes: AsRef<[u8]> {
    /// Which form it is.
    const AUTHENTICATOR: RequestAuthenticator;
}

impl ProofBytes for [u8; REQUEST_MAC] {
    const AUTHENTICATOR: RequestAuthenticator = RequestAuthenticator::Mac;
}

impl ProofBytes for [u8; REQUEST_SIGNATURE] {
    const AUTHENTICATOR: RequestAuthenticator = RequestAuthenticator::Ed25519;
}

/// Appends a request record; `prove` makes the MAC or signature over the covered bytes.
pub fn append_request<P: ProofBytes>(
    out: &mut Vec<u8>,
    session: SessionId,
    number: RequestNumber,
    operation: &[u8],
    prove: impl FnOnce(&[u8]) -> P,
) {
    let start = out.len();
    let length = u32::try_from(operation.len()).expect("the caller bounds operations");
    assert!(length < VECTOR, "the caller bounds operations");
    let form = if P::AUTHENTICATOR == RequestAuthenticator::Mac { 0 } else { SIGNED };
    let mut head = [0; REQUEST_HEADER];
    head[..4].copy_from_slice(&(length | form).to_le_bytes());
    head[4..8].copy_from_slice(&session.client.0.to_le_bytes());
    head[8..16].copy_from_slice(&session.session.to_le_bytes());
    head[16..24].copy_from_slice(&number.0.to_le_bytes());
    out.extend_from_slice(&head);
    put_some(out, operation);
    let proof = prove(&out[start..]);
    out.extend_from_slice(proof.as_ref());
}

/// Appends a request record with the proof that the client's group requires.
#[inline]
pub fn append_proved(
    out: &mut Vec<u8>,
    session: SessionId,
    number: RequestNumber,
    operation: &[u8],
    key: &RequestKey,
) {
    match key {
        RequestKey::Mac(key) => {
            append_request(out, session, number, operation, |covered| key.tag(covered));
        }
        RequestKey::Ed25519(key) => {
            append_request(out, session, number, operation, |covered| key.sign(covered));
        }
    }
}

/// The head of a REQUESTS or QUERIES message.
#[must_use]
pub fn requests_head(kind: u8) -> [u8; REQUESTS_HEAD] {
    [kind, 0, 0, 0, 0, 0, 0, 0]
}

/// The head of a REQUESTS message that holds requests which were sent before: the leader orders
/// such a request only if it did not do so lately. A wrong flag only costs work.
#[must_use]
pub fn retransmission_head() -> [u8; REQUESTS_HEAD] {
    [kind::REQUESTS, 1, 0, 0, 0, 0, 0, 0]
}

/// Whether a REQUESTS message claims to hold retransmissions.
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
        assert_eq!(parsed[1].proof(), RequestProof::Mac(&[29; 16]));
        for cut in 1..bytes.len() {
            let whole = Requests::new(&bytes[..cut]).filter(Result::is_ok).count();
            let bad = Requests::new(&bytes[..cut]).any(|r| r.is_err());
            assert!(whole < 3 && (bad || cut == 40 || cut == 85));
        }
    }

    #[test]
    fn a_signed_record_says_so_and_stands_beside_others() {
        let session = SessionId::new(ClientId(7), 99, 3);
        let mut bytes = Vec::new();
        for _ in 0..2 {
            append_request(&mut bytes, session, RequestNumber(1), b"one", |_| [1; 64]);
            append_request(&mut bytes, session, RequestNumber(2), b"two", |_| [2; 16]);
        }
        let parsed: Vec<_> = Requests::new(&bytes).collect::<Result<_, _>>().unwrap();
        assert_eq!(parsed[0].proof(), RequestProof::Signature(&[1; 64]));
        assert_eq!(parsed[3].proof(), RequestProof::Mac(&[2; 16]));
        assert_eq!((parsed[2].operation, parsed[2].record.len()), (&b"one"[..], 24 + 3 + 64));
        assert!(parsed.iter().all(|r| r.record.len() <= REQUEST_OVERHEAD_MAX + r.operation.len()));
        // The form is covered.
        assert_eq!(parsed[0].covered[3], 0x80);
        assert!(RequestRef::split(&bytes[..90]).is_err());
    }

    #[test]
    fn a_claim_of_a_gibibyte_is_short() {
        let mut bytes = vec![0xff, 0xff, 0xff, 0xbf];
        bytes.extend_from_slice(&[0; 60]);
        assert_eq!(RequestRef::split(&bytes).unwrap_err(), WireError::Short);
    }

    #[test]
    fn forms_of_proof_that_are_reserved_are_refused_and_named() {
        let session = SessionId::new(ClientId(7), 99, 3);
        for signed in [0, 0x80] {
            let mut bytes = Vec::new();
            append_request(&mut bytes, session, RequestNumber(1), b"one", |_| [1; 64]);
            bytes[3] = 0x40 | signed;
            let error = RequestRef::split(&bytes).unwrap_err();
            assert_eq!(error, WireError::Unsupported("a vector of MACs"));
            assert!(Requests::new(&bytes).all(|request| request.is_err()));
        }
    }
}
