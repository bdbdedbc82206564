//! Rows of data files, JSONL, JSON or parquet, and of delimited text, as JSON objects.

mod claims;
mod columnar;
mod table;
mod thrift;

pub use table::{delimited, header, table};

use crate::json::Object;
use crate::{not_fetched, open};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Longest line of a JSONL file, in bytes.
pub const MAX_LINE: u64 = 1 << 20;

/// Largest JSON file, which is read whole, in bytes.
const MAX_JSON: u64 = 1 << 28;

/// A row's number in its file, from 1 (of a JSONL file the line), and its columns.
pub type Row = (usize, Map<String, Value>);

/// The rows of a file whose name ends in `.jsonl`, `.json` (a list of objects) or `.parquet`; of a parquet file only
/// the given columns, if it has any of them, are decoded.
///
/// # Errors
/// A file of another kind, or one that cannot be read or has none of the columns. As items: a row that is not one, with
/// the file and its number.
pub fn read(path: &Path, columns: &[&str]) -> Result<Box<dyn Iterator<Item = Result<Row>>>> {
    if let Some(instead) = not_fetched(path) {
        bail!(instead);
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl") => {
            let file = open(path).with_context(|| format!("{} cannot be read", path.display()))?;
            Ok(Box::new(lines(BufReader::new(file), path)))
        }
        Some("json") => {
            let rows = json_file(path).with_context(|| format!("in {}", path.display()))?;
            Ok(Box::new(rows))
        }
        Some("parquet") => {
            let rows = columnar::rows(path, columns).with_context(|| format!("in {}", path.display()))?;
            Ok(Box::new(rows))
        }
        _ => bail!("{}: rows are read from .jsonl, .json and .parquet files", path.display()),
    }
}

/// The columns that a file has by its header or schema: of `.csv` and `.tsv`, whose first line is taken for a header,
/// and of `.parquet`. `None` for `.jsonl` and `.json`, whose rows say it one by one.
///
/// # Errors
/// A file of another kind, or one that cannot be read.
pub fn columns(path: &Path) -> Result<Option<Vec<String>>> {
    if let Some(instead) = not_fetched(path) {
        bail!(instead);
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl" | "json") => Ok(None),
        Some("csv" | "tsv") => header(path).map(Some),
        Some("parquet") => columnar::columns(path).with_context(|| format!("in {}", path.display())).map(Some),
        _ => bail!("{}: tables are read from .jsonl, .json, .csv, .tsv and .parquet files", path.display()),
    }
}

/// The rows of a file of any kind that `columns` knows; of a parquet file only the given columns, if it has any of
/// them, are decoded. Of `.csv` and `.tsv` values are strings.
///
/// # Errors
/// As `columns`; as items those of `read` and `table`.
pub fn any(path: &Path, chosen: &[&str]) -> Result<Box<dyn Iterator<Item = Result<Row>>>> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv" | "tsv") => {
            let columns = header(path)?;
            let known: Vec<&str> = columns.iter().map(String::as_str).collect();
            Ok(Box::new(table(path, &known)?))
        }
        _ => read(path, chosen),
    }
}

/// Where a row is, for messages about it.
pub fn place(path: &Path, number: usize) -> String {
    let unit = if path.extension().is_some_and(|extension| extension == "jsonl") { "line" } else { "row" };
    format!("{}, {unit} {number}", path.display())
}

/// The value of a field, unless it is null.
pub fn field<'a>(row: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    row.get(name).filter(|value| !value.is_null())
}

/// An integer, which pandas may have made `7.0` of.
///
/// # Errors
/// Anything else, with the value.
pub fn integer(value: &Value) -> Result<i64> {
    let whole = |float: &f64| float.fract() == 0.0 && float.abs() < 1e15;
    let float = || value.as_f64().filter(whole).map(|float| float as i64);
    value.as_i64().or_else(float).with_context(|| format!("{value} is not an integer"))
}

/// The objects of a JSON file that is a list of them.
fn json_file(path: &Path) -> Result<impl Iterator<Item = Result<Row>> + use<>> {
    let file = open(path).context("cannot be read")?;
    ensure!(file.metadata()?.len() <= MAX_JSON, "larger than {MAX_JSON} bytes: make it a .jsonl file");
    list(&std::io::read_to_string(file).context("cannot be read")?)
}

