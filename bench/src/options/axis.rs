//! The options that a sweep may change.

use std::fmt::Display;
use std::str::FromStr;

use clap::ValueEnum;
use hybster::Protocol;
use hybster::durable::Durability;
use hybster_tss::RequestAuthenticator;

use super::{MOST_CLIENTS, RunOptions};
use crate::Error;

/// The option that a sweep changes, by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Axis {
    /// `--pillars`
    Pillars,
    /// `--batch-max`
    Batch,
    /// `--clients`
    Clients,
    /// `--request-size`
    RequestSize,
    /// `--replicas`
    Replicas,
    /// `--authenticator`
    Authenticator,
    /// `--request-authenticator`
    RequestAuthenticator,
    /// `--link-cipher`
    LinkCipher,
    /// `--transport`
    Transport,
    /// `--layout`
    Layout,
    /// `--durability`
    Durability,
    /// `--read-percent`
    ReadPercent,
    /// `--rate`: the curve of latency over throughput
    Rate,
    /// What a part of the system costs or gains: it is left out, or exchanged (also: `ablate`)
    Ablation,
}

impl Axis {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pillars => "pillars",
            Self::Batch => "batch",
            Self::Clients => "clients",
            Self::RequestSize => "request-size",
            Self::Replicas => "replicas",
            Self::Authenticator => "authenticator",
            Self::RequestAuthenticator => "request-authenticator",
            Self::LinkCipher => "link-cipher",
            Self::Transport => "transport",
            Self::Layout => "layout",
            Self::Durability => "durability",
            Self::ReadPercent => "read-percent",
            Self::Rate => "rate",
            Self::Ablation => "ablation",
        }
    }

    /// Whether the load alone changes, so that one group serves all runs.
    #[must_use]
    pub fn is_of_load(self) -> bool {
        matches!(
            self,
            Self::Clients | Self::RequestSize | Self::Transport | Self::ReadPercent | Self::Rate
        )
    }

    /// The values asked for, or a series that shows the curve.
    #[must_use]
    pub fn values_or_default(self, asked: &[String]) -> Vec<String> {
        if !asked.is_empty() {
            return asked.iter().map(|value| value.trim().to_owned()).collect();
        }
        let list: &[&str] = match self {
            Self::Pillars => &["1", "2", "4", "8"],
            Self::Batch => &["1", "8", "64", "200", "512", "2048"],
            Self::Clients => &["1", "16", "128", "1024", "2048", "8192"],
            Self::RequestSize => &["0", "128", "1024", "4096"],
            Self::Replicas => &["3", "5", "7"],
            Self::Authenticator => &["aegis-128l", "blake3", "hmac-sha256"],
            Self::RequestAuthenticator => &["mac", "ed25519"],
            Self::LinkCipher => &["aegis-128x2", "aes-128-gcm", "gmac", "blake3"],
            Self::Transport => &["epoll", "io-uring"],
            Self::Layout => &["fused", "split"],
            Self::Durability => &["none", "async", "sync"],
            Self::ReadPercent => &["0", "10", "50", "90", "100"],
            Self::Rate => &["1000", "2000", "5000", "10000", "20000", "50000"],
            Self::Ablation => &ABLATIONS,
        };
        list.iter().map(|value| (*value).to_owned()).collect()
    }

    /// The options with one value changed.
    ///
    /// # Errors
    /// If the option cannot have this value.
    pub fn apply(self, options: &RunOptions, value: &str) -> Result<RunOptions, Error> {
        let mut options = options.clone();
        let group = &mut options.group;
        match self {
            Self::Pillars => group.pillars = self.number(value, 1..=256)?,
            Self::Batch => group.batch_max = self.number(value, 1..=65_536)?,
            Self::Clients => group.clients = self.number(value, 1..=MOST_CLIENTS)?,
            Self::RequestSize => group.request_size = Some(self.number(value, 0..=u32::MAX)?),
            Self::Replicas => group.replicas = Some(self.number(value, 1..=64)?),
            Self::Authenticator => group.authenticator = self.parse(value)?,
            Self::RequestAuthenticator => {
                group.request_authenticator = Some(self.parse(value)?);
            }
            Self::LinkCipher => group.link_cipher = self.parse(value)?,
            Self::Transport => group.transport = self.parse(value)?,
            Self::Layout => group.layout = self.parse(value)?,
            Self::Durability => group.durability = self.parse(value)?,
            Self::Ablation => ablate(&mut options, value)?,
            Self::ReadPercent => options.load.read_percent = Some(self.number(value, 0..=100)?),
            Self::Rate => {
                options.load.rate = Some(self.number::<u32>(value, 1..=1_000_000_000)?.into())
            }
        }
        Ok(options)
    }

    fn parse<T: FromStr<Err: Display>>(self, value: &str) -> Result<T, Error> {
        let name = self.name();
        value.parse().map_err(|e| Error::new(format!("--values for {name}: \"{value}\": {e}")))
    }

    fn number<T: FromStr + PartialOrd + Display>(
        self,
        value: &str,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<T, Error> {
        match value.parse() {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => {
                let (low, high, name) = (range.start(), range.end(), self.name());
                Err(Error::new(format!(
                    "--values for {name}: \"{value}\" is no whole number from {low} to {high}"
                )))
            }
        }
    }
}

