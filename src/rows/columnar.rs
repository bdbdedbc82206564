//! Rows of parquet files, as the crate `parquet` reads them. What a file says of its own sizes is looked at before
//! (`claims`), since the crate believes it.

use super::claims;
use super::row::{Row, place};
use crate::open;
use crate::panics::damaged;
use anyhow::{Context, Result, bail, ensure};
use parquet::basic::{ConvertedType, LogicalType};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::reader::RowIter;
use parquet::record::{Field, Row as Record};
use parquet::schema::types::Type;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// Largest file, in bytes.
const MAX_FILE: u64 = 1 << 32;

/// The columns of a file.
///
/// # Errors
/// It cannot be read, or is not such a file.
pub fn columns(path: &Path) -> Result<Vec<String>> {
    let reader = reader(path)?.0;
    let schema = reader.metadata().file_metadata().schema();
    Ok(schema.get_fields().iter().map(|field| field.name().to_string()).collect())
}

/// A file's reader, and the file.
fn reader(path: &Path) -> Result<(SerializedFileReader<File>, File)> {
    let file = open(path).context("cannot be read")?;
    ensure!(file.metadata()?.len() <= MAX_FILE, "larger than {MAX_FILE} bytes");
    let mark = |at: SeekFrom| {
        let mut bytes = [0; 4];
        let read = (&file).seek(at).and_then(|_| (&file).read_exact(&mut bytes));
        read.is_ok() && bytes == *b"PAR1"
    };
    ensure!(mark(SeekFrom::Start(0)), "it is not a parquet file ({} bytes)", file.metadata()?.len());
    ensure!(mark(SeekFrom::End(-4)), "it ends early: was it fetched completely? ({} bytes)", file.metadata()?.len());
    claims::check_schema(&file)?;
    let reader = damaged(|| SerializedFileReader::new(file.try_clone()?))??;
    let schema = reader.metadata().file_metadata().schema();
    if let Some(name) = doubled(schema) {
        bail!("it has the column `{name}` twice");
    }
    Ok((reader, file))
}

/// The rows of a file, of which only the given columns are decoded.
///
/// # Errors
/// It cannot be read, is not such a file, or has none of the columns. As items: what cannot be decoded, with its row.
pub fn rows(path: &Path, columns: &[&str]) -> Result<impl Iterator<Item = Result<Row>> + use<>> {
    let (reader, file) = reader(path)?;
    let schema = reader.metadata().file_metadata().schema().clone();
    let wanted: Vec<_> = schema.get_fields().iter().filter(|field| columns.contains(&field.name())).cloned().collect();
    if wanted.is_empty() {
        let found: Vec<&str> = schema.get_fields().iter().map(|field| field.name()).collect();
        bail!("it has the columns {}, expected some of {}", found.join(", "), columns.join(", "));
    }
    if let Some(name) = wanted.iter().find_map(|field| unread(field)) {
        bail!("column `{name}` holds intervals or variants, which are not read");
    }
    let names: Vec<&str> = wanted.iter().map(|field| field.name()).collect();
    damaged(|| claims::check_pages(&file, reader.metadata(), &names))??;
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

/// The first column, at any depth, of a type that has no JSON: the crate panics on intervals of time, and gives a
/// variant's parts, which are encoded, as if they were columns.
fn unread(field: &Type) -> Option<&str> {
    let info = field.get_basic_info();
    let variant = matches!(info.logical_type_ref(), Some(LogicalType::Variant(_)));
    if variant || info.converted_type() == ConvertedType::INTERVAL {
        return Some(field.name());
    }
    let fields = if field.is_group() { field.get_fields() } else { &[] };
    fields.iter().find_map(|field| unread(field))
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
            let mut entries = Map::new();
            for (key, field) in map.entries() {
                let key = value(key, name)?;
                let key = key.as_str().map_or_else(|| key.to_string(), String::from);
                ensure!(!entries.contains_key(&key), "column `{name}` has the key `{key}` twice");
                entries.insert(key, value(field, name)?);
            }
            Value::Object(entries)
        }
        Field::Bytes(bytes) => {
            let text = std::str::from_utf8(bytes.data());
            text.with_context(|| format!("column `{name}` has bytes that are not text in UTF-8"))?.into()
        }
        // The crate panics on days that its calendar does not have, such as duckdb's infinity.
        Field::Date(_) | Field::TimestampMillis(_) | Field::TimestampMicros(_) => {
            let text = damaged(|| field.to_json_value()).ok();
            text.with_context(|| format!("column `{name}` has a date that is out of range"))?
        }
        // The crate gives whole ones a point at their end.
        Field::Decimal(_) => match field.to_json_value() {
            Value::String(text) => text.trim_end_matches('.').into(),
            other => other,
        },
        number if is_infinite(number) => bail!("column `{name}` has a number that is infinite"),
        plain => plain.to_json_value(),
    })
}

/// Whether a field is a number that would become null, as if it were missing. NaN may: so pandas marks what is missing.
fn is_infinite(field: &Field) -> bool {
    match field {
        Field::Float16(number) => number.is_infinite(),
        Field::Float(number) => number.is_infinite(),
        Field::Double(number) => number.is_infinite(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::read;
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

    /// `scripts/golden_parquet.py` has written them, with pyarrow, polars and duckdb, and says what they hold.
    #[test]
    fn files_of_other_writers_are_read_as_their_writers_read_them() {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/parquet");
        let text = std::fs::read_to_string(golden.join("expected.json")).unwrap();
        let expected: Map<String, Value> = serde_json::from_str(&text).unwrap();
        let found = |name: &str| -> Result<Vec<Value>> {
            let path = golden.join(name);
            let names = columns(&path)?;
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            read(&path, &names)?.map(|row| Ok(Value::Object(row?.1))).collect()
        };
        for (name, rows) in &expected {
            // Of a file that holds what one before it does, there is that one's name.
            let rows = rows.as_str().map_or(rows, |same| &expected[same]);
            match (rows["refused"].as_str(), found(name)) {
                (Some(message), Err(error)) => {
                    let error = format!("{error:#}");
                    assert!(error.contains(message), "{name}: {error}");
                }
                (None, Ok(found)) => assert_eq!(&Value::Array(found), rows, "{name}"),
                (_, found) => panic!("{name}: {found:?}"),
            }
        }
        let files = std::fs::read_dir(&golden).unwrap().map(|file| file.unwrap().path());
        let parquet = files.filter(|path| path.extension().is_some_and(|extension| extension == "parquet"));
        assert_eq!(parquet.count(), expected.len());
    }
}
