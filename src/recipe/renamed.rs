//! Spellings of an earlier version, still accepted in this one: each is moved to its new place, with a note.

use super::keys::Ppo;
use std::cell::OnceCell;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Old and new names of sections and keys.
const RENAMED: [(&str, &str); 10] = [
    ("device.device", "machine.device"),
    ("device.precision", "machine.precision"),
    ("device.threads", "machine.threads"),
    ("rollout.stop_tokens", "rollout.stop"),
    ("reward.allow_equals", "task.allow_equals"),
    ("sft.style", "sft.data.style"),
    ("sft.tries", "sft.data.tries"),
    ("sft.insight", "sft.data.insight"),
    ("sft.validation_data", "sft.data.validation"),
    ("sft.warmup", "sft.warmup_ratio"),
];

/// The value that takes a key out again, so that its default applies; not the name of a file.
pub const UNSET: &str = "unset";

/// Renames the keys of a file or an override. If it has both spellings of a key, the old one stays, and is unknown.
pub fn rename(table: &mut DeTable, notes: &mut Vec<String>) {
    spell_out_data(table, notes);
    for (old, new) in RENAMED {
        if find(table, new).is_none()
            && let Some((span, value)) = take(table, old)
        {
            put(table, new, span, value);
            notes.push(format!("note: `{old}` is now called `{new}`"));
        }
    }
    if find(table, "device").and_then(|device| device.get_ref().as_table()).is_some_and(DeTable::is_empty) {
        table.remove("device");
    }
}

/// Removes what a `layer` on top of `table` sets in the other spelling of the warm-up.
pub fn supersede(table: &mut DeTable, layer: &DeTable) {
    for (one, other) in [(WARMUP_STEPS, WARMUP_RATIO), (WARMUP_RATIO, WARMUP_STEPS)] {
        if find(layer, one).is_some() {
            take(table, other);
        }
    }
}

const WARMUP_STEPS: &str = "ppo.lr_warmup_steps";
const WARMUP_RATIO: &str = "ppo.warmup_ratio";

/// Turns `sft.data = "solver"` and `sft.data = "FILE"` into the sections that replaced them.
fn spell_out_data(table: &mut DeTable, notes: &mut Vec<String>) {
    let text = find(table, "sft.data").and_then(|value| value.get_ref().as_str());
    let is_text = text.is_some_and(|text| text != UNSET);
    let Some((key, value)) = is_text.then(|| take(table, "sft.data")).flatten() else { return };
    let span = value.span();
    let kind = if value.get_ref().as_str() == Some("solver") { "solver" } else { "file" };
    put(table, "sft.data.kind", key.clone(), Spanned::new(span, DeValue::String(kind.into())));
    let path = if kind == "file" { " and `path`" } else { "" };
    if kind == "file" {
        put(table, "sft.data.path", key, value);
    }
    notes.push(format!("note: `sft.data` is now a section [sft.data] with `kind = \"{kind}\"`{path}"));
}

/// Turns `ppo.lr_warmup_steps` into a share of the steps; `text` holds the resulting number.
pub fn warmup_as_ratio<'a>(table: &mut DeTable<'a>, text: &'a OnceCell<String>, notes: &mut Vec<String>) {
    let number = |table: &DeTable, key| match find(table, key)?.get_ref() {
        DeValue::Integer(number) => number.as_str().parse::<u32>().ok(),
        _ => None,
    };
    let Some(warmup) = number(table, WARMUP_STEPS).filter(|_| find(table, WARMUP_RATIO).is_none()) else { return };
    let steps = number(table, "ppo.steps").map_or_else(default_steps, f64::from);
    let ratio = text.get_or_init(|| format!("{:?}", f64::from(warmup) / steps.max(1.0)));
    let parsed = DeValue::parse(ratio);
    if let (Some((span, old)), Ok(value)) = (take(table, WARMUP_STEPS), parsed) {
        notes.push(format!("note: `ppo.lr_warmup_steps = {warmup}` is now `ppo.warmup_ratio = {ratio}`"));
        put(table, WARMUP_RATIO, span, Spanned::new(old.span(), value.into_inner()));
    }
}

fn default_steps() -> f64 {
    toml::from_str::<Ppo>("").map_or(1.0, |ppo| ppo.steps as f64)
}

fn find<'t, 'a>(table: &'t DeTable<'a>, path: &str) -> Option<&'t Spanned<DeValue<'a>>> {
    match path.split_once('.') {
        None => table.get(path),
        Some((section, rest)) => find(table.get(section)?.get_ref().as_table()?, rest),
    }
}

/// Removes a key; returns where it was written, and its value.
fn take<'a>(table: &mut DeTable<'a>, path: &str) -> Option<(Range<usize>, Spanned<DeValue<'a>>)> {
    match path.split_once('.') {
        None => table.remove_entry(path).map(|(key, value)| (key.span(), value)),
        Some((section, rest)) => match table.get_mut(section)?.get_mut() {
            DeValue::Table(inner) => take(inner, rest),
            _ => None,
        },
    }
}

/// Sets a key that was written at `span`.
fn put<'a>(table: &mut DeTable<'a>, path: &'static str, span: Range<usize>, value: Spanned<DeValue<'a>>) {
    match path.split_once('.') {
        None => {
            table.insert(Spanned::new(span, path.into()), value);
        }
        Some((section, rest)) => {
            if table.get(section).is_none() {
                let empty = Spanned::new(span.clone(), DeValue::Table(DeTable::new()));
                table.insert(Spanned::new(span.clone(), section.into()), empty);
            }
            if let Some(DeValue::Table(inner)) = table.get_mut(section).map(Spanned::get_mut) {
                put(inner, rest, span, value);
            }
        }
    }
}
