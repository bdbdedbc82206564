//! Rows of delimited text: `.csv` with a header and quotes, and `.tsv` in which a quote is a character like any other.
//!
//! Decided: a `.tsv` has no quoting and no line within a field. The common writers of such files do not quote, and a
//! reader that takes their quotes for quoting swallows whole rows without a word (of LIAR's training file, 29).

use super::row::{MAX_LINE, Row, place};
use crate::{not_fetched, open};
use anyhow::{Context, Result, anyhow, bail, ensure};
use csv::{ErrorKind, ReaderBuilder, StringRecord, Terminator};
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// The rows of a `.csv` file, with the columns of its first line, or of a `.tsv` file, with the columns `known`; a
/// first line that names two of these is a header. Values are strings. Rows count from 1, without the header.
///
/// # Errors
/// A file that cannot be read, a `.csv` without any of the columns `known`, or a column that is there twice. As items:
/// a row that is too long, not UTF-8, or has more or fewer fields than there are columns.
pub fn table(path: &Path, known: &[&str]) -> Result<impl Iterator<Item = Result<Row>> + use<>> {
    if let Some(instead) = not_fetched(path) {
        bail!(instead);
    }
    let file = open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    delimited(file, path, known)
}

/// The fields of a file's first line.
///
/// # Errors
/// It cannot be read, has no line, or is not UTF-8.
pub fn header(path: &Path) -> Result<Vec<String>> {
    let file = open(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let first = builder(path).from_reader(file).into_records().next();
    let first = first.with_context(|| format!("{} is empty", path.display()))?;
    fields(first).with_context(|| place(path, 1))
}

fn is_quoting(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "csv")
}

/// How a file of this name is read.
fn builder(path: &Path) -> ReaderBuilder {
    let mut builder = ReaderBuilder::new();
    builder.has_headers(false).flexible(true).quoting(is_quoting(path));
    if !is_quoting(path) {
        builder.delimiter(b'\t').terminator(Terminator::Any(b'\n'));
    }
    builder
}

/// `table` of what `reader` reads, as if it were the content of `path`.
///
/// # Errors
/// As `table`.
pub fn delimited<R: Read>(
    reader: R,
    path: &Path,
    known: &[&str],
) -> Result<impl Iterator<Item = Result<Row>> + use<R>> {
    let quoting = is_quoting(path);
    let path = path.to_owned();
    let mut records = builder(&path).from_reader(reader).into_records().map(fields);
    let first = records.next().transpose().with_context(|| place(&path, 1))?;
    let named = first.iter().flatten().filter(|field| known.contains(&field.as_str())).count();
    let header = named >= if quoting { 1 } else { 2 };
    if quoting && !header {
        let (found, known) = (first.unwrap_or_default().join(", "), known.join(", "));
        bail!("{}: its first line has the columns {found}, expected some of {known}", path.display());
    }
    let columns: Vec<String> = match &first {
        Some(fields) if header => fields.clone(),
        _ => known.iter().map(|name| (*name).to_string()).collect(),
    };
    if let Some(twin) = (1..columns.len()).find(|i| columns[..*i].contains(&columns[*i])) {
        bail!("{}: it has the column `{}` twice", path.display(), columns[twin]);
    }
    let rest = first.filter(|_| !header).map(Ok).into_iter().chain(records);
    Ok(rest.zip(1..).map(move |(fields, number)| {
        let row = fields.and_then(|fields| {
            let (found, expected) = (fields.len(), columns.len());
            ensure!(found == expected, "{found} fields, expected {expected}: {}", columns.join(", "));
            Ok(columns.iter().cloned().zip(fields.into_iter().map(Value::String)).collect())
        });
        Ok((number, row.with_context(|| place(&path, number))?))
    }))
}

