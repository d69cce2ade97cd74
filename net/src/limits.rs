//! Every limit of this crate, with its unit and its default, in one place.
//!
//! From these follows the most memory that a [`Hub`](crate::Hub) can hold:
//!
//! ```text
//!   peers   × (peer_queue_bytes + link_window_bytes + peer_frame_bytes + peer_frame_bytes)
//! + clients × (client_queue_bytes + client_frame_bytes)
//! + (handshakes + peers × handshakes_per_peer) × handshake_bytes
//! + pool_bytes + the transport's read blocks (block_bytes × blocks whose frames are still in use)
//! ```
//!
//! The frame terms are reached only if a peer has really sent that much: a receive buffer grows
//! with the bytes that arrive, never with the length that a frame claims.

use std::time::Duration;

use crate::blocks::SPENT_MAX;

/// Limits of a hub and of its transport. `Limits::default()` suits a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest frame payload on a link between two replicas, in bytes. Default 64 MiB.
    pub peer_frame_bytes: u32,
    /// Longest frame payload on a link between a client and a replica, in bytes. Default 1 MiB.
    pub client_frame_bytes: u32,
    /// A frame of several messages is sealed when its payload reaches this many bytes, so that the
    /// other side can start on it while the next one is built. Default 64 KiB.
    pub frame_target_bytes: usize,
    /// Sealed bytes that a link may have in flight; what is sent beyond waits unsealed.
    /// Default 1 MiB.
    pub link_window_bytes: usize,
    /// Unsealed bytes that may wait for one peer, one message of any length apart. Default 64 MiB:
    /// the protocol keeps back what a link has no room for.
    pub peer_queue_bytes: usize,
    /// Bytes that may wait for one client, those in flight included, one message of any length apart.
    /// What comes beyond is refused; from half of it on the link is reported as full. Default 4 MiB.
    pub client_queue_bytes: usize,
    /// A client that takes nothing for so long although its link is full does not read its replies,
    /// and is disconnected. Default 10 s.
    pub client_stall: Duration,
    /// What one poll reports of one peer, or of one client over all its links, before the others have
    /// their turn: bytes, and 1 KiB for each message, however many requests it has. What one read
    /// brought is reported as a whole; a quarter of this may wait undecrypted before a link is not read
    /// any more. Default 1 MiB; with 256 KiB, requests of 1 KiB took 10 % more CPU.
    pub turn_bytes: usize,
    /// Most live client links. Default 16384.
    pub clients: usize,
    /// Most live links of one client, which its incarnations tell apart. Default 64.
    pub links_per_client: usize,
    /// Most accepted connections in their handshake, beside those of
    /// [`Self::handshakes_per_peer`]. Beyond it, one of the address (of the network of 2^64
    /// addresses with IPv6) that has the most is closed, chosen at random. Default 256.
    pub handshakes: usize,
    /// Places for connections in their handshake that are reserved for the address of each peer, and
    /// that nobody else can take. Default 4.
    pub handshakes_per_peer: usize,
    /// Longest time for connecting and the handshake together. Default 5 s.
    pub handshake_timeout: Duration,
    /// Most bytes that a handshake accepts from the other side. Default 32 KiB.
    pub handshake_bytes: usize,
    /// First pause before an outgoing link is tried again. Default 20 ms.
    pub backoff_min: Duration,
    /// Longest pause before an outgoing link is tried again. Default 2 s.
    pub backoff_max: Duration,
    /// Most bytes of unused send buffers that are kept for reuse. Default 64 MiB.
    pub pool_bytes: usize,
    /// How long a poll checks for messages before it sleeps, while messages follow each other
    /// closely; zero turns this off. Default 100 µs.
    pub busy_poll: Duration,
    /// Most log lines about refused or lost connections, per second. Default 20.
    pub log_lines_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peer_frame_bytes: 64 << 20,
            client_frame_bytes: 1 << 20,
            frame_target_bytes: 64 << 10,
            link_window_bytes: 1 << 20,
            peer_queue_bytes: 64 << 20,
            client_queue_bytes: 4 << 20,
            client_stall: Duration::from_secs(10),
            turn_bytes: 1 << 20,
            clients: 16 << 10,
            links_per_client: 64,
            handshakes: 256,
            handshakes_per_peer: 4,
            handshake_timeout: Duration::from_secs(5),
            handshake_bytes: 32 << 10,
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(2),
            pool_bytes: 64 << 20,
            busy_poll: Duration::from_micros(100),
            log_lines_per_second: 20,
        }
    }
}

