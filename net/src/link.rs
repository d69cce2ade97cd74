//! A link after its handshake: seals and opens frames, and envelopes. Sans-IO.
//!
//! A frame travels on the link itself. An *envelope* is a message that a third party relays from
//! one end of the link to the other: only these two can have made it, but it may come late, twice
//! or never.

use bytes::{Buf, Bytes, BytesMut};

use crate::cipher::{DirectionKey, LinkCipher, TAG_BYTES};
use crate::frame::{self, FrameError, FrameReader, HEADER_BYTES};
use crate::reject::Reason;

/// Bytes of an envelope besides its message: its number and its tag.
pub const ENVELOPE_BYTES: usize = ENVELOPE_NUMBER_BYTES + TAG_BYTES;

const ENVELOPE_NUMBER_BYTES: usize = 8;

/// Added to the numbers of envelopes, so that no frame and envelope have the same nonce.
const ENVELOPE_NONCES: u64 = 1 << 63;

const _: () = assert!(LinkCipher::FRAMES_MAX <= ENVELOPE_NONCES);

/// Why a link must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// A frame is not acceptable.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame's MAC does not match.
    #[error("frame {counter} of the link has a wrong MAC: it was forged, damaged or replayed")]
    BadMac {
        /// The number of the frame, counted from 0.
        counter: u64,
    },
    /// All frame counters are used up.
    #[error("the link has used up its frame counters; connect again to get fresh keys")]
    CounterExhausted,
}

impl LinkError {
    /// The reason under which this is counted.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Frame(FrameError::TooLong { .. }) => Reason::TooLong,
            Self::Frame(FrameError::Version { .. } | FrameError::Garbage) => Reason::Garbage,
            Self::Frame(FrameError::Malformed) => Reason::Malformed,
            Self::BadMac { .. } => Reason::BadMac,
            Self::CounterExhausted => Reason::CounterExhausted,
        }
    }
}

/// Both halves of a live link.
#[derive(Debug)]
pub struct Link {
    /// Seals what goes out.
    pub sealer: Sealer,
    /// Opens what comes in.
    pub opener: Opener,
}

impl Link {
    /// A link with the given secrets, which must be fresh: see [`crate::cipher`].
    /// `limit` is the longest payload that is accepted, in bytes.
    #[must_use]
    pub fn new(cipher: LinkCipher, send: &[u8; 32], receive: &[u8; 32], limit: u32) -> Self {
        Self {
            sealer: Sealer { key: DirectionKey::new(cipher, send), counter: 0, envelopes: 0 },
            opener: Opener {
                key: DirectionKey::new(cipher, receive),
                counter: 0,
                reader: FrameReader::new(limit),
            },
        }
    }
}

/// The sending half of a link.
pub struct Sealer {
    key: DirectionKey,
    counter: u64,
    envelopes: u64,
}

impl Sealer {
    /// Seals the frame that begins at `out[start]` and reaches to the end of `out`:
    /// [`HEADER_BYTES`] of any content, then the payload. Writes the header and appends the tag.
    ///
    /// # Errors
    /// If the frame counters are used up.
    ///
    /// # Panics
    /// If there is no room for the header.
    pub fn seal(&mut self, out: &mut Vec<u8>, start: usize) -> Result<(), LinkError> {
        let counter = next(&mut self.counter)?;
        let payload = out.len() - start - HEADER_BYTES;
        let frame = &mut out[start..];
        frame[..HEADER_BYTES].copy_from_slice(&frame::header(payload));
        let tag = self.key.seal(counter, frame, HEADER_BYTES);
        out.extend_from_slice(&tag);
        Ok(())
    }

    /// Appends a sealed frame whose payload is the concatenation of `slices`.
    ///
    /// # Errors
    /// If the frame counters are used up.
    pub fn seal_slices(&mut self, out: &mut Vec<u8>, slices: &[&[u8]]) -> Result<(), LinkError> {
        let start = out.len();
        out.extend_from_slice(&[0; HEADER_BYTES]);
        slices.iter().for_each(|slice| out.extend_from_slice(slice));
        self.seal(out, start)
    }

