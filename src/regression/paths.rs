//! A mediation over a table, in both orders.

use super::design::{Design, Missing};
use super::formula::{Factor, Formula, Path, Term};
use super::model::{Absorbed, Assumed, Inference, absorbed, too_few};
use super::table::Table;
use super::words::Fault;
use crate::stats::fit::{Collinear, Estimate, Intervals, Kind, Order, System, Variables, kinds};
use serde::Serialize;
use std::collections::BTreeSet;

/// What no figure of a mediation can decide.
pub const CAUTION: &str = "Both orders are read from the same covariances: which one is true, if any, is an assumption \
    of the analyst's, and so is that nothing else moves two of the variables at once.";

/// A mediation.
#[derive(Clone, Debug, Serialize)]
pub struct Mediation {
    pub path: String,
    pub rows: usize,
    /// Rows of the table, after filters.
    pub of: usize,
    pub missing: Vec<Missing>,
    pub effects: Vec<Absorbed>,
    pub errors: Assumed,
    pub bootstrap: Drawn,
    pub orders: Vec<Ordered>,
    /// Controls that are combinations of others.
    pub dropped: Vec<String>,
    pub notes: BTreeSet<String>,
    pub caution: &'static str,
}

/// How the bootstrap was drawn.
#[derive(Clone, Debug, Serialize)]
pub struct Drawn {
    /// What was drawn: `rows`, or the name of the clusters.
    pub over: String,
    pub resamples: usize,
    /// Those in which all equations had a solution.
    pub solved: usize,
}

/// The effects in one order.
#[derive(Clone, Debug, Serialize)]
pub struct Ordered {
    pub order: String,
    pub effects: Vec<Effect>,
}

/// A path or an effect.
#[derive(Clone, Debug, Serialize)]
pub struct Effect {
    /// `a` and `b` are coefficients, the others effects: `direct`, `indirect`, `total`.
    pub effect: &'static str,
    pub from: String,
    /// The mediator; none if it is all of them, or if nothing is in between.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub through: Option<String>,
    pub to: String,
    /// With errors and intervals by the delta method.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// The percentile interval.
    pub bootstrap: Option<[f64; 2]>,
}

impl Mediation {
    /// Fits both orders of a path.
    ///
    /// # Errors
    /// Those of `Design::of`; a variable that is more than one column, or a combination of others.
    pub fn of(table: &Table, path: &Path, inference: &Inference, resamples: usize) -> Result<Self, Fault> {
        let formula = formula(path)?;
        let design = Design::of(table, &formula, &inference.clusterings)?;
        let whole = |fault: anyhow::Error| Fault::new(&(0..0), format!("{fault:#}"));
        let count = path.controls.len();
        let factors: Vec<&Factor> = [&path.cause].into_iter().chain(&path.mediators).collect();
        for (factor, columns) in factors.iter().zip(&design.terms[count..]) {
            if columns.len() != 1 {
                let what = format!("{factor} makes {} columns of a mediation, which needs one", columns.len());
                return Err(Fault::new(factor.span(), format!("{what}\nwrite a number, or a category of two levels")));
            }
        }
        let first = design.terms[count].start;
        let columns = &design.sample.columns;
        let variables = Variables {
            cause: columns.column(first).into_owned(),
            mediators: columns.columns(first + 1, path.mediators.len()).into_owned(),
            outcome: design.sample.outcome.clone(),
            controls: columns.columns(0, first).into_owned(),
            effects: design.sample.effects.clone(),
        };
        let system = System::new(variables).map_err(whole)?.map_err(|Collinear(at)| {
            let what = format!("{} is a combination of the other variables, the controls and the effects", factors[at]);
            Fault::new(factors[at].span(), what)
        })?;
        let errors = inference.errors(&design)?;
        let parameters = first - system.dropped.len() + factors.len();
        let parameters = parameters + errors.parameters(&design.sample.effects, inference.count);
        if parameters >= design.rows.len() {
            return Err(too_few(design.rows.len(), parameters));
        }
        let drawn = system.bootstrap(design.clusters.first(), resamples).map_err(whole)?;
        let solved = drawn[0].resamples.min(drawn[1].resamples);
        let mut notes = design.notes.clone();
        notes.extend(inference.few(&design));
        let over = inference.clusterings.first().map_or("rows".into(), |way| way.by.to_string());
        if inference.clusterings.len() > 1 {
            notes.insert(format!("the bootstrap draws {over} alone; errors of the delta method are for both ways"));
        }
        let name = |at: usize| design.names[first + at].clone();
        let (cause, mediators) = (vec![name(0)], (1..factors.len()).map(name).collect::<Vec<_>>());
        let mut orders = Vec::new();
        for (order, intervals) in [Order::Forward, Order::Reversed].into_iter().zip(drawn) {
            let (causes, between) = if order == Order::Forward { (&cause, &mediators) } else { (&mediators, &cause) };
            let estimates = system.estimates(order, &errors, inference.count).map_err(whole)?;
            orders.push(ordered(causes, between, &path.outcome.to_string(), estimates, intervals));
        }
        Ok(Self {
            path: path.to_string(),
            rows: design.rows.len(),
            of: table.rows(),
            missing: design.missing.clone(),
            effects: absorbed(&formula, &design),
            errors: inference.assumed(&design, &errors, None, parameters),
            bootstrap: Drawn { over, resamples, solved },
            orders,
            dropped: system.dropped.iter().map(|at| design.names[*at].clone()).collect(),
            notes,
            caution: CAUTION,
        })
    }
}

