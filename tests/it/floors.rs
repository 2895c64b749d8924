//! Holds the modules to their floors: imports run downwards only, in rooms and in the engine, and no files import in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};

/// Rooms and their floors. A room may import rooms of strictly lower floors.
const ROOMS: &[(&str, u32)] = &[
    ("base", 0),
    ("engine", 1),
    ("fetch", 1),
    ("imaging", 1),
    ("dataset", 2),
    ("domain", 3),
    ("net", 4),
    ("patch", 4),
    ("models", 5),
    ("picture", 3),
    ("segment", 5),
    ("score", 5),
    ("train", 6),
    ("report", 6),
    ("run", 7),
    ("bench", 8),
    ("low_level", 9),
    ("cli", 9),
];

/// Rooms of the engine. The oracles stand low, so that nothing they check can creep into them: they know shapes and which
/// activations there are.
const ENGINE: &[(&str, u32)] = &[
    ("shape", 0),
    ("activation", 0),
    ("shader", 1),
    ("oracle", 1),
    ("gpu", 2),
    ("graph", 2),
    ("ops", 3),
    ("plan", 4),
    ("exec", 5),
    ("tune", 6),
    ("check", 7),
];

fn floor(floors: &[(&str, u32)], name: &str) -> Option<u32> {
    floors.iter().find(|(room, _)| *room == name).map(|(_, floor)| *floor)
}

/// What is wrong with the module `from` importing `to`, if anything. Both are paths from the crate's root.
fn fault(from: &[String], to: &[String], in_test: bool) -> Option<String> {
    let part = |path: &[String], at: usize| path.get(at).cloned().unwrap_or_default();
    let (room, other) = (part(from, 0), part(to, 0));
    let check = |floors, room: &str, other: &str| {
        let Some(below) = floor(floors, other) else {
            return Some(format!("`{other}` has no floor"));
        };
        let above = floor(floors, room)?;
        let told = || format!("`{room}` (floor {above}) imports `{other}` (floor {below})");
        (room != other && below >= above).then(told)
    };
    if room != other {
        return check(ROOMS, &room, &other);
    }
    let (room, other) = (part(from, 1), part(to, 1));
    if from[0] != "engine" || room.is_empty() || other.is_empty() || room == other {
        return None;
    }
    if other == "oracle" {
        return (!in_test && room != "check")
            .then(|| format!("`{room}` imports the oracles outside its tests"));
    }
    if room == "oracle" && !["shape", "activation"].contains(&other.as_str()) {
        return Some(format!("the oracles import `{other}`"));
    }
    check(ENGINE, &room, &other)
}

/// One import: a path from the crate's root.
#[derive(Debug, Clone, PartialEq)]
struct Import {
    path: Vec<String>,
    line: usize,
    in_test: bool,
    /// Whether it is passed on.
    public: bool,
}

/// A file of the crate.
#[derive(Default)]
struct Module {
    file: PathBuf,
    imports: Vec<Import>,
    /// Names that the file passes on, and where they come from.
    passed_on: BTreeMap<String, Vec<String>>,
    /// Modules whose wildcard is passed on.
    wildcards: Vec<Vec<String>>,
    /// Names of the items that the file itself has.
    items: BTreeSet<String>,
}

struct Reader {
    /// Path of the module, and of the modules within that are being read.
    at: Vec<String>,
    children: BTreeSet<String>,
    in_test: bool,
    module: Module,
}

impl Reader {
    /// A path from the root, or nothing where it is of another crate or of names in scope.
    fn absolute(&self, path: &[String]) -> Option<Vec<String>> {
        let mut base = self.at.clone();
        let mut rest = path;
        match rest.first()?.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                while rest.first().is_some_and(|part| part == "super") {
                    base.pop()?;
                    rest = &rest[1..];
                }
                base.extend_from_slice(rest);
                return Some(base);
            }
            child if self.children.contains(child) => {
                base.extend_from_slice(rest);
                return Some(base);
            }
            _ => return None,
        }
        base.extend_from_slice(&rest[1..]);
        Some(base)
    }

    fn import(&mut self, path: &[String], line: usize, public: bool) -> Option<Vec<String>> {
        let path = self.absolute(path)?;
        let in_test = self.in_test;
        self.module.imports.push(Import { path: path.clone(), line, in_test, public });
        Some(path)
    }

    fn tree(&mut self, tree: &syn::UseTree, mut path: Vec<String>, public: bool) {
        match tree {
            syn::UseTree::Path(next) => {
                path.push(next.ident.to_string());
                self.tree(&next.tree, path, public);
            }
            syn::UseTree::Group(group) => {
                group.items.iter().for_each(|item| self.tree(item, path.clone(), public));
            }
            syn::UseTree::Glob(glob) => {
                let line = glob.star_token.spans[0].start().line;
                if let Some(path) = self.import(&path, line, public)
                    && public
                {
                    self.module.wildcards.push(path);
                }
            }
            syn::UseTree::Name(name) => {
                if name.ident != "self" {
                    path.push(name.ident.to_string());
                }
                self.leaf(&path, &name.ident, public);
            }
            syn::UseTree::Rename(rename) => {
                path.push(rename.ident.to_string());
                self.leaf(&path, &rename.rename, public);
            }
        }
    }

    fn leaf(&mut self, path: &[String], name: &syn::Ident, public: bool) {
        let line = name.span().start().line;
        if let Some(path) = self.import(path, line, public)
            && public
        {
            self.module.passed_on.insert(name.to_string(), path);
        }
    }
}

fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Ident>().is_ok_and(|what| what == "test")
    })
}

impl<'ast> Visit<'ast> for Reader {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let public = !matches!(item.vis, syn::Visibility::Inherited);
        self.tree(&item.tree, Vec::new(), public);
    }

    /// Who may see an item is no import.
    fn visit_visibility(&mut self, _: &'ast syn::Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let parts: Vec<String> = path.segments.iter().map(|s| s.ident.to_string()).collect();
        if parts.len() > 1 {
            let line = path.segments[0].ident.span().start().line;
            self.import(&parts, line, false);
        }
        visit::visit_path(self, path);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if item.content.is_none() {
            return;
        }
        let outer = self.in_test;
        self.in_test |= is_test(&item.attrs);
        self.at.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.at.pop();
        self.in_test = outer;
    }
}

fn name_of(item: &syn::Item) -> Option<String> {
    let name = match item {
        syn::Item::Const(item) => &item.ident,
        syn::Item::Enum(item) => &item.ident,
        syn::Item::Fn(item) => &item.sig.ident,
        syn::Item::Static(item) => &item.ident,
        syn::Item::Struct(item) => &item.ident,
        syn::Item::Trait(item) => &item.ident,
        syn::Item::Type(item) => &item.ident,
        _ => return None,
    };
    Some(name.to_string())
}

/// Reads the module at `path` of the crate.
fn read(path: Vec<String>, text: &str, file: PathBuf) -> Module {
    let parsed = syn::parse_file(text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let children = parsed.items.iter().filter_map(|item| match item {
        syn::Item::Mod(item) if item.content.is_none() => Some(item.ident.to_string()),
        _ => None,
    });
    let children = children.collect();
    let items = parsed.items.iter().filter_map(name_of).collect();
    let module = Module { file, items, ..Module::default() };
    let mut reader = Reader { at: path, children, in_test: false, module };
    reader.visit_file(&parsed);
    reader.module
}

type Modules = BTreeMap<Vec<String>, Module>;

/// The file that an import comes to, through what modules pass on.
fn target(modules: &Modules, path: &[String]) -> Option<Vec<String>> {
    let at = (0..=path.len()).rev().find(|length| modules.contains_key(&path[..*length]))?;
    let module = &modules[&path[..at]];
    let Some(name) = path.get(at) else { return Some(path.to_vec()) };
    if let Some(source) = module.passed_on.get(name) {
        let mut source = source.clone();
        source.extend_from_slice(&path[at + 1..]);
        return target(modules, &source);
    }
    if !module.items.contains(name) {
        for wildcard in &module.wildcards {
            let mut source = wildcard.clone();
            source.extend_from_slice(&path[at..]);
            if let Some(found) = target(modules, &source)
                && modules[&found].items.contains(name)
            {
                return Some(found);
            }
        }
    }
    Some(path[..at].to_vec())
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn crate_modules() -> Modules {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let module = |file: PathBuf| {
        let relative = file.strip_prefix(&source).unwrap().with_extension("");
        let mut path: Vec<String> =
            relative.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if path.last().is_some_and(|last| ["mod", "lib"].contains(&last.as_str())) {
            path.pop();
        }
        (path.clone(), read(path, &std::fs::read_to_string(&file).unwrap(), file))
    };
    rust_files(&source).into_iter().map(module).collect()
}

fn place(module: &Module, line: usize) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    format!("{}:{line}", module.file.strip_prefix(root).unwrap_or(&module.file).display())
}

#[test]
fn imports_run_downwards_only() {
    let modules = crate_modules();
    let mut faults = Vec::new();
    for (path, module) in &modules {
        // the crate's face may show any room, and the program starts the command line
        if path.is_empty() || path == &["main"] || path == &["low_level"] {
            continue;
        }
        for import in &module.imports {
            let Some(to) = target(&modules, &import.path).filter(|to| !to.is_empty()) else {
                continue;
            };
            if let Some(fault) = fault(path, &to, import.in_test) {
                faults.push(format!("{}: {fault}", place(module, import.line)));
            }
        }
    }
    assert!(faults.is_empty(), "imports that do not run downwards:\n{}", faults.join("\n"));
}

#[test]
fn no_files_import_in_a_circle() {
    let modules = crate_modules();
    let mut edges: BTreeMap<&[String], BTreeSet<Vec<String>>> = BTreeMap::new();
    for (path, module) in &modules {
        if path.is_empty() || path == &["main"] || path == &["low_level"] {
            continue;
        }
        let imports = module.imports.iter().filter(|import| {
            // what a room passes on of its own files is its face
            !(import.in_test || import.public && import.path.starts_with(path))
        });
        let targets = imports.filter_map(|import| target(&modules, &import.path));
        let targets = targets.filter(|to| to != path && !to.is_empty());
        edges.entry(path.as_slice()).or_default().extend(targets);
    }
    let reached = |start: &[String]| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![start.to_vec()]);
        while let Some(at) = next.pop() {
            for to in edges.get(at.as_slice()).into_iter().flatten() {
                if seen.insert(to.clone()) {
                    next.push(to.clone());
                }
            }
        }
        seen
    };
    let mut circles = BTreeSet::new();
    for (from, targets) in &edges {
        for to in targets.iter().filter(|to| reached(to).contains(*from)) {
            circles.insert(format!("{} -> {}", from.join("/"), to.join("/")));
        }
    }
    assert!(circles.is_empty(), "imports in circles: {circles:#?}");
}

