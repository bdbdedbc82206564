//! Problems from files: JSONL or parquet, in the layouts that the public sets have.
//!
//! - `target` and `nums` (or `numbers`) as columns: Countdown-Tasks-3to4, and TinyZero's files;
//! - the same within `reward_model.ground_truth`, as an object or as its JSON text: rows for verl.
//!
//! A bad row is an error with its file, row and field, never skipped: a silently smaller set would change what is
//! measured. Sizes are limited before anything is held in memory. Other columns are ignored.

use super::problem::{MAX_NUMBER, MAX_NUMBERS, Problem};
use crate::rows::{self, Row, place};
use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value};
use std::path::Path;

/// The columns that may hold a problem.
pub const COLUMNS: [&str; 4] = ["target", "nums", "numbers", "reward_model"];

/// The first `limit` problems, a number that `key` of the recipe sets, of a file whose name ends in `.jsonl` or
/// `.parquet`; rows count from 1.
///
/// # Errors
/// A file that cannot be read, is of another kind or has fewer rows; a row without a target or numbers, with values
/// other than integers from 0 to `MAX_NUMBER`, or with no numbers or more than `MAX_NUMBERS`.
pub fn read_problems(path: &Path, limit: usize, key: &str) -> Result<Vec<Problem>> {
    let read = |row: Result<Row>| {
        let (number, row) = row?;
        problem_of(&row).with_context(|| place(path, number))
    };
    let problems: Vec<Problem> = rows::read(path, &COLUMNS)?.take(limit).map(read).collect::<Result<_>>()?;
    let found = problems.len();
    ensure!(found > 0 || limit == 0, "{} has no rows", path.display());
    ensure!(
        found == limit,
        "{} has {found} rows, but the recipe asks for {limit}: set {key} to at most {found}",
        path.display()
    );
    Ok(problems)
}

/// The problem of a row, in whichever layout; rows of TinyZero have both, and must mean the same.
///
/// # Errors
/// A target or numbers that are missing or cannot be, with the field.
pub fn problem_of(row: &Map<String, Value>) -> Result<Problem> {
    let has = |key: &str| row.get(key).is_some_and(|value| !value.is_null());
    let flat = has("target") || !has("reward_model");
    let nested = || truth(&row["reward_model"]).and_then(|truth| fields(&truth, "reward_model.ground_truth."));
    if !flat {
        return nested();
    }
    let problem = fields(row, "")?;
    // Whatever else the other layout may hold, a problem there is this one.
    if has("reward_model") && nested().is_ok_and(|other| other.canonical() != problem.canonical()) {
        bail!("`target` and `nums` are not those of `reward_model.ground_truth`");
    }
    Ok(problem)
}

/// The object in `reward_model.ground_truth`, or in its JSON text.
fn truth(model: &Value) -> Result<Map<String, Value>> {
    let truth = model.get("ground_truth").context("field `reward_model` has no `ground_truth`")?;
    let truth = match truth.as_str() {
        Some(text) => serde_json::from_str(text).context("field `reward_model.ground_truth` is not JSON")?,
        None => truth.clone(),
    };
    match truth {
        Value::Object(truth) => Ok(truth),
        _ => bail!("field `reward_model.ground_truth`: expected `target` and `numbers`"),
    }
}

/// The problem in an object whose fields messages call `prefix` and their name.
fn fields(row: &Map<String, Value>, prefix: &str) -> Result<Problem> {
    let field = |name: &str| row.get(name).filter(|value| !value.is_null());
    let target = field("target").with_context(|| format!("missing field `{prefix}target`"))?;
    let target = integer(target).with_context(|| format!("field `{prefix}target`"))?;
    let (name, list) = match (field("nums"), field("numbers")) {
        (Some(one), Some(other)) if one != other => bail!("`{prefix}nums` and `{prefix}numbers` differ"),
        (Some(nums), _) => ("nums", nums),
        (None, Some(numbers)) => ("numbers", numbers),
        (None, None) => bail!("missing field `{prefix}nums`"),
    };
    let list = list.as_array().with_context(|| format!("field `{prefix}{name}`: expected a list of integers"))?;
    let nums: Vec<i64> =
        list.iter().map(integer).collect::<Result<_>>().with_context(|| format!("field `{prefix}{name}`"))?;
    let count = nums.len();
    ensure!((1..=MAX_NUMBERS).contains(&count), "field `{prefix}{name}`: {count} numbers, expected 1 to {MAX_NUMBERS}");
    for (name, value) in nums.iter().map(|number| (name, *number)).chain([("target", target)]) {
        ensure!((0..=MAX_NUMBER).contains(&value), "field `{prefix}{name}`: {value} is not from 0 to {MAX_NUMBER}");
    }
    Ok(Problem { nums, target })
}

