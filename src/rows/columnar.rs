//! Rows of parquet files, as the crate `parquet` reads them. What a file says of its own sizes is looked at before
//! (`claims`), since the crate believes it.

use super::{Row, claims, place};
use crate::open;
use crate::panics::damaged;
use anyhow::{Context, Result, bail, ensure};
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
}
