//! The command `hybster`: make a group, run its replicas, save and restore its service's state, use the key-value
//! store, serve Redis clients, show the group's status, find what is wrong with it, simulate groups.

#![forbid(unsafe_code)]

mod backup;
mod client;
mod doctor;
#[cfg(test)]
mod document;
mod exhaustion;
mod gateway;
mod health;
mod init;
mod kv;
mod loudness;
mod memory;
mod metrics;
#[cfg(test)]
mod reference;
mod replace;
mod replica;
mod service;
mod simulate;
mod status;
mod survey;
mod systemd;
mod top;
mod trace;
mod words;

use std::fmt;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use hybster::logging::{self, Filter, Format};
use hybster::{GroupError, StartError};
use log::LevelFilter;

#[global_allocator]
static HEAP: hybster::heap::Heap = hybster::heap::Heap;

/// Set up, run and use a Hybster group.
#[derive(Debug, Parser)]
#[command(name = "hybster", version)]
#[command(after_help = "Exit status: 0 done, 1 failed (the message says what to do), 2 wrong \
    options, 3 the key is absent or holds another value, 4 not all replicas are well, or the doctor \
    found something wrong.")]
struct Cli {
    /// Log lines on standard error: off, error, warn, info, debug or trace, or a list such as
    /// info,hybster_net=debug. By default HYBSTER_LOG, else info (or RUST_LOG) for a replica and off
    /// for all else.
    #[arg(long, global = true, value_name = "LEVEL")]
    log: Option<Filter>,
    /// The form of log lines, text or json (an object per line). By default HYBSTER_LOG_FORMAT, else
    /// text.
    #[arg(long, global = true, value_name = "FORM")]
    log_format: Option<Format>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a group directory: configuration, replica keys, client keys.
    Init(init::InitArgs),
    /// Run one replica until Ctrl-C or SIGTERM.
    Replica(replica::ReplicaArgs),
    /// Put another replica in the place of one whose disk or host is lost.
    ReplaceReplica(replace::ReplaceArgs),
    /// Save a service's state from a replica's disk, while the replica runs.
    Backup(backup::BackupArgs),
    /// Make a new group whose service begins with a saved state.
    Restore(backup::RestoreArgs),
    /// Use the replicated key-value store.
    Kv(kv::KvArgs),
    /// Let Redis clients use a group that runs `--service redis`.
    Gateway(gateway::GatewayArgs),
    /// Show the status of every replica.
    Status(status::StatusArgs),
    /// Show all replicas in a terminal, again and again.
    Top(top::TopArgs),
    /// Look at this machine and the group, and say what to change.
    Doctor(doctor::DoctorArgs),
    /// Run groups in simulated time, with faults and liars, and check their guarantees.
    Simulate(simulate::SimulateArgs),
    /// Print the protocol events that `hybster replica --trace` wrote.
    Trace(trace::TraceArgs),
}

/// The result of a command that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    /// It did what was asked.
    Yes,
    /// The key is absent or holds another value.
    NotThere,
    /// The status of the group was shown, and a replica is not well.
    NotWell,
}

/// A command failed; the text says what happened and what to do.
#[derive(Debug)]
struct Failure {
    text: String,
    /// Whether it did nothing, because an option has a value that cannot be used.
    of_options: bool,
}

impl Failure {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), of_options: false }
    }

    /// An option has a value that cannot be used. Only what clap cannot know comes here.
    fn options(text: impl Into<String>) -> Self {
        Self { text: text.into(), of_options: true }
    }

    fn exit_code(&self) -> ExitCode {
        if self.of_options { ExitCode::from(2) } else { ExitCode::FAILURE }
    }
}

/// Whether an error is about the value of an option, which clap took.
fn is_of_options(error: &(dyn std::error::Error + 'static)) -> bool {
    let of_group = |error: &GroupError| {
        matches!(error, GroupError::Options { .. } | GroupError::Unknown { .. })
    };
    match error.downcast_ref::<StartError>() {
        Some(StartError::Group(error)) => of_group(error),
        Some(error) => matches!(error, StartError::Core { .. } | StartError::UnknownReplica(_)),
        None => error.downcast_ref().is_some_and(of_group),
    }
}

impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let of_options = is_of_options(&error);
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            // Some errors repeat their cause in their own text.
            let cause_text = cause.to_string();
            if !text.contains(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        Self { text, of_options }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let usual = match cli.command {
        Command::Replica(_) | Command::Gateway(_) => LevelFilter::Info,
        _ => LevelFilter::Off,
    };
    if let Err(error) = logging::init(cli.log, cli.log_format, usual) {
        eprintln!("hybster: {error}");
        return ExitCode::FAILURE;
    }
    let result = match cli.command {
        Command::Init(args) => init::init(&args),
        Command::Replica(args) => replica::replica(&args),
        Command::ReplaceReplica(args) => replace::replace(&args),
        Command::Backup(args) => backup::backup(&args),
        Command::Restore(args) => backup::restore(&args),
        Command::Kv(args) => kv::kv(&args),
        Command::Gateway(args) => gateway::gateway(&args),
        Command::Status(args) => status::status(&args),
        Command::Top(args) => top::top(&args),
        Command::Doctor(args) => doctor::doctor(&args),
        Command::Simulate(args) => simulate::simulate(&args),
        Command::Trace(args) => trace::trace(&args),
    };
    match result {
        Ok(Done::Yes) => ExitCode::SUCCESS,
        Ok(Done::NotThere) => ExitCode::from(3),
        Ok(Done::NotWell) => ExitCode::from(4),
        Err(failure) => {
            eprintln!("hybster: {failure}");
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        super::Cli::command().debug_assert();
    }
}
