//! Which crate may depend on which: the table in ARCHITECTURE.md, held to what cargo knows.
//!
//! The protocol core and the trusted subsystem are held to more: what they are built of has no
//! socket, thread, clock, file or random source. What the core's source may *call* of the standard
//! library is clippy's to check, by `engine/proto/clippy.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::process::Outcome;
use crate::workspace::{Package, Workspace, root};

/// The heading above the table.
const HEADING: &str = "## Which crate may use which";

/// What the protocol core may be built of, but for what TrInX is built of.
const CORE: [&str; 12] = [
    "hybster-proto",
    "hybster-tss",
    "blake3",
    "bytes",
    "thiserror",
    // Of these.
    "arrayref",
    "arrayvec",
    "cc",
    "cfg-if",
    "constant_time_eq",
    "cpufeatures",
    "thiserror-impl",
];

/// What those use at build time only.
const BUILD: [&str; 7] =
    ["find-msvc-tools", "shlex", "proc-macro2", "quote", "syn", "unicode-ident", "jobserver"];

/// What neither the core nor TrInX may be built of. TrInX may ask the system for random bytes: its
/// keys are made of them.
const SYSTEM: [&str; 20] = [
    "hybster",
    "hybster-net",
    "async-std",
    "core_affinity",
    "crossbeam",
    "crossbeam-channel",
    "crossbeam-utils",
    "io-uring",
    "log",
    "mio",
    "nix",
    "parking_lot",
    "rand",
    "rayon",
    "ring",
    "rtrb",
    "rustix",
    "rustls",
    "socket2",
    "tokio",
];

/// A row of the table.
#[derive(Debug, PartialEq)]
struct Row {
    name: String,
    folder: String,
    uses: BTreeSet<String>,
    /// What its tests, examples and benches use besides.
    tests_use: BTreeSet<String>,
}

pub(crate) fn check() -> Result<Outcome, String> {
    let workspace = Workspace::load()?;
    let text = fs::read_to_string(root().join("ARCHITECTURE.md"));
    let rows = table(&text.map_err(|e| format!("ARCHITECTURE.md: {e}"))?)?;
    let mut said: BTreeMap<String, Row> =
        rows.into_iter().map(|row| (row.name.clone(), row)).collect();
    for package in workspace.own() {
        let name = &package.name;
        let row = said.remove(name);
        let row = row.ok_or_else(|| format!("ARCHITECTURE.md has no row for {name}"))?;
        if package.folder != root().join(row.folder) {
            return Err(format!("{name} is in {}: mend ARCHITECTURE.md", package.folder.display()));
        }
        let uses = own(&workspace, package, &package.uses);
        let mut tests_use = own(&workspace, package, &package.tests_use);
        tests_use.retain(|used| !uses.contains(used));
        compare(name, "uses", &uses, &row.uses)?;
        compare(name, "uses in its tests", &tests_use, &row.tests_use)?;
    }
    if let Some(gone) = said.keys().next() {
        return Err(format!("ARCHITECTURE.md has a row for {gone}, which is no crate here"));
    }
    core(&workspace)?;
    println!("all {} crates depend on what ARCHITECTURE.md says", workspace.members.len());
    Ok(Outcome::Passed)
}

fn core(workspace: &Workspace) -> Result<(), String> {
    let all = workspace.closure("hybster-proto", &[]);
    if let Some(found) = SYSTEM.iter().find(|system| all.contains(*system)) {
        return Err(format!("the protocol core is built of {found}, which belongs to the drivers"));
    }
    let without_trinx = workspace.closure("hybster-proto", &["hybster-tss"]);
    let permitted = |name: &&&str| CORE.contains(*name) || BUILD.contains(*name);
    match without_trinx.iter().find(|name| !permitted(name)) {
        Some(found) => Err(format!(
            "the protocol core is built of {found}: only pure packages may be, and each must be \
             named in tools/xtask/src/arrows.rs"
        )),
        None => Ok(()),
    }
}

/// Those of `ids` that are of the workspace, but for the package itself, which its own tests use
/// with other features.
fn own(workspace: &Workspace, package: &Package, ids: &BTreeSet<String>) -> BTreeSet<String> {
    let own = ids.iter().filter(|id| workspace.members.contains(*id));
    let names = own.map(|id| workspace.package(id).name.clone());
    names.filter(|name| *name != package.name).collect()
}

fn compare(
    name: &str,
    how: &str,
    now: &BTreeSet<String>,
    said: &BTreeSet<String>,
) -> Result<(), String> {
    if let Some(more) = now.difference(said).next() {
        return Err(format!("{name} {how} {more}, which ARCHITECTURE.md does not allow"));
    }
    match said.difference(now).next() {
        Some(less) => Err(format!("ARCHITECTURE.md says that {name} {how} {less}: it does not")),
        None => Ok(()),
    }
}

/// The rows below [`HEADING`]: `| crate | folder | uses | its tests use | … |`.
fn table(text: &str) -> Result<Vec<Row>, String> {
    let (_, section) = text
        .split_once(HEADING)
        .ok_or_else(|| format!("ARCHITECTURE.md has no section \"{HEADING}\""))?;
    let lines = section.lines().skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    rows.map(row).collect()
}

fn row(line: &str) -> Result<Row, String> {
    let cells: Vec<&str> = line.trim_matches('|').split('|').collect();
    let [name, folder, uses, tests_use, ..] = cells.as_slice() else {
        return Err(format!("ARCHITECTURE.md: \"{line}\" has too few columns"));
    };
    let (name, folder) = (code_spans(name).next(), code_spans(folder).next());
    let (name, folder) =
        name.zip(folder).ok_or_else(|| format!("\"{line}\" names no crate and folder"))?;
    let set = |cell: &str| code_spans(cell).map(str::to_owned).collect();
    Ok(Row {
        name: name.to_owned(),
        folder: folder.to_owned(),
        uses: set(uses),
        tests_use: set(tests_use),
    })
}

/// What is between backticks.
fn code_spans(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_read_up_to_its_end() {
        let text = format!(
            "| a | b |\n{HEADING}\n\nText.\n\n| crate | folder | uses | tests |\n|---|---|---|---|\n\
             | `a` | `x` | `b`, `c` | – |\n| `b` | `y` | – | `c` |\n\n| `z` | `z` | – | – |\n"
        );
        let rows = table(&text).unwrap();
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let row = |name: &str, folder: &str, uses: &[&str], tests_use: &[&str]| Row {
            name: name.to_owned(),
            folder: folder.to_owned(),
            uses: set(uses),
            tests_use: set(tests_use),
        };
        assert_eq!(rows, [row("a", "x", &["b", "c"], &[]), row("b", "y", &[], &["c"])]);
        assert!(table("nothing").is_err());
    }

    #[test]
    fn a_dependency_too_many_and_one_too_few_are_found() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        assert!(compare("a", "uses", &set(&["b"]), &set(&["b"])).is_ok());
        assert!(compare("a", "uses", &set(&["b", "c"]), &set(&["b"])).is_err());
        assert!(compare("a", "uses", &set(&[]), &set(&["b"])).is_err());
    }
}
