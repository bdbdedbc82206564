//! Problems from files: JSONL or parquet with the columns `target` and `nums`, like the public sets.
//!
//! A bad row is an error with its file, row and field, never skipped: a silently smaller set would change what is
//! measured. Sizes are checked before anything is loaded. Other columns are ignored.

use super::problem::{MAX_NUMBER, MAX_NUMBERS, Problem};
use crate::rows::json_rows;
use anyhow::{Context, Result, anyhow, bail, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use serde_json::{Map, Value};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

/// Largest parquet file, in bytes.
const MAX_FILE: u64 = 1 << 32;

/// The first `limit` problems of a file whose name ends in `.jsonl` or `.parquet`; rows count from 1.
///
/// # Errors
/// A file that cannot be read, is of another kind or has no rows; a row without `target` or `nums`, with values other
/// than integers from 0 to `MAX_NUMBER`, or with no numbers or more than `MAX_NUMBERS`.
pub fn read_problems(path: &Path, limit: usize) -> Result<Vec<Problem>> {
    let problems = match path.extension().and_then(|extension| extension.to_str()) {
        Some("jsonl") => json_rows(path)?.take(limit).map(|row| json_problem(path, row?)).collect(),
        Some("parquet") => parquet_problems(path, limit).with_context(|| format!("in {}", path.display())),
        _ => bail!("{}: problems are read from .jsonl and .parquet files", path.display()),
    }?;
    let problems: Vec<_> = problems;
    ensure!(!problems.is_empty() || limit == 0, "{} has no rows", path.display());
    Ok(problems)
}

fn json_problem(path: &Path, (number, row): (usize, Map<String, Value>)) -> Result<Problem> {
    let field = |name| row.get(name).with_context(|| format!("missing field `{name}`"));
    let integer = |value: &Value| value.as_i64().ok_or_else(|| anyhow!("{value} is not an integer"));
    let problem = || {
        let target = integer(field("target")?).context("field `target`")?;
        let list = field("nums")?.as_array().context("field `nums`: expected a list of integers")?;
        let nums = list.iter().map(integer).collect::<Result<_>>().context("field `nums`")?;
        checked(Problem { nums, target })
    };
    problem().with_context(|| format!("{}, row {number}", path.display()))
}

fn parquet_problems(path: &Path, limit: usize) -> Result<Vec<Problem>> {
    let file = File::open(path).context("cannot be read")?;
    ensure!(file.metadata()?.len() <= MAX_FILE, "larger than {MAX_FILE} bytes");
    let reader = SerializedFileReader::new(file)?;
    // The other columns (often whole prompts) are not decoded.
    let schema = reader.metadata().file_metadata().schema();
    let column = |name: &str| {
        let found = schema.get_fields().iter().find(|field| field.name() == name);
        found.cloned().with_context(|| format!("missing column `{name}`"))
    };
    let columns: Vec<Arc<Type>> = vec![column("target")?, column("nums")?];
    let wanted = Type::group_type_builder(schema.name()).with_fields(columns).build()?;
    let rows = reader.get_row_iter(Some(wanted))?.take(limit).zip(1..);
    rows.map(|(row, number)| {
        let row = row.map_err(anyhow::Error::from).and_then(|row| parquet_problem(&row.into_columns()));
        row.with_context(|| format!("row {number}"))
    })
    .collect()
}

fn parquet_problem(columns: &[(String, Field)]) -> Result<Problem> {
    let mut problem = Problem { nums: vec![], target: 0 };
    for (name, field) in columns {
        match (name.as_str(), field) {
            ("nums", Field::ListInternal(list)) => {
                problem.nums = list.elements().iter().map(integer).collect::<Result<_>>().context("field `nums`")?;
            }
            ("nums", _) => bail!("field `nums`: expected a list of integers"),
            (_, field) => problem.target = integer(field).context("field `target`")?,
        }
    }
    checked(problem)
}

fn integer(field: &Field) -> Result<i64> {
    match *field {
        Field::Byte(value) => Ok(value.into()),
        Field::Short(value) => Ok(value.into()),
        Field::Int(value) => Ok(value.into()),
        Field::Long(value) => Ok(value),
        Field::UByte(value) => Ok(value.into()),
        Field::UShort(value) => Ok(value.into()),
        Field::UInt(value) => Ok(value.into()),
        Field::ULong(value) => Ok(value.try_into()?),
        ref other => bail!("{other} is not an integer"),
    }
}

fn checked(problem: Problem) -> Result<Problem> {
    let count = problem.nums.len();
    ensure!((1..=MAX_NUMBERS).contains(&count), "field `nums`: {count} numbers, expected 1 to {MAX_NUMBERS}");
    for (field, value) in problem.nums.iter().map(|number| ("nums", *number)).chain([("target", problem.target)]) {
        ensure!((0..=MAX_NUMBER).contains(&value), "field `{field}`: {value} is not from 0 to {MAX_NUMBER}");
    }
    Ok(problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::data_type::Int64Type;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    fn problem(numbers: &[i64], target: i64) -> Problem {
        Problem { nums: numbers.to_vec(), target }
    }

    /// Reads a JSONL file of these bytes.
    fn jsonl(text: &[u8]) -> Result<Vec<Problem>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, text).unwrap();
        read_problems(&path, 3).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn jsonl_rows_are_read_or_say_what_is_wrong() {
        let rows =
            jsonl(b"{\"nums\": [1, 2], \"target\": 3, \"more\": null}\n\n{\"target\": 9, \"nums\": [9]}").unwrap();
        assert_eq!(rows, [problem(&[1, 2], 3), problem(&[9], 9)]);
        for (row, message) in [
            ("", "has no rows"),
            ("[1]", "line 1: expected a JSON object"),
            ("{\"nums\": [1]", "line 1: not valid JSON at column 12: EOF"),
            ("\n{\"nums\": [1]}", "row 2: missing field `target`"),
            ("{\"target\": 1}", "row 1: missing field `nums`"),
            ("{\"target\": 1.5, \"nums\": [1]}", "field `target`: 1.5 is not an integer"),
            ("{\"target\": 1, \"nums\": 1}", "field `nums`: expected a list"),
            ("{\"target\": 1, \"nums\": [\"1\"]}", "field `nums`: \"1\" is not an integer"),
            ("{\"target\": 1, \"nums\": []}", "field `nums`: 0 numbers, expected 1 to 8"),
            ("{\"target\": 1, \"nums\": [1,1,1,1,1,1,1,1,1]}", "9 numbers"),
            ("{\"target\": 1, \"nums\": [-1]}", "field `nums`: -1 is not from 0"),
            ("{\"target\": 99999999999, \"nums\": [1]}", "field `target`: 99999999999 is not from 0"),
        ] {
            let error = jsonl(row.as_bytes()).unwrap_err();
            assert!(error.contains("rows.jsonl") && error.contains(message), "{row}: {error}");
        }
        assert!(jsonl(&[0xff, 0xfe]).unwrap_err().contains("line 1"));
        assert!(jsonl(&vec![b' '; crate::rows::MAX_LINE as usize + 1]).unwrap_err().contains("line 1: longer than"));
    }

    #[test]
    fn parquet_rows_are_read_or_say_what_is_wrong() {
        let message = "message m { required int64 target; optional group nums (LIST) {
            repeated group list { optional int64 element; } } }";
        let dir = tempfile::tempdir().unwrap();
        // Two rows; the second one's list has the levels given.
        let read = |name: &str, message: &str, levels: &[i16]| {
            let path = dir.path().join(name);
            let schema = Arc::new(parse_message_type(message).unwrap());
            let mut writer =
                SerializedFileWriter::new(File::create(&path).unwrap(), schema, Default::default()).unwrap();
            let mut group = writer.next_row_group().unwrap();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<Int64Type>().write_batch(&[18, 67], None, None).unwrap();
            column.close().unwrap();
            if let Some(mut column) = group.next_column().unwrap() {
                let definition = [&[3, 3], levels].concat();
                let repetition: Vec<_> = (0..definition.len()).map(|i| i16::from(i == 1 || i > 2)).collect();
                let column_writer = column.typed::<Int64Type>();
                column_writer.write_batch(&[9, 2, 5, 7, 12], Some(&definition), Some(&repetition)).unwrap();
                column.close().unwrap();
            }
            group.close().unwrap();
            writer.close().unwrap();
            read_problems(&path, 10).map_err(|error| format!("{error:#}"))
        };
        assert_eq!(read("a.parquet", message, &[3, 3, 3]).unwrap(), [problem(&[9, 2], 18), problem(&[5, 7, 12], 67)]);
        let null = read("b.parquet", message, &[3, 2, 3]).unwrap_err();
        assert!(null.contains("b.parquet: row 2: field `nums`: null is not an integer"), "{null}");
        let empty = read("c.parquet", message, &[1]).unwrap_err();
        assert!(empty.contains("row 2: field `nums`: 0 numbers"), "{empty}");
        let missing = read("d.parquet", "message m { required int64 target; }", &[]).unwrap_err();
        assert!(missing.contains("d.parquet: missing column `nums`"), "{missing}");
        std::fs::write(dir.path().join("e.parquet"), "no parquet").unwrap();
        assert!(read_problems(&dir.path().join("e.parquet"), 10).is_err());
    }
}
