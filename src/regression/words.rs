//! The words of a formula, each with its place.

use crate::BadInput;
use crate::recipe::Sources;
use std::fmt;
use std::ops::Range;

/// Longest formula, in bytes.
pub const MAX_LENGTH: usize = 4096;

/// What is wrong with a part of a formula.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Bytes of the formula.
    pub span: Range<usize>,
    /// What is wrong, and in further lines what to do.
    pub what: String,
}

impl Fault {
    pub fn new(span: &Range<usize>, what: impl Into<String>) -> Self {
        Self { span: span.clone(), what: what.into() }
    }

    /// The message, with a caret in the text that was given as `option`.
    pub fn shown(&self, option: &str, text: &str) -> BadInput {
        let mut sources = Sources::default();
        let before = format!("{option} ");
        sources.add("command line".into(), format!("{before}{text}"));
        sources.at(self.span.start + before.len()..self.span.end + before.len(), &self.what)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.what)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// A column or a function, without the backquotes that it may have been in.
    Name(String),
    /// A column, as it was in backquotes.
    Quoted(String),
    Text(String),
    /// As it is written: `0`, `12.5`.
    Number(String),
    Arrow,
    /// `~`, `|`, `+`, `-`, `:`, `*`, `(`, `)`, `,`, `=`
    Sign(char),
    End,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Name(name) | Self::Quoted(name) => write!(f, "`{name}`"),
            Self::Text(text) => write!(f, "\"{text}\""),
            Self::Number(number) => f.write_str(number),
            Self::Arrow => f.write_str("`->`"),
            Self::Sign(sign) => write!(f, "`{sign}`"),
            Self::End => f.write_str("the end"),
        }
    }
}

/// A word and the bytes that it takes.
pub type Placed = (Word, Range<usize>);

/// Whether a name can be written without backquotes.
pub fn is_plain(name: &str) -> bool {
    let mut all = name.chars();
    all.next().is_some_and(|first| first.is_alphabetic() || first == '_') && all.all(is_inner)
}

fn is_inner(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '.'
}

/// The words of a formula, `End` last.
///
/// # Errors
/// It is too long, or has a character that begins no word, or quotes that are not closed.
pub fn words(text: &str) -> Result<Vec<Placed>, Fault> {
    if text.len() > MAX_LENGTH {
        let end = text.floor_char_boundary(40);
        return Err(Fault::new(
            &(0..end),
            format!("a formula has at most {MAX_LENGTH} bytes, this has {}", text.len()),
        ));
    }
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        // The bytes while characters are of a kind.
        let run = |is: fn(char) -> bool| rest.find(|c| !is(c)).unwrap_or(rest.len());
        let (word, length) = match first {
            ' ' | '\t' | '\n' | '\r' => {
                at += 1;
                continue;
            }
            '`' | '"' | '\'' => {
                let Some(end) = rest[1..].find(first) else {
                    return Err(Fault::new(&(at..text.len()), format!("this {first} is not closed")));
                };
                let inner = rest[1..=end].to_string();
                (if first == '`' { Word::Quoted(inner) } else { Word::Text(inner) }, end + 2)
            }
            '-' if rest.starts_with("->") => (Word::Arrow, 2),
            '~' | '|' | '+' | '-' | ':' | '*' | '(' | ')' | ',' | '=' => (Word::Sign(first), 1),
            _ if first.is_ascii_digit() => {
                let length = run(|c| c.is_ascii_digit() || c == '.');
                (Word::Number(rest[..length].into()), length)
            }
            _ if first.is_alphabetic() || first == '_' => {
                let length = run(is_inner);
                (Word::Name(rest[..length].into()), length)
            }
            other => {
                let span = at..at + other.len_utf8();
                let shown = other.escape_debug();
                return Err(Fault::new(
                    &span,
                    format!("`{shown}` has no meaning here\nput names with such characters in backquotes: `a{shown}b`"),
                ));
            }
        };
        found.push((word, at..at + length));
        at += length;
    }
    found.push((Word::End, text.len()..text.len()));
    Ok(found)
}
