//! Mediation: how much of the effect of causes on an outcome goes through mediators, by linear regressions,
//! M_j = a_j C + controls and Y = c' C + b M + controls. Of a cause, c' is its direct effect, a_j b_j the indirect one
//! through M_j, and the total is c' plus all of these, which is its coefficient in the regression without mediators.
//!
//! Decided: errors are those of the delta method over the joint covariance of all equations, which for one mediator is
//! Sobel's ("Asymptotic confidence intervals for indirect effects", 1982). With classical errors the equations of the
//! mediators share the covariance of their residuals, and a and b have none; with robust or clustered ones all have the
//! sandwich of the stacked equations. Variances of residuals are divided by n - k, not by n as maximum likelihood does.

use super::effects::Effects;
use super::errors::{Count, Errors};
use super::estimate::Estimate;
use super::linear::{least_squares, scaled_rows};
use super::sample::{Sample, independent};
use anyhow::Result;
use nalgebra::{DMatrix, DVector};

/// The variables of a mediation, on the same rows.
#[derive(Clone, Debug, PartialEq)]
pub struct Variables {
    /// [n]
    pub cause: DVector<f64>,
    /// [n, m]
    pub mediators: DMatrix<f64>,
    /// [n]
    pub outcome: DVector<f64>,
    /// What every equation has besides, the constant among it if there are no effects, [n, c].
    pub controls: DMatrix<f64>,
    pub effects: Effects,
}

/// Variables whose columns are independent, with the effects taken out.
#[derive(Clone, Debug, PartialEq)]
pub struct System {
    /// Controls, the cause, mediators, the outcome, [n, c + 1 + m + 1].
    pub(super) columns: DMatrix<f64>,
    pub(super) controls: usize,
    pub(super) mediators: usize,
    effects: Effects,
    /// The controls that are combinations of others and were left out.
    pub dropped: Vec<usize>,
}

/// Which of a system's variables come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The cause acts through the mediators.
    Forward,
    /// The mediators act through the cause: the same figures, read the other way round.
    Reversed,
}

/// What an estimate is of: its places are among the causes and mediators of the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The coefficient a of a cause.
    First {
        cause: usize,
        mediator: usize,
    },
    /// The coefficient b of a mediator.
    Second {
        mediator: usize,
    },
    Direct {
        cause: usize,
    },
    Through {
        cause: usize,
        mediator: usize,
    },
    /// Through all mediators; only if there are several.
    Indirect {
        cause: usize,
    },
    Total {
        cause: usize,
    },
}

/// The columns of a system in an order.
pub(super) struct Roles {
    pub controls: Vec<usize>,
    pub causes: Vec<usize>,
    pub mediators: Vec<usize>,
    pub outcome: usize,
}

impl Roles {
    /// What the equations of the mediators explain them by.
    pub fn first(&self) -> Vec<usize> {
        [self.controls.as_slice(), &self.causes].concat()
    }

    /// What the equation of the outcome explains it by.
    pub fn second(&self) -> Vec<usize> {
        [self.controls.as_slice(), &self.causes, &self.mediators].concat()
    }
}

/// Coefficients: a [causes, mediators], c' [causes], b [mediators].
pub(super) struct Coefficients {
    pub a: DMatrix<f64>,
    pub direct: DVector<f64>,
    pub b: DVector<f64>,
}

impl Coefficients {
    /// All effects, in the order of `kinds`.
    pub fn effects(&self) -> Vec<f64> {
        let through = |cause: usize, mediator: usize| self.a[(cause, mediator)] * self.b[mediator];
        let all = |cause: usize| (0..self.b.len()).map(|mediator| through(cause, mediator)).sum::<f64>();
        let value = |kind: Kind| match kind {
            Kind::First { cause, mediator } => self.a[(cause, mediator)],
            Kind::Second { mediator } => self.b[mediator],
            Kind::Direct { cause } => self.direct[cause],
            Kind::Through { cause, mediator } => through(cause, mediator),
            Kind::Indirect { cause } => all(cause),
            Kind::Total { cause } => self.direct[cause] + all(cause),
        };
        kinds(self.direct.len(), self.b.len()).into_iter().map(value).collect()
    }

