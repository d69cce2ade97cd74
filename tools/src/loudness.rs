//! Which log lines a running replica writes: SIGUSR1 is one level more, SIGUSR2 what it was started
//! with.
//!
//! Signals and not the address of `--metrics`: the system lets only the replica's own user and root
//! send one, while that address has no password, and whoever reached it could have every frame
//! logged until the disk is full.

use std::io;

use hybster::logging;
use signal_hook::consts::{SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

use crate::Failure;

/// Does what signals say, until the process ends.
///
/// # Errors
/// If the system takes no handler or gives no thread.
pub(crate) fn follow_signals() -> Result<(), Failure> {
    let Some(first) = logging::filter() else {
        return Ok(());
    };
    let why = |error: io::Error| {
        Failure::new(format!("signals for the log's level cannot be received: {error}"))
    };
    let mut signals = Signals::new([SIGUSR1, SIGUSR2]).map_err(why)?;
    let follow = move || {
        for signal in signals.forever() {
            let before = logging::filter().unwrap_or_else(|| first.clone());
            let next = if signal == SIGUSR1 { before.louder() } else { first.clone() };
            let name = if signal == SIGUSR1 { "SIGUSR1" } else { "SIGUSR2" };
            let text = next.to_string();
            // Who makes the log quieter than info still sees this line.
            log::info!("{name}: the log's level changes from {before} to {text}");
            if let Err(error) = logging::set_filter(next) {
                log::error!("{name}: {error}");
            }
            log::debug!("the log's level is {text}");
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(follow).map_err(why)?;
    Ok(())
}