    /// Appends an envelope with a message, for a third party to relay.
    ///
    /// # Errors
    /// If the numbers of envelopes are used up.
    pub fn seal_envelope(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), LinkError> {
        let number = next(&mut self.envelopes)?;
        let start = out.len();
        out.extend_from_slice(&number.to_le_bytes());
        out.extend_from_slice(message);
        let envelope = &mut out[start..];
        let tag = self.key.seal(number | ENVELOPE_NONCES, envelope, ENVELOPE_NUMBER_BYTES);
        out.extend_from_slice(&tag);
        Ok(())
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealer(next frame {})", self.counter)
    }
}

/// The receiving half of a link.
pub struct Opener {
    key: DirectionKey,
    counter: u64,
    reader: FrameReader,
}

impl Opener {
    /// Takes received bytes. [`Self::open`] must have returned `None` before.
    pub fn push(&mut self, data: BytesMut) {
        self.reader.push(data);
    }

    /// The payload of the next whole frame whose MAC is right. Call until it returns `None`.
    ///
    /// # Errors
    /// If the link must be closed.
    pub fn open(&mut self) -> Result<Option<Bytes>, LinkError> {
        let Some(mut frame) = self.reader.next_frame()? else {
            return Ok(None);
        };
        let counter = next(&mut self.counter)?;
        if !self.key.open(counter, &mut frame, HEADER_BYTES) {
            return Err(LinkError::BadMac { counter });
        }
        frame.advance(HEADER_BYTES);
        frame.truncate(frame.len() - TAG_BYTES);
        Ok(Some(frame.freeze()))
    }

    /// The message in an envelope, decrypted in place; `None` if it was not sealed by the other end
    /// on this connection.
    pub fn open_envelope<'a>(&self, envelope: &'a mut [u8]) -> Option<&'a [u8]> {
        let body = ENVELOPE_NUMBER_BYTES..envelope.len().checked_sub(TAG_BYTES)?;
        let number = u64::from_le_bytes(*envelope.first_chunk()?);
        let is_whole = envelope.len() >= ENVELOPE_BYTES && number < LinkCipher::FRAMES_MAX;
        let opened =
            is_whole && self.key.open(number | ENVELOPE_NONCES, envelope, ENVELOPE_NUMBER_BYTES);
        if opened { envelope.get(body) } else { None }
    }
}

impl std::fmt::Debug for Opener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Opener(next frame {})", self.counter)
    }
}

