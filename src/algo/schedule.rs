//! Learning-rate schedules: a linear warm-up, then a decay.
//!
//! A decay takes the progress from the end of the warm-up, 0, to the end of training, 1, and returns the factor on the
//! peak rate.

use std::f64::consts::PI;

pub fn constant(_: f64) -> f64 {
    1.0
}

/// To zero.
pub fn linear(progress: f64) -> f64 {
    1.0 - progress
}

/// Half a cosine to zero.
pub fn cosine(progress: f64) -> f64 {
    0.5 * (1.0 + (PI * progress).cos())
}

/// The factor on the peak rate in optimizer step `step` (from 0) of `total`, of which the first `warmup` rise.
pub fn factor(decay: fn(f64) -> f64, step: usize, warmup: usize, total: usize) -> f64 {
    if step < warmup {
        return (step + 1) as f64 / warmup as f64;
    }
    decay((step - warmup) as f64 / (total.saturating_sub(warmup)).max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_rise_and_fall() {
        assert_eq!(factor(constant, 7, 0, 10), 1.0);
        assert_eq!(factor(cosine, 0, 4, 40), 0.25);
        assert_eq!(factor(cosine, 3, 4, 40), 1.0);
        assert!((factor(cosine, 22, 4, 40) - 0.5).abs() < 1e-12);
        assert!((factor(linear, 22, 4, 40) - 0.5).abs() < 1e-12);
        assert!(factor(cosine, 39, 4, 40) > 0.0);
    }
}
