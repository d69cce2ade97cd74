//! Every limit of this crate, with its unit and its default, in one place.
//!
//! What a [`Hub`](crate::Hub) may hold at most, summed up from these:
//!
//! ```text
//!   peers   × (peer_queue_bytes + link_window_bytes + peer_frame_bytes + peer_frame_bytes)
//! + clients × (client_queue_bytes + client_frame_bytes)
//! + handshakes × handshake_bytes
//! + pool_bytes + the transport's read blocks (block_bytes × blocks whose frames are still in use)
//! ```
//!
//! The frame terms are reached only by a sender that really has sent that much: a receive buffer
//! grows with the bytes that arrive, never with the length that a frame claims.

use std::time::Duration;

/// Limits of a hub and of its transport. `Limits::default()` suits a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest frame payload on a link between two replicas, in bytes. Default 64 MiB.
    pub peer_frame_bytes: u32,
    /// Longest frame payload on a link between a client and a replica, in bytes. Default 1 MiB.
    pub client_frame_bytes: u32,
    /// A frame of several messages is closed when its payload reaches this, in bytes: the other
    /// side can begin with it while the next one is made. Default 64 KiB.
    pub frame_target_bytes: usize,
    /// Sealed bytes that a link may have in flight. What lies beyond stays unsealed and can still
    /// be withdrawn. Default 1 MiB.
    pub link_window_bytes: usize,
    /// Unsealed bytes that may wait for one peer. Default 1 GiB; what really waits is bounded by
    /// the order window, because passed messages are withdrawn.
    pub peer_queue_bytes: usize,
    /// Bytes that may wait for one client, in flight included. A client that has more waiting does
    /// not read its replies and is disconnected. Default 4 MiB.
    pub client_queue_bytes: usize,
    /// Live client links. Default 16384.
    pub clients: usize,
    /// Live links of one client, told apart by their incarnation. Default 64.
    pub links_per_client: usize,
    /// Accepted connections that have not finished their handshake; the oldest gives way to a new
    /// one. Default 256.
    pub handshakes: usize,
    /// Time for connecting and the whole handshake together. Default 5 s.
    pub handshake_timeout: Duration,
    /// Bytes that a handshake may take from the other side. Default 32 KiB.
    pub handshake_bytes: usize,
    /// First pause before an outgoing link is tried again. Default 20 ms.
    pub backoff_min: Duration,
    /// Longest pause before an outgoing link is tried again. Default 2 s.
    pub backoff_max: Duration,
    /// Longest wait of a message for one to go along with, if nobody waits for it. Default 5 ms.
    pub may_wait: Duration,
    /// Unused send buffers kept for reuse, in bytes. Default 64 MiB.
    pub pool_bytes: usize,
    /// How long a poll looks again before it waits, at most, while messages follow each other
    /// closely. Zero: never. Default 100 µs.
    pub busy_poll: Duration,
    /// Log lines about refused or lost connections, per second. Default 20.
    pub log_lines_per_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            peer_frame_bytes: 64 << 20,
            client_frame_bytes: 1 << 20,
            frame_target_bytes: 64 << 10,
            link_window_bytes: 1 << 20,
            peer_queue_bytes: 1 << 30,
            client_queue_bytes: 4 << 20,
            clients: 16 << 10,
            links_per_client: 64,
            handshakes: 256,
            handshake_timeout: Duration::from_secs(5),
            handshake_bytes: 32 << 10,
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(2),
            may_wait: Duration::from_millis(5),
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
    /// A new read block is begun when less than this is left, in bytes. Default 64 KiB.
    pub read_bytes_min: usize,
    /// Bytes taken from one connection before the others get their turn. Default 256 KiB.
    pub connection_turn_bytes: usize,
    /// Bytes taken from all connections in one poll. Default 4 MiB.
    pub poll_bytes: usize,
    /// Connections accepted in one poll. Default 32.
    pub accepts_per_poll: usize,
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
            connection_turn_bytes: 256 << 10,
            poll_bytes: 4 << 20,
            accepts_per_poll: 32,
            unacknowledged_timeout: Duration::from_secs(10),
            keepalive: Duration::from_secs(5),
        }
    }
}

/// Limits of [`UringTransport`](crate::UringTransport).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UringLimits {
    /// Operations that one system call can submit; more take several calls. A power of two.
    /// Default 256.
    pub submissions: u32,
    /// Results that the kernel can report without a further call. A power of two. Default 4096.
    pub completions: u32,
    /// Receive buffers lent to the kernel; a power of two. Together they bound what one poll takes
    /// from all connections. As many are used as there are connections, and 8 at least. Default 64.
    pub buffers: u16,
    /// Size of a receive buffer, in bytes. Default 64 KiB.
    pub buffer_bytes: usize,
    /// Size of the blocks that received bytes are handed out in; not less than a buffer.
    /// Default 256 KiB.
    pub block_bytes: usize,
    /// Pause before a listener accepts again after the system refused a connection, for want of
    /// descriptors most likely. Default 100 ms.
    pub accept_pause: Duration,
    /// As [`PollLimits::unacknowledged_timeout`]. Default 10 s.
    pub unacknowledged_timeout: Duration,
    /// As [`PollLimits::keepalive`]. Default 5 s.
    pub keepalive: Duration,
}

impl Default for UringLimits {
    fn default() -> Self {
        let PollLimits { block_bytes, unacknowledged_timeout, keepalive, .. } =
            PollLimits::default();
        Self {
            submissions: 256,
            completions: 4096,
            buffers: 64,
            buffer_bytes: 64 << 10,
            block_bytes,
            accept_pause: Duration::from_millis(100),
            unacknowledged_timeout,
            keepalive,
        }
    }
}
