//! Events on the wires of replicas, which are in network namespaces of their own then. Where those cannot be had, the
//! benchmark refuses, and these tests say so.

#![cfg(target_os = "linux")]

mod support;

use hybster_bench::report::RunReport;
use support::{expect_success, report_in, run};

/// The report, or why it was refused.
fn measure(events: &[&str]) -> Result<RunReport, String> {
    let results = tempfile::tempdir().unwrap();
    let file = results.path().join("report.json");
    let mut all = vec!["run", "--clients=8", "--warmup=0.5", "--duration=8", "--durability=async"];
    all.push("--request-size=10000");
    let json = format!("--json={}", file.display());
    all.push(&json);
    let events: Vec<String> = events.iter().map(|event| format!("--event={event}")).collect();
    all.extend(events.iter().map(String::as_str));
    let output = run(&all);
    let stderr = String::from_utf8_lossy(&output.stderr).replace('\n', " ");
    let is_refused = ["cannot be had", "the kernel refuses such a wire"];
    if is_refused.iter().any(|why| stderr.contains(why)) {
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        println!("skipped: {stderr}");
        return Err(stderr);
    }
    expect_success(&output);
    Ok(report_in(&file))
}

#[test]
fn a_leader_that_is_cut_off_loses_its_view_and_comes_back() {
    let events = ["500ms:partition-leader for 4s", "6s:restart 1", "7s:partition 2 for 300ms"];
    let Ok(report) = measure(&events) else { return };
    let happened: Vec<_> = report.events.iter().map(|e| (e.event.as_str(), e.replica)).collect();
    assert_eq!(happened[0], ("partition-leader for 4s", 0));
    assert!(report.events.iter().all(|e| e.over_s > Some(e.at_s)), "{:?}", report.events);
    assert!(report.replicas.iter().any(|replica| replica.view >= 1), "{:?}", report.replicas);
    assert!(report.events[0].recovery.gap_ms > 0);
}

/// At 1 Mbit/s, requests of 10 KB take a while.
#[test]
fn a_slow_wire_is_slow_while_it_is() {
    let Ok(report) = measure(&["2s:slow-link 1mbit for 2s"]) else { return };
    let [event] = &report.events[..] else { panic!("{:?}", report.events) };
    assert!(event.over_s > Some(event.at_s));
    let timeline = report.timeline.unwrap();
    let sum = |from: usize, to: usize| timeline.completed[from..to].iter().sum::<u32>();
    let (before, slow) = (sum(50, 200), sum(220, 370));
    assert!(slow < before, "{slow} operations while the wire was slow, {before} before");
}

/// Where the kernel cannot delay packets, it is told which module it lacks.
#[test]
fn a_long_wire_is_made_or_refused_with_the_reason() {
    match measure(&["1s:slow-link 2 20ms 100mbit for 1s", "4s:slow-link 20ms"]) {
        Ok(report) => {
            let latency = report.latency_us.unwrap();
            assert!(latency.max >= 40e3, "{latency:?}");
        }
        Err(why) => assert!(why.contains("sch_netem") || why.contains("cannot be had"), "{why}"),
    }
}