/// An integer, which pandas may have made `7.0` of.
fn integer(value: &Value) -> Result<i64> {
    let whole = |float: &f64| float.fract() == 0.0 && float.abs() < 1e15;
    let float = || value.as_f64().filter(whole).map(|float| float as i64);
    value.as_i64().or_else(float).ok_or_else(|| anyhow!("{value} is not an integer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::basic::Compression;
    use parquet::data_type::Int64Type;
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::fs::File;
    use std::sync::Arc;

    fn problem(numbers: &[i64], target: i64) -> Problem {
        Problem { nums: numbers.to_vec(), target }
    }

    /// Reads a JSONL file of these bytes.
    fn jsonl(text: &[u8]) -> Result<Vec<Problem>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rows.jsonl");
        std::fs::write(&path, text).unwrap();
        let rows = text.iter().filter(|byte| **byte == b'\n').count() + 1;
        read_problems(&path, rows, "task.train").map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn jsonl_rows_are_read_or_say_what_is_wrong() {
        let rows =
            jsonl(b"{\"nums\": [1, 2], \"target\": 3, \"more\": null}\n{\"target\": 9.0, \"numbers\": [9.0]}").unwrap();
        assert_eq!(rows, [problem(&[1, 2], 3), problem(&[9], 9)]);
        let verl =
            r#"{"prompt": [], "reward_model": {"style": "rule", "ground_truth": {"target": 3, "numbers": [1, 2]}}}"#;
        let text = r#"{"reward_model": {"ground_truth": "{\"target\": 3, \"numbers\": [1, 2]}"}}"#;
        for row in [verl, text] {
            assert_eq!(jsonl(row.as_bytes()).unwrap(), [problem(&[1, 2], 3)]);
        }
        for (row, message) in [
            ("", "has no rows"),
            ("{\"target\": 1, \"nums\": [1]}\n", "has 1 rows, but the recipe asks for 2: set task.train to at most 1"),
            ("{\"reward_model\": {}}", "has no `ground_truth`"),
            ("{\"target\": 1, \"nums\": [1], \"numbers\": [2]}", "`nums` and `numbers` differ"),
            (
                r#"{"target": 1, "nums": [1], "reward_model": {"ground_truth": {"target": 2, "nums": [1]}}}"#,
                "`target` and `nums` are not those of `reward_model.ground_truth`",
            ),
            ("{\"target\": 1, \"nums\": [1], \"target\": 2}", "line 1: the key `target` is there twice"),
            (
                "{\"reward_model\": {\"ground_truth\": {\"target\": 1}}}",
                "missing field `reward_model.ground_truth.nums`",
            ),
            ("[1]", "line 1: expected a JSON object"),
            ("{\"nums\": [1]", "line 1: not valid JSON at column 12: EOF"),
            ("\n{\"nums\": [1]}", "line 2: missing field `target`"),
            ("{\"target\": 1}", "line 1: missing field `nums`"),
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
        let read_packed = |name: &str, message: &str, levels: &[i16], codec: Compression| {
            let path = dir.path().join(name);
            let schema = Arc::new(parse_message_type(message).unwrap());
            let properties = Arc::new(WriterProperties::builder().set_compression(codec).build());
            let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, properties).unwrap();
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
            read_problems(&path, 2, "task.train").map_err(|error| format!("{error:#}"))
        };
        let read = |name: &str, message: &str, levels: &[i16]| read_packed(name, message, levels, Compression::SNAPPY);
        // polars writes zstd, pandas and datasets snappy; the others can be asked for.
        for codec in [
            Compression::UNCOMPRESSED,
            Compression::SNAPPY,
            Compression::ZSTD(Default::default()),
            Compression::GZIP(Default::default()),
            Compression::BROTLI(Default::default()),
            Compression::LZ4_RAW,
        ] {
            let problems = read_packed("a.parquet", message, &[3, 3, 3], codec).unwrap();
            assert_eq!(problems, [problem(&[9, 2], 18), problem(&[5, 7, 12], 67)], "{codec}");
        }
        let null = read("b.parquet", message, &[3, 2, 3]).unwrap_err();
        assert!(null.contains("b.parquet, row 2: field `nums`: null is not an integer"), "{null}");
        let empty = read("c.parquet", message, &[1]).unwrap_err();
        assert!(empty.contains("row 2: field `nums`: 0 numbers"), "{empty}");
        let missing = read("d.parquet", "message m { required int64 target; }", &[]).unwrap_err();
        assert!(missing.contains("d.parquet, row 1: missing field `nums`"), "{missing}");
        std::fs::write(dir.path().join("e.parquet"), "no parquet").unwrap();
        assert!(read_problems(&dir.path().join("e.parquet"), 1, "task.train").is_err());
    }
}
