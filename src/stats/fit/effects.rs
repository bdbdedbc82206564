//! Fixed effects that are absorbed: columns are replaced by what is left of them after a regression on one dummy per
//! level. By the theorem of Frisch, Waugh and Lovell, coefficients and residuals are then those of the regression with
//! all dummies, which never has to be formed.
//!
//! Decided: with one effect, means are taken out, which is exact. With several, alternating projections converge slowly
//! where few rows connect the levels; the normal equations of the dummies are solved instead, by conjugate gradients
//! with the sizes of the levels as the preconditioner. Both find the same projection.

use super::groups::Groups;
use anyhow::{Result, bail};
use nalgebra::{DMatrix, DVector};

/// Most iterations for a column.
const MOST: usize = 20_000;
/// Where iterations end: what is left of the means of levels, relative to the column's spread.
const PRECISION: f64 = 1e-12;

/// The fixed effects of a model; none is a model without them, which then has a constant of its own or lacks one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects(pub Vec<Groups>);

impl Effects {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the effects out of every column, [n, k], in a regression with these weights (none: all 1). Rows of weight
    /// zero are changed in the same way, but count for nothing.
    ///
    /// # Errors
    /// The iterations of several effects do not converge.
    pub fn take_out(&self, columns: &mut DMatrix<f64>, weights: Option<&[f64]>) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let ones = vec![1.0; columns.nrows()];
        let system = System::new(self, weights.unwrap_or(&ones));
        for mut column in columns.column_iter_mut() {
            let taken = system.residual(column.as_slice())?;
            column.copy_from(&taken);
        }
        Ok(())
    }

    /// How many parameters the effects take of the degrees of freedom, the constant among them; `counted` says which
    /// effects count. Of each effect but the first, as many levels are given by those before as there are components
    /// that no row connects; from three effects on this is the bound that pairs of effects give (Correia 2016, section
    /// 3.2), and the true number may be lower.
    pub fn parameters(&self, counted: &[bool]) -> usize {
        let chosen: Vec<&Groups> = self.0.iter().zip(counted).filter(|(_, c)| **c).map(|(groups, _)| groups).collect();
        let own = |(at, groups): (usize, &&Groups)| {
            let given = chosen[..at].iter().map(|before| before.components(groups)).max().unwrap_or(0);
            groups.count - given
        };
        let all: usize = chosen.iter().enumerate().map(own).sum();
        all.max(usize::from(!self.is_empty()))
    }

    /// The same effects for some of the rows.
    pub fn of_rows(&self, rows: &[usize]) -> Self {
        Self(self.0.iter().map(|groups| groups.of_rows(rows)).collect())
    }
}

/// The weighted least-squares problem of one column on the dummies of all effects.
struct System<'a> {
    effects: &'a [Groups],
    weights: &'a [f64],
    /// Where the levels of each effect begin among those of all.
    starts: Vec<usize>,
    /// The sum of weights in each level, [levels].
    totals: DVector<f64>,
}

impl<'a> System<'a> {
    fn new(effects: &'a Effects, weights: &'a [f64]) -> Self {
        let effects = &effects.0;
        let starts = effects.iter().scan(0, |start, groups| Some(std::mem::replace(start, *start + groups.count)));
        let starts: Vec<usize> = starts.collect();
        let levels = effects.iter().map(|groups| groups.count).sum();
        let mut system = Self { effects, weights, starts, totals: DVector::zeros(levels) };
        system.totals = system.sums(&vec![1.0; weights.len()]);
        system
    }

    /// The weighted sum of a column in each level, [levels].
    fn sums(&self, column: &[f64]) -> DVector<f64> {
        let mut sums = DVector::zeros(self.totals.len());
        for (groups, start) in self.effects.iter().zip(&self.starts) {
            for ((code, value), weight) in groups.codes.iter().zip(column).zip(self.weights) {
                sums[start + code] += weight * value;
            }
        }
        sums
    }

    /// What the levels add up to in each row, [n].
    fn rows(&self, levels: &DVector<f64>) -> Vec<f64> {
        let mut rows = vec![0.0; self.weights.len()];
        for (groups, start) in self.effects.iter().zip(&self.starts) {
            rows.iter_mut().zip(&groups.codes).for_each(|(row, code)| *row += levels[start + code]);
        }
        rows
    }

    /// Divided by the sums of weights; a level without weight keeps 0.
    fn scaled(&self, levels: &DVector<f64>) -> DVector<f64> {
        levels.zip_map(&self.totals, |value, total| if total > 0.0 { value / total } else { 0.0 })
    }

