//! The options of a load: which operations, and when.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};

/// A service that can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServiceKind {
    /// Does nothing; requests and replies of any size.
    Null,
    /// Adds to one number, so that lost and repeated operations show.
    Counter,
    /// A key-value store.
    Kv,
}

impl ServiceKind {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Counter => "counter",
            Self::Kv => "kv",
        }
    }
}

/// What clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WorkloadKind {
    /// Requests of --request-size and replies of --reply-size: of the null service.
    Null,
    /// Increments: of the counter.
    Counter,
    /// Reads and writes of records in the shares of --read-percent.
    Kv,
    /// 50 % reads, 50 % updates.
    YcsbA,
    /// 95 % reads, 5 % updates.
    YcsbB,
    /// Reads only.
    YcsbC,
    /// 95 % reads of the latest records, 5 % inserts.
    YcsbD,
    /// 95 % short scans, 5 % inserts.
    YcsbE,
    /// 50 % reads, 50 % read-modify-writes.
    YcsbF,
    /// Those of a file, which --replay names.
    #[value(skip)]
    Replay,
    /// A coordination service: nodes of 128 bytes, 90 % reads unless --read-percent says otherwise.
    Coordination,
}

impl WorkloadKind {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Counter => "counter",
            Self::Kv => "kv",
            Self::YcsbA => "ycsb-a",
            Self::YcsbB => "ycsb-b",
            Self::YcsbC => "ycsb-c",
            Self::YcsbD => "ycsb-d",
            Self::YcsbE => "ycsb-e",
            Self::YcsbF => "ycsb-f",
            Self::Coordination => "coordination",
            Self::Replay => "replay",
        }
    }

    /// The service that executes it.
    #[must_use]
    pub fn service(self) -> ServiceKind {
        match self {
            Self::Null => ServiceKind::Null,
            Self::Counter => ServiceKind::Counter,
            _ => ServiceKind::Kv,
        }
    }
}

/// Which records are popular.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Distribution {
    /// None.
    Uniform,
    /// A few, by Zipf's law with the exponent 0.99.
    Zipfian,
    /// Those that were inserted last, by the same law.
    Latest,
}

impl Distribution {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Zipfian => "zipfian",
            Self::Latest => "latest",
        }
    }
}

/// When operations of an open loop are due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Arrivals {
    /// At equal distances.
    Constant,
    /// At random and independent of each other.
    Poisson,
}

impl Arrivals {
    /// The name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Constant => "constant",
            Self::Poisson => "poisson",
        }
    }
}

/// The operations, and when they are due.
#[derive(Clone, Debug, Args)]
pub struct LoadOptions {
    /// The service; by default that of the workload.
    #[arg(long, value_enum)]
    pub service: Option<ServiceKind>,
    /// What clients do; by default the plain workload of the service.
    #[arg(long, value_enum)]
    pub workload: Option<WorkloadKind>,
    /// The operations of this file, one line each: get KEY, put KEY VALUE, put KEY @BYTES, delete KEY, scan KEY
    /// ENTRIES (see bench/REPORT.md). The service is kv.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["workload", "read_percent", "keys", "distribution",
          "request_size", "reply_size"])]
    pub replay: Option<PathBuf>,
    /// Reads in percent of operations; the null service calls an unordered request a read.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub read_percent: Option<u8>,
    /// Records of the kv service, all written before the measurement; by default 10000.
    #[arg(long, visible_alias = "records", value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000_000))]
    pub keys: Option<u32>,
    /// Which records are popular; by default what the workload says.
    #[arg(long, value_enum)]
    pub distribution: Option<Distribution>,
    /// Most records of a scan; each asks for 1 to so many.
    #[arg(long, default_value_t = 100, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub scan_length: u32,
    /// The same seed and settings give the same sequence of requests on each connection.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub seed: u64,
    /// Open loop with this many operations per second; latency counts from the intended time.
    #[arg(long, value_name = "OPS", value_parser = rate)]
    pub rate: Option<f64>,
    /// Open loop whose rate rises or falls evenly over the measured time, such as 10k..200k; in the warm-up it is the
    /// first.
    #[arg(long, value_name = "OPS..OPS", conflicts_with = "rate")]
    pub ramp: Option<Ramp>,
    /// When operations of an open loop are due.
    #[arg(long, value_enum, default_value = "constant")]
    pub arrivals: Arrivals,
    /// How long a client of a closed loop waits after an answer.
    #[arg(long, default_value = "0", value_name = "DURATION", value_parser = super::seconds,
          hide_default_value = true)]
    pub think_time: Duration,
    /// One client is hotter than the others: the first connection has this share of all clients, or in an
    /// open loop of the rate.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=99))]
    pub hot_client: Option<u8>,
}

