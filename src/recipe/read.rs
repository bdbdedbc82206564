//! A recipe's files, the last of which extends nothing, and its overrides, merged into one recipe.

use super::keys::Recipe;
use super::renamed::{UNSET, rename, supersede, warmup_as_ratio};
use super::schema::{RECIPE, keys_of};
use super::shape;
use super::source::Sources;
use super::spelling::{entries, similar};
use crate::{BadInput, WRITTEN};
use schemars::JsonSchema;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::cell::OnceCell;
use std::io::ErrorKind;
use std::ops::Range;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Reads a recipe file, the file it `extends`, and so on, and merges the overrides `KEY=VALUE` on top.
///
/// # Errors
/// A file that cannot be read, is not valid TOML, or does not have a recipe's shape; an override likewise.
pub fn read(path: &Path, sets: &[String]) -> Result<(Recipe, Sources), BadInput> {
    let mut sources = Sources::default();
    let files = files(&mut sources, path)?;
    merged(sources, &files, sets)
}

/// A recipe whose text is `text`, from a place called `label`, with the overrides on top.
///
/// # Errors
/// As `read`.
pub fn read_text(label: &str, text: &str, sets: &[String]) -> Result<(Recipe, Sources), BadInput> {
    let mut sources = Sources::default();
    let (_, text) = sources.add(label.to_string(), text.to_string());
    merged(sources, &[text], sets)
}

/// Reads another TOML file whose keys a struct declares as `keys` does; `what`: its name in messages, such as "site
/// file".
///
/// # Errors
/// As `read`.
pub fn read_keys<T: JsonSchema + DeserializeOwned>(path: &Path, what: &str) -> Result<(T, Sources), BadInput> {
    let mut sources = Sources::default();
    let (_, text) = sources.add(path.display().to_string(), read_file(path, what)?);
    let table = parse(&sources, &text)?;
    sources.locate(&table);
    shape::check(&sources, &keys_of::<T>(), &table)?;
    let table = Spanned::new(0..text.len(), table);
    let found = T::deserialize(toml::de::Deserializer::from(table)).map_err(|e| sources.other_error(&e))?;
    Ok((found, sources))
}

fn merged(mut sources: Sources, files: &[String], sets: &[String]) -> Result<(Recipe, Sources), BadInput> {
    let mut sets: Vec<(usize, String)> = sets.iter().map(|set| sources.add_override(set)).collect();
    kinds_first(&mut sets);
    let (warmup, mut table, mut notes) = (OnceCell::new(), DeTable::new(), vec![]);
    for file in files.iter().rev() {
        let mut layer = parse(&sources, file)?;
        layer.remove(EXTENDS);
        rename(&mut layer, &mut notes);
        supersede(&mut table, &layer);
        merge(&mut table, layer);
    }
    for (from, set) in &sets {
        let mut layer = parse_override(&sources, *from, set)?;
        rename(&mut layer, &mut notes);
        supersede(&mut table, &layer);
        merge(&mut table, layer);
    }
    warmup_as_ratio(&mut table, &warmup, &mut notes);
    sources.locate(&table);
    sources.ensure(!sources.has(EXTENDS), EXTENDS, "`extends` can only be set in a recipe file")?;
    // A message about a renamed key is understood only with the note.
    shape::check(&sources, &RECIPE, &table).map_err(|e| BadInput([vec![e.0], notes.clone()].concat().join("\n")))?;
    sources.notes = notes;
    let table = Spanned::new(0..files[0].len(), table);
    let recipe = Recipe::deserialize(toml::de::Deserializer::from(table)).map_err(|e| sources.other_error(&e))?;
    Ok((recipe, sources))
}

const EXTENDS: &str = "extends";
/// Files that a recipe may consist of.
const MOST_FILES: usize = 16;
/// Parts that a key may have; no key of ours has as many.
const MOST_PARTS: usize = 8;

/// The texts of a recipe and of all the recipes it extends, in this order.
fn files(sources: &mut Sources, path: &Path) -> Result<Vec<String>, BadInput> {
    let (mut texts, mut seen) = (vec![], vec![]);
    // The file to read, and where it was named.
    let mut next: Option<(_, Option<Range<usize>>)> = Some((path.to_path_buf(), None));
    while let Some((path, named)) = next {
        let fail = |what: String| match &named {
            Some(span) => sources.at(span.clone(), what),
            None => BadInput(what),
        };
        let place = path.canonicalize().unwrap_or_else(|_| path.clone());
        if seen.contains(&place) {
            return Err(fail(format!("a recipe cannot extend itself: {} was already read", path.display())));
        }
        if seen.len() == MOST_FILES {
            return Err(fail(format!("a recipe consists of at most {MOST_FILES} files")));
        }
        let text = read_file(&path, "recipe").map_err(|e| fail(e.0))?;
        seen.push(place);
        let (start, text) = sources.add(path.display().to_string(), text);
        let table = parse(sources, &text)?;
        if table.is_empty() {
            let what = "the recipe is empty\na recipe needs at least `name`, [model], [task] and [ppo]";
            return Err(sources.at(start..start, what));
        }
        next = match table.get(EXTENDS) {
            None => None,
            Some(value) => {
                let base = value.get_ref().as_str().ok_or_else(|| {
                    let what = "`extends` names another recipe by its relative path: expected a quoted string";
                    sources.at(value.span(), what)
                })?;
                Some((path.with_file_name(base), Some(value.span())))
            }
        };
        texts.push(text);
    }
    Ok(texts)
}