fn path(text: &str) -> Vec<String> {
    text.split("::").filter(|part| !part.is_empty()).map(str::to_string).collect()
}

#[test]
fn the_reader_follows_groups_paths_and_what_is_passed_on() {
    let text = "//! See [`crate::cli`].\nmod child;\npub use child::Thing;\nuse crate::{\n    data::{io, nifti},\n    \
                shape::Shape,\n};\nuse super::other::x;\nfn f() -> crate::Result<()> { other::y(); child::g() } // crate::train\n\
                #[cfg(test)]\nmod tests {\n    use super::super::oracle;\n}\n";
    let module = read(path("room::file"), text, PathBuf::new());
    let found: Vec<(String, usize, bool)> =
        module.imports.iter().map(|i| (i.path.join("::"), i.line, i.in_test)).collect();
    let expected = [
        ("room::file::child::Thing", 3, false),
        ("data::io", 5, false),
        ("data::nifti", 5, false),
        ("shape::Shape", 6, false),
        ("room::other::x", 8, false),
        ("Result", 9, false),
        ("room::file::child::g", 9, false),
        ("room::oracle", 12, true),
    ];
    assert_eq!(found, expected.map(|(name, line, test)| (name.to_string(), line, test)));
    let child = read(path("room::file::child"), "", PathBuf::new());
    let modules =
        BTreeMap::from([(path("room::file"), module), (path("room::file::child"), child)]);
    assert_eq!(target(&modules, &path("room::file::Thing")), Some(path("room::file::child")));
    assert_eq!(target(&modules, &path("room::file::own")), Some(path("room::file")));
}

#[test]
fn the_rules_refuse_upward_and_sideways_imports() {
    let refused = |from: &str, to: &str, test| fault(&path(from), &path(to), test).is_some();
    assert!(!refused("engine::graph", "engine::shape", false));
    assert!(!refused("engine::graph::layout", "engine::graph", false));
    assert!(refused("engine::graph", "domain", false));
    assert!(refused("engine::graph", "engine::exec", true));
    assert!(refused("engine::ops::conv", "engine::oracle::conv", false));
    assert!(!refused("engine::ops::conv", "engine::oracle::conv", true));
    assert!(!refused("engine::check", "engine::oracle", false));
    assert!(!refused("engine::oracle", "engine::shape", false));
    assert!(refused("engine::oracle", "engine::gpu", false));
    assert!(refused("imaging::grid", "dataset::labels", false));
    assert!(refused("imaging", "engine::graph", false));
    assert!(!refused("dataset", "imaging::grid", false));
    assert!(refused("net", "nonsense", false));
}
