//! `hybster-bench` as a process, with the processes that it starts. Nothing here looks at speed.

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use hybster_bench::report::RunReport;
use hybster_bench::scenario::FaultReport;

const PROGRAM: &str = env!("CARGO_BIN_EXE_hybster-bench");
/// Much longer than any of these runs takes on any machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A process that is killed when the test ends, however it ends.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory for the temporary group directories of one run, to check that none is left behind.
fn start(directory: &Path, arguments: &[&str]) -> Guard {
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

fn finish(mut guard: Guard) -> Output {
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = guard.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "the benchmark does not end");
        std::thread::sleep(Duration::from_millis(20));
    };
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    guard.0.stdout.take().unwrap().read_to_end(&mut stdout).unwrap();
    guard.0.stderr.take().unwrap().read_to_end(&mut stderr).unwrap();
    Output { status, stdout, stderr }
}

/// Runs to the end and checks that nothing is left behind.
fn run(arguments: &[&str]) -> Output {
    let directory = tempfile::tempdir().unwrap();
    let guard = start(directory.path(), arguments);
    let output = finish(guard);
    nothing_stays(directory.path());
    output
}

/// No process runs that was given a group in this directory, and no file lies there.
fn nothing_stays(directory: &Path) {
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

fn processes_of(directory: &Path) -> Vec<u32> {
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

fn expect_success(output: &Output) {
    assert!(
        output.status.success(),
        "{}\nstdout:\n{}\nstderr:\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}

fn measure(arguments: &[&str]) -> RunReport {
    let results = tempfile::tempdir().unwrap();
    let file = results.path().join("report.json");
    let short = ["--duration", "0.5", "--warmup", "0.2", "--clients", "16"];
    let mut all = vec!["run", "--json", file.to_str().unwrap()];
    all.extend(short);
    all.extend(arguments);
    let output = run(&all);
    expect_success(&output);
    assert!(String::from_utf8_lossy(&output.stdout).contains("operations/s"));
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn a_group_is_measured_and_nothing_stays_behind() {
    let report = measure(&[]);
    assert_eq!((report.kind.as_str(), report.errors), ("run", 0));
    assert!(report.completed > 0 && report.throughput_ops_s > 0.0);
    let latency = report.latency_us;
    assert!(0.0 < latency.p50 && latency.p50 <= latency.p99 && latency.p99 <= latency.max);
    let names: Vec<_> = report.processes.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["replica 0", "replica 1", "replica 2", "load"]);
    assert!(report.processes.iter().all(|p| p.peak_rss_bytes > 0));
    assert_eq!(report.replicas.len(), 3);
}

#[test]
fn the_unreplicated_baseline_is_measured() {
    let report = measure(&["--unreplicated"]);
    assert_eq!((report.kind.as_str(), report.errors), ("unreplicated", 0));
    assert!(report.completed > 0);
    assert_eq!(report.processes.len(), 2);
}

/// Another program may run the replicas, here one that runs them as they are.
#[test]
fn replicas_write_traces_and_another_program_may_run_them() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let wrapper = directory.path().join("wrapper");
    std::fs::write(&wrapper, "#!/bin/sh\ntouch \"$0.was-run\"\nexec \"$@\"\n").unwrap();
    std::fs::set_permissions(&wrapper, PermissionsExt::from_mode(0o755)).unwrap();
    let [wrapper, traces] =
        [wrapper.as_path(), directory.path()].map(|path| path.to_str().unwrap());
    let report = measure(&["--trace", traces, "--replica-wrapper", wrapper]);
    assert!(report.completed > 0);
    for replica in 0..3 {
        let trace = std::fs::read(directory.path().join(format!("replica-{replica}.trace")));
        assert!(trace.unwrap().starts_with(b"HYBTRACE"));
    }
    assert!(directory.path().join("wrapper.was-run").exists());
}

/// The cores that the system lets the threads of a replica run on.
fn cores_of(pid: u32) -> Vec<String> {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    threads
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("status")).ok())
        .filter(|status| status.lines().next().is_some_and(|name| name.contains("\tr0-")))
        .filter_map(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
            Some(line.trim().to_owned())
        })
        .collect()
}

