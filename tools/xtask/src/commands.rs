//! The checks that other programs make: one command line, or a few, for each.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::process::{Outcome, cargo, is_installed, output_of, run, run_cargo};
use crate::workspace::{Workspace, root};

/// Choices of features that somebody uses. Each crate is built by itself, so that no other crate's
/// features help it along. Those that are not here have no features, and nobody builds them alone.
const FEATURES: [&[&str]; 17] = [
    &["-p", "hybster-tss", "--no-default-features"],
    &["-p", "hybster-tss", "--no-default-features", "--features", "testing"],
    &["-p", "hybster-tss"],
    &["-p", "hybster-proto"],
    &["-p", "hybster-proto", "--features", "mutants"],
    &["-p", "hybster-proto", "--features", "model"],
    &["-p", "hybster-sim"],
    &["-p", "hybster-sim", "--features", "controls"],
    &["-p", "hybster-model"],
    &["-p", "hybster-log"],
    &["-p", "hybster-log", "--features", "mutants"],
    &["-p", "hybster-store"],
    &["-p", "hybster-store", "--features", "mutants"],
    &["-p", "hybster-disk"],
    &["-p", "hybster"],
    &["-p", "hybster", "--features", "simulator"],
    // As the whole workspace, or all packages of others would be built once more.
    &["--workspace", "--benches", "--features", "hybster-perf/icount"],
];

/// A target without an operating system behind the standard library.
const WASM: &str = "wasm32-unknown-unknown";

pub(crate) fn fmt() -> Result<Outcome, String> {
    run_cargo(["fmt", "--all", "--check"])
}

pub(crate) fn clippy() -> Result<Outcome, String> {
    run_cargo(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"])
}

pub(crate) fn fuzz() -> Result<Outcome, String> {
    let mut clippy = cargo();
    clippy.args(["clippy", "--manifest-path", "tools/fuzz/Cargo.toml", "--all-targets"]);
    clippy.arg("--target-dir").arg(target()?);
    // Nothing is linked, so libFuzzer need not be compiled, which takes a C++ compiler.
    clippy.env("CUSTOM_LIBFUZZER_PATH", "/not-built/libFuzzer.a");
    run(clippy.args(["--", "-D", "warnings"]).current_dir(root()))
}

pub(crate) fn features() -> Result<Outcome, String> {
    for choice in FEATURES {
        let arguments = ["clippy", "--locked"].iter().chain(choice);
        run_cargo(arguments.chain(&["--", "-D", "warnings"]))?;
    }
    Ok(Outcome::Passed)
}

pub(crate) fn spelling() -> Result<Outcome, String> {
    if !is_installed("typos", &["--version"]) {
        return Ok(Outcome::Skipped("typos is not installed (CONTRIBUTING.md)".to_owned()));
    }
    run(Command::new("typos").current_dir(root()))
}

pub(crate) fn wasm() -> Result<Outcome, String> {
    let libraries =
        output_of(Command::new("rustc").args(["--print", "target-libdir", "--target", WASM]));
    if !libraries.is_ok_and(|path| PathBuf::from(path.trim()).is_dir()) {
        return Ok(Outcome::Skipped(format!("{WASM} is not installed")));
    }
    let mut check = cargo();
    // There are no random bytes there: making keys would fail, and the core makes none.
    check.env("RUSTFLAGS", "--cfg getrandom_backend=\"unsupported\"");
    check.env("CARGO_TARGET_DIR", target()?.join("wasm"));
    run(check.args(["check", "--locked", "-p", "hybster-proto", "--target", WASM]))
}

pub(crate) fn test() -> Result<Outcome, String> {
    run_cargo(["test", "--workspace", "--locked"])
}

pub(crate) fn loom() -> Result<Outcome, String> {
    for (package, models) in [("hybster", "runtime::concurrency::model"), ("hybster-log", "models")]
    {
        let mut test = cargo();
        test.env("CARGO_TARGET_DIR", target()?.join("loom")).env("RUSTFLAGS", "--cfg loom");
        test.args(["test", "--locked", "--release", "-p", package, "--lib", models]);
        run(&mut test)?;
    }
    Ok(Outcome::Passed)
}

pub(crate) fn model() -> Result<Outcome, String> {
    let test = ["test", "--release", "--locked", "-p", "hybster-model", "--test", "exhaustive"];
    run_cargo(test.iter().chain(&["--", "--ignored", "--test-threads", "1"]))
}

pub(crate) fn doc() -> Result<Outcome, String> {
    let mut doc = cargo();
    doc.env("RUSTDOCFLAGS", "-D warnings");
    run(doc.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]))
}

pub(crate) fn simulate() -> Result<Outcome, String> {
    let mut test = cargo();
    if std::env::var_os("HYBSTER_FRESH_SEEDS").is_none() {
        test.env("HYBSTER_FRESH_SEEDS", "300");
    }
    test.args(["test", "--locked", "-p", "hybster-sim"]);
    for seeds in ["seeds", "byzantine", "restarts"] {
        test.args(["--test", seeds]);
    }
    run(test.args(["--", "--nocapture", "fresh_"]))
}

pub(crate) fn smoke() -> Result<Outcome, String> {
    let report = target()?.join("smoke.json");
    let bench =
        ["run", "--release", "--locked", "-p", "hybster-bench", "--", "run", "--warmup", "1"];
    run(cargo().args(bench).args(["--duration", "3", "--json"]).arg(&report))?;
    run_cargo(bench.iter().chain(&["--duration", "2", "--unreplicated"]))?;
    // Kills of one replica and of all, under load, with disks that fail: nothing lost or doubled and everybody
    // refused who has to be, or it is an error. The seed has each kind of fault among the first ten.
    let fault = ["run", "--release", "--locked", "-p", "hybster-bench", "--", "fault"];
    let restarts = ["--restart", "random", "--durability", "sync", "--clients", "64"];
    let disks = ["--fault-seed=995", "--torn-tail=25", "--damaged-log=20", "--older-copy=20"];
    let faults = restarts.iter().chain(&disks).chain(&["--full-disk=10"]);
    run_cargo(fault.iter().chain(faults).chain(&["--at", "1s", "--after", "18s"]))?;
    let text = fs::read_to_string(&report).map_err(|e| format!("{}: {e}", report.display()))?;
    let json: Value =
        serde_json::from_str(&text).map_err(|e| format!("{}: {e}", report.display()))?;
    match json["errors"].as_u64() {
        Some(0) => Ok(Outcome::Passed),
        _ => Err(format!("the smoke run had errors:\n{text}")),
    }
}

fn target() -> Result<PathBuf, String> {
    Ok(Workspace::load()?.target)
}
