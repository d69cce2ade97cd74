//! `hybster-bench --group`: load on a group that runs already, here one that the test starts.

mod support;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;

use clap::Parser;
use hybster_bench::engine::create_group;
use hybster_bench::launch::Child;
use hybster_bench::options::{Cli, ServiceKind};
use hybster_bench::report::RunReport;
use hybster_bench::spec::GroupSpec;
use hybster_bench::stop::Stop;
use support::{PATIENCE, PROGRAM, expect_success, finish, report_in, report_of, run, start};

/// How often ports are chosen, in case another process takes one.
const ATTEMPTS: u32 = 5;

/// A group of three replicas, which end with it.
struct Group {
    _replicas: Vec<Child>,
    directory: PathBuf,
    _parent: tempfile::TempDir,
}

impl Group {
    /// With so many client identities.
    fn start(service: ServiceKind, clients: u32) -> Self {
        let mut last = String::new();
        for _ in 0..ATTEMPTS {
            match Self::try_start(service, clients) {
                Ok(group) => return group,
                Err(error) => last = error.to_string(),
            }
        }
        panic!("no group starts: {last}");
    }

    fn try_start(service: ServiceKind, clients: u32) -> Result<Self, hybster_bench::Error> {
        let parent = tempfile::tempdir().unwrap();
        let directory = parent.path().join("group");
        let options = Cli::parse_from(["hybster-bench", "--pillars=1"]).run.group;
        let spec = GroupSpec::new(&options, service, clients)?;
        let ports = [0; 3].map(|any| TcpListener::bind((Ipv4Addr::LOCALHOST, any)).unwrap());
        let addresses: Vec<SocketAddr> =
            ports.iter().map(|port| port.local_addr().unwrap()).collect();
        drop(ports);
        create_group(&directory, &spec, &addresses)?;
        let mut replicas = Vec::new();
        for replica in 0..3 {
            let mut command = Command::new(PROGRAM);
            command.arg("replica").arg("--group").arg(&directory);
            command.args(["--id", &replica.to_string(), "--layout", "fused"]);
            command.args(["--service", service.name()]);
            let log = parent.path().join(format!("{replica}.log"));
            replicas.push(Child::spawn("replica", &mut command, &log)?);
        }
        for replica in &mut replicas {
            replica.wait_ready(PATIENCE, &Stop::new())?;
        }
        Ok(Self { _replicas: replicas, directory, _parent: parent })
    }

    fn path(&self) -> &str {
        self.directory.to_str().unwrap()
    }
}

const SHORT: [&str; 4] = ["--duration=0.5", "--warmup=0.1", "--clients=8", "--json=-"];

#[test]
fn a_group_that_runs_already_is_measured_as_often_as_one_likes() {
    let group = Group::start(ServiceKind::Kv, 4);
    for (first, connections) in [("0", "2"), ("1", "2"), ("0", "3")] {
        let load = ["--group", group.path(), "--service=kv", "--keys=20", "--first-client", first];
        let output = run(&[&load[..], &["--connections", connections], &SHORT].concat());
        expect_success(&output);
        let report: RunReport = report_of(&output.stdout);
        assert_eq!(report.errors, 0, "{:?}", report.errors_by_kind);
        assert!(report.completed > 0);
        let target = report.target.unwrap();
        assert!(target.is_elsewhere && !target.group.is_empty());
        assert_eq!(target.first_client.to_string(), first);
        // The replicas' counters are known, their processes are not.
        assert_eq!((report.replicas.len(), report.cpu_s_per_mop), (3, None));
        assert_eq!((report.config.pillars, report.config.replicas), (1, 3));
        let names: Vec<_> = report.processes.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names, ["load"]);
        assert!(String::from_utf8_lossy(&output.stderr).contains("the replicas run elsewhere"));
    }
}

#[test]
fn without_a_client_to_spare_the_counters_are_left_out() {
    let group = Group::start(ServiceKind::Null, 1);
    let output = run(&[&["--group", group.path(), "--service=null"][..], &SHORT].concat());
    expect_success(&output);
    let report: RunReport = report_of(&output.stdout);
    assert!(report.completed > 0 && report.errors == 0 && report.replicas.is_empty());
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("there is no key of client 1 to ask for them"), "{stderr}");
    // With what it has not, it is refused before anything is sent.
    let output = run(&["--group", group.path(), "--service=null", "--first-client=1"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    let told = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("`hybster init --clients 3`"), "{told}");
}

#[test]
fn what_needs_the_replicas_processes_is_refused() {
    for (arguments, text) in [
        (&["--group=/nonexistent", "--service=kv"][..], "/nonexistent"),
        (&["--group=/tmp"], "say what the group runs"),
        (&["--group=/tmp", "--service=kv", "--event=1s:kill-leader"], "cannot be used with"),
        (&["--group=/tmp", "--service=kv", "--pillars=2"], "cannot be used with"),
        (
            &["sweep", "--over=batch", "--group=/tmp", "--service=kv"],
            "a series over batch starts a group",
        ),
        (&["flamegraph", "--group=/tmp", "--service=kv"], "perf samples processes"),
    ] {
        let output = run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        let told = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(told.contains(text), "{arguments:?}: {stderr}");
    }
}

/// Two load generators at once, each with clients of its own, and what they measured as one report.
#[test]
fn reports_of_several_load_generators_become_one() {
    let group = Group::start(ServiceKind::Null, 4);
    let results = tempfile::tempdir().unwrap();
    let files = ["a.json", "b.json"].map(|name| results.path().join(name));
    let [a, b] = [&files[0], &files[1]].map(|file| file.to_str().unwrap());
    // They must have measured at the same time: on a machine that was busy, once more and for longer.
    for seconds in [2, 4, 8, 16] {
        let duration = format!("--duration={seconds}");
        let load = |first, file| {
            let group = ["--group", group.path(), "--service=null", "--clients=8", "--warmup=0.5"];
            let rest = [duration.as_str(), "--first-client", first, "--json", file];
            start(results.path(), &[&group[..], &rest].concat())
        };
        let both = [load("0", a), load("2", b)];
        both.into_iter().for_each(|guard| expect_success(&finish(guard)));
        let output = run(&["merge", a, b, "--json", "-"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        if seconds < 16 && stderr.contains("measured together for") {
            continue;
        }
        expect_success(&output);
        let merged: RunReport = report_of(&output.stdout);
        let parts = files.each_ref().map(|file| report_in::<RunReport>(file));
        let latencies =
            |run: &RunReport| -> u64 { run.latency_histogram.as_ref().unwrap().count.iter().sum() };
        assert_eq!(latencies(&merged), parts.iter().map(latencies).sum::<u64>());
        assert!(merged.completed > 0 && merged.duration_s <= f64::from(seconds));
        assert_eq!((merged.kind.as_str(), merged.config.clients), ("merged", 16));
        assert_eq!((merged.merged.len(), merged.replicas.len()), (2, 3));
        break;
    }
    let output = run(&["merge", a, a]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("a.json: it has client 0"));
}
