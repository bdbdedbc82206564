//! Whether a file has the shape that its keys declare: names, types, bounds. The first error in the files is
//! reported; missing keys come last.

use super::keys::MOST;
use super::schema::{Key, Kind, Section};
use super::source::{COMMAND_LINE, Sources};
use super::spelling::{advice, nearest};
use crate::BadInput;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

/// Checks a whole recipe, or another file, whose keys are those of `root`.
///
/// # Errors
/// The first error.
pub fn check(sources: &Sources, root: &Section, table: &DeTable) -> Result<(), BadInput> {
    let mut walk = Walk { sources, first: None };
    walk.section("", root, table, 0..0);
    let Some(Wrong { span, what, .. }) = walk.first else { return Ok(()) };
    let what = match what {
        What::Said(what) => what,
        What::Unknown { path, key, what } => format!("{what}\n{}", advice(root, &path, &key)),
    };
    Err(sources.at(span, what))
}

/// A walk through a file's tables.
struct Walk<'a> {
    sources: &'a Sources,
    /// The first error so far.
    first: Option<Wrong>,
}

struct Wrong {
    position: usize,
    span: Range<usize>,
    what: What,
}

/// What is said about an error. Advice takes a look at all keys, and is given to the first error alone: a file of
/// nothing but unknown keys would take minutes otherwise.
enum What {
    Said(String),
    Unknown { path: String, key: String, what: String },
}

const TEXT: &str = "a quoted string";

impl Walk<'_> {
    fn wrong(&mut self, span: Range<usize>, what: String) {
        self.wrong_at(span.start, span, What::Said(what));
    }

    fn wrong_at(&mut self, position: usize, span: Range<usize>, what: What) {
        if self.first.as_ref().is_none_or(|first| position < first.position) {
            self.first = Some(Wrong { position, span, what });
        }
    }

    /// Checks a table, whose header is at `header`.
    fn section(&mut self, path: &str, section: &Section, table: &DeTable, header: Range<usize>) {
        for (name, value) in table {
            match section.key(name.get_ref()) {
                Some(key) => self.value(&join(path, &key.name), &key.kind, name.span(), value),
                None => self.unknown(path, name, value),
            }
        }
        for key in section.keys.iter().filter(|key| key.required && !table.contains_key(key.name.as_str())) {
            self.missing(path, key, header.clone());
        }
    }

    fn unknown(&mut self, path: &str, name: &Spanned<std::borrow::Cow<str>>, value: &Spanned<DeValue>) {
        let key = name.get_ref();
        let place = if path.is_empty() { String::new() } else { format!(" in [{path}]") };
        let what = if path.is_empty() && value.get_ref().is_table() {
            format!("section [{key}]")
        } else {
            format!("key `{key}`")
        };
        let (path, key, what) = (path.to_string(), key.to_string(), format!("unknown {what}{place}"));
        self.wrong_at(name.span().start, name.span(), What::Unknown { path, key, what });
    }

    fn missing(&mut self, path: &str, key: &Key, header: Range<usize>) {
        let place = if path.is_empty() { String::new() } else { format!(" in [{path}]") };
        let (what, hint) = match &key.kind {
            Kind::Section(_) => ("section", String::new()),
            Kind::Variants(variants) => {
                let kinds: Vec<String> = variants.iter().map(|(kind, _)| format!("\"{kind}\"")).collect();
                ("section", format!("\nwrite [{}] with kind = {}", join(path, &key.name), kinds.join(" or ")))
            }
            kind => ("key", format!("\nexpected {}", expected(kind))),
        };
        self.wrong_at(usize::MAX, header, What::Said(format!("missing {what} `{}`{place}{hint}", key.name)));
    }

    fn value(&mut self, path: &str, kind: &Kind, key: Range<usize>, value: &Spanned<DeValue>) {
        let (span, found) = (value.span(), value.get_ref());
        match (kind, found) {
            (Kind::Section(section), DeValue::Table(table)) => self.section(path, section, table, key),
            (Kind::Variants(variants), DeValue::Table(table)) => self.variant(path, variants, table, key),
            (Kind::Named(section), DeValue::Table(table)) => {
                for (name, value) in table {
                    match value.get_ref() {
                        DeValue::Table(entry) => self.section(&join(path, name.get_ref()), section, entry, name.span()),
                        _ => self.wrong(name.span(), format!("expected a section [{path}.NAME] with a name of yours")),
                    }
                }
            }
            (Kind::Section(_) | Kind::Variants(_) | Kind::Named(_), _) => {
                let how = format!("write [{path}] on its own line and its keys below it");
                self.wrong(key, format!("`{path}` is a section\n{how}"));
            }
            (_, DeValue::Table(_)) => {
                self.wrong(key, format!("`{path}` is a key with a value, not a section"));
            }
            (Kind::Bool, DeValue::Boolean(_)) | (Kind::Text, DeValue::String(_)) => {}
            (Kind::Choice(words), DeValue::String(word)) => self.choice(path, words, word, span),
            (Kind::Integer { least, most }, DeValue::Integer(number)) => {
                let value = integer(number);
                let expected = match value {
                    Some(value) if value < i128::from(*least) => format!("at least {least}"),
                    Some(value) if value <= i128::from(*most) => return,
                    _ => format!("at most {most}"),
                };
                self.wrong(span, format!("`{path}` is {number}, expected a whole number of {expected}"));
            }
            (Kind::Number { least, above, most }, DeValue::Integer(_) | DeValue::Float(_)) => {
                let number = match found {
                    DeValue::Integer(number) => integer(number).map(|n| n as f64),
                    DeValue::Float(number) => number.as_str().parse().ok(),
                    _ => None,
                };
                let inside = |n: f64| (*least..=*most).contains(&n) && !(*above && n == *least);
                match number {
                    Some(n) if inside(n) => {}
                    _ => {
                        let plain = |n: f64| n == 0.0 || !n.is_finite() || (1e-6..1e15).contains(&n.abs());
                        let shown = |n: f64| if plain(n) { n.to_string() } else { format!("{n:e}") };
                        let shown = number.map_or("not a number".into(), shown);
                        let expected = bounds("a number", *least, *above, *most);
                        self.wrong(span, format!("`{path}` is {shown}, expected {expected}"));
                    }
                }
            }
            (Kind::List { of, length }, DeValue::Array(items)) => {
                if length.is_some_and(|length| items.len() != length) {
                    let (found, expected) = (items.len(), expected(kind));
                    let entries = if found == 1 { "entry" } else { "entries" };
                    self.wrong(span, format!("`{path}` has {found} {entries}, expected {expected}"));
                }
                for item in items {
                    self.value(path, of, item.span(), item);
                }
            }
            _ => {
                let on_command_line = self.sources.label(&span) == Some(COMMAND_LINE);
                let quotes = matches!(kind, Kind::Text) && on_command_line;
                let hint = if quotes { "\nthe shell needs both kinds of quotes: '\"...\"'" } else { "" };
                let (found, expected) = (describe(found), expected(kind));
                self.wrong(span, format!("`{path}` has the wrong type: {found}, expected {expected}{hint}"));
            }
        }
    }

    fn variant(&mut self, path: &str, variants: &[(String, Section)], table: &DeTable, header: Range<usize>) {
        let words: Vec<(String, String)> =
            variants.iter().map(|(name, section)| (name.clone(), section.about.clone())).collect();
        let Some(kind) = table.get("kind") else {
            // A misspelt `kind` is an unknown key.
            let known = |name: &str| variants.iter().any(|(_, section)| section.key(name).is_some());
            for (name, value) in table.iter().filter(|(name, _)| !known(name.get_ref())) {
                self.unknown(path, name, value);
            }
            let expected = expected(&Kind::Choice(words));
            let what = format!("missing key `kind` in [{path}]\nexpected {expected}");
            self.wrong_at(usize::MAX, header, What::Said(what));
            return;
        };
        let word = kind.get_ref().as_str().unwrap_or_default();
        match variants.iter().find(|(name, _)| name == word) {
            Some((_, section)) => self.section(path, section, table, header),
            None => self.value(&join(path, "kind"), &Kind::Choice(words), kind.span(), kind),
        }
    }

    fn choice(&mut self, path: &str, words: &[(String, String)], word: &str, span: Range<usize>) {
        let known = || words.iter().map(|(word, _)| word.as_str());
        if !known().any(|known| known == word) {
            let help = nearest(word, known()).map_or(String::new(), |near| format!("did you mean \"{near}\"? "));
            let all = known().collect::<Vec<_>>().join(", ");
            self.wrong(span, format!("`{path}` cannot be \"{word}\"\n{help}expected one of: {all}"));
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.into() } else { format!("{path}.{key}") }
}

