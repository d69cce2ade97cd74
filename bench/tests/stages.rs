//! `hybster-bench --stages`: where latency goes. Nothing here looks at speed.

mod support;

use hybster_bench::report::StagesReport;
use support::measure;

/// The stages that took any time.
fn stages(arguments: &[&str]) -> (StagesReport, Vec<String>) {
    let report = measure(&[&["--stages", "4"], arguments].concat());
    assert_eq!(report.errors, 0, "{:?}", report.errors_by_kind);
    assert!(report.to_string().contains("where the latency went"));
    let stages = report.stages.unwrap();
    assert_eq!((stages.every, stages.lost_stamps), (4, 0));
    // A view change, which a slow machine may see, makes some incomplete.
    assert!(stages.requests > stages.incomplete, "{stages:?}");
    // Those that ended in the interval and began in it, with room for chance.
    assert!(stages.requests <= report.completed, "{stages:?}");
    let sum: f64 = stages.stages.iter().map(|stage| stage.mean_us).sum();
    assert!((sum - stages.bands[0].mean_us).abs() < 1e-3 * sum, "{stages:?}");
    let latency = report.latency_us.unwrap();
    assert!(stages.bands.iter().all(|band| band.mean_us <= latency.max * 1.01 + 1.0));
    let took = stages.stages.iter().filter(|stage| stage.max_us > 0.0);
    let names = took.map(|stage| stage.stage.clone()).collect();
    (stages, names)
}

#[test]
fn requests_are_followed_through_all_stages() {
    let (_, names) = stages(&["--durability", "sync"]);
    for name in ["request", "intake", "verify", "proposal", "vote", "quorum", "execute", "reply"] {
        assert!(names.iter().any(|n| n == name), "no {name} in {names:?}");
    }
    // The disk is waited for.
    assert!(names.iter().any(|name| name.ends_with("log")), "{names:?}");
}

#[test]
fn stages_of_threads_of_their_own_and_of_an_open_loop_are_followed() {
    let (_, names) = stages(&["--layout", "split", "--rate", "300", "--connections", "2"]);
    for name in ["request", "queue", "verify", "quorum", "order", "reply"] {
        assert!(names.iter().any(|n| n == name), "no {name} in {names:?}");
    }
    assert!(!names.iter().any(|name| name.ends_with("log")), "{names:?}");
}

#[test]
fn one_server_has_fewer_stages() {
    let (_, names) = stages(&["--unreplicated"]);
    assert!(names.iter().any(|name| name == "request"), "{names:?}");
    assert!(!names.iter().any(|name| ["verify", "quorum"].contains(&name.as_str())), "{names:?}");
}
