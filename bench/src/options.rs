//! The options of the command line, as data. This module depends on no other module of the crate,
//! so that every other one may depend on it.

mod axis;
mod disks;
mod event;
mod knee;
mod workload;

pub use axis::Axis;
pub use disks::{DiskEvent, DiskOptions};
pub use event::{Action, Event, Slow};
pub use knee::{Measure, Objective};
pub use workload::{Arrivals, Distribution, LoadOptions, Ramp, ServiceKind, WorkloadKind};

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use hybster::durable::Durability;
use hybster::duration::{DurationError, DurationRange};
use hybster::{Layout, Protocol, SessionId, TransportKind};
use hybster_net::LinkCipher;
use hybster_tss::{MacAlgorithm, RequestAuthenticator};

/// Measures Hybster: starts a group on loopback, drives it with clients, reports.
#[derive(Debug, Parser)]
#[command(name = "hybster-bench", version, args_conflicts_with_subcommands = true)]
#[command(max_term_width = 80)]
#[command(after_help = "Without a subcommand, `run` is meant. Exit status: 0 measured, 1 failed, \
    2 wrong options, 3 measured but operations failed or a rate was not kept (the last lines say what), \
    130 interrupted. A DURATION is a number with h, m, s, ms or us, as in 5s, 500ms, 2m; a plain number \
    means seconds, unless something else is said. A FILE may be - for standard output, a pipe or \
    /dev/fd/N; a symbolic link is followed.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `run`.
    #[command(flatten)]
    pub run: RunOptions,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Measure throughput and latency (the default).
    Run(RunOptions),
    /// Cause a fault under load and measure what clients notice.
    #[command(override_usage = "hybster-bench fault --kill-leader [OPTIONS]\n       \
        hybster-bench fault --pause-follower [DURATION] [OPTIONS]\n       \
        hybster-bench fault --restart [HOW] --durability sync [OPTIONS]")]
    Fault(FaultOptions),
    /// Measure a series: one option takes several values.
    Sweep(SweepOptions),
    /// Measure what parts of the system cost or gain: each is left out or exchanged in turn, and compared
    /// with the base.
    Ablate(AblateOptions),
    /// Compare report files: ratios to the first, with confidence intervals.
    Compare(CompareOptions),
    /// Make one report of those of several load generators that loaded the same group at the same time.
    Merge(MergeOptions),
    /// Profile a load: flamegraphs, and where the nanoseconds of an operation go.
    Flamegraph(ProfileOptions),
    /// Watch a group without load: its CPU use.
    Idle(IdleOptions),
    /// One replica, started by this program itself.
    #[command(hide = true)]
    Replica(ReplicaArgs),
    /// One of several load processes, started by this program itself.
    #[command(hide = true)]
    Load(LoadArgs),
}

/// Which replicas are killed and started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RestartHow {
    /// One of them, and now and then all.
    Random,
    /// One after the other.
    Rolling,
    /// All.
    All,
}

/// Most clients of one connection: as many as the index in a session's number can distinguish.
pub const CLIENTS_PER_CONNECTION: u32 = 1 << SessionId::INDEX_BITS;
/// Most connections.
pub const MOST_CONNECTIONS: u32 = 256;
/// Most clients.
pub const MOST_CLIENTS: u32 = MOST_CONNECTIONS * CLIENTS_PER_CONNECTION;

