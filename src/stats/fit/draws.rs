//! The bootstrap of a mediation: clusters are drawn with replacement, as many as there are, with all of their rows; or
//! rows, if there are no clusters. Effects are taken from the cross-products of a resample, in which a row counts as
//! often as it was drawn; both orders see the same resamples.

use super::super::resample::counts;
use super::super::statistics::percentile_interval;
use super::groups::Groups;
use super::mediation::{Coefficients, Order, Roles, System};
use anyhow::Result;
use nalgebra::{DMatrix, DVector};

/// The address of these draws among those of `counts`; a comparison of runs has 0 to 2.
const MEDIATION: u64 = 3;
/// A pivot below this share of its column's size means that a resample has no solution.
const SINGULAR: f64 = 1e-10;

/// Intervals of the effects in an order, in that of `kinds`, and how many resamples had a solution.
#[derive(Clone, Debug, PartialEq)]
pub struct Intervals {
    pub percentile: Vec<Option<[f64; 2]>>,
    pub resamples: usize,
}

impl System {
    /// The 95 % percentile intervals of both orders. `clusters`: what is drawn; `None` for rows.
    ///
    /// # Errors
    /// The effects cannot be taken out of a resample.
    pub fn bootstrap(&self, clusters: Option<&Groups>, resamples: usize) -> Result<[Intervals; 2]> {
        let rows = Groups { codes: (0..self.rows()).collect(), count: self.rows() };
        let drawn = clusters.unwrap_or(&rows);
        // Effects inside clusters leave the same in every resample: all rows of a level count equally.
        let inside = self.effects().0.iter().all(|groups| groups.nested_in(drawn)) && self.effects().0.len() < 2;
        let scales: Vec<f64> = self.columns.column_iter().map(|column| column.norm().max(f64::MIN_POSITIVE)).collect();
        let scaled = DMatrix::from_fn(self.rows(), scales.len(), |i, j| self.columns[(i, j)] / scales[j]);
        let mut found = [Order::Forward, Order::Reversed].map(|order| (self.roles(order), Vec::new()));
        for resample in 0..resamples {
            let times = counts(drawn.count, resample, MEDIATION);
            let weights: Vec<f64> = drawn.codes.iter().map(|code| times[*code]).collect();
            let mut columns = scaled.clone();
            if !inside {
                self.effects().take_out(&mut columns, Some(&weights))?;
            }
            let products = products(&columns, &weights);
            for (roles, effects) in &mut found {
                effects.extend(solution(&products, &scales, roles).map(|coefficients| coefficients.effects()));
            }
        }
        Ok(found.map(|(_, effects)| intervals(&effects)))
    }
}

fn intervals(effects: &[Vec<f64>]) -> Intervals {
    let count = effects.first().map_or(0, Vec::len);
    let interval = |at: usize| percentile_interval(effects.iter().map(|own| own[at]).collect());
    Intervals { percentile: (0..count).map(interval).collect(), resamples: effects.len() }
}

/// X'WX of all columns; rows of weight 0 are passed over.
fn products(columns: &DMatrix<f64>, weights: &[f64]) -> DMatrix<f64> {
    let chosen: Vec<usize> = (0..weights.len()).filter(|row| weights[*row] > 0.0).collect();
    let rows = columns.select_rows(&chosen);
    let mut weighted = rows.clone();
    for mut column in weighted.column_iter_mut() {
        column.iter_mut().zip(&chosen).for_each(|(value, row)| *value *= weights[*row]);
    }
    rows.tr_mul(&weighted)
}

/// The coefficients of both stages from cross-products of scaled columns; `None` if they have no unique solution.
fn solution(products: &DMatrix<f64>, scales: &[f64], roles: &Roles) -> Option<Coefficients> {
    let (first, second) = (roles.first(), roles.second());
    let (start, causes, mediators) = (roles.controls.len(), roles.causes.len(), roles.mediators.len());
    let mut a = DMatrix::zeros(causes, mediators);
    for (at, mediator) in roles.mediators.iter().enumerate() {
        a.set_column(at, &regression(products, scales, &first, *mediator)?.rows(start, causes));
    }
    let last = regression(products, scales, &second, roles.outcome)?;
    let (direct, b) = (last.rows(start, causes).into_owned(), last.rows(start + causes, mediators).into_owned());
    Some(Coefficients { a, direct, b })
}

fn regression(products: &DMatrix<f64>, scales: &[f64], columns: &[usize], outcome: usize) -> Option<DVector<f64>> {
    let inner = products.select_rows(columns).select_columns(columns);
    let sizes = inner.diagonal();
    let factor = inner.cholesky()?;
    let pivots = factor.l_dirty().diagonal();
    if pivots.iter().zip(&sizes).any(|(pivot, size)| pivot * pivot <= SINGULAR * size) {
        return None;
    }
    let found = factor.solve(&products.select_rows(columns).column(outcome).into_owned());
    let unscaled = found.iter().zip(columns).map(|(value, column)| value * scales[outcome] / scales[*column]);
    Some(DVector::from_iterator(columns.len(), unscaled))
}
