//! The modules of the workspace's crates as their source has them, read when they are asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use syn::{Attribute, Item};

/// The crates whose items are re-exported, by the name that code has for them, and where their sources are.
const CRATES: [(&str, &str); 6] = [
    ("hybster", "engine/src"),
    ("hybster_net", "net/src"),
    ("hybster_proto", "engine/proto/src"),
    ("hybster_sim", "tools/sim/src"),
    ("hybster_store", "engine/store/src"),
    ("hybster_tss", "tss/src"),
];

/// The sources.
pub(super) struct Workspace {
    root: PathBuf,
    read: RefCell<BTreeMap<PathBuf, Rc<Module>>>,
}

/// A module, without those below it.
pub(super) struct Module {
    pub(super) items: Vec<Item>,
    /// Where the files of modules below it are.
    folder: PathBuf,
}

impl Workspace {
    pub(super) fn at(root: PathBuf) -> Self {
        Self { root, read: RefCell::default() }
    }

    /// The root module of a crate; `None` if it is not one of the workspace.
    pub(super) fn of_crate(&self, name: &str) -> Result<Option<Rc<Module>>, String> {
        let Some((_, folder)) = CRATES.iter().find(|(of, _)| *of == name) else { return Ok(None) };
        let folder = self.root.join(folder);
        self.load(&folder.join("lib.rs"), &folder).map(Some)
    }

    /// A module of another one.
    pub(super) fn below(&self, of: &Module, name: &str) -> Result<Option<Rc<Module>>, String> {
        let declared = of.items.iter().find_map(|item| match item {
            Item::Mod(it) if it.ident == name && !is_for_tests(&it.attrs) => Some(it),
            _ => None,
        });
        let Some(declared) = declared else { return Ok(None) };
        let folder = of.folder.join(name);
        if let Some((_, items)) = &declared.content {
            return Ok(Some(Rc::new(Module { items: items.clone(), folder })));
        }
        let beside = of.folder.join(format!("{name}.rs"));
        let file = if beside.exists() { beside } else { folder.join("mod.rs") };
        self.load(&file, &folder).map(Some)
    }

    fn load(&self, file: &Path, folder: &Path) -> Result<Rc<Module>, String> {
        if let Some(known) = self.read.borrow().get(file) {
            return Ok(Rc::clone(known));
        }
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let text = fs::read_to_string(file).map_err(|error| told(&error))?;
        let items = syn::parse_file(&text).map_err(|error| told(&error))?.items;
        let module = Rc::new(Module { items, folder: folder.to_owned() });
        self.read.borrow_mut().insert(file.to_owned(), Rc::clone(&module));
        Ok(module)
    }
}

/// Whether an item is there in tests only.
pub(super) fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|it| {
        it.path().is_ident("cfg")
            && it.parse_args::<syn::Path>().is_ok_and(|condition| condition.is_ident("test"))
    })
}
