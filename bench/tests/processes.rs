//! `hybster-bench` as a process, with the processes that it starts. Nothing here looks at speed.

mod support;

use std::time::{Duration, Instant};

use hybster_bench::compare::CompareReport;
use hybster_bench::knee::KneeReport;
use hybster_bench::report::RunReport;
use hybster_bench::scenario::{DiskEvents, FaultReport};
use support::{
    PATIENCE, expect_success, finish, measure, measure_with, nothing_stays, processes_of,
    report_in, report_of, run, start, wait_for_replicas,
};

#[test]
fn a_group_is_measured_and_nothing_stays_behind() {
    let report = measure(&[]);
    assert_eq!((report.kind.as_str(), report.errors), ("run", 0));
    assert!(report.completed > 0 && report.throughput_ops_s > 0.0);
    let latency = report.latency_us.unwrap();
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

#[test]
fn pbft_is_measured() {
    let report = measure(&["--protocol", "pbft"]);
    assert_eq!(report.errors, 0, "{:?}", report.errors_by_kind);
    assert!(report.completed > 0);
    assert_eq!((report.config.replicas, report.config.faults), (4, 1));
    assert_eq!(report.config.request_authenticator, "ed25519");
    assert_eq!(report.replicas.len(), 4);
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
fn workloads_over_records_run_and_every_answer_is_right() {
    for (workload, reads) in [("ycsb-d", 95), ("ycsb-e", 95), ("ycsb-f", 50), ("coordination", 90)]
    {
        let report = measure(&["--workload", workload, "--keys", "100", "--request-size", "20"]);
        assert_eq!(report.errors, 0, "{workload}: {:?}", report.errors_by_kind);
        assert!(report.completed > 0, "{workload}");
        let load = report.config.load.unwrap();
        assert_eq!((load.workload.as_str(), report.config.read_percent), (workload, reads));
    }
}

#[test]
fn a_number_of_operations_is_measured_exactly() {
    let report = measure_with(&[
        "--operations",
        "1001",
        "--warmup",
        "0.1",
        "--clients",
        "16",
        "--connections",
        "2",
        "--hot-client",
        "75",
    ]);
    assert_eq!((report.completed, report.errors), (1001, 0));
    let of: Vec<_> = report.connections.iter().map(|c| (c.clients, c.completed)).collect();
    assert_eq!(of, [(12, 751), (4, 250)]);
    let timeline = report.timeline.unwrap();
    assert_eq!(timeline.completed.iter().sum::<u32>(), 1001);
    assert_eq!(report.config.load.unwrap().operations, Some(1001));
}

/// What is due during the warm-up and answered later has waited, and counts.
#[test]
fn an_overloaded_open_loop_says_so() {
    let results = tempfile::tempdir().unwrap();
    let file = results.path().join("report.json");
    let output = run(&[
        "--rate=20000000",
        "--duration=0.5",
        "--warmup=0.5",
        "--clients=16",
        "--json",
        file.to_str().unwrap(),
    ]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("the rate was not kept"), "{stderr}");
    let report: RunReport = report_in(&file);
    let (open, latency) = (report.open_loop.unwrap(), report.latency_us.unwrap());
    assert!(!open.kept_up && open.due == 10_000_000 && open.never_sent > 0, "{open:?}");
    assert!(latency.p50 > 0.0);
}

#[test]
fn events_happen_while_a_load_runs_and_are_reported() {
    let report = measure_with(&[
        "--clients=8",
        "--warmup=0.5",
        "--duration=6",
        "--durability=async",
        "--event=500ms:pause 2 for 300ms",
        "--event=1500ms:restart 1",
        "--event=3s:kill-leader",
    ]);
    let events: Vec<_> = report.events.iter().map(|e| (e.event.as_str(), e.replica)).collect();
    assert_eq!(events[..2], [("pause 2 for 300ms", 2), ("restart 1", 1)]);
    assert_eq!(events[2].0, "kill-leader");
    assert!(report.events[..2].iter().all(|e| e.over_s > Some(e.at_s)), "{events:?}");
    assert!(report.events[2].over_s.is_none());
    assert!(
        report.events.iter().all(|e| e.recovery.before_ops_s > Some(0.0)),
        "{:?}",
        report.events
    );
    assert_eq!(report.timeline.unwrap().completed.len(), 600);
    // All of them used CPU time, the killed leader too.
    assert_eq!(report.processes.len(), 4);
    assert!(report.processes.iter().all(|p| p.cpu_s >= 0.0), "{:?}", report.processes);
    assert_eq!(report.errors, 0, "{:?}", report.errors_by_kind);
}

#[test]
fn the_knee_is_looked_for() {
    let results = tempfile::tempdir().unwrap();
    let file = results.path().join("report.json");
    let output = run(&[
        "--find-knee=p99<1us",
        "--rate=50",
        "--duration=0.2",
        "--warmup=0.1",
        "--clients=4",
        "--json",
        file.to_str().unwrap(),
    ]);
    // No group is so fast.
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("p99<1us: held at no rate"));
    let report: KneeReport = report_in(&file);
    assert_eq!((report.kind.as_str(), report.rate_ops_s), ("knee", None));
    assert!(report.steps.len() > 1 && report.steps.iter().all(|step| !step.good));
}

#[test]
fn a_report_may_go_to_standard_output() {
    let output = run(&["--json", "-", "--duration=0.2", "--warmup=0.1", "--clients=4"]);
    expect_success(&output);
    let report: RunReport = report_of(&output.stdout);
    assert!(report.completed > 0);
    assert!(String::from_utf8_lossy(&output.stderr).contains("operations/s"));
}

#[test]
fn a_directory_with_a_page_is_written() {
    let results = tempfile::tempdir().unwrap();
    let directory = results.path().join("new");
    let report = measure(&["--report", directory.to_str().unwrap()]);
    assert_eq!(report_in::<RunReport>(&directory.join("report.json")), report);
    let page = std::fs::read_to_string(directory.join("report.html")).unwrap();
    assert!(page.contains("Throughput over time") && page.contains("Latency by percentile"));
}

#[test]
fn a_fault_happens_to_any_service_and_load() {
    let results = tempfile::tempdir().unwrap();
    let file = results.path().join("report.json");
    let output = run(&[
        "fault",
        "--kill-leader",
        "--service=kv",
        "--keys=20",
        "--request-size=50",
        "--read-percent=20",
        "--rate=50",
        "--at=0.5",
        "--after=2",
        "--clients=16",
        "--json",
        file.to_str().unwrap(),
    ]);
    expect_success(&output);
    let report: FaultReport = report_in(&file);
    assert_eq!((report.lost, report.doubled, report.errors), (None, None, 0));
    assert_eq!((report.config.service.as_str(), report.config.request_size), ("kv", 50));
    assert!(report.acknowledged > 0);
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
    let series: serde_json::Value = report_in(&json);
    let points = series["points"].as_array().unwrap();
    let values: Vec<_> = points.iter().map(|p| p["value"].as_str().unwrap()).collect();
    assert_eq!(values, ["1", "2"]);
    assert!(points.iter().all(|p| p["runs"].as_array().unwrap().len() == 2));
    assert_eq!(points[1]["runs"][0]["config"]["pillars"], 2);
    assert_eq!(std::fs::read_to_string(csv).unwrap().lines().count(), 5);
}

#[test]
fn what_is_left_out_takes_turns_with_the_base_and_is_compared() {
    let results = tempfile::tempdir().unwrap();
    let file = results.path().join("series.json");
    let json = file.to_str().unwrap();
    let short = ["--duration=0.2", "--warmup=0.1", "--clients=4", "--repeat=3"];
    let only = ["ablate", "--only=base,unreplicated", "--json", json];
    let output = run(&[&only[..], &short].concat());
    expect_success(&output);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("ratios to base (3 runs)") && text.contains("unreplicated "), "{text}");
    let series: serde_json::Value = report_in(&file);
    assert_eq!(series["over"], "ablation");
    let output = run(&["compare", json, "--json", "-"]);
    expect_success(&output);
    let report: CompareReport = report_of(&output.stdout);
    let ratio = report.others[0].throughput.unwrap();
    assert!(ratio.ratio > 0.0 && ratio.low <= Some(ratio.ratio) && ratio.high >= Some(ratio.ratio));
    assert!(report.others[0].differences.iter().any(|d| d == "unreplicated true for false"));
}