/// Limits of [`PollTransport`](crate::PollTransport).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollLimits {
    /// Size of a read block, in bytes. One allocation serves all reads until it is full.
    /// Default 256 KiB.
    pub block_bytes: usize,
    /// A new read block is taken when fewer bytes than this are left. Default 64 KiB.
    pub read_bytes_min: usize,
    /// Most bytes read from one connection before the next has its turn. Default 256 KiB.
    pub connection_turn_bytes: usize,
    /// Most bytes read from all connections in one poll. Default 4 MiB.
    pub poll_bytes: usize,
    /// Most connections accepted in one poll. Default 32.
    pub accepts_per_poll: usize,
    /// Pause before anything is accepted again after the system refused a connection, most likely
    /// because no descriptors are left. Default 100 ms.
    pub accept_pause: Duration,
    /// The kernel gives up a connection whose sent data stays unacknowledged for this long.
    /// Default 10 s.
    pub unacknowledged_timeout: Duration,
    /// An idle connection is probed by the kernel after this time. Default 5 s.
    pub keepalive: Duration,
}

impl Default for PollLimits {
    fn default() -> Self {
        Self {
            block_bytes: 256 << 10,
            read_bytes_min: 64 << 10,
            connection_turn_bytes: 2 << 20,
            poll_bytes: 4 << 20,
            accepts_per_poll: 32,
            accept_pause: Duration::from_millis(100),
            unacknowledged_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(5),
        }
    }
}

/// Limits of [`UringTransport`](crate::UringTransport).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UringLimits {
    /// Most operations that one system call submits; more take several calls. A power of two.
    /// Default 256.
    pub submissions: u32,
    /// Most results that the kernel can report without another call. A power of two. Default 4096.
    pub completions: u32,
    /// Most receive buffers lent to the kernel; a power of two. Together they bound what one poll
    /// reads from all connections. One per connection is used, and at least 8. Default 64.
    pub buffers: u16,
    /// Size of a receive buffer, in bytes. Default 64 KiB.
    pub buffer_bytes: usize,
    /// Size of the blocks that received bytes are copied to, in bytes; at least that of a buffer.
    /// Default 256 KiB.
    pub block_bytes: usize,
    /// As [`PollLimits::accept_pause`], for one listener. Default 100 ms.
    pub accept_pause: Duration,
    /// As [`PollLimits::unacknowledged_timeout`]. Default 10 s.
    pub unacknowledged_timeout: Duration,
    /// As [`PollLimits::keepalive`]. Default 5 s.
    pub keepalive: Duration,
}

impl UringLimits {
    /// What is read into, in bytes: the buffers lent to the kernel, the present block, and former
    /// ones that are remembered for reuse.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        let buffers = u64::from(self.buffers) * self.buffer_bytes as u64;
        buffers + (SPENT_MAX as u64 + 2) * self.block_bytes as u64
    }
}

impl Default for UringLimits {
    fn default() -> Self {
        let PollLimits { block_bytes, accept_pause, unacknowledged_timeout, keepalive, .. } =
            PollLimits::default();
        Self {
            submissions: 256,
            completions: 4096,
            buffers: 64,
            buffer_bytes: 64 << 10,
            block_bytes,
            accept_pause,
            unacknowledged_timeout,
            keepalive,
        }
    }
}
