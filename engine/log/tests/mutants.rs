//! Each broken rule is found by the same runs that find nothing in the log as it is.

mod common;

use common::{Outcome, campaign, damaged, lives};
use hybster_log::mutants::{Mutant, choose};

/// The run that finds it.
fn hunter(mutant: Mutant) -> fn(u64) -> Outcome<()> {
    match mutant {
        Mutant::RotIsTorn => damaged,
        _ => lives,
    }
}

#[test]
fn every_mutant_is_found() {
    for mutant in Mutant::ALL {
        choose(Some(mutant));
        let found = campaign(hunter(mutant), 0..3_000);
        choose(None);
        match found {
            Ok(()) => panic!("{mutant:?} was not found"),
            Err(error) => println!("{mutant:?}: {error}"),
        }
    }
}
