//! The command `hybster-bench`.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use hybster_bench::compare::{compare, of_groups};
use hybster_bench::knee::find_knee;
use hybster_bench::merge::merge;
use hybster_bench::options::{
    AblateOptions, Axis, Cli, Command, CompareOptions, FaultOptions, IdleOptions, MergeOptions,
    ProfileOptions, RunOptions, SweepOptions,
};
use hybster_bench::page::Page;
use hybster_bench::profile::{idle, profile};
use hybster_bench::report::{
    Verdict, check_directory, check_writable, is_stdout, width_of, wrap, write_json,
};
use hybster_bench::stop::Stop;
use hybster_bench::sweep::{sweep, write_csv};
use hybster_bench::{Error, launch, run, scenario};
use serde::Serialize;

/// The options are wrong.
const WRONG_OPTIONS: u8 = 2;
/// Measured, but operations failed or a check did not hold.
const NOT_CLEAN: u8 = 3;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            let stderr = io::stderr();
            eprint!("{}", wrap(&error.render().to_string(), width_of(&stderr)));
            return ExitCode::from(WRONG_OPTIONS);
        }
        // Help and version.
        Err(error) => error.exit(),
    };
    if cli.needs_network()
        && let Err(error) = launch::enter()
    {
        tell(&error);
        return ExitCode::from(error.exit_code());
    }
    hybster::heap::keep_freed_memory();
    let result = match cli.command {
        None => run_command(&cli.run),
        Some(Command::Run(options)) => run_command(&options),
        Some(Command::Fault(options)) => fault_command(&options),
        Some(Command::Sweep(options)) => sweep_command(&options),
        Some(Command::Ablate(options)) => ablate_command(&options),
        Some(Command::Compare(options)) => compare_command(&options),
        Some(Command::Merge(options)) => merge_command(&options),
        Some(Command::Flamegraph(options)) => profile_command(&options),
        Some(Command::Idle(options)) => idle_command(&options),
        Some(Command::Replica(args)) => launch::run_replica(&args).map(|()| Verdict::default()),
        Some(Command::Load(args)) => run::run_load(&args).map(|()| Verdict::default()),
    };
    let verdict = match result {
        Ok(verdict) => verdict,
        Err(error) => {
            tell(&error);
            return ExitCode::from(error.exit_code());
        }
    };
    verdict.complaints.iter().for_each(|complaint| tell(complaint));
    if verdict.interrupted {
        let error = Error::interrupted();
        tell(&error);
        ExitCode::from(error.exit_code())
    } else if verdict.complaints.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(NOT_CLEAN)
    }
}

/// One thing that is wrong, on standard error.
fn tell(what: &dyn Display) {
    let stderr = io::stderr();
    eprintln!("{}", wrap(&format!("hybster-bench: {what}"), width_of(&stderr)));
}

fn run_command(options: &RunOptions) -> Result<Verdict, Error> {
    check_writable("--json", options.json.as_deref())?;
    check_directory(options.report.as_deref())?;
    let stop = Stop::on_signals()?;
    if let Some(objective) = options.find_knee {
        let report = find_knee(options, objective, &stop)?;
        publish(&report, options.json.as_deref())?;
        write_page(options, || Page::of_knee(&report), &report)?;
        return Ok(report.verdict());
    }
    let report = run(options, &stop)?;
    publish(&report, options.json.as_deref())?;
    write_page(options, || Page::of_run(&report), &report)?;
    Ok(report.verdict())
}

fn fault_command(options: &FaultOptions) -> Result<Verdict, Error> {
    check_writable("--json", options.json.as_deref())?;
    let report = scenario::fault(options, &Stop::on_signals()?)?;
    publish(&report, options.json.as_deref())?;
    Ok(report.verdict())
}

fn sweep_command(options: &SweepOptions) -> Result<Verdict, Error> {
    check_writable("--json", options.run.json.as_deref())?;
    check_writable("--csv", options.csv.as_deref())?;
    check_directory(options.run.report.as_deref())?;
    let report = sweep(options, &Stop::on_signals()?)?;
    // Standard output is for one thing: for the CSV, if it goes there.
    let is_taken = options.csv.as_deref().is_some_and(is_stdout);
    publish_beside(&report, options.run.json.as_deref(), is_taken)?;
    if let Some(path) = &options.csv {
        write_csv(path, &report)?;
    }
    write_page(&options.run, || Page::of_sweep(&report), &report)?;
    Ok(report.verdict())
}

