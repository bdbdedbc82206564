//! What is said of an estimate: its error, how far it is from zero, where the truth may be.

use serde::Serialize;
use statrs::distribution::{ContinuousCDF, Normal, StudentsT};

/// An estimate with its error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    pub estimate: f64,
    /// The standard error; `None` if it is not known, or zero by rounding.
    pub error: Option<f64>,
    /// The estimate in errors: t, or z.
    pub statistic: Option<f64>,
    /// Two-sided.
    pub p: Option<f64>,
    /// The 95 % interval.
    pub interval: Option<[f64; 2]>,
}

impl Estimate {
    /// `degrees`: of freedom of Student's t; `None` for a normal distribution.
    pub fn new(estimate: f64, variance: f64, degrees: Option<usize>) -> Self {
        let error = variance.sqrt();
        // Where the fit is perfect, nothing but rounding is left to make an error of.
        let known = error.is_finite() && error > 1e-13 * estimate.abs() && error > 0.0 && degrees != Some(0);
        if !known {
            return Self { estimate, error: None, statistic: None, p: None, interval: None };
        }
        let statistic = estimate / error;
        let (tail, far) = match degrees.and_then(|degrees| StudentsT::new(0.0, 1.0, degrees as f64).ok()) {
            Some(t) => (t.sf(statistic.abs()), t.inverse_cdf(0.975)),
            None => {
                let normal = Normal::standard();
                (normal.sf(statistic.abs()), normal.inverse_cdf(0.975))
            }
        };
        Self {
            estimate,
            error: Some(error),
            statistic: Some(statistic),
            p: Some(2.0 * tail),
            interval: Some([estimate - far * error, estimate + far * error]),
        }
    }
}