/// The model whose columns are all that a mediation needs.
///
/// # Errors
/// A variable has two parts in it.
fn formula(path: &Path) -> Result<Formula, Fault> {
    let variables: Vec<&Factor> = [&path.cause].into_iter().chain(&path.mediators).collect();
    let controls = path.controls.iter().map(Term::to_string).chain([path.outcome.to_string()]);
    let mut known: BTreeSet<String> = controls.collect();
    for variable in &variables {
        if !known.insert(variable.to_string()) {
            return Err(Fault::new(variable.span(), format!("{variable} has two parts in this mediation")));
        }
    }
    let own = variables.into_iter().map(|variable| Term(vec![variable.clone()]));
    Ok(Formula {
        outcome: path.outcome.clone(),
        terms: path.controls.iter().cloned().chain(own).collect(),
        constant: true,
        offsets: vec![],
        effects: path.effects.clone(),
    })
}

fn ordered(
    causes: &[String],
    mediators: &[String],
    outcome: &str,
    estimates: Vec<Estimate>,
    intervals: Intervals,
) -> Ordered {
    let effect = |((kind, estimate), bootstrap): ((Kind, Estimate), Option<[f64; 2]>)| {
        let (effect, from, through, to) = match kind {
            Kind::First { cause, mediator } => ("a", &causes[cause], None, mediators[mediator].as_str()),
            Kind::Second { mediator } => ("b", &mediators[mediator], None, outcome),
            Kind::Direct { cause } => ("direct", &causes[cause], None, outcome),
            Kind::Through { cause, mediator } => ("indirect", &causes[cause], Some(&mediators[mediator]), outcome),
            Kind::Indirect { cause } => ("indirect", &causes[cause], None, outcome),
            Kind::Total { cause } => ("total", &causes[cause], None, outcome),
        };
        Effect { effect, from: from.clone(), through: through.cloned(), to: to.into(), estimate, bootstrap }
    };
    let none = vec![None; estimates.len()];
    let percentile = if intervals.percentile.is_empty() { none } else { intervals.percentile };
    let kinds = kinds(causes.len(), mediators.len());
    Ordered {
        order: format!("{} -> {} -> {outcome}", causes.join(" + "), mediators.join(" + ")),
        effects: kinds.into_iter().zip(estimates).zip(percentile).map(effect).collect(),
    }
}
