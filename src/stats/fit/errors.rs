//! Covariances of coefficients: classical, robust to unequal variances, clustered in one or two ways.

use super::effects::Effects;
use super::groups::Groups;
use super::linear::{Fit, Quality};
use nalgebra::{DMatrix, DVector, SymmetricEigen};

/// What is assumed of the rows' errors.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Errors {
    /// Independent, of one variance (in a Poisson model: of the variance that it implies).
    Classical,
    /// Independent: White's sandwich times n / (n - k) (HC1, MacKinnon and White 1985).
    Robust,
    /// Independent between clusters: the sandwich of the clusters' sums times G / (G - 1) (n - 1) / (n - k), which is
    /// CR1 (Liang and Zeger 1986; Cameron and Miller 2015, section II.D). With two ways of clustering A and B, that of
    /// A, plus that of B, less that of A and B crossed, each with its own factor (Cameron, Gelbach and Miller 2011).
    Clustered(Vec<Groups>),
}

/// How fixed effects count among the k parameters of the factors above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Count {
    /// Not, if every level is inside one cluster of each way: its dummies then do not become more certain with more
    /// rows in its cluster, and counting them would make errors too large (Cameron and Miller 2015, section III.B).
    Nested,
    /// All levels, as a regression on dummies counts them.
    All,
}

impl Errors {
    /// The parameters that the effects take.
    pub fn parameters(&self, effects: &Effects, count: Count) -> usize {
        let free = |groups: &Groups| match (self, count) {
            (Self::Clustered(ways), Count::Nested) => ways.iter().all(|way| groups.nested_in(way)),
            _ => false,
        };
        effects.parameters(&effects.0.iter().map(|groups| !free(groups)).collect::<Vec<_>>())
    }

    /// The degrees of freedom of t: n - k; with clusters, one less than there are of them (the lower number of two
    /// ways), as it is clusters that are independent.
    pub fn degrees(&self, rows: usize, parameters: usize) -> usize {
        match self {
            Self::Clustered(ways) => ways.iter().map(|way| way.count).min().unwrap_or(1) - 1,
            _ => rows.saturating_sub(parameters),
        }
    }

    /// The covariance of estimates to which each row adds its influence, [n, k]; `free`: n less the parameters of each
    /// estimate's equation, [k]. Not for classical errors, which are not sums over rows.
    pub(super) fn sandwich(&self, influence: &DMatrix<f64>, free: &[f64]) -> DMatrix<f64> {
        let n = influence.nrows() as f64;
        let mut scaled = influence.clone();
        scaled.column_iter_mut().zip(free).for_each(|(mut column, free)| column /= free.sqrt());
        match self {
            Self::Clustered(ways) => match ways.as_slice() {
                [one, other] => {
                    let crossed = clustered(&scaled, &one.crossed(other));
                    mended((clustered(&scaled, one) + clustered(&scaled, other) - crossed) * (n - 1.0))
                }
                ways => ways.iter().map(|way| clustered(&scaled, way)).sum::<DMatrix<f64>>() * (n - 1.0),
            },
            _ => scaled.tr_mul(&scaled) * n,
        }
    }
}

/// The cross-product of the clusters' sums, times G / (G - 1).
fn clustered(influence: &DMatrix<f64>, groups: &Groups) -> DMatrix<f64> {
    let mut sums = DMatrix::zeros(groups.count, influence.ncols());
    for (mut sum, column) in sums.column_iter_mut().zip(influence.column_iter()) {
        groups.codes.iter().zip(column.iter()).for_each(|(code, value)| sum[*code] += value);
    }
    let count = groups.count as f64;
    sums.tr_mul(&sums) * (count / (count - 1.0))
}

/// A difference of covariances need not be one. If a variance is negative, the negative eigenvalues are set to zero
/// (Cameron, Gelbach and Miller 2011, section 2.3).
fn mended(covariance: DMatrix<f64>) -> DMatrix<f64> {
    if covariance.diagonal().iter().all(|variance| *variance >= 0.0) {
        return covariance;
    }
    let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(covariance);
    let positive: DVector<f64> = eigenvalues.map(|value| value.max(0.0));
    &eigenvectors * DMatrix::from_diagonal(&positive) * eigenvectors.transpose()
}

impl Fit {
    /// The covariance of the coefficients, [k, k]; `parameters` counts theirs and the effects'.
    pub fn covariance(&self, errors: &Errors, parameters: usize) -> DMatrix<f64> {
        let free = (self.residuals.len() - parameters.min(self.residuals.len())) as f64;
        match (errors, self.quality) {
            (Errors::Classical, Quality::Linear { squares, .. }) => &self.bread * (squares / free),
            (Errors::Classical, Quality::Poisson { .. }) => self.bread.clone(),
            _ => errors.sandwich(&(&self.scores * &self.bread), &vec![free; self.coefficients.len()]),
        }
    }
}
