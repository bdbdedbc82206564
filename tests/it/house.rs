//! Who may import whom: reads the `use` lines of src/ and holds them to one table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// For each module what it may use of the crate, and whether it may touch tensors.
const ALLOWED: &[(&str, &[&str], bool)] = &[
    ("algo", &["recipe", "torch"], true),
    ("analysis", &["metrics"], false),
    ("checkpoint", &["model", "torch"], true),
    ("metrics", &["recipe"], false),
    ("model", &["torch"], true),
    ("optim", &["model", "torch"], true),
    ("recipe", &["model::config"], false),
    ("rng", &[], false),
    ("rollout", &["model", "torch"], true),
    ("task", &["recipe", "rng"], false),
    ("text", &["recipe", "rng", "task"], false),
    ("torch", &[], true),
    (
        "train",
        &[
            "algo",
            "analysis",
            "checkpoint",
            "metrics",
            "model",
            "optim",
            "recipe",
            "rng",
            "rollout",
            "task",
            "text",
            "torch",
        ],
        true,
    ),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

#[test]
fn imports_keep_to_the_table() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let table: BTreeMap<_, _> = ALLOWED.iter().map(|(name, uses, tensors)| (*name, (*uses, *tensors))).collect();
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut broken = Vec::new();
    for file in files {
        let name = file.strip_prefix(&src).unwrap().to_str().unwrap().to_string();
        let module = name.split(['/', '.']).next().unwrap();
        if ["lib", "main", "cli"].contains(&module) {
            continue;
        }
        let (uses, tensors) = table.get(module).unwrap_or_else(|| panic!("{module} is not in the table"));
        let text = std::fs::read_to_string(&file).unwrap();
        // Tests may reach further than the code they test.
        let code = text.split("#[cfg(test)]").next().unwrap();
        for line in code.lines().filter(|line| line.starts_with("use ") || line.starts_with("pub use ")) {
            let path = line.trim_start_matches("pub ").trim_start_matches("use ");
            if path.starts_with("tch") && !tensors {
                broken.push(format!("{name}: {line}"));
            }
            let Some(path) = path.strip_prefix("crate::") else { continue };
            let own = path.starts_with(module) || path.starts_with("BadInput") || path.starts_with('{');
            if !own && !uses.iter().any(|allowed| path.starts_with(allowed)) {
                broken.push(format!("{name}: {line}"));
            }
        }
    }
    assert!(broken.is_empty(), "imports the house does not allow:\n{}", broken.join("\n"));
}
