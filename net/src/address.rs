//! Where a replica can be reached: an IP address, or the name of a host that is looked up each time.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

/// Longest name of a host, in bytes (RFC 1035).
const NAME_BYTES: usize = 253;
/// Longest part of a name between two dots, in bytes.
const LABEL_BYTES: usize = 63;

/// Where a replica can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum PeerAddress {
    /// An address that needs no look-up.
    Ip(SocketAddr),
    /// A host that is looked up before each attempt to connect, since its address may change.
    Host {
        /// The name of the host.
        name: Arc<str>,
        /// The port.
        port: u16,
    },
}

impl PeerAddress {
    /// The address, if no look-up is needed.
    #[must_use]
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Host { .. } => None,
        }
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(address) => address.port(),
            Self::Host { port, .. } => *port,
        }
    }
}

impl From<SocketAddr> for PeerAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => fmt::Display::fmt(address, f),
            Self::Host { name, port } => write!(f, "{name}:{port}"),
        }
    }
}

/// A text that is no address of a replica; says what is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// There is no port, or no host.
    #[error(
        "write an address or the name of a host, and a port, as in \"192.0.2.7:7100\", \
         \"[2001:db8::7]:7100\" or \"replica-0.example.org:7100\""
    )]
    NoPort,
    /// The port is no number from 0 to 65535.
    #[error("the port after the last colon is a number up to 65535, as in \"192.0.2.7:7100\"")]
    Port,
    /// Four numbers that are no IPv4 address.
    #[error("this is no IPv4 address: it has four numbers up to 255, as in \"192.0.2.7:7100\"")]
    Ipv4,
    /// An IPv6 address is not in brackets, or is none.
    #[error("an IPv6 address is written in brackets, as in \"[2001:db8::7]:7100\"")]
    Ipv6,
    /// The name cannot be one of a host.
    #[error(
        "a host's name has letters, digits, hyphens and dots, at most {NAME_BYTES} bytes, and between \
         dots 1 to {LABEL_BYTES}, as in \"replica-0.example.org:7100\""
    )]
    Name,
}

impl FromStr for PeerAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Ok(address) = text.parse() {
            return Ok(Self::Ip(address));
        }
        let (name, port) = text.rsplit_once(':').ok_or(AddressError::NoPort)?;
        if name.is_empty() {
            return Err(AddressError::NoPort);
        }
        if name.contains([':', '[', ']']) {
            return Err(AddressError::Ipv6);
        }
        let is_number = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|_| is_number).ok_or(AddressError::Port)?;
        // A name ends with a letter, so that no address with a slip is taken for one (RFC 3696).
        if name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
            return Err(AddressError::Ipv4);
        }
        let is_name =
            name.len() <= NAME_BYTES && name.trim_end_matches('.').split('.').all(is_label);
        if !is_name || name.ends_with("..") {
            return Err(AddressError::Name);
        }
        Ok(Self::Host { name: name.into(), port })
    }
}

/// Part of a name; underscores are in use where names are those of services.
fn is_label(label: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=LABEL_BYTES).contains(&label.len())
        && label.bytes().all(is_plain)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_survive_the_round_trip() {
        for text in ["192.0.2.7:7100", "[2001:db8::1]:7100", "[fe80::1%3]:7100"] {
            let address: PeerAddress = text.parse().unwrap();
            assert_eq!((address.ip(), address.to_string()), (text.parse().ok(), text.to_owned()));
        }
        let name63 = "a".repeat(63);
        let long = format!("{name63}.{name63}.{name63}.{}:1", "b".repeat(61));
        for text in ["localhost:7100", "a.example.org.:0", "r_0-x.svc:65535", "7.a:1", &long] {
            let address: PeerAddress = text.parse().unwrap();
            assert_eq!((address.ip(), address.to_string()), (None, text.to_owned()));
        }
        let at = |text: &str| text.parse::<PeerAddress>().unwrap().port();
        assert_eq!((at("localhost:7"), at("[::1]:8")), (7, 8));
    }

    #[test]
    fn what_is_neither_is_refused_with_what_would_be_right() {
        use AddressError::{Ipv4, Ipv6, Name, NoPort, Port};
        let long = format!("{}:1", "a.".repeat(130));
        for (text, error) in [
            ("", NoPort),
            ("nowhere", NoPort),
            (":7100", NoPort),
            ("host:", Port),
            ("host:70000", Port),
            ("host:+1", Port),
            ("host:seven", Port),
            ("192.0.2.256:7100", Ipv4),
            ("192.0.2:7100", Ipv4),
            ("2001:db8::1:7100", Ipv6),
            ("[2001:db8::1:7100", Ipv6),
            ("[host]:7100", Ipv6),
            ("a..b:1", Name),
            ("a..:1", Name),
            (".a:1", Name),
            ("-a:1", Name),
            ("a-:1", Name),
            ("a b:1", Name),
            ("a/b:1", Name),
            ("ä:1", Name),
            (&long, Name),
        ] {
            assert_eq!(text.parse::<PeerAddress>(), Err(error), "{text}");
            assert!(error.to_string().contains(":7100"), "{error}");
        }
    }
}
