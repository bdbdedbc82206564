//! Enforces the house in docs/architecture.md: modules are on floors, and imports go strictly down. Every path counts,
//! both `use crate::{a, b::c}` and `crate::a::f()`; and no two files import each other, directly or in a circle, not
//! even within a folder. Test modules may reach further than the code they test.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// From the ground up. Rooms on the same floor do not import each other. `lib.rs` (the errors) is below all of them.
const FLOORS: &[&[&str]] = &[
    &["files", "hash", "json", "panics"],
    &["grammar", "metrics", "recipe", "rng", "rows", "text", "torch"],
    &["algo", "dist", "stats", "terminal"],
    &["cluster", "endpoint", "model", "task"],
    &["checkpoint", "optim", "rollout"],
    &["analysis", "judge", "plan", "regression", "sae", "teacher"],
    &["env"],
    &["train"],
    &["bench", "hooks", "traces"],
    &["page", "run"],
    &["cli"],
];

/// Rooms whose code never touches a tensor.
const WITHOUT_TENSORS: &[&str] = &[
    "analysis",
    "cluster",
    "endpoint",
    "env",
    "files",
    "grammar",
    "hash",
    "json",
    "metrics",
    "page",
    "panics",
    "recipe",
    "regression",
    "rng",
    "rows",
    "stats",
    "task",
    "terminal",
    "text",
];

/// A source file: its module path, such as `task::countdown::judge`, and its code.
struct File {
    module: Vec<String>,
    code: String,
}

/// All files of src/ except lib.rs and main.rs.
fn files() -> Vec<File> {
    fn collect(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            match path.extension() {
                _ if path.is_dir() => collect(&path, found),
                Some(extension) if extension == "rs" => found.push(path),
                _ => {}
            }
        }
    }
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    collect(&src, &mut paths);
    let file = |path: PathBuf| {
        let name = path.strip_prefix(&src).unwrap().with_extension("");
        let module: Vec<String> = name.iter().map(|part| part.to_str().unwrap().to_string()).collect();
        let module = module.strip_suffix(&["mod".to_string()]).map_or(module.clone(), <[String]>::to_vec);
        File { module, code: code(&std::fs::read_to_string(&path).unwrap()) }
    };
    let all = paths.into_iter().map(file);
    all.filter(|f| !["lib", "main", "tests"].contains(&f.module.last().unwrap().as_str())).collect()
}

/// The text without comments, strings and the test module at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod tests").next().unwrap();
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if let Some(raw) = rest.strip_prefix("r#\"") {
            3 + raw.find("\"#").unwrap() + 2
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find('\'').unwrap() + 2
        } else if c == '"' {
            let mut escaped = false;
            let end = rest[1..].find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            end.unwrap() + 2
        } else {
            out.push(c);
            c.len_utf8()
        };
        rest = &rest[skipped..];
    }
    out
}

/// The paths that begin with `start` (`crate::` or `super::`), braces expanded: `crate::a::{b, c::d}` is two paths.
fn paths(code: &str, start: &str) -> Vec<Vec<String>> {
    /// Reads one path or one list; returns what follows it.
    fn read<'a>(mut code: &'a str, so_far: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
        let mut path = so_far.to_vec();
        loop {
            code = code.trim_start();
            if let Some(list) = code.strip_prefix('{') {
                code = list;
                loop {
                    code = read(code, &path, found).trim_start();
                    match code.strip_prefix(',') {
                        Some(rest) if !rest.trim_start().starts_with('}') => code = rest,
                        Some(rest) => return &rest.trim_start()[1..],
                        None => return &code[1..],
                    }
                }
            }
            let end = code.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '*')).unwrap_or(code.len());
            path.push(code[..end].to_string());
            code = &code[end..];
            match code.strip_prefix("::") {
                Some(rest) if !rest.starts_with('<') => code = rest,
                _ => break,
            }
        }
        found.push(path);
        // `x as y`
        code.strip_prefix(" as ")
            .map_or(code, |rest| rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'))
    }
    let mut found = Vec::new();
    for (at, _) in code.match_indices(start) {
        let before = code[..at].chars().next_back();
        if before.is_none_or(|c| !(c.is_alphanumeric() || c == '_' || c == ':')) {
            read(&code[at + start.len()..], &[], &mut found);
        }
    }
    found
}

