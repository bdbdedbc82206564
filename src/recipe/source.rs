//! Where every value of a recipe was written, and messages that show it.
//!
//! The recipe's files and its overrides lie one after another in one range of positions, so that a span tells by itself
//! which of them it is from. Values keep their spans through the merge and into serde, whose errors then point at the
//! file or the override alike; the checks name a key, and its span is looked up.

use super::spelling::{advice, keys, nearest};
use crate::BadInput;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use toml::de::DeTable;

/// The texts of a recipe, and where each key stands in them.
#[derive(Default)]
pub struct Sources {
    origins: Vec<Origin>,
    spots: BTreeMap<String, Spot>,
}

/// A file, or an override as it stood on the command line.
struct Origin {
    label: String,
    text: String,
    /// Position of its first byte among all texts.
    start: usize,
}

/// Where a key and its value stand.
struct Spot {
    key: Range<usize>,
    value: Range<usize>,
    is_table: bool,
    /// Entries of a list.
    items: usize,
}

impl Sources {
    /// Takes up a file; returns where it starts among all texts, and it padded on the left, so that what is parsed of it
    /// has spans among all texts.
    pub fn add(&mut self, label: String, text: String) -> (usize, String) {
        let start = self.origins.last().map_or(0, |last| last.start + last.text.len() + 1);
        let padded = " ".repeat(start) + &text;
        self.origins.push(Origin { label, text, start });
        (start, padded)
    }

    /// The same for an override, which starts after its `--set`.
    pub fn add_override(&mut self, text: &str) -> (usize, String) {
        let (start, padded) = self.add(COMMAND_LINE.into(), format!("{SET}{text}"));
        (start + SET.len(), " ".repeat(start + SET.len()) + &padded[start + SET.len()..])
    }

    /// Notes where the keys of the whole recipe stand.
    pub fn locate(&mut self, table: &DeTable<'_>) {
        collect(&mut self.spots, "", table);
    }

    /// Refuses sections and keys that no recipe has, and sections that are values or the other way round.
    pub fn check_names(&self) -> Result<(), BadInput> {
        let mut spots: Vec<_> = self.spots.iter().collect();
        // As they are read; of a section and its keys the section first.
        spots.sort_by_key(|(path, spot)| (spot.key.start, path.len()));
        for (path, spot) in spots {
            let (section, key) = path.split_once('.').unwrap_or(("", path));
            let is_section = section.is_empty() && !keys(key).is_empty();
            let what = if keys(section).contains(&key) {
                match (is_section, spot.is_table) {
                    (true, false) => {
                        format!("`{key}` is a section\nwrite [{key}] on a line of its own and its keys below")
                    }
                    (false, true) => format!("`{path}` is a key with a value, not a section"),
                    _ => continue,
                }
            } else if keys(section).is_empty() || key.contains('.') {
                // What holds it is refused itself.
                continue;
            } else if section.is_empty() {
                let what = if spot.is_table { format!("section [{key}]") } else { format!("key `{key}`") };
                format!("unknown {what}\n{}", advice("", key))
            } else {
                format!("unknown key `{key}` in [{section}]\n{}", advice(section, key))
            };
            return Err(self.at(spot.key.clone(), what));
        }
        Ok(())
    }

    /// The message that the value of `key` (`section.key`, a section, or `""` for the recipe as a whole) is not right:
    /// it shows where the key was written, else its section, else the file's top. The first line of `what` says what
    /// is wrong, the others what to do.
    pub fn bad(&self, key: &str, what: impl Display) -> BadInput {
        let section = key.split_once('.').map_or("", |(section, _)| section);
        let spot = [key, section].iter().find_map(|path| self.spots.get(*path));
        let span = spot.map_or(0..0, |spot| if spot.is_table { spot.key.clone() } else { spot.value.clone() });
        if key.is_empty() || self.spots.contains_key(key) {
            return self.at(span, what);
        }
        let what = what.to_string();
        let end = if what.contains('\n') { "; " } else { "\n" };
        self.at(span, format!("{what}{end}`{key}` is not written in the recipe, so its default counts"))
    }

    /// Whether a key is written in the file or an override.
    pub fn has(&self, key: &str) -> bool {
        self.spots.contains_key(key)
    }

    /// Entries of the list that a key is set to (0: no list, or the default).
    pub fn items(&self, key: &str) -> usize {
        self.spots.get(key).map_or(0, |spot| spot.items)
    }

    /// `Err(self.bad(..))` unless `good`.
    pub fn ensure(&self, good: bool, key: &str, what: impl Display) -> Result<(), BadInput> {
        if good { Ok(()) } else { Err(self.bad(key, what)) }
    }

    /// A syntax error of TOML.
    pub fn parse_error(&self, error: &toml::de::Error) -> BadInput {
        self.at(error.span().unwrap_or(0..0), format!("this is no TOML: {}", error.message()))
    }