#[test]
fn a_pinned_group_has_each_thread_on_one_core() {
    assert!(measure(&["--pin"]).config.pin);
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["run", "--pin", "--duration", "60", "--warmup", "0", "--clients", "4"];
    let benchmark = start(directory.path(), &arguments);
    let deadline = Instant::now() + PATIENCE;
    let is_pinned = |cores: &Vec<String>| {
        !cores.is_empty() && cores.iter().all(|list| list.parse::<usize>().is_ok())
    };
    while !processes_of(directory.path()).iter().any(|pid| is_pinned(&cores_of(*pid))) {
        assert!(Instant::now() < deadline, "no replica with pinned threads");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(benchmark);
    let deadline = Instant::now() + PATIENCE;
    while !processes_of(directory.path()).is_empty() {
        assert!(Instant::now() < deadline, "replicas stay behind");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn the_store_is_measured_with_reads_in_an_open_loop_over_two_connections() {
    let report = measure(&[
        "--service",
        "kv",
        "--keys",
        "50",
        "--request-size",
        "100",
        "--read-percent",
        "50",
        "--rate",
        "500",
        "--connections",
        "2",
        "--pillars",
        "1",
        "--authenticator",
        "blake3",
        "--link-cipher",
        "aes-128-gcm",
    ]);
    assert_eq!(report.errors, 0, "{:?}", report.errors_by_kind);
    assert_eq!(report.config.connections, 2);
    assert_eq!(report.config.link_cipher, "aes-128-gcm");
    assert_eq!(report.open_loop.unwrap().unfinished, 0);
}

#[test]
fn signed_requests_are_measured() {
    let report = measure(&["--request-authenticator", "ed25519"]);
    assert_eq!(report.errors, 0, "{:?}", report.errors_by_kind);
    assert!(report.completed > 0);
    assert_eq!(report.config.request_authenticator, "ed25519");
    assert!(report.replicas.iter().all(|replica| replica.rejections == 0));
}

#[test]
fn a_series_takes_turns_and_is_written_as_json_and_csv() {
    let results = tempfile::tempdir().unwrap();
    let (json, csv) = (results.path().join("series.json"), results.path().join("series.csv"));
    let files = ["--json", json.to_str().unwrap(), "--csv", csv.to_str().unwrap()];
    let short = ["--duration", "0.3", "--warmup", "0.1", "--clients", "8", "--repeat", "2"];
    let mut all = vec!["sweep", "--over", "pillars", "--values", "1,2"];
    all.extend(short);
    all.extend(files);
    expect_success(&run(&all));
    let series: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let points = series["points"].as_array().unwrap();
    let values: Vec<_> = points.iter().map(|p| p["value"].as_str().unwrap()).collect();
    assert_eq!(values, ["1", "2"]);
    assert!(points.iter().all(|p| p["runs"].as_array().unwrap().len() == 2));
    assert_eq!(points[1]["runs"][0]["config"]["pillars"], 2);
    assert_eq!(std::fs::read_to_string(csv).unwrap().lines().count(), 5);
}

#[test]
fn a_group_without_load_is_watched() {
    let output = run(&["idle", "--seconds", "0.5"]);
    expect_success(&output);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("replica 2") && text.contains("of a core"), "{text}");
}

/// A profile needs perf and the right to sample; where either is missing, the program must say so
/// in words and the rest cannot be tested, which the test prints.
#[test]
fn a_profile_adds_up_to_its_samples() {
    let results = tempfile::tempdir().unwrap();
    let (json, out) = (results.path().join("profile.json"), results.path().join("stacks"));
    let output = run(&[
        "flamegraph",
        "--seconds",
        "1",
        "--frequency",
        "199",
        "--warmup",
        "0.2",
        "--clients",
        "16",
        "--out",
        out.to_str().unwrap(),
        "--json",
        json.to_str().unwrap(),
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let reasons = ["perf is not installed", "perf may not sample here"];
    if let Some(reason) = reasons.into_iter().find(|reason| stderr.contains(reason)) {
        assert_eq!(output.status.code(), Some(1));
        println!("skipped: {reason}");
        return;
    }
    expect_success(&output);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("sum of samples") && text.contains("measured (/proc)"), "{text}");
    let report: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let processes = report["processes"].as_array().unwrap();
    let names: Vec<_> = processes.iter().map(|p| p["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["replica 0", "replica 1", "replica 2", "load"]);
    for process in processes {
        assert!(process["samples"].as_u64().unwrap() > 0, "{process}");
        let shares = process["ns_per_op"].as_object().unwrap().values();
        let sum: f64 = shares.map(|share| share.as_f64().unwrap()).sum();
        let sampled = process["sampled_ns_per_op"].as_f64().unwrap();
        assert!((sum - sampled).abs() <= sampled * 1e-6, "{process}");
    }
    assert!(out.join("replica-0.script").is_file() && out.join("load.script").is_file());
}

#[test]
fn a_killed_leader_loses_nothing() {
    let results = tempfile::tempdir().unwrap();
    let file = results.path().join("report.json");
    let output = run(&[
        "fault",
        "--kill-leader",
        "--at",
        "0.5",
        "--after",
        "2",
        "--clients",
        "16",
        "--json",
        file.to_str().unwrap(),
    ]);
    expect_success(&output);
    let report: FaultReport = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
    assert!(report.is_clean());
    assert_eq!((report.lost, report.doubled), (0, 0));
    assert!(report.rounds[0].view_after > report.rounds[0].view_before);
}

#[test]
fn a_paused_follower_catches_up() {
    let output = run(&[
        "fault",
        "--pause-follower",
        "2",
        "--at",
        "0.5",
        "--after",
        "0.5",
        "--clients",
        "16",
    ]);
    expect_success(&output);
}

#[test]
fn an_interrupted_benchmark_takes_its_replicas_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let guard = start(directory.path(), &["run", "--duration", "600", "--clients", "4"]);
    wait_for_replicas(directory.path(), 3);
    rustix::process::kill_process(
        rustix::process::Pid::from_child(&guard.0),
        rustix::process::Signal::INT,
    )
    .unwrap();
    let output = finish(guard);
    assert_eq!(output.status.code(), Some(130));
    nothing_stays(directory.path());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "files stay behind");
}

#[test]
fn a_killed_benchmark_takes_its_replicas_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let guard = start(directory.path(), &["run", "--duration", "600", "--clients", "4"]);
    wait_for_replicas(directory.path(), 3);
    drop(guard);
    nothing_stays(directory.path());
}

fn wait_for_replicas(directory: &Path, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while processes_of(directory).len() < count {
        assert!(Instant::now() < deadline, "the replicas do not start");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn wrong_options_are_told_before_anything_starts() {
    for (arguments, text) in [
        (&["--replicas", "3", "--faults", "2"][..], "at least 5 replicas"),
        (&["--layout", "cubist"], "cubist"),
        (&["sweep", "--over", "layout", "--values", "fused,cubist"], "cubist"),
        (&["--authenticator", "rot13"], "aegis-128l"),
        (&["--request-authenticator", "rot13"], "ed25519"),
        (&["--link-cipher", "rot13"], "aegis-128x2"),
        (&["--json", "/nonexistent/x.json"], "give --json a file"),
        (&["sweep", "--over", "pillars", "--csv", "/nonexistent/x.csv"], "give --csv a file"),
        (&["--service", "counter"], "fault"),
        (&["--clients", "20000"], "--connections 2"),
        (&["fault", "--kill-leader", "--replicas", "1"], "f >= 1"),
    ] {
        let output = run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        assert!(stderr.contains(text), "{arguments:?}: {stderr}");
    }
}