/// The group and its clients.
#[derive(Clone, Debug, Args)]
pub struct GroupOptions {
    /// What orders the requests: hybster, or pbft.
    #[arg(long, default_value_t)]
    pub protocol: Protocol,
    /// Number of replicas, n; by default as many as the faults need: 3 for one with hybster, 4 with pbft.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub replicas: Option<u16>,
    /// Tolerated faults, f; by default as many as the replicas allow, (n-1)/2 with hybster and (n-1)/3 with
    /// pbft.
    #[arg(long)]
    pub faults: Option<u16>,
    /// Pillars, P: state machines that agree in parallel.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub pillars: u16,
    /// Logical clients, each with one outstanding operation.
    #[arg(long, default_value_t = 2048,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CLIENTS)))]
    pub clients: u32,
    /// Connection groups that the clients share; each has a load thread of its own.
    #[arg(long, default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CONNECTIONS)))]
    pub connections: u32,
    /// Bytes of a request (kv: of a value); by default 0, or what the workload says.
    #[arg(long, value_name = "BYTES")]
    pub request_size: Option<u32>,
    /// Bytes of a reply of the null service.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    pub reply_size: u32,
    /// Requests per batch, at most.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub batch_max: u32,
    /// Which threads and cores a replica's stages run on.
    #[arg(long, default_value = "auto")]
    pub layout: Layout,
    /// What of a replica outlives its process: none (a replica starts once), async (everything, but not
    /// after a loss of power) or sync (everything). The data lies in the directory for temporary files.
    #[arg(long, default_value_t = Durability::None)]
    pub durability: Durability,
    /// Pin each replica and load thread to its own cores, or to shared ones if there are too few.
    /// This lowers the latency of few clients, but the system can no longer balance the load.
    #[arg(long)]
    pub pin: bool,
    /// Transport of the links, in replicas and clients: auto, io-uring or epoll. `auto` is io_uring
    /// where the system has it, else epoll.
    #[arg(long, default_value_t)]
    pub transport: TransportKind,
    /// How long threads poll for messages before they sleep, while messages follow each other
    /// closely; with 0 they sleep at once. A plain number means microseconds.
    #[arg(long, visible_alias = "busy-poll-us", default_value = "100us", value_name = "DURATION",
          value_parser = busy_poll)]
    pub busy_poll: Duration,
    /// MAC algorithm of certificates, and of client requests unless they are signed.
    #[arg(long, default_value_t)]
    pub authenticator: MacAlgorithm,
    /// What proves a client's request: mac, or ed25519 for a signature. By default mac; with pbft ed25519, and
    /// nothing else.
    #[arg(long)]
    pub request_authenticator: Option<RequestAuthenticator>,
    /// How links are protected: aegis-128x2 and aes-128-gcm encrypt, gmac and blake3 authenticate
    /// only.
    #[arg(long, default_value_t)]
    pub link_cipher: LinkCipher,
    /// One server and no protocol: the baseline to compare with.
    #[arg(long)]
    pub unreplicated: bool,
    /// Let each replica write its protocol events into a file in this directory, to see what tracing
    /// costs. The directory must be there, and the files must not.
    #[arg(long, value_name = "DIRECTORY")]
    pub trace: Option<PathBuf>,
    /// Start replicas with this program, which is given the command line of a replica: to count their
    /// instructions, say (`perf/instructions`).
    #[arg(long, value_name = "PROGRAM")]
    pub replica_wrapper: Option<PathBuf>,
}

