//! `--processes N`: several processes make the load, and this one watches and makes one report of theirs.
//!
//! Each is this program with a hidden subcommand ([`run_load`]). It connects its part of the clients, says
//! `ready`, hears `go` with the time at which all begin, says `at` with what it has counted so far, may hear
//! `finish` or `hurry`, writes its report, says `done`, and ends when its input does. The reports are merged
//! as those of several machines are.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use hybster::duration::Human;
use rustix::process::{Signal, set_parent_process_death_signal};

use super::target::Target;
use super::{DRAIN, Interval, Place, connect_shares, load_parts, prefill_from, report};
use crate::Error;
use crate::agenda::Agenda;
use crate::engine;
use crate::launch::{Child, LOAD, usage_of};
use crate::load::{Part, Plan, Tallies, measure};
use crate::machine::Machine;
use crate::options::{GroupOptions, LoadArgs, RunOptions, ServiceKind};
use crate::report::{RunReport, Signs, TargetReport, UsageReport, per_million, write_json};
use crate::spec::GroupSpec;
use crate::stages::{Sample, file};
use crate::stop::Stop;
use crate::workload::{Operations, Setting};

/// Longest wait until a process is ready: it may have many records to write.
const READY: Duration = Duration::from_secs(3600);
/// How often a process tells what it has counted, and is looked at.
const TELL: Duration = Duration::from_millis(100);
const LOOK: Duration = Duration::from_millis(20);

/// A load process that is ready, with the files that it writes.
#[derive(Debug)]
pub(super) struct Load {
    child: Child,
    directory: tempfile::TempDir,
}

/// The load of one process, as its options say it.
pub(super) fn shape(options: &RunOptions) -> GroupOptions {
    GroupOptions { connections: options.connections(), ..options.group.clone() }
}

/// The file of a process's report, and that of the requests that it followed.
const REPORT: &str = "report.json";
const SAMPLES: &str = "samples";

impl Load {
    /// Starts all load processes and waits until they are ready.
    pub(super) fn start_all(
        options: &RunOptions,
        target: &Target,
        stop: &Stop,
    ) -> Result<Vec<Self>, Error> {
        let start = |part| Self::start(part, options, target);
        let mut loads: Vec<Self> = (0..options.processes).map(start).collect::<Result<_, _>>()?;
        loads.iter_mut().try_for_each(|load| load.child.wait_ready(READY, stop))?;
        Ok(loads)
    }

    fn start(part: u32, options: &RunOptions, target: &Target) -> Result<Self, Error> {
        let failed = |e| Error::new(format!("cannot start a load process: {e}"));
        let directory = tempfile::tempdir().map_err(failed)?;
        let program = std::env::current_exe().map_err(failed)?;
        let group = &options.group;
        let mut command = Command::new(program);
        command.args(["load", "--part", &part.to_string()]);
        command.arg("--group").arg(target.path());
        command.arg("--json").arg(directory.path().join(REPORT));
        let seconds = |time: Duration| Human(time).to_string();
        for (name, value) in [
            ("first-client", target.first_client.to_string()),
            ("processes", options.processes.to_string()),
            ("clients", group.clients.to_string()),
            ("connections", group.connections.to_string()),
            ("transport", group.transport.name().to_owned()),
            ("busy-poll", seconds(group.busy_poll)),
            ("duration", seconds(options.duration)),
            ("warmup", seconds(options.warmup)),
        ] {
            command.arg(format!("--{name}={value}"));
        }
        if let Some(size) = group.request_size {
            command.arg(format!("--request-size={size}"));
        }
        if group.reply_size != 0 {
            command.arg(format!("--reply-size={}", group.reply_size));
        }
        command.args(options.load.arguments());
        let own = (group.connections as usize) * (part as usize);
        let cores = target.spec().cores.loads.iter().skip(own).take(group.connections as usize);
        let cores: Vec<String> = cores.map(usize::to_string).collect();
        if !cores.is_empty() {
            command.args(["--cores", &cores.join(",")]);
        }
        if let Some(every) = options.stages {
            command.arg(format!("--follow={every}"));
        }
        let child = Child::spawn(&name(part), &mut command, &directory.path().join("log"))?;
        Ok(Self { child, directory })
    }

