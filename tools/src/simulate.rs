//! `hybster simulate`: runs of whole groups in one process, each determined by a seed.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use hybster::duration::{DurationError, DurationRange};
use hybster_proto::protocol::Protocol;
use hybster_sim::campaign::{Campaign, Outcome, Progress, current_seed};
use hybster_sim::random::spread;
use hybster_sim::shape::{FaultClass, Shape};
use hybster_sim::shrink::shrink;
use hybster_sim::{Options, Report, Scenario, coverage, run_scenario};

use crate::{Done, Failure};

/// Most runs that shrinking a failing scenario takes.
const SHRINKING_RUNS: u32 = 400;
/// With fewer runs, an event that did not occur means little.
const COVERAGE_RUNS: u64 = 100;
/// Failed runs after which a campaign ends.
const MOST_FAILURES: usize = 5;

#[derive(Debug, Args)]
#[command(
    after_help = "Each seed decides topology, pillars, windows, workload, faults and timing \
    of one run; the same options and seed give the same run, bit by bit. Exit status: 0 all \
    properties held, 1 some run failed, 2 wrong options."
)]
pub(crate) struct SimulateArgs {
    /// How many seeds to run, one after the other [default: 1000; 1 with --seed; no limit with
    /// --minutes].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// The first seed; by default a fresh one, which is printed.
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// What orders the requests: hybster or pbft.
    #[arg(long, value_name = "NAME", default_value_t)]
    protocol: Protocol,
    /// Replicas n of each group, which tolerates (n-1)/2 faulty ones, or (n-1)/3 with pbft
    /// [default: by seed].
    #[arg(long, value_name = "n", value_parser = clap::value_parser!(u16).range(3..=10))]
    replicas: Option<u16>,
    /// Pillars P of each group [default: by seed].
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..=16))]
    pillars: Option<u16>,
    /// Faults that may occur: `all`, `benign`, `none`, or some of loss, duplication, lag,
    /// partition, break, crash, pause, slow, byzantine, separated by commas.
    #[arg(long, value_name = "LIST", default_value = "all", value_parser = parse_faults)]
    faults: Faults,
    /// Replicas have disks with logs, and some or all of them are started again now and then.
    #[arg(long)]
    restarts: bool,
    /// Ends after this time, such as 10m or 90s; a plain number means minutes.
    #[arg(long, value_name = "DURATION", value_parser = minutes)]
    minutes: Option<Duration>,
    /// Writes one run as text to this file; `-` is the terminal.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Writes the protocol events of one run to this file, for `hybster trace`.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Threads [default: as many as there are cores].
    #[arg(long, value_name = "J", value_parser = clap::value_parser!(u16).range(1..=1024))]
    jobs: Option<u16>,
    /// Leaves a failing run as it is instead of looking for a smaller one.
    #[arg(long)]
    no_shrink: bool,
}

/// The faults that may occur.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Faults {
    text: String,
    classes: Option<Vec<FaultClass>>,
    byzantine: bool,
}

fn parse_faults(text: &str) -> Result<Faults, String> {
    let mut faults = Faults { text: text.into(), classes: Some(Vec::new()), byzantine: false };
    match text {
        "all" => (faults.classes, faults.byzantine) = (None, true),
        "benign" => faults.classes = None,
        "none" => {}
        list => {
            for name in list.split(',').map(str::trim) {
                if name == "byzantine" {
                    faults.byzantine = true;
                    continue;
                }
                let class = FaultClass::ALL.iter().find(|(known, _)| *known == name);
                let Some((_, class)) = class else {
                    let known: Vec<&str> = FaultClass::ALL.iter().map(|(name, _)| *name).collect();
                    return Err(format!(
                        "there is no fault {name:?}: give `all`, `benign`, `none`, or some of {}, \
                         byzantine",
                        known.join(", ")
                    ));
                };
                faults.classes.get_or_insert_default().push(*class);
            }
        }
    }
    Ok(faults)
}

