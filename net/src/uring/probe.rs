//! Whether this process can use `io_uring` as we need it: tested once, by using it.

use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;
use std::time::Duration;

use super::ring::{Event, Ring, Token};
use crate::blocks::Blocks;
use crate::limits::UringLimits;

/// A receive that stays armed is a flag and not an operation, so the kernel cannot be asked whether
/// it has it: it is tried.
pub(super) fn check() -> io::Result<()> {
    static RESULT: OnceLock<Result<(), (io::ErrorKind, String)>> = OnceLock::new();
    let result = RESULT.get_or_init(|| attempt().map_err(|it| (it.kind(), it.to_string())));
    result.clone().map_err(|(kind, text)| io::Error::new(kind, text))
}

fn attempt() -> io::Result<()> {
    let limits = UringLimits {
        submissions: 8,
        completions: 16,
        buffers: 4,
        buffer_bytes: 4096,
        ..UringLimits::default()
    };
    let mut ring = Ring::new(&limits)?;
    let (mut there, here) = UnixStream::pair()?;
    ring.receive(here.as_fd(), Token(1))?;
    let (mut blocks, mut events) = (Blocks::new(4096, 1), Vec::new());
    for round in 0..2 {
        there.write_all(&[round])?;
        ring.enter(Some(Some(PATIENCE)), &mut blocks, &mut events)?;
        let arrived = matches!(&events[..], [Event::Received { data, .. }] if data[..] == [round]);
        if !arrived {
            let text = "this kernel's io_uring lacks receives that stay armed";
            return Err(io::Error::new(io::ErrorKind::Unsupported, text));
        }
        events.clear();
    }
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(1);
