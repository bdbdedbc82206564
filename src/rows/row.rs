//! What a row is, whatever file it is from.

use serde_json::{Map, Value};
use std::path::Path;

/// Longest line of a JSONL file, in bytes.
pub const MAX_LINE: u64 = 1 << 20;

/// A row's number in its file, from 1 (of a JSONL file the line), and its columns.
pub type Row = (usize, Map<String, Value>);

/// Where a row is, for messages about it.
pub fn place(path: &Path, number: usize) -> String {
    let unit = if path.extension().is_some_and(|extension| extension == "jsonl") { "line" } else { "row" };
    format!("{}, {unit} {number}", path.display())
}