    /// A value of the wrong type, a name that is none of those allowed, a key that is missing.
    pub fn type_error(&self, error: &toml::de::Error) -> BadInput {
        let span = error.span().unwrap_or(0..0);
        let path = self.path_of(&span);
        let message = error.message();
        let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
        let what = if let ([missing, ..], true) = (&quoted[..], message.starts_with("missing field")) {
            let place = if path.is_empty() { String::new() } else { format!(" in [{path}]") };
            let kind = if path.is_empty() && !keys(missing).is_empty() { "section" } else { "key" };
            format!("missing {kind} `{missing}`{place}")
        } else if let ([wrong, allowed @ ..], true) = (&quoted[..], message.starts_with("unknown variant")) {
            let help = match nearest(wrong, allowed) {
                Some(known) => format!("did you mean \"{known}\"? "),
                None => String::new(),
            };
            format!("`{path}` cannot be \"{wrong}\"\n{help}expected one of: {}", allowed.join(", "))
        } else if let ([wrong, ..], true) = (&quoted[..], message.starts_with("unknown field")) {
            format!("unknown key `{wrong}`\n{}", advice("", wrong))
        } else {
            let (found, expected) = message.rsplit_once(", expected ").unwrap_or((message, ""));
            let found = found.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
            let found = found.replace('`', "").replace("floating point", "number");
            let found = if found == "map" { "a table" } else { &found };
            match plain(expected) {
                "" if message.starts_with("wanted string") => format!("`{path}` is of the wrong type, expected {TEXT}"),
                "" => format!("`{path}` is of the wrong type: {message}"),
                TEXT if self.origin(&span).is_some_and(|origin| origin.label == COMMAND_LINE) => {
                    format!("`{path}` is of the wrong type: {found}, expected {TEXT}\nthe shell wants both: '\"...\"'")
                }
                expected => format!("`{path}` is of the wrong type: {found}, expected {expected}"),
            }
        };
        self.at(span, what)
    }

    /// The innermost key whose value covers a span.
    fn path_of(&self, span: &Range<usize>) -> &str {
        let covers = |s: &Range<usize>| s.start <= span.start && span.end <= s.end;
        let found = self.spots.iter().filter(|(_, spot)| covers(&spot.value) || covers(&spot.key));
        found.max_by_key(|(path, spot)| (spot.value.start, path.len())).map_or("", |(path, _)| path)
    }

    /// The text that a span is from.
    fn origin(&self, span: &Range<usize>) -> Option<&Origin> {
        self.origins.iter().rfind(|origin| origin.start <= span.start)
    }

    /// A message about one place: file, line, caret.
    pub fn at(&self, span: Range<usize>, what: impl Display) -> BadInput {
        let what = what.to_string();
        let (title, help) = what.split_once('\n').map_or((what.as_str(), None), |(title, help)| (title, Some(help)));
        let Some(origin) = self.origin(&span) else {
            return BadInput(what);
        };
        let inside =
            |at: usize| origin.text.floor_char_boundary(at.saturating_sub(origin.start).min(origin.text.len()));
        let (start, end) = (inside(span.start), inside(span.end));
        // A value of many lines is shown by its first.
        let end = origin.text[start..end].find(['\n', '\r']).map_or(end, |length| start + length);
        let snippet = Snippet::source(origin.text.as_str())
            .path(origin.label.as_str())
            .annotation(AnnotationKind::Primary.span(start..end));
        let mut group = Level::ERROR.no_name().primary_title(title).element(snippet);
        if let Some(help) = help {
            group = group.element(Level::HELP.message(help));
        }
        BadInput(Renderer::plain().render(&[group]))
    }
}

fn collect(spots: &mut BTreeMap<String, Spot>, prefix: &str, table: &DeTable<'_>) {
    for (key, value) in table {
        let path = format!("{prefix}{}", key.get_ref());
        let inner = value.get_ref().as_table();
        if let Some(inner) = inner {
            collect(spots, &format!("{path}."), inner);
        }
        let items = value.get_ref().as_array().map_or(0, |list| list.len());
        spots.insert(path, Spot { key: key.span(), value: value.span(), is_table: inner.is_some(), items });
    }
}

const SET: &str = "--set ";
const COMMAND_LINE: &str = "command line";
const TEXT: &str = "a text in quotes";

/// serde's names of types, for people who write no Rust.
fn plain(expected: &str) -> &str {
    match expected {
        "usize" | "u64" => "a whole number from 0 on",
        "i64" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" => TEXT,
        "a sequence" => "a list",
        "an array of length 2" => "a list of two",
        _ if expected.starts_with("struct ") => "a section",
        _ if expected.contains("enum") || expected.contains("variant") => "a name in quotes",
        other => other,
    }
}