/// The first is the base, everything as the other options say.
const ABLATIONS: [&str; 14] = [
    "base",
    "unreplicated",
    "pbft",
    "one-pillar",
    "no-batching",
    "mac-blake3",
    "mac-hmac-sha256",
    "signed-requests",
    "aes-128-gcm",
    "gmac",
    "epoll",
    "no-busy-poll",
    "durability-async",
    "durability-sync",
];

/// Leaves out or exchanges one part.
fn ablate(options: &mut RunOptions, value: &str) -> Result<(), Error> {
    let group = &mut options.group;
    let told = |e: &dyn Display| Error::new(format!("--values for ablation: \"{value}\": {e}"));
    match value {
        "base" => {}
        "unreplicated" => group.unreplicated = true,
        // Its clients sign, so that "signed-requests" is what it compares with. It tolerates as many faults.
        "pbft" => {
            let faults = match (group.faults, group.replicas) {
                (Some(faults), _) => faults,
                (None, Some(replicas)) => group.protocol.rules().most_faults(replicas),
                (None, None) => 1,
            };
            group.protocol = Protocol::Pbft;
            (group.faults, group.replicas) = (Some(faults), None);
            group.request_authenticator = None;
            group.durability = Durability::None;
        }
        "one-pillar" => group.pillars = 1,
        "no-batching" => group.batch_max = 1,
        "mac-blake3" => group.authenticator = "blake3".parse().map_err(|e| told(&e))?,
        "mac-hmac-sha256" => group.authenticator = "hmac-sha256".parse().map_err(|e| told(&e))?,
        "signed-requests" => {
            group.request_authenticator = Some(RequestAuthenticator::Ed25519);
        }
        "aes-128-gcm" | "gmac" => group.link_cipher = value.parse().map_err(|e| told(&e))?,
        "epoll" => group.transport = value.parse().map_err(|e| told(&e))?,
        "no-busy-poll" => group.busy_poll = std::time::Duration::ZERO,
        "durability-async" => group.durability = "async".parse().map_err(|e| told(&e))?,
        "durability-sync" => group.durability = "sync".parse().map_err(|e| told(&e))?,
        _ => return Err(told(&format!("this is none of {}", ABLATIONS.join(", ")))),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::Cli;
    use super::*;

    #[test]
    fn defaults_can_be_applied_and_change_one_option() {
        let run = Cli::parse_from(["hybster-bench", "--pillars", "3"]).run;
        for axis in Axis::value_variants() {
            for value in axis.values_or_default(&[]) {
                let changed = axis.apply(&run, &value).unwrap();
                let is_other = *axis == Axis::Pillars || value == "one-pillar";
                assert_eq!(changed.group.pillars == 3, !is_other);
            }
        }
        let five = Axis::Replicas.apply(&run, "5").unwrap();
        assert_eq!((five.group.replicas, five.group.pillars), (Some(5), 3));
        let pbft = Axis::Ablation.apply(&five, "pbft").unwrap().group;
        assert_eq!((pbft.protocol, pbft.faults, pbft.replicas), (Protocol::Pbft, Some(2), None));
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for axis in Axis::value_variants() {
            assert_eq!(axis.to_possible_value().unwrap().get_name(), axis.name());
        }
    }

    #[test]
    fn wrong_values_are_reported_with_the_option() {
        let run = Cli::parse_from(["hybster-bench"]).run;
        for (axis, value, allowed) in [
            (Axis::Pillars, "0", "1 to 256"),
            (Axis::Batch, "many", "1 to 65536"),
            (Axis::Clients, "4294967296", "1 to 4194304"),
            (Axis::Replicas, "-3", "1 to 64"),
            (Axis::ReadPercent, "101", "0 to 100"),
            (Axis::Layout, "cubist", "fused"),
            (Axis::Authenticator, "rot13", "blake3"),
            (Axis::LinkCipher, "rot13", "gmac"),
            (Axis::RequestAuthenticator, "rot13", "ed25519"),
            (Axis::Transport, "pigeon", "epoll"),
            (Axis::Durability, "perhaps", "sync"),
            (Axis::Ablation, "everything", "no-batching"),
        ] {
            let error = axis.apply(&run, value).unwrap_err().to_string();
            for part in [axis.name(), value, allowed] {
                assert!(error.contains(part), "{part} is missing: {error}");
            }
        }
    }
}
