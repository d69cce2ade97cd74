//! `hybster-bench --processes`: several processes make the load. Nothing here looks at speed.

mod support;

use std::time::{Duration, Instant};

use support::{
    PATIENCE, finish, measure, nothing_stays, processes_of, report_of, run, start,
    wait_for_replicas,
};

#[test]
fn several_processes_make_one_load_and_one_report() {
    let report = measure(&["--processes", "2", "--connections", "2", "--stages", "4"]);
    assert_eq!((report.kind.as_str(), report.errors), ("run", 0), "{:?}", report.errors_by_kind);
    assert_eq!((report.config.clients, report.config.connections), (16, 4));
    assert_eq!(report.config.load.as_ref().unwrap().processes, 2);
    let of: Vec<u32> = report.connections.iter().map(|c| c.connection).collect();
    assert_eq!(of, [0, 1, 2, 3]);
    assert!(report.connections.iter().all(|c| c.clients == 4 && c.completed > 0));
    let parts: Vec<_> = report.merged.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(parts, ["load 0", "load 1"]);
    let names: Vec<_> = report.processes.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["replica 0", "replica 1", "replica 2", "load", "load 0", "load 1"]);
    assert_eq!(report.completed, report.merged.iter().map(|part| part.completed).sum::<u64>());
    assert_eq!(report.replicas.len(), 3);
    assert!(report.stages.as_ref().is_some_and(|stages| stages.requests > 0));
    assert!(report.to_string().contains("2 load processes"));
}

/// Records are written once, by all of them together, and each asks for its part of the rate.
#[test]
fn records_and_rate_are_shared() {
    let report = measure(&["--processes=2", "--workload=ycsb-a", "--keys=51", "--rate=400"]);
    assert_eq!(report.errors, 0, "{:?}", report.errors_by_kind);
    let open = report.open_loop.unwrap();
    assert_eq!((open.rate_ops_s, open.due), (400.0, 200));
}

#[test]
fn events_happen_and_an_interrupted_load_is_reported() {
    let directory = tempfile::tempdir().unwrap();
    let load = ["--processes=2", "--clients=8", "--duration=60", "--warmup=0", "--json=-"];
    let benchmark = start(directory.path(), &[&load[..], &["--event=100ms:kill-leader"]].concat());
    wait_for_replicas(directory.path(), 5);
    // That all measure cannot be seen from outside, and may still not be so on a very slow machine.
    std::thread::sleep(Duration::from_secs(4));
    let pid = i32::try_from(benchmark.0.id()).unwrap();
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let output = finish(benchmark);
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    nothing_stays(directory.path());
    if output.stdout.is_empty() {
        println!("the load had not begun yet");
        return;
    }
    let report: hybster_bench::report::RunReport = report_of(&output.stdout);
    assert!(report.interrupted && report.duration_s < 60.0);
    assert!(report.duration_s < 0.5 || report.events.len() == 1, "{report:?}");
}

#[test]
fn a_load_process_that_dies_ends_everything_with_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let arguments = ["--processes=2", "--clients=8", "--duration=60", "--warmup=0"];
    let benchmark = start(directory.path(), &arguments);
    let deadline = Instant::now() + PATIENCE;
    let load = loop {
        let found = processes_of(directory.path()).into_iter().find(|pid| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).nth(1) == Some(b"load")
        });
        if let Some(pid) = found {
            break pid;
        }
        assert!(Instant::now() < deadline, "no load process starts");
        std::thread::sleep(Duration::from_millis(20));
    };
    let pid = rustix::process::Pid::from_raw(i32::try_from(load).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let output = finish(benchmark);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("load 0") || stderr.contains("load 1"), "{stderr}");
    nothing_stays(directory.path());
}

#[test]
fn too_many_connections_for_the_clients_are_refused() {
    let output = run(&["--processes=4", "--clients=3"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("--processes 4"), "{stderr}");
}
