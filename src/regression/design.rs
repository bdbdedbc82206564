//! The matrices of a formula over a table.

use super::formula::{Cross, Factor, Formula, Term, Variable};
use super::pieces::{Columns, Piece, crossed};
use super::table::Table;
use super::words::Fault;
use crate::stats::fit::{Effects, Groups, Sample};
use nalgebra::{DMatrix, DVector};
use serde::Serialize;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// Most numbers of a matrix, 2 GiB.
const MAX_NUMBERS: usize = 1 << 28;

/// What the constant is called.
pub const CONSTANT: &str = "constant";

/// How many rows lack something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Missing {
    pub column: String,
    pub rows: usize,
}

/// A way of clustering, with the cluster of each row of the table.
pub struct Clustering {
    pub by: Cross,
    pub of: Vec<Option<Vec<String>>>,
}

/// A sample with the names of its columns.
pub struct Design {
    pub sample: Sample,
    /// [k]
    pub names: Vec<String>,
    /// The columns of each term of the formula.
    pub terms: Vec<Range<usize>>,
    /// The clusters in each way.
    pub clusters: Vec<Groups>,
    /// The table's row of each row.
    pub rows: Vec<usize>,
    pub missing: Vec<Missing>,
    pub notes: BTreeSet<String>,
}

impl Clustering {
    /// # Errors
    /// There is no such column.
    pub fn of(table: &Table, by: Cross) -> Result<Self, Fault> {
        Ok(Self { of: crossed(table, &by)?, by })
    }
}

impl Design {
    /// The rows in which nothing is missing of what the formula and the clusters name.
    ///
    /// # Errors
    /// A column or a level that is not there, texts where numbers are expected, numbers that a function does not take,
    /// no rows, or too many columns.
    pub fn of(table: &Table, formula: &Formula, clusterings: &[Clustering]) -> Result<Self, Fault> {
        let outcome = Piece::number(table, &formula.outcome)?;
        let offset = |offset: &Variable| Piece::number(table, offset);
        let offsets: Vec<Piece> = formula.offsets.iter().map(offset).collect::<Result<_, _>>()?;
        let mut pieces: BTreeMap<String, (Piece, String)> = BTreeMap::new();
        for factor in formula.terms.iter().flat_map(|term| &term.0) {
            if let Entry::Vacant(free) = pieces.entry(factor.to_string()) {
                free.insert((Piece::of(table, factor)?, factor.column().into()));
            }
        }
        let effects: Vec<_> = formula.effects.iter().map(|by| crossed(table, by)).collect::<Result<_, _>>()?;

        // What a row can lack, by name.
        let lacks_piece = |piece: &Piece| (0..table.rows()).map(|row| piece.is_missing(row)).collect::<Vec<_>>();
        let lacks_level = |of: &[Option<Vec<String>>]| of.iter().map(Option::is_none).collect::<Vec<_>>();
        let mut lacks: BTreeMap<String, Vec<bool>> = BTreeMap::new();
        lacks.insert(formula.outcome.column.clone(), lacks_piece(&outcome));
        for (variable, piece) in formula.offsets.iter().zip(&offsets) {
            lacks.insert(variable.column.clone(), lacks_piece(piece));
        }
        lacks.extend(pieces.values().map(|(piece, column)| (column.clone(), lacks_piece(piece))));
        lacks.extend(formula.effects.iter().zip(&effects).map(|(by, of)| (by.to_string(), lacks_level(of))));
        lacks.extend(clusterings.iter().map(|way| (way.by.to_string(), lacks_level(&way.of))));
        let missing = lacks.iter().map(|(column, rows)| Missing {
            column: column.clone(),
            rows: rows.iter().filter(|lacking| **lacking).count(),
        });
        let missing: Vec<Missing> = missing.filter(|missing| missing.rows > 0).collect();
        let rows: Vec<usize> = (0..table.rows()).filter(|row| lacks.values().all(|lacking| !lacking[*row])).collect();
        if rows.is_empty() {
            let each: Vec<String> = missing.iter().map(|m| format!("{} lack `{}`", m.rows, m.column)).collect();
            let why = if each.is_empty() { "the table is empty".into() } else { each.join(", ") };
            return Err(Fault::new(
                &formula.outcome.span,
                format!("no row of {} has all columns\n{why}", table.rows()),
            ));
        }

        let mut notes = BTreeSet::new();
        let mut columns = Columns::new();
        if formula.constant && effects.is_empty() {
            columns.push((CONSTANT.into(), vec![1.0; rows.len()]));
        }
        let mut terms = Vec::new();
        for term in &formula.terms {
            let start = columns.len();
            columns.extend(product(table, formula, term, &pieces, &rows, &mut notes)?);
            terms.push(start..columns.len());
            if columns.len() * rows.len() > MAX_NUMBERS {
                let (columns, rows) = (columns.len(), rows.len());
                return Err(Fault::new(&term.span(), format!("{columns} columns of {rows} rows do not fit in memory")));
            }
        }
        let mut offset = DVector::zeros(rows.len());
        for piece in &offsets {
            offset += DVector::from_vec(piece.numbers(table, &rows)?);
        }
        let groups = |of: &Vec<Option<Vec<String>>>| Groups::of(rows.iter().map(|row| &of[*row]));
        let (names, values): (Vec<String>, Vec<Vec<f64>>) = columns.into_iter().unzip();
        let sample = Sample {
            outcome: DVector::from_vec(outcome.numbers(table, &rows)?),
            columns: DMatrix::from_vec(rows.len(), names.len(), values.concat()),
            offset,
            effects: Effects(effects.iter().map(groups).collect()),
        };
        let clusters = clusterings.iter().map(|way| groups(&way.of)).collect();
        Ok(Self { sample, names, terms, clusters, rows, missing, notes })
    }

    /// Some of the rows.
    pub fn of_rows(&mut self, rows: &[usize]) {
        self.sample = self.sample.of_rows(rows);
        self.clusters = self.clusters.iter().map(|groups| groups.of_rows(rows)).collect();
        self.rows = rows.iter().map(|row| self.rows[*row]).collect();
    }
}

/// The columns of a term. A category has a column for each level but its baseline if the term without it is in the
/// model, whose columns stand for the baseline; otherwise one for each level, as in R.
fn product(
    table: &Table,
    formula: &Formula,
    term: &Term,
    pieces: &BTreeMap<String, (Piece, String)>,
    rows: &[usize],
    notes: &mut BTreeSet<String>,
) -> Result<Columns, Fault> {
    let keys = |factors: &[Factor]| factors.iter().map(Factor::to_string).collect::<BTreeSet<_>>();
    let mut columns: Option<Columns> = None;
    for factor in &term.0 {
        let mut rest = keys(&term.0);
        rest.remove(&factor.to_string());
        let constant = formula.constant || !formula.effects.is_empty();
        let has_rest =
            if rest.is_empty() { constant } else { formula.terms.iter().any(|other| keys(&other.0) == rest) };
        let Some((piece, _)) = pieces.get(&factor.to_string()) else { continue };
        let own = piece.columns(table, rows, has_rest, notes)?;
        columns = Some(match columns {
            None => own,
            Some(before) => {
                let pair = |(name, values): &(String, Vec<f64>), (other, others): &(String, Vec<f64>)| {
                    (format!("{name}:{other}"), values.iter().zip(others).map(|(a, b)| a * b).collect())
                };
                own.iter().flat_map(|right| before.iter().map(move |left| pair(left, right))).collect()
            }
        });
    }
    Ok(columns.unwrap_or_default())
}
