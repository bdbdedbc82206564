//! What must hold in the first step of any run. If it does not, the run is wrong from the start, and stops here.

use super::descent::Scalars;
use super::experience::Experience;
use anyhow::{Result, bail};
use tch::{Kind, Tensor};

/// How far apart two computations of the same number may be.
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

/// Checks the first step. `gap`: the mean probability gap of sampler and scorer. `first`: the first actor update.
///
/// # Errors
/// The names of the identities that do not hold, with their figures.
pub fn check(compute: Kind, experience: &Experience, gap: f64, first: Option<&Scalars>) -> Result<()> {
    let bounds = bounds(compute);
    let mut broken = Vec::new();
    let mut hold = |name: &str, value: f64, bound: f64| {
        if value.is_nan() || value.abs() > bound {
            broken.push(format!("{name}: {value:.3e}, bound {bound:.0e}"));
        }
    };
    let largest = |t: &Tensor| t.abs().max().double_value(&[]);
    let estimates = &experience.estimates;
    if let Some(reference) = &estimates.reference {
        hold("actor and reference log-probs are equal", largest(&(&estimates.old - reference)), bounds.log_prob);
    }
    if let Some(values) = &estimates.values {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Ppo;
    use crate::torch::{on_device, test_device};
    use crate::train::estimates::Estimates;
    use crate::train::experience::{Scored, experience};

    fn first_step(reference: [f32; 2], value: f32) -> Experience {
        let ppo: Ppo = toml::from_str("").unwrap();
        let estimates = Estimates {
            old: on_device(&[-1.0f32, -2.0], test_device()),
            reference: Some(on_device(&reference, test_device())),
            values: Some(on_device(&[0.0, value], test_device())),
        };
        let scored = Scored { scores: &[1.0], lengths: &[2], group: 1, kl_coef: 0.001 };
        experience(&ppo, &scored, estimates)
    }

    #[test]
    fn a_wrong_first_step_is_reported() {
        let update = |kl, clipped| Scalars::from([("actor/ppo_kl".into(), kl), ("actor/pg_clipfrac".into(), clipped)]);
        let sound = first_step([-1.0, -2.0], 0.01);
        check(Kind::Float, &sound, 1e-6, Some(&update(0.0, 0.0))).unwrap();
        check(Kind::Float, &sound, 1e-6, None).unwrap();
        for (experience, gap, update, name) in [
            (first_step([-1.0, -2.1], 0.0), 0.0, update(0.0, 0.0), "reference"),
            (first_step([-1.0, -2.0], 7.0), 0.0, update(0.0, 0.0), "values"),
            (first_step([-1.0, -2.0], f32::NAN), 0.0, update(0.0, 0.0), "values"),
            (first_step([-1.0, -2.0], 0.0), 0.02, update(0.0, 0.0), "sampler"),
            (first_step([-1.0, -2.0], 0.0), 0.0, update(0.1, 0.0), "ppo_kl"),
            (first_step([-1.0, -2.0], 0.0), 0.0, update(0.0, 0.5), "pg_clipfrac"),
        ] {
            let message = check(Kind::Float, &experience, gap, Some(&update)).unwrap_err().to_string();
            assert!(message.contains(name) && message.lines().count() == 2, "{message}");
        }
    }
}
