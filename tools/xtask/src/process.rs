//! Running other programs.

use std::ffi::OsStr;
use std::process::{Command, Stdio};

/// What came of a check that did not fail.
pub(crate) enum Outcome {
    /// It holds.
    Passed,
    /// It could not be checked here, and why.
    Skipped(String),
}

/// Cargo, as it was called.
pub(crate) fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    // What `cargo run` set for this program must not look to other builds like a change.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_")) {
            cargo.env_remove(name);
        }
    }
    cargo.env_remove("CARGO_MANIFEST_DIR").env_remove("CARGO_MANIFEST_PATH");
    cargo
}

/// Runs a command, which prints for itself.
pub(crate) fn run(command: &mut Command) -> Result<Outcome, String> {
    let line = line_of(command);
    println!("$ {line}");
    let status = command.stdin(Stdio::null()).status().map_err(|e| format!("`{line}`: {e}"))?;
    if status.success() { Ok(Outcome::Passed) } else { Err(format!("`{line}`: {status}")) }
}

/// Runs cargo with these arguments.
pub(crate) fn run_cargo<S: AsRef<OsStr>>(
    arguments: impl IntoIterator<Item = S>,
) -> Result<Outcome, String> {
    run(cargo().args(arguments))
}

/// What a command prints.
pub(crate) fn output_of(command: &mut Command) -> Result<String, String> {
    let line = line_of(command);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|e| format!("`{line}`: {e}"))?;
    if !output.status.success() {
        return Err(format!("`{line}`: {}", output.status));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("`{line}` printed no UTF-8"))
}

/// Whether a program can be called.
pub(crate) fn is_installed(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn line_of(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    let name = program.rsplit('/').next().unwrap_or(&program).to_owned();
    let set = command.get_envs().filter_map(|(name, value)| {
        let value = value?.to_string_lossy().into_owned();
        Some(format!("{}={value:?}", name.to_string_lossy()))
    });
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    set.chain([name]).chain(arguments).collect::<Vec<_>>().join(" ")
}
