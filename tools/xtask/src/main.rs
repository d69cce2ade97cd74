//! The checks of the gate, each under a short name.
//!
//! `cargo xtask` lists them, `cargo xtask NAME…` runs some of them, `.ci/run` runs all in order.
//! What a program that everybody has can check is a command line in [`commands`]; what no such
//! program checks is a module of its own.

mod api;
mod arrows;
mod commands;
mod documents;
mod licence;
mod packages;
mod process;
mod rust_version;
mod workspace;

use std::process::ExitCode;
use std::time::Instant;

use process::Outcome;

/// A check of the gate.
struct Check {
    name: &'static str,
    about: &'static str,
    run: fn() -> Result<Outcome, String>,
}

/// In the order of the gate: what fails soonest comes first.
const CHECKS: [Check; 17] = [
    Check { name: "fmt", about: "the code is formatted", run: commands::fmt },
    Check {
        name: "documents",
        about: "files, functions and links that documents name exist, and none lies outside",
        run: documents::check,
    },
    Check {
        name: "arrows",
        about: "crates depend on what ARCHITECTURE.md says, the core on nothing of a system",
        run: arrows::check,
    },
    Check {
        name: "api",
        about: "the public items of `hybster` are those of engine/API.txt",
        run: api::check,
    },
    Check {
        name: "packages",
        about: "licences and duplicate versions of packages, by deny.toml",
        run: packages::check,
    },
    Check {
        name: "spelling",
        about: "spelling, where typos is installed",
        run: commands::spelling,
    },
    Check { name: "clippy", about: "lints of the workspace", run: commands::clippy },
    Check { name: "fuzz", about: "lints of the fuzz targets", run: commands::fuzz },
    Check {
        name: "features",
        about: "lints of each crate by itself, in every sensible choice of features",
        run: commands::features,
    },
    Check {
        name: "rust-version",
        about: "the declared minimum Rust version is true",
        run: rust_version::check,
    },
    Check {
        name: "wasm",
        about: "the core builds for a target without a system, where that is installed",
        run: commands::wasm,
    },
    Check { name: "test", about: "all tests", run: commands::test },
    Check { name: "loom", about: "queues and wake-ups in all interleavings", run: commands::loom },
    Check {
        name: "model",
        about: "model checking of the core (four minutes, 2 GiB)",
        run: commands::model,
    },
    Check {
        name: "doc",
        about: "documentation, that of private items included",
        run: commands::doc,
    },
    Check {
        name: "simulate",
        about: "simulation of fresh seeds (printed, so that a failure can be replayed)",
        run: commands::simulate,
    },
    Check { name: "smoke", about: "a group of processes under load", run: commands::smoke },
];

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if names.is_empty() {
        println!("usage: cargo xtask NAME…\n");
        for check in &CHECKS {
            println!("  {:<14}{}", check.name, check.about);
        }
        return ExitCode::SUCCESS;
    }
    let mut chosen = Vec::with_capacity(names.len());
    for name in &names {
        let Some(check) = CHECKS.iter().find(|check| check.name == name) else {
            eprintln!("there is no check \"{name}\"; `cargo xtask` lists those that there are");
            return ExitCode::from(2);
        };
        chosen.push(check);
    }
    for check in chosen {
        println!("\n== {}: {}", check.name, check.about);
        let start = Instant::now();
        match (check.run)() {
            Ok(Outcome::Passed) => {
                println!("{} passed in {:.1} s", check.name, start.elapsed().as_secs_f64());
            }
            Ok(Outcome::Skipped(why)) => println!("{} SKIPPED: {why}", check.name),
            Err(error) => {
                eprintln!("{} FAILED: {error}", check.name);
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
