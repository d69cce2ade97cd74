//! The choice of a back end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::limits::PollLimits;
#[cfg(target_os = "linux")]
use crate::limits::UringLimits;
use crate::poll::PollTransport;
use crate::tcp_state::TcpState;
use crate::transport::{Completion, ConnectionId, ListenerId, Transport, TransportError, Waker};
#[cfg(target_os = "linux")]
use crate::uring::UringTransport;

/// Which back end carries the bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransportKind {
    /// `io_uring` where the system has what it needs, else epoll.
    #[default]
    Auto,
    /// `io_uring`; epoll, with a warning, where the system lacks it.
    IoUring,
    /// epoll.
    Epoll,
}

/// A name that no transport has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not a transport: write \"auto\", \"io-uring\" or \"epoll\"")]
pub struct UnknownTransport(String);

impl TransportKind {
    const ALL: [Self; 3] = [Self::Auto, Self::IoUring, Self::Epoll];

    /// The name in configuration files and on command lines.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::IoUring => "io-uring",
            Self::Epoll => "epoll",
        }
    }
}

impl fmt::Display for TransportKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TransportKind {
    type Err = UnknownTransport;

    fn from_str(name: &str) -> Result<Self, UnknownTransport> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.ok_or_else(|| UnknownTransport(name.to_owned()))
    }
}

/// TCP over whichever back end was chosen.
#[derive(Debug)]
pub enum AnyTransport {
    /// epoll.
    Epoll(Box<PollTransport>),
    /// `io_uring`.
    #[cfg(target_os = "linux")]
    IoUring(Box<UringTransport>),
}

impl AnyTransport {
    /// A transport without connections. Where `io_uring` is missing it is epoll, and a log line
    /// says why.
    ///
    /// # Errors
    /// If the operating system gives no epoll instance either.
    pub fn new(kind: TransportKind) -> io::Result<Self> {
        #[cfg(target_os = "linux")]
        if kind != TransportKind::Epoll {
            match UringTransport::new(UringLimits::default()) {
                Ok(transport) => return Ok(Self::IoUring(Box::new(transport))),
                Err(error) if kind == TransportKind::Auto => {
                    log::info!("the transport is epoll, because io_uring cannot be used: {error}");
                }
                Err(error) => {
                    log::warn!("io_uring cannot be used, so the transport is epoll: {error}");
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        if kind == TransportKind::IoUring {
            log::warn!("only Linux has io_uring, so the transport uses readiness calls");
        }
        Ok(Self::Epoll(Box::new(PollTransport::new(PollLimits::default())?)))
    }

    /// The back end in use; never [`TransportKind::Auto`].
    #[must_use]
    pub const fn kind(&self) -> TransportKind {
        match self {
            Self::Epoll(_) => TransportKind::Epoll,
            #[cfg(target_os = "linux")]
            Self::IoUring(_) => TransportKind::IoUring,
        }
    }
}

macro_rules! delegate {
    ($self:ident, $it:ident => $call:expr) => {
        match $self {
            AnyTransport::Epoll($it) => $call,
            #[cfg(target_os = "linux")]
            AnyTransport::IoUring($it) => $call,
        }
    };
}

impl Transport for AnyTransport {
    fn listen(&mut self, address: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
        delegate!(self, it => it.listen(address))
    }

    fn connect(&mut self, address: SocketAddr) -> ConnectionId {
        delegate!(self, it => it.connect(address))
    }

    fn send(&mut self, connection: ConnectionId, buffer: Vec<u8>) {
        delegate!(self, it => it.send(connection, buffer));
    }

    fn close(&mut self, connection: ConnectionId) {
        delegate!(self, it => it.close(connection));
    }

    fn pause_reading(&mut self, connection: ConnectionId, paused: bool) {
        delegate!(self, it => it.pause_reading(connection, paused));
    }

    fn tcp_state(&self, connection: ConnectionId) -> TcpState {
        delegate!(self, it => it.tcp_state(connection))
    }

    fn poll(
        &mut self,
        timeout: Option<Duration>,
        completions: &mut Vec<Completion>,
    ) -> Result<(), TransportError> {
        delegate!(self, it => it.poll(timeout, completions))
    }

    fn waker(&self) -> Waker {
        delegate!(self, it => it.waker())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_round_trip() {
        for kind in TransportKind::ALL {
            assert_eq!(kind.to_string().parse(), Ok(kind));
        }
        assert!("tcp".parse::<TransportKind>().unwrap_err().to_string().contains("\"epoll\""));
    }

    #[test]
    fn what_was_asked_for_is_made_or_epoll() {
        assert_eq!(AnyTransport::new(TransportKind::Epoll).unwrap().kind(), TransportKind::Epoll);
        for kind in TransportKind::ALL {
            assert_ne!(AnyTransport::new(kind).unwrap().kind(), TransportKind::Auto);
        }
    }
}
