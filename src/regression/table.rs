//! Columns of tables: those that models name, out of rows of any kind of file.
//!
//! A name with dots leads into nested objects, and a number into a list, unless a column has that very name. Where the
//! columns of a row are lists, as in a run's evaluations.jsonl, each of their places becomes a row.

use super::cell::Cell;
use super::formula::Reduce;
use super::words::Fault;
use crate::recipe::spelling::nearest;
use crate::rows::{any, columns, place};
use crate::{OrBadInput, bad};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// Rows whose names are kept for advice.
const LOOKED_AT: usize = 200;
/// Most names that are kept.
const MAX_NAMES: usize = 2000;
/// Most rows of all files.
const MAX_ROWS: usize = 1 << 26;

/// Columns that every table has unless its rows have one of that name: what it was called on the command line, its
/// path, and the place in the lists of a row, from 0.
pub const OWN: [&str; 3] = ["table", "file", "index"];

/// What the elements of a list are called: its name, and theirs.
pub type Named = (&'static str, &'static [&'static str]);

/// A file to read.
#[derive(Clone, Debug)]
pub struct Source {
    /// What it is called: the value of the column `table`.
    pub name: String,
    pub path: PathBuf,
}

/// A column, or what makes a number of a column's lists.
pub type Wanted = (String, Option<Reduce>);

/// A condition that rows meet: the value of a column is one of these.
#[derive(Clone, Debug)]
pub struct Filter {
    pub column: String,
    pub values: Vec<String>,
}

/// The columns that were asked for.
#[derive(Debug, Default)]
pub struct Table {
    cells: BTreeMap<Wanted, Vec<Cell>>,
    /// Of each row its file and its number there.
    places: Vec<(usize, usize)>,
    files: Vec<PathBuf>,
    /// What could have been asked for.
    names: BTreeSet<String>,
    /// Rows that no filter let through.
    pub filtered: usize,
}

impl Table {
    /// Reads the files one after another.
    ///
    /// # Errors
    /// Bad input: a file that cannot be read; rows whose lists differ in length; a value that is no number and no text.
    pub fn read(sources: &[Source], wanted: &BTreeSet<Wanted>, filters: &[Filter], named: &[Named]) -> Result<Self> {
        let filtering = filters.iter().map(|filter| (filter.column.clone(), None));
        let all: BTreeSet<Wanted> = wanted.iter().cloned().chain(filtering).collect();
        let mut table = Self::default();
        for source in sources {
            table.add(source, &all, filters, named).bad_input()?;
        }
        for filter in filters {
            if !table.cells.contains_key(&(filter.column.clone(), None)) {
                return Err(bad!("--where {}: {}", filter.column, table.unknown(&filter.column)));
            }
        }
        Ok(table)
    }

    fn add(&mut self, source: &Source, wanted: &BTreeSet<Wanted>, filters: &[Filter], named: &[Named]) -> Result<()> {
        let Source { name, path } = source;
        let header = columns(path)?;
        let is_text = path.extension().is_some_and(|extension| extension == "csv" || extension == "tsv");
        let is_part = |column: &str| {
            let behind = |name: &str| name.strip_prefix(column).is_some_and(|rest| rest.starts_with('.'));
            wanted.iter().any(|(name, _)| name == column || behind(name))
        };
        let mut chosen: Vec<&str> = header.iter().flatten().map(String::as_str).collect();
        self.names.extend(chosen.iter().take(MAX_NAMES).map(|name| name.to_string()));
        if chosen.iter().any(|column| is_part(column)) {
            chosen.retain(|column| is_part(column));
        }
        let file = self.files.len();
        self.files.push(path.clone());
        for (at, row) in any(path, &chosen)?.enumerate() {
            let (number, row) = row?;
            if at < LOOKED_AT {
                self.collect("", &row, 0);
            }
            let own = |column: &str| match column {
                "table" => Some(Cell::Text(name.clone())),
                "file" => Some(Cell::Text(path.display().to_string())),
                _ => None,
            };
            let found = Found::of(&row, wanted, own, is_text, named).with_context(|| place(path, number))?;
            self.push(found, (file, number), filters);
            ensure!(self.places.len() <= MAX_ROWS, "{}: more than {MAX_ROWS} rows", path.display());
        }
        Ok(())
    }

    /// Adds a row, or one for each place of its lists.
    fn push(&mut self, found: Found, place: (usize, usize), filters: &[Filter]) {
        for at in 0..found.length.unwrap_or(1) {
            let cell = |column: &Wanted| match found.cells.get(column) {
                Some(cells) => cells.get(at).or(cells.first()).cloned(),
                None if column.0 == "index" && found.length.is_some() => Some(Cell::Number(at as f64)),
                None => None,
            };
            let passes = |filter: &Filter| {
                let cell = cell(&(filter.column.clone(), None)).unwrap_or(Cell::Missing);
                filter.values.iter().any(|value| cell.is(value))
            };
            if !filters.iter().all(passes) {
                self.filtered += 1;
                // A column that only such rows have is known all the same.
                for column in found.cells.keys() {
                    self.cells.entry(column.clone()).or_insert_with(|| vec![Cell::Missing; self.places.len()]);
                }
                continue;
            }
            let before = self.places.len();
            let index = ("index".to_string(), None);
            let own = (!found.cells.contains_key(&index)).then_some(&index);
            for column in found.cells.keys().chain(own) {
                if let Some(cell) = cell(column) {
                    let cells = self.cells.entry(column.clone()).or_default();
                    cells.resize(before, Cell::Missing);
                    cells.push(cell);
                }
            }
            self.places.push(place);
        }
    }

    /// Keeps the names of a row's fields.
    fn collect(&mut self, prefix: &str, row: &Map<String, Value>, depth: usize) {
        for (name, value) in row {
            let name = format!("{prefix}{name}");
            match value {
                Value::Object(inner) if depth < 6 => self.collect(&format!("{name}."), inner, depth + 1),
                _ if self.names.len() < MAX_NAMES => {
                    self.names.insert(name);
                }
                _ => return,
            }
        }
    }

    pub fn rows(&self) -> usize {
        self.places.len()
    }

    /// The cells of a column, [rows].
    ///
    /// # Errors
    /// No row has it; with the nearest name.
    pub fn column(&self, column: &str, reduce: Option<Reduce>) -> Result<Vec<&Cell>, String> {
        let cells = self.cells.get(&(column.to_string(), reduce)).ok_or_else(|| self.unknown(column))?;
        Ok((0..self.rows()).map(|row| cells.get(row).unwrap_or(&Cell::Missing)).collect())
    }

    /// The same with the place in a formula.
    ///
    /// # Errors
    /// As `column`.
    pub fn at(&self, column: &str, reduce: Option<Reduce>, span: &std::ops::Range<usize>) -> Result<Vec<&Cell>, Fault> {
        self.column(column, reduce).map_err(|what| Fault::new(span, what))
    }

    /// Where a row is, for messages.
    pub fn place(&self, row: usize) -> String {
        let (file, number) = self.places[row];
        place(&self.files[file], number)
    }

    fn unknown(&self, column: &str) -> String {
        if column == "index" {
            return "there is no column `index`\nit is the place in lists, and no column that is named is one".into();
        }
        // Of a nested name the last part may be all that somebody remembers.
        let names: Vec<&str> = self.names.iter().map(String::as_str).chain(OWN).collect();
        let tails = names.iter().map(|name| (name.rsplit('.').next().unwrap_or(name), *name));
        let ends: Vec<(&str, &str)> = names.iter().map(|name| (*name, *name)).chain(tails).collect();
        let known = nearest(column, ends.iter().map(|(end, _)| *end));
        let known = known.and_then(|known| ends.iter().find(|(end, _)| *end == known)).map(|(_, name)| *name);
        let hint = known.map_or(String::new(), |known| format!("; did you mean `{known}`?"));
        format!("there is no column `{column}`{hint}\nthe columns are: {}", names[..names.len().min(40)].join(", "))
    }
}

/// The cells of one row.
struct Found {
    cells: BTreeMap<Wanted, Vec<Cell>>,
    /// Of its lists; `None` without lists.
    length: Option<usize>,
}

impl Found {
    fn of(
        row: &Map<String, Value>,
        wanted: &BTreeSet<Wanted>,
        own: impl Fn(&str) -> Option<Cell>,
        is_text: bool,
        named: &[Named],
    ) -> Result<Self> {
        let mut found = Self { cells: BTreeMap::new(), length: None };
        let mut longest: Option<&str> = None;
        for column in wanted {
            let (name, reduce) = column;
            let cells = match (find(row, name, "", named), reduce) {
                (None, _) => match own(name) {
                    Some(cell) => vec![cell],
                    None => continue,
                },
                (Some(value), Some(reduce)) => vec![reduced(value, *reduce).with_context(|| format!("`{name}`"))?],
                (Some(Value::Array(list)), None) => {
                    if let Some((_, elements)) = named.iter().find(|(list, _)| list == name) {
                        bail!("`{name}` is a list: name an element, such as `{name}.{}`, or sum({name})", elements[0]);
                    }
                    ensure!(
                        found.length.is_none_or(|length| length == list.len()),
                        "the list `{name}` has {} elements, but `{}` has {}",
                        list.len(),
                        longest.unwrap_or_default(),
                        found.length.unwrap_or_default()
                    );
                    (found.length, longest) = (Some(list.len()), Some(name.as_str()));
                    let cells = list.iter().map(|value| Cell::of(value, is_text));
                    cells.collect::<Option<Vec<Cell>>>().with_context(|| {
                        format!("`{name}` is a list of objects: len({name}) counts them, `{name}.0` is the first")
                    })?
                }
                (Some(value), None) => vec![Cell::of(value, is_text).with_context(|| {
                    let first = value.as_object().and_then(|inner| inner.keys().next()).cloned().unwrap_or_default();
                    format!("`{name}` is an object: name one of its fields, such as `{name}.{first}`")
                })?],
            };
            found.cells.insert(column.clone(), cells);
        }
        Ok(found)
    }
}

/// What a name leads to; `path` is that of the row it begins in, with a dot at its end.
fn find<'a>(row: &'a Map<String, Value>, name: &str, path: &str, named: &[Named]) -> Option<&'a Value> {
    if let Some(value) = row.get(name) {
        return Some(value);
    }
    let dots = name.match_indices('.').map(|(at, _)| at);
    let mut found = dots.filter_map(|at| {
        let (first, rest) = (&name[..at], &name[at + 1..]);
        within(row.get(first)?, rest, &format!("{path}{first}"), named)
    });
    found.next()
}

