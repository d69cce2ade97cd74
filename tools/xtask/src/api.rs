//! The public items of the crate `hybster`, against the committed listing `engine/API.txt`: so that nothing that
//! embedders use changes by accident.
//!
//! The listing is made of the source: whatever can be reached from the crate's root by public modules and re-exports,
//! those of other crates of the workspace included, a line each. It tells what changed, not whether somebody breaks by it:
//! a line that is gone or changed is a breaking change unless it is shown to be none.

mod listing;
mod source;

use std::collections::BTreeSet;
use std::fs;

use crate::process::Outcome;
use crate::workspace::root;

/// Where the listing is.
const LISTING: &str = "engine/API.txt";
/// Set, the listing is written instead of compared, as other documents that are made of code.
const WRITE: &str = "HYBSTER_WRITE_DOCUMENTS";

pub(crate) fn check() -> Result<Outcome, String> {
    let now = listing::of(&source::Workspace::at(root()), "hybster")?;
    let path = root().join(LISTING);
    if std::env::var_os(WRITE).is_some() {
        fs::write(&path, now).map_err(|error| format!("{LISTING}: {error}"))?;
        return Ok(Outcome::Passed);
    }
    let committed = fs::read_to_string(&path).map_err(|error| format!("{LISTING}: {error}"))?;
    if committed == now {
        return Ok(Outcome::Passed);
    }
    let (before, after): (BTreeSet<_>, BTreeSet<_>) =
        (committed.lines().collect(), now.lines().collect());
    let told = |sign, lines: Vec<&&str>| -> String {
        lines.iter().map(|line| format!("\n{sign} {line}")).collect()
    };
    let gone = told('-', before.difference(&after).collect());
    let new = told('+', after.difference(&before).collect());
    let breaks =
        if gone.is_empty() { "" } else { " Lines with - are what users may have relied on." };
    Err(format!(
        "the public items of `hybster` are not those of {LISTING}:{gone}{new}\n\
         If that is meant, say so in CHANGELOG.md, and write the listing: {WRITE}=1 cargo xtask api.{breaks}"
    ))
}
