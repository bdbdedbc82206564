//! docs/recipe.md: every key with its type, default and meaning, written from what `keys` declares.

use super::schema::{Key, Kind, RECIPE, Section};
use super::shape::expected;
use serde_json::Value;
use std::fmt::Write;

const HEAD: &str = "\
# The keys of a recipe

Written by `ppo-train schema --markdown`; a test keeps it current. A recipe is a TOML file. Every key has its default
below, so that a recipe says only what differs; `ppo-train plan RECIPE --json` shows a recipe with all its values.
`--set SECTION.KEY=VALUE` overrides a key on the command line. Editors complete and check recipes that open with a line
`#:schema schema.json` (the file recipes/schema.json, written by `ppo-train schema`).
";

/// The whole page.
pub fn markdown() -> String {
    let mut page = HEAD.to_string();
    let (sections, plain): (Vec<&Key>, Vec<&Key>) = RECIPE.keys.iter().partition(|key| is_section(key));
    page.push_str("\n## Outside all sections\n");
    table(&mut page, &plain);
    for key in sections {
        write_key(&mut page, &key.name, key, 2);
    }
    page
}

fn is_section(key: &Key) -> bool {
    matches!(key.kind, Kind::Section(_) | Kind::Variants(_))
}

fn write_key(page: &mut String, path: &str, key: &Key, level: usize) {
    let optional = if key.required { "" } else { ", optional" };
    let _ = write!(page, "\n{} [{path}]{optional}\n\n{}\n", "#".repeat(level), key.about);
    match &key.kind {
        Kind::Section(section) => write_section(page, path, section, level),
        Kind::Variants(variants) => {
            for (kind, section) in variants {
                let _ = write!(page, "\n{} `kind = \"{kind}\"`\n\n{}\n", "#".repeat(level + 1), section.about);
                write_section(page, path, section, level + 1);
            }
        }
        _ => {}
    }
}

fn write_section(page: &mut String, path: &str, section: &Section, level: usize) {
    let (sections, plain): (Vec<&Key>, Vec<&Key>) =
        section.keys.iter().filter(|key| key.name != "kind").partition(|key| is_section(key));
    table(page, &plain);
    for key in sections {
        write_key(page, &format!("{path}.{}", key.name), key, level + 1);
    }
}

fn table(page: &mut String, keys: &[&Key]) {
    page.push_str("\n| key | value | default | meaning |\n|---|---|---|---|\n");
    for key in keys {
        let default = match &key.default {
            _ if key.required => "required".into(),
            None => "none".into(),
            Some(value) => format!("`{}`", toml(value)),
        };
        let mut meaning = key.about.clone();
        if let Kind::Choice(words) = &key.kind {
            for (word, about) in words.iter().filter(|(_, about)| !about.is_empty()) {
                let _ = write!(meaning, "<br>`{word}`: {about}");
            }
        }
        let cells = [format!("`{}`", key.name), expected(&key.kind), default, meaning];
        let _ = writeln!(page, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
}

/// A default as it would be written in a recipe.
fn toml(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}