fn minutes(text: &str) -> Result<Duration, DurationError> {
    DurationRange::minutes(Duration::from_millis(1), Duration::from_secs(60_000_000)).parse(text)
}

pub(crate) fn simulate(args: &SimulateArgs) -> Result<Done, Failure> {
    let count = args.seeds.unwrap_or(match (args.seed, args.minutes) {
        (_, Some(_)) => u64::MAX,
        (Some(_), None) => 1,
        (None, None) => 1_000,
    });
    let told = args.trace.is_some() || args.record.is_some();
    if told && (args.seed.is_none() || count != 1) {
        let text = "--trace and --record tell a single run: give --seed S and no --seeds";
        return Err(Failure::options(text));
    }
    let first = args.seed.unwrap_or_else(fresh_seed);
    let least = args.protocol.rules().least_replicas(1);
    if args.replicas.is_some_and(|replicas| u32::from(replicas) < least) {
        let protocol = args.protocol;
        return Err(Failure::options(format!("--replicas: {protocol} needs at least {least}")));
    }
    if args.restarts && args.protocol != Protocol::Hybster {
        let text = format!("--restarts: {} has no log yet", args.protocol);
        return Err(Failure::options(text));
    }
    let shape = Shape {
        protocol: args.protocol,
        replicas: args.replicas,
        pillars: args.pillars,
        faults: args.faults.classes.clone(),
        byzantine: args.faults.byzantine,
        restarts: args.restarts,
    };
    name_seed_on_panic(args);
    if told {
        return tell(args, shape.scenario(first));
    }
    match count {
        u64::MAX => println!("seeds from {first} on"),
        1 => println!("seed {first}"),
        _ => println!("seeds {first}..={}", first.wrapping_add(count - 1)),
    }
    let mut campaign = Campaign::new(shape, first, count);
    campaign.limit = args.minutes;
    campaign.most_failures = MOST_FAILURES;
    campaign.jobs = args.jobs.map_or(campaign.jobs, usize::from);
    let terminal = std::io::stderr().is_terminal();
    let mut told = Duration::ZERO;
    let outcome = campaign.run(|progress| {
        // A log file does not need two lines a second.
        if terminal || progress.elapsed >= told + Duration::from_secs(10) {
            told = progress.elapsed;
            tell_progress(progress, terminal);
        }
    });
    if terminal {
        eprint!("\r\x1b[K");
    }
    summarize(args.protocol, &outcome);
    match outcome.failures.first() {
        None => Ok(Done::Yes),
        Some(failed) => Err(explain(args, &campaign.shape, &outcome, failed)),
    }
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    // Short enough to be typed.
    spread(now.as_nanos() as u64) >> 32
}

fn tell_progress(progress: &Progress, terminal: bool) {
    let seconds = progress.elapsed.as_secs_f64().max(1e-3);
    let per_second = |count: u64| count as f64 / seconds / 1e6;
    let line = format!(
        "{:.0} s: {} runs, {} failed, {:.2} million steps/s, {:.2} million messages/s",
        seconds,
        progress.runs,
        progress.failures,
        per_second(progress.steps),
        per_second(progress.messages),
    );
    if terminal { eprint!("\r\x1b[K{line}") } else { eprintln!("{line}") }
}

fn summarize(protocol: Protocol, outcome: &Outcome) {
    println!(
        "{} runs in {:.1} s ({:.0} a minute), {} failed",
        outcome.runs,
        outcome.elapsed.as_secs_f64(),
        outcome.runs_per_minute(),
        outcome.failures.len()
    );
    println!("  hash of all runs {:016x}", outcome.hash);
    print!("{}{}", outcome.spread, outcome.sum);
    if outcome.runs < COVERAGE_RUNS {
        return;
    }
    let missing = coverage::missing(protocol, &outcome.sum);
    if missing.is_empty() {
        println!("  every message kind, reason of rejection and branch occurred");
    } else {
        println!("  did not occur: {}", missing.join("; "));
    }
}