    /// Name and id of its process.
    pub(super) fn process(&self) -> (String, u32) {
        (self.child.name().to_owned(), self.child.pid())
    }

    /// What the thread does that stands for it in a measurement.
    pub(super) fn part(mut self, origin: Instant) -> Part<Self> {
        Box::new(move |tallies, stop| {
            self.child.say(&format!("go {}", engine::ns_of(origin)))?;
            let mut told = None;
            loop {
                while let Some(line) = self.child.next_line() {
                    let words: Vec<&str> = line.split_whitespace().collect();
                    match words[..] {
                        ["at", completed, failed] => {
                            let [completed, failed] = [completed, failed].map(str::parse);
                            tallies.set(completed.unwrap_or(0), failed.unwrap_or(0));
                        }
                        ["done"] => return Ok(self),
                        _ => {}
                    }
                }
                let asked = tallies.asked();
                if asked != told {
                    told = asked;
                    asked.map_or(Ok(()), |asked| self.child.say(asked))?;
                }
                if self.child.has_ended()? {
                    return Err(self.child.failure("ended before it was done"));
                }
                stop.check_urgent()?;
                std::thread::sleep(LOOK);
            }
        })
    }

    /// Its report and the requests that it has followed; then it ends.
    fn finish(mut self) -> Result<((String, RunReport), Vec<Sample>), Error> {
        let read = |path: &Path| {
            let text = std::fs::read(path).map_err(|e| Error::new(e.to_string()))?;
            serde_json::from_slice(&text).map_err(|e| Error::new(e.to_string()))
        };
        let run = read(&self.directory.path().join(REPORT));
        let run = run.map_err(|e| e.context(format!("the report of {}", self.child.name())))?;
        let samples = file::read_samples(&self.directory.path().join(SAMPLES))?;
        self.child.wait_stopped()?;
        Ok(((self.child.name().to_owned(), run), samples))
    }
}

fn name(part: u32) -> String {
    format!("{LOAD} {part}")
}

/// One report of those of all processes.
pub(super) fn report(
    options: &RunOptions,
    setting: &Setting,
    (spec, target): (&GroupSpec, TargetReport),
    agenda: &Agenda,
    loads: Vec<Load>,
    interval: Interval,
) -> Result<(RunReport, Vec<Sample>), Error> {
    let (mut parts, mut samples) = (Vec::new(), Vec::new());
    for load in loads {
        let ((name, mut run), mut followed) = load.finish()?;
        // All began at the same time, by one clock.
        run.begin_unix_ms = interval.begin_unix_ms;
        parts.push((name, run));
        samples.append(&mut followed);
    }
    let merged = crate::merge::of_parts(&parts)?;
    let mut open_loop = merged.open_loop;
    if let (Some(open), Some(rate)) = (&mut open_loop, setting.rate) {
        open.rate_ops_s = rate;
    }
    let (stolen_s, machine) = (interval.stolen.as_secs_f64(), Machine::here());
    let signs = Signs {
        duration_s: merged.duration_s,
        cores: machine.cores,
        stolen_s,
        usage: &interval.usage,
        load_busy: merged.load_busy,
        open_loop,
        throughput_ops_s: merged.throughput_ops_s,
    };
    let warnings = signs.warnings();
    let cpu_s = interval.processes.iter().map(|p| p.cpu_s).sum();
    let timeline = merged.timeline.as_ref().map_or(&[][..], |timeline| &timeline.completed);
    let run = RunReport {
        kind: if spec.unreplicated { "unreplicated" } else { "run" }.into(),
        interrupted: interval.interrupted,
        stolen_s,
        cpu_s_per_mop: (!target.is_elsewhere).then(|| per_million(cpu_s, merged.completed)),
        processes: interval.processes,
        replicas: report::replicas(&interval.before, &interval.after),
        open_loop,
        warnings,
        events: agenda.reports(timeline),
        usage: Some(interval.usage),
        target: Some(target),
        config: report::config_of_run(&shape(options), options, spec, setting),
        machine,
        ..merged
    };
    Ok((run, samples))
}

