//! `hybster-bench flamegraph`: where the CPU time of each process goes.
//!
//! While a load runs, `perf record` samples every replica process and this process, which generates
//! the load; `perf stat` counts their system calls. Afterwards there are, per process, the samples
//! (`NAME.perf.data`), the stacks as text (`NAME.script`), folded stacks (`NAME.folded`) and a
//! flamegraph (`NAME.svg`), in which a stage with its own thread is a tower of its own. From the
//! same stacks comes a table of the cost of one operation by activity ([`shares`]), in nanoseconds
//! that add up, next to the CPU time that `/proc` reports.
//!
//! perf and inferno are programs that are run, not linked: the licence of inferno is not one that packages
//! of this project may have (`deny.toml`).

mod fold;
mod idle;
mod perf;
mod report;
pub mod shares;

pub use idle::{IdleReport, idle};
pub use report::{ProcessProfile, ProfileReport};

use std::time::Duration;

use crate::Error;
use crate::launch::Group;
use crate::options::ProfileOptions;
use crate::report::{FORMAT, RunReport};
use crate::run::{Observer, run_observed};
use crate::stop::Stop;
use perf::{Recorder, Tools};
use shares::{Kind, Shares};

/// How much longer than the sampling the load runs at most: perf needs time to attach. The load ends when
/// all samples are taken.
const MARGIN: Duration = Duration::from_secs(60);
/// The shortest sampling.
const SHORTEST: Duration = Duration::from_secs(1);

/// Runs a load and profiles all processes.
///
/// # Errors
/// If perf is missing or not permitted, the group does not start, or the user interrupts.
pub fn profile(options: &ProfileOptions, stop: &Stop) -> Result<ProfileReport, Error> {
    if options.seconds < SHORTEST {
        return Err(Error::new("--seconds: sample for at least 1 second"));
    }
    if options.run.group_directory.is_some() {
        let text = "--group: perf samples processes that were started here; omit it";
        return Err(Error::new(text));
    }
    if options.run.processes > 1 {
        let text = "--processes: perf samples one load process; omit it";
        return Err(Error::new(text));
    }
    let tools = Tools::find()?;
    std::fs::create_dir_all(&options.out)
        .map_err(|e| Error::new(format!("cannot make {}: {e}", options.out.display())))?;
    let mut run = options.run.clone();
    run.duration = options.seconds + MARGIN;
    let mut sampling = Sampling { tools: &tools, options, recorders: Vec::new() };
    let report = run_observed(&run, stop, &mut sampling)?;
    let recorders = sampling.recorders;
    if report.interrupted {
        return Err(Error::interrupted());
    }
    // perf reads the symbols of a process from its file, so the processes need not be alive.
    let processes = recorders
        .into_iter()
        .map(|recorder| finish(&tools, options, recorder, &report))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(ProfileReport {
        format: FORMAT,
        kind: "profile".into(),
        seconds: options.seconds.as_secs_f64(),
        frequency: options.frequency,
        out: options.out.clone(),
        missing: tools.missing(),
        processes,
        run: report,
    })
}

/// perf at work while the load runs.
struct Sampling<'a> {
    tools: &'a Tools,
    options: &'a ProfileOptions,
    recorders: Vec<Recorder>,
}

impl Observer for Sampling<'_> {
    fn begin(&mut self, group: &mut Group) -> Result<(), Error> {
        let replicas = group.children().iter().map(|c| (c.name().to_owned(), c.pid()));
        let load = ("load".to_owned(), std::process::id());
        let all: Vec<_> = replicas.chain([load]).collect();
        let Self { tools, options, .. } = self;
        self.recorders = all
            .into_iter()
            .map(|(name, pid)| {
                tools.record(&options.out, &name, pid, options.seconds, options.frequency)
            })
            .collect::<Result<_, _>>()?;
        Ok(())
    }

    fn is_done(&mut self) -> bool {
        self.recorders.iter_mut().all(Recorder::has_ended)
    }
}

fn finish(
    tools: &Tools,
    options: &ProfileOptions,
    recorder: Recorder,
    report: &RunReport,
) -> Result<ProcessProfile, Error> {
    let kind = if recorder.name() == "load" { Kind::Load } else { Kind::Replica };
    let recorded = recorder.finish(tools)?;
    let shares = Shares::of(&recorded.stacks, kind);
    tools.draw(&recorded)?;
    let operations = report.throughput_ops_s * options.seconds.as_secs_f64();
    let cpu_s = report.processes.iter().find(|p| p.name == recorded.name).map_or(0.0, |p| p.cpu_s);
    let per_operation =
        |seconds: f64| if operations > 0.0 { seconds * 1e9 / operations } else { 0.0 };
    Ok(ProcessProfile {
        measured_ns_per_op: per_operation(
            cpu_s * options.seconds.as_secs_f64() / report.duration_s,
        ),
        sampled_ns_per_op: per_operation(shares.seconds()),
        samples: shares.samples(),
        system_calls_per_op: recorded.system_calls.map(|calls| calls as f64 / operations.max(1.0)),
        ns_per_op: shares.iter().map(|(name, s)| (name.to_owned(), per_operation(s))).collect(),
        name: recorded.name,
    })
}
