//! The hidden subcommand `replica`, which the child processes of the benchmark run.

use std::io::{Read, Write};

use rustix::process::{Signal, set_parent_process_death_signal};

use crate::Error;
use crate::engine::{self, StageTimes};
use crate::options::ReplicaArgs;
use crate::stages::file;
use crate::stop::Stop;

/// Runs one replica until its standard input ends, its parent dies or a signal comes.
///
/// # Errors
/// If it cannot start, or stops by itself.
pub fn run_replica(args: &ReplicaArgs) -> Result<(), Error> {
    // SIGKILL, because a replica that is stopped (SIGSTOP) reacts to no other signal.
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Error::new(format!("cannot tie this process to its parent: {e}")))?;
    hybster::logging::init(None, None, log::LevelFilter::Info)
        .map_err(|e| Error::new(e.to_string()))?;
    let stop = Stop::on_signals()?;
    let times = args.stages.map(StageTimes::one_in);
    let replica = engine::start_replica(args, times.as_ref())?;
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
    let served = engine::serve(replica, &stop);
    if let (Some(times), Some(file)) = (times, &args.stage_file) {
        let (stamps, lost) = times.take();
        file::write(file, &stamps, lost)?;
    }
    served
}