fn next(counter: &mut u64) -> Result<u64, LinkError> {
    if *counter >= LinkCipher::FRAMES_MAX {
        return Err(LinkError::CounterExhausted);
    }
    let current = *counter;
    *counter += 1;
    Ok(current)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(cipher: LinkCipher) -> (Link, Link) {
        (
            Link::new(cipher, &[1; 32], &[2; 32], 1 << 20),
            Link::new(cipher, &[2; 32], &[1; 32], 1 << 20),
        )
    }

    #[test]
    fn frames_arrive_in_both_directions() {
        for cipher in LinkCipher::ALL {
            let (mut a, mut b) = pair(cipher);
            for _direction in 0..2 {
                let mut wire = Vec::new();
                a.sealer.seal_slices(&mut wire, &[b"one", b" frame"]).unwrap();
                a.sealer.seal_slices(&mut wire, &[]).unwrap();
                let hidden = !wire.windows(9).any(|window| window == b"one frame");
                let encrypts = matches!(cipher, LinkCipher::Aes128Gcm | LinkCipher::Aegis128X2);
                assert_eq!(hidden, encrypts);
                b.opener.push(wire[..].into());
                assert_eq!(b.opener.open().unwrap().unwrap(), &b"one frame"[..]);
                assert_eq!(b.opener.open().unwrap().unwrap(), &b""[..]);
                assert_eq!(b.opener.open().unwrap(), None);
                std::mem::swap(&mut a, &mut b);
            }
        }
    }

    #[test]
    fn the_bytes_on_the_wire_are_as_documented() {
        let wire = LinkCipher::ALL.map(|cipher| {
            let mut wire = Vec::new();
            let mut sealer = pair(cipher).0.sealer;
            sealer.seal_slices(&mut wire, &[b"first"]).unwrap();
            wire.clear();
            sealer.seal_slices(&mut wire, &[&3_u32.to_le_bytes(), b"abc"]).unwrap();
            wire.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        });
        // A change here is a new version of the link protocol: see net/WIRE.md.
        assert_eq!(wire, FIXTURES);
    }

    const FIXTURES: [&str; 4] = [
        "07000000010000007c0257e33c43048d21616111c86ccf706dfd5d86270d7e",
        "070000000100000042405ee31715db1e4857cccecd459a13b8845b566ab5ae",
        "070000000100000003000000616263de30612e981625df4f36ceab30cd8fb5",
        "07000000010000000300000061626325c58d44316ae1b020b4d3f800e50f18",
    ];

    #[test]
    fn every_changed_bit_is_found() {
        for cipher in LinkCipher::ALL {
            let mut wire = Vec::new();
            pair(cipher).0.sealer.seal_slices(&mut wire, &[b"payload"]).unwrap();
            for bit in 0..wire.len() * 8 {
                let mut bad = wire.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                let mut opener = pair(cipher).1.opener;
                opener.push(bad[..].into());
                // A changed length may also wait for more bytes, which is as good.
                assert!(!matches!(opener.open(), Ok(Some(_))), "bit {bit}");
            }
        }
    }

    #[test]
    fn replayed_swapped_and_reflected_frames_are_refused() {
        for cipher in LinkCipher::ALL {
            let (mut a, mut b) = pair(cipher);
            let (mut first, mut second) = (Vec::new(), Vec::new());
            a.sealer.seal_slices(&mut first, &[b"first"]).unwrap();
            a.sealer.seal_slices(&mut second, &[b"second"]).unwrap();
            b.opener.push(first[..].into());
            assert!(b.opener.open().unwrap().is_some());
            b.opener.push(first[..].into());
            assert_eq!(b.opener.open(), Err(LinkError::BadMac { counter: 1 }));
            let (_, mut fresh) = pair(cipher);
            fresh.opener.push(second[..].into());
            assert_eq!(fresh.opener.open(), Err(LinkError::BadMac { counter: 0 }));
            a.opener.push(first[..].into());
            assert_eq!(a.opener.open(), Err(LinkError::BadMac { counter: 0 }));
        }
    }

    #[test]
    fn envelopes_open_in_any_order_at_the_other_end_alone() {
        for cipher in LinkCipher::ALL {
            let (mut a, b) = pair(cipher);
            let mut envelopes = [Vec::new(), Vec::new(), Vec::new()];
            for (i, envelope) in envelopes.iter_mut().enumerate() {
                a.sealer.seal_envelope(&[i as u8; 40], envelope).unwrap();
                assert_eq!(envelope.len(), 40 + ENVELOPE_BYTES);
            }
            for i in [2, 0, 1, 1] {
                let message = b.opener.open_envelope(&mut envelopes[i].clone()).map(<[u8]>::to_vec);
                assert_eq!(message, Some(vec![i as u8; 40]));
                assert_eq!(a.opener.open_envelope(&mut envelopes[i].clone()), None);
            }
            for bit in 0..envelopes[0].len() * 8 {
                let mut bad = envelopes[0].clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(b.opener.open_envelope(&mut bad), None, "bit {bit}");
            }
            for length in 0..envelopes[0].len() {
                assert_eq!(b.opener.open_envelope(&mut envelopes[0][..length].to_vec()), None);
            }
        }
    }

    #[test]
    fn a_frame_is_no_envelope() {
        for cipher in LinkCipher::ALL {
            let (mut a, b) = pair(cipher);
            let mut frame = Vec::new();
            a.sealer.seal_slices(&mut frame, &[&[7; 40]]).unwrap();
            // The number of the frame in place of its header, which is covered: as those ciphers
            // see it that encrypt.
            let mut as_envelope = frame.clone();
            as_envelope[..8].copy_from_slice(&0_u64.to_le_bytes());
            assert_eq!(b.opener.open_envelope(&mut as_envelope), None);
            assert_eq!(b.opener.open_envelope(&mut frame), None);
        }
    }

    #[test]
    fn a_used_up_counter_ends_the_link() {
        let (mut a, mut b) = pair(LinkCipher::Gmac);
        a.sealer.counter = LinkCipher::FRAMES_MAX - 1;
        b.opener.counter = LinkCipher::FRAMES_MAX - 1;
        let mut wire = Vec::new();
        a.sealer.seal_slices(&mut wire, &[b"last"]).unwrap();
        b.opener.push(wire[..].into());
        assert!(b.opener.open().unwrap().is_some());
        let error = a.sealer.seal_slices(&mut wire, &[b"beyond"]).unwrap_err();
        assert_eq!(error, LinkError::CounterExhausted);
        b.opener.push(wire[..].into());
        assert_eq!(b.opener.open(), Err(LinkError::CounterExhausted));
    }
}