/// The command that makes the same run again.
fn replay(args: &SimulateArgs, seed: u64) -> String {
    let mut command = format!("hybster simulate --seed {seed} --faults {}", args.faults.text);
    if args.protocol != Protocol::default() {
        command += &format!(" --protocol {}", args.protocol);
    }
    if let Some(replicas) = args.replicas {
        command += &format!(" --replicas {replicas}");
    }
    if let Some(pillars) = args.pillars {
        command += &format!(" --pillars {pillars}");
    }
    if args.restarts {
        command += " --restarts";
    }
    command
}

/// Prints the seed before a panic aborts the process.
fn name_seed_on_panic(args: &SimulateArgs) {
    let command = replay(args, 0);
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if let Some(seed) = current_seed() {
            let command = command.replace("--seed 0", &format!("--seed {seed}"));
            eprintln!("\nseed {seed}: the core panicked; to see it again: {command}");
        }
        usual(info);
    }));
}

/// Prints a failed run and a smaller one; gives the last word.
fn explain(args: &SimulateArgs, shape: &Shape, outcome: &Outcome, failed: &Report) -> Failure {
    println!();
    for report in &outcome.failures {
        if let Some(violation) = &report.violation {
            println!("seed {}: '{}': {}", report.seed, violation.property, violation.story);
        }
    }
    println!("\n{failed}");
    let seed = failed.seed;
    if !args.no_shrink {
        eprintln!("looking for a smaller run that fails alike (at most {SHRINKING_RUNS} runs)");
        if let Some(shrunk) = shrink(shape.scenario(seed), SHRINKING_RUNS) {
            println!("smaller, after {} runs:\n{:#?}", shrunk.runs, shrunk.scenario);
            println!("{}", shrunk.report);
        }
    }
    let again = replay(args, seed);
    Failure::new(format!(
        "{} of {} runs failed; to read the first one: {again} --trace FILE",
        outcome.failures.len(),
        outcome.runs
    ))
}

/// Makes one run and writes it to a file.
fn tell(args: &SimulateArgs, scenario: Scenario) -> Result<Done, Failure> {
    let head = format!("{}\n{scenario:#?}", replay(args, scenario.seed));
    let (trace, record) = (args.trace.is_some(), args.record.is_some());
    let report = run_scenario(scenario, &Options { trace, record, ..Options::default() });
    if let Some(path) = &args.trace {
        write(path, |out| {
            writeln!(out, "{head}")?;
            for line in &report.trace {
                writeln!(out, "{line}")?;
            }
            writeln!(out, "hash of the run: {:016x}\n{report}", report.hash)
        })?;
    }
    if let Some(path) = &args.record {
        write(path, |out| out.write_all(report.recording.as_deref().unwrap_or_default()))?;
    }
    match &report.violation {
        None => Ok(Done::Yes),
        Some(violation) => Err(Failure::new(format!(
            "seed {}: '{}' is violated in step {}: {}",
            report.seed, violation.property, violation.step, violation.story
        ))),
    }
}

/// Writes a file, or to the terminal if it is called `-`.
fn write(
    path: &Path,
    content: impl Fn(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), Failure> {
    let written = if path.as_os_str() == "-" {
        content(&mut stdout().lock())
    } else {
        File::create(path).and_then(|file| {
            let mut file = BufWriter::new(file);
            content(&mut file)?;
            file.flush()
        })
    };
    written.map_err(|error| Failure::new(format!("cannot write to {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_faults() {
        assert_eq!(parse_faults("all").map(|f| (f.classes, f.byzantine)), Ok((None, true)));
        let some = parse_faults("loss, byzantine").expect("both exist");
        assert_eq!((some.classes, some.byzantine), (Some(vec![FaultClass::Loss]), true));
        assert_eq!(parse_faults("none").map(|f| f.classes), Ok(Some(Vec::new())));
        assert!(parse_faults("lots").is_err_and(|error| error.contains("partition")));
        assert!(minutes("0").is_err() && minutes("nan").is_err());
        assert_eq!(minutes("0.5"), minutes("30s"));
    }
}