/// Options of `run`.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// The group and its clients.
    #[command(flatten)]
    pub group: GroupOptions,
    /// The operations, and when they are due.
    #[command(flatten)]
    pub load: LoadOptions,
    /// So many processes make the load, each with --connections connections: for more than one process of the
    /// operating system can do. The clients are shared among them.
    #[arg(long, default_value_t = 1, value_name = "N",
          value_parser = clap::value_parser!(u32).range(1..=64))]
    pub processes: u32,
    /// How long to measure.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = seconds)]
    pub duration: Duration,
    /// Measure this many operations, and not a time.
    #[arg(long, value_name = "N", conflicts_with_all = ["duration", "find_knee", "processes", "ramp"],
          value_parser = clap::value_parser!(u64).range(1..))]
    pub operations: Option<u64>,
    /// How long to load before the measurement.
    #[arg(long, default_value = "2s", value_name = "DURATION", value_parser = seconds)]
    pub warmup: Duration,
    /// Cause this while measuring, so long after the measurement began: TIME:kill-leader, TIME:kill 1,
    /// TIME:pause 2 for 5s, TIME:pause-leader for 5s, TIME:restart 1 or TIME:restart-leader, as in
    /// 10s:kill-leader. With replicas in network namespaces of their own also TIME:partition 2 for 5s,
    /// TIME:partition-leader for 5s (cut off from everybody), TIME:slow-link 2 20ms 100mbit for 5s (each way;
    /// without a number the wires of all, without `for` to the end). The option may be given again.
    #[arg(long = "event", value_name = "TIME:WHAT")]
    pub events: Vec<Event>,
    /// Show where latency goes: one request in N (64 if no number is given) is followed through all stages of
    /// the load generator, the leader and its followers.
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "64",
          value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub stages: Option<u32>,
    /// Put the load on a group that runs already, here or elsewhere: the directory with its group.toml and the
    /// keys of clients, as `hybster init` makes it. --service says what it runs. Nothing is known then of the
    /// replicas' processes. Each connection is a client of the group, and one more asks for counters if there
    /// is one.
    #[arg(long = "group", value_name = "DIRECTORY", conflicts_with_all = ["protocol", "replicas", "faults",
          "pillars", "batch_max", "layout", "durability", "authenticator", "request_authenticator",
          "link_cipher", "unreplicated", "trace", "replica_wrapper", "events", "stages"])]
    pub group_directory: Option<PathBuf>,
    /// The number of the first of those clients; others may load the same group at the same time.
    #[arg(long, default_value_t = 0, value_name = "N", requires = "group_directory")]
    pub first_client: u32,
    /// Find the highest rate at which this holds, such as "p99<5ms" (p50, p90, p99, p999, mean or max), by
    /// an open loop of --duration at each step. Without --rate, the steps follow from what a closed loop
    /// reaches.
    #[arg(long, value_name = "CONDITION", conflicts_with_all = ["events", "ramp"])]
    pub find_knee: Option<Objective>,
    /// Write a directory with report.html, plots, report.json, CSV and the distribution of latencies too.
    #[arg(long, value_name = "DIRECTORY")]
    pub report: Option<PathBuf>,
    /// Write the report as JSON to this file too (see bench/REPORT.md).
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Options of `fault`.
#[derive(Clone, Debug, Args)]
#[command(group(clap::ArgGroup::new("fault").required(true).args(["kill_leader", "pause_follower", "restart"])))]
pub struct FaultOptions {
    /// Kill the leader with SIGKILL.
    #[arg(long)]
    pub kill_leader: bool,
    /// Stop a follower with SIGSTOP for this long; 30s if no duration is given.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "30s",
          value_parser = seconds)]
    pub pause_follower: Option<Duration>,
    /// Kill replicas with SIGKILL and start them again, for the time of --after: one at a time at random
    /// and now and then all (random), one after the other (rolling), or all each time (all).
    #[arg(long, value_name = "HOW", num_args = 0..=1, default_missing_value = "random")]
    pub restart: Option<RestartHow>,
    /// What happens to disks meanwhile.
    #[command(flatten)]
    pub disks: DiskOptions,
    /// What --restart random draws from: the same number gives the same kills and disk faults, though not at the
    /// same operations. By default another one each time; the report has it.
    #[arg(long, value_name = "N")]
    pub fault_seed: Option<u64>,
    /// How long to load before the fault.
    #[arg(long, default_value = "3s", value_name = "DURATION", value_parser = seconds)]
    pub at: Duration,
    /// How long to load after the fault (after the catch-up for --pause-follower).
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = seconds)]
    pub after: Duration,
    /// The operations, and when they are due. By default clients increment a counter, which shows whether
    /// an operation was lost or counted twice; of other services, only what clients notice is reported.
    #[command(flatten)]
    pub load: LoadOptions,
    /// Repetitions, each with a fresh group.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// Write the report as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The group and its clients.
    #[command(flatten)]
    pub group: GroupOptions,
}

/// Options of `sweep`.
#[derive(Clone, Debug, Args)]
pub struct SweepOptions {
    /// What to change.
    #[arg(long, value_enum)]
    pub over: Axis,
    /// Its values, separated by commas; by default a series that suits the option.
    #[arg(long, value_delimiter = ',', value_name = "VALUES")]
    pub values: Vec<String>,
    /// Runs per value; the values take turns.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// Write the series as CSV to this file too, one line per run.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Everything that stays the same.
    #[command(flatten)]
    pub run: RunOptions,
}

/// Options of `ablate`.
#[derive(Clone, Debug, Args)]
pub struct AblateOptions {
    /// What is left out or exchanged, separated by commas; by default everything. The first is what others
    /// are compared with.
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub only: Vec<String>,
    /// Runs of each; they take turns.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub repeat: u32,
    /// Write the runs as CSV to this file too, one line per run.
    #[arg(long, value_name = "FILE")]
    pub csv: Option<PathBuf>,
    /// Everything that stays the same.
    #[command(flatten)]
    pub run: RunOptions,
}