#[test]
fn a_group_without_load_is_watched() {
    let output = run(&["idle", "--seconds", "0.5", "--json", "-"]);
    expect_success(&output);
    let report: serde_json::Value = report_of(&output.stdout);
    assert_eq!(report["processes"].as_array().unwrap().len(), 3);
    let text = String::from_utf8_lossy(&output.stderr);
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
    // Without inferno nothing is drawn, which is told and is no success.
    if !stderr.contains("inferno is not installed") {
        expect_success(&output);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("sum of samples") && text.contains("measured (/proc)"), "{text}");
    let report: serde_json::Value = report_in(&json);
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
    let folded = std::fs::read_to_string(out.join("replica-0.folded")).unwrap();
    let samples: u64 =
        folded.lines().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum();
    assert!(samples >= processes[0]["samples"].as_u64().unwrap(), "{samples}");
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
    let report: FaultReport = report_in(&file);
    assert!(report.is_clean());
    assert_eq!((report.lost, report.doubled), (Some(0), Some(0)));
    assert!(report.rounds[0].view_after > report.rounds[0].view_before);
}

#[test]
fn a_killed_leader_loses_nothing_with_pbft_either() {
    let results = tempfile::tempdir().unwrap();
    let file = results.path().join("report.json");
    let fault = ["fault", "--kill-leader", "--protocol=pbft", "--at=0.5", "--after=2"];
    let output = run(&[&fault[..], &["--clients=16", "--json", file.to_str().unwrap()]].concat());
    expect_success(&output);
    let report: FaultReport = report_in(&file);
    assert!(report.is_clean());
    assert_eq!((report.lost, report.doubled), (Some(0), Some(0)));
    assert!(report.acknowledged > 0);
    assert!(report.rounds[0].view_after > report.rounds[0].view_before);
    assert_eq!((report.config.replicas, report.config.faults), (4, 1));
}

