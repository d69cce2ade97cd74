//! `hybster simulate`, as a user runs it.

mod harness;

use harness::hybster;

/// One run in words.
fn trace(options: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("trace");
    let path = path.to_str().unwrap();
    hybster(&[&["simulate", "--trace", path], options].concat()).ok();
    std::fs::read_to_string(path).unwrap()
}

#[test]
fn seeds_run_and_are_summed_up() {
    let told = hybster(&["simulate", "--seeds", "60", "--seed", "1", "--jobs", "2"]).ok();
    assert!(told.contains("seeds 1..=60") && told.contains("60 runs in"), "{told}");
    assert!(told.contains("0 failed") && told.contains("state transfers"), "{told}");
}

#[test]
fn a_trace_is_the_same_each_time() {
    let told = trace(&["--seed", "7", "--pillars", "2"]);
    assert_eq!(told, trace(&["--seed", "7", "--pillars", "2"]));
    assert!(told.contains("hash of the run") && told.contains("PREPARE"), "{told}");
}

#[test]
fn a_recorded_run_can_be_read_as_a_protocol_trace() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.trace");
    let path = path.to_str().unwrap();
    hybster(&["simulate", "--seed", "7", "--faults", "none", "--record", path]).ok();
    let told = hybster(&["trace", "--order", "1..4", path]).ok();
    assert!(told.contains("proposed") && told.contains("committed"), "{told}");
}

#[test]
fn what_is_fixed_is_fixed() {
    let told = trace(&["--seed", "3", "--replicas", "5", "--pillars", "3", "--faults", "none"]);
    assert!(told.contains("replicas: 5") && told.contains("pillars: 3"), "{told}");
    assert!(told.contains("faults: [],") && told.contains("hosts: [],"), "{told}");
}

#[test]
fn wrong_options_are_explained() {
    hybster(&["simulate", "--seeds", "3", "--trace", "x"])
        .refuses_options(&["--trace", "--seed S"]);
    let wrong = hybster(&["simulate", "--faults", "loss,meteor"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    assert!(wrong.stderr.contains("\"meteor\"") && wrong.stderr.contains("partition"), "{wrong:?}");
}
