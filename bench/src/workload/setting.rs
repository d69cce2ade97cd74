//! What the options of a load ask for, checked and with defaults filled in.

use std::sync::Arc;
use std::time::Duration;

use super::{AnyWorkload, LARGEST_VALUE, Null, Random, Records, RecordsMix, Replay, replay};
use crate::Error;
use crate::engine;
use crate::load::{AnyPace, ClosedLoop, OpenLoop, Plan, Rate};
use crate::options::{
    Arrivals, Distribution, GroupOptions, LoadOptions, Ramp, ServiceKind, WorkloadKind,
};
use crate::scenario::Increments;

/// Bytes of a YCSB record: ten fields of 100.
const YCSB_VALUE: u32 = 1000;
/// Bytes of a coordination service's node.
const NODE_BYTES: u32 = 128;
/// Reads of a coordination service, in percent.
const NODE_READS: u8 = 90;

/// A load: which operations, and when.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The service that executes them.
    pub service: ServiceKind,
    /// The workload's name.
    pub workload: WorkloadKind,
    /// The operations.
    pub operations: Operations,
    /// Those of a file, if they come from one.
    pub replay: Option<Arc<replay::Operations>>,
    /// The seed of all random choices.
    pub seed: u64,
    /// Operations per second of an open loop, over all connections.
    pub rate: Option<f64>,
    /// If that is the mean of one that changes.
    pub ramp: Option<Ramp>,
    /// When an open loop's operations are due.
    pub arrivals: Arrivals,
    /// How long a client of a closed loop waits before its next operation.
    pub think_time: Duration,
    /// The share of the first connection in percent: one hot client.
    pub hot_client: Option<u8>,
}

/// The operations of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operations {
    /// Of the null service.
    Null {
        /// Bytes of a request.
        request_size: u32,
        /// Bytes of a reply.
        reply_size: u32,
        /// Read-only queries in percent.
        read_percent: u8,
    },
    /// Of the key-value store.
    Records(RecordsMix),
    /// Increments of the counter.
    Increments,
    /// Of a file.
    Replay,
}

impl Setting {
    /// The load that the options ask for; `service` is meant if they name none.
    ///
    /// # Errors
    /// If they contradict each other or ask for more than the group takes; the text names the option and
    /// the limit.
    pub fn new(
        load: &LoadOptions,
        group: &GroupOptions,
        service: ServiceKind,
    ) -> Result<Self, Error> {
        let of_file = load.replay.as_ref().map(|_| WorkloadKind::Replay);
        let workload = load.workload.or(of_file).unwrap_or(match load.service.unwrap_or(service) {
            ServiceKind::Null => WorkloadKind::Null,
            ServiceKind::Counter => WorkloadKind::Counter,
            ServiceKind::Kv => WorkloadKind::Kv,
        });
        if let Some(asked) = load.service.filter(|asked| *asked != workload.service()) {
            let (name, right) = (workload.name(), workload.service().name());
            return Err(Error::new(format!(
                "--workload {name} is one of the {right} service, not of {}: omit --service",
                asked.name()
            )));
        }
        let operations = match workload.service() {
            ServiceKind::Null => null(load, group)?,
            ServiceKind::Counter => increments(load, group)?,
            ServiceKind::Kv if workload == WorkloadKind::Replay => Operations::Replay,
            ServiceKind::Kv => Operations::Records(records(workload, load, group)?),
        };
        if load.rate.is_some() && load.ramp.is_some() {
            return Err(Error::new("--ramp says what the rate is: omit --rate"));
        }
        let setting = Self {
            service: workload.service(),
            workload,
            operations,
            replay: load.replay.as_deref().map(replay::Operations::read).transpose()?.map(Arc::new),
            seed: load.seed,
            rate: load.rate.or_else(|| load.ramp.map(|ramp| (ramp.from + ramp.to) / 2.0)),
            ramp: load.ramp,
            arrivals: load.arrivals,
            think_time: load.think_time,
            hot_client: load.hot_client,
        };
        setting.check_pace(group)?;
        Ok(setting)
    }

