//! The command `hybster-bench`.

#![forbid(unsafe_code)]

use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use hybster_bench::options::{
    Cli, Command, FaultOptions, IdleOptions, ProfileOptions, RunOptions, SweepOptions,
};
use hybster_bench::profile::{idle, profile};
use hybster_bench::report::write_json;
use hybster_bench::stop::Stop;
use hybster_bench::sweep::{sweep, write_csv};
use hybster_bench::{Error, launch, run, scenario};

/// Measured, but operations failed or a check did not hold.
const NOT_CLEAN: u8 = 3;

fn main() -> ExitCode {
    let cli = Cli::parse();
    hybster::heap::keep_freed_memory();
    let result = match cli.command {
        None => run_command(&cli.run),
        Some(Command::Run(options)) => run_command(&options),
        Some(Command::Fault(options)) => fault_command(&options),
        Some(Command::Sweep(options)) => sweep_command(&options),
        Some(Command::Flamegraph(options)) => profile_command(&options),
        Some(Command::Idle(options)) => idle_command(&options),
        Some(Command::Replica(args)) => launch::run_replica(&args).map(|()| true),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(NOT_CLEAN),
        Err(error) => {
            eprintln!("hybster-bench: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run_command(options: &RunOptions) -> Result<bool, Error> {
    writable("--json", options.json.as_deref())?;
    let report = run(options, &Stop::on_signals()?)?;
    print!("{report}");
    if let Some(path) = &options.json {
        write_json(path, &report)?;
    }
    Ok(report.errors == 0 && report.completed > 0)
}

fn fault_command(options: &FaultOptions) -> Result<bool, Error> {
    writable("--json", options.json.as_deref())?;
    let report = scenario::fault(options, &Stop::on_signals()?)?;
    print!("{report}");
    if let Some(path) = &options.json {
        write_json(path, &report)?;
    }
    Ok(report.is_clean())
}

fn sweep_command(options: &SweepOptions) -> Result<bool, Error> {
    writable("--json", options.run.json.as_deref())?;
    writable("--csv", options.csv.as_deref())?;
    let report = sweep(options, &Stop::on_signals()?)?;
    print!("{report}");
    if let Some(path) = &options.run.json {
        write_json(path, &report)?;
    }
    if let Some(path) = &options.csv {
        write_csv(path, &report)?;
    }
    Ok(report.is_clean())
}

fn profile_command(options: &ProfileOptions) -> Result<bool, Error> {
    writable("--json", options.run.json.as_deref())?;
    let report = profile(options, &Stop::on_signals()?)?;
    print!("{report}");
    if let Some(path) = &options.run.json {
        write_json(path, &report)?;
    }
    Ok(report.run.errors == 0 && report.run.completed > 0)
}

fn idle_command(options: &IdleOptions) -> Result<bool, Error> {
    writable("--json", options.json.as_deref())?;
    let report = idle(options, &Stop::on_signals()?)?;
    print!("{report}");
    if let Some(path) = &options.json {
        write_json(path, &report)?;
    }
    Ok(true)
}

/// Checks before the measurement, and not after it, that a report can be written.
fn writable(option: &str, path: Option<&Path>) -> Result<(), Error> {
    let Some(path) = path else { return Ok(()) };
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.is_dir() || !folder.is_dir() {
        let text = format!("give {option} a file in an existing directory");
        return Err(Error::new(format!("cannot write {}: {text}", path.display())));
    }
    Ok(())
}
