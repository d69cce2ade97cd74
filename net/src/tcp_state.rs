//! What the kernel knows about a TCP connection: its round trip, and what the other host has not
//! acknowledged. Two system calls, so for rare questions only.
//!
//! `unsafe` is allowed here for these two calls, which the safe wrappers that we use do not offer.
#![allow(unsafe_code)]

use std::time::Duration;

/// The state of a TCP connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpState {
    /// The smoothed round trip; zero if it is not known.
    pub round_trip: Duration,
    /// Bytes that the kernel took and the other host has not acknowledged.
    pub unacknowledged_bytes: usize,
}

/// Asks the kernel. What it does not tell stays zero.
#[cfg(target_os = "linux")]
pub(crate) fn tcp_state(socket: std::os::fd::BorrowedFd<'_>) -> TcpState {
    use std::mem::{MaybeUninit, size_of};
    use std::os::fd::AsRawFd;

    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = size_of::<libc::tcp_info>() as libc::socklen_t;
    // SAFETY: the descriptor is open for the whole call, as it is borrowed. `info` is valid for
    // writes of `length` bytes, and the kernel writes at most that many.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    // SAFETY: `tcp_info` consists of integers, for which all bits zero is a value; the kernel
    // replaced some of them.
    let info = unsafe { info.assume_init() };
    let round_trip_us = if asked == 0 { info.tcpi_rtt } else { 0 };
    let mut queued: libc::c_int = 0;
    // SAFETY: the descriptor is open, and SIOCOUTQ (TIOCOUTQ by another name) writes one `int`.
    let counted = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
    TcpState {
        round_trip: Duration::from_micros(round_trip_us.into()),
        unacknowledged_bytes: if counted == 0 { usize::try_from(queued).unwrap_or(0) } else { 0 },
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::time::Instant;

    #[test]
    fn what_is_not_acknowledged_is_counted_and_the_round_trip_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        near.write_all(b"x").unwrap();
        far.read_exact(&mut [0]).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while tcp_state(near.as_fd()).unacknowledged_bytes > 0 {
            assert!(Instant::now() < deadline, "one byte is acknowledged");
            std::thread::yield_now();
        }
        assert!(tcp_state(near.as_fd()).round_trip > Duration::ZERO);
        // Nobody reads, so what fills the sender's buffer stays.
        near.set_nonblocking(true).unwrap();
        while near.write(&[0; 1 << 16]).is_ok() {}
        assert!(tcp_state(near.as_fd()).unacknowledged_bytes > 0);
    }

    #[test]
    fn what_is_no_tcp_socket_has_no_state() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert_eq!(tcp_state(socket.as_fd()), TcpState::default());
    }
}
