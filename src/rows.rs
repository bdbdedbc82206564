//! Rows of data files, JSONL, JSON or parquet, as JSON objects.

use crate::lfs_pointer;
use anyhow::{Context, Result, bail, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::schema::types::Type;
use serde::Deserialize;
use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// Longest line of a JSONL file, in bytes.
pub const MAX_LINE: u64 = 1 << 20;

/// Largest parquet file, in bytes.
const MAX_FILE: u64 = 1 << 32;

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
    if let Some(pointer) = lfs_pointer(path) {
        bail!(pointer);
    }
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl") => Ok(Box::new(json_rows(path)?)),
        Some("json") => {
            let rows = list(path).with_context(|| format!("in {}", path.display()))?;
            Ok(Box::new(rows))
        }
        Some("parquet") => {
            let rows = parquet_rows(path, columns).with_context(|| format!("in {}", path.display()))?;
            Ok(Box::new(rows))
        }
        _ => bail!("{}: rows are read from .jsonl, .json and .parquet files", path.display()),
    }
}

/// Where a row is, for messages about it.
pub fn place(path: &Path, number: usize) -> String {
    let unit = if path.extension().is_some_and(|extension| extension == "jsonl") { "line" } else { "row" };
    format!("{}, {unit} {number}", path.display())
}

/// The objects of a JSON file that is a list of them.
fn list(path: &Path) -> Result<impl Iterator<Item = Result<Row>> + use<>> {
    let file = File::open(path).context("cannot be read")?;
    ensure!(file.metadata()?.len() <= MAX_JSON, "larger than {MAX_JSON} bytes: make it a .jsonl file");
    let text = std::io::read_to_string(file).context("cannot be read")?;
    let rows: Vec<Object> =
        serde_json::from_str(text.trim_start_matches('\u{feff}')).context("expected a list of objects")?;
    Ok(rows.into_iter().zip(1..).map(|(Object(row), number)| Ok((number, row))))
}

fn parquet_rows(path: &Path, columns: &[&str]) -> Result<impl Iterator<Item = Result<Row>> + use<>> {
    let file = File::open(path).context("cannot be read")?;
    ensure!(file.metadata()?.len() <= MAX_FILE, "larger than {MAX_FILE} bytes");
    let mark = |at: SeekFrom| {
        let mut bytes = [0; 4];
        let read = (&file).seek(at).and_then(|_| (&file).read_exact(&mut bytes));
        read.is_ok() && bytes == *b"PAR1"
    };
    ensure!(mark(SeekFrom::Start(0)), "it is not a parquet file ({} bytes)", file.metadata()?.len());
    ensure!(mark(SeekFrom::End(-4)), "it ends early: was it fetched completely? ({} bytes)", file.metadata()?.len());
    let reader = SerializedFileReader::new(file)?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let wanted: Vec<_> = schema.get_fields().iter().filter(|field| columns.contains(&field.name())).cloned().collect();
    if wanted.is_empty() {
        let found: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
        bail!("it has the columns {}, expected some of {}", found.join(", "), columns.join(", "));
    }
    let wanted = Type::group_type_builder(schema.name()).with_fields(wanted).build()?;
    let path = path.to_owned();
    let rows = RowIter::from_file_into(Box::new(reader)).project(Some(wanted))?;
    Ok(rows.zip(1..).map(move |(row, number)| {
        let row = row.map(|row| row.to_json_value()).with_context(|| place(&path, number))?;
        match row {
            Value::Object(row) => Ok((number, row)),
            _ => bail!("{}: not a row", place(&path, number)),
        }
    }))
}

/// The objects of a JSONL file with their line numbers, from 1; empty lines are skipped.
///
/// # Errors
/// As items: a line that is too long, not UTF-8 or not a JSON object, with file and line.
fn json_rows(path: &Path) -> Result<impl Iterator<Item = Result<Row>> + use<>> {
    let file = File::open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let mut reader = BufReader::new(file);
    let path = path.to_owned();
    let mut number = 0;
    let mut failed = false;
    Ok(std::iter::from_fn(move || {
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
    }))
}

enum Line {
    End,
    Empty,
    Row(Map<String, Value>),
}

fn json_row(reader: &mut impl BufRead) -> Result<Line> {
    let mut line = String::new();
    let length = reader.take(MAX_LINE + 1).read_line(&mut line)? as u64;
    ensure!(length <= MAX_LINE, "longer than {MAX_LINE} bytes");
    // Windows programs begin a file with a byte-order mark.
    match line.trim_start_matches('\u{feff}').trim() {
        "" if length == 0 => Ok(Line::End),
        "" => Ok(Line::Empty),
        text if !text.starts_with('{') && serde_json::from_str::<Value>(text).is_ok() => {
            bail!("expected a JSON object")
        }
        text => match serde_json::from_str(text) {
            Ok(Object(row)) => Ok(Line::Row(row)),
            Err(error) if error.is_data() => bail!("{}", without_place(&error)),
            Err(error) => {
                bail!("not valid JSON at column {}: {}", error.column(), without_place(&error))
            }
        },
    }
}

fn without_place(error: &serde_json::Error) -> String {
    let what = error.to_string();
    what.rsplit_once(" at line").map_or(what.clone(), |(what, _)| what.to_string())
}

/// A JSON object that has each of its keys once: of two values, a parser would take one silently.
struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Object, A::Error> {
                let mut map = Map::new();
                while let Some((key, value)) = entries.next_entry::<String, Value>()? {
                    if map.insert(key.clone(), value).is_some() {
                        return Err(A::Error::custom(format_args!("the key `{key}` is there twice")));
                    }
                }
                Ok(Object(map))
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
