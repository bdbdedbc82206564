//! Where every value of a recipe was written, and messages that show it.
//!
//! The recipe's files and its overrides share one range of positions, one after another, so that a span identifies the
//! text it is from. Values keep their spans through the merge and into serde, so that serde's errors point at the file
//! or the override; the checks name a key, and its span is looked up.

use crate::BadInput;
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::Range;
use toml::de::DeTable;

/// The texts of a recipe, and where each key is in them.
#[derive(Clone, Default)]
pub struct Sources {
    origins: Vec<Origin>,
    spots: BTreeMap<String, Spot>,
    /// What the user should know about the recipe's spelling.
    pub notes: Vec<String>,
}

/// A file, or an override as given on the command line.
#[derive(Clone)]
struct Origin {
    label: String,
    text: String,
    /// Position of its first byte among all texts.
    start: usize,
}

/// Where a key and its value are.
#[derive(Clone)]
struct Spot {
    key: Range<usize>,
    value: Range<usize>,
    is_table: bool,
}

impl Sources {
    /// Adds a file; returns where it starts among all texts, and its text padded on the left, so that parsing it yields
    /// spans among all texts.
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

    /// Records where the keys of the whole recipe are.
    pub fn locate(&mut self, table: &DeTable<'_>) {
        collect(&mut self.spots, "", table);
    }

    /// The message that the value of `key` (`section.key`, a section, or `""` for the recipe as a whole) is wrong: it
    /// shows where the key was written, else its section, else the top of the file. The first line of `what` says what
    /// is wrong, the others what to do.
    pub fn bad(&self, key: &str, what: impl Display) -> BadInput {
        let section = key.rsplit_once('.').map_or("", |(section, _)| section);
        let spot = [key, section].iter().find_map(|path| self.spots.get(*path));
        let span = spot.map_or(0..0, |spot| if spot.is_table { spot.key.clone() } else { spot.value.clone() });
        if key.is_empty() || self.spots.contains_key(key) {
            return self.at(span, what);
        }
        let what = what.to_string();
        let end = if what.contains('\n') { "; " } else { "\n" };
        self.at(span, format!("{what}{end}`{key}` is not set in the recipe, so its default applies"))
    }

    /// The sources for a check of the section `within.NAME` that knows it as `NAME`.
    pub fn under(&self, within: &str) -> Self {
        let inner = |(key, spot): (&String, &Spot)| {
            let inner = key.strip_prefix(within).and_then(|rest| rest.strip_prefix('.'));
            inner.map(|inner| (inner.to_string(), spot.clone()))
        };
        Self { spots: self.spots.iter().filter_map(inner).collect(), ..self.clone() }
    }

    /// Whether a key is set in a file or an override.
    pub fn has(&self, key: &str) -> bool {
        self.spots.contains_key(key)
    }

    /// `Err(self.bad(..))` unless `good`.
    pub fn ensure(&self, good: bool, key: &str, what: impl Display) -> Result<(), BadInput> {
        if good { Ok(()) } else { Err(self.bad(key, what)) }
    }

    /// A syntax error of TOML.
    pub fn parse_error(&self, error: &toml::de::Error) -> BadInput {
        self.at(error.span().unwrap_or(0..0), format!("this is not valid TOML: {}", error.message()))
    }

    /// Any error that serde finds in a recipe whose shape is right.
    pub fn other_error(&self, error: &toml::de::Error) -> BadInput {
        self.at(error.span().unwrap_or(0..0), error.message())
    }

    /// The file, or `COMMAND_LINE`, that a span is from.
    pub fn label(&self, span: &Range<usize>) -> Option<&str> {
        Some(self.origin(span)?.label.as_str())
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
        // Of a value of many lines, only the first is shown.
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
        spots.insert(path, Spot { key: key.span(), value: value.span(), is_table: inner.is_some() });
    }
}

const SET: &str = "--set ";
pub const COMMAND_LINE: &str = "command line";
