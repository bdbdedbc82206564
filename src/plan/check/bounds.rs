//! Numbers within bounds.

use crate::BadInput;
use crate::recipe::Sources;

pub type Checked<T = ()> = Result<T, BadInput>;

/// No count of a recipe is larger, so that no product of a few overflows.
const MOST: usize = 1_000_000_000;

pub fn count(at: &Sources, key: &str, value: usize, least: usize) -> Checked {
    let good = (least..=MOST).contains(&value);
    at.ensure(good, key, format_args!("`{key}` is {value}, expected a whole number from {least} to {MOST}"))
}

/// `low..=high`; not a number is none of them.
pub fn within(at: &Sources, key: &str, value: f64, low: f64, high: f64) -> Checked {
    at.ensure(
        (low..=high).contains(&value),
        key,
        format_args!("`{key}` is {value}, expected a number from {low} to {high}"),
    )
}

/// Above zero, at most `high`.
pub fn above_zero(at: &Sources, key: &str, value: f64, high: f64) -> Checked {
    let good = value > 0.0 && value <= high;
    at.ensure(good, key, format_args!("`{key}` is {value}, expected a number above 0, at most {high}"))
}
