//! The hidden subcommand `replica`: what a child of the benchmark runs.

use std::io::{Read, Write};
use std::path::PathBuf;

use clap::Args;
use hybster::{Layout, TransportKind};
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::Error;
use crate::engine;
use crate::options::ServiceKind;
use crate::stop::Stop;

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
    /// What carries the bytes.
    #[arg(long, default_value_t)]
    pub transport: TransportKind,
    /// Microseconds to look for more messages before sleeping.
    #[arg(long, default_value_t = 100)]
    pub busy_poll_us: u64,
    /// The service.
    #[arg(long, value_enum)]
    pub service: ServiceKind,
    /// Bytes of a null service's reply.
    #[arg(long, default_value_t = 0)]
    pub reply_size: u32,
    /// The server without a protocol.
    #[arg(long)]
    pub unreplicated: bool,
}

/// Runs one replica until its standard input ends, its parent dies or a signal comes.
///
/// # Errors
/// If it cannot start, or stops by itself.
pub fn run_replica(args: &ReplicaArgs) -> Result<(), Error> {
    // SIGKILL, because a replica that is stopped (SIGSTOP) takes notice of nothing else.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Error::new(format!("cannot tie this process to its parent: {e}")))?;
    let level = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(level).target(env_logger::Target::Stderr).init();
    let stop = Stop::on_signals()?;
    let replica = engine::start_replica(args)?;
    println!("ready replica {}", args.id);
    std::io::stdout().flush().map_err(|e| Error::new(format!("standard output: {e}")))?;
    let ended = stop.clone();
    std::thread::Builder::new()
        .name("parent".into())
        .spawn(move || {
            let mut buffer = [0; 64];
            let mut input = std::io::stdin();
            while matches!(input.read(&mut buffer), Ok(1..)) {}
            ended.raise();
        })
        .map_err(|e| Error::new(format!("cannot start a thread: {e}")))?;
    engine::serve(replica, &stop)
}