/// Options of `compare`.
#[derive(Clone, Debug, Args)]
pub struct CompareOptions {
    /// Reports (--json) of run, sweep, ablate, fault or --find-knee, all of one kind, or directories of reports that are
    /// taken together.
    /// The first is what others are compared with; of a series, its first value.
    #[arg(required = true, value_name = "FILE")]
    pub reports: Vec<PathBuf>,
    /// Write the comparison as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Options of `merge`.
#[derive(Clone, Debug, Args)]
pub struct MergeOptions {
    /// Reports (--json) of `run --group`, each with clients of its own (--first-client).
    #[arg(required = true, num_args = 2.., value_name = "FILE")]
    pub reports: Vec<PathBuf>,
    /// Write a directory with report.html, plots, report.json, CSV and the distribution of latencies too.
    #[arg(long, value_name = "DIRECTORY")]
    pub report: Option<PathBuf>,
    /// Write the report as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// Options of `flamegraph`.
#[derive(Clone, Debug, Args)]
pub struct ProfileOptions {
    /// How long to sample.
    #[arg(long, default_value = "5s", value_name = "DURATION", value_parser = seconds)]
    pub seconds: Duration,
    /// Samples per second and process.
    #[arg(long, default_value_t = 997, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub frequency: u32,
    /// Directory for samples, stacks and flamegraphs; created if it does not exist.
    #[arg(long, default_value = "flamegraphs")]
    pub out: PathBuf,
    /// The load; `--duration` follows from `--seconds`.
    #[command(flatten)]
    pub run: RunOptions,
}

/// Options of `idle`.
#[derive(Clone, Debug, Args)]
pub struct IdleOptions {
    /// How long to watch.
    #[arg(long, default_value = "30s", value_name = "DURATION", value_parser = seconds)]
    pub seconds: Duration,
    /// Write the report as JSON to this file too.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// The group.
    #[command(flatten)]
    pub group: GroupOptions,
}

/// Options of the hidden subcommand.
#[derive(Clone, Debug, Args)]
pub struct ReplicaArgs {
    /// The group directory.
    #[arg(long)]
    pub group: PathBuf,
    /// Which replica.
    #[arg(long)]
    pub id: u16,
    /// Layout of stages on cores.
    #[arg(long)]
    pub layout: Layout,
    /// Cores that its threads are pinned to.
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// Transport of the links.
    #[arg(long, default_value_t)]
    pub transport: TransportKind,
    /// How long to poll for messages before sleeping.
    #[arg(long, default_value = "100us", value_parser = busy_poll)]
    pub busy_poll: Duration,
    /// The service.
    #[arg(long, value_enum)]
    pub service: ServiceKind,
    /// Bytes of a null service's reply.
    #[arg(long, default_value_t = 0)]
    pub reply_size: u32,
    /// The place of its log and checkpoints, if it is another one than usual.
    #[arg(long)]
    pub data: Option<PathBuf>,
    /// The server without a protocol.
    #[arg(long)]
    pub unreplicated: bool,
    /// The file for its trace.
    #[arg(long)]
    pub trace: Option<PathBuf>,
    /// One request in so many is followed.
    #[arg(long, requires = "stage_file")]
    pub stages: Option<u32>,
    /// The file for the stamps of these.
    #[arg(long)]
    pub stage_file: Option<PathBuf>,
}

/// Options of the hidden subcommand for a load process.
#[derive(Clone, Debug, Args)]
pub struct LoadArgs {
    /// Which of them it is.
    #[arg(long)]
    pub part: u32,
    /// Cores that its load threads are pinned to.
    #[arg(long, value_delimiter = ',')]
    pub cores: Vec<usize>,
    /// One request in so many is followed.
    #[arg(long)]
    pub follow: Option<u32>,
    /// The load on a group; of `processes`, this is one.
    #[command(flatten)]
    pub run: RunOptions,
}

impl Cli {
    /// Whether replicas need wires of their own.
    #[must_use]
    pub fn needs_network(&self) -> bool {
        let run = match &self.command {
            None => &self.run,
            Some(Command::Run(run)) => run,
            Some(Command::Sweep(options)) => &options.run,
            Some(Command::Ablate(options)) => &options.run,
            Some(Command::Flamegraph(options)) => &options.run,
            Some(_) => return false,
        };
        run.needs_network()
    }
}

impl RunOptions {
    /// Whether replicas need wires of their own.
    #[must_use]
    pub fn needs_network(&self) -> bool {
        self.events.iter().any(|event| event.action.is_of_network())
    }

