//! Frames and the message lists inside them. `net/WIRE.md` shows the bytes.
//!
//! A frame is `header | payload | tag`. The payload of a link's frame is a list of messages, so
//! that a header, a MAC and a system call are paid for once per flush and not once per message.

use bytes::{Buf, Bytes, BytesMut};

use crate::cipher::TAG_BYTES;

/// Length of a frame's header, in bytes.
pub const HEADER_BYTES: usize = 8;

/// Bytes of a frame besides its payload.
pub const OVERHEAD_BYTES: usize = HEADER_BYTES + TAG_BYTES;

/// Size of the length field before each message, in bytes.
pub const MESSAGE_HEADER_BYTES: usize = 4;

/// The version of the frame layout.
pub const FRAME_VERSION: u8 = 1;

/// What is wrong with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It claims to be longer than the link allows.
    #[error("a frame claims {claimed} bytes, the limit of this link is {limit} bytes")]
    TooLong {
        /// Payload bytes that it claims.
        claimed: u32,
        /// Payload bytes that are allowed.
        limit: u32,
    },
    /// It has another version.
    #[error("a frame has version {found}, this side speaks version {FRAME_VERSION}")]
    Version {
        /// The version that the frame has.
        found: u8,
    },
    /// Flags or reserved bytes are set.
    #[error("a frame header has unknown flags or non-zero reserved bytes")]
    Garbage,
    /// The payload is not a list of messages.
    #[error("a frame's payload is not a list of messages: the lengths do not add up")]
    Malformed,
}

/// The header of a frame with `payload` bytes.
///
/// # Panics
/// If the payload is 4 GiB or longer; every link's limit is below that.
#[must_use]
pub fn header(payload: usize) -> [u8; HEADER_BYTES] {
    let length = u32::try_from(payload).expect("a frame is shorter than 4 GiB");
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&length.to_le_bytes());
    header[4] = FRAME_VERSION;
    header
}

/// Cuts frames out of a byte stream. It does not look at the tag.
///
/// Whole frames are cut out of the received data without copying. Only a frame that straddles two
/// reads is collected in a buffer, which grows with what arrives, never with what is claimed.
#[derive(Debug)]
pub struct FrameReader {
    limit: u32,
    data: BytesMut,
    partial: BytesMut,
}

impl FrameReader {
    /// A reader that allows `limit` payload bytes per frame.
    #[must_use]
    pub fn new(limit: u32) -> Self {
        Self { limit, data: BytesMut::new(), partial: BytesMut::new() }
    }

    /// Takes received bytes. [`Self::next_frame`] must have returned `None` before.
    pub fn push(&mut self, data: BytesMut) {
        if self.data.is_empty() {
            self.data = data;
        } else {
            self.data.unsplit(data);
        }
    }

    /// The next whole frame: header, payload and tag. Call until it returns `None`.
    ///
    /// # Errors
    /// If the header is not acceptable. Then the link must be closed.
    pub fn next_frame(&mut self) -> Result<Option<BytesMut>, FrameError> {
        if !self.partial.is_empty() {
            return self.complete_partial();
        }
        if self.data.len() >= HEADER_BYTES {
            let length = self.frame_length(&self.data)?;
            if self.data.len() >= length {
                return Ok(Some(self.data.split_to(length)));
            }
        }
        // Copied, so that a few bytes of a slow sender do not keep whole read blocks in memory.
        self.partial.extend_from_slice(&self.data);
        self.data = BytesMut::new();
        Ok(None)
    }

    fn complete_partial(&mut self) -> Result<Option<BytesMut>, FrameError> {
        if self.partial.len() < HEADER_BYTES {
            self.take(HEADER_BYTES - self.partial.len());
            if self.partial.len() < HEADER_BYTES {
                return Ok(None);
            }
        }
        let length = self.frame_length(&self.partial)?;
        self.take(length - self.partial.len());
        if self.partial.len() < length {
            return Ok(None);
        }
        let frame = self.partial.split();
        if length > PARTIAL_KEPT_BYTES {
            self.partial = BytesMut::new();
        }
        Ok(Some(frame))
    }

