//! The JSON form of reports is a contract (bench/REPORT.md): a change of these fixtures is a decision.

use hybster_bench::report::{FORMAT, RunReport, wrap, write_json};
use hybster_bench::scenario::FaultReport;

const RUN: &str = include_str!("fixtures/run-report.json");
const FAULT: &str = include_str!("fixtures/fault-report.json");
/// Reports of the second form.
const RUN_2: &str = include_str!("fixtures/run-report-2.json");
const FAULT_2: &str = include_str!("fixtures/fault-report-2.json");
/// Reports of the first form.
const OLD_RUN: &str = include_str!("fixtures/run-report-1.json");
const OLD_FAULT: &str = include_str!("fixtures/fault-report-1.json");

#[test]
fn a_run_report_is_written_as_the_fixture_says() {
    let report: RunReport = serde_json::from_str(RUN).unwrap();
    assert_eq!(report.format, FORMAT);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("report.json");
    write_json(&path, &report).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), RUN);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1, "no temporary file stays");
}

#[test]
fn a_fault_report_is_written_as_the_fixture_says() {
    let report: FaultReport = serde_json::from_str(FAULT).unwrap();
    assert_eq!(report.format, FORMAT);
    assert!(report.is_clean());
    assert_eq!(serde_json::to_string_pretty(&report).unwrap() + "\n", FAULT);
}

#[test]
fn reports_of_the_first_form_can_be_read() {
    let run: RunReport = serde_json::from_str(OLD_RUN).unwrap();
    assert_eq!((run.format, run.completed), (1, 4_123_455));
    assert_eq!(run.latency_us.unwrap().p99, 9000.0);
    assert!(run.timeline.is_none() && run.events.is_empty() && run.config.load.is_none());
    assert!(run.to_string().contains("request 0 B, reply 0 B, 0 % reads"));
    let fault: FaultReport = serde_json::from_str(OLD_FAULT).unwrap();
    assert_eq!((fault.format, fault.lost, fault.doubled), (1, Some(0), Some(0)));
}

#[test]
fn reports_of_the_second_form_can_be_read() {
    let run: RunReport = serde_json::from_str(RUN_2).unwrap();
    assert_eq!((run.format, run.cpu_s_per_mop), (2, Some(4.75)));
    assert!(run.usage.is_none() && run.warnings.is_empty() && run.target.is_none());
    let fault: FaultReport = serde_json::from_str(FAULT_2).unwrap();
    assert_eq!((fault.format, fault.is_clean()), (2, true));
}

/// Of a group elsewhere, nothing is known of the replicas' processes.
#[test]
fn a_group_elsewhere_is_called_that() {
    let mut run: RunReport = serde_json::from_str(RUN).unwrap();
    assert!(!run.to_string().contains("there already"));
    run.cpu_s_per_mop = None;
    run.target.as_mut().unwrap().is_elsewhere = true;
    let text = run.to_string();
    assert!(text.contains("CPU          n/a: the replicas run elsewhere"), "{text}");
    assert!(text.contains("which was there already, clients from 0 on"), "{text}");
}

#[test]
fn what_is_wrong_with_a_run_is_told_in_sentences() {
    let run: RunReport = serde_json::from_str(RUN).unwrap();
    let verdict = run.verdict();
    let [failed, rate] = &verdict.complaints[..] else { panic!("{verdict:?}") };
    assert_eq!(failed, "3 operations failed (overloaded 2, unfinished 1)");
    assert!(rate.starts_with("the rate was not kept: 412,346 operations/s"), "{rate}");
    let none = RunReport { latency_us: None, completed: 0, ..run };
    assert!(none.to_string().contains("latency      n/a"));
    assert!(none.verdict().complaints.iter().any(|c| c.contains("no operation completed")));
}

/// A terminal of 80 columns suffices.
#[test]
fn lines_are_broken_between_words() {
    for text in [
        serde_json::from_str::<RunReport>(RUN).unwrap().to_string(),
        serde_json::from_str::<FaultReport>(FAULT).unwrap().to_string(),
    ] {
        let wrapped = wrap(&text, 80);
        assert!(wrapped.lines().all(|line| line.chars().count() <= 80), "{wrapped}");
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(words(&wrapped), words(&text));
    }
}

#[test]
fn the_text_forms_name_what_matters() {
    let run: RunReport = serde_json::from_str(RUN).unwrap();
    let text = run.to_string();
    for part in [
        "3 replicas (f = 1), 2 pillars",
        "412,346 operations/s",
        "p99 9.00 ms",
        "3 errors (overloaded 2, unfinished 1)",
        "4.75 s per million operations",
        "187.5 requests per batch",
        "DID NOT KEEP UP",
        "stolen       0.25 s",
        "10,000 records of 1000 B (zipfian), 50 % reads, 50 % updates",
        "open loop (poisson arrivals)",
        "76,544 of 4,500,000 that were due were never sent",
        "2.50 s pause 2 for 1s (replica 2), over at 3.50 s: gap 20 ms, full rate (412,000 \
         operations/s) after 40 ms",
        "5.00 s kill-leader (replica 0): gap 620 ms, FULL RATE (410,000 operations/s) NOT REACHED",
        "1: 1,024 clients, 2,000,000 completed",
        "replica 0         5.50     20.0 MiB     24.0 MiB",
        "AMD EPYC, 2 cores",
    ] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
    let fault: FaultReport = serde_json::from_str(FAULT).unwrap();
    let text = fault.to_string();
    for part in ["caught up after 0.75 s", "0 lost, 0 doubled", "all promises kept"] {
        assert!(text.contains(part), "{part:?} is missing in:\n{text}");
    }
}

#[test]
fn a_report_that_cannot_be_written_names_the_file() {
    let run: RunReport = serde_json::from_str(RUN).unwrap();
    let error = write_json("/nonexistent/report.json".as_ref(), &run).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/report.json"));
}
