//! The largest bounds that were explored to the end, 20 minutes or less and a few gibibytes each:
//! `cargo test --release -p hybster-model --test long -- --ignored --test-threads 1 --nocapture`

use hybster_model::{Bounds, explore};

fn safe(bounds: &Bounds, states: usize) {
    let outcome = explore(bounds, None);
    println!("{outcome}");
    assert!(outcome.broken.is_none() && outcome.missed.is_empty(), "{outcome}");
    assert_eq!(outcome.states, states, "another number of states: find out why");
}

#[test]
#[ignore = "minutes and gibibytes; run with --release"]
fn p1_views_2_faulty_2() {
    safe(&Bounds { views: 2, ..Bounds::small(Some(2)) }, 13_102_751);
}

#[test]
#[ignore = "minutes and gibibytes; run with --release"]
fn p2_slots_2_faulty_2() {
    let bounds = Bounds { pillars: 2, slots: 2, requests: 1, ..Bounds::small(Some(2)) };
    safe(&bounds, 8_172_924);
}

#[test]
#[ignore = "minutes and gibibytes; run with --release"]
fn restart_checkpoints_faulty_2() {
    let small = Bounds::small(Some(2));
    safe(&Bounds { restarts: Some(0), checkpoints: true, ..small }, 1_392_598);
}