/// The objects of a text that is a list of them.
///
/// # Errors
/// The text is something else.
pub fn list(text: &str) -> Result<impl Iterator<Item = Result<Row>> + use<>> {
    let rows: Vec<Object> =
        serde_json::from_str(text.trim_start_matches('\u{feff}')).context("expected a list of objects")?;
    Ok(rows.into_iter().zip(1..).map(|(Object(row), number)| Ok((number, row))))
}

/// The objects of JSONL, which messages call `path`, with their line numbers, from 1; empty lines are skipped.
///
/// # Errors
/// As items: a line that is too long, not UTF-8 or not a JSON object, with file and line.
pub fn lines<R: BufRead>(mut reader: R, path: &Path) -> impl Iterator<Item = Result<Row>> + use<R> {
    let path = path.to_owned();
    let mut number = 0;
    let mut failed = false;
    std::iter::from_fn(move || {
        while !failed {
            number += 1;
            match json_row(&mut reader) {
                Ok(Line::End) => return None,
                Ok(Line::Empty) => {}
                Ok(Line::Row(row)) => return Some(Ok((number, row))),
                Err(error) => {
                    failed = true;
                    return Some(Err(error.context(format!("{}, line {number}", path.display()))));
                }
            }
        }
        None
    })
}

enum Line {
    End,
    Empty,
    Row(Map<String, Value>),
}

/// What a file of another kind is told.
const EXPECTED: &str = "expected one JSON object per line, in UTF-8";

fn json_row(reader: &mut impl BufRead) -> Result<Line> {
    let mut line = Vec::new();
    let length = reader.take(MAX_LINE + 1).read_until(b'\n', &mut line)? as u64;
    ensure!(length <= MAX_LINE, "longer than {MAX_LINE} bytes");
    let line = std::str::from_utf8(&line).context(EXPECTED)?;
    // Windows programs begin a file with a byte-order mark.
    match line.trim_start_matches('\u{feff}').trim() {
        "" if length == 0 => Ok(Line::End),
        "" => Ok(Line::Empty),
        text => match serde_json::from_str(text) {
            Ok(Object(row)) => Ok(Line::Row(row)),
            Err(error) if error.is_data() && text.starts_with('{') => bail!("{}", without_place(&error)),
            Err(error) if error.is_data() => bail!(EXPECTED),
            Err(error) => {
                bail!("not valid JSON at column {}: {}; {EXPECTED}", error.column(), without_place(&error))
            }
        },
    }
}

fn without_place(error: &serde_json::Error) -> String {
    let what = error.to_string();
    what.rsplit_once(" at line").map_or(what.clone(), |(what, _)| what.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_objects_or_say_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        let first = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            read(&path, &[]).unwrap().next().unwrap().map_err(|error| format!("{error:#}"))
        };
        assert_eq!(first("\u{feff}\n {\"a\": 1}\r\n".as_bytes()).unwrap().0, 2);
        for (text, message) in [
            (&b"[1]"[..], "line 1: expected one JSON object per line, in UTF-8"),
            (b"3", "line 1: expected one JSON object per line, in UTF-8"),
            (b"{\n  \"a\": 1\n}", "at column 1: EOF while parsing an object; expected one JSON object per line"),
            (b"{\"a\": \"\xff\"}", "line 1: expected one JSON object per line, in UTF-8: invalid utf-8"),
            (b"{\"a\": 1, \"a\": 1}", "line 1: the key `a` is there twice"),
            (b"{\"a\": [{\"b\": {\"c\": 1, \"c\": 2}}]}", "line 1: the key `c` is there twice"),
        ] {
            let error = first(text).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_list_of_objects_is_read_or_says_what_is_wrong() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.json");
        let rows = |text: &str| -> Result<Vec<Row>, String> {
            std::fs::write(&path, text).unwrap();
            let rows = read(&path, &[]).and_then(Iterator::collect);
            rows.map_err(|error| format!("{error:#}"))
        };
        let read = rows("\u{feff}[{\"a\": 1},\n {\"a\": 2}]").unwrap();
        assert_eq!(
            read.iter().map(|(number, row)| (*number, row["a"].clone())).collect::<Vec<_>>(),
            [(1, 1.into()), (2, 2.into())]
        );
        for (text, message) in [
            ("[{}, 3]", "invalid type: integer `3`, expected a JSON object at line 1 column 6"),
            ("[{\"a\": 1, \"a\": 2}]", "the key `a` is there twice at line 1"),
            ("{\"a\": 1}", "rows.json: expected a list of objects: invalid type: map"),
            ("[{\"a\": 1}", "EOF while parsing a list at line 1"),
        ] {
            let error = rows(text).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