/// The modules, and where their items are.
struct House {
    files: Vec<File>,
    modules: BTreeSet<Vec<String>>,
}

impl House {
    fn new() -> Self {
        let files = files();
        let modules = files.iter().map(|file| file.module.clone()).collect();
        Self { files, modules }
    }

    fn code_of(&self, module: &[String]) -> &str {
        &self.files.iter().find(|file| file.module == module).unwrap().code
    }

    /// Whether a file defines an item.
    fn defines(&self, module: &[String], item: &str) -> bool {
        let code = self.code_of(module);
        ["struct", "enum", "trait", "fn", "const", "static", "type", "macro_rules!"].iter().any(|kind| {
            let start = format!("{kind} {item}");
            let ends = |at: usize| !code[at + start.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
            code.match_indices(&start).any(|(at, _)| ends(at))
        })
    }

    /// The file that an item of a module is in: its own, or one whose items its mod.rs re-exports.
    fn locate(&self, module: &[String], item: &str) -> Option<Vec<String>> {
        if self.defines(module, item) {
            return Some(module.to_vec());
        }
        let passed_on = self.code_of(module).split("pub use ").skip(1);
        let passed_on = passed_on.flat_map(|line| paths(&format!("self::{line}"), "self::"));
        passed_on.filter_map(|mut path| Some((path.pop()?, path))).find_map(|(name, path)| {
            let inner = [module, &path].concat();
            let known = !path.is_empty() && self.modules.contains(&inner);
            (known && (name == item || name == "*")).then(|| self.locate(&inner, item)).flatten()
        })
    }

    /// The module whose file holds what a path from the crate's root names; none for an item of lib.rs.
    fn resolve(&self, path: &[String]) -> Option<Vec<String>> {
        let depth = (1..=path.len()).rev().find(|&n| self.modules.contains(&path[..n]))?;
        let module = path[..depth].to_vec();
        let item = path.get(depth).and_then(|item| self.locate(&module, item));
        Some(item.unwrap_or(module))
    }

    /// For each module, the modules that its code names.
    fn imports(&self) -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
        let of = |file: &File| {
            let own = &file.module;
            let is_folder = self.modules.iter().any(|module| module.len() > own.len() && module.starts_with(own));
            let absolute = paths(&file.code, "crate::").into_iter();
            let relative = paths(&file.code, "super::").into_iter().map(|path| {
                let up = 1 + path.iter().take_while(|part| *part == "super").count();
                [&own[..own.len() - up], &path[up - 1..]].concat()
            });
            // A mod.rs refers to its files by their names.
            let children = self.modules.iter().filter(|m| is_folder && m.len() == own.len() + 1 && m.starts_with(own));
            let inner = children.flat_map(|child| {
                let start = format!("{}::", child.last().unwrap());
                let code = file.code.split("pub use ").map(|part| part.split_once(';').map_or(part, |(_, rest)| rest));
                let code: String =
                    [file.code.split("pub use ").next().unwrap()].into_iter().chain(code.skip(1)).collect();
                paths(&code, &start).into_iter().map(move |path| [child.as_slice(), &path].concat())
            });
            let all = absolute.chain(relative).chain(inner).filter_map(|path| self.resolve(&path));
            (own.clone(), all.filter(|module| module != own).collect())
        };
        self.files.iter().map(of).collect()
    }
}

fn floor(room: &str) -> usize {
    FLOORS.iter().position(|rooms| rooms.contains(&room)).unwrap_or_else(|| panic!("{room} is on no floor"))
}

