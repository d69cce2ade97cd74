//! The options that a sweep may change.

use std::fmt::Display;
use std::str::FromStr;

use clap::ValueEnum;

use super::RunOptions;
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
}

impl Axis {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Axis::Pillars => "pillars",
            Axis::Batch => "batch",
            Axis::Clients => "clients",
            Axis::RequestSize => "request-size",
            Axis::Replicas => "replicas",
            Axis::Authenticator => "authenticator",
            Axis::RequestAuthenticator => "request-authenticator",
            Axis::LinkCipher => "link-cipher",
            Axis::Transport => "transport",
            Axis::Layout => "layout",
        }
    }

    /// The values asked for, or a series that shows the curve.
    #[must_use]
    pub fn values_or_default(self, asked: &[String]) -> Vec<String> {
        if !asked.is_empty() {
            return asked.iter().map(|value| value.trim().to_owned()).collect();
        }
        let list: &[&str] = match self {
            Axis::Pillars => &["1", "2", "4", "8"],
            Axis::Batch => &["1", "8", "64", "200", "512", "2048"],
            Axis::Clients => &["1", "16", "128", "1024", "2048", "8192"],
            Axis::RequestSize => &["0", "128", "1024", "4096"],
            Axis::Replicas => &["3", "5", "7"],
            Axis::Authenticator => &["aegis-128l", "blake3", "hmac-sha256"],
            Axis::RequestAuthenticator => &["mac", "ed25519"],
            Axis::LinkCipher => &["aegis-128x2", "aes-128-gcm", "gmac", "blake3"],
            Axis::Transport => &["epoll", "io-uring"],
            Axis::Layout => &["fused", "split"],
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
            Axis::Pillars => group.pillars = self.number(value, 1..=256)?,
            Axis::Batch => group.batch_max = self.number(value, 1..=65_536)?,
            Axis::Clients => group.clients = self.number(value, 1..=u32::MAX)?,
            Axis::RequestSize => group.request_size = self.number(value, 0..=u32::MAX)?,
            Axis::Replicas => group.replicas = self.number(value, 1..=64)?,
            Axis::Authenticator => group.authenticator = self.parse(value)?,
            Axis::RequestAuthenticator => group.request_authenticator = self.parse(value)?,
            Axis::LinkCipher => group.link_cipher = self.parse(value)?,
            Axis::Transport => group.transport = self.parse(value)?,
            Axis::Layout => group.layout = self.parse(value)?,
        }
        Ok(options)
    }

    fn parse<T: FromStr<Err: Display>>(self, value: &str) -> Result<T, Error> {
        value.parse().map_err(|e| Error::new(format!("--values for {}: {e}", self.name())))
    }

    fn number<T: FromStr<Err: Display> + PartialOrd + Display>(
        self,
        value: &str,
        range: std::ops::RangeInclusive<T>,
    ) -> Result<T, Error> {
        let number = self.parse(value)?;
        if range.contains(&number) {
            return Ok(number);
        }
        let (low, high, name) = (range.start(), range.end(), self.name());
        Err(Error::new(format!("--values for {name}: {value} is not from {low} to {high}")))
    }
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
                assert_eq!(changed.group.pillars == 3, *axis != Axis::Pillars);
            }
        }
        let five = Axis::Replicas.apply(&run, "5").unwrap();
        assert_eq!((five.group.replicas, five.group.pillars), (5, 3));
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
        for (axis, value) in [(Axis::Pillars, "0"), (Axis::Batch, "many"), (Axis::Layout, "cubist")]
        {
            let error = axis.apply(&run, value).unwrap_err().to_string();
            assert!(error.contains(axis.name()), "{error}");
        }
    }
}