    fn check_pace(&self, group: &GroupOptions) -> Result<(), Error> {
        if self.rate.is_some() && !self.think_time.is_zero() {
            let text = "--think-time is for a closed loop: with --rate or --ramp, operations are due by the clock";
            return Err(Error::new(text));
        }
        if self.rate.is_none() && self.arrivals != Arrivals::Constant {
            return Err(Error::new("--arrivals is for an open loop: add --rate or --ramp"));
        }
        let connections = group.connections.min(group.clients);
        if self.hot_client.is_some() && connections < 2 {
            let text = "--hot-client: one client is hotter than others, so there must be others: \
                        give --connections 2 or more";
            return Err(Error::new(text));
        }
        Ok(())
    }

    /// The workload of load thread `index` of `threads`.
    #[must_use]
    pub fn workload(&self, index: u32, threads: u32) -> AnyWorkload {
        match self.operations {
            Operations::Null { request_size, reply_size, read_percent } => {
                let random = Random::of(self.seed, index.into());
                AnyWorkload::Null(Null::new(request_size, reply_size, read_percent, random))
            }
            Operations::Records(mix) => {
                AnyWorkload::Records(Box::new(Records::new(mix, self.seed, index, threads)))
            }
            Operations::Increments => AnyWorkload::Increments(Increments::default()),
            Operations::Replay => {
                let operations = self.replay.clone().unwrap_or_default();
                AnyWorkload::Replay(Replay::new(operations, index, threads))
            }
        }
    }

    /// When the sessions of load thread `index` of `threads` submit.
    #[must_use]
    pub fn pace(&self, sessions: u32, index: u32, threads: u32, plan: &Plan) -> AnyPace {
        let Some(rate) = self.rate else {
            return AnyPace::Closed(ClosedLoop::new(sessions, self.think_time));
        };
        let share = self.share(index, threads);
        let rate = match self.ramp {
            Some(Ramp { from, to }) => {
                Rate::ramp(from * share, to * share, plan.warmup, plan.measured)
            }
            None => Rate::constant(rate * share),
        };
        match self.arrivals {
            Arrivals::Constant => AnyPace::Open(OpenLoop::new(sessions, rate)),
            Arrivals::Poisson => {
                // Not the sequence of numbers that the operations are drawn from.
                let random = Random::of(!self.seed, index.into());
                AnyPace::Open(OpenLoop::poisson(sessions, rate, random))
            }
        }
    }

    /// The part of all clients, or of the rate, that belongs to connection `index` of `threads`.
    #[must_use]
    pub fn share(&self, index: u32, threads: u32) -> f64 {
        let (index, threads) = (f64::from(index), f64::from(threads));
        match self.hot_client {
            Some(percent) if threads > 1.0 => {
                let hot = f64::from(percent) / 100.0;
                if index == 0.0 { hot } else { (1.0 - hot) / (threads - 1.0) }
            }
            _ => 1.0 / threads,
        }
    }

    /// How many of `clients` belong to each of `connections`; at least one.
    #[must_use]
    pub fn clients_of(&self, clients: u32, connections: u32) -> Vec<u32> {
        let even = |clients: u32, connections: u32| {
            (0..connections)
                .map(move |i| clients / connections + u32::from(i < clients % connections))
        };
        // In an open loop, the rate is shared unevenly and not the clients.
        match self.hot_client {
            Some(_) if self.rate.is_none() && connections > 1 => {
                let hot = (f64::from(clients) * self.share(0, connections)).round() as u32;
                let hot = hot.clamp(1, clients - (connections - 1));
                std::iter::once(hot).chain(even(clients - hot, connections - 1)).collect()
            }
            _ => even(clients, connections).collect(),
        }
    }

    /// Bytes of a request's payload.
    #[must_use]
    pub fn request_size(&self) -> u32 {
        match self.operations {
            Operations::Null { request_size, .. } => request_size,
            Operations::Records(mix) => mix.value_size,
            Operations::Increments | Operations::Replay => 0,
        }
    }