#[test]
fn imports_go_down() {
    let house = House::new();
    let mut broken = Vec::new();
    for (from, targets) in house.imports() {
        for to in targets {
            if from[0] != to[0] && floor(&to[0]) >= floor(&from[0]) {
                broken.push(format!("{} imports {}", from.join("::"), to.join("::")));
            }
        }
    }
    for file in &house.files {
        if WITHOUT_TENSORS.contains(&file.module[0].as_str()) && file.code.contains("tch::") {
            broken.push(format!("{} touches tensors", file.module.join("::")));
        }
    }
    assert!(broken.is_empty(), "the house does not allow:\n{}", broken.join("\n"));
}

#[test]
fn files_do_not_import_each_other_in_circles() {
    let imports = House::new().imports();
    // A module that imports nothing that is left, or that nothing left imports, cannot be in a circle.
    let mut left: BTreeSet<_> = imports.keys().cloned().collect();
    loop {
        let ends = |m: &Vec<String>| {
            !imports[m].iter().any(|to| left.contains(to)) || !left.iter().any(|from| imports[from].contains(m))
        };
        let gone: Vec<_> = left.iter().filter(|m| ends(m)).cloned().collect();
        if gone.is_empty() {
            break;
        }
        left.retain(|module| !gone.contains(module));
    }
    let circle: Vec<String> = left
        .iter()
        .map(|from| {
            let to: Vec<String> = imports[from].intersection(&left).map(|to| to.join("::")).collect();
            format!("{} imports {}", from.join("::"), to.join(", "))
        })
        .collect();
    assert!(circle.is_empty(), "files that import each other:\n{}", circle.join("\n"));
}

#[test]
fn the_floor_plan_is_in_the_documentation() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture.md")).unwrap();
    for (floor, rooms) in FLOORS.iter().enumerate() {
        let row = format!("| {} | {} |", floor + 1, rooms.join(", "));
        assert!(page.lines().any(|line| line == row), "docs/architecture.md has no row {row}");
        for room in *rooms {
            assert!(page.lines().any(|line| line.starts_with(&format!("| {room} | "))), "{room} is not described");
        }
    }
}

#[test]
fn lines_have_at_most_120_columns() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for dir in [
        "",
        "src",
        "tests/it",
        "tests/toy",
        "tests/politifact",
        "examples",
        "recipes",
        "recipes/llama",
        "docs",
        "fuzz",
        "fuzz/targets",
    ] {
        collect(&root.join(dir), dir.starts_with("src"), &mut found);
    }
    let wide = found.iter().filter(|path| !path.ends_with("docs/recipe.md")).flat_map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        let lines = text.lines().enumerate().filter(|(_, line)| line.chars().count() > 120 && !line.starts_with('|'));
        lines.map(|(at, _)| format!("{}:{}", path.display(), at + 1)).collect::<Vec<_>>()
    });
    let wide: Vec<String> = wide.collect();
    assert!(wide.is_empty(), "{}", wide.join("\n"));

    fn collect(dir: &Path, deep: bool, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let text =
                path.extension().and_then(|e| e.to_str()).is_some_and(|e| ["rs", "md", "toml", "cpp"].contains(&e));
            if path.is_dir() && deep {
                collect(&path, deep, found);
            } else if text {
                found.push(path);
            }
        }
    }
}

/// The test recognises what it has to refuse.
#[test]
fn paths_are_found_wherever_they_are() {
    let code =
        code("use crate::{a::B, c::{self, d::*}};\nfn f() { crate::e::g(1) } // crate::h\nlet s = \"crate::i\";");
    let found: Vec<String> = paths(&code, "crate::").iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a::B", "c::self", "c::d::*", "e::g"]);
    let house = House::new();
    let resolve = |path: &str| {
        let path: Vec<String> = path.split("::").map(str::to_string).collect();
        house.resolve(&path).map(|module| module.join("::"))
    };
    assert_eq!(resolve("recipe::Ppo").unwrap(), "recipe::keys::ppo");
    assert_eq!(resolve("task::grade").unwrap(), "task::grade");
    assert_eq!(resolve("model::Policy::new").unwrap(), "model::heads");
    assert_eq!(resolve("BadInput"), None);
}
