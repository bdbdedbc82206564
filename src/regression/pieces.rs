//! What a formula names, as values by row: numbers, or levels of a category.

use super::cell::Cell;
use super::formula::{Category, Cross, Factor, Function, Variable};
use super::table::Table;
use super::words::Fault;
use crate::recipe::spelling::nearest;
use std::collections::BTreeSet;
use std::ops::Range;

/// Most levels of a category; a fixed effect may have any number.
const MAX_LEVELS: usize = 500;

/// Values of one factor, over all rows of the table.
pub struct Piece {
    values: Values,
    pub span: Range<usize>,
    /// As the formula has it.
    shown: String,
}

enum Values {
    Numbers { raw: Vec<Option<f64>>, functions: Vec<Function> },
    Levels { by_row: Vec<Option<String>>, column: String, base: Option<(String, Range<usize>)> },
}

/// Columns that a factor adds to a design, each with its name.
pub type Columns = Vec<(String, Vec<f64>)>;

impl Piece {
    /// # Errors
    /// There is no such column, or it has numbers and texts.
    pub fn of(table: &Table, factor: &Factor) -> Result<Self, Fault> {
        match factor {
            Factor::Category(Category { column, base, span }) => {
                let values = levels(&table.at(column, None, span)?, column, base.clone());
                Ok(Self { values, span: span.clone(), shown: factor.to_string() })
            }
            Factor::Variable(variable) if variable.functions.is_empty() && variable.reduce.is_none() => {
                let Variable { column, span, .. } = variable;
                let cells = table.at(column, None, span)?;
                let is_text = |cell: &&Cell| !cell.is_missing() && cell.number().is_none();
                match cells.iter().position(is_text) {
                    None => Self::number(table, variable),
                    Some(row) if cells.iter().any(|cell| cell.number().is_some()) => {
                        let (shown, place) = (cells[row].level(), table.place(row));
                        let advice = "write C() around it if it is a category";
                        Err(Fault::new(
                            span,
                            format!("`{column}` has numbers and texts ({place}: `{shown}`)\n{advice}"),
                        ))
                    }
                    Some(_) => {
                        let values = levels(&cells, column, None);
                        Ok(Self { values, span: span.clone(), shown: factor.to_string() })
                    }
                }
            }
            Factor::Variable(variable) => Self::number(table, variable),
        }
    }

    /// The values of what has to be a number.
    ///
    /// # Errors
    /// There is no such column, or it has texts.
    pub fn number(table: &Table, variable: &Variable) -> Result<Self, Fault> {
        let Variable { column, reduce, functions, span } = variable;
        let cells = table.at(column, *reduce, span)?;
        let is_text = |cell: &&Cell| !cell.is_missing() && cell.number().is_none();
        if let Some(row) = cells.iter().position(is_text) {
            let (shown, place) = (cells[row].level(), table.place(row));
            return Err(Fault::new(span, format!("`{column}` is not a number everywhere ({place}: `{shown}`)")));
        }
        let raw = cells.iter().map(|cell| cell.number()).collect();
        let values = Values::Numbers { raw, functions: functions.clone() };
        Ok(Self { values, span: span.clone(), shown: variable.to_string() })
    }

    pub fn is_missing(&self, row: usize) -> bool {
        match &self.values {
            Values::Numbers { raw, .. } => raw[row].is_none(),
            Values::Levels { by_row, .. } => by_row[row].is_none(),
        }
    }

    /// The numbers of some rows, in which nothing is missing.
    ///
    /// # Errors
    /// A function does not take a value.
    pub fn numbers(&self, table: &Table, rows: &[usize]) -> Result<Vec<f64>, Fault> {
        let Values::Numbers { raw, functions } = &self.values else {
            return Err(Fault::new(&self.span, format!("{} is a category where a number was expected", self.shown)));
        };
        let value = |row: &usize| {
            let mut value = raw[*row].unwrap_or_default();
            for function in functions {
                value = function.of(value).map_err(|why| {
                    let (place, name) = (table.place(*row), function.name());
                    Fault::new(&self.span, format!("{name}() of {value} in {place}\n{name}() {why}"))
                })?;
            }
            Ok(value)
        };
        rows.iter().map(value).collect()
    }

    /// The columns of some rows, in which nothing is missing. `contrasts`: those of all levels but the baseline; what
    /// to know about it is noted.
    ///
    /// # Errors
    /// A function does not take a value; no row is of the baseline, or there are too many levels.
    pub fn columns(
        &self,
        table: &Table,
        rows: &[usize],
        contrasts: bool,
        notes: &mut BTreeSet<String>,
    ) -> Result<Columns, Fault> {
        let Values::Levels { by_row, column, base } = &self.values else {
            return Ok(vec![(self.shown.clone(), self.numbers(table, rows)?)]);
        };
        let own: Vec<&str> = rows.iter().filter_map(|row| by_row[*row].as_deref()).collect();
        let mut levels: Vec<&str> = own.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
        if levels.len() > MAX_LEVELS {
            let what = format!("`{column}` has {} levels, a category has at most {MAX_LEVELS}", levels.len());
            return Err(Fault::new(&self.span, format!("{what}\nas a fixed effect it goes behind `|`")));
        }
        // Levels that are all numbers are in the order of numbers.
        let numbers: Option<Vec<f64>> = levels.iter().map(|level| level.parse().ok()).collect();
        if let Some(numbers) = numbers {
            let mut order: Vec<usize> = (0..levels.len()).collect();
            order.sort_by(|a, b| numbers[*a].total_cmp(&numbers[*b]));
            levels = order.into_iter().map(|at| levels[at]).collect();
        }
        let base = match base {
            Some((base, span)) if !levels.contains(&base.as_str()) => {
                let hint = nearest(base, &levels).map_or(String::new(), |known| format!("; did you mean `{known}`?"));
                let some: Vec<&str> = levels.iter().copied().take(40).collect();
                let known = format!("the levels are: {}", some.join(", "));
                return Err(Fault::new(span, format!("no row has the level `{base}` of `{column}`{hint}\n{known}")));
            }
            Some((base, _)) => base.as_str(),
            None => levels.first().copied().unwrap_or_default(),
        };
        if contrasts && levels.len() == 1 {
            notes.insert(format!("`{column}` is `{base}` in all rows, and has no coefficient"));
        } else if contrasts {
            notes.insert(format!("levels of `{column}` are held against `{base}`"));
        }
        let dummy = |level: &&str| {
            let values = own.iter().map(|other| f64::from(u8::from(other == level))).collect();
            (format!("{column}[{level}]"), values)
        };
        Ok(levels.iter().filter(|level| !contrasts || **level != base).map(dummy).collect())
    }
}

fn levels(cells: &[&Cell], column: &str, base: Option<(String, Range<usize>)>) -> Values {
    let level = |cell: &&Cell| (!cell.is_missing()).then(|| cell.level());
    Values::Levels { by_row: cells.iter().map(level).collect(), column: column.into(), base }
}

/// The level or cluster of each row; `None` where one of its columns is missing.
///
/// # Errors
/// There is no such column.
pub fn crossed(table: &Table, cross: &Cross) -> Result<Vec<Option<Vec<String>>>, Fault> {
    let columns = cross.columns.iter().map(|column| table.at(column, None, &cross.span));
    let columns: Vec<Vec<&Cell>> = columns.collect::<Result<_, _>>()?;
    let level = |row: usize| {
        let cells = columns.iter().map(|cells| cells[row]);
        cells.map(|cell| (!cell.is_missing()).then(|| cell.level())).collect()
    };
    Ok((0..table.rows()).map(level).collect())
}
