//! Each broken rule is found by the same runs that find nothing in the store as it is.

mod common;

use common::{Outcome, campaign, damaged, lives, sizes};
use hybster_store::mutants::{Mutant, choose};

/// The run that finds it.
fn hunter(mutant: Mutant) -> fn(u64) -> Outcome<()> {
    match mutant {
        Mutant::RotIsTorn | Mutant::PageUnchecked | Mutant::TableUnchecked => damaged,
        Mutant::NeverFreed | Mutant::AbandonedKept | Mutant::CutTooFar | Mutant::MovedForgotten => {
            sizes
        }
        _ => lives,
    }
}

/// Whether the run finds it. Some rules are held by a panic of the test as well.
fn is_found(mutant: Mutant) -> bool {
    let run = std::panic::catch_unwind(|| {
        choose(Some(mutant));
        campaign(hunter(mutant), 0..1_500)
    });
    choose(None);
    match run {
        Ok(Ok(())) => false,
        Ok(Err(error)) => {
            println!("{mutant:?}: {error}");
            true
        }
        Err(_) => {
            println!("{mutant:?}: a panic");
            true
        }
    }
}

#[test]
fn every_mutant_is_found() {
    for mutant in Mutant::ALL {
        assert!(is_found(mutant), "{mutant:?} was not found");
    }
}
