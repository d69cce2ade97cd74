//! Small bounds, explored to the end in every test run.

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
    all_correct: Bounds::small(None), 4_337;
    leader_of_view_0_faulty: small(0), 1_218;
    leader_of_view_1_faulty: small(1), 4_732;
    follower_faulty: small(2), 1_337;

    noops_leader_of_view_0_faulty: Bounds { noops: true, ..small(0) }, 2_202;
    noops_leader_of_view_1_faulty: Bounds { noops: true, ..small(1) }, 8_166;
    noops_follower_faulty: Bounds { noops: true, ..small(2) }, 2_600;

    // Ordering messages that come before their view, and batches that come late.
    untimely_leader_of_view_0_faulty:
        Bounds { early: true, slow_batches: true, ..small(0) }, 4_352;
    untimely_leader_of_view_1_faulty:
        Bounds { early: true, slow_batches: true, ..small(1) }, 13_472;
    untimely_follower_faulty:
        Bounds { early: true, slow_batches: true, ..small(2) }, 3_128;

    two_slots_leader_of_view_0_faulty: Bounds { slots: 2, ..small(0) }, 40_267;
    two_slots_follower_faulty: Bounds { slots: 2, ..small(2) }, 46_757;

    // One correct replica stops once, at any record of its log, and comes back.
    restart_of_the_leader_of_view_0: Bounds { restarts: Some(0), ..small(2) }, 6_183;
    restart_of_the_leader_of_view_1: Bounds { restarts: Some(1), ..small(0) }, 6_788;
    restart_of_a_follower: Bounds { restarts: Some(2), ..small(0) }, 6_885;
    restart_of_a_follower_before_a_faulty_leader: Bounds { restarts: Some(2), ..small(1) }, 26_484;
    restart_where_all_are_correct: Bounds { restarts: Some(0), ..Bounds::small(None) }, 19_967;
    restart_of_the_leader_before_a_faulty_one: Bounds { restarts: Some(0), ..small(1) }, 22_026;

    two_pillars_leader_of_view_0_faulty: Bounds { pillars: 2, requests: 1, ..small(0) }, 37_800;
}