    /// The connections of all load processes.
    #[must_use]
    pub fn connections(&self) -> u32 {
        self.processes * self.group.connections.min(self.group.clients)
    }
}

const DAY: Duration = Duration::from_secs(86_400);

fn seconds(text: &str) -> Result<Duration, DurationError> {
    DurationRange::seconds(Duration::ZERO, DAY).parse(text)
}

fn busy_poll(text: &str) -> Result<Duration, DurationError> {
    DurationRange::microseconds(Duration::ZERO, Duration::from_secs(1)).parse(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_run_is_the_default() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["hybster-bench", "--pillars", "4"]);
        assert!(cli.command.is_none());
        assert_eq!((cli.run.group.pillars, cli.run.group.protocol), (4, Protocol::Hybster));
        assert!(Cli::try_parse_from(["hybster-bench", "--protocol", "paxos"]).is_err());
        let cli = Cli::parse_from(["hybster-bench", "run", "--rate", "1000"]);
        let Some(Command::Run(run)) = cli.command else { panic!("not run") };
        assert_eq!(run.load.rate, Some(1000.0));
    }

    #[test]
    fn a_group_that_runs_already_is_taken_as_it_is() {
        let group = ["hybster-bench", "--group", "/tmp/group"];
        assert!(Cli::try_parse_from(group).is_ok());
        for conflict in ["--pillars=2", "--unreplicated", "--event=1s:kill-leader", "--faults=1"] {
            assert!(Cli::try_parse_from([&group[..], &[conflict]].concat()).is_err(), "{conflict}");
        }
        assert!(Cli::try_parse_from(["hybster-bench", "--first-client=1"]).is_err());
    }

    #[test]
    fn a_load_process_is_told_what_its_parent_was() {
        let loads = [
            "--workload=ycsb-e --keys=7 --distribution=uniform --scan-length=3 --seed=9 --rate=10.5 \
             --arrivals=poisson --hot-client=7",
            "--service=kv --read-percent=5 --think-time=1500us",
            "--ramp=1.5k..2M --arrivals=constant",
            "--replay=/tmp/operations",
            "",
        ];
        for load in loads {
            let words: Vec<&str> = load.split_whitespace().collect();
            let run = Cli::parse_from([&["hybster-bench"], &words[..]].concat()).run;
            let told = run.load.arguments();
            let again =
                Cli::parse_from(std::iter::once("hybster-bench".to_owned()).chain(told)).run;
            assert_eq!(format!("{:?}", again.load), format!("{:?}", run.load));
        }
    }

    #[test]
    fn a_fault_must_be_chosen_and_a_pause_has_a_default_length() {
        assert!(Cli::try_parse_from(["hybster-bench", "fault"]).is_err());
        let cli = Cli::parse_from(["hybster-bench", "fault", "--pause-follower", "--at", "1"]);
        let Some(Command::Fault(fault)) = cli.command else { panic!("not fault") };
        assert_eq!(fault.pause_follower, Some(Duration::from_secs(30)));
    }

    #[test]
    fn durations_are_taken_as_people_write_them_and_as_before() {
        let run =
            |arguments: &[&str]| Cli::parse_from([&["hybster-bench"], arguments].concat()).run;
        let plain = run(&["--duration", "0.5", "--warmup", "1", "--busy-poll-us", "50"]);
        let with_units = run(&["--duration", "500ms", "--warmup", "1s", "--busy-poll", "50us"]);
        for options in [plain, with_units] {
            assert_eq!(options.duration, Duration::from_millis(500));
            assert_eq!(options.warmup, Duration::from_secs(1));
            assert_eq!(options.group.busy_poll, Duration::from_micros(50));
        }
        let pause = ["hybster-bench", "fault", "--pause-follower", "2m", "--after", "1.5s"];
        let Some(Command::Fault(fault)) = Cli::parse_from(pause).command else { panic!() };
        assert_eq!(fault.pause_follower, Some(Duration::from_secs(120)));
        assert_eq!(fault.after, Duration::from_millis(1500));
        for wrong in [["--duration", "5 parsecs"], ["--duration", "2d"], ["--busy-poll", "2s"]] {
            assert!(Cli::try_parse_from([&["hybster-bench"], &wrong[..]].concat()).is_err());
        }
    }
}
