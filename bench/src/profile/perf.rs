//! Running the programs: perf samples and counts, inferno folds stacks and draws flamegraphs.

use std::fs::File;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use crate::Error;

/// Bytes of the stack in each sample, for unwinding.
const STACK_BYTES: u32 = 8192;
/// How to install perf.
const PERF_MISSING: &str = "perf is not installed: on Debian, apt-get install linux-perf";
const INFERNO_MISSING: &str = "inferno is not installed, so no flamegraph was drawn: cargo install inferno, \
    then run inferno-flamegraph on the .folded files (the stacks), or start again";

/// The programs that are installed.
#[derive(Debug)]
pub(super) struct Tools {
    inferno: bool,
}

/// A running perf that samples one process. Dropping it stops perf.
#[derive(Debug)]
pub(super) struct Recorder {
    name: String,
    stem: PathBuf,
    record: Child,
    count: Child,
}

/// The results of perf.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) name: String,
    /// The output of `perf script`.
    pub(super) stacks: String,
    /// System calls; `None` if this system does not let them be counted.
    pub(super) system_calls: Option<u64>,
    stem: PathBuf,
}

impl Tools {
    /// Looks for the programs, and checks by a trial that perf may sample.
    pub(super) fn find() -> Result<Self, Error> {
        let probe = tempfile::NamedTempFile::new()
            .map_err(|e| Error::new(format!("cannot make a temporary file: {e}")))?;
        let tried = perf()
            .args(["record", "-q", "-o"])
            .arg(probe.path())
            .args(["--", "true"])
            .stdin(Stdio::null())
            .output();
        match tried {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err(Error::new(PERF_MISSING)),
            Err(e) => Err(Error::new(format!("cannot run perf: {e}"))),
            Ok(output) if !output.status.success() => {
                let text = String::from_utf8_lossy(&output.stderr);
                let level = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid");
                Err(Error::new(format!(
                    "perf may not sample here; run as root or lower \
                     /proc/sys/kernel/perf_event_paranoid (now {}). It said:\n{}",
                    level.unwrap_or_default().trim(),
                    text.trim()
                )))
            }
            Ok(_) => {
                let runs = |program: &str| {
                    let mut command = Command::new(program);
                    command.arg("--version").stdin(Stdio::null()).output().is_ok()
                };
                let inferno = runs("inferno-flamegraph");
                Ok(Self { inferno })
            }
        }
    }

    /// The program that is missing and how to install it, if there is one.
    pub(super) fn missing(&self) -> Option<String> {
        (!self.inferno).then(|| INFERNO_MISSING.to_owned())
    }

    /// Starts to sample a process; it ends by itself.
    pub(super) fn record(
        &self,
        folder: &Path,
        name: &str,
        pid: u32,
        length: Duration,
        frequency: u32,
    ) -> Result<Recorder, Error> {
        let stem = folder.join(name.replace(' ', "-"));
        let failed = |e| Error::new(format!("cannot run perf: {e}"));
        let (pid, length) = (pid.to_string(), length.as_secs_f64().to_string());
        let record = perf()
            .args(["record", "-q", "-F", &frequency.to_string()])
            .args(["--call-graph", &format!("dwarf,{STACK_BYTES}")])
            .arg("-o")
            .arg(stem.with_extension("perf.data"))
            .args(["-p", &pid, "--", "sleep", &length])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let count = perf()
            .args(["stat", "-x", ";", "-e", "raw_syscalls:sys_enter", "-o"])
            .arg(stem.with_extension("calls"))
            .args(["-p", &pid, "--", "sleep", &length])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(failed)?;
        Ok(Recorder { name: name.into(), stem, record, count })
    }

    /// Writes the folded stacks, and draws them if inferno is there.
    pub(super) fn draw(&self, recorded: &Recorded) -> Result<(), Error> {
        let (folded, svg) =
            (recorded.stem.with_extension("folded"), recorded.stem.with_extension("svg"));
        std::fs::write(&folded, super::fold::fold(&recorded.stacks))
            .map_err(|e| Error::new(format!("cannot write {}: {e}", folded.display())))?;
        if !self.inferno {
            return Ok(());
        }
        let title = format!("{} (CPU time)", recorded.name);
        filter("inferno-flamegraph", &["--title", &title], &folded, &svg)
    }
}