/// One load process.
///
/// # Errors
/// If its part of the load fails, or its parent is gone.
pub fn run_load(args: &LoadArgs) -> Result<(), Error> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(|e| Error::new(format!("cannot tie this process to its parent: {e}")))?;
    let stop = Stop::new();
    let heard = listen(&stop)?;
    let mut options = args.run.clone();
    let shape = shape(&options);
    let setting = Setting::new(&options.load, &shape, ServiceKind::Null)?;
    let own = shape.connections / options.processes;
    let place = Place { first: args.part * own, all: shape.connections };
    let shares = setting.clients_of(shape.clients, shape.connections);
    let shares = &shares[place.first as usize..][..own as usize];
    options.group.clients = shares.iter().sum();
    options.first_client += place.first;
    options.processes = 1;
    let target = Target::open(&options, setting.service, own, &stop)?;
    let mut drivers =
        connect_shares(target.first_client, target.path(), &options.group, shares, &stop)?;
    if let Operations::Records(mix) = &setting.operations {
        drivers = prefill_from(place, drivers, mix, &args.cores, &stop)?;
    }
    say("ready")?;
    let origin = loop {
        match heard.recv_timeout(TELL) {
            Ok(line) => match line.strip_prefix("go ").map(str::parse) {
                Some(Ok(at)) => break engine::instant_of(at),
                _ => return Err(Error::new(format!("{line:?} is no word for a load process"))),
            },
            Err(RecvTimeoutError::Timeout) => stop.check()?,
            Err(RecvTimeoutError::Disconnected) => return Err(Error::interrupted()),
        }
    };
    let plan = Plan {
        origin,
        warmup: options.warmup,
        measured: options.duration,
        drain: DRAIN,
        operations: None,
    };
    let parts = load_parts(drivers, &setting, &plan, None, args.follow, place);
    let watch = |tallies: &[Arc<Tallies>]| tell(tallies, &heard, &stop);
    let (mut runs, ()) = measure(parts, &args.cores, &stop, watch)?;
    let samples: Vec<Sample> =
        runs.iter_mut().flat_map(|run| std::mem::take(&mut run.samples)).collect();
    let interval = Interval {
        interrupted: false,
        begin_unix_ms: 0,
        stolen: Duration::ZERO,
        processes: vec![usage_of(LOAD, std::process::id())?],
        usage: UsageReport::default(),
        before: Vec::new(),
        after: Vec::new(),
    };
    let about = (target.spec(), target.report()?);
    let agenda = Agenda::default();
    let report = report::of(&options, &setting, shares, about, &agenda, runs, interval);
    if let Some(path) = &options.json {
        file::write_samples(&path.with_file_name(SAMPLES), &samples)?;
        write_json(path, &report)?;
    }
    say("done")?;
    // It is asked for what it has used, until its input ends.
    while !stop.is_raised() {
        std::thread::sleep(LOOK);
    }
    Ok(())
}

/// Tells what was counted, and does what it hears, until the interval has ended.
fn tell(tallies: &[Arc<Tallies>], heard: &Receiver<String>, stop: &Stop) -> Result<(), Error> {
    while !tallies.iter().all(|t| t.is_done()) {
        stop.check()?;
        match heard.recv_timeout(TELL) {
            Ok(line) if line == "hurry" => tallies.iter().for_each(|t| t.hurry()),
            Ok(_) => tallies.iter().for_each(|t| t.finish()),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Err(Error::interrupted()),
        }
        let completed: u64 = tallies.iter().map(|t| t.completed()).sum();
        let failed: u64 = tallies.iter().map(|t| t.failed()).sum();
        say(&format!("at {completed} {failed}"))?;
    }
    Ok(())
}

fn say(line: &str) -> Result<(), Error> {
    let mut stdout = std::io::stdout();
    let said = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    said.map_err(|e| Error::new(format!("standard output: {e}")))
}

/// What the parent says; its end raises the flag.
fn listen(stop: &Stop) -> Result<Receiver<String>, Error> {
    let (sender, heard) = mpsc::sync_channel(16);
    let ended = stop.clone();
    let read = move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = sender.send(line);
        }
        ended.raise();
    };
    std::thread::Builder::new()
        .name("parent".into())
        .spawn(read)
        .map_err(|e| Error::new(format!("cannot start a thread: {e}")))?;
    Ok(heard)
}
