//! Replicas in network namespaces of their own, whose wires can be cut and slowed down.
//!
//! ```text
//!   namespace of this program                        namespace of replica N
//!   load, bridge 10.213.0.1 ── rN ════ veth ════ eth0  10.213.0.(10+N)
//! ```
//!
//! This program starts itself again in a namespace ([`enter`]), where it may make others, as root or in a user
//! namespace. Nothing of it is seen by the rest of the machine, and nothing stays: namespaces end with their
//! processes. The work is that of the programs `unshare`, `nsenter` (util-linux), `ip` and `tc` (iproute2).

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Error;
use crate::options::Slow;

/// Says that this process is in a namespace of its own.
const INSIDE: &str = "HYBSTER_BENCH_IN_NAMESPACE";
/// The addresses of replicas: this and their numbers.
const FIRST_ADDRESS: u8 = 10;
/// The port of all replicas.
const PORT: u16 = 7100;
/// Longest wait for a process to be in its namespace.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a packet waits for a slow wire at most, before it is dropped.
const QUEUE_MS: u32 = 400;
/// The device of a replica in its own namespace.
const OWN_DEVICE: &str = "eth0";
const BRIDGE: &str = "br0";

/// Starts this program again in a network namespace, unless it is in one.
///
/// # Errors
/// If this user may not make one, or a program is missing.
pub fn enter() -> Result<(), Error> {
    if std::env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let refused = |why: String| {
        Error::new(format!(
            "--event partition and slow-link need network namespaces of their own, which cannot be had: {why}; \
             run it as root, or where user namespaces are allowed, with util-linux and iproute2 installed"
        ))
    };
    let is_root = rustix::process::geteuid().is_root();
    let how: &[&str] = if is_root { &["--net"] } else { &["--user", "--map-root-user", "--net"] };
    let trial = [how, &["ip", "link", "add", BRIDGE, "type", "bridge"]].concat();
    run("unshare", &trial).map_err(refused)?;
    let program = std::env::current_exe()
        .map_err(|e| Error::new(format!("cannot find this program itself: {e}")))?;
    let mut command = Command::new("unshare");
    command.args(how).arg("--").arg(program).args(std::env::args_os().skip(1)).env(INSIDE, "1");
    // Returns only if that cannot be started.
    Err(refused(command.exec().to_string()))
}

/// The network between the namespaces.
#[derive(Debug, Default)]
pub struct Namespaces {
    /// By replica, the names of its device here, of which it has a new one with each start, and its process.
    wires: Vec<Option<Wire>>,
    made: u32,
}

#[derive(Debug)]
struct Wire {
    device: String,
    pid: u32,
}

impl Namespaces {
    /// The network of this process's own namespace.
    ///
    /// # Errors
    /// If a program is missing or refuses.
    pub fn new() -> Result<Self, Error> {
        expect_inside()?;
        let address = format!("{}/24", Ipv4Addr::new(10, 213, 0, 1));
        tool("ip", &["link", "set", "lo", "up"])?;
        tool("ip", &["link", "add", BRIDGE, "type", "bridge"])?;
        tool("ip", &["address", "add", &address, "dev", BRIDGE])?;
        tool("ip", &["link", "set", BRIDGE, "up"])?;
        Ok(Self::default())
    }

    /// Fails if the kernel cannot make wires as slow as that.
    ///
    /// # Errors
    /// Which module it lacks.
    pub fn check(slow: Slow) -> Result<(), Error> {
        expect_inside()?;
        let words = discipline(slow);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let tried = run("tc", &[&["qdisc", "replace", "dev", "lo", "root"], &words[..]].concat());
        tried.map_err(|why| {
            let (module, cure) = match slow.delay.is_zero() {
                true => ("sch_tbf", "load it, or take another kernel"),
                false => ("sch_netem", "load it, or give a rate without a delay"),
            };
            Error::new(format!(
                "--event slow-link: the kernel refuses such a wire, it may lack {module} ({why}): {cure}"
            ))
        })?;
        tool("tc", &["qdisc", "del", "dev", "lo", "root"])
    }

    /// The addresses of replicas.
    #[must_use]
    pub fn addresses(replicas: u16) -> Vec<SocketAddr> {
        let address = |replica| (address(replica), PORT).into();
        (0..replicas).map(address).collect()
    }

