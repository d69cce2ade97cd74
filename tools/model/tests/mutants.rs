//! Broken rules of the protocol lead to counterexamples, and these replay on the core itself,
//! outside of the model checker; with the rule in force, the same schedule is safe.

use hybster_model::{Bounds, Schedule, explore};
use hybster_proto::internals::mutants::Mutant;

/// The shortest schedule that violates a property: depths are tried one after another.
fn counterexample(bounds: &Bounds) -> Option<(&'static str, Schedule)> {
    (4..=18).find_map(|depth| explore(bounds, Some(depth)).broken)
}

/// Finds the counterexample of a broken rule, replays it, and replays it with the rule in force.
fn found(mutant: Mutant, bounds: Bounds) -> usize {
    let broken = Bounds { mutant: Some(mutant), ..bounds.clone() };
    let (property, schedule) =
        counterexample(&broken).unwrap_or_else(|| panic!("{mutant:?} was not found"));
    let steps = schedule.steps.len();
    println!("{mutant:?}: {property} does not hold after {steps} steps\n{schedule}\n");
    let (at, _) = schedule.replay(&broken).violated.expect("the core breaks it as well");
    assert_eq!(at + 1, steps, "with the last step");
    let right = schedule.replay(&bounds);
    assert_eq!(right.violated, None, "the rule in force keeps the schedule safe");
    steps
}

macro_rules! mutants {
    ($($name:ident: $mutant:ident, $bounds:expr, $steps:expr;)*) => {
        $(
            #[test]
            fn $name() {
                assert_eq!(found(Mutant::$mutant, $bounds), $steps);
            }
        )*
    };
}

fn faulty(replica: u16) -> Bounds {
    Bounds::small(Some(replica))
}

mutants! {
    a_commit_quorum_of_one: CommitQuorum, faulty(0), 6;
    a_prepared_set_that_hides_what_was_certified: ReachUnchecked, faulty(0), 7;
    a_new_view_that_reissues_anything: TransitionUnchecked, faulty(1), 8;
    nobody_vouches_for_the_last_view: NoVouching, Bounds { views: 2, ..faulty(0) }, 8;
    the_last_link_alone: LastLinkAlone, Bounds { views: 2, ..faulty(0) }, 9;
    links_are_not_verified: LinkUnverified, Bounds { views: 2, ..faulty(0) }, 9;
    messages_do_not_wait_for_the_log: MessagesUngated, Bounds { restarts: Some(1), ..faulty(2) }, 9;
    leaving_a_view_is_not_logged: LeavingUnlogged, Bounds { restarts: Some(1), ..faulty(0) }, 2;
    executed_twice: DuplicateExecution, Bounds { slots: 2, requests: 1, ..faulty(0) }, 4;
    a_noop_covers_what_was_certified: NoopPrevious,
        Bounds { slots: 2, noops: true, requests: 1, views: 0, ..faulty(0) }, 4;
}

/// The first correction to the report. Takes 13 steps, which are many states to look through.
#[test]
#[ignore = "takes half a minute"]
fn all_views_are_merged() {
    assert_eq!(found(Mutant::MergeAllViews, Bounds { views: 2, ..faulty(0) }), 13);
}