    /// The derivatives of an effect by a (cause by cause within a mediator), c' and b.
    fn gradient(&self, kind: Kind) -> DVector<f64> {
        let (causes, mediators) = (self.direct.len(), self.b.len());
        let mut gradient = DVector::zeros(causes * mediators + causes + mediators);
        let (cause, through, direct) = match kind {
            Kind::First { cause, mediator } => {
                gradient[causes * mediator + cause] = 1.0;
                return gradient;
            }
            Kind::Second { mediator } => {
                gradient[causes * mediators + causes + mediator] = 1.0;
                return gradient;
            }
            Kind::Direct { cause } => (cause, 0..0, 1.0),
            Kind::Through { cause, mediator } => (cause, mediator..mediator + 1, 0.0),
            Kind::Indirect { cause } => (cause, 0..mediators, 0.0),
            Kind::Total { cause } => (cause, 0..mediators, 1.0),
        };
        gradient[causes * mediators + cause] = direct;
        for mediator in through {
            gradient[causes * mediator + cause] = self.b[mediator];
            gradient[causes * mediators + causes + mediator] = self.a[(cause, mediator)];
        }
        gradient
    }
}

/// The coefficients and effects of so many causes and mediators.
pub fn kinds(causes: usize, mediators: usize) -> Vec<Kind> {
    let of = |cause: usize| {
        let through = (0..mediators).map(move |mediator| Kind::Through { cause, mediator });
        let indirect = (mediators > 1).then_some(Kind::Indirect { cause });
        [Kind::Direct { cause }].into_iter().chain(through).chain(indirect).chain([Kind::Total { cause }])
    };
    let first = (0..mediators).flat_map(|mediator| (0..causes).map(move |cause| Kind::First { cause, mediator }));
    let second = (0..mediators).map(|mediator| Kind::Second { mediator });
    first.chain(second).chain((0..causes).flat_map(of)).collect()
}

/// A column that a mediation cannot do without, and that is a combination of others: 0 is the cause, then mediators.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collinear(pub usize);

impl System {
    /// The variables without the effects.
    ///
    /// # Errors
    /// The effects cannot be taken out. As the inner error: the cause or a mediator is a combination of others.
    pub fn new(variables: Variables) -> Result<Result<Self, Collinear>> {
        let Variables { cause, mediators, outcome, controls, effects } = variables;
        let (count, many) = (controls.ncols(), mediators.ncols());
        let all = controls.column_iter().chain([cause.column(0)]).chain(mediators.column_iter());
        let columns = DMatrix::from_columns(&all.collect::<Vec<_>>());
        let mut sample = Sample { offset: DVector::zeros(outcome.len()), outcome, columns, effects };
        let tolerances = sample.tolerances();
        sample.effects.take_out(&mut sample.columns, None)?;
        let kept = independent(&sample.columns, &tolerances);
        if let Some(lost) = (count..=count + many).find(|column| !kept.contains(column)) {
            return Ok(Err(Collinear(lost - count)));
        }
        let mut outcome = DMatrix::from_columns(&[sample.outcome]);
        sample.effects.take_out(&mut outcome, None)?;
        let mut columns = sample.columns.select_columns(&kept);
        columns = columns.insert_column(kept.len(), 0.0);
        columns.set_column(kept.len(), &outcome.column(0));
        let dropped = (0..count).filter(|column| !kept.contains(column)).collect();
        let controls = kept.len() - 1 - many;
        Ok(Ok(Self { columns, controls, mediators: many, effects: sample.effects, dropped }))
    }

    pub(super) fn rows(&self) -> usize {
        self.columns.nrows()
    }

    pub(super) fn effects(&self) -> &Effects {
        &self.effects
    }

