//! Poisson regression with the logarithm as its link, for counts: E[y] = exp(offset + X b + effects). By iteratively
//! reweighted least squares (McCullagh and Nelder 1989, section 2.5), with the fixed effects taken out of each weighted
//! regression (Correia, Guimarães and Zylkin 2020), which gives the estimates of the regression with all dummies.

use super::linear::{Fit, Quality, least_squares, scaled_rows};
use super::sample::{Sample, independent};
use anyhow::{Result, bail, ensure};
use nalgebra::{DMatrix, DVector};
use statrs::function::gamma::ln_gamma;

const MOST: usize = 200;
/// Where iterations end: the change of the deviance relative to it.
const PRECISION: f64 = 1e-13;
/// A fitted rate below this share of the mean is one that the iterations send to 0.
const VANISHING: f64 = 1e-8;

/// The rows that say something about a Poisson model: all but those in a level of an effect in which every count is 0,
/// whose rate would be 0 and whose coefficient minus infinity.
pub fn informative(sample: &Sample) -> Vec<usize> {
    let some = |groups: &super::Groups| {
        let mut some = vec![false; groups.count];
        groups.codes.iter().zip(&sample.outcome).for_each(|(code, y)| some[*code] |= *y > 0.0);
        some
    };
    let some: Vec<Vec<bool>> = sample.effects.0.iter().map(some).collect();
    let says = |row: &usize| sample.effects.0.iter().zip(&some).all(|(groups, some)| some[groups.codes[*row]]);
    (0..sample.outcome.len()).filter(says).collect()
}

/// Half the deviance of a count from its rate.
fn unit(count: f64, rate: f64) -> f64 {
    let part = if count > 0.0 { count * (count / rate).ln() } else { 0.0 };
    part - (count - rate)
}

fn deviance(counts: &DVector<f64>, rates: &DVector<f64>) -> f64 {
    2.0 * counts.iter().zip(rates).map(|(count, rate)| unit(*count, *rate)).sum::<f64>()
}

fn log_likelihood(counts: &DVector<f64>, rates: &DVector<f64>) -> f64 {
    let row = |(count, rate): (&f64, &f64)| {
        let part = if *count > 0.0 { count * rate.ln() } else { 0.0 };
        part - rate - ln_gamma(count + 1.0)
    };
    counts.iter().zip(rates).map(row).sum()
}

/// One weighted regression: coefficients, the inverse of X'WX, X without effects, and the linear predictor.
struct Pass {
    coefficients: DVector<f64>,
    bread: DMatrix<f64>,
    columns: DMatrix<f64>,
    predictor: DVector<f64>,
}

fn pass(sample: &Sample, columns: &DMatrix<f64>, predictor: &DVector<f64>) -> Result<Pass> {
    let rates = predictor.map(f64::exp);
    let working = predictor - &sample.offset + (&sample.outcome - &rates).component_div(&rates);
    let mut all = columns.clone().insert_column(columns.ncols(), 0.0);
    all.set_column(columns.ncols(), &working);
    sample.effects.take_out(&mut all, Some(rates.as_slice()))?;
    let within = all.column(columns.ncols()).into_owned();
    let columns = all.remove_column(columns.ncols());
    let roots = rates.map(f64::sqrt);
    let (coefficients, bread) = least_squares(scaled_rows(columns.clone(), &roots), &within.component_mul(&roots))?;
    let left = within - &columns * &coefficients;
    Ok(Pass { coefficients, bread, columns, predictor: working - left + &sample.offset })
}

/// The maximum of the likelihood. The sample's rows are `informative`.
///
/// # Errors
/// There is no maximum: all counts are 0, or some rates go to 0. The iterations do not converge.
pub fn poisson(sample: &Sample) -> Result<Fit> {
    let counts = &sample.outcome;
    let mean = counts.mean();
    ensure!(mean > 0.0, "the outcome is 0 in all rows");
    let mut columns = sample.columns.clone();
    sample.effects.take_out(&mut columns, None)?;
    let kept = independent(&columns, &sample.tolerances());
    let columns = sample.columns.select_columns(&kept);

    let mut predictor = counts.map(|count| ((count + mean) / 2.0).ln());
    let mut best: Option<f64> = None;
    for iterations in 1..=MOST {
        let found = pass(sample, &columns, &predictor)?;
        let mut next = found.predictor;
        let mut now = deviance(counts, &next.map(f64::exp));
        // The start is no solution of the model, so that its deviance is nothing to improve on.
        for _ in 0..30 {
            match best {
                Some(best) if !now.is_finite() || now > best + 1e-9 * (1.0 + best) => {
                    next = (&next + &predictor) / 2.0;
                    now = deviance(counts, &next.map(f64::exp));
                }
                _ => break,
            }
        }
        ensure!(now.is_finite(), "the rates of the model overflow: is a column very large?");
        let done = best.is_some_and(|best| (best - now).abs() <= PRECISION * (0.1 + now));
        (predictor, best) = (next, Some(now));
        if done {
            return finished(sample, kept, &columns, &predictor, iterations);
        }
    }
    bail!("no maximum of the likelihood was found in {MOST} iterations")
}

fn finished(
    sample: &Sample,
    kept: Vec<usize>,
    columns: &DMatrix<f64>,
    predictor: &DVector<f64>,
    iterations: usize,
) -> Result<Fit> {
    let counts = &sample.outcome;
    let rates = predictor.map(f64::exp);
    let exposure = sample.offset.map(f64::exp);
    let plain = exposure.scale(counts.sum() / exposure.sum());
    let gone =
        counts.iter().zip(&rates).zip(&plain).filter(|((y, rate), plain)| **y == 0.0 && **rate < VANISHING * **plain);
    let gone = gone.count();
    ensure!(
        gone == 0,
        "the outcome is 0 wherever a combination of the columns says so ({gone} rows), and the likelihood has no \
         maximum: leave that column or these rows out"
    );
    let found = pass(sample, columns, predictor)?;
    let residuals = counts - &rates;
    let own = log_likelihood(counts, &rates);
    let null = log_likelihood(counts, &plain);
    let quality = Quality::Poisson {
        log_likelihood: own,
        deviance: deviance(counts, &rates),
        pseudo_r2: (null < 0.0).then(|| 1.0 - own / null),
        iterations,
    };
    let scores = scaled_rows(found.columns, &residuals);
    Ok(Fit { kept, coefficients: found.coefficients, bread: found.bread, scores, residuals, quality })
}
