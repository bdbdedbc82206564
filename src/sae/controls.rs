//! Features to hold one of interest against: others that are active as often and as strongly.

use super::moments::FeatureFigures;
use crate::rng::{Purpose, stream};
use crate::{bad, json};
use anyhow::Result;
use rand::seq::IndexedRandom;
use std::path::Path;

/// So many times as many features as are wanted are drawn from: the nearest.
const POOL: usize = 4;

/// Reads the figures of all features that `sae features --figures` writes.
///
/// # Errors
/// Bad input: a line that is something else, or not about the next feature; more or fewer than `features`.
pub fn read_figures(file: &Path, features: i64) -> Result<Vec<FeatureFigures>> {
    let known = |one: &FeatureFigures| {
        let (share, mean, most) = (one.frequency, one.mean, one.max);
        if !(0..features).contains(&one.feature) {
            return Err(format!("feature {}, expected one from 0 to {}", one.feature, features - 1));
        }
        let holds = (0.0..=1.0).contains(&share) && [mean, most].iter().all(|x| x.is_finite() && *x >= 0.0);
        let shown = || format!("frequency {share}, mean activation {mean} and largest activation {most} cannot be");
        if holds { Ok(()) } else { Err(shown()) }
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

/// Whether a feature can be matched, and be matched with: it is active somewhere, on average above 0.
fn can_be_matched(one: &FeatureFigures) -> bool {
    one.frequency > 0.0 && one.mean > 0.0
}

/// At most `count` features other than `feature` that are active about as often and as strongly: drawn from the `POOL`
/// times `count` that are nearest in the plane of the logarithms of frequency and of mean activation. A feature twice
/// as frequent is as far away as one twice as strong. None that cannot be matched. Ascending.
pub fn matched(figures: &[FeatureFigures], feature: i64, count: usize, seed: u64) -> Vec<i64> {
    let Some(own) = figures.iter().find(|one| one.feature == feature && can_be_matched(one)) else {
        return vec![];
    };
    let far = |one: &FeatureFigures| (one.frequency.ln() - own.frequency.ln()).hypot(one.mean.ln() - own.mean.ln());
    let mut others: Vec<&FeatureFigures> =
        figures.iter().filter(|one| one.feature != feature && can_be_matched(one)).collect();
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

    /// Features on a grid of 7 frequencies and 7 strengths, each half the one before; the one in the middle is 24.
    #[test]
    fn controls_are_active_as_strongly() {
        let half = |times: i64| 0.5f64.powi(times as i32);
        let of = |feature: i64, mean: f64| FeatureFigures { feature, frequency: half(feature / 7), mean, max: 9.0 };
        let mut figures: Vec<FeatureFigures> = (0..49).map(|feature| of(feature, 3.0 * half(feature % 7))).collect();
        // In the end everything in the pool is drawn: of four, the neighbours on both axes.
        let pool = |figures: &[FeatureFigures], count: usize| -> Vec<i64> {
            let mut all: Vec<i64> = (0..200).flat_map(|seed| matched(figures, 24, count, seed)).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        assert_eq!(pool(&figures, 1), [17, 23, 25, 31]);
        // The diagonal ones are next, before those two steps away.
        assert_eq!(pool(&figures, 2), [16, 17, 18, 23, 25, 30, 31, 32]);
        // With a mean of 0 it is no candidate, and has none; a thousand times as strong, it is far.
        figures[17].mean = 0.0;
        figures[23].mean *= 1000.0;
        let near = pool(&figures, 1);
        assert!(near.len() == 4 && [25, 31].iter().all(|own| near.contains(own)), "{near:?}");
        assert!(near.iter().all(|own| [16, 18, 25, 30, 31, 32].contains(own)), "{near:?}");
        assert!(matched(&figures, 17, 5, 1).is_empty() && !can_be_matched(&figures[17]));
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
        all[4].mean = -1.0;
        assert!(write(&all).unwrap_err().contains("mean activation -1 and largest activation 2 cannot be"));
        all[4].frequency = 2.0;
        assert!(write(&all).unwrap_err().contains("line 5 is not the figures of a feature: frequency 2"));
        all[4].feature = 40;
        assert!(write(&all).unwrap_err().contains("feature 40, expected one from 0 to 39"));
    }
}
