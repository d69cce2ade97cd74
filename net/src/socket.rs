//! What the back ends over TCP ask of a socket, however they wait for it.

use std::io;
use std::time::Duration;

use socket2::{Socket, TcpKeepalive};

/// Sets the options that every connection has. TCP acknowledges nothing while there is nothing to
/// send, so a peer that vanished is found by `keepalive` on an idle link, and by `unacknowledged`
/// where bytes are on their way.
pub(crate) fn set_options(
    socket: &Socket,
    keepalive: Duration,
    unacknowledged: Duration,
) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(keepalive).with_interval(keepalive);
    socket.set_tcp_keepalive(&probes)?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(unacknowledged))?;
    Ok(())
}

/// How an attempt to connect went: `true` if it is connected, `false` if it is not decided yet.
pub(crate) fn connect_result(socket: &Socket) -> io::Result<bool> {
    if let Some(error) = socket.take_error()? {
        return Err(error);
    }
    match socket.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}
