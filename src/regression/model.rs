//! A model of a formula, fitted to a table.

use super::design::{Clustering, Design, Missing};
use super::formula::Formula;
use super::table::Table;
use super::words::Fault;
use crate::stats::fit::{Count, Errors, Estimate, Fit, Quality, informative, linear, poisson};
use crate::terminal::counted;
use serde::Serialize;
use std::collections::BTreeSet;

/// With fewer clusters, errors are too small whatever is done about it (Cameron and Miller 2015, section VI).
const FEW: usize = 20;

/// The share of the outcome's squares below which what a linear model leaves is rounding.
const PERFECT: f64 = 1e-24;

/// What is assumed of the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Least squares, for any number; of 0 and 1 it is the linear probability model.
    Linear,
    /// Counts, with the logarithm as the link.
    Poisson,
}

/// How errors are found.
pub struct Inference {
    pub clusterings: Vec<Clustering>,
    /// Without clusters: robust to unequal variances, or not.
    pub robust: bool,
    pub count: Count,
}

/// What was fitted.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    pub model: String,
    pub family: Family,
    /// Whether the outcome is 0 or 1 in all rows.
    pub binary: bool,
    pub rows: usize,
    /// Rows of the table, after filters.
    pub of: usize,
    pub missing: Vec<Missing>,
    pub effects: Vec<Absorbed>,
    pub errors: Assumed,
    pub terms: Vec<Line>,
    /// Columns that are combinations of those before them.
    pub dropped: Vec<String>,
    pub quality: Figures,
    pub notes: BTreeSet<String>,
}

/// A fixed effect.
#[derive(Clone, Debug, Serialize)]
pub struct Absorbed {
    pub by: String,
    pub levels: usize,
    /// Levels of a single row, which says nothing about the coefficients.
    pub single: usize,
}

/// How the errors were found.
#[derive(Clone, Debug, Serialize)]
pub struct Assumed {
    /// `classical`, `HC1` or `CR1`
    pub kind: &'static str,
    pub clusters: Vec<Clusters>,
    /// Of freedom of Student's t; `None` for a normal distribution.
    pub degrees: Option<usize>,
    /// k in the factors n / (n - k): coefficients, and the levels of fixed effects that count.
    pub parameters: usize,
}

#[derive(Clone, Debug, Serialize)]
pub struct Clusters {
    pub by: String,
    pub clusters: usize,
}

/// A coefficient.
#[derive(Clone, Debug, Serialize)]
pub struct Line {
    pub term: String,
    #[serde(flatten)]
    pub estimate: Estimate,
    /// Its p value after the correction for all tests, if it is one of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected: Option<f64>,
}

/// How well the model fits.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum Figures {
    Linear { r2: Option<f64>, within_r2: Option<f64> },
    Poisson { pseudo_r2: Option<f64>, log_likelihood: f64, deviance: f64 },
}

impl Inference {
    /// The errors of rows in these clusters.
    pub fn errors(&self, design: &Design) -> Result<Errors, Fault> {
        for (way, groups) in self.clusterings.iter().zip(&design.clusters) {
            if groups.count < 2 {
                let what = format!("all rows are in one cluster of {}, and errors need several", way.by);
                return Err(Fault { span: 0..0, what });
            }
        }
        Ok(match design.clusters.as_slice() {
            [] if self.robust => Errors::Robust,
            [] => Errors::Classical,
            ways => Errors::Clustered(ways.to_vec()),
        })
    }

    /// What to tell about the errors.
    pub fn assumed(&self, design: &Design, errors: &Errors, degrees: Option<usize>, parameters: usize) -> Assumed {
        let ways = self.clusterings.iter().zip(&design.clusters);
        let clusters = ways.map(|(way, groups)| Clusters { by: way.by.to_string(), clusters: groups.count });
        let kind = match errors {
            Errors::Classical => "classical",
            Errors::Robust => "HC1",
            Errors::Clustered(_) => "CR1",
        };
        Assumed { kind, clusters: clusters.collect(), degrees, parameters }
    }

    /// A warning if there are few clusters.
    pub fn few(&self, design: &Design) -> Option<String> {
        let fewest = design.clusters.iter().map(|groups| groups.count).min()?;
        let what = "errors tend to be too small, and p values with them";
        (fewest < FEW).then(|| format!("with {fewest} clusters {what}"))
    }
}

/// The fixed effects of a design.
pub fn absorbed(formula: &Formula, design: &Design) -> Vec<Absorbed> {
    let one = |(by, groups): (&super::formula::Cross, &crate::stats::fit::Groups)| {
        let single = groups.sizes().iter().filter(|size| **size == 1).count();
        Absorbed { by: by.to_string(), levels: groups.count, single }
    };
    formula.effects.iter().zip(&design.sample.effects.0).map(one).collect()
}

