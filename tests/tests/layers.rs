//! The layers inside the crates: among modules that share a parent, none uses another that uses it, however far around.
//!
//! For each crate the sources are parsed, and each path that begins with `crate`, `self` or `super` becomes an edge between
//! the two modules below their common parent. Code for tests only is left out. A parent and its own children may use each
//! other: they are one room.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, Macro, UseTree};

/// A module by its path below the crate; empty for the crate's root.
type Module = Vec<String>;
/// Which modules a module names.
type Uses = BTreeMap<Module, BTreeSet<Module>>;

/// The layers of the Agent, leaves first: none uses one that stands behind it.
const AGENT: [&str; 9] =
    ["units", "clock", "spool", "lane", "dispatcher", "relay", "driver", "config", "cli"];

const CRATES: [&str; 8] = [
    "taba-core",
    "taba-handlers",
    "taba-client",
    "taba-agent",
    "taba-server",
    "taba-shard",
    "taba-process",
    "taba-listen",
];

#[test]
fn modules_of_a_crate_stand_in_layers() {
    let family = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let circles: Vec<String> = CRATES
        .iter()
        .flat_map(|name| {
            circles(&Sources::read(&family.join(name).join("src")).uses())
                .into_iter()
                .map(move |circle| format!("{name}: {circle}"))
        })
        .collect();
    assert!(circles.is_empty(), "modules that use each other:\n{}", circles.join("\n"));
}

#[test]
fn the_layers_of_the_agent_stand_in_their_order() {
    let sources =
        Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("taba-agent/src"));
    let levels = levels(&sources.uses());
    let uses = &levels[&Module::new()];
    let rank = |name: &String| AGENT.iter().position(|layer| layer == name);
    for layer in AGENT {
        assert!(uses.keys().chain(uses.values().flatten()).any(|name| name == layer), "there is no {layer}");
    }
    for (from, named) in uses {
        for to in named {
            let is_upward = rank(from).zip(rank(to)).is_some_and(|(from, to)| from < to);
            assert!(!is_upward, "{from} uses {to}, which stands above it");
        }
    }
}

#[test]
fn only_the_settings_and_the_command_line_of_the_agent_know_clap() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("taba-agent/src");
    let knows_clap = |path: &PathBuf| fs::read_to_string(path).unwrap().contains("clap::");
    let mut knowing: Vec<_> = files(&root).into_iter().filter(knows_clap).collect();
    knowing.sort();
    // The last one is a command of the binary.
    assert_eq!(knowing, ["cli.rs", "config.rs", "set_aside.rs"].map(|name| root.join(name)));
}

#[test]
fn a_circle_is_found_through_reexports_nested_modules_and_macros() {
    let source = |text: &str| syn::parse_file(text).unwrap();
    let sources = Sources(BTreeMap::from([
        (vec![], source("mod a; mod b; mod c; pub use b::inner::Thing;")),
        (vec!["a".into()], source("use crate::{c::{self, X}, Thing};")),
        (vec!["b".into()], source("mod inner; #[cfg(test)] mod tests { use crate::a; }")),
        (vec!["b".into(), "inner".into()], source("pub struct Thing; fn f() { log!(super::super::c::y()) }")),
        (vec!["c".into()], source("fn y() { crate::b::z(); }")),
    ]));
    assert_eq!(circles(&sources.uses()), ["b -> c -> b"]);
}

/// The parsed files of one crate.
struct Sources(BTreeMap<Module, syn::File>);

