//! Addresses as the group file has them.

use std::net::{SocketAddr, SocketAddrV6};

use hybster_net::{AddressError, PeerAddress};

/// A text that is no address of a replica; says what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadAddress {
    /// It is neither an address nor a name with a port.
    #[error(transparent)]
    Malformed(#[from] AddressError),
    /// A zone is where none can be.
    #[error(
        "write an address with a zone and a port as in \"[fe80::1%eth0]:7100\"; one without a zone as in \
         \"192.0.2.7:7100\""
    )]
    Zone,
    /// This machine has no such interface.
    #[error("this machine has no network interface \"{0}\"; `ip link` lists those that it has")]
    NoInterface(String),
}

/// The address that a text means: an IP address or the name of a host, and a port. A name is looked up
/// before each attempt to connect, not here. An IPv6 address may have a zone,
/// `[fe80::1%eth0]:7100`, by the name of an interface of this machine or by its number. A name means
/// whatever number the interface has now, so that machines can share the file.
///
/// # Errors
/// What would be right.
pub fn parse(text: &str) -> Result<PeerAddress, BadAddress> {
    // A zone by its number is a part of what the standard library reads.
    let zoned = text.split_once('%').filter(|_| text.parse::<SocketAddr>().is_err());
    let Some((start, rest)) = zoned else {
        return Ok(text.parse()?);
    };
    let (zone, port) = rest.rsplit_once("]:").ok_or(BadAddress::Zone)?;
    let address: SocketAddrV6 = format!("{start}]:{port}").parse().map_err(|_| BadAddress::Zone)?;
    let number = number_of(zone).ok_or_else(|| BadAddress::NoInterface(zone.to_owned()))?;
    let address = SocketAddrV6::new(*address.ip(), address.port(), address.flowinfo(), number);
    Ok(PeerAddress::Ip(address.into()))
}

/// The number of an interface of this machine.
#[cfg(target_os = "linux")]
fn number_of(interface: &str) -> Option<u32> {
    // The name becomes a part of a path.
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_".contains(c);
    if interface.starts_with('.') || !interface.chars().all(is_plain) {
        return None;
    }
    let text = std::fs::read_to_string(format!("/sys/class/net/{interface}/ifindex")).ok()?;
    text.trim().parse().ok()
}

#[cfg(not(target_os = "linux"))]
fn number_of(_: &str) -> Option<u32> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_port_and_perhaps_a_zone() {
        for text in ["192.0.2.7:7100", "[2001:db8::1]:7100", "[fe80::1%3]:7100", "host:7100"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in ["", "nowhere", "192.0.2.7", "[::1%lo]", "192.0.2.7%lo]:1", "%]:"] {
            let cure = parse(text).unwrap_err().to_string();
            assert!(cure.contains("192.0.2.7:7100"), "{text}: {cure}");
        }
        for zone in ["no-such-interface", "", "../lo", "..", "a b"] {
            let cure = parse(&format!("[fe80::1%{zone}]:7100")).unwrap_err().to_string();
            assert!(cure.contains("no network interface"), "{zone}: {cure}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_zone_may_be_the_name_of_an_interface() {
        if !std::path::Path::new("/sys/class/net/lo/ifindex").exists() {
            eprintln!("skipped: there is no interface lo");
            return;
        }
        let address = parse("[fe80::1%lo]:7100").unwrap().ip().expect("it is no name");
        let SocketAddr::V6(address) = address else { panic!("IPv4") };
        assert_eq!(address.ip().to_string(), "fe80::1");
        assert!(address.scope_id() > 0 && address.port() == 7100);
    }
}
