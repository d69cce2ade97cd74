//! Opening the transport that was asked for.

use std::io;

use hybster_net::{AnyTransport, TransportKind};

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

/// A transport without connections, of the kind that was asked for. Only [`TransportKind::Auto`]
/// takes epoll where there is no `io_uring`; what is named must be had.
///
/// # Errors
/// If `io_uring` is named and missing, with the reason; or if there is no event queue.
pub fn open_transport(kind: TransportKind) -> Result<AnyTransport, NoTransport> {
    if kind == TransportKind::IoUring {
        return io_uring().map_err(NoTransport::IoUring);
    }
    AnyTransport::new(kind).map_err(NoTransport::EventQueue)
}

// Not by `AnyTransport::new`, which takes epoll with a warning.
#[cfg(target_os = "linux")]
fn io_uring() -> io::Result<AnyTransport> {
    use hybster_net::UringTransport;
    use hybster_net::limits::UringLimits;

    UringTransport::new(UringLimits::default())
        .map(|transport| AnyTransport::IoUring(Box::new(transport)))
}

#[cfg(not(target_os = "linux"))]
fn io_uring() -> io::Result<AnyTransport> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "only Linux has it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_named_is_had_or_refused() {
        assert_eq!(open_transport(TransportKind::Epoll).unwrap().kind(), TransportKind::Epoll);
        assert_ne!(open_transport(TransportKind::Auto).unwrap().kind(), TransportKind::Auto);
        match open_transport(TransportKind::IoUring) {
            Ok(transport) => assert_eq!(transport.kind(), TransportKind::IoUring),
            Err(error) => assert!(error.to_string().contains("io-uring cannot be had"), "{error}"),
        }
    }
}
