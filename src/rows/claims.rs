//! What a parquet file says of its own sizes, held against what it can hold: the crate that reads it gives memory to
//! pages, dictionaries and groups of columns by what is said of them, before it looks whether that is so.
//!
//! A page is at most `RATIO` times as large as its compressed bytes, or `SMALL`: text is rarely smaller by more than a
//! hundred times, and writers begin a new page at a megabyte or so. A dictionary has no more values than its page has
//! room for. Groups have no more columns than there are, and lie within each other `DEEPEST` times at most.
//!
//! Headers of pages and the schema are structures of Thrift's compact protocol, of which the numbers that matter are
//! read here, and the rest is skipped. What cannot be skipped is refused: the crate might read it otherwise. It goes by
//! the numbers of fields, and not by the kinds that their values are said to be: what it knows has to be of its kind.

use super::thrift::{INTEGER, Kind, Known, LIST, NESTED, Reader, STRUCT};
use crate::panics::damaged;
use anyhow::{Context, Result, bail, ensure};
use parquet::basic::{Compression, Type};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// How many times larger than its compressed bytes a page may say that it is.
const RATIO: i64 = 1024;
/// What any page may say that it has, in bytes.
const SMALL: i64 = 16 << 20;
/// Groups of columns within each other.
const DEEPEST: usize = 64;
/// What is read of a page for its header: statistics in it may hold values of any length.
const WINDOWS: [u64; 3] = [1 << 12, 1 << 18, 1 << 24];
/// At the end of a file: the length of its metadata, and its mark.
const END: u64 = 8;

const DAMAGED: &str = "it is damaged";

/// The header of a page.
const PAGE: Known = &[
    (1, Kind::Integer),
    (2, Kind::Integer),
    (3, Kind::Integer),
    (4, Kind::Integer),
    (5, Kind::Struct(DATA)),
    (6, EMPTY),
    (7, Kind::Struct(DICTIONARY)),
    (8, Kind::Struct(DATA_V2)),
];
const DATA: Known = &[(1, Kind::Integer), (2, Kind::Integer), (3, Kind::Integer), (4, Kind::Integer), (5, EMPTY)];
const DICTIONARY: Known = &[(1, Kind::Integer), (2, Kind::Integer), (3, Kind::Truth)];
const DATA_V2: Known = &[
    (1, Kind::Integer),
    (2, Kind::Integer),
    (3, Kind::Integer),
    (4, Kind::Integer),
    (5, Kind::Integer),
    (6, Kind::Integer),
    (7, Kind::Truth),
    (8, EMPTY),
];

/// The metadata of a file. Groups of rows come after the schema, and the crate reads no second one.
const METADATA: Known = &[
    (1, Kind::Integer),
    (2, Kind::List(ELEMENT)),
    (3, Kind::Long),
    (4, Kind::List(&[])),
    (5, Kind::List(&[(1, Kind::Text), (2, Kind::Text)])),
    (6, Kind::Text),
    (7, Kind::List(&[(1, EMPTY), (2, EMPTY), (3, EMPTY)])),
];
/// An element of the schema.
const ELEMENT: Known = &[
    (1, Kind::Integer),
    (2, Kind::Integer),
    (3, Kind::Integer),
    (4, Kind::Text),
    (5, Kind::Integer),
    (6, Kind::Integer),
    (7, Kind::Integer),
    (8, Kind::Integer),
    (9, Kind::Integer),
    (10, Kind::Struct(LOGICAL)),
];
/// What the values of a column mean.
const LOGICAL: Known = &[
    (1, EMPTY),
    (2, EMPTY),
    (3, EMPTY),
    (4, EMPTY),
    (5, Kind::Struct(&[(1, Kind::Integer), (2, Kind::Integer)])),
    (6, EMPTY),
    (7, TIME),
    (8, TIME),
    (10, Kind::Struct(&[(1, Kind::Byte), (2, Kind::Truth)])),
    (11, EMPTY),
    (12, EMPTY),
    (13, EMPTY),
    (14, EMPTY),
    (15, EMPTY),
    (16, Kind::Struct(&[(1, Kind::Byte)])),
    (17, Kind::Struct(&[(1, Kind::Text)])),
    (18, Kind::Struct(&[(1, Kind::Text), (2, Kind::Integer)])),
    (19, EMPTY),
];
const TIME: Kind = Kind::Struct(&[(1, Kind::Truth), (2, Kind::Struct(&[(1, EMPTY), (2, EMPTY), (3, EMPTY)]))]);
const EMPTY: Kind = Kind::Struct(&[]);

