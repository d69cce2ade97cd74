//! `hybster gateway`: lets Redis clients use the group's store.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use hybster::client::{Client, ClientOptions};
use hybster::{ClientId, ClientKeys, Group};
use hybster_gateway::{Gateway, GatewayOptions};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::kv::timeout;
use crate::{Done, Failure};

/// Files that a gateway needs besides its connections.
const FILES: u64 = 128;

/// Options of `hybster gateway`.
#[derive(Debug, Args)]
#[command(
    after_help = "The group's replicas must run `--service redis`. Whoever reaches the address can use the \
    store: choose one that only its users reach, and a password. What they are told they are told by this \
    gateway, not by f+1 replicas: run it where its users trust it, best beside them. When it listens, it prints \
    `ready gateway on ADDRESS` to standard output."
)]
pub(crate) struct GatewayArgs {
    /// The group directory.
    #[arg(long)]
    group: PathBuf,
    /// Whose key to use: client-N.key of the group directory. Gateways that run at the same time may share
    /// one.
    #[arg(long, default_value_t = 0, value_name = "N")]
    client: u32,
    /// Where Redis clients connect to.
    #[arg(long, default_value = "127.0.0.1:6379", value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Redis clients at a time; one more is told so.
    #[arg(long, default_value_t = 10_000, value_name = "CONNECTIONS")]
    max_connections: usize,
    /// MiB that all connections together may hold; beyond it the one that holds the most is closed.
    #[arg(long, default_value_t = 256, value_name = "MIB")]
    max_memory: usize,
    /// Operations under way at a time. Each has commands of many connections.
    #[arg(long, default_value_t = 4, value_name = "OPERATIONS",
          value_parser = clap::value_parser!(u32).range(2..=1024))]
    operations: u32,
    /// Order operations that only read as well, instead of asking all replicas for the same answer.
    #[arg(long)]
    order_reads: bool,
    /// A file with the password that Redis clients must give by AUTH; by default there is none.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// How long to wait for the group, such as 5s or 500ms; a plain number means seconds.
    #[arg(long, default_value = "10s", value_name = "DURATION", value_parser = timeout)]
    timeout: Duration,
}

/// Runs the gateway until it is told to stop.
pub(crate) fn gateway(args: &GatewayArgs) -> Result<Done, Failure> {
    hybster::heap::keep_freed_memory();
    let group = Group::load(&args.group)?;
    let password = args.password_file.as_deref().map(password).transpose()?;
    let keys = ClientKeys::load(&group, group.directory(), ClientId(args.client))?;
    let operations = args.operations as usize;
    let options = ClientOptions {
        // Each has a session of its own.
        sessions: args.operations.min(group.config().max_sessions_per_client),
        request_timeout: args.timeout,
        connect_timeout: args.timeout,
        ..ClientOptions::default()
    };
    let client = Client::connect(&group, &keys, options)?;
    let options = GatewayOptions {
        max_connections: args.max_connections,
        max_bytes: args.max_memory.saturating_mul(1 << 20),
        operations,
        queries: !args.order_reads,
        password,
    };
    make_room_for_sockets(args.max_connections);
    let mut gateway = Gateway::listen(&group, client, args.listen, options)?;
    let stopper = gateway.stopper();
    ctrlc::set_handler(move || stopper.stop())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready gateway on {}", gateway.local_address())?;
    out.flush()?;
    drop(out);
    gateway.run()?;
    Ok(Done::Yes)
}

/// Lets this process have as many sockets as connections were asked for, if the system permits so many.
fn make_room_for_sockets(connections: usize) {
    let wanted = connections as u64 + FILES;
    let limit = getrlimit(Resource::Nofile);
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(current), ..limit });
    if raised.is_err() || current < wanted {
        log::warn!(
            "this process may have {current} files open, so fewer than {connections} connections: raise \
             the hard limit (ulimit -Hn), or choose fewer by --max-connections"
        );
    }
}

/// The first line of a file.
fn password(file: &Path) -> Result<String, Failure> {
    let failed =
        |what: &str| Failure::options(format!("--password-file {}: {what}", file.display()));
    let text = std::fs::read_to_string(file).map_err(|error| failed(&error.to_string()))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(failed("the file is empty; write the password into its first line")),
    }
}