impl Recorder {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether perf has taken its samples and written them.
    pub(super) fn has_ended(&mut self) -> bool {
        // What cannot be asked is told by `finish`.
        !matches!(self.record.try_wait(), Ok(None)) && !matches!(self.count.try_wait(), Ok(None))
    }

    /// Waits for perf and reads its samples.
    pub(super) fn finish(mut self, _: &Tools) -> Result<Recorded, Error> {
        let failed = |e| Error::new(format!("cannot wait for perf: {e}"));
        let mut told = String::new();
        if let Some(mut stderr) = self.record.stderr.take() {
            let _ = stderr.read_to_string(&mut told);
        }
        let status = self.record.wait().map_err(failed)?;
        if !status.success() {
            let name = &self.name;
            let why = reason(&told, status);
            return Err(Error::new(format!("perf record failed at {name} ({status}): {why}")));
        }
        self.count.wait().map_err(failed)?;
        let calls = std::fs::read_to_string(self.stem.with_extension("calls")).unwrap_or_default();
        let script = self.stem.with_extension("script");
        filter(
            "perf",
            &["script", "-i", &self.stem.with_extension("perf.data").to_string_lossy()],
            Path::new("/dev/null"),
            &script,
        )?;
        let stacks = std::fs::read(&script)
            .map_err(|e| Error::new(format!("cannot read {}: {e}", script.display())))?;
        Ok(Recorded {
            name: std::mem::take(&mut self.name),
            stacks: String::from_utf8_lossy(&stacks).into_owned(),
            system_calls: count_of(&calls),
            stem: std::mem::take(&mut self.stem),
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        for child in [&mut self.record, &mut self.count] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Why perf has failed. It says nothing where it dies of a signal: it does when the process that it samples
/// ends, as it then ends its own timer and itself in the same way.
fn reason(told: &str, status: ExitStatus) -> String {
    match (told.trim(), status.signal()) {
        ("", Some(_)) => "it said nothing. The process that it sampled may have ended before the \
            sampling did, or something else has stopped perf: try again, or with shorter --seconds"
            .into(),
        ("", None) => "it said nothing".into(),
        (told, _) => format!("it said:\n{told}"),
    }
}

fn perf() -> Command {
    let mut command = Command::new("perf");
    // A process group of its own: Ctrl-C reaches this process alone, which stops perf.
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command
}

/// Runs a program from one file into another.
fn filter(program: &str, arguments: &[&str], from: &Path, to: &Path) -> Result<(), Error> {
    let failed = |e: std::io::Error| Error::new(format!("{program}: {e}"));
    let output = Command::new(program)
        .args(arguments)
        .stdin(File::open(from).map_err(failed)?)
        .stdout(File::create(to).map_err(failed)?)
        .stderr(Stdio::piped())
        .spawn()
        .and_then(Child::wait_with_output)
        .map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Error::new(format!("{program} failed ({}):\n{}", output.status, text.trim())))
}

/// The count in the output of `perf stat -x ;`.
fn count_of(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.contains("sys_enter"))?;
    line.split(';').next()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_refusals_are_none() {
        let text = "# started on Sat Nov 21\n\n5675;;raw_syscalls:sys_enter;100;100.00;;\n";
        assert_eq!(count_of(text), Some(5675));
        assert_eq!(count_of("<not supported>;;raw_syscalls:sys_enter;0;100.00;;\n"), None);
        assert_eq!(count_of(""), None);
    }

    #[test]
    fn a_failure_has_a_reason() {
        let killed = ExitStatus::from_raw(15);
        assert!(reason("", killed).contains("ended before the sampling"));
        assert!(reason(" no such event\n", killed).contains("no such event"));
        assert_eq!(reason("", ExitStatus::from_raw(0x100)), "it said nothing");
    }
}
