//! `hybster replica`: runs one replica until it is told to stop.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use hybster::duration::{DurationError, DurationRange};
use hybster::group::parse_address;
use hybster::services::{CounterService, KvService, NullService};
use hybster::{
    Group, Layout, PeerAddress, Replica, ReplicaError, ReplicaId, ReplicaKeys, RunningReplica,
    TransportKind,
};
use hybster_gateway::RedisService;

use crate::metrics::Monitoring;
use crate::service::ServiceName;
use crate::systemd::Manager;
use crate::{Done, Failure};

/// Time between two checks that the replica still runs.
const LOOK: Duration = Duration::from_millis(200);

/// Options of `hybster replica`.
#[derive(Debug, Args)]
#[command(
    after_help = "The log goes to standard error, from level info up; --log and --log-format, or the \
    environment variables HYBSTER_LOG and HYBSTER_LOG_FORMAT, change that; SIGUSR1 raises the level by \
    one, SIGUSR2 sets it back. When the replica listens, \
    it prints `ready replica N on ADDRESS` to standard output."
)]
pub(crate) struct ReplicaArgs {
    /// The group directory.
    #[arg(long)]
    group: PathBuf,
    /// The replica's number N; its key is replica-N.key in the group directory.
    #[arg(long, value_name = "N")]
    id: u16,
    /// The service; must be the same on all replicas.
    #[arg(long, value_enum, default_value = "kv")]
    service: ServiceName,
    /// Layout of the stages on threads: auto, fused or split; by default that of group.toml.
    #[arg(long)]
    layout: Option<Layout>,
    /// Transport of the links: auto, io-uring or epoll. `auto` is io_uring where the system has it,
    /// else epoll.
    #[arg(long, default_value_t)]
    transport: TransportKind,
    /// How long a thread polls for messages before it sleeps, while messages follow each other
    /// closely; with 0 it sleeps at once. A plain number means microseconds.
    #[arg(long, visible_alias = "busy-poll-us", default_value = "100us", value_name = "DURATION",
          value_parser = busy_poll)]
    busy_poll: Duration,
    /// Listen on this address instead of the replica's own in group.toml, for example 0.0.0.0:7100 behind a
    /// port mapping. The others still connect to that one.
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = parse_address)]
    listen: Option<PeerAddress>,
    /// The directory for the replica's log and checkpoints, if the group keeps any; by default
    /// replica-N.epoch-E.data in the group directory.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Answer /metrics (Prometheus), /health and /ready over HTTP on this address; by default there
    /// is none. Whoever reaches it can read them: choose one that only monitoring reaches. The
    /// metrics are documented in tools/METRICS.md.
    #[arg(long, value_name = "IP:PORT")]
    metrics: Option<SocketAddr>,
    /// Pin each thread to its own core.
    #[arg(long)]
    pin: bool,
    /// Pin the threads to these cores, in the order network, pillars, execution, state; the list
    /// repeats if there are too few. The layout `auto` is chosen for this number of cores.
    #[arg(long, value_name = "CORE,...", value_delimiter = ',')]
    cores: Vec<usize>,
    /// Bytes of a reply of the null service.
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    reply_size: u32,
    /// Write all protocol events into this new file, for `hybster trace` and checkers.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Stop when standard input ends, so that the replica stops with a parent that holds a pipe to
    /// it, however the parent dies.
    #[arg(long)]
    exit_with_parent: bool,
}

fn busy_poll(text: &str) -> Result<Duration, DurationError> {
    DurationRange::microseconds(Duration::ZERO, Duration::from_secs(1)).parse(text)
}

/// Runs the replica.
pub(crate) fn replica(args: &ReplicaArgs) -> Result<Done, Failure> {
    hybster::heap::keep_freed_memory();
    let group = Group::load(&args.group)?;
    // Before any thread, which takes memory too.
    crate::exhaustion::prepare(&args.group, &group)?;
    let (stop, stopped) = mpsc::sync_channel::<()>(1);
    let signal = stop.clone();
    ctrlc::set_handler(move || {
        let _ = signal.try_send(());
    })?;
    crate::loudness::follow_signals()?;
    // Before the start, so that an address that is taken costs nothing; and it answers while the
    // replica reads its log.
    let listen = |address| Monitoring::listen(address, args.id);
    let monitoring = args.metrics.map(listen).transpose()?;
    let peers_needed = group.config().quorum() - 1;
    let mut replica = start(args, group.clone(), 0)?;
    if let Some(monitoring) = &monitoring {
        monitoring.watch(replica.stopper(), peers_needed);
    }
    announce(&replica)?;
    let mut manager = Manager::from_environment();
    manager.ready(&format!("replica {} listens on {}", args.id, replica.local_address()));
    if args.exit_with_parent {
        std::thread::Builder::new().name("parent".into()).spawn(move || {
            let mut input = std::io::stdin();
            while matches!(input.read(&mut [0; 64]), Ok(1..)) {}
            let _ = stop.try_send(());
        })?;
    } else {
        // The signal handler holds the other end for as long as the process lives.
        drop(stop);
    }
    loop {
        match stopped.recv_timeout(LOOK) {
            Ok(()) => break,
            Err(_) if replica.is_running() => manager.alive(),
            Err(_) => {
                // It ended by itself; `wait` returns why.
                let next = match replica.wait() {
                    Err(ReplicaError::EpochOver { next, .. }) => next,
                    other => {
                        other?;
                        let text = format!("replica {} stopped by itself", args.id);
                        return Err(Failure::new(text));
                    }
                };
                replica = start(args, group.clone(), next)?;
                if let Some(monitoring) = &monitoring {
                    monitoring.watch(replica.stopper(), peers_needed);
                }
            }
        }
    }
    manager.stopping();
    match replica.shutdown() {
        // The next start begins in it.
        Ok(()) | Err(ReplicaError::EpochOver { .. }) => Ok(Done::Yes),
        Err(error) => Err(error.into()),
    }
}

/// Starts the replica: the first time, or again as this epoch begins.
fn start(args: &ReplicaArgs, group: Group, epoch: u32) -> Result<RunningReplica, Failure> {
    let keys = ReplicaKeys::load(&group, group.directory(), ReplicaId(args.id))?;
    let layout = args.layout.unwrap_or(group.layout());
    let mut builder = Replica::builder(group, keys)
        .layout(layout)
        .transport(args.transport)
        .busy_poll(args.busy_poll)
        .pin(args.pin);
    if let Some(address) = &args.listen {
        builder = builder.listen(address.clone());
    }
    if let Some(directory) = &args.data {
        builder = builder.data(directory);
    }
    if !args.cores.is_empty() {
        builder = builder.cores(args.cores.clone());
    }
    if let Some(file) = &args.trace {
        // A trace is of one epoch.
        builder = builder.trace_file(match epoch {
            0 => file.clone(),
            epoch => PathBuf::from(format!("{}.epoch-{epoch}", file.display())),
        });
    }
    Ok(match args.service {
        ServiceName::Null => builder.service(NullService::new(args.reply_size as usize)).start(),
        ServiceName::Counter => builder.service(CounterService::new()).start(),
        ServiceName::Kv => builder.service(KvService::new()).start(),
        ServiceName::Redis => builder.service(RedisService::new()).start(),
    }?)
}

fn announce(replica: &RunningReplica) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready replica {} on {}", replica.id().0, replica.local_address())?;
    out.flush()?;
    Ok(())
}
