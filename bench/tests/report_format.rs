//! The JSON form of reports is a contract (bench/REPORT.md): a change of these fixtures is a decision.

use hybster_bench::report::{FORMAT, RunReport, write_json};
use hybster_bench::scenario::FaultReport;

const RUN: &str = include_str!("fixtures/run-report.json");
const FAULT: &str = include_str!("fixtures/fault-report.json");

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
