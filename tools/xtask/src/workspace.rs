//! What cargo knows of the workspace and its packages.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::process::{cargo, output_of};

/// The platform whose packages are looked at: the one that the project is built and run on.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// The packages that the workspace is built of.
pub(crate) struct Workspace {
    /// All packages by cargo's id.
    pub(crate) packages: BTreeMap<String, Package>,
    /// The ids of the workspace's own.
    pub(crate) members: BTreeSet<String>,
    /// Where builds go.
    pub(crate) target: PathBuf,
}

/// A package.
pub(crate) struct Package {
    /// Its name.
    pub(crate) name: String,
    /// Its version.
    pub(crate) version: String,
    /// Its licence, an SPDX expression.
    pub(crate) licence: Option<String>,
    /// Where it comes from; nothing for the workspace's own.
    pub(crate) source: Option<String>,
    /// The oldest Rust that it declares to build with.
    pub(crate) rust_version: Option<String>,
    /// Its folder, as its author or cargo placed it.
    pub(crate) folder: PathBuf,
    /// Ids of the packages that its library or programs use, build scripts included.
    pub(crate) uses: BTreeSet<String>,
    /// Ids of the packages that its tests, examples and benches use.
    pub(crate) tests_use: BTreeSet<String>,
}

/// The root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("this crate is tools/xtask").to_owned()
}

impl Workspace {
    /// Asks cargo.
    pub(crate) fn load() -> Result<Self, String> {
        let mut cargo = cargo();
        cargo.args([
            "metadata",
            "--locked",
            "--format-version",
            "1",
            "--filter-platform",
            PLATFORM,
        ]);
        let text = output_of(cargo.current_dir(root()))?;
        let json = serde_json::from_str(&text).map_err(|e| format!("cargo metadata: {e}"))?;
        parse(&json).ok_or_else(|| "cargo metadata has a form that is not known here".to_owned())
    }

    /// The package of this id.
    pub(crate) fn package(&self, id: &str) -> &Package {
        &self.packages[id]
    }

    /// The workspace's own packages.
    pub(crate) fn own(&self) -> impl Iterator<Item = &Package> {
        self.members.iter().map(|id| self.package(id))
    }

    /// Names of the packages that `name` is built of, itself included. Packages named in `stop`
    /// are counted, but not what they are built of.
    pub(crate) fn closure(&self, name: &str, stop: &[&str]) -> BTreeSet<&str> {
        let first = self.packages.iter().find(|(_, package)| package.name == name);
        let mut todo: Vec<&str> = first.map(|(id, _)| id.as_str()).into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = todo.pop() {
            if seen.insert(id) && !stop.contains(&self.package(id).name.as_str()) {
                todo.extend(self.package(id).uses.iter().map(String::as_str));
            }
        }
        seen.into_iter().map(|id| self.package(id).name.as_str()).collect()
    }
}

fn parse(json: &Value) -> Option<Workspace> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut packages = BTreeMap::new();
    for package in json["packages"].as_array()? {
        let manifest = PathBuf::from(package["manifest_path"].as_str()?);
        packages.insert(
            text(&package["id"])?,
            Package {
                name: text(&package["name"])?,
                version: text(&package["version"])?,
                licence: text(&package["license"]),
                source: text(&package["source"]),
                rust_version: text(&package["rust_version"]),
                folder: manifest.parent()?.to_owned(),
                uses: BTreeSet::new(),
                tests_use: BTreeSet::new(),
            },
        );
    }
    let mut resolved = BTreeSet::new();
    for node in json["resolve"]["nodes"].as_array()? {
        let id = text(&node["id"])?;
        let package = packages.get_mut(&id)?;
        for used in node["deps"].as_array()? {
            let other = text(&used["pkg"])?;
            for kind in used["dep_kinds"].as_array()? {
                let set = match kind["kind"].as_str() {
                    Some("dev") => &mut package.tests_use,
                    _ => &mut package.uses,
                };
                set.insert(other.clone());
            }
        }
        resolved.insert(id);
    }
    packages.retain(|id, _| resolved.contains(id));
    let members = json["workspace_members"].as_array()?.iter().map(text).collect::<Option<_>>()?;
    let target = PathBuf::from(json["target_directory"].as_str()?);
    Some(Workspace { packages, members, target })
}
