//! Licences, sources and duplicate versions of the packages that the workspace is built of.
//!
//! The rules are in `deny.toml`, which cargo-deny reads. Building cargo-deny takes longer than the
//! rest of the gate on a small machine, so it runs where it is installed only, and what matters most
//! is checked here by the same file. Advisories need cargo-deny and its database, which it fetches.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use toml::{Table, Value};

use crate::licence;
use crate::process::{Outcome, cargo, is_installed, run};
use crate::workspace::{Package, Workspace, root};

/// Where `cargo metadata` says that a package of crates.io comes from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(crate) fn check() -> Result<Outcome, String> {
    let workspace = Workspace::load()?;
    let text =
        fs::read_to_string(root().join("deny.toml")).map_err(|e| format!("deny.toml: {e}"))?;
    let rules: Table = text.parse().map_err(|e| format!("deny.toml: {e}"))?;
    licences(&workspace, &rules)?;
    sources(&workspace)?;
    duplicates(&workspace, &rules)?;
    println!(
        "licences, sources and versions of {} packages are as they must",
        workspace.packages.len()
    );
    if !is_installed("cargo-deny", &["--version"]) {
        println!("advisories are not checked: cargo-deny is not installed (CONTRIBUTING.md)");
        return Ok(Outcome::Passed);
    }
    let mut deny = cargo();
    deny.args(["deny", "--locked", "check", "bans", "licenses", "sources"]);
    if has_advisories() {
        deny.arg("advisories");
    } else {
        println!("advisories are not checked: cargo-deny has no database here and fetching is off");
    }
    run(deny.current_dir(root()))
}

/// Whether cargo-deny has its database of advisories already: the gate must not need the network.
fn has_advisories() -> bool {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    home.is_some_and(|home| {
        let databases = fs::read_dir(home.join("advisory-dbs"));
        databases.is_ok_and(|mut databases| databases.next().is_some())
    })
}

fn licences(workspace: &Workspace, rules: &Table) -> Result<(), String> {
    let allowed = strings(rules, "licenses", "allow")?;
    for package in workspace.packages.values() {
        let Package { name, version, licence, .. } = package;
        let expression = licence.as_ref().ok_or_else(|| format!("{name} names no licence"))?;
        if !licence::permits(expression, &allowed).map_err(|e| format!("{name}: {e}"))? {
            return Err(format!(
                "{name} {version} is under {expression}, which deny.toml does not allow"
            ));
        }
    }
    Ok(())
}

fn sources(workspace: &Workspace) -> Result<(), String> {
    for (id, package) in &workspace.packages {
        let expected =
            workspace.members.contains(id) || package.source.as_deref() == Some(REGISTRY);
        if !expected {
            return Err(format!("{} does not come from crates.io", package.name));
        }
    }
    Ok(())
}

fn duplicates(workspace: &Workspace, rules: &Table) -> Result<(), String> {
    let known = strings(rules, "bans", "skip")?;
    let mut unused: Vec<&String> = known.iter().collect();
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for Package { name, version, .. } in workspace.packages.values() {
        let full = format!("{name}@{version}");
        if known.contains(&full) {
            unused.retain(|skipped| **skipped != full);
        } else {
            versions.entry(name).or_default().push(version);
        }
    }
    if let Some((name, versions)) = versions.iter().find(|(_, versions)| versions.len() > 1) {
        return Err(format!(
            "{name} is built in versions {}: use one, or name the older in deny.toml with the reason",
            versions.join(" and ")
        ));
    }
    match unused.first() {
        Some(skipped) => Err(format!("deny.toml skips {skipped}, which is not used any more")),
        None => Ok(()),
    }
}

/// A list of strings, or of tables whose `crate` is one.
fn strings(rules: &Table, section: &str, key: &str) -> Result<Vec<String>, String> {
    let list = rules.get(section).and_then(|section| section.get(key)?.as_array());
    let list = list.ok_or_else(|| format!("deny.toml has no list {section}.{key}"))?;
    let text = |value: &Value| value.get("crate").unwrap_or(value).as_str().map(str::to_owned);
    let strings = list.iter().map(text).collect::<Option<_>>();
    strings.ok_or_else(|| format!("deny.toml: {section}.{key} has entries that are not known here"))
}
