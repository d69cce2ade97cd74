//! The lines of the listing: each public item with its path and its declaration, without bodies.

use std::collections::BTreeSet;
use std::rc::Rc;

use quote::ToTokens;
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Fields, ImplItem, Item, ItemImpl, ItemUse, Meta, Token, TraitItem, Type, UseTree,
    Visibility,
};

use super::source::{Module, Workspace, is_for_tests};

/// The modules from a crate's root to one of it.
type Chain = Vec<(String, Rc<Module>)>;

/// The public items of a crate.
pub(super) fn of(workspace: &Workspace, name: &str) -> Result<String, String> {
    let root = workspace.of_crate(name)?.ok_or_else(|| format!("there is no crate {name}"))?;
    let mut listing = Listing { workspace, lines: BTreeSet::new() };
    listing.module(&vec![(name.to_owned(), root)], name)?;
    Ok(listing.lines.into_iter().map(|line| line + "\n").collect())
}

struct Listing<'a> {
    workspace: &'a Workspace,
    lines: BTreeSet<String>,
}

/// A name that a `use` brings, and what it stands for.
struct Import {
    path: Vec<String>,
    name: String,
}

impl Listing<'_> {
    fn line(&mut self, path: &str, declaration: &impl ToTokens) {
        self.lines.insert(format!("{path}: {}", text(declaration)));
    }

    /// All that is public in a module, under the path by which users name it.
    fn module(&mut self, chain: &Chain, path: &str) -> Result<(), String> {
        let (_, module) = chain.last().expect("a crate has a root");
        for item in module.items.iter().filter(|item| is_shown(item)) {
            match item {
                Item::Mod(it) => {
                    let name = it.ident.to_string();
                    if let Some(below) = self.workspace.below(module, &name)? {
                        let chain = [&chain[..], &[(name.clone(), below)]].concat();
                        self.module(&chain, &format!("{path}::{name}"))?;
                    }
                }
                Item::Use(it) => {
                    for Import { path: of, name } in imports(it) {
                        let path = format!("{path}::{name}");
                        if is_below(module, &of) {
                            // It is listed there.
                            self.lines.insert(format!("{path}: use {}", of.join("::")));
                            continue;
                        }
                        match self.find(chain, &of, 0)? {
                            Some((chain, item)) => self.item(&chain, &item, &path)?,
                            None => {
                                self.lines.insert(format!("{path}: use {}", of.join("::")));
                            }
                        }
                    }
                }
                _ => {
                    if let Some(name) = name_of(item) {
                        self.item(chain, item, &format!("{path}::{name}"))?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Where an item is declared, seen from a module.
    fn find(
        &self,
        from: &Chain,
        path: &[String],
        depth: usize,
    ) -> Result<Option<(Chain, Item)>, String> {
        let Some((first, mut rest)) = path.split_first().filter(|_| depth < 16) else {
            return Ok(None);
        };
        let (_, here) = from.last().expect("a crate has a root");
        let mut chain = match first.as_str() {
            "crate" => from[..1].to_vec(),
            "self" => from.clone(),
            "super" => from[..from.len() - 1].to_vec(),
            name => match (self.workspace.below(here, name)?, self.workspace.of_crate(name)?) {
                (Some(module), _) => [&from[..], &[(name.to_owned(), module)]].concat(),
                (None, Some(root)) => vec![(name.to_owned(), root)],
                (None, None) => {
                    rest = path;
                    from.clone()
                }
            },
        };
        while let Some((name, further)) = rest.split_first() {
            let Some((_, module)) = chain.last().cloned() else { return Ok(None) };
            if further.is_empty() {
                let is_it = |item: &&Item| name_of(item).is_some_and(|it| it == *name);
                if let Some(item) = module.items.iter().find(is_it) {
                    return Ok(Some((chain, item.clone())));
                }
            } else if let Some(below) = self.workspace.below(&module, name)? {
                chain.push((name.clone(), below));
                rest = further;
                continue;
            }
            // What the module has from elsewhere.
            for item in &module.items {
                let Item::Use(it) = item else { continue };
                if let Some(import) = imports(it).into_iter().find(|import| import.name == *name) {
                    let path = [&import.path[..], further].concat();
                    return if path == [std::slice::from_ref(name), further].concat() {
                        Ok(None)
                    } else {
                        self.find(&chain, &path, depth + 1)
                    };
                }
            }
            return Ok(None);
        }
        Ok(None)
    }

    /// An item, and what belongs to it.
    fn item(&mut self, chain: &Chain, item: &Item, path: &str) -> Result<(), String> {
        let attributes = attributes_of(item);
        let derived = derives(attributes);
        if !derived.is_empty() {
            self.lines.insert(format!("{path}: derive {}", derived.join(", ")));
        }
        if attributes.iter().any(|it| it.path().is_ident("non_exhaustive")) {
            self.lines.insert(format!("{path}: non_exhaustive"));
        }
        match item.clone() {
            Item::Const(it) => {
                let (name, ty) = (&it.ident, &it.ty);
                self.line(path, &quote::quote!(const #name: #ty));
            }
            Item::Fn(it) => self.line(path, &it.sig),
            Item::Type(it) => {
                let (name, generics, ty) = (&it.ident, &it.generics, &it.ty);
                self.line(path, &quote::quote!(type #name #generics = #ty));
            }
            Item::Struct(it) => {
                let (name, generics) = (&it.ident, &it.generics);
                self.line(path, &quote::quote!(struct #name #generics));
                self.fields(path, &it.fields, true);
                self.implementations(chain, &name.to_string(), path)?;
            }
            Item::Enum(it) => {
                let (name, generics) = (&it.ident, &it.generics);
                self.line(path, &quote::quote!(enum #name #generics));
                for variant in it.variants {
                    let path = format!("{path}::{}", variant.ident);
                    self.lines.insert(format!("{path}: variant"));
                    self.fields(&path, &variant.fields, false);
                }
                self.implementations(chain, &name.to_string(), path)?;
            }
            Item::Trait(it) => {
                let (name, generics, bounds) = (&it.ident, &it.generics, &it.supertraits);
                self.line(path, &quote::quote!(trait #name #generics: #bounds));
                for item in it.items {
                    match item {
                        TraitItem::Fn(it) => {
                            let kind = if it.default.is_some() { "provided" } else { "required" };
                            let signature = text(&it.sig);
                            self.lines
                                .insert(format!("{path}::{}: {kind} {signature}", it.sig.ident));
                        }
                        TraitItem::Type(it) => {
                            let (name, bounds) = (&it.ident, &it.bounds);
                            self.line(
                                &format!("{path}::{name}"),
                                &quote::quote!(type #name: #bounds),
                            );
                        }
                        TraitItem::Const(it) => {
                            let (name, ty) = (&it.ident, &it.ty);
                            self.line(&format!("{path}::{name}"), &quote::quote!(const #name: #ty));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Fields: those of a variant are as public as it is.
    fn fields(&mut self, path: &str, fields: &Fields, only_public: bool) {
        for (index, field) in fields.iter().enumerate() {
            if only_public && !matches!(field.vis, Visibility::Public(_)) {
                continue;
            }
            let name = field.ident.as_ref().map_or_else(|| index.to_string(), ToString::to_string);
            self.line(&format!("{path}.{name}"), &field.ty);
        }
    }

    /// Methods and traits of a type, wherever in the module of the type, around or below it they are.
    fn implementations(&mut self, chain: &Chain, name: &str, path: &str) -> Result<(), String> {
        let mut all = Vec::new();
        // An `impl` is mostly beside the type; some are in a module above, next to those that they are for.
        for (_, module) in chain {
            all.extend(implementations_in(module));
        }
        let (_, module) = chain.last().expect("a crate has a root");
        self.implementations_below(module, &mut all)?;
        for it in all.into_iter().filter(|it| is_for(&it.self_ty, name)) {
            if let Some((of, _)) = &it.trait_ {
                let (of, ty) = (text(of), text(&it.self_ty));
                self.lines.insert(format!("{path}: impl {of} for {ty}"));
                continue;
            }
            for item in &it.items {
                match item {
                    ImplItem::Fn(it) if is_public(&it.vis, &it.attrs) => {
                        self.line(&format!("{path}::{}", it.sig.ident), &it.sig);
                    }
                    ImplItem::Const(it) if is_public(&it.vis, &it.attrs) => {
                        let (name, ty) = (&it.ident, &it.ty);
                        self.line(&format!("{path}::{name}"), &quote::quote!(const #name: #ty));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn implementations_below(
        &self,
        module: &Module,
        into: &mut Vec<ItemImpl>,
    ) -> Result<(), String> {
        for item in &module.items {
            let Item::Mod(it) = item else { continue };
            if let Some(below) = self.workspace.below(module, &it.ident.to_string())? {
                into.extend(implementations_in(&below));
                self.implementations_below(&below, into)?;
            }
        }
        Ok(())
    }
}

/// Whether a path leads through a public module of this one.
fn is_below(module: &Module, path: &[String]) -> bool {
    module.items.iter().any(|item| match item {
        Item::Mod(it) => path.first().is_some_and(|first| it.ident == first) && is_shown(item),
        _ => false,
    })
}

fn implementations_in(module: &Module) -> impl Iterator<Item = ItemImpl> + '_ {
    module.items.iter().filter_map(|item| match item {
        Item::Impl(it) if !is_for_tests(&it.attrs) => Some(it.clone()),
        _ => None,
    })
}

fn is_for(ty: &Type, name: &str) -> bool {
    let Type::Path(path) = ty else { return false };
    path.path.segments.last().is_some_and(|segment| segment.ident == name)
}

fn is_shown(item: &Item) -> bool {
    let visibility = match item {
        Item::Const(it) => &it.vis,
        Item::Enum(it) => &it.vis,
        Item::Fn(it) => &it.vis,
        Item::Mod(it) => &it.vis,
        Item::Struct(it) => &it.vis,
        Item::Trait(it) => &it.vis,
        Item::Type(it) => &it.vis,
        Item::Use(it) => &it.vis,
        _ => return false,
    };
    is_public(visibility, attributes_of(item))
}

fn is_public(visibility: &Visibility, attributes: &[Attribute]) -> bool {
    let is_hidden = |it: &Attribute| {
        it.path().is_ident("doc")
            && it.parse_args::<syn::Path>().is_ok_and(|it| it.is_ident("hidden"))
    };
    matches!(visibility, Visibility::Public(_))
        && !is_for_tests(attributes)
        && !attributes.iter().any(is_hidden)
}

fn attributes_of(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(it) => &it.attrs,
        Item::Enum(it) => &it.attrs,
        Item::Fn(it) => &it.attrs,
        Item::Mod(it) => &it.attrs,
        Item::Struct(it) => &it.attrs,
        Item::Trait(it) => &it.attrs,
        Item::Type(it) => &it.attrs,
        Item::Use(it) => &it.attrs,
        _ => &[],
    }
}

fn name_of(item: &Item) -> Option<String> {
    let name = match item {
        Item::Const(it) => &it.ident,
        Item::Enum(it) => &it.ident,
        Item::Fn(it) => &it.sig.ident,
        Item::Struct(it) => &it.ident,
        Item::Trait(it) => &it.ident,
        Item::Type(it) => &it.ident,
        _ => return None,
    };
    Some(name.to_string())
}

fn derives(attributes: &[Attribute]) -> Vec<String> {
    let derives = attributes.iter().filter(|it| it.path().is_ident("derive"));
    let of = |it: &Attribute| {
        let Meta::List(list) = &it.meta else { return Vec::new() };
        let paths = list.parse_args_with(Punctuated::<syn::Path, Token![,]>::parse_terminated);
        paths.map(|paths| paths.iter().map(text).collect()).unwrap_or_default()
    };
    derives.flat_map(of).collect()
}

fn imports(it: &ItemUse) -> Vec<Import> {
    let mut all = Vec::new();
    collect(&it.tree, &[], &mut all);
    all
}

fn collect(tree: &UseTree, before: &[String], into: &mut Vec<Import>) {
    let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
    match tree {
        UseTree::Path(it) => collect(&it.tree, &with(&it.ident), into),
        UseTree::Name(it) => {
            into.push(Import { path: with(&it.ident), name: it.ident.to_string() })
        }
        UseTree::Rename(it) => {
            into.push(Import { path: with(&it.ident), name: it.rename.to_string() });
        }
        UseTree::Group(it) => it.items.iter().for_each(|it| collect(it, before, into)),
        UseTree::Glob(_) => into.push(Import { path: before.to_vec(), name: "*".into() }),
    }
}

/// The tokens as people write them, in one line.
fn text(tokens: &impl ToTokens) -> String {
    let mut text = tokens.to_token_stream().to_string().replace('\n', " ");
    let tight = [
        (" ::", "::"),
        (":: ", "::"),
        (" <", "<"),
        ("< ", "<"),
        (" >", ">"),
        ("& ", "&"),
        (" ,", ","),
        (" (", "("),
        ("( ", "("),
        (" )", ")"),
        (" :", ":"),
        (" ;", ";"),
        ("[ ", "["),
        (" ]", "]"),
        ("* ", "*"),
        (" ?", "?"),
        ("? ", "?"),
        (",)", ")"),
        (",>", ">"),
        ("Self:", "Self:"),
    ];
    for (loose, tight) in tight {
        text = text.replace(loose, tight);
    }
    text.trim_end_matches([':', ' ']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The listing of a crate `hybster` with this source.
    fn listed(name: &str, files: &[(&str, &str)]) -> String {
        let root = std::env::temp_dir().join(format!("hybster-api-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        for (path, text) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let listing = of(&Workspace::at(root.clone()), "hybster").unwrap();
        std::fs::remove_dir_all(&root).unwrap();
        listing
    }

    #[test]
    fn what_users_can_name_is_listed_and_nothing_else() {
        let library = "
            mod inner;
            pub mod open;
            pub use inner::Shown;
            pub use open::Kind;
            pub use hybster_proto::ids::Number as Id;
            pub use bytes::Bytes;
            pub fn run<T: Send>(of: &[T], at: Option<u8>) -> Result<(), Shown> { todo!() }
            pub const MOST: u64 = 3;
            fn private() {}
            #[cfg(test)] pub fn for_tests() {}
            #[doc(hidden)] pub fn hidden() {}
        ";
        let inner = "
            #[derive(Clone, Debug)] #[non_exhaustive]
            pub struct Shown { pub a: u8, b: u8 }
            pub struct Unseen;
            impl Shown { pub fn new(a: u8) -> Self { todo!() } fn own(&self) {} }
            impl std::fmt::Display for Shown { fn fmt(&self) {} }
            impl Unseen { pub fn new() -> Self { Self } }
        ";
        let open = "
            pub trait Open: Send { type Of: Clone; fn must(&self); fn may(&mut self, at: u64) {} }
            pub enum Kind { One, Two(u8), Three { of: String } }
        ";
        let files = [
            ("engine/src/lib.rs", library),
            ("engine/src/inner.rs", inner),
            ("engine/src/open/mod.rs", open),
            ("engine/proto/src/lib.rs", "pub mod ids;"),
            ("engine/proto/src/ids.rs", "mod numbers; pub use self::numbers::Number;"),
            ("engine/proto/src/ids/numbers.rs", "pub struct Number(pub u64);"),
        ];
        let mut expected = [
            "hybster::Bytes: use bytes::Bytes",
            "hybster::Id.0: u64",
            "hybster::Id: struct Number",
            "hybster::MOST: const MOST: u64",
            "hybster::Shown.a: u8",
            "hybster::Shown::new: fn new(a: u8) -> Self",
            "hybster::Kind: use open::Kind",
            "hybster::Shown: derive Clone, Debug",
            "hybster::Shown: impl std::fmt::Display for Shown",
            "hybster::Shown: non_exhaustive",
            "hybster::Shown: struct Shown",
            "hybster::open::Kind::One: variant",
            "hybster::open::Kind::Three.of: String",
            "hybster::open::Kind::Three: variant",
            "hybster::open::Kind::Two.0: u8",
            "hybster::open::Kind::Two: variant",
            "hybster::open::Kind: enum Kind",
            "hybster::open::Open::Of: type Of: Clone",
            "hybster::open::Open::may: provided fn may(&mut self, at: u64)",
            "hybster::open::Open::must: required fn must(&self)",
            "hybster::open::Open: trait Open: Send",
            "hybster::run: fn run<T: Send>(of: &[T], at: Option<u8>) -> Result<(), Shown>",
        ];
        expected.sort_unstable();
        assert_eq!(listed("all", &files).lines().collect::<Vec<_>>(), expected);
    }
}
