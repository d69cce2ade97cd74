//! One connection of the transport: its socket and the bytes that wait on both sides of it.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;

use bytes::BytesMut;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A connection of the transport.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: Socket,
    pub(super) phase: Phase,
    pub(super) outgoing: VecDeque<Vec<u8>>,
    /// Bytes of the first outgoing buffer that are sent already.
    pub(super) sent: usize,
    /// The socket has no room; the ring reports when it has again.
    pub(super) is_full: bool,
    /// Whether the transport's list `unsent` has it.
    pub(super) is_unsent: bool,
    pub(super) is_receiving: bool,
    /// Something came since the receive was armed.
    pub(super) has_received: bool,
    pub(super) paused: bool,
    /// What arrived while reading was paused.
    pub(super) held: Vec<BytesMut>,
    /// How the stream ended, if it did while reading was paused.
    pub(super) held_end: Option<Option<io::Error>>,
    pub(super) write_error: Option<io::ErrorKind>,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Open,
}

impl Connection {
    /// A connection with nothing to send and nothing armed.
    pub(super) const fn new(socket: Socket, phase: Phase) -> Self {
        Self {
            socket,
            phase,
            outgoing: VecDeque::new(),
            sent: 0,
            is_full: false,
            is_unsent: false,
            is_receiving: false,
            has_received: false,
            paused: false,
            held: Vec::new(),
            held_end: None,
            write_error: None,
        }
    }

    /// Tries once to send what is queued.
    pub(super) fn write_once(&self) {
        if self.outgoing.is_empty() || self.is_full {
            return;
        }
        let mut skip = self.sent;
        let slices: Vec<IoSlice<'_>> = self
            .outgoing
            .iter()
            .map(|buffer| IoSlice::new(&buffer[std::mem::take(&mut skip)..]))
            .collect();
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        let _ = self.socket.send_vectored_with_flags(&slices, flags);
    }
}

/// A socket that is connecting.
pub(super) fn start_to_connect(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&SockAddr::from(address)) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {}
        Err(error) => return Err(error),
    }
    // The ring arms operations only on blocking descriptors; on others they fail at once.
    socket.set_nonblocking(false)?;
    Ok(socket)
}

/// Where a connection that was accepted comes from.
pub(super) fn address_of(socket: &Socket) -> io::Result<SocketAddr> {
    let address = socket.peer_addr()?.as_socket();
    address.ok_or_else(|| io::Error::other("an accepted connection has no internet address"))
}