    /// Reads in percent of operations, scans included.
    #[must_use]
    pub fn read_percent(&self) -> u8 {
        match self.operations {
            Operations::Null { read_percent, .. } => read_percent,
            Operations::Records(mix) => mix.reads + mix.scans,
            Operations::Increments | Operations::Replay => 0,
        }
    }
}

fn null(load: &LoadOptions, group: &GroupOptions) -> Result<Operations, Error> {
    let limits = engine::limits();
    let request_size = group.request_size.unwrap_or(0);
    at_most("--request-size", request_size, limits.operation_bytes)?;
    at_most("--reply-size", group.reply_size, limits.reply_bytes)?;
    if load.distribution.is_some() || load.keys.is_some() {
        let text =
            "--keys and --distribution are for --service kv: the null service has no records";
        return Err(Error::new(text));
    }
    let read_percent = load.read_percent.unwrap_or(0);
    Ok(Operations::Null { request_size, reply_size: group.reply_size, read_percent })
}

fn increments(load: &LoadOptions, group: &GroupOptions) -> Result<Operations, Error> {
    if group.request_size.is_some() || group.reply_size != 0 || load.read_percent.is_some() {
        let text = "--request-size, --reply-size and --read-percent are for other services: the \
                    counter is only incremented; give --service null or kv";
        return Err(Error::new(text));
    }
    Ok(Operations::Increments)
}

fn records(
    workload: WorkloadKind,
    load: &LoadOptions,
    group: &GroupOptions,
) -> Result<RecordsMix, Error> {
    if group.reply_size != 0 {
        return Err(Error::new("--reply-size is for --service null; kv answers with values"));
    }
    let is_ycsb = !matches!(workload, WorkloadKind::Kv | WorkloadKind::Coordination);
    if is_ycsb && load.read_percent.is_some() {
        let name = workload.name();
        let text = format!(
            "--read-percent: --workload {name} says what is read; take --service kv for other shares"
        );
        return Err(Error::new(text));
    }
    let (default_size, default_reads, prefix): (_, _, &'static [u8]) = match workload {
        WorkloadKind::Coordination => (NODE_BYTES, NODE_READS, b"/nodes/"),
        WorkloadKind::Kv => (0, 0, b"user"),
        _ => (YCSB_VALUE, 0, b"user"),
    };
    let value_size = group.request_size.unwrap_or(default_size);
    at_most("--request-size (of a value that kv stores)", value_size, LARGEST_VALUE)?;
    let reads = load.read_percent.unwrap_or(default_reads);
    // Of 100: reads, updates, inserts, scans, read-modify-writes; and what is popular.
    let (shares, popular) = match workload {
        WorkloadKind::YcsbA => ([50, 50, 0, 0, 0], Distribution::Zipfian),
        WorkloadKind::YcsbB => ([95, 5, 0, 0, 0], Distribution::Zipfian),
        WorkloadKind::YcsbC => ([100, 0, 0, 0, 0], Distribution::Zipfian),
        WorkloadKind::YcsbD => ([95, 0, 5, 0, 0], Distribution::Latest),
        WorkloadKind::YcsbE => ([0, 0, 5, 95, 0], Distribution::Zipfian),
        WorkloadKind::YcsbF => ([50, 0, 0, 0, 50], Distribution::Zipfian),
        _ => ([reads, 100 - reads, 0, 0, 0], Distribution::Uniform),
    };
    let [reads, updates, inserts, scans, read_modify_writes] = shares;
    Ok(RecordsMix {
        reads,
        updates,
        inserts,
        scans,
        read_modify_writes,
        distribution: load.distribution.unwrap_or(popular),
        keys: load.keys.unwrap_or(DEFAULT_KEYS),
        value_size,
        scan_length: load.scan_length,
        prefix,
    })
}

/// Records of the key-value store.
const DEFAULT_KEYS: u32 = 10_000;