    pub(super) fn roles(&self, order: Order) -> Roles {
        let (cause, controls) = (vec![self.controls], (0..self.controls).collect());
        let mediators: Vec<usize> = (self.controls + 1..=self.controls + self.mediators).collect();
        let outcome = self.controls + self.mediators + 1;
        let (causes, mediators) = if order == Order::Forward { (cause, mediators) } else { (mediators, cause) };
        Roles { controls, causes, mediators, outcome }
    }

    /// All effects, in the order of `kinds`, with errors by the delta method; z and intervals are normal, as the method
    /// is for large samples.
    ///
    /// # Errors
    /// Rounding leaves no solution.
    pub fn estimates(&self, order: Order, errors: &Errors, count: Count) -> Result<Vec<Estimate>> {
        let roles = self.roles(order);
        let (causes, mediators) = (roles.causes.len(), roles.mediators.len());
        let levels = errors.parameters(&self.effects, count);
        let free = |columns: &[usize]| (self.rows() - (columns.len() + levels).min(self.rows())) as f64;
        let (first, second) = (roles.first(), roles.second());

        let mut a = DMatrix::zeros(causes, mediators);
        let mut equations = Vec::new();
        for (at, mediator) in roles.mediators.iter().enumerate() {
            let equation = Equation::of(&self.columns, &first, *mediator)?;
            a.set_column(at, &equation.coefficients.rows(self.controls, causes));
            equations.push(equation);
        }
        let last = Equation::of(&self.columns, &second, roles.outcome)?;
        let direct = last.coefficients.rows(self.controls, causes).into_owned();
        let b = last.coefficients.rows(self.controls + causes, mediators).into_owned();
        let found = Coefficients { a, direct, b };

        let own = causes + mediators;
        let covariance = if *errors == Errors::Classical {
            let mut joint = DMatrix::zeros(causes * mediators + own, causes * mediators + own);
            for (i, one) in equations.iter().enumerate() {
                for (j, other) in equations.iter().enumerate() {
                    let shared = one.residuals.dot(&other.residuals) / free(&first);
                    let block = one.bread.view((self.controls, self.controls), (causes, causes)) * shared;
                    joint.view_mut((causes * i, causes * j), (causes, causes)).copy_from(&block);
                }
            }
            let block = last.bread.view((self.controls, self.controls), (own, own))
                * (last.residuals.norm_squared() / free(&second));
            joint.view_mut((causes * mediators, causes * mediators), (own, own)).copy_from(&block);
            joint
        } else {
            let parts: Vec<DMatrix<f64>> = equations.iter().map(|e| e.influence(self.controls, causes)).collect();
            let parts: Vec<DMatrix<f64>> = parts.into_iter().chain([last.influence(self.controls, own)]).collect();
            let columns: Vec<_> = parts.iter().flat_map(|part| part.column_iter()).collect();
            let frees = [vec![free(&first); causes * mediators], vec![free(&second); own]].concat();
            errors.sandwich(&DMatrix::from_columns(&columns), &frees)
        };
        let estimate = |(kind, value): (Kind, f64)| {
            let gradient = found.gradient(kind);
            Estimate::new(value, gradient.dot(&(&covariance * &gradient)), None)
        };
        Ok(kinds(causes, mediators).into_iter().zip(found.effects()).map(estimate).collect())
    }
}

/// One regression of a system.
struct Equation {
    columns: DMatrix<f64>,
    coefficients: DVector<f64>,
    bread: DMatrix<f64>,
    residuals: DVector<f64>,
}

impl Equation {
    fn of(all: &DMatrix<f64>, columns: &[usize], outcome: usize) -> Result<Self> {
        let columns = all.select_columns(columns);
        let outcome = all.column(outcome).into_owned();
        let (coefficients, bread) = least_squares(columns.clone(), &outcome)?;
        let residuals = outcome - &columns * &coefficients;
        Ok(Self { columns, coefficients, bread, residuals })
    }

    /// What each row adds to `count` of the coefficients, [n, count].
    fn influence(&self, start: usize, count: usize) -> DMatrix<f64> {
        scaled_rows(&self.columns * self.bread.columns(start, count), &self.residuals)
    }
}