/// What a name leads to inside a value at `path`.
fn within<'a>(value: &'a Value, name: &str, path: &str, named: &[Named]) -> Option<&'a Value> {
    match value {
        Value::Object(inner) => find(inner, name, &format!("{path}."), named),
        Value::Array(list) => {
            let (first, rest) = name.split_once('.').map_or((name, None), |(first, rest)| (first, Some(rest)));
            let known = named.iter().find(|(list, _)| *list == path);
            let place = known.and_then(|(_, elements)| elements.iter().position(|element| *element == first));
            let element = list.get(place.or_else(|| first.parse().ok())?)?;
            rest.map_or(Some(element), |rest| within(element, rest, &format!("{path}.{first}"), named))
        }
        // What is not known about a whole is not known about its parts.
        Value::Null => Some(&Value::Null),
        _ => None,
    }
}

fn reduced(value: &Value, reduce: Reduce) -> Result<Cell> {
    let list = match value {
        Value::Null => return Ok(Cell::Missing),
        Value::Array(list) => list,
        _ => bail!("{}() takes a list", reduce.name()),
    };
    match reduce {
        Reduce::Len => Ok(Cell::Number(list.len() as f64)),
        Reduce::Sum if list.iter().any(Value::is_null) => Ok(Cell::Missing),
        Reduce::Sum => {
            let number = |value: &Value| Cell::of(value, false).and_then(|cell| cell.number());
            let numbers: Option<Vec<f64>> = list.iter().map(number).collect();
            Ok(Cell::Number(numbers.context("sum() takes a list of numbers")?.iter().sum()))
        }
    }
}