impl Sources {
    fn read(root: &Path) -> Self {
        let mut modules = BTreeMap::new();
        for path in files(root) {
            let module = module_of(path.strip_prefix(root).unwrap());
            // A binary is made of the library, and a test of what it tests.
            if module.first().is_some_and(|first| first == "main")
                || module.iter().any(|part| part == "tests")
            {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let parsed = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            modules.insert(module, parsed);
        }
        Self(modules)
    }

    fn uses(&self) -> Uses {
        let mut names = BTreeMap::new();
        for (module, file) in &self.0 {
            for item in &file.items {
                if let Item::Use(item) = item
                    && !matches!(item.vis, syn::Visibility::Inherited)
                {
                    let mut paths = Vec::new();
                    flatten(&item.tree, &mut Vec::new(), &mut paths);
                    for path in paths {
                        let name = path.last().cloned().unwrap_or_default();
                        names.insert((module.clone(), name), path);
                    }
                }
            }
        }
        let modules: BTreeSet<Module> = self.0.keys().cloned().collect();
        let mut uses = Uses::new();
        for (module, file) in &self.0 {
            let mut paths = Paths::default();
            paths.visit_file(file);
            let named = paths.0.into_iter().map(|path| resolve(&modules, &names, module, &path));
            uses.entry(module.clone()).or_default().extend(named);
        }
        uses
    }
}

/// The source files below a directory.
fn files(root: &Path) -> Vec<PathBuf> {
    let (mut files, mut open) = (Vec::new(), vec![root.to_owned()]);
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

fn module_of(file: &Path) -> Module {
    let mut module: Module = file
        .with_extension("")
        .components()
        .map(|part| part.as_os_str().to_string_lossy().into_owned())
        .collect();
    if matches!(module.last().map(String::as_str), Some("mod" | "lib")) {
        module.pop();
    }
    module
}

/// Which module `path` leads to, as it stands in `from`; a name that a module exports leads to where it comes from.
fn resolve(
    modules: &BTreeSet<Module>,
    exports: &BTreeMap<(Module, String), Vec<String>>,
    from: &Module,
    path: &[String],
) -> Module {
    let mut at = if path[0] == "crate" { Module::new() } else { from.clone() };
    for (index, part) in path.iter().enumerate() {
        match part.as_str() {
            "crate" | "self" => {}
            "super" => {
                at.pop();
            }
            name => {
                let below: Module = at.iter().cloned().chain([name.to_owned()]).collect();
                if modules.contains(&below) {
                    at = below;
                } else if let Some(source) = exports.get(&(at.clone(), name.to_owned()))
                    && index > 0
                    && source[0] != name
                {
                    return resolve(modules, exports, &at, &absolute(modules, &at, source));
                } else {
                    return at;
                }
            }
        }
    }
    at
}

/// A path of a `use` of `module`, begun at `self` where it begins with a child of it.
fn absolute(modules: &BTreeSet<Module>, module: &Module, path: &[String]) -> Vec<String> {
    let below: Module = module.iter().chain(path.first()).cloned().collect();
    if modules.contains(&below) { [vec!["self".to_owned()], path.to_vec()].concat() } else { path.to_vec() }
}

/// All paths of a file that begin with `crate`, `self` or `super`.
#[derive(Default)]
struct Paths(Vec<Vec<String>>);

impl Paths {
    fn add(&mut self, path: Vec<String>) {
        if path.len() > 1 && matches!(path[0].as_str(), "crate" | "self" | "super") {
            self.0.push(path);
        }
    }

    /// What stands in a macro is not parsed: its paths are read from its tokens.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Ident(name) => path.push(name.to_string()),
                TokenTree::Punct(punct) if punct.as_char() == ':' => continue,
                TokenTree::Group(group) => {
                    self.add(std::mem::take(&mut path));
                    self.tokens(group.stream());
                }
                TokenTree::Punct(_) | TokenTree::Literal(_) => self.add(std::mem::take(&mut path)),
            }
        }
        self.add(path);
    }
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item(&mut self, item: &'ast Item) {
        if !attributes(item).iter().any(only_for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let mut paths = Vec::new();
        flatten(&item.tree, &mut Vec::new(), &mut paths);
        paths.into_iter().for_each(|path| self.add(path));
    }

    /// Modules that stand in the file of their parent count as the parent.
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        let mut inner = Self::default();
        visit::visit_item_mod(&mut inner, item);
        self.0.extend(inner.0.into_iter().filter(|path| path[0] == "crate"));
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.add(path.segments.iter().map(|segment| segment.ident.to_string()).collect());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }
}

fn flatten(tree: &UseTree, before: &mut Vec<String>, paths: &mut Vec<Vec<String>>) {
    match tree {
        UseTree::Path(path) => {
            before.push(path.ident.to_string());
            flatten(&path.tree, before, paths);
            before.pop();
        }
        UseTree::Name(name) => paths.push(
            before
                .iter()
                .cloned()
                .chain([name.ident.to_string()])
                .filter(|part| part != "self" || before.is_empty())
                .collect(),
        ),
        UseTree::Rename(name) => paths.push(before.iter().cloned().chain([name.ident.to_string()]).collect()),
        UseTree::Glob(_) => paths.push(before.clone()),
        UseTree::Group(group) => group.items.iter().for_each(|tree| flatten(tree, before, paths)),
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn only_for_tests(attribute: &Attribute) -> bool {
    let syn::Meta::List(list) = &attribute.meta else { return false };
    list.path.is_ident("cfg") && list.tokens.to_string() == "test"
}

/// Which siblings use which, for each parent.
fn levels(uses: &Uses) -> BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> {
    let mut levels: BTreeMap<Module, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    for (module, named) in uses {
        for other in named {
            let common = module.iter().zip(other).take_while(|(one, two)| one == two).count();
            if let (Some(from), Some(to)) = (module.get(common), other.get(common)) {
                let siblings = levels.entry(module[..common].to_vec()).or_default();
                siblings.entry(from.clone()).or_default().insert(to.clone());
            }
        }
    }
    levels
}

/// One circle of each set of siblings that have one.
fn circles(uses: &Uses) -> Vec<String> {
    let levels = levels(uses);
    levels
        .iter()
        .flat_map(|(parent, siblings)| {
            let mut done = BTreeSet::new();
            siblings
                .keys()
                .filter_map(move |from| circle_from(siblings, from, &mut Vec::new(), &mut done))
                .map(|circle| {
                    let names: Vec<String> = circle
                        .iter()
                        .map(|name| parent.iter().chain([name]).cloned().collect::<Vec<_>>().join("::"))
                        .collect();
                    names.join(" -> ")
                })
        })
        .collect()
}

fn circle_from(
    siblings: &BTreeMap<String, BTreeSet<String>>,
    at: &str,
    way: &mut Vec<String>,
    done: &mut BTreeSet<String>,
) -> Option<Vec<String>> {
    if let Some(start) = way.iter().position(|name| name == at) {
        return Some(way[start..].iter().cloned().chain([at.to_owned()]).collect());
    }
    if !done.insert(at.to_owned()) {
        return None;
    }
    way.push(at.to_owned());
    let found =
        siblings.get(at).into_iter().flatten().find_map(|next| circle_from(siblings, next, way, done));
    way.pop();
    found
}