/// Looks at the pages of the columns `wanted`.
///
/// # Errors
/// A page that says more of itself than can be, with its column.
pub fn check_pages(file: &File, metadata: &ParquetMetaData, wanted: &[&str]) -> Result<()> {
    for chunk in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        let path = chunk.column_path();
        if path.parts().first().is_some_and(|first| wanted.contains(&first.as_str())) {
            check_column(file, chunk).with_context(|| format!("column `{}`", path.string()))?;
        }
    }
    Ok(())
}

fn check_column(file: &File, chunk: &ColumnChunkMetaData) -> Result<()> {
    let (start, length) = damaged(|| chunk.byte_range())?;
    let end = start.checked_add(length).filter(|end| file.metadata().is_ok_and(|file| *end <= file.len()));
    let (end, mut at) = (end.context("it is said to be beyond the file's end")?, start);
    while at < end {
        let (header, page) = Page::read(file, at, end).with_context(|| format!("{DAMAGED} at byte {at}"))?;
        let packed = chunk.compression() != Compression::UNCOMPRESSED;
        page.check(packed, least_bytes(chunk.column_type())).with_context(|| format!("its page at byte {at}"))?;
        let size = u64::try_from(page.compressed).context(DAMAGED)?;
        at = at.saturating_add(header).saturating_add(size);
    }
    Ok(())
}

/// What a value takes in a dictionary, at least.
fn least_bytes(kind: Type) -> i64 {
    match kind {
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
        // Text has its length before it.
        Type::INT32 | Type::FLOAT | Type::BYTE_ARRAY => 4,
        Type::BOOLEAN | Type::FIXED_LEN_BYTE_ARRAY => 1,
    }
}

/// What the header of a page says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Page {
    uncompressed: i64,
    compressed: i64,
    /// Values of a dictionary.
    values: i64,
}

impl Page {
    /// The page at byte `at` of a column that ends at byte `end`, after the length of its header.
    fn read(file: &File, at: u64, end: u64) -> Option<(u64, Self)> {
        WINDOWS.iter().find_map(|window| {
            let mut bytes = vec![0; usize::try_from((*window).min(end - at)).ok()?];
            file.read_exact_at(&mut bytes, at).ok()?;
            let mut reader = Reader::new(&bytes);
            let page = Self::parse(&mut reader)?;
            Some((reader.passed() as u64, page))
        })
    }

    /// The largest numbers, if some are there twice.
    fn parse(reader: &mut Reader) -> Option<Self> {
        let mut page = Self::default();
        reader.fields(NESTED, &mut |reader, id, kind| match (id, kind) {
            (2, INTEGER) => reader.largest(&mut page.uncompressed),
            (3, INTEGER) => reader.largest(&mut page.compressed),
            // The header of a dictionary, of which the first number counts its values.
            (7, STRUCT) => reader.fields(NESTED, &mut |reader, id, kind| match (id, kind) {
                (1, INTEGER) => reader.largest(&mut page.values),
                _ => reader.expect(DICTIONARY, id, kind, NESTED),
            }),
            _ => reader.expect(PAGE, id, kind, NESTED),
        })?;
        Some(page)
    }

    fn check(&self, packed: bool, least: i64) -> Result<()> {
        let Self { uncompressed, compressed, values } = *self;
        let most = compressed.saturating_mul(RATIO).max(SMALL);
        ensure!(
            !packed || uncompressed <= most,
            "says that it is {uncompressed} bytes large, of {compressed} bytes in the file: more than {RATIO} times as \
             large is not believed; write smaller pages (`data_page_size`, or `row_group_size`), or JSONL"
        );
        let size = if packed { uncompressed } else { compressed };
        ensure!(
            values.saturating_mul(least) <= size.max(0),
            "says that it has {values} values, for which its {size} bytes have no room"
        );
        Ok(())
    }
}

