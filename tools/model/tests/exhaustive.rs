//! Larger bounds, explored to the end in under five minutes:
//! `cargo test --release -p hybster-model --test exhaustive -- --ignored --test-threads 1 --nocapture`

use hybster_model::{Bounds, explore};

fn safe(bounds: Bounds, states: usize) {
    let outcome = explore(&bounds, None);
    println!("{outcome}");
    assert!(outcome.broken.is_none(), "{outcome}");
    assert!(outcome.missed.is_empty(), "{:?} never happened: {outcome}", outcome.missed);
    assert_eq!(outcome.states, states, "another number of states: find out why");
}

macro_rules! bounds {
    ($($name:ident: $bounds:expr, $states:expr;)*) => {
        $(
            #[test]
            #[ignore = "minutes in all; run with --release"]
            fn $name() {
                safe($bounds, $states);
            }
        )*
    };
}

fn small(faulty: u16) -> Bounds {
    Bounds::small(Some(faulty))
}

bounds! {
    p1_views_2_faulty_0: Bounds { views: 2, ..small(0) }, 1_609_525;
    p1_views_2_faulty_1: Bounds { views: 2, ..small(1) }, 3_250_744;

    p2_noops_faulty_0: Bounds { pillars: 2, noops: true, ..small(0) }, 280_270;
    p2_noops_faulty_1: Bounds { pillars: 2, noops: true, ..small(1) }, 703_278;
    p2_noops_faulty_2: Bounds { pillars: 2, noops: true, ..small(2) }, 286_696;

    slots_2_noops_faulty_0: Bounds { slots: 2, noops: true, ..small(0) }, 136_210;
    slots_2_noops_faulty_1: Bounds { slots: 2, noops: true, ..small(1) }, 324_096;
    slots_2_noops_faulty_2: Bounds { slots: 2, noops: true, ..small(2) }, 149_788;

    checkpoints_faulty_0: Bounds { checkpoints: true, ..small(0) }, 172_438;
    checkpoints_faulty_1: Bounds { checkpoints: true, ..small(1) }, 2_704_743;
    checkpoints_faulty_2: Bounds { checkpoints: true, ..small(2) }, 212_276;

    p2_checkpoints_faulty_0:
        Bounds { pillars: 2, checkpoints: true, requests: 1, ..small(0) }, 1_411_046;
    p2_checkpoints_faulty_2:
        Bounds { pillars: 2, checkpoints: true, requests: 1, ..small(2) }, 1_632_232;

    restart_untimely_faulty_0:
        Bounds { restarts: Some(1), early: true, slow_batches: true, ..small(0) }, 24_210;
    restart_untimely_faulty_1:
        Bounds { restarts: Some(0), early: true, slow_batches: true, ..small(1) }, 63_026;
    restart_slots_2_faulty_0: Bounds { restarts: Some(2), slots: 2, ..small(0) }, 341_217;
    restart_slots_2_faulty_2: Bounds { restarts: Some(0), slots: 2, ..small(2) }, 330_269;
    restart_p2_faulty_0:
        Bounds { restarts: Some(1), pillars: 2, requests: 1, ..small(0) }, 319_309;
    restart_p2_faulty_2:
        Bounds { restarts: Some(0), pillars: 2, requests: 1, ..small(2) }, 453_463;
    restart_checkpoints_faulty_0:
        Bounds { restarts: Some(1), checkpoints: true, requests: 1, ..small(0) }, 1_534_956;

    p2_slots_2_faulty_0: Bounds { pillars: 2, slots: 2, requests: 1, ..small(0) }, 5_246_306;
}
