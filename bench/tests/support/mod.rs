//! Runs of `hybster-bench` as a process for tests, and the schema that every report of theirs must satisfy.

// Each test program uses a part of this.
#![allow(dead_code)]

pub(crate) mod schema;

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use hybster_bench::report::RunReport;
use serde::de::DeserializeOwned;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_hybster-bench");
/// Much longer than any of these runs takes on any machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A process that is killed when the test ends, however it ends.
pub(crate) struct Guard(pub(crate) Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory for the temporary group directories of one run, to check that none is left behind.
pub(crate) fn start(directory: &Path, arguments: &[&str]) -> Guard {
    let child = Command::new(PROGRAM)
        .args(arguments)
        .env("TMPDIR", directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    Guard(child)
}

pub(crate) fn finish(mut guard: Guard) -> Output {
    // Read while it runs: what it writes may be more than a pipe holds.
    let stdout = read_all(guard.0.stdout.take().unwrap());
    let stderr = read_all(guard.0.stderr.take().unwrap());
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = guard.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "the benchmark does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    let [stdout, stderr] = [stdout, stderr].map(|read| read.recv_timeout(PATIENCE).unwrap());
    Output { status, stdout, stderr }
}

/// All that comes through a pipe, once it has ended.
fn read_all(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, all) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).unwrap();
        let _ = sender.send(bytes);
    });
    all
}

/// Runs to the end and checks that nothing is left behind.
pub(crate) fn run(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let guard = start(directory.path(), arguments);
    let output = finish(guard);
    nothing_stays(directory.path());
    output
}

/// No process runs that was given a group in this directory, and no file lies there.
pub(crate) fn nothing_stays(directory: &Path) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let left = processes_of(directory);
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "processes stay behind: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub(crate) fn processes_of(directory: &Path) -> Vec<u32> {
    let needle = directory.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(needle)
        })
        .collect()
}

pub(crate) fn expect_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}\nstdout:\n{}\nstderr:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

pub(crate) fn measure(arguments: &[&str]) -> RunReport {
    let short = ["--duration", "0.5", "--warmup", "0.2", "--clients", "16"];
    measure_with(&[&short[..], arguments].concat())
}

/// A slow machine may not keep a rate, and that is not what these tests are about.
pub(crate) fn measure_with(arguments: &[&str]) -> RunReport {
    let results = tempfile::tempdir().unwrap();
    let file = results.path().join("report.json");
    let mut all = vec!["run", "--json", file.to_str().unwrap()];
    all.extend(arguments);
    let output = run(&all);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let is_slow = output.status.code() == Some(3) && stderr.contains("the rate was not kept");
    if !is_slow {
        expect_success(&output);
    }
    assert!(String::from_utf8_lossy(&output.stdout).contains("operations/s"));
    report_in(&file)
}

pub(crate) fn wait_for_replicas(directory: &Path, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while processes_of(directory).len() < count {
        assert!(Instant::now() < deadline, "the replicas do not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The report in a file, which is as the schema says.
pub(crate) fn report_in<T: DeserializeOwned>(file: &Path) -> T {
    report_of(&std::fs::read(file).unwrap())
}

/// The report in these bytes, which is as the schema says.
pub(crate) fn report_of<T: DeserializeOwned>(bytes: &[u8]) -> T {
    let json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    schema::Schema::of_reports().expect(&json);
    serde_json::from_value(json).unwrap()
}