/// Looks at the schema in a file's metadata, whose marks are there.
///
/// # Errors
/// A group that says it has more columns than there are, or that lies too deep.
pub fn check_schema(file: &File) -> Result<()> {
    let end = file.metadata()?.len().checked_sub(END).context(DAMAGED)?;
    let mut length = [0; 4];
    file.read_exact_at(&mut length, end)?;
    let length = u32::from_le_bytes(length);
    let start = end.checked_sub(length.into()).context("its metadata is said to be longer than the file")?;
    let mut bytes = vec![0; length as usize];
    file.read_exact_at(&mut bytes, start)?;
    let schemas = groups(&bytes).with_context(|| format!("{DAMAGED}: its metadata cannot be read"))?;
    schemas.iter().try_for_each(|schema| fits(schema))
}

/// Of each schema in a file's metadata (there is one, unless it is made to deceive), the numbers of children.
fn groups(metadata: &[u8]) -> Option<Vec<Vec<i64>>> {
    let mut found = vec![];
    Reader::new(metadata).fields(NESTED, &mut |reader, id, kind| {
        if (id, kind) != (2, LIST) {
            return reader.expect(METADATA, id, kind, NESTED);
        }
        let (kind, count) = reader.list()?;
        let mut all = vec![];
        for _ in 0..count {
            let mut children = 0;
            if kind != STRUCT {
                return None;
            }
            reader.fields(NESTED, &mut |reader, id, kind| match (id, kind) {
                (5, INTEGER) => reader.largest(&mut children),
                _ => reader.expect(ELEMENT, id, kind, NESTED),
            })?;
            all.push(children);
        }
        found.push(all);
        Some(())
    })?;
    Some(found)
}