fn integer(number: &DeInteger) -> Option<i128> {
    i128::from_str_radix(number.as_str(), number.radix()).ok()
}

/// What a key holds, in words.
pub fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Bool => "true or false".into(),
        Kind::Text => TEXT.into(),
        // The bound that all counts share is not worth showing.
        Kind::Integer { least, most: MOST } => bounds("a whole number", *least as f64, false, f64::INFINITY),
        Kind::Integer { least, most } => bounds("a whole number", *least as f64, false, *most as f64),
        Kind::Number { least, above, most } => bounds("a number", *least, *above, *most),
        Kind::Choice(words) => {
            let words: Vec<&str> = words.iter().map(|(word, _)| word.as_str()).collect();
            if words.len() == 1 { format!("\"{}\"", words[0]) } else { format!("one of: {}", words.join(", ")) }
        }
        Kind::List { of, length } => {
            let items = match &**of {
                Kind::Integer { .. } => "whole numbers".into(),
                Kind::Number { .. } => "numbers".into(),
                Kind::Text => "quoted strings".into(),
                of => expected(of),
            };
            let two = if *length == Some(2) { "two " } else { "" };
            format!("a list of {two}{items}")
        }
        Kind::Section(_) | Kind::Variants(_) | Kind::Named(_) => "a section".into(),
    }
}

fn bounds(what: &str, least: f64, above: bool, most: f64) -> String {
    let least_shown = least.is_finite() && least > i64::MIN as f64;
    let most_shown = most.is_finite() && most < i64::MAX as f64;
    match (above, least_shown, most_shown) {
        (true, _, true) => format!("{what} above {least} and at most {most}"),
        (true, _, false) => format!("{what} above {least}"),
        (false, true, true) => format!("{what} from {least} to {most}"),
        (false, true, false) => format!("{what} of at least {least}"),
        (false, false, true) => format!("{what} up to {most}"),
        (false, false, false) => what.into(),
    }
}

/// A value of the wrong type, in words.
fn describe(value: &DeValue) -> String {
    match value {
        DeValue::String(text) => format!("string \"{text}\""),
        DeValue::Integer(number) => format!("integer {}", number.as_str()),
        DeValue::Float(number) => format!("number {}", number.as_str()),
        DeValue::Boolean(yes) => format!("boolean {yes}"),
        DeValue::Datetime(date) => format!("date {date}"),
        DeValue::Array(_) => "a list".into(),
        DeValue::Table(_) => "a table".into(),
    }
}
