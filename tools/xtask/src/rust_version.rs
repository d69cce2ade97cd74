//! The declared minimum Rust version is true: no package asks for a later one, README.md says the
//! same, and the workspace builds with it wherever that toolchain is installed.

use std::fs;
use std::process::Command;

use crate::process::{Outcome, cargo, output_of, run};
use crate::workspace::{Workspace, root};

pub(crate) fn check() -> Result<Outcome, String> {
    let workspace = Workspace::load()?;
    let declared = declared(&workspace)?;
    for package in workspace.packages.values() {
        if let Some(version) = &package.rust_version
            && parts(version)? > parts(&declared)?
        {
            return Err(format!(
                "Cargo.toml declares Rust {declared}, but {} {} needs {version}: declare that one, \
                 or use another version of the package",
                package.name, package.version
            ));
        }
    }
    let said = format!("Rust toolchain ({declared} or later)");
    let readme =
        fs::read_to_string(root().join("README.md")).map_err(|e| format!("README.md: {e}"))?;
    if !readme.contains(&said) {
        return Err(format!("README.md does not say \"{said}\""));
    }
    println!("no package needs more than the declared Rust {declared}");
    build(&declared)
}

/// The version that all of the workspace's packages declare.
fn declared(workspace: &Workspace) -> Result<String, String> {
    let mut declared = None;
    for package in workspace.own() {
        let version = package.rust_version.as_ref();
        let version =
            version.ok_or_else(|| format!("{} declares no rust-version", package.name))?;
        if *declared.get_or_insert(version) != version {
            return Err(format!("{} declares another rust-version", package.name));
        }
    }
    declared.cloned().ok_or_else(|| "the workspace has no packages".to_owned())
}

fn parts(version: &str) -> Result<[u32; 3], String> {
    let mut parts = [0; 3];
    for (part, text) in parts.iter_mut().zip(version.split('.')) {
        *part = text.parse().map_err(|_| format!("\"{version}\" is no Rust version"))?;
    }
    Ok(parts)
}

fn build(declared: &str) -> Result<Outcome, String> {
    let [major, minor, _] = parts(declared)?;
    let used = output_of(Command::new("rustc").arg("--version").current_dir(root()))?;
    if used.starts_with(&format!("rustc {major}.{minor}.")) {
        println!("it is the toolchain in use: the other checks build with it");
        return Ok(Outcome::Passed);
    }
    let listed = output_of(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    let prefixes = [format!("{major}.{minor}-"), format!("{major}.{minor}.")];
    let installed = listed
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .find(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
    let Some(toolchain) = installed else {
        return Ok(Outcome::Skipped(format!(
            "versions agree, but nothing was built with Rust {declared}, which is not installed here"
        )));
    };
    let mut command = Command::new("rustup");
    command.args(["run", toolchain, "cargo", "check", "--workspace", "--all-targets", "--locked"]);
    // Cargo of the toolchain in use sets what would make the other one call its compiler.
    for (name, _) in cargo().get_envs().filter(|(_, value)| value.is_none()) {
        command.env_remove(name);
    }
    run(command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").current_dir(root()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_numbers() {
        assert!(parts("1.100").unwrap() > parts("1.95.0").unwrap());
        assert_eq!(parts("1.95").unwrap(), parts("1.95.0").unwrap());
        assert!(parts("1.x").is_err());
    }
}
