//! What a service manager is told: that the replica is ready, that it still runs, that it stops.
//!
//! The protocol is a datagram of text to the socket named by `NOTIFY_SOCKET` (`man sd_notify`), so
//! it is a page here and no package. Without the variable nothing is sent.

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// The line to the service manager, if there is one.
#[derive(Debug)]
pub(crate) struct Manager {
    socket: Option<UnixDatagram>,
    /// Time between two signs of life, if the manager wants any.
    period: Option<Duration>,
    last: Instant,
}

impl Manager {
    /// As the environment says. What cannot be used is logged, and the replica goes on without.
    pub(crate) fn from_environment() -> Self {
        let name = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty());
        let socket = name.and_then(|name| match connect(name.as_bytes()) {
            Ok(socket) => Some(socket),
            Err(error) => {
                log::warn!("NOTIFY_SOCKET is {name:?}, which cannot be used: {error}");
                None
            }
        });
        let period = std::env::var("WATCHDOG_USEC").ok().and_then(|text| period(&text));
        Self { socket, period, last: Instant::now() }
    }

    /// The replica listens.
    pub(crate) fn ready(&mut self, what: &str) {
        // A line, whatever is in it.
        self.send(&format!("READY=1\nSTATUS={}", what.replace('\n', " ")));
    }

    /// The replica stops because it was told to.
    pub(crate) fn stopping(&mut self) {
        self.send("STOPPING=1");
    }

    /// The replica still runs. To be called more often than the manager wants signs of life.
    pub(crate) fn alive(&mut self) {
        if self.period.is_some_and(|period| self.last.elapsed() >= period) {
            self.last = Instant::now();
            self.send("WATCHDOG=1");
        }
    }

    fn send(&mut self, text: &str) {
        if let Some(socket) = &self.socket
            && let Err(error) = socket.send(text.as_bytes())
        {
            log::warn!("the service manager was not told {text:?}: {error}");
        }
    }
}

/// A name that begins with `@` is in the abstract name space.
fn connect(name: &[u8]) -> io::Result<UnixDatagram> {
    let address = match name.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(name))?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    // A manager that does not read must not stop the replica.
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A third of what the manager waits, so that one sign may be late.
fn period(microseconds: &str) -> Option<Duration> {
    let wait = microseconds.parse().ok().filter(|wait| *wait > 0)?;
    Some(Duration::from_micros(wait) / 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 256];
        let count = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }

    #[test]
    fn a_manager_is_told_in_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let abstract_name = format!("hybster-test-{}", std::process::id());
        let abstract_address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        for (listener, name) in [
            (UnixDatagram::bind(&path).unwrap(), path.to_str().unwrap().to_owned()),
            (UnixDatagram::bind_addr(&abstract_address).unwrap(), format!("@{abstract_name}")),
        ] {
            listener.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let socket = Some(connect(name.as_bytes()).unwrap());
            let mut manager =
                Manager { socket, period: Some(Duration::ZERO), last: Instant::now() };
            manager.ready("replica 1\nlistens");
            assert_eq!(told(&listener), "READY=1\nSTATUS=replica 1 listens");
            manager.alive();
            assert_eq!(told(&listener), "WATCHDOG=1");
            manager.stopping();
            assert_eq!(told(&listener), "STOPPING=1");
        }
        assert!(connect(b"/nowhere/to/be/found").is_err());
    }

    #[test]
    fn without_a_watchdog_nobody_wants_signs_of_life() {
        assert_eq!(period("30000000"), Some(Duration::from_secs(10)));
        assert_eq!((period("0"), period("soon")), (None, None));
    }
}
