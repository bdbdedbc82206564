//! Problems from files: JSONL or parquet, in the layouts that the public sets have.
//!
//! - `target` and `nums` (or `numbers`) as columns: Countdown-Tasks-3to4, and TinyZero's files;
//! - the same within `reward_model.ground_truth`, as an object or as its JSON text: rows for verl.
//!
//! A bad row is an error with its file, row and field, never skipped: a silently smaller set would change what is
//! measured. Sizes are limited before anything is held in memory. Other columns are ignored.

use super::problem::{MAX_NUMBER, MAX_NUMBERS, Problem};
use crate::json::Object;
use crate::rows::{self, Row, field, integer, place};
use crate::task::splits::check_count;
use anyhow::{Context, Result, bail, ensure};
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
    check_count(path, problems.len(), limit, key)?;
    Ok(problems)
}

/// The problem of a row, in whichever layout; rows of TinyZero have both, and must mean the same.
///
/// # Errors
/// A target or numbers that are missing or cannot be, with the field.
pub fn problem_of(row: &Map<String, Value>) -> Result<Problem> {
    let model = field(row, "reward_model");
    let nested = model.map(truth).transpose()?.flatten();
    let flat = ["target", "nums", "numbers"].iter().any(|key| field(row, key).is_some());
    match (flat, model, nested) {
        (false, Some(model), None) => {
            ensure!(model.get("ground_truth").is_some(), "field `reward_model` has no `ground_truth`");
            bail!("field `reward_model.ground_truth`: expected an object with `target` and `numbers`, or its JSON text")
        }
        (false, _, Some(nested)) => fields(&nested, TRUTH),
        (_, _, nested) => {
            let problem = fields(row, "")?;
            if let Some(nested) = nested.filter(is_problem) {
                let other = fields(&nested, TRUTH)?;
                ensure!(
                    other.canonical() == problem.canonical(),
                    "`target` and `nums` are not those of `reward_model.ground_truth`"
                );
            }
            Ok(problem)
        }
    }
}

/// What messages put before the fields of the nested layout.
const TRUTH: &str = "reward_model.ground_truth.";

/// Whether an object has what a problem has; beside a flat row it may hold something else.
fn is_problem(truth: &Map<String, Value>) -> bool {
    field(truth, "target").is_some() && ["nums", "numbers"].iter().any(|key| field(truth, key).is_some())
}

/// The object in `ground_truth`, or in its JSON text, if there is one.
fn truth(model: &Value) -> Result<Option<Map<String, Value>>> {
    match &model["ground_truth"] {
        Value::Object(truth) => Ok(Some(truth.clone())),
        Value::String(text) => match serde_json::from_str(text) {
            Ok(Object(truth)) => Ok(Some(truth)),
            Err(error) if error.is_data() && text.trim_start().starts_with('{') => {
                Err(error).context("field `reward_model.ground_truth`")
            }
            Err(_) => Ok(None),
        },
        _ => Ok(None),
    }
}

/// The problem in an object whose fields messages call `prefix` and their name.
fn fields(row: &Map<String, Value>, prefix: &str) -> Result<Problem> {
    let target = field(row, "target").with_context(|| format!("missing field `{prefix}target`"))?;
    let target = integer(target).with_context(|| format!("field `{prefix}target`"))?;
    in_range(target).with_context(|| format!("field `{prefix}target`"))?;
    let list = |name: &str| {
        let list = field(row, name).map(numbers).transpose();
        list.with_context(|| format!("field `{prefix}{name}`"))
    };
    match (list("nums")?, list("numbers")?) {
        (Some(one), Some(other)) if one != other => bail!("`{prefix}nums` and `{prefix}numbers` differ"),
        (Some(nums), _) | (None, Some(nums)) => Ok(Problem { nums, target }),
        (None, None) => bail!("missing field `{prefix}nums`"),
    }
}

/// The numbers of a problem.
fn numbers(list: &Value) -> Result<Vec<i64>> {
    let list = list.as_array().context("expected a list of integers")?;
    let numbers: Vec<i64> = list.iter().map(integer).collect::<Result<_>>()?;
    let count = numbers.len();
    ensure!((1..=MAX_NUMBERS).contains(&count), "{count} numbers, expected 1 to {MAX_NUMBERS}");
    numbers.iter().try_for_each(|number| in_range(*number))?;
    Ok(numbers)
}

fn in_range(number: i64) -> Result<()> {
    ensure!((0..=MAX_NUMBER).contains(&number), "{number} is not from 0 to {MAX_NUMBER}");
    Ok(())
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
            ("{\"target\": 1, \"nums\": [1]}\n", "has 1 row, but the recipe asks for 2: set task.train to at most 1"),
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
            ("[1]", "line 1: expected one JSON object per line, in UTF-8"),
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

    /// A row with both layouts means the same in both, if the nested one holds a problem.
    #[test]
    fn rows_of_both_layouts_are_read_or_refused() {
        let read = |flat: &str, truth: &str| {
            jsonl(format!("{{{flat}, \"reward_model\": {{\"ground_truth\": {truth}}}}}").as_bytes())
        };
        let flat = r#""target": 6, "nums": [1, 2, 3]"#;
        for (flat, truth) in [
            (flat, r#"{"target": 6, "numbers": [3, 2, 1]}"#),
            (flat, r#"{"target": 6.0, "nums": [1.0, 2.0, 3.0], "numbers": [1, 2, 3]}"#),
            (flat, r#""{\"target\": 6, \"numbers\": [1, 2, 3]}""#),
            (flat, r#""6 = 1 + 2 + 3""#),
            (flat, "6"),
            (flat, "null"),
            (flat, r#"{"solution": "1+2+3"}"#),
            (r#""target": 6, "nums": [1, 2, 3], "numbers": [1.0, 2.0, 3.0]"#, "null"),
        ] {
            assert_eq!(read(flat, truth).unwrap(), [problem(&[1, 2, 3], 6)], "{flat}, {truth}");
        }
        let good = r#"{"target": 6, "numbers": [1, 2, 3]}"#;
        for (flat, truth, message) in [
            (r#""nums": [1, 2, 3]"#, good, "missing field `target`"),
            (r#""numbers": [1, 2, 3]"#, good, "missing field `target`"),
            (r#""target": 6"#, good, "missing field `nums`"),
            (
                flat,
                r#"{"target": 6, "nums": [1, 2], "numbers": [1, 2, 3]}"#,
                "`reward_model.ground_truth.numbers` differ",
            ),
            (flat, r#"{"target": "6", "nums": [1, 2, 3]}"#, "`reward_model.ground_truth.target`: \"6\" is not an"),
            (flat, r#"{"target": 6, "nums": 1}"#, "field `reward_model.ground_truth.nums`: expected a list of"),
            (flat, r#"{"target": 7, "nums": [1, 2, 3]}"#, "are not those of `reward_model.ground_truth`"),
            (flat, r#""{\"target\": 6, \"numbers\": [1], \"target\": 6}""#, "the key `target` is there twice"),
            (flat, r#"{"target": 6, "target": 6}"#, "the key `target` is there twice"),
            (r#""a": 1"#, r#""six""#, "`reward_model.ground_truth`: expected an object with `target` and `numbers`"),
        ] {
            let error = read(flat, truth).unwrap_err();
            assert!(error.contains(message), "{flat}, {truth}: {error}");
        }
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
