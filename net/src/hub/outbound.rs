//! The sending side of a live link: the frame under construction, and sealing.

use super::event::{SendError, Source};
use super::peers::Queue;
use super::pool::Pool;
use super::turns::Arrears;
use crate::frame::{HEADER_BYTES, MESSAGE_HEADER_BYTES, push_message};
use crate::link::{Link, LinkError};

/// A link that is up.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) link: Link,
    pub(super) source: Source,
    pub(super) incarnation: u64,
    /// Longest payload of a frame, in bytes.
    pub(super) frame_bytes_max: usize,
    /// The frame under construction: room for the header, then messages. Empty if there is none.
    building: Vec<u8>,
    building_messages: u64,
    /// Whether the hub's list of links to flush has it.
    pub(super) is_dirty: bool,
    /// Whether the hub's list of full links has it.
    pub(super) is_full: bool,
    /// Whether its owner wants nothing to be read from it.
    pub(super) is_paused: bool,
    /// What arrived and was not looked at.
    pub(super) arrears: Arrears,
}

/// A frame ready to be sent.
#[derive(Debug)]
pub(super) struct Sealed {
    pub(super) buffer: Vec<u8>,
    pub(super) messages: u64,
}

/// Appends the bytes of one message to a frame under construction.
#[derive(Debug)]
pub struct MessageWriter<'a> {
    buffer: &'a mut Vec<u8>,
}

impl MessageWriter<'_> {
    /// Appends bytes to the message.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }
}

impl Live {
    pub(super) fn new(
        link: Link,
        source: Source,
        incarnation: u64,
        frame_bytes_max: usize,
    ) -> Self {
        Self {
            link,
            source,
            incarnation,
            frame_bytes_max,
            building: Vec::new(),
            building_messages: 0,
            is_dirty: false,
            is_full: false,
            is_paused: false,
            arrears: Arrears::default(),
        }
    }

    /// Length of the frame under construction.
    pub(super) fn building_bytes(&self) -> usize {
        self.building.len()
    }

    /// Lets `write` append one message to the frame under construction. A frame that has reached
    /// `target` bytes is sealed and returned, so that the other side can start on it; so is one
    /// without room for the message, which then starts the next frame.
    ///
    /// # Errors
    /// The outer one if the link must be closed, the inner one if no frame can hold the message.
    #[inline]
    pub(super) fn append(
        &mut self,
        pool: &mut Pool,
        target: usize,
        write: impl FnOnce(&mut MessageWriter<'_>),
    ) -> Result<Result<Option<Sealed>, SendError>, LinkError> {
        if self.building.is_empty() {
            begin(&mut self.building, pool);
        }
        let start = self.building.len();
        self.building.extend_from_slice(&[0; MESSAGE_HEADER_BYTES]);
        write(&mut MessageWriter { buffer: &mut self.building });
        let length = self.building.len() - start - MESSAGE_HEADER_BYTES;
        let limit = self.frame_bytes_max.saturating_sub(MESSAGE_HEADER_BYTES);
        if length > limit {
            self.building.truncate(start);
            if self.building_messages == 0 {
                self.building.clear();
            }
            return Ok(Err(SendError::TooLong { length, limit }));
        }
        let length = u32::try_from(length).expect("a frame's limit is a u32");
        self.building[start..start + MESSAGE_HEADER_BYTES].copy_from_slice(&length.to_le_bytes());
        let payload = self.building.len() - HEADER_BYTES;
        let mut sealed = None;
        if payload > self.frame_bytes_max {
            let mut next = Vec::new();
            begin(&mut next, pool);
            next.extend_from_slice(&self.building[start..]);
            self.building.truncate(start);
            sealed = self.seal_building()?;
            self.building = next;
            self.building_messages = 1;
        } else {
            self.building_messages += 1;
            if payload >= target {
                sealed = self.seal_building()?;
            }
        }
        Ok(Ok(sealed))
    }

    /// Seals the frame under construction, if there is one.
    pub(super) fn seal_building(&mut self) -> Result<Option<Sealed>, LinkError> {
        if self.building.is_empty() {
            return Ok(None);
        }
        let mut buffer = std::mem::take(&mut self.building);
        let messages = std::mem::take(&mut self.building_messages);
        self.link.sealer.seal(&mut buffer, 0)?;
        Ok(Some(Sealed { buffer, messages }))
    }

    /// Seals a frame of queued messages: as many as make `target` bytes, but at least one.
    pub(super) fn seal_queued(
        &mut self,
        queue: &mut Queue,
        target: usize,
        pool: &mut Pool,
    ) -> Result<Option<Sealed>, LinkError> {
        let mut buffer = Vec::new();
        let mut messages = 0;
        while let Some(length) = queue.first().map(bytes::Bytes::len) {
            let length = length + MESSAGE_HEADER_BYTES;
            if messages > 0
                && buffer.len() - HEADER_BYTES + length > target.min(self.frame_bytes_max)
            {
                break;
            }
            let message = queue.pop().expect("there is a first one");
            if length > self.frame_bytes_max {
                log::error!(
                    "{:?} takes frames of at most {} bytes; a message of {} bytes is lost: \
                     set the same frame limits on all replicas",
                    self.source,
                    self.frame_bytes_max,
                    message.len()
                );
                continue;
            }
            if messages == 0 {
                begin(&mut buffer, pool);
            }
            push_message(&mut buffer, &message);
            messages += 1;
        }
        if messages == 0 {
            return Ok(None);
        }
        self.link.sealer.seal(&mut buffer, 0)?;
        Ok(Some(Sealed { buffer, messages }))
    }
}

fn begin(buffer: &mut Vec<u8>, pool: &mut Pool) {
    *buffer = pool.take();
    buffer.extend_from_slice(&[0; HEADER_BYTES]);
}