impl Model {
    /// Fits a formula.
    ///
    /// # Errors
    /// Those of `Design::of`; counts that are negative; a model that the rows do not determine.
    pub fn of(table: &Table, formula: &Formula, family: Family, inference: &Inference) -> Result<Self, Fault> {
        let outcome = formula.outcome.to_string();
        if let Some(term) = formula.terms.iter().find(|term| term.to_string() == outcome) {
            return Err(Fault::new(&term.span(), format!("{outcome} is the outcome and a term")));
        }
        let mut design = Design::of(table, formula, &inference.clusterings)?;
        let whole = |fault: anyhow::Error| Fault::new(&(0..0), format!("{fault:#}"));
        if family == Family::Poisson {
            counts(table, formula, &mut design)?;
        }
        let n = design.rows.len();
        let errors = inference.errors(&design)?;
        let fit = if family == Family::Linear { linear(&design.sample) } else { poisson(&design.sample) };
        let fit = fit.map_err(whole)?;
        let parameters = fit.kept.len() + errors.parameters(&design.sample.effects, inference.count);
        if parameters >= n {
            return Err(too_few(n, parameters));
        }
        let degrees = (family == Family::Linear).then(|| errors.degrees(n, parameters));
        let outcome = &design.sample.outcome;
        let mut notes = design.notes.clone();
        notes.extend(inference.few(&design));
        if family == Family::Poisson && outcome.iter().any(|y| y.fract() != 0.0) {
            notes.insert(format!("`{}` is not whole everywhere: classical errors do not apply to it", formula.outcome));
        }
        let perfect = match fit.quality {
            Quality::Linear { squares, .. } => squares <= PERFECT * outcome.norm_squared(),
            Quality::Poisson { .. } => false,
        };
        if perfect {
            notes.insert("the terms give the outcome exactly, so that there are no errors".into());
        }
        let kept: BTreeSet<usize> = fit.kept.iter().copied().collect();
        let lost = (0..design.names.len()).filter(|at| !kept.contains(at));
        Ok(Self {
            model: formula.to_string(),
            family,
            binary: outcome.iter().all(|y| *y == 0.0 || *y == 1.0),
            rows: n,
            of: table.rows(),
            missing: design.missing.clone(),
            effects: absorbed(formula, &design),
            errors: inference.assumed(&design, &errors, degrees, parameters),
            terms: lines(&design, &fit, if perfect { None } else { Some(&errors) }, parameters, degrees),
            dropped: lost.map(|at| design.names[at].clone()).collect(),
            quality: match fit.quality {
                Quality::Linear { r2, within, .. } => Figures::Linear { r2, within_r2: within },
                Quality::Poisson { log_likelihood, deviance, pseudo_r2, .. } => {
                    Figures::Poisson { pseudo_r2, log_likelihood, deviance }
                }
            },
            notes,
        })
    }
}

/// Rows that do not determine so many parameters, or their errors.
pub fn too_few(rows: usize, parameters: usize) -> Fault {
    let what = format!("{} for {}: too few", counted(rows, "row"), counted(parameters, "parameter"));
    Fault::new(&(0..0), format!("{what}\nleave terms or fixed effects out"))
}

/// The coefficients; without errors if there is nothing to find them by.
fn lines(design: &Design, fit: &Fit, errors: Option<&Errors>, parameters: usize, degrees: Option<usize>) -> Vec<Line> {
    let covariance = errors.map(|errors| fit.covariance(errors, parameters));
    let line = |(at, column): (usize, &usize)| Line {
        term: design.names[*column].clone(),
        estimate: {
            let variance = covariance.as_ref().map_or(0.0, |covariance| covariance[(at, at)]);
            Estimate::new(fit.coefficients[at], variance, degrees)
        },
        corrected: None,
    };
    fit.kept.iter().enumerate().map(line).collect()
}

/// Leaves the rows that say something about a model of counts.
fn counts(table: &Table, formula: &Formula, design: &mut Design) -> Result<(), Fault> {
    let span = &formula.outcome.span;
    if let Some(at) = design.sample.outcome.iter().position(|y| *y < 0.0) {
        let (value, place) = (design.sample.outcome[at], table.place(design.rows[at]));
        return Err(Fault::new(span, format!("counts are not negative, but {place} has {value}")));
    }
    let chosen = informative(&design.sample);
    let lost = design.rows.len() - chosen.len();
    if chosen.is_empty() {
        return Err(Fault::new(span, "the outcome is 0 in all rows"));
    }
    if lost > 0 {
        design.of_rows(&chosen);
        design.notes.insert(format!("{lost} rows are in levels in which all counts are 0, and say nothing; left out"));
    }
    Ok(())
}