fn at_most(what: &str, size: u32, limit: u32) -> Result<(), Error> {
    if size <= limit {
        return Ok(());
    }
    Err(Error::new(format!("{what}: {size} bytes are more than the limit, {limit} bytes")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Cli;

    fn setting(arguments: &[&str]) -> Result<Setting, Error> {
        let cli = Cli::parse_from([&["hybster-bench"], arguments].concat());
        Setting::new(&cli.run.load, &cli.run.group, ServiceKind::Null)
    }

    fn mix(arguments: &[&str]) -> RecordsMix {
        match setting(arguments).unwrap().operations {
            Operations::Records(mix) => mix,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn workloads_have_the_shares_that_their_authors_gave_them() {
        for (name, shares, popular) in [
            ("ycsb-a", [50, 50, 0, 0, 0], Distribution::Zipfian),
            ("ycsb-b", [95, 5, 0, 0, 0], Distribution::Zipfian),
            ("ycsb-c", [100, 0, 0, 0, 0], Distribution::Zipfian),
            ("ycsb-d", [95, 0, 5, 0, 0], Distribution::Latest),
            ("ycsb-e", [0, 0, 5, 95, 0], Distribution::Zipfian),
            ("ycsb-f", [50, 0, 0, 0, 50], Distribution::Zipfian),
            ("coordination", [90, 10, 0, 0, 0], Distribution::Uniform),
        ] {
            let mix = mix(&["--workload", name]);
            let got = [mix.reads, mix.updates, mix.inserts, mix.scans, mix.read_modify_writes];
            assert_eq!((got, mix.distribution, mix.keys), (shares, popular, 10_000), "{name}");
            assert_eq!(got.iter().sum::<u8>(), 100);
            assert_eq!(mix.value_size, if name == "coordination" { 128 } else { 1000 });
        }
        let other =
            mix(&["--workload=ycsb-a", "--keys=7", "--request-size=9", "--distribution=uniform"]);
        assert_eq!((other.keys, other.value_size), (7, 9));
        assert_eq!(other.distribution, Distribution::Uniform);
        assert_eq!(mix(&["--workload=coordination", "--read-percent=0"]).updates, 100);
    }

    #[test]
    fn what_contradicts_itself_or_is_too_much_is_refused_with_the_cure() {
        for (arguments, text) in [
            (&["--workload=ycsb-a", "--service=null"][..], "omit --service"),
            (&["--workload=ycsb-a", "--read-percent=10"], "ycsb-a says what is read"),
            (
                &["--reply-size=1048577"],
                "--reply-size: 1048577 bytes are more than the limit, 1048576",
            ),
            (&["--request-size=1048577"], "--request-size: 1048577 bytes"),
            (&["--service=kv", "--request-size=1048577"], "the limit, 1044480 bytes"),
            (&["--service=kv", "--reply-size=5"], "kv answers with values"),
            (&["--service=counter", "--request-size=5"], "the counter is only incremented"),
            (&["--keys=5"], "no records"),
            (&["--rate=10", "--think-time=1ms"], "closed loop"),
            (&["--arrivals=poisson"], "add --rate"),
            (&["--hot-client=50"], "--connections 2"),
        ] {
            let error = setting(arguments).unwrap_err().to_string();
            assert!(error.contains(text), "{arguments:?}: {error}");
        }
        assert!(setting(&["--request-size=1048576", "--reply-size=1048576"]).is_ok());
    }

    #[test]
    fn a_hot_client_has_its_share_of_clients_or_of_the_rate() {
        let closed = setting(&["--hot-client=80", "--connections=3"]).unwrap();
        assert_eq!(closed.clients_of(100, 3), [80, 10, 10]);
        assert_eq!(closed.clients_of(3, 3), [1, 1, 1]);
        let open = setting(&["--hot-client=80", "--connections=3", "--rate=10"]).unwrap();
        assert_eq!(open.clients_of(100, 3), [34, 33, 33]);
        let sum: f64 = (0..3).map(|index| open.share(index, 3)).sum();
        assert!((sum - 1.0).abs() < 1e-9 && (open.share(0, 3) - 0.8).abs() < 1e-9);
        let even = setting(&["--connections=3"]).unwrap();
        assert_eq!(even.clients_of(100, 3), [34, 33, 33]);
    }
}
