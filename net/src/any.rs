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
    /// `io_uring`, and nothing else where the system lacks it.
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

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NoTransport {
    /// `io_uring` was asked for by name, and this process cannot have it.
    #[error(
        "the transport io-uring cannot be had here: {0}; allow io_uring (a container's seccomp \
         profile and the sysctl kernel.io_uring_disabled can forbid it, and old kernels lack it), or \
         choose the transport epoll, or auto, which takes epoll where there is no io_uring"
    )]
    IoUring(io::Error),
    /// The system's event queue could not be made.
    #[error(
        "the system's event queue could not be made: {0}; check the limit of open files (ulimit -n)"
    )]
    EventQueue(io::Error),
}

impl AnyTransport {
    /// A transport without connections, of the kind that was asked for. Only
    /// [`TransportKind::Auto`] takes epoll where `io_uring` cannot be had, and a log line says why;
    /// what is named must be had.
    ///
    /// # Errors
    /// If `io_uring` is named and missing, with the reason; or if there is no event queue.
    pub fn new(kind: TransportKind) -> Result<Self, NoTransport> {
        Self::choose(kind, io_uring)
    }

    fn choose(
        kind: TransportKind,
        io_uring: impl FnOnce() -> io::Result<Self>,
    ) -> Result<Self, NoTransport> {
        if kind != TransportKind::Epoll {
            match io_uring() {
                Ok(transport) => return Ok(transport),
                Err(error) if kind == TransportKind::IoUring => {
                    return Err(NoTransport::IoUring(error));
                }
                Err(error) => {
                    log::info!("the transport is epoll, because io_uring cannot be used: {error}");
                }
            }
        }
        let epoll = PollTransport::new(PollLimits::default()).map_err(NoTransport::EventQueue)?;
        Ok(Self::Epoll(Box::new(epoll)))
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

#[cfg(target_os = "linux")]
fn io_uring() -> io::Result<AnyTransport> {
    let transport = UringTransport::new(UringLimits::default())?;
    Ok(AnyTransport::IoUring(Box::new(transport)))
}

#[cfg(not(target_os = "linux"))]
fn io_uring() -> io::Result<AnyTransport> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has it"))
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
    fn what_is_named_is_had_or_refused() {
        use TransportKind::{Auto, Epoll, IoUring};

        let missing = || Err(io::Error::other("forbidden here"));
        assert_eq!(AnyTransport::choose(Auto, missing).unwrap().kind(), Epoll);
        let error = AnyTransport::choose(IoUring, missing).unwrap_err().to_string();
        assert!(error.contains("io-uring cannot be had here: forbidden here"), "{error}");
        let never = || panic!("epoll is named");
        assert_eq!(AnyTransport::choose(Epoll, never).unwrap().kind(), Epoll);
        // With what this machine has.
        assert_ne!(AnyTransport::new(Auto).unwrap().kind(), Auto);
        match AnyTransport::new(IoUring) {
            Ok(transport) => assert_eq!(transport.kind(), IoUring),
            Err(error) => assert!(matches!(error, NoTransport::IoUring(_)), "{error}"),
        }
    }
}
