//! The rows that a model is fitted to, and which of its columns are independent.

use super::effects::Effects;
use nalgebra::{DMatrix, DVector};

/// A column counts as a combination of others if no more than this share of its variation is left without them.
const COLLINEAR: f64 = 1e-9;
/// The share of a column's size below which its variation is rounding.
const ROUNDING: f64 = 1e-13;

/// Rows of an outcome and of what may explain it; everything is finite.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// [n]
    pub outcome: DVector<f64>,
    /// Columns with a coefficient each, the constant among them if the model has one of its own, [n, k].
    pub columns: DMatrix<f64>,
    /// What is added to the columns with the coefficient 1, [n].
    pub offset: DVector<f64>,
    pub effects: Effects,
}

impl Sample {
    /// Some of the rows.
    pub fn of_rows(&self, rows: &[usize]) -> Self {
        Self {
            outcome: self.outcome.select_rows(rows),
            columns: self.columns.select_rows(rows),
            offset: self.offset.select_rows(rows),
            effects: self.effects.of_rows(rows),
        }
    }

    /// The variation of each column below which, with other columns and effects taken out, nothing is left of it.
    pub(super) fn tolerances(&self) -> Vec<f64> {
        let tolerance = |column: nalgebra::DVectorView<f64>| {
            let size = column.norm();
            let spread = column.add_scalar(-column.mean()).norm();
            // A constant, unless the effects hold it, is a column like any other.
            let spread = if self.effects.is_empty() && spread <= ROUNDING * size { size } else { spread };
            COLLINEAR * spread + ROUNDING * size
        };
        self.columns.column_iter().map(tolerance).collect()
    }
}

/// The columns that are no combination of those before them: each is made orthogonal to these, twice, as once leaves
/// rounding behind (Giraud, Langou and Rozložník 2005), and dropped if no more than its tolerance is left.
pub(super) fn independent(columns: &DMatrix<f64>, tolerances: &[f64]) -> Vec<usize> {
    let mut kept = Vec::new();
    let mut basis = DMatrix::zeros(columns.nrows(), columns.ncols().min(columns.nrows()));
    for (at, tolerance) in tolerances.iter().enumerate() {
        if kept.len() == basis.ncols() {
            break;
        }
        let mut left: DVector<f64> = columns.column(at).into_owned();
        let before = basis.columns(0, kept.len());
        for _ in 0..2 {
            left -= before * before.tr_mul(&left);
        }
        let size = left.norm();
        if size > *tolerance && size > 0.0 {
            basis.set_column(kept.len(), &(left / size));
            kept.push(at);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::super::groups::Groups;
    use super::*;

    fn sample(columns: &[Vec<f64>], effects: Effects) -> Sample {
        let n = columns[0].len();
        let columns: Vec<DVector<f64>> = columns.iter().map(|column| DVector::from_column_slice(column)).collect();
        let zeros = DVector::zeros(n);
        Sample { outcome: zeros.clone(), columns: DMatrix::from_columns(&columns), offset: zeros, effects }
    }

    #[test]
    fn the_first_of_collinear_columns_stay() {
        let n = 40;
        let noise = |i: usize, k: usize| ((i * 7919 + k * 104_729) % 1009) as f64 / 1009.0;
        let a: Vec<f64> = (0..n).map(|i| noise(i, 1)).collect();
        let b: Vec<f64> = (0..n).map(|i| 1e6 * noise(i, 2)).collect();
        let sum: Vec<f64> = a.iter().zip(&b).map(|(a, b)| 3.0 * a - 2.0 * b + 5.0).collect();
        // A clock: large, and it varies little.
        let clock: Vec<f64> = (0..n).map(|i| 1.7e9 + noise(i, 3)).collect();
        let all =
            sample(&[vec![1.0; n], a.clone(), vec![4.0; n], b, sum, clock.clone(), vec![0.0; n]], Effects::default());
        assert_eq!(independent(&all.columns, &all.tolerances()), [0, 1, 3, 5]);
        // Within groups, what only varies between them is gone.
        let groups = Groups::of((0..n).map(|i| i / 4));
        let between: Vec<f64> = (0..n).map(|i| noise(i / 4, 4)).collect();
        let within = sample(&[between, a, vec![1.0; n], clock], Effects(vec![groups]));
        let mut columns = within.columns.clone();
        within.effects.take_out(&mut columns, None).unwrap();
        assert_eq!(independent(&columns, &within.tolerances()), [1, 3]);
        assert_eq!(independent(&DMatrix::zeros(2, 3), &[0.0; 3]), Vec::<usize>::new());
    }
}
