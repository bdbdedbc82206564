//! A number with what is known of its error, and where it is shown.

use serde::{Deserialize, Serialize};

/// Resamples behind the intervals of figures.
pub const RESAMPLES: usize = 2000;

/// What the name of an interval's lower end ends with, where it is a scalar of its own.
pub const LOW: &str = "low";
/// As `LOW`, of the upper end.
pub const HIGH: &str = "high";

/// A named number, with its 95 % interval if it has one.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Figure {
    pub name: String,
    /// Always finite.
    pub value: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// How many observations are behind it, if that is known: those in its denominator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n: Option<usize>,
}

impl Figure {
    /// A number without an interval.
    pub fn plain(name: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), value, interval: None, n: None }
    }
}

/// Where a figure is shown: those of one picture share an axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The picture's title.
    pub picture: String,
    /// What the figure is called in it.
    pub line: String,
    /// The axis; one that ends in `%` has shares from 0 to 1.
    pub axis: &'static str,
    /// Whether arms are compared by it.
    pub main: bool,
}

impl Place {
    /// A place, its line named as people write: spaces for underlines.
    pub fn new(picture: impl Into<String>, line: &str, axis: &'static str, main: bool) -> Self {
        Self { picture: picture.into(), line: line.replace('_', " "), axis, main }
    }
}