/// The seed has an older copy, a full disk, a damaged log and a torn tail, of which happens what this machine has
/// time for.
#[test]
fn replicas_with_damaged_disks_are_refused_or_come_back() {
    let results = tempfile::tempdir().unwrap();
    let file = results.path().join("report.json");
    let shares = ["--torn-tail=25", "--damaged-log=25", "--older-copy=25", "--full-disk=25"];
    let restarts = ["fault", "--restart=random", "--durability=sync", "--fault-seed=742"];
    let times = ["--at=0.5", "--after=8", "--clients=16", "--json", file.to_str().unwrap()];
    let output = run(&[&restarts[..], &times, &shares].concat());
    expect_success(&output);
    let report: FaultReport = report_in(&file);
    assert_eq!((report.lost, report.doubled), (Some(0), Some(0)));
    let restart = report.rounds[0].restart.as_ref().unwrap();
    let DiskEvents { done, refused, came_back } = restart.damaged_log;
    assert!(done == refused && done == came_back, "{restart:?}");
    let events = [restart.torn_tail, restart.damaged_log, restart.older_copy, restart.full_disk];
    assert!(events.iter().any(|event| event.done > 0), "{restart:?}");
    assert_eq!((restart.seed, restart.restarts > 0), (742, true));

    let output = run(&["fault", "--kill-leader", "--older-copy=1"]);
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8_lossy(&output.stderr);
    // Lines are broken between words.
    let told = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(told.contains("--full-disk need --restart random"), "{told}");
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

/// It ends in order, and reports what there is so far.
fn interrupt_while_measuring(signal: rustix::process::Signal) {
    let directory = tempfile::tempdir().unwrap();
    let results = tempfile::tempdir().unwrap();
    let file = results.path().join("report.json");
    let json = file.to_str().unwrap();
    let arguments = ["run", "--duration=600", "--warmup=0", "--clients=4", "--json", json];
    let guard = start(directory.path(), &arguments);
    wait_for_replicas(directory.path(), 3);
    let pid = rustix::process::Pid::from_child(&guard.0);
    // There is nothing to report until the load has begun, which cannot be seen from outside: so it is
    // asked for late, and it may still have been too early on a very slow machine.
    std::thread::sleep(Duration::from_secs(4));
    rustix::process::kill_process(pid, signal).unwrap();
    let output = finish(guard);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(stderr.contains("interrupted"), "{stderr}");
    nothing_stays(directory.path());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0, "files stay behind");
    if file.exists() {
        let report: RunReport = report_in(&file);
        assert!(report.interrupted && report.duration_s < 600.0);
        assert!(String::from_utf8_lossy(&output.stdout).contains("interrupted  after"));
    } else {
        println!("the load had not begun yet");
    }
}

#[test]
fn an_interrupted_benchmark_takes_its_replicas_with_it() {
    interrupt_while_measuring(rustix::process::Signal::INT);
}

#[test]
fn a_terminated_benchmark_takes_its_replicas_with_it() {
    interrupt_while_measuring(rustix::process::Signal::TERM);
}

#[test]
fn a_killed_benchmark_takes_its_replicas_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let guard = start(directory.path(), &["run", "--duration", "600", "--clients", "4"]);
    wait_for_replicas(directory.path(), 3);
    drop(guard);
    nothing_stays(directory.path());
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
        (&["--clients", "4294967295"], "1..=4194304"),
        (&["--reply-size", "1048577"], "the limit, 1048576 bytes"),
        (&["--request-size", "1048577"], "the limit, 1048576 bytes"),
        (&["fault", "--kill-leader", "--request-size", "1"], "the counter is only incremented"),
        (
            &["sweep", "--over", "pillars", "--values", "many"],
            "\"many\" is no whole number from 1 to",
        ),
        (&["--event", "1s:explode"], "is no event"),
        (&["--event", "1s:kill 7"], "they are 0 to 2"),
        (&["--find-knee", "p42<1s"], "is no figure"),
        (&["fault", "--kill-leader", "--replicas", "1"], "f >= 1"),
        (&["--protocol", "pbft", "--replicas", "3", "--faults", "1"], "at least 4 replicas"),
        (&["--protocol", "pbft", "--durability", "sync"], "write none"),
    ] {
        let output = run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success());
        // Lines are broken between words.
        let told: Vec<&str> = stderr.split_whitespace().collect();
        assert!(told.join(" ").contains(text), "{arguments:?}: {stderr}");
    }
}