    fn take(&mut self, wanted: usize) {
        let count = wanted.min(self.data.len());
        self.partial.extend_from_slice(&self.data[..count]);
        self.data.advance(count);
        if self.data.is_empty() {
            self.data = BytesMut::new();
        }
    }

    /// Length of the whole frame whose header is at the start of `data`.
    fn frame_length(&self, data: &[u8]) -> Result<usize, FrameError> {
        let claimed = u32::from_le_bytes([data[0], data[1], data[2], data[3]]);
        // The version comes first: another version may have another layout.
        if data[4] != FRAME_VERSION {
            return Err(FrameError::Version { found: data[4] });
        }
        if data[5..HEADER_BYTES] != [0; 3] {
            return Err(FrameError::Garbage);
        }
        if claimed > self.limit {
            return Err(FrameError::TooLong { claimed, limit: self.limit });
        }
        Ok(claimed as usize + OVERHEAD_BYTES)
    }
}

/// A larger partial buffer is freed rather than kept for the next frame.
const PARTIAL_KEPT_BYTES: usize = 64 << 10;

/// Appends one message to a payload under construction.
///
/// # Panics
/// If the message is 4 GiB or longer; every link's limit is below that.
#[inline]
pub fn push_message(payload: &mut Vec<u8>, message: &[u8]) {
    let length = u32::try_from(message.len()).expect("a message is shorter than 4 GiB");
    payload.extend_from_slice(&length.to_le_bytes());
    payload.extend_from_slice(message);
}

/// The messages of one frame: checked on receipt, and taken out without copying.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    payload: Bytes,
    count: usize,
}

impl Messages {
    /// Checks that a payload is a list of messages.
    ///
    /// # Errors
    /// If the lengths do not add up.
    pub fn parse(payload: Bytes) -> Result<Self, FrameError> {
        let mut rest: &[u8] = &payload;
        let mut count = 0;
        while !rest.is_empty() {
            let (head, tail) = rest.split_first_chunk().ok_or(FrameError::Malformed)?;
            let length = u32::from_le_bytes(*head) as usize;
            rest = tail.get(length..).ok_or(FrameError::Malformed)?;
            count += 1;
        }
        Ok(Self { payload, count })
    }

    /// How many messages there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of the whole list, lengths included.
    #[must_use]
    pub const fn payload_bytes(&self) -> usize {
        self.payload.len()
    }

    /// The messages, borrowed, at no cost. Use [`Self::slice`] to keep one.
    #[must_use]
    pub fn iter(&self) -> MessageSlices<'_> {
        MessageSlices { rest: &self.payload }
    }

    /// A message that [`Self::iter`] returned, as a handle of its own on the shared memory.
    ///
    /// # Panics
    /// If `message` is not part of this list.
    #[must_use]
    pub fn slice(&self, message: &[u8]) -> Bytes {
        self.payload.slice_ref(message)
    }
}

impl<'a> IntoIterator for &'a Messages {
    type Item = &'a [u8];
    type IntoIter = MessageSlices<'a>;

    fn into_iter(self) -> MessageSlices<'a> {
        self.iter()
    }
}

impl IntoIterator for Messages {
    type Item = Bytes;
    type IntoIter = MessageHandles;

    fn into_iter(self) -> MessageHandles {
        MessageHandles { rest: self.payload }
    }
}

/// Iterator over borrowed messages.
#[derive(Clone, Debug)]
pub struct MessageSlices<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for MessageSlices<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let (head, tail) = self.rest.split_first_chunk()?;
        let (message, rest) = tail.split_at(u32::from_le_bytes(*head) as usize);
        self.rest = rest;
        Some(message)
    }
}

/// Iterator over messages as handles on the shared memory.
#[derive(Clone, Debug)]
pub struct MessageHandles {
    rest: Bytes,
}

