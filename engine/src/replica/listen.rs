//! Opening the hub of a replica, whose address a process that was just killed may still hold.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use hybster_net::hub::HubError;
use hybster_net::{AnyTransport, Hub, HubConfig, PeerAddress, TransportKind};

use super::StartError;

/// How long a start waits for its address. A killed process is gone before its sockets are: the
/// kernel closes those that an io_uring uses in the background, some milliseconds later.
const PATIENCE: Duration = Duration::from_secs(3);
/// Time between two attempts.
const PAUSE: Duration = Duration::from_millis(20);
/// How long to find out whether somebody answers at an address that is taken.
const PROBE: Duration = Duration::from_millis(500);

/// How long a start waits for the name of its own host to appear.
const NAME_PATIENCE: Duration = Duration::from_secs(10);
/// Time between two look-ups.
const NAME_PAUSE: Duration = Duration::from_millis(500);

/// The address to listen on: of those that a name has, the first one that is of this machine.
///
/// # Errors
/// If there is none, after some seconds in which the name may appear.
pub(super) fn own_address(address: &PeerAddress) -> Result<SocketAddr, StartError> {
    own_address_within(address, NAME_PATIENCE)
}

fn own_address_within(address: &PeerAddress, patience: Duration) -> Result<SocketAddr, StartError> {
    let (name, port) = match address {
        PeerAddress::Ip(address) => return Ok(*address),
        PeerAddress::Host { name, port } => (name, *port),
    };
    let deadline = Instant::now() + patience;
    let mut is_told = false;
    loop {
        let cause = match (&**name, port).to_socket_addrs() {
            Ok(addresses) => {
                let addresses: Vec<SocketAddr> = addresses.collect();
                let is_own = |it: &SocketAddr| TcpListener::bind((it.ip(), 0)).is_ok();
                let own: Vec<SocketAddr> = addresses.iter().copied().filter(is_own).collect();
                if let Some(best) = best_of(&own) {
                    if best.ip().is_loopback() && &**name != "localhost" {
                        log::warn!(
                            "{address} leads to {best} here, which no other machine can reach; if there \
                             are others, use --listen 0.0.0.0:{port}"
                        );
                    }
                    return Ok(best);
                }
                format!("none of its addresses {addresses:?} is one of this machine")
            }
            Err(error) => format!("the name could not be looked up: {error}"),
        };
        if Instant::now() >= deadline {
            return Err(StartError::OwnName { address: address.clone(), cause });
        }
        if !std::mem::replace(&mut is_told, true) {
            log::warn!("{address}: {cause}; waiting up to {} s for it", patience.as_secs());
        }
        thread::sleep(NAME_PAUSE.min(patience));
    }
}

/// An address that others can reach, if there is one: many systems give their own name a loopback
/// address as well.
fn best_of(own: &[SocketAddr]) -> Option<SocketAddr> {
    own.iter().find(|it| !it.ip().is_loopback()).or(own.first()).copied()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_an_address_of_this_machine_or_says_why_not() {
        let parse = |text: &str| text.parse::<PeerAddress>().unwrap();
        let own = own_address_within(&parse("localhost:7"), Duration::ZERO).unwrap();
        assert!(own.ip().is_loopback() && own.port() == 7, "{own}");
        let ip = own_address_within(&parse("192.0.2.7:7"), Duration::ZERO).unwrap();
        assert_eq!(ip.to_string(), "192.0.2.7:7");
        let error = own_address_within(&parse("no-such-host.invalid:7"), Duration::ZERO);
        let text = error.unwrap_err().to_string();
        assert!(text.contains("no-such-host.invalid:7") && text.contains("--listen"), "{text}");
    }

    #[test]
    fn an_address_that_others_can_reach_is_preferred() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (loopback, other) = (at("127.0.1.1:7"), at("192.0.2.7:7"));
        assert_eq!(best_of(&[loopback, other]), Some(other));
        assert_eq!(best_of(&[loopback, at("[::1]:7")]), Some(loopback));
        assert_eq!(best_of(&[]), None);
    }
}
