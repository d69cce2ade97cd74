//! Opening the hub of a replica, whose address a process that was just killed may still hold.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use hybster_net::hub::HubError;
use hybster_net::{AnyTransport, Hub, HubConfig, TransportKind};

use super::StartError;

/// How long a start waits for its address. A killed process is gone before its sockets are: the
/// kernel closes those that an io_uring uses in the background, some milliseconds later.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// How long to find out whether somebody answers at an address that is taken.
const PROBE: Duration = Duration::from_millis(500);

/// A hub that listens, and the kind of its transport.
///
/// # Errors
/// If there is no transport, the configuration contradicts itself, or the address cannot be had.
pub(super) fn open_hub(
    kind: TransportKind,
    config: HubConfig,
) -> Result<(Hub<AnyTransport>, TransportKind), StartError> {
    let address = match attempt(kind, config.clone()) {
        Err(StartError::Network(HubError::Listen { address, error })) if is_in_use(&error) => {
            address
        }
        opened => return opened,
    };
    log::info!("{address} is in use; waiting up to {} s for it", PATIENCE.as_secs());
    let deadline = Instant::now() + PATIENCE;
    // Not with hubs: each would open a transport of its own.
    while let Err(error) = TcpListener::bind(address) {
        if !is_in_use(&error) || Instant::now() >= deadline {
            return Err(refused(address, error));
        }
        thread::sleep(PAUSE);
    }
    match attempt(kind, config) {
        Err(StartError::Network(HubError::Listen { address, error })) => {
            Err(refused(address, error))
        }
        opened => opened,
    }
}

fn attempt(
    kind: TransportKind,
    config: HubConfig,
) -> Result<(Hub<AnyTransport>, TransportKind), StartError> {
    let transport = AnyTransport::new(kind)?;
    let kind = transport.kind();
    Ok((Hub::new(transport, config)?, kind))
}

fn is_in_use(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn refused(address: SocketAddr, error: io::Error) -> StartError {
    if !is_in_use(&error) {
        return HubError::Listen { address, error }.into();
    }
    match TcpStream::connect_timeout(&address, PROBE) {
        Ok(_) => StartError::AddressTaken { address },
        Err(_) => StartError::AddressHeld { address },
    }
}