    /// The column less its regression on the dummies.
    fn residual(&self, column: &[f64]) -> Result<DVector<f64>> {
        let mut column = DVector::from_column_slice(column);
        // Every effect holds the constant, and rounding is smaller without it.
        let (sum, total) = column.iter().zip(self.weights).fold((0.0, 0.0), |(s, t), (x, w)| (s + w * x, t + w));
        column.add_scalar_mut(-sum / total);
        let spread: f64 = column.iter().zip(self.weights).map(|(x, w)| w * x * x).sum();
        // The second pass takes out what rounding left.
        for _ in 0..2 {
            let fitted = if self.effects.len() == 1 {
                self.scaled(&self.sums(column.as_slice()))
            } else {
                self.solution(column.as_slice(), spread * PRECISION * PRECISION)?
            };
            column -= DVector::from_vec(self.rows(&fitted));
        }
        Ok(column)
    }

    /// The levels that fit a column, by preconditioned conjugate gradients. The equations have many solutions, since
    /// constants can be moved between effects; all of them fit the same rows.
    fn solution(&self, column: &[f64], enough: f64) -> Result<DVector<f64>> {
        let mut levels = DVector::zeros(self.totals.len());
        let mut left = self.sums(column);
        let mut direction = self.scaled(&left);
        let mut size = left.dot(&direction);
        for _ in 0..MOST {
            if size <= enough {
                return Ok(levels);
            }
            let image = self.sums(&self.rows(&direction));
            let step = size / direction.dot(&image);
            levels.axpy(step, &direction, 1.0);
            left.axpy(-step, &image, 1.0);
            let scaled = self.scaled(&left);
            let next = left.dot(&scaled);
            direction = scaled + direction * (next / size);
            size = next;
        }
        bail!("the fixed effects could not be taken out in {MOST} iterations: too few rows connect their levels")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The residual of a regression on all dummies, by singular values.
    fn by_dummies(effects: &Effects, column: &[f64], weights: &[f64]) -> DVector<f64> {
        let roots = DVector::from_iterator(weights.len(), weights.iter().map(|w| w.sqrt()));
        let levels: usize = effects.0.iter().map(|g| g.count).sum();
        let mut dummies = DMatrix::zeros(column.len(), levels);
        let mut start = 0;
        for groups in &effects.0 {
            groups.codes.iter().enumerate().for_each(|(row, code)| dummies[(row, start + code)] = 1.0);
            start += groups.count;
        }
        let column = DVector::from_column_slice(column);
        let weighted = DMatrix::from_diagonal(&roots) * &dummies;
        let fitted = weighted.svd(true, true).solve(&column.component_mul(&roots), 1e-10).unwrap();
        column - dummies * fitted
    }

    #[test]
    fn what_is_left_is_the_residual_of_a_regression_on_dummies() {
        let n = 60;
        let noise = |i: usize, k: usize| ((i * 7919 + k * 104_729) % 1009) as f64 / 1009.0;
        // The third is connected with the first by few rows.
        let all = [
            Groups::of((0..n).map(|i| i % 7)),
            Groups::of((0..n).map(|i| (noise(i, 1) * 5.0) as usize)),
            Groups::of((0..n).map(|i| if i == 3 { 8 } else { i % 7 / 2 })),
        ];
        let even = vec![1.0; n];
        let uneven: Vec<f64> = (0..n).map(|i| (i % 3) as f64 + noise(i, 2)).collect();
        for count in 1..=3 {
            let effects = Effects(all[..count].to_vec());
            for weights in [&even, &uneven] {
                let column: Vec<f64> = (0..n).map(|i| 1e6 + i as f64 + noise(i, 3)).collect();
                let mut taken = DMatrix::from_column_slice(n, 1, &column);
                effects.take_out(&mut taken, Some(weights)).unwrap();
                let expected = by_dummies(&effects, &column, weights);
                let far = (0..n).map(|i| (taken[i] - expected[i]).abs()).fold(0.0, f64::max);
                assert!(far < 1e-7, "{count} effects: {far}");
            }
        }
    }

    #[test]
    fn levels_that_others_give_do_not_count() {
        let effects = Effects(vec![
            Groups::of([0, 0, 1, 1, 2, 2]),
            Groups::of([0, 1, 0, 1, 2, 3]),
            Groups::of([0, 0, 0, 0, 1, 1]),
        ]);
        assert_eq!(effects.parameters(&[true, false, false]), 3);
        // Two components: 3 + 4 - 2.
        assert_eq!(effects.parameters(&[true, true, false]), 5);
        assert_eq!(effects.parameters(&[true, true, true]), 5);
        assert_eq!(effects.parameters(&[false, false, false]), 1);
        assert_eq!(Effects::default().parameters(&[]), 0);
    }

    #[test]
    fn levels_without_weight_are_of_no_account() {
        let effects = Effects(vec![Groups::of([0, 0, 1, 1]), Groups::of([0, 1, 0, 1])]);
        let mut column = DMatrix::from_column_slice(4, 1, &[1.0, 3.0, 7.0, 8.0]);
        effects.take_out(&mut column, Some(&[1.0, 1.0, 0.0, 0.0])).unwrap();
        assert!(column[0].abs() < 1e-12 && column[1].abs() < 1e-12, "{column}");
    }
}
