//! Addresses as the group file has them.

use std::net::{SocketAddr, SocketAddrV6};

/// The address that a text means: an IP address and a port. An IPv6 address may have a zone,
/// `[fe80::1%eth0]:7100`, by the name of an interface of this machine or by its number. A name means
/// whatever number the interface has now, so that machines can share the file.
///
/// # Errors
/// What would be right.
pub(super) fn parse(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let malformed = || {
        "write an IP address and a port, as in \"192.0.2.7:7100\" or \"[fe80::1%eth0]:7100\"; names of \
         hosts are not looked up"
            .to_owned()
    };
    let (start, rest) = text.split_once('%').ok_or_else(malformed)?;
    let (zone, port) = rest.rsplit_once("]:").ok_or_else(malformed)?;
    let address: SocketAddrV6 = format!("{start}]:{port}").parse().map_err(|_| malformed())?;
    let number = number_of(zone).ok_or_else(|| {
        format!(
            "this machine has no network interface \"{zone}\"; `ip link` lists those that it has"
        )
    })?;
    Ok(SocketAddrV6::new(*address.ip(), address.port(), address.flowinfo(), number).into())
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
        for text in ["192.0.2.7:7100", "[2001:db8::1]:7100", "[fe80::1%3]:7100"] {
            assert_eq!(parse(text).unwrap().to_string(), text);
        }
        for text in ["", "nowhere", "host:7100", "192.0.2.7", "[::1%lo]", "192.0.2.7%lo]:1", "%]:"]
        {
            let cure = parse(text).unwrap_err();
            assert!(cure.contains("192.0.2.7:7100"), "{text}: {cure}");
        }
        for zone in ["no-such-interface", "", "../lo", "..", "a b"] {
            let cure = parse(&format!("[fe80::1%{zone}]:7100")).unwrap_err();
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
        let SocketAddr::V6(address) = parse("[fe80::1%lo]:7100").unwrap() else { panic!("IPv4") };
        assert_eq!(address.ip().to_string(), "fe80::1");
        assert!(address.scope_id() > 0 && address.port() == 7100);
    }
}
