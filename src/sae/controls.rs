//! Features to hold one of interest against: others that are active as often.

use super::moments::FeatureFigures;
use crate::rng::{Purpose, stream};
use crate::{bad, json};
use anyhow::Result;
use rand::seq::IndexedRandom;
use std::path::Path;

/// So many times as many features as are wanted are drawn from: those with the nearest frequencies.
const POOL: usize = 4;

/// Reads the figures of all features that `sae features --figures` writes.
///
/// # Errors
/// Bad input: a line that is something else, or not about the next feature; more or fewer than `features`.
pub fn read_figures(file: &Path, features: i64) -> Result<Vec<FeatureFigures>> {
    let known = |one: &FeatureFigures| {
        let (share, most) = (one.frequency, one.max);
        if !(0..features).contains(&one.feature) {
            return Err(format!("feature {}, expected one from 0 to {}", one.feature, features - 1));
        }
        let holds = (0.0..=1.0).contains(&share) && most.is_finite() && most >= 0.0;
        if holds { Ok(()) } else { Err(format!("frequency {share} and largest activation {most} cannot be")) }
    };
    let all: Vec<FeatureFigures> = json::lines(file, "the figures of a feature", known)?;
    match all.iter().zip(0..).all(|(one, at)| one.feature == at) && all.len() as i64 == features {
        true => Ok(all),
        false => Err(bad!(
            "{} has {} features, expected all {features} of the autoencoder in their order",
            file.display(),
            all.len()
        )),
    }
}

/// At most `count` features other than `feature` that are active about as often: drawn from the `POOL` times `count`
/// whose frequencies are nearest on a scale of logarithms. None that is never active. Ascending.
pub fn matched(figures: &[FeatureFigures], feature: i64, count: usize, seed: u64) -> Vec<i64> {
    let Some(own) = figures.iter().find(|one| one.feature == feature).filter(|one| one.frequency > 0.0) else {
        return vec![];
    };
    let far = |one: &FeatureFigures| (one.frequency.ln() - own.frequency.ln()).abs();
    let mut others: Vec<&FeatureFigures> =
        figures.iter().filter(|one| one.feature != feature && one.frequency > 0.0).collect();
    others.sort_by(|a, b| far(a).total_cmp(&far(b)).then(a.feature.cmp(&b.feature)));
    others.truncate(POOL * count);
    let mut rng = stream(seed, Purpose::Shuffle, 1, feature.unsigned_abs());
    let mut drawn: Vec<i64> = others.sample(&mut rng, count).map(|one| one.feature).collect();
    drawn.sort_unstable();
    drawn
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures() -> Vec<FeatureFigures> {
        let frequency = |feature: i64| if feature == 3 { 0.0 } else { 0.5f64.powi(feature as i32) };
        (0..40).map(|feature| FeatureFigures { feature, frequency: frequency(feature), mean: 1.0, max: 2.0 }).collect()
    }

    #[test]
    fn controls_are_active_as_often() {
        let drawn = matched(&figures(), 10, 3, 1);
        assert_eq!(drawn.len(), 3);
        // The twelve nearest are six to either side.
        assert!(drawn.iter().all(|feature| (4..=16).contains(feature) && *feature != 10), "{drawn:?}");
        assert_eq!(drawn, matched(&figures(), 10, 3, 1));
        assert!((2..20).any(|seed| matched(&figures(), 10, 3, seed) != drawn));
        // Not itself, not one that never is; all others if there are no more.
        let all = matched(&figures(), 0, 100, 1);
        assert_eq!((all.len(), all.contains(&0), all.contains(&3)), (38, false, false));
        assert!(matched(&figures(), 3, 5, 1).is_empty() && matched(&figures(), 99, 5, 1).is_empty());
    }

    #[test]
    fn figures_of_all_features_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("figures.jsonl");
        let write = |all: &[FeatureFigures]| {
            let lines: String = all.iter().map(|one| serde_json::to_string(one).unwrap() + "\n").collect();
            std::fs::write(&file, lines).unwrap();
            read_figures(&file, 40).map_err(|error| error.to_string())
        };
        let mut all = figures();
        assert_eq!(write(&all), Ok(figures()));
        assert!(write(&all[1..]).unwrap_err().contains("has 39 features, expected all 40"));
        all[4].frequency = 2.0;
        assert!(write(&all).unwrap_err().contains("line 5 is not the figures of a feature: frequency 2"));
        all[4].feature = 40;
        assert!(write(&all).unwrap_err().contains("feature 40, expected one from 0 to 39"));
    }
}
