//! Learning-rate schedules: a linear warm-up, then constant, linear to zero, or a half cosine to zero.

use crate::recipe::Schedule;
use std::f64::consts::PI;

/// The factor on the peak rate in optimizer step `step` (from 0) of `total`, the first `warmup` of them rising.
pub fn factor(schedule: Schedule, step: usize, warmup: usize, total: usize) -> f64 {
    if step < warmup {
        return (step + 1) as f64 / warmup as f64;
    }
    let progress = (step - warmup) as f64 / (total.saturating_sub(warmup)).max(1) as f64;
    match schedule {
        Schedule::Constant => 1.0,
        Schedule::Linear => 1.0 - progress,
        Schedule::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_rise_and_fall() {
        assert_eq!(factor(Schedule::Constant, 7, 0, 10), 1.0);
        assert_eq!(factor(Schedule::Cosine, 0, 4, 40), 0.25);
        assert_eq!(factor(Schedule::Cosine, 3, 4, 40), 1.0);
        assert!((factor(Schedule::Cosine, 22, 4, 40) - 0.5).abs() < 1e-12);
        assert!((factor(Schedule::Linear, 22, 4, 40) - 0.5).abs() < 1e-12);
        assert!(factor(Schedule::Cosine, 39, 4, 40) > 0.0);
    }
}