/// A series over what can be left out or exchanged, and its ratios.
fn ablate_command(options: &AblateOptions) -> Result<Verdict, Error> {
    let AblateOptions { only, repeat, csv, run } = options.clone();
    let series = SweepOptions { over: Axis::Ablation, values: only, repeat, csv, run };
    check_writable("--json", series.run.json.as_deref())?;
    check_writable("--csv", series.csv.as_deref())?;
    check_directory(series.run.report.as_deref())?;
    let report = sweep(&series, &Stop::on_signals()?)?;
    let is_taken = series.csv.as_deref().is_some_and(is_stdout);
    // With less than two there is nothing to compare, but there may be figures.
    if let Ok(ratios) = of_groups(&report.groups()) {
        let is_taken = is_taken || series.run.json.as_deref().is_some_and(is_stdout);
        print(&format!("{ratios}\n"), is_taken)?;
    }
    publish_beside(&report, series.run.json.as_deref(), is_taken)?;
    if let Some(path) = &series.csv {
        write_csv(path, &report)?;
    }
    write_page(&series.run, || Page::of_sweep(&report), &report)?;
    Ok(report.verdict())
}

fn compare_command(options: &CompareOptions) -> Result<Verdict, Error> {
    check_writable("--json", options.json.as_deref())?;
    let report = compare(&options.reports)?;
    publish(&report, options.json.as_deref())?;
    Ok(Verdict::default())
}

fn merge_command(options: &MergeOptions) -> Result<Verdict, Error> {
    check_writable("--json", options.json.as_deref())?;
    check_directory(options.report.as_deref())?;
    let report = merge(&options.reports)?;
    publish(&report, options.json.as_deref())?;
    if let Some(directory) = &options.report {
        Page::of_run(&report)?.write(directory, &report)?;
    }
    Ok(report.verdict())
}

fn profile_command(options: &ProfileOptions) -> Result<Verdict, Error> {
    check_writable("--json", options.run.json.as_deref())?;
    check_directory(options.run.report.as_deref())?;
    let report = profile(options, &Stop::on_signals()?)?;
    publish(&report, options.run.json.as_deref())?;
    write_page(&options.run, || Page::of_run(&report.run), &report.run)?;
    Ok(report.verdict())
}

fn idle_command(options: &IdleOptions) -> Result<Verdict, Error> {
    check_writable("--json", options.json.as_deref())?;
    let report = idle(options, &Stop::on_signals()?)?;
    publish(&report, options.json.as_deref())?;
    Ok(Verdict::default())
}

/// Prints a report, and writes it as JSON if that is asked for. If the JSON goes to standard output,
/// the text goes to standard error.
fn publish(report: &(impl Display + Serialize), json: Option<&Path>) -> Result<(), Error> {
    publish_beside(report, json, false)
}

/// [`publish`], where standard output may be taken by something else.
fn publish_beside(
    report: &(impl Display + Serialize),
    json: Option<&Path>,
    is_taken: bool,
) -> Result<(), Error> {
    let printed = print(report, is_taken || json.is_some_and(is_stdout));
    // A report file is written although nobody reads the text any more (`| head`).
    json.map_or(Ok(()), |path| write_json(path, report)).and(printed)
}

/// Writes the page, if that is asked for.
fn write_page(
    options: &RunOptions,
    page: impl FnOnce() -> Result<Page, Error>,
    report: &(impl Display + Serialize),
) -> Result<(), Error> {
    let Some(directory) = &options.report else { return Ok(()) };
    page()?.write(directory, report)
}

/// Prints a text on standard output, or on standard error if that is taken.
fn print(what: &dyn Display, is_taken: bool) -> Result<(), Error> {
    let text = what.to_string();
    let printed = if is_taken {
        let mut stderr = io::stderr();
        let width = width_of(&stderr);
        stderr.write_all(wrap(&text, width).as_bytes())
    } else {
        let mut stdout = io::stdout();
        let width = width_of(&stdout);
        stdout.write_all(wrap(&text, width).as_bytes()).and_then(|()| stdout.flush())
    };
    printed.map_err(|e| Error::new(format!("cannot print the report: {e}")))
}
