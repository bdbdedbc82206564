//! What minijinja understands differently from Jinja2 as transformers sets it up, brought into line.

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};
use std::io;

/// Gives an environment Jinja2's tests, in which texts and dicts are sequences too, and transformers' `tojson`.
pub fn python_like(environment: &mut Environment) {
    let is_sequence = |value: &Value| matches!(value.kind(), ValueKind::Seq | ValueKind::String | ValueKind::Map);
    environment.add_test("sequence", move |value: Value| is_sequence(&value));
    environment.add_test("iterable", move |value: Value| is_sequence(&value) || value.kind() == ValueKind::Iterable);
    environment.add_filter("tojson", to_json);
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`.
fn to_json(value: Value, options: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let indent = indent.map(|columns| " ".repeat(columns.min(16)));
    let mut json = Vec::new();
    let written = match &indent {
        None => value.serialize(&mut Serializer::with_formatter(&mut json, OneLine)),
        Some(indent) => {
            let pretty = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut json, pretty))
        }
    };
    let text = written.map(|()| String::from_utf8_lossy(&json).into_owned());
    text.map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// Python's `, ` and `: ` between the parts of JSON on one line.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// A template whose `{% generation %}` blocks, which mark what a training loss is on, are blocks that do nothing. The
/// white-space marks of the tags stay.
pub fn without_generation(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(start) = rest.find("{%") {
        // Of `{%}` the second character opens, and cannot close as well.
        let Some(length) = rest[start + 2..].find("%}") else { break };
        let (before, tag) = (&rest[..start], &rest[start..start + length + 4]);
        let inner = &tag[2..length + 2];
        let word = inner.trim_matches(|c: char| c.is_whitespace() || c == '-' || c == '+');
        out.push_str(before);
        match word {
            "generation" => out.push_str(&tag.replace(word, "if true")),
            "endgeneration" => out.push_str(&tag.replace(word, "endif")),
            _ => out.push_str(tag),
        }
        rest = &rest[start + tag.len()..];
    }
    out + rest
}
