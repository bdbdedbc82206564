//! Rows of data files, JSONL, JSON or parquet, and of delimited text, as JSON objects.

mod table;

pub use table::{delimited, header, table};

use crate::json::Object;
use crate::panics::damaged;
use crate::{not_fetched, open};
use anyhow::{Context, Result, bail, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as Record};
use parquet::schema::types::Type;
use serde_json::{Map, Value};
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
            let rows = parquet_rows(path, columns).with_context(|| format!("in {}", path.display()))?;
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
        Some("parquet") => {
            let schema = parquet_file(path).with_context(|| format!("in {}", path.display()))?;
            let schema = schema.metadata().file_metadata().schema();
            Ok(Some(schema.get_fields().iter().map(|field| field.name().to_string()).collect()))
        }
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

fn parquet_file(path: &Path) -> Result<SerializedFileReader<File>> {
    let file = open(path).context("cannot be read")?;
    ensure!(file.metadata()?.len() <= MAX_FILE, "larger than {MAX_FILE} bytes");
    let mark = |at: SeekFrom| {
        let mut bytes = [0; 4];
        let read = (&file).seek(at).and_then(|_| (&file).read_exact(&mut bytes));
        read.is_ok() && bytes == *b"PAR1"
    };
    ensure!(mark(SeekFrom::Start(0)), "it is not a parquet file ({} bytes)", file.metadata()?.len());
    ensure!(mark(SeekFrom::End(-4)), "it ends early: was it fetched completely? ({} bytes)", file.metadata()?.len());
    let reader = damaged(|| SerializedFileReader::new(file))??;
    let schema = reader.metadata().file_metadata().schema();
    if let Some(name) = doubled(schema) {
        bail!("it has the column `{name}` twice");
    }
    Ok(reader)
}

fn parquet_rows(path: &Path, columns: &[&str]) -> Result<impl Iterator<Item = Result<Row>> + use<>> {
    let reader = parquet_file(path)?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let wanted: Vec<_> = schema.get_fields().iter().filter(|field| columns.contains(&field.name())).cloned().collect();
    if wanted.is_empty() {
        let found: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
        bail!("it has the columns {}, expected some of {}", found.join(", "), columns.join(", "));
    }
    let wanted = Type::group_type_builder(schema.name()).with_fields(wanted).build()?;
    let path = path.to_owned();
    let mut rows = Some(damaged(|| RowIter::from_file_into(Box::new(reader)).project(Some(wanted)))??);
    // The crate panics on pages that are damaged, and its reader is of no use then.
    let rows = std::iter::from_fn(move || match damaged(|| rows.as_mut()?.next()) {
        Ok(row) => Some(row?.map_err(anyhow::Error::from)),
        Err(error) => {
            rows = None;
            Some(Err(error))
        }
    });
    Ok(rows.zip(1..).map(move |(row, number)| {
        let row = row.and_then(|row| object(&row, ""));
        Ok((number, row.with_context(|| place(&path, number))?))
    }))
}

/// The first name that several columns of a group share, at any depth.
fn doubled(group: &Type) -> Option<&str> {
    let fields = if group.is_group() { group.get_fields() } else { &[] };
    let twin = (1..fields.len()).find(|&i| fields[..i].iter().any(|other| other.name() == fields[i].name()));
    twin.map(|i| fields[i].name()).or_else(|| fields.iter().find_map(|field| doubled(field)))
}

/// A record as JSON; `prefix` is the name of its column and a dot.
fn object(record: &Record, prefix: &str) -> Result<Map<String, Value>> {
    record
        .get_column_iter()
        .map(|(name, field)| Ok((name.clone(), value(field, &format!("{prefix}{name}"))?)))
        .collect()
}

/// A field of the column `name` as JSON. Bytes are text whose writer did not say so.
fn value(field: &Field, name: &str) -> Result<Value> {
    Ok(match field {
        Field::Group(record) => Value::Object(object(record, &format!("{name}."))?),
        Field::ListInternal(list) => list.elements().iter().map(|field| value(field, name)).collect::<Result<_>>()?,
        Field::MapInternal(map) => {
            let entry = |(key, field): &(Field, Field)| {
                let key = value(key, name)?;
                Ok((key.as_str().map_or_else(|| key.to_string(), String::from), value(field, name)?))
            };
            Value::Object(map.entries().iter().map(entry).collect::<Result<_>>()?)
        }
        Field::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes.data());
            text.with_context(|| format!("column `{name}` has bytes that are not text in UTF-8"))?.into()
        }
        plain => plain.to_json_value(),
    })
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
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    /// The first row of a parquet file with this schema, each of whose columns holds these bytes.
    fn parquet(schema: &str, bytes: &[u8]) -> Result<Value, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.parquet");
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Default::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        while let Some(mut column) = group.next_column().unwrap() {
            let values = [ByteArray::from(bytes.to_vec())];
            // A list of one element.
            column.typed::<ByteArrayType>().write_batch(&values, Some(&[1]), Some(&[0])).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        let row = read(&path, &["a", "b"]).and_then(|mut rows| rows.next().unwrap());
        row.map(|(_, row)| Value::Object(row)).map_err(|error| format!("{error:#}"))
    }

    /// pyarrow's `binary` is what Python's bytes become.
    #[test]
    fn bytes_of_parquet_files_are_text_or_refused() {
        for (schema, expected) in [
            ("message m { required binary a; }", serde_json::json!({"a": "é"})),
            ("message m { required binary a (UTF8); }", serde_json::json!({"a": "é"})),
            ("message m { required group a { required binary c; } }", serde_json::json!({"a": {"c": "é"}})),
            (
                "message m { required group a (LIST) { repeated group list { required binary element; } } }",
                serde_json::json!({"a": ["é"]}),
            ),
        ] {
            assert_eq!(parquet(schema, "é".as_bytes()).unwrap(), expected, "{schema}");
        }
        for (schema, name) in [
            ("message m { required binary a; }", "column `a` has bytes"),
            ("message m { required group a { required binary c; } }", "column `a.c` has bytes"),
        ] {
            let error = parquet(schema, &[0xff, 0]).unwrap_err();
            assert!(error.contains("rows.parquet, row 1: ") && error.contains(name), "{error}");
        }
    }

    #[test]
    fn columns_of_one_name_are_refused() {
        for (schema, name) in [
            ("message m { required binary a; required binary a; }", "a"),
            ("message m { required group a { required binary c; required binary c; } }", "c"),
        ] {
            let error = parquet(schema, b"x").unwrap_err();
            assert!(error.contains(&format!("rows.parquet: it has the column `{name}` twice")), "{error}");
        }
    }

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
