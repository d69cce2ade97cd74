//! One connection of the transport: its socket and the bytes that wait to be written to it.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Read as _, Write as _};

use bytes::BytesMut;
use mio::net::TcpStream;

use crate::blocks::Blocks;

/// Most buffers in one write.
const SLICES_PER_WRITE: usize = 16;

/// A connection of the transport.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) phase: Phase,
    pub(super) outgoing: VecDeque<Vec<u8>>,
    /// Bytes of the first outgoing buffer that have been written.
    pub(super) written: usize,
    pub(super) writable: bool,
    /// Whether the list `unsent` has it.
    pub(super) is_unsent: bool,
    /// Whether the queue `ready` has it.
    pub(super) is_ready: bool,
    pub(super) readable: bool,
    /// The other side will send no more. Then a short read does not mean that nothing is left: the
    /// end of the stream is still to be read.
    pub(super) read_closed: bool,
    pub(super) paused: bool,
    pub(super) write_error: Option<io::ErrorKind>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Open,
}

/// What a read found.
pub(super) enum End {
    /// More may come.
    None,
    /// The other side closed its direction.
    Stream,
}

impl Connection {
    /// A connection with nothing to write.
    pub(super) fn new(stream: TcpStream, phase: Phase) -> Self {
        Self {
            stream,
            phase,
            outgoing: VecDeque::new(),
            written: 0,
            writable: phase == Phase::Open,
            is_unsent: false,
            is_ready: false,
            readable: false,
            read_closed: false,
            paused: false,
            write_error: None,
        }
    }

    /// Writes as much as the socket takes, and hands back the buffers that are written.
    pub(super) fn write(&mut self, mut sent: impl FnMut(Vec<u8>)) -> io::Result<()> {
        while self.writable && !self.outgoing.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_PER_WRITE];
            let mut count = 0;
            let mut skip = self.written;
            for (slice, buffer) in slices.iter_mut().zip(&self.outgoing) {
                *slice = IoSlice::new(&buffer[skip..]);
                skip = 0;
                count += 1;
            }
            match self.stream.write_vectored(&slices[..count]) {
                Ok(written) => self.advance(written, &mut sent),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn advance(&mut self, written: usize, sent: &mut impl FnMut(Vec<u8>)) {
        self.written += written;
        while let Some(first) = self.outgoing.front() {
            if self.written < first.len() {
                return;
            }
            self.written -= first.len();
            let buffer = self.outgoing.pop_front().expect("there is a first one");
            sent(buffer);
        }
        assert_eq!(self.written, 0, "no more was written than there was");
    }

    /// Reads `turn` bytes or a little more, and hands them out in pieces.
    pub(super) fn read(
        &mut self,
        turn: usize,
        blocks: &mut Blocks,
        mut received: impl FnMut(BytesMut),
    ) -> io::Result<End> {
        let mut left = turn;
        while self.readable && left > 0 {
            let room = blocks.room();
            match self.stream.read(room) {
                Ok(0) => return Ok(End::Stream),
                Ok(count) => {
                    // A short read has drained the socket: asking again would only cost a call.
                    if count < room.len() && !self.read_closed && self.write_error.is_none() {
                        self.readable = false;
                    }
                    left = left.saturating_sub(count);
                    received(blocks.take(count));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.readable = false;
                    if let Some(kind) = self.write_error {
                        return Err(kind.into());
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(End::None)
    }
}