    /// A program in a new namespace, which begins when it hears a line on its standard input.
    #[must_use]
    pub fn wrap(program: &std::ffi::OsStr) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "read -r go && exec \"$@\"", "sh"]).arg(program);
        command
    }

    /// Connects the namespace of a replica's process.
    ///
    /// # Errors
    /// If the process has none in time, or a program refuses.
    pub fn attach(&mut self, replica: u16, pid: u32) -> Result<(), Error> {
        wait_for_namespace(pid)?;
        self.made += 1;
        let device = format!("r{replica}x{}", self.made);
        let namespace = pid.to_string();
        // The same address for each start: neighbours remember it.
        let mac = format!("02:00:00:00:00:{:02x}", replica & 0xff);
        let address = format!("{}/24", address(replica));
        tool(
            "ip",
            &[
                &["link", "add", &device, "type", "veth", "peer", "name", OWN_DEVICE, "address"][..],
                &[&mac, "netns", &namespace],
            ]
            .concat(),
        )?;
        tool("ip", &["link", "set", &device, "master", BRIDGE, "up"])?;
        inside(pid, "ip", &["link", "set", "lo", "up"])?;
        inside(pid, "ip", &["address", "add", &address, "dev", OWN_DEVICE])?;
        inside(pid, "ip", &["link", "set", OWN_DEVICE, "up"])?;
        let place = usize::from(replica);
        self.wires.resize_with(self.wires.len().max(place + 1), || None);
        self.wires[place] = Some(Wire { device, pid });
        Ok(())
    }

    /// Cuts a replica off from everybody, or connects it again.
    ///
    /// # Errors
    /// If `ip` refuses.
    pub fn cut(&self, replica: u16, is_cut: bool) -> Result<(), Error> {
        let wire = self.wire(replica)?;
        tool("ip", &["link", "set", &wire.device, if is_cut { "down" } else { "up" }])
    }

    /// Makes the wire of a replica slow in both directions, or as it was.
    ///
    /// # Errors
    /// If `tc` refuses.
    pub fn slow(&self, replica: u16, slow: Option<Slow>) -> Result<(), Error> {
        let wire = self.wire(replica)?;
        let words = slow.map(discipline);
        let words: Vec<&str> = words.iter().flatten().map(String::as_str).collect();
        let change = |device| match slow {
            Some(_) => [&["qdisc", "replace", "dev", device, "root"], &words[..]].concat(),
            None => vec!["qdisc", "del", "dev", device, "root"],
        };
        tool("tc", &change(&wire.device))?;
        inside(wire.pid, "tc", &change(OWN_DEVICE))
    }

    fn wire(&self, replica: u16) -> Result<&Wire, Error> {
        let wire = self.wires.get(usize::from(replica)).and_then(Option::as_ref);
        wire.ok_or_else(|| Error::new(format!("replica {replica} has no wire of its own")))
    }
}

/// The network of the machine itself is never touched.
fn expect_inside() -> Result<(), Error> {
    let outside = || Error::new("this process is not in a network namespace of its own");
    std::env::var_os(INSIDE).map(drop).ok_or_else(outside)
}

fn address(replica: u16) -> Ipv4Addr {
    Ipv4Addr::new(10, 213, 0, FIRST_ADDRESS + replica as u8)
}

/// What makes a device so slow, for `tc`.
fn discipline(slow: Slow) -> Vec<String> {
    let rate = slow.mbit.map(|mbit| format!("{mbit}mbit"));
    let words = match (slow.delay.is_zero(), rate) {
        (true, rate) => {
            // Room for what arrives between two interrupts.
            let burst = slow.mbit.unwrap_or(1).saturating_mul(500).max(8_000);
            let rate = rate.unwrap_or_else(|| "10000mbit".into());
            format!("tbf rate {rate} burst {burst} latency {QUEUE_MS}ms")
        }
        (false, None) => format!("netem delay {}us limit 100000", slow.delay.as_micros()),
        (false, Some(rate)) => {
            format!("netem delay {}us rate {rate} limit 10000", slow.delay.as_micros())
        }
    };
    words.split(' ').map(str::to_owned).collect()
}

fn wait_for_namespace(pid: u32) -> Result<(), Error> {
    let namespace = |who: &str| std::fs::read_link(format!("/proc/{who}/ns/net"));
    let own = namespace("self").map_err(|e| Error::new(format!("/proc/self/ns/net: {e}")))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match namespace(&pid.to_string()) {
            Ok(other) if other != own => return Ok(()),
            _ if Instant::now() >= deadline => {
                return Err(Error::new("a replica does not get a network namespace of its own"));
            }
            _ => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Runs a program in the namespace of a process.
fn inside(pid: u32, program: &str, arguments: &[&str]) -> Result<(), Error> {
    let target = pid.to_string();
    tool("nsenter", &[&["-t", &target, "-n", program], arguments].concat())
}

fn tool(program: &str, arguments: &[&str]) -> Result<(), Error> {
    run(program, arguments).map_err(|why| {
        Error::new(format!("the network of replicas: {program} {}: {why}", arguments.join(" ")))
    })
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(text.lines().next().unwrap_or("it failed").trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wires_are_as_slow_as_they_are_asked_to_be() {
        let words = |delay_ms, mbit| {
            discipline(Slow { delay: Duration::from_millis(delay_ms), mbit }).join(" ")
        };
        assert_eq!(words(20, Some(100)), "netem delay 20000us rate 100mbit limit 10000");
        assert_eq!(words(20, None), "netem delay 20000us limit 100000");
        assert_eq!(words(0, Some(100)), "tbf rate 100mbit burst 50000 latency 400ms");
    }

    #[test]
    fn replicas_have_addresses_of_their_own() {
        let texts: Vec<String> = Namespaces::addresses(2).iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.213.0.10:7100", "10.213.0.11:7100"]);
    }
}
