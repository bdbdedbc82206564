//! Ordinary least squares; of an outcome that is 0 or 1, the linear probability model.

use super::sample::{Sample, independent};
use anyhow::{Context, Result, ensure};
use nalgebra::{DMatrix, DVector};

/// A model that was fitted to a sample: k coefficients from n rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Fit {
    /// The columns that have a coefficient; the others are combinations of those before them.
    pub kept: Vec<usize>,
    /// [k]
    pub coefficients: DVector<f64>,
    /// The inverse of X'WX, effects taken out of X, [k, k]; W is 1 in a linear model.
    pub bread: DMatrix<f64>,
    /// What each row adds to X'(y - fitted), which is zero at the solution, [n, k].
    pub scores: DMatrix<f64>,
    /// [n]
    pub residuals: DVector<f64>,
    pub quality: Quality,
}

/// How well a model fits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quality {
    Linear {
        /// The sum of squared residuals.
        squares: f64,
        /// The share of the outcome's variance that is explained, by the effects too; `None` if it does not vary.
        r2: Option<f64>,
        /// The share of what the effects leave that is explained by the columns; `None` without effects.
        within: Option<f64>,
    },
    Poisson {
        log_likelihood: f64,
        deviance: f64,
        /// McFadden's: 1 - log-likelihood / that of a constant rate.
        pseudo_r2: Option<f64>,
        iterations: usize,
    },
}

/// Coefficients [k] and the inverse of X'X, of independent columns.
pub(super) fn least_squares(columns: DMatrix<f64>, outcome: &DVector<f64>) -> Result<(DVector<f64>, DMatrix<f64>)> {
    const SINGULAR: &str = "the columns are too close to combinations of each other";
    let k = columns.ncols();
    if k == 0 {
        return Ok((DVector::zeros(0), DMatrix::zeros(0, 0)));
    }
    let qr = columns.qr();
    let triangle = qr.r();
    let mut turned = outcome.clone();
    qr.q_tr_mul(&mut turned);
    let coefficients = triangle.solve_upper_triangular(&turned.rows(0, k)).context(SINGULAR)?;
    let inverse = triangle.solve_upper_triangular(&DMatrix::identity(k, k)).context(SINGULAR)?;
    ensure!(coefficients.iter().chain(&inverse).all(|value| value.is_finite()), SINGULAR);
    Ok((coefficients, &inverse * inverse.transpose()))
}

/// Each row of a matrix times a number.
pub(super) fn scaled_rows(mut matrix: DMatrix<f64>, by: &DVector<f64>) -> DMatrix<f64> {
    matrix.column_iter_mut().for_each(|mut column| column.component_mul_assign(by));
    matrix
}

/// The share of `all` that `left` does not leave.
fn explained(left: f64, all: f64) -> Option<f64> {
    (all > 0.0).then(|| 1.0 - left / all)
}

/// Least squares of the outcome, less the offset, on the columns and the effects.
///
/// # Errors
/// The effects cannot be taken out, or rounding leaves no solution.
pub fn linear(sample: &Sample) -> Result<Fit> {
    let n = sample.outcome.len();
    let outcome = &sample.outcome - &sample.offset;
    let mut columns = sample.columns.clone();
    sample.effects.take_out(&mut columns, None)?;
    let mut within = DMatrix::from_columns(std::slice::from_ref(&outcome));
    sample.effects.take_out(&mut within, None)?;
    let within = within.column(0).into_owned();

    let kept = independent(&columns, &sample.tolerances());
    let columns = columns.select_columns(&kept);
    let (coefficients, bread) = least_squares(columns.clone(), &within)?;
    let residuals = &within - &columns * &coefficients;
    let squares = residuals.norm_squared();

    // Variance is around the mean if the model has a constant, by itself or by what its columns add up to.
    let ones = DVector::repeat(n, 1.0);
    let constant = !sample.effects.is_empty() || {
        let (fitted, _) = least_squares(columns.clone(), &ones)?;
        (&ones - &columns * fitted).norm() < 1e-8 * ones.norm()
    };
    let around = if constant { outcome.mean() } else { 0.0 };
    let total = outcome.add_scalar(-around).norm_squared();
    let within = if sample.effects.is_empty() { None } else { explained(squares, within.norm_squared()) };
    let quality = Quality::Linear { squares, r2: explained(squares, total), within };
    Ok(Fit { kept, coefficients, bread, scores: scaled_rows(columns, &residuals), residuals, quality })
}
