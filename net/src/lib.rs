//! Frames, authenticated links and transports of Hybster. This crate knows no protocol.
//!
//! From the outside in:
//!
//! - [`hub::Hub`] is what a replica's network stage and a client use: links to all peers and
//!   clients, reconnection, limits, back-pressure. Bytes in, bytes out, one thread, no lock.
//! - [`transport::Transport`] is the seam to the operating system, in completion style so that
//!   `io_uring` fits. Back ends: [`uring::UringTransport`], [`poll::PollTransport`] (epoll) and
//!   [`memory::MemoryTransport`] (in process, deterministic). [`any::AnyTransport`] chooses one of
//!   the first two, by what the system has and the user asks for.
//! - [`handshake::Handshake`] and [`link::Link`] are sans-IO: TLS 1.3 with raw public keys first,
//!   then frames with one MAC each.
//! - [`frame`] is the layout on the wire. `net/WIRE.md` shows it byte by byte.
//!
//! Bytes from a peer are hostile until their MAC has been checked; a wrong MAC closes the link with
//! a counted [`reject::Reason`].
//!
//! Packages: `io-uring` and `mio` (epoll) below the transports, `bytes` for frames that are parsed
//! in place, `rustls` and `ring` for the handshake. [`cipher`] says why frames are sealed by
//! `aegis`, or by `ring` if the standard cipher is chosen, and not by `aes-gcm`.
//!
//! Unsafe code is denied, but for `uring::ring`, `uring::buffers` and `tcp_state`, which exist to
//! contain it.

#![deny(unsafe_code)]

pub mod address;
pub mod any;
pub mod cipher;
pub mod files;
pub mod frame;
pub mod handshake;
pub mod hub;
pub mod keys;
pub mod limits;
pub mod link;
pub mod memory;
pub mod poll;
pub mod reject;
pub mod transport;
#[cfg(target_os = "linux")]
pub mod uring;

mod blocks;
mod random;
mod slots;
mod socket;
mod tcp_state;

pub use address::{AddressError, PeerAddress};
pub use any::{AnyTransport, NoTransport, TransportKind, UnknownTransport};
pub use cipher::{LinkCipher, UnknownLinkCipher};
pub use frame::Messages;
pub use handshake::Application;
pub use hub::{DownReason, Event, Hub, HubConfig, LinkId, SendError, Source};
pub use keys::{Identity, KeyRing, PublicKey, StaticKey};
pub use limits::Limits;
pub use link::ENVELOPE_BYTES;
pub use memory::{MemoryNetwork, MemoryTransport};
pub use poll::PollTransport;
pub use reject::{Reason, Rejections};
pub use tcp_state::TcpState;
pub use transport::{Completion, ConnectionId, ListenerId, Transport, TransportError, Waker};
#[cfg(target_os = "linux")]
pub use uring::UringTransport;
