//! The largest bounds that were explored to the end, a few minutes and gibibytes each:
//! `cargo test --release -p hybster-model --test long -- --ignored --test-threads 1 --nocapture`

use hybster_model::{Bounds, explore};

#[test]
#[ignore = "minutes and gibibytes; run with --release"]
fn p1_views_2_faulty_2() {
    let outcome = explore(&Bounds { views: 2, ..Bounds::small(Some(2)) }, None);
    println!("{outcome}");
    assert!(outcome.broken.is_none() && outcome.missed.is_empty(), "{outcome}");
    assert_eq!(outcome.states, 15_522_466);
}
