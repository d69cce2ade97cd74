//! The vocabulary of a hub: links, tags, events and errors.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use crate::frame::Messages;
use crate::keys::Identity;
use crate::reject::Reason;
use crate::transport::ConnectionId;

/// The id of a link. Ids are never reused: that of a closed link finds nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LinkId(pub(crate) ConnectionId);

impl LinkId {
    /// A small index, reused once the link is closed, for tables that are indexed rather than
    /// hashed. Entries must keep the whole id and compare it.
    #[must_use]
    pub const fn slot(self) -> usize {
        self.0.slot()
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {}.{}", self.0.slot, self.0.generation)
    }
}

/// What is known about the link to a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerLinkState {
    /// Bytes sent that the other host has not acknowledged, as far as this side knows.
    pub outstanding_bytes: usize,
    /// The smoothed round trip; zero if it is not known.
    pub round_trip: Duration,
}

/// Who sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// A replica.
    Peer(u16),
    /// A client.
    Client {
        /// Its id.
        client: u32,
        /// The link it came on, where its replies go.
        link: LinkId,
    },
}

/// What a hub reports.
#[derive(Debug)]
pub enum Event {
    /// A link to a replica is up. What was on its way when the last one broke is lost: send again
    /// what the peer must still get.
    PeerUp {
        /// The replica.
        peer: u16,
        /// What its hello has for its incarnation: of a replica, its epoch.
        incarnation: u64,
    },
    /// The link to a replica is gone. What is queued stays queued.
    PeerDown {
        /// The replica.
        peer: u16,
        /// Why.
        reason: DownReason,
    },
    /// A client connected.
    ClientUp {
        /// Its id.
        client: u32,
        /// Tells this connection from others of the same client; chosen by the client.
        incarnation: u64,
        /// The link.
        link: LinkId,
    },
    /// A client's link is gone.
    ClientDown {
        /// Its id.
        client: u32,
        /// The link.
        link: LinkId,
        /// Why.
        reason: DownReason,
    },
    /// Much waits for a client: half of [`Limits::client_queue_bytes`](crate::Limits). Nothing more
    /// should be done for it.
    ClientFull {
        /// Its id.
        client: u32,
        /// The link.
        link: LinkId,
    },
    /// A client has taken nearly all that waited for it: told once after each [`Event::ClientFull`], and
    /// to whoever called [`Hub::await_client_room`](super::Hub::await_client_room).
    ClientRoom {
        /// Its id.
        client: u32,
        /// The link.
        link: LinkId,
    },
    /// An authenticated frame with its messages. They share memory with the block that they were
    /// read into: copy a message to keep it for long.
    Messages {
        /// The authenticated sender.
        from: Source,
        /// The messages.
        messages: Messages,
    },
    /// A connection was refused, by this side or (with [`Reason::RefusedByPeer`]) by the other.
    Rejected {
        /// Why.
        reason: Reason,
        /// The other side's address, if known.
        address: Option<SocketAddr>,
        /// The identity that it proved or was expected to prove, if known.
        identity: Option<Identity>,
        /// What happened and what to do about it, for people.
        message: String,
    },
}

/// Why a live link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownReason {
    /// The other side closed it.
    Closed,
    /// The operating system reported an error.
    Io(io::ErrorKind),
    /// A newer link of the same peer or the same client incarnation took its place.
    Superseded,
    /// This side closed it because of what the other side did.
    Rejected(Reason),
    /// The user of the hub closed it.
    Disconnected,
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("closed by the other side"),
            Self::Io(kind) => write!(f, "{kind}"),
            Self::Superseded => f.write_str("replaced by a newer link"),
            Self::Rejected(reason) => write!(f, "closed by us: {reason}"),
            Self::Disconnected => f.write_str("disconnected by us"),
        }
    }
}

/// Why a message was refused. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// No such peer in the configuration.
    #[error("replica {0} is not among the configured peers")]
    UnknownPeer(u16),
    /// The link is not up.
    #[error("the link is not up; send again once it is up")]
    NotConnected,
    /// The message does not fit into a frame.
    #[error(
        "a message of {length} bytes exceeds the link's limit of {limit} bytes; \
         split it or raise the frame limit on both sides"
    )]
    TooLong {
        /// The message's length.
        length: usize,
        /// The longest message that the link takes.
        limit: usize,
    },
    /// Too much is waiting already.
    #[error(
        "{queued} bytes are waiting for this link, which is its limit; wait until it has taken some"
    )]
    QueueFull {
        /// Bytes that wait for this link.
        queued: usize,
    },
}

/// Traffic of one hub since it was made. Only the hub's thread writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames received with a good MAC.
    pub frames_in: u64,
    /// Messages in those frames.
    pub messages_in: u64,
    /// Their payload bytes.
    pub bytes_in: u64,
    /// Frames sealed.
    pub frames_out: u64,
    /// Messages in those frames.
    pub messages_out: u64,
    /// Their payload bytes.
    pub bytes_out: u64,
}