impl LoadOptions {
    /// These options as they are given on a command line.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let Self { read_percent, keys, rate, hot_client, .. } = self;
        let optional = [
            ("service", self.service.map(|service| service.name().to_owned())),
            ("workload", self.workload.map(|workload| workload.name().to_owned())),
            ("replay", self.replay.as_ref().map(|path| path.display().to_string())),
            ("read-percent", read_percent.map(|percent| percent.to_string())),
            ("keys", keys.map(|keys| keys.to_string())),
            ("distribution", self.distribution.map(|popular| popular.name().to_owned())),
            ("scan-length", Some(self.scan_length.to_string())),
            ("seed", Some(self.seed.to_string())),
            ("rate", rate.map(|rate| rate.to_string())),
            ("ramp", self.ramp.map(|ramp| ramp.to_string())),
            ("arrivals", Some(self.arrivals.name().to_owned())),
            ("think-time", Some(format!("{}us", self.think_time.as_micros()))),
            ("hot-client", hot_client.map(|percent| percent.to_string())),
        ];
        let given = optional.into_iter().filter_map(|(name, value)| Some((name, value?)));
        given.map(|(name, value)| format!("--{name}={value}")).collect()
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let (number, times) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1e3),
        None => text.strip_suffix('M').map_or((text, 1.0), |number| (number, 1e6)),
    };
    match number.parse::<f64>().map(|number| number * times) {
        Ok(value) if (1.0..=1e9).contains(&value) => Ok(value),
        _ => {
            Err("give operations per second, from 1 to 1000000000, such as 500, 20k or 1.5M".into())
        }
    }
}

/// A rate that changes, in operations per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ramp {
    /// At the begin.
    pub from: f64,
    /// At the end.
    pub to: f64,
}

impl FromStr for Ramp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (from, to) = text
            .split_once("..")
            .ok_or_else(|| "give the rates at begin and end, such as 10k..200k".to_owned())?;
        Ok(Self { from: rate(from.trim())?, to: rate(to.trim())? })
    }
}

impl fmt::Display for Ramp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.from, self.to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_taken_as_people_write_them() {
        assert_eq!(["500", "20k", "1.5M"].map(rate), [Ok(500.0), Ok(20e3), Ok(1.5e6)]);
        assert!(["0", "k", "2G", "-1", "1e10", ""].iter().all(|text| rate(text).is_err()));
        let ramp: Ramp = "10k..200K".parse().unwrap();
        assert_eq!((ramp.from, ramp.to, ramp.to_string().parse()), (10e3, 200e3, Ok(ramp)));
        assert!(["10k", "10k..", "..5", "a..b"].iter().all(|text| text.parse::<Ramp>().is_err()));
    }

    #[test]
    fn names_are_those_of_the_command_line() {
        for kind in WorkloadKind::value_variants() {
            assert_eq!(kind.to_possible_value().unwrap().get_name(), kind.name());
        }
        for kind in ServiceKind::value_variants() {
            assert_eq!(kind.to_possible_value().unwrap().get_name(), kind.name());
        }
        for kind in Distribution::value_variants() {
            assert_eq!(kind.to_possible_value().unwrap().get_name(), kind.name());
        }
        for kind in Arrivals::value_variants() {
            assert_eq!(kind.to_possible_value().unwrap().get_name(), kind.name());
        }
    }
}
