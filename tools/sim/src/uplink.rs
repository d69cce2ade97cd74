//! Bandwidth: what a host sends goes out over one wire, a piece of each of its links in turn.
//!
//! The links share a host's wire as TCP connections share one: each link with something to send gets
//! an equal part in bytes, whether it sends long messages or short ones. What has not gone out waits in its link, first in the system's socket buffer and
//! beyond that with the program, which sees it as unsent.

use std::collections::VecDeque;

/// Bytes that a link's socket buffer takes. The system's is about as large while the link is slow.
pub(crate) const SOCKET_BYTES: usize = 128 << 10;

/// Bytes that go out before another link has its turn.
const PIECE_BYTES: usize = 4096;

/// A host's wire, from the host's side.
#[derive(Default)]
pub(crate) struct Uplink {
    /// Links with something to send, in the order of their turns.
    turns: VecDeque<usize>,
    is_busy: bool,
    /// Bytes that go out now,
    going: usize,
    /// and that have gone out in this turn.
    gone: usize,
}

/// Something that a wire will have done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) at_us: u64,
    pub(crate) from: usize,
}

impl Uplink {
    /// A link has something to send.
    pub(crate) fn offer(&mut self, to: usize) {
        if !self.turns.contains(&to) {
            self.turns.push_back(to);
        }
    }

    /// The link whose piece has gone out, and its length; if its turn is over, it must be offered again.
    pub(crate) fn finish(&mut self) -> Option<(usize, usize)> {
        self.is_busy = false;
        self.gone += self.going;
        let to = *self.turns.front()?;
        if self.gone >= PIECE_BYTES {
            self.skip();
        }
        Some((to, self.going))
    }

    /// The link whose turn it is, unless the wire is busy or nothing waits.
    pub(crate) fn next(&self) -> Option<usize> {
        if self.is_busy { None } else { self.turns.front().copied() }
    }

    /// The link whose turn it is has nothing that may go out.
    pub(crate) fn skip(&mut self) {
        self.gone = 0;
        self.turns.pop_front();
    }

    /// A piece of a message with `left` bytes goes out; when it will have.
    pub(crate) fn begin(&mut self, now_us: u64, left: usize, bytes_per_s: u64) -> u64 {
        self.is_busy = true;
        self.going = left.min(PIECE_BYTES - self.gone);
        now_us + (self.going as u64 * 1_000_000).div_ceil(bytes_per_s).max(1)
    }
}