fn parse<'a>(sources: &Sources, text: &'a str) -> Result<DeTable<'a>, BadInput> {
    Ok(DeTable::parse(text).map_err(|e| sources.parse_error(&e))?.into_inner())
}

/// One override, whose key begins at `from`, as a table; a value that is not valid TOML is taken as a string.
fn parse_override<'a>(sources: &Sources, from: usize, text: &'a str) -> Result<DeTable<'a>, BadInput> {
    let fail = |span, what: &str| Err(sources.at(span, what));
    if text.contains(['\n', '\r']) {
        return fail(from..text.len(), "an override is a single line\nuse --set once per key");
    }
    let Some(equals) = text[from..].find('=').map(|at| from + at) else {
        return fail(from..text.len(), "an override has the form KEY=VALUE\nfor example --set ppo.kl_coef=0.01");
    };
    let key = text[from..equals].trim();
    let bare = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
    if !key.split('.').all(bare) {
        return fail(from..equals, "an override begins with a key\nfor example --set ppo.kl_coef=0.01");
    }
    if key.split('.').count() > MOST_PARTS {
        return fail(from..equals, &format!("a key has at most {MOST_PARTS} parts"));
    }
    let value = text[equals + 1..].trim();
    if value.is_empty() {
        return fail(equals..equals + 1, "the override has no value\nan empty string is written '\"\"'");
    }
    match DeTable::parse(text) {
        Ok(table) => Ok(table.into_inner()),
        // A value that opens a quote or a bracket was meant as TOML.
        Err(e) if value.starts_with(['"', '\'', '[', '{']) => Err(sources.parse_error(&e)),
        Err(_) => {
            let span = text.len() - text[equals + 1..].trim_start().len()..text.trim_end().len();
            let mut value = Spanned::new(span, DeValue::String(value.into()));
            for part in key.split('.').rev() {
                let table = DeTable::from_iter([(Spanned::new(from..equals, part.into()), value)]);
                value = Spanned::new(from..equals, DeValue::Table(table));
            }
            match value.into_inner() {
                DeValue::Table(table) => Ok(table),
                _ => Ok(DeTable::new()),
            }
        }
    }
}

/// Moves each override of a section's `kind` before those of its other keys, which a new kind would drop.
fn kinds_first(sets: &mut [(usize, String)]) {
    for at in 0..sets.len() {
        let (from, set) = &sets[at];
        let key = set[*from..].split('=').next().unwrap_or_default().trim();
        let Some(section) = key.strip_suffix("kind").filter(|section| section.ends_with('.')) else { continue };
        let inside = |(from, set): &(usize, String)| set[*from..].trim_start().starts_with(section);
        if let Some(first) = sets[..at].iter().position(inside) {
            sets[first..=at].rotate_right(1);
        }
    }
}

/// Merges `over` into `base`: tables are merged, anything else is replaced, as is a table of another `kind`.
fn merge<'a>(base: &mut DeTable<'a>, over: DeTable<'a>) {
    let is_another = |below: &DeTable, above: &DeTable| {
        let kind = |table: &DeTable| table.get("kind").and_then(|kind| kind.get_ref().as_str().map(str::to_string));
        kind(above).is_some_and(|above| kind(below).is_some_and(|below| below != above))
    };
    for (key, value) in over {
        let span = value.span();
        if value.get_ref().as_str() == Some(UNSET) {
            base.remove(key.get_ref().as_ref());
            continue;
        }
        match (base.get_mut(key.get_ref().as_ref()).map(Spanned::get_mut), value.into_inner()) {
            (Some(DeValue::Table(below)), DeValue::Table(above)) if !is_another(below, &above) => merge(below, above),
            (_, value) => {
                // Removed first: the map would keep the old key, with its span in the file.
                base.remove(key.get_ref().as_ref());
                base.insert(key, Spanned::new(span, value));
            }
        }
    }
}

fn read_file(path: &Path, what: &str) -> Result<String, BadInput> {
    let shown = path.display();
    if path.is_dir() {
        let inside = entries(path).into_iter().find(|name| name.ends_with(".toml"));
        let hint = inside.map_or(String::new(), |name| format!("; did you mean {}?", path.join(name).display()));
        return Err(BadInput(format!("{shown} is a folder, expected a {what}{hint}")));
    }
    crate::read_text(path, WRITTEN).map_err(|error| match error.kind() {
        ErrorKind::NotFound => BadInput(format!("there is no {what} {shown}{}", similar(path))),
        _ => BadInput(format!("the {what} {shown} cannot be read: {error}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_comes_before_the_other_keys_of_its_section() {
        let mut sources = Sources::default();
        let all = ["seed=1", "a.b.path=x", "a.bkind=2", "a.b.kind=file", "sft=unset", "a.kind=z", "hooks.kind=y"];
        let mut sets: Vec<_> = all.iter().map(|set| sources.add_override(set)).collect();
        kinds_first(&mut sets);
        let texts: Vec<&str> = sets.iter().map(|(from, set)| &set[*from..]).collect();
        let ordered = ["seed=1", "a.kind=z", "a.b.kind=file", "a.b.path=x", "a.bkind=2", "sft=unset", "hooks.kind=y"];
        assert_eq!(texts, ordered);
    }
}
