//! JSON that other programs wrote, and what is said about it if it is broken.
//!
//! Decided: a key that is there twice is refused, at every depth: of two values, a parser would take one silently.

use crate::{WHOLE, bad, not_fetched, read_text};
use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::path::Path;

/// Reads a file that holds an object.
///
/// # Errors
/// A file that is missing, not UTF-8 or not fetched, and those of `parse`; each with the path.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    if let Some(instead) = not_fetched(path) {
        bail!(instead);
    }
    let text = read_text(path, WHOLE).with_context(|| format!("{} cannot be read", path.display()))?;
    parse(&text).with_context(|| format!("in {}", path.display()))
}

/// Reads a file with a value in each line, of which messages say that it `is`, "an answer" for example, and which is
/// asked whether its contents are possible.
///
/// # Errors
/// Bad input: a file that cannot be read; a line that is something else, or that `check` refuses.
pub fn lines<T: DeserializeOwned>(path: &Path, is: &str, check: impl Fn(&T) -> Result<(), String>) -> Result<Vec<T>> {
    let shown = path.display();
    let text = read_text(path, WHOLE).map_err(|error| bad!("cannot read {shown}: {error}"))?;
    let line = |(line, number): (&str, usize)| {
        let parsed = serde_json::from_str(line).map_err(|error| error.to_string());
        let checked = parsed.and_then(|value: T| check(&value).map(|()| value));
        checked.map_err(|error| bad!("{shown}, line {number} is not {is}: {error}"))
    };
    text.lines().zip(1..).map(line).collect()
}

/// Parses the text of a file that holds an object.
///
/// # Errors
/// A text that is not one JSON object; a value of another type than `T` has, with its key.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    // Windows programs begin a file with a byte-order mark.
    let text = text.trim_start_matches('\u{feff}');
    let Object(object) = serde_json::from_str(text).map_err(|error| anyhow!("{error}{}", hint(text, &error)))?;
    typed(object)
}

/// An object as `T`.
///
/// # Errors
/// A value of another type than `T` has, with its key.
pub fn typed<T: DeserializeOwned>(object: Map<String, Value>) -> Result<T> {
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|error| {
        let (path, cause) = (error.path().to_string(), plain(&error.inner().to_string()));
        if path == "." { anyhow!(cause) } else { anyhow!("`{path}`: {cause}") }
    })
}

/// A number as JSON, which has none that are not finite: those are the words "NaN", "Infinity" and "-Infinity".
pub fn number(value: f64) -> Value {
    match value {
        _ if value.is_finite() => value.into(),
        _ if value.is_nan() => "NaN".into(),
        _ if value > 0.0 => "Infinity".into(),
        _ => "-Infinity".into(),
    }
}

/// serde's message with words for the types of Rust.
fn plain(message: &str) -> String {
    [("expected f64", "expected a number"), ("expected i64", "expected an integer")]
        .iter()
        .fold(message.to_string(), |message, (from, to)| message.replace(from, to))
}

/// What Python writes and JSON does not have, if the error is at such a word.
fn hint(text: &str, error: &serde_json::Error) -> String {
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let before = error.column().saturating_sub(1).min(line.len());
    let word = |c: char| c.is_ascii_alphanumeric();
    let start = line.as_bytes()[..before].iter().rposition(|byte| !word(char::from(*byte))).map_or(0, |at| at + 1);
    match ["NaN", "Infinity"].into_iter().find(|word| line.get(start..).is_some_and(|rest| rest.starts_with(word))) {
        Some(word) => format!(" (JSON has no {word})"),
        None => String::new(),
    }
}

/// A JSON object that has each of its keys once, and so have the objects in it.
pub struct Object(pub Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Object, A::Error> {
                let mut map = Map::new();
                while let Some((key, Checked(value))) = entries.next_entry::<String, Checked>()? {
                    if map.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format_args!("the key `{key}` is there twice")));
                    }
                }
                Ok(Object(map))
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// A JSON value whose objects have each of their keys once.
struct Checked(Value);

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON value")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }

            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(text.into())
            }

            fn visit_string<E>(self, text: String) -> Result<Value, E> {
                Ok(text.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
                let mut values = Vec::new();
                while let Some(Checked(value)) = list.next_element()? {
                    values.push(value);
                }
                Ok(Value::Array(values))
            }

            fn visit_map<A: MapAccess<'de>>(self, entries: A) -> Result<Value, A::Error> {
                let Object(map) = Object::deserialize(serde::de::value::MapAccessDeserializer::new(entries))?;
                Ok(Value::Object(map))
            }
        }
        deserializer.deserialize_any(Any).map(Checked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize)]
    struct File {
        number: Option<f64>,
        whole: Option<i64>,
    }

    #[test]
    fn values_are_read_as_serde_reads_them() {
        let text = r#"{"a": [null, true, -1, 18446744073709551615, 0.1, "é", {"b": {}}], "c": 1e300}"#;
        let Object(object) = serde_json::from_str(text).unwrap();
        assert_eq!(Value::Object(object), serde_json::from_str::<Value>(text).unwrap());
        let file: File = parse("\u{feff}{\"number\": 1, \"whole\": null, \"more\": []}\n").unwrap();
        assert_eq!((file.number, file.whole), (Some(1.0), None));
    }

    #[test]
    fn what_is_wrong_is_said_in_plain_words() {
        for (text, message) in [
            ("[1]", "invalid type: sequence, expected a JSON object at line 1"),
            ("", "EOF while parsing a value at line 1 column 0"),
            ("{} x", "trailing characters at line 1 column 4"),
            ("{\"a\": [{\"b\": 1, \"b\": 1}]}", "the key `b` is there twice at line 1"),
            ("{\"number\": \"1\"}", "`number`: invalid type: string \"1\", expected a number"),
            ("{\"whole\": 1.5}", "`whole`: invalid type: floating point `1.5`, expected an integer"),
        ] {
            let error = parse::<File>(text).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        for (text, word) in [
            ("{\n\"number\": NaN}", Some("NaN")),
            ("{\"number\": Infinity}", Some("Infinity")),
            ("{\"number\": -Infinity}", Some("Infinity")),
            ("{\"x\": \"NaN\", \"number\": x}", None),
            ("{\"x\": \"NaN\",}", None),
            ("{\"NaN\": 1, \"number\": \"1\"}", None),
        ] {
            let error = parse::<File>(text).unwrap_err().to_string();
            let hint = word.map(|word| format!("(JSON has no {word})"));
            assert_eq!(error.contains("JSON has no"), hint.is_some(), "{text}: {error}");
            assert!(hint.is_none_or(|hint| error.ends_with(&hint)), "{text}: {error}");
        }
    }
}
