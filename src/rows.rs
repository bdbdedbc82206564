//! Rows of data files: JSONL.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Longest line of a JSONL file, in bytes.
pub const MAX_LINE: u64 = 1 << 20;

/// The objects of a JSONL file with their line numbers, from 1; empty lines are skipped.
///
/// # Errors
/// As items: a line that is too long, not UTF-8 or not a JSON object, with file and line.
pub fn json_rows(path: &Path) -> Result<impl Iterator<Item = Result<(usize, Map<String, Value>)>>> {
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
        text => match serde_json::from_str(text) {
            Ok(Value::Object(row)) => Ok(Line::Row(row)),
            Ok(_) => bail!("expected a JSON object"),
            Err(error) => {
                let what = error.to_string();
                let what = what.rsplit_once(" at line").map_or(what.as_str(), |(what, _)| what);
                bail!("not valid JSON at column {}: {what}", error.column())
            }
        },
    }
}