/// Whether the children that the elements of a schema say they have can be among those after them.
fn fits(schema: &[i64]) -> Result<()> {
    // How many children of each open group are still to come.
    let mut open: Vec<i64> = vec![];
    for children in schema {
        while open.pop_if(|left| *left <= 0).is_some() {}
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if *children > schema.len() as i64 {
            bail!("a group of columns says that it has {children}, but there are {} in all", schema.len());
        }
        if *children > 0 {
            open.push(*children);
        }
        ensure!(open.len() <= DEEPEST, "more than {DEEPEST} groups of columns lie within each other");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::read;
    use super::*;
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::properties::WriterProperties;
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;

    /// A file of one column `a` with these texts.
    fn file(dir: &Path, schema: &str, texts: &[&str], dictionary: bool) -> PathBuf {
        let path = dir.join("rows.parquet");
        let properties =
            WriterProperties::builder().set_compression(Compression::SNAPPY).set_dictionary_enabled(dictionary).build();
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut writer = SerializedFileWriter::new(File::create(&path).unwrap(), schema, properties.into()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let values: Vec<ByteArray> = texts.iter().map(|text| ByteArray::from(text.as_bytes().to_vec())).collect();
        column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
        writer.close().unwrap();
        path
    }

    fn refusal(path: &Path) -> String {
        format!("{:#}", read(path, &["a"]).and_then(|rows| rows.collect::<Result<Vec<_>>>()).unwrap_err())
    }

    /// A number as it is stored, in this many bytes.
    fn stored(number: u64, bytes: usize) -> Vec<u8> {
        let byte = |at: usize| ((number << 1) >> (7 * at)) as u8 & 0x7f | if at + 1 < bytes { 0x80 } else { 0 };
        (0..bytes).map(byte).collect()
    }

    const SCHEMA: &str = "message m { required binary a (UTF8); }";

    #[test]
    fn pages_that_say_too_much_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let long = "It is long, and longer. ".repeat(100_000);
        // Whatever is true is believed.
        for (texts, dictionary) in [(vec![long.as_str()], false), (vec!["b"; 1000], true), (vec![], true)] {
            let path = file(dir.path(), SCHEMA, &texts, dictionary);
            let rows: Vec<_> = read(&path, &["a"]).unwrap().map(|row| row.unwrap().1["a"].clone()).collect();
            assert_eq!(rows, texts);
        }
        // The header of the first page begins with three numbers: its kind, and its sizes.
        let path = file(dir.path(), SCHEMA, &[&"x".repeat(100)], false);
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!([bytes[4], bytes[6], bytes[9]], [0x15; 3]);
        let said = |at: std::ops::Range<usize>, number: u64| {
            let changed = [&bytes[..at.start], &stored(number, at.len() + 3), &bytes[at.end..]].concat();
            std::fs::write(&path, changed).unwrap();
            refusal(&path)
        };
        let error = said(7..9, i32::MAX as u64);
        let expected = "column `a`: its page at byte 4: says that it is 2147483647 bytes large, of ";
        assert!(error.contains("rows.parquet") && error.contains(expected), "{error}");
        assert!(error.ends_with("write smaller pages (`data_page_size`, or `row_group_size`), or JSONL"), "{error}");
        // A number that is said to be of another kind, as which the crate reads it all the same.
        for at in [4, 6, 9] {
            let changed = [&bytes[..at], &[0x16], &bytes[at + 1..]].concat();
            std::fs::write(&path, changed).unwrap();
            let error = refusal(&path);
            assert!(error.ends_with("column `a`: it is damaged at byte 4"), "{error}");
        }
        // What is small is left to the reader to refuse.
        assert!(!said(7..9, 1 << 20).contains("says that it is"));

        // A dictionary: fields 1 to 3, and the structure of field 7 whose first number counts its values.
        let path = file(dir.path(), SCHEMA, &["b", "c"], true);
        let bytes = std::fs::read(&path).unwrap();
        let at = bytes.windows(4).position(|at| at == [0x4c, 0x15, 4, 0x15]).unwrap() + 2;
        let changed = [&bytes[..at], &stored(1 << 30, 5), &bytes[at + 1..]].concat();
        std::fs::write(&path, changed).unwrap();
        let error = refusal(&path);
        assert!(error.contains("says that it has 1073741824 values, for which its 10 bytes have no room"), "{error}");
        for (at, kind) in [(at - 2, 0x49), (at - 1, 0x16)] {
            std::fs::write(&path, [&bytes[..at], &[kind], &bytes[at + 1..]].concat()).unwrap();
            assert!(refusal(&path).ends_with("it is damaged at byte 4"), "{at}");
        }
    }

    #[test]
    fn schemas_that_cannot_be_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let nested = |depth: usize| {
            let (open, close) = ("required group a { ".repeat(depth), "} ".repeat(depth));
            format!("message m {{ {open} required binary a (UTF8); {close} }}")
        };
        assert_eq!(read(&file(dir.path(), &nested(DEEPEST - 1), &["b"], false), &["a"]).unwrap().count(), 1);
        let error = refusal(&file(dir.path(), &nested(DEEPEST), &["b"], false));
        assert!(error.contains("more than 64 groups of columns lie within each other"), "{error}");

        // Metadata with a list of one structure, whose fifth field is a number, and of two of them.
        let one = [&[0x29, 0x1c, 0x55][..], &stored(1 << 30, 5), &[0, 0]].concat();
        assert_eq!(groups(&one).unwrap(), [[1 << 30]]);
        assert!(fits(&[1 << 30]).unwrap_err().to_string().contains("it has 1073741824, but there are 1 in all"));
        assert_eq!(groups(&[0x29, 0x2c, 0x55, 2, 0, 0, 0]).unwrap(), [[1, 0]]);
        fits(&[1, 0]).unwrap();
        for cut in 0..one.len() {
            assert_eq!(groups(&one[..cut]), None, "{cut}");
        }
        // The list as a set, and the number as a longer one, which the crate reads alike.
        for (at, kind) in [(0, 0x2a), (2, 0x56)] {
            assert_eq!(groups(&[&one[..at], &[kind], &one[at + 1..]].concat()), None, "{at}");
        }
        // What a column means, as another structure than it is, and what comes before the schema.
        let meaning = |kind: u8| groups(&[0x29, 0x1c, 0xac, 0x5c, kind, 2, 0, 0, 0, 0]);
        assert_eq!((meaning(0x15), meaning(0x16)), (Some(vec![vec![0]]), None));
        let before = |kind: u8| groups(&[0x59, 0x1c, kind, 0, 0, 0x09, 4, 0x1c, 0x55, 2, 0, 0]);
        assert_eq!((before(0x18), before(0x15)), (Some(vec![vec![1]]), None));
    }
}