/// The fields of a record.
fn fields(record: csv::Result<StringRecord>) -> Result<Vec<String>> {
    let record = record.map_err(|error| match error.kind() {
        ErrorKind::Utf8 { .. } => anyhow!("it is not text in UTF-8"),
        _ => anyhow!(error).context("the file cannot be read"),
    })?;
    let bytes = record.as_slice().len() as u64;
    ensure!(bytes <= MAX_LINE, "it is longer than {MAX_LINE} bytes: is a quote not closed?");
    let mut fields: Vec<String> = record.iter().map(String::from).collect();
    // Where lines end with a line feed alone, a carriage return before it is part of the last field.
    if let Some(last) = fields.last_mut().filter(|last| last.ends_with('\r')) {
        last.pop();
    }
    Ok(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["id", "label", "statement"];

    /// The rows of a file of this name, each as its number and its fields.
    fn rows(name: &str, bytes: &[u8]) -> Result<Vec<(usize, Vec<String>)>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let rows = table(&path, &KNOWN).and_then(Iterator::collect::<Result<Vec<Row>>>);
        let rows = rows.map_err(|error| format!("{error:#}"))?;
        let texts = |(line, row): Row| (line, row.values().map(|field| field.as_str().unwrap().to_string()).collect());
        Ok(rows.into_iter().map(texts).collect())
    }

    fn expected(rows: &[(usize, [&str; 3])]) -> Vec<(usize, Vec<String>)> {
        rows.iter().map(|(line, fields)| (*line, fields.map(String::from).to_vec())).collect()
    }

    #[test]
    fn quotes_quote_in_csv_and_are_characters_in_tsv() {
        let csv = "\u{feff}id,label,statement\r\n1,true,\"He said \"\"no\"\", twice.\nOn two lines.\"\r\n2,false,b\r\n";
        let read = rows("a.csv", csv.as_bytes()).unwrap();
        let lines = "He said \"no\", twice.\nOn two lines.";
        assert_eq!(read, expected(&[(1, ["1", "true", lines]), (2, ["2", "false", "b"])]));
        // The quote of the first row would otherwise reach to that of the second one.
        let tsv = "1\ttrue\t\"It is.\r\n2\tfalse\tIt is not\".\n\n3\tfalse\t\n";
        let read = rows("a.tsv", tsv.as_bytes()).unwrap();
        assert_eq!(
            read.iter().map(|(_, fields)| fields.clone()).collect::<Vec<_>>(),
            [["1", "true", "\"It is."], ["2", "false", "It is not\"."], ["3", "false", ""]]
        );
        assert_eq!((read[0].0, read[1].0), (1, 2));
        let named = rows("b.tsv", b"statement\tid\tlabel\nx\t1\ttrue\n").unwrap();
        assert_eq!(named, expected(&[(1, ["x", "1", "true"])]));
        assert_eq!(rows("empty.tsv", b"").unwrap(), vec![]);
    }

    #[test]
    fn what_is_no_table_says_so() {
        for (name, bytes, message) in [
            ("a.csv", &b"a,b\n1,2\n"[..], "its first line has the columns a, b, expected some of id, label, statement"),
            ("a.csv", b"", "its first line has the columns , expected some of"),
            ("a.csv", b"id,label,id\n1,2,3\n", "it has the column `id` twice"),
            ("a.csv", b"id,label\n1,2\n3,4,5\n", "a.csv, row 2: 3 fields, expected 2: id, label"),
            ("a.tsv", b"1\t2\t3\n1\t2\n", "a.tsv, row 2: 2 fields, expected 3: id, label, statement"),
            ("a.tsv", b"1\t2\t3\n1\t2\t\xff\n", "a.tsv, row 2: it is not text in UTF-8"),
        ] {
            let error = rows(name, bytes).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
        let open = [b"id,label\n1,\"", vec![b'x'; MAX_LINE as usize].as_slice()].concat();
        assert!(rows("a.csv", &open).unwrap_err().contains("row 1: it is longer than"), "an open quote");
    }
}