impl Iterator for MessageHandles {
    type Item = Bytes;

    #[inline]
    fn next(&mut self) -> Option<Bytes> {
        if self.rest.is_empty() {
            return None;
        }
        let length = self.rest.get_u32_le() as usize;
        Some(self.rest.split_to(length))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frame(payload: &[u8]) -> Vec<u8> {
        let mut frame = header(payload.len()).to_vec();
        frame.extend_from_slice(payload);
        frame.extend_from_slice(&[0; TAG_BYTES]);
        frame
    }

    fn read_all(reader: &mut FrameReader, data: &[u8]) -> Result<Vec<Vec<u8>>, FrameError> {
        let mut frames = Vec::new();
        reader.push(BytesMut::from(data));
        while let Some(frame) = reader.next_frame()? {
            frames.push(frame.to_vec());
        }
        Ok(frames)
    }

    #[test]
    fn a_claim_beyond_the_limit_fails_at_the_header_and_allocates_nothing() {
        let mut reader = FrameReader::new(1000);
        let mut claim = header(0);
        claim[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let error = read_all(&mut reader, &claim).unwrap_err();
        assert_eq!(error, FrameError::TooLong { claimed: u32::MAX, limit: 1000 });
        assert_eq!(reader.partial.capacity(), 0);
    }

    #[test]
    fn a_claim_within_the_limit_reserves_no_memory_in_advance() {
        let mut reader = FrameReader::new(64 << 20);
        assert!(read_all(&mut reader, &header(64 << 20)).unwrap().is_empty());
        assert!(read_all(&mut reader, &[0; 100]).unwrap().is_empty());
        assert!(reader.partial.capacity() < 4096);
    }

    #[test]
    fn the_empty_list_and_empty_messages_are_lists() {
        assert!(Messages::parse(Bytes::new()).unwrap().is_empty());
        let mut payload = Vec::new();
        push_message(&mut payload, b"");
        push_message(&mut payload, b"ab");
        let list = Messages::parse(payload.into()).unwrap();
        assert_eq!(list.len(), 2);
        assert_eq!(list.iter().collect::<Vec<_>>(), [&b""[..], b"ab"]);
        assert_eq!(list.slice(list.iter().nth(1).unwrap()), &b"ab"[..]);
        assert_eq!(list.into_iter().collect::<Vec<_>>(), [&b""[..], b"ab"]);
    }

    #[test]
    fn the_header_is_as_documented() {
        assert_eq!(header(0x0102_0304), [4, 3, 2, 1, 1, 0, 0, 0]);
    }

    proptest! {
        #[test]
        fn any_split_of_the_stream_gives_the_same_frames(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            cuts in prop::collection::vec(1_usize..200, 1..200),
        ) {
            let frames: Vec<_> = payloads.iter().map(|payload| frame(payload)).collect();
            let stream = frames.concat();
            let mut reader = FrameReader::new(300);
            let mut read = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                read.extend(read_all(&mut reader, now).unwrap());
                rest = later;
            }
            prop_assert_eq!(read, frames);
        }

        #[test]
        fn random_bytes_never_panic(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20),
        ) {
            let mut reader = FrameReader::new(64);
            for chunk in &chunks {
                if read_all(&mut reader, chunk).is_err() {
                    break;
                }
            }
            let _ = Messages::parse(Bytes::from(chunks.concat()));
        }

        #[test]
        fn parsed_lists_give_back_their_messages(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..50),
            cut in 0_usize..1000,
        ) {
            let mut payload = Vec::new();
            messages.iter().for_each(|message| push_message(&mut payload, message));
            let list = Messages::parse(payload.clone().into()).unwrap();
            prop_assert_eq!(list.len(), messages.len());
            prop_assert!(list.iter().eq(messages.iter().map(Vec::as_slice)));
            payload.truncate(cut);
            if let Ok(shorter) = Messages::parse(payload.into()) {
                prop_assert!(shorter.into_iter().count() <= messages.len());
            }
        }
    }
}
