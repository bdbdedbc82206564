//! What must hold in the first step of any run. A run in which it does not is wrong from the start, and stops here.

use super::experience::Experience;
use super::update::Scalars;
use anyhow::{Result, bail};
use tch::{Kind, Tensor};

/// How far apart two computations of the same number may lie.
struct Bounds {
    log_prob: f64,
    kl: f64,
    clipped: f64,
}

fn bounds(compute: Kind) -> Bounds {
    match compute {
        Kind::Float => Bounds { log_prob: 1e-3, kl: 1e-4, clipped: 1e-6 },
        // Eight bits of mantissa: the same model on another batch shape differs in the second digit of a logit.
        _ => Bounds { log_prob: 0.5, kl: 0.02, clipped: 0.02 },
    }
}

/// Mean, largest and standard deviation of |sampler's - scorer's| token probabilities, [N] log-probs each.
pub fn probability_gap(sampler: &[f32], scorer: &[f32]) -> (f64, f64, f64) {
    let gaps: Vec<f32> = sampler.iter().zip(scorer).map(|(a, b)| (a.exp() - b.exp()).abs()).collect();
    let (mean, deviation) = crate::algo::advantage::mean_and_deviation(&gaps);
    (mean, gaps.iter().copied().fold(0.0, f32::max).into(), deviation)
}

/// Checks the first step: `gap` is the mean probability gap of sampler and scorer, `first` the first actor update.
///
/// # Errors
/// The names of the identities that do not hold, with their figures.
pub fn check(compute: Kind, xp: &Experience, gap: f64, first: Option<&Scalars>) -> Result<()> {
    let bounds = bounds(compute);
    let mut broken = Vec::new();
    let mut hold = |name: &str, value: f64, bound: f64| {
        if value.is_nan() || value.abs() > bound {
            broken.push(format!("{name}: {value:.3e}, bound {bound:.0e}"));
        }
    };
    let largest = |t: &Tensor| t.abs().max().double_value(&[]);
    if let Some(reference) = &xp.reference {
        hold("actor and reference log-probs are equal", largest(&(&xp.old - reference)), bounds.log_prob);
    }
    if let Some(values) = &xp.values {
        hold("values start near zero", largest(values), 1.0);
    }
    hold("the sampler's probabilities equal the scorer's", gap, 0.01);
    if let Some(first) = first {
        hold("actor/ppo_kl of the first update is zero", first["actor/ppo_kl"], bounds.kl);
        hold("actor/pg_clipfrac of the first update is zero", first["actor/pg_clipfrac"], bounds.clipped);
    }
    if !broken.is_empty() {
        bail!("identities of the first step do not hold:\n  {}", broken.join("\n  "));
    }
    Ok(())
}
