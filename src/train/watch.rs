//! Watchdogs: named warnings about what a run learns, from the figures of its steps.
//!
//! Decided: a warning begins after several steps in a row beyond its threshold, and ends after as many within it, so
//! that one odd step says nothing and a figure at the threshold does not flicker. What a watchdog remembers is part of
//! the checkpoint's state: a resumed run warns at the same steps. Figures that are not there in a step (an actor that
//! does not learn yet) change nothing.

use crate::metrics::Record;
use crate::recipe::{Ppo, Warning, Watch};
use crate::terminal::figure;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the watchdogs remember from step to step.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
pub struct Watchdogs(BTreeMap<Warning, Watchdog>);

/// What one of them remembers.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
struct Watchdog {
    /// The first figure of the run.
    first: f64,
    /// The newest one.
    value: f64,
    /// Steps in a row beyond the threshold, or within it while the warning is on.
    row: usize,
    /// The first step of the warning that is on.
    since: Option<u64>,
}

/// A figure of a step, and what it is compared with.
struct Reading {
    metric: &'static str,
    value: f64,
    beyond: bool,
    /// The threshold in words.
    threshold: String,
}

impl Watchdogs {
    /// Looks at the record of a step, and adds `watch/NAME` to it for each warning that it has the figures of: 1 if
    /// the warning is on, else 0. Returns what is to be said: warnings that begin and warnings that end, a line each.
    pub fn observe(&mut self, watch: &Watch, ppo: &Ppo, record: &mut Record) -> Vec<String> {
        let mut said = Vec::new();
        for warning in Warning::ALL.into_iter().filter(|warning| watch.has(*warning)) {
            let first = self.0.get(&warning).map(|dog| dog.first);
            if let Some(reading) = read(warning, watch, ppo, record, first) {
                let dog = self.0.entry(warning).or_default();
                dog.first = first.unwrap_or(reading.value);
                said.extend(dog.see(warning, watch.patience(warning), record.step, &reading));
                record.set(format!("watch/{}", warning.name()), f64::from(u8::from(dog.since.is_some())));
            }
        }
        said
    }

    /// The warnings that are on and end a run, with the steps that they began at.
    fn stopping(&self, watch: &Watch) -> Vec<(Warning, u64)> {
        // The thresholds of a resumed run may be others than those that a warning began with.
        let holds = |warning: Warning| {
            let dog = &self.0[&warning];
            watch.has(warning) && compare(warning, watch, dog.value, dog.first).is_none_or(|(beyond, _)| beyond)
        };
        self.on().filter(|(warning, _)| watch.stop.contains(warning) && holds(*warning)).collect()
    }

    /// Why a run is to end, if a warning that ends it is on.
    pub fn reason_to_stop(&self, watch: &Watch) -> Option<String> {
        let name = |(warning, since): (Warning, u64)| format!("{} is on since step {since}", warning.name());
        let on: Vec<String> = self.stopping(watch).into_iter().map(name).collect();
        (!on.is_empty()).then(|| format!("watch.stop ends the run: {}", on.join(", ")))
    }

    /// The warnings that are on, with the steps that they began at.
    pub fn on(&self) -> impl Iterator<Item = (Warning, u64)> {
        self.0.iter().filter_map(|(warning, dog)| Some((*warning, dog.since?)))
    }

    /// Checks what was read from a checkpoint of a step.
    ///
    /// # Errors
    /// A warning that has not begun by then.
    pub fn check(&self, step: usize) -> Result<()> {
        for (warning, since) in self.on() {
            ensure!((1..=step as u64).contains(&since), "{} is on since step {since}", warning.name());
        }
        Ok(())
    }
}

impl Watchdog {
    /// Counts a step; returns what is to be said about it.
    fn see(&mut self, warning: Warning, patience: usize, step: u64, reading: &Reading) -> Option<String> {
        let Reading { metric, value, beyond, threshold } = reading;
        self.value = *value;
        self.row = if *beyond == self.since.is_none() { self.row + 1 } else { 0 };
        if self.row < patience {
            return None;
        }
        let began = step + 1 - self.row as u64;
        self.row = 0;
        let (name, value) = (warning.name(), figure(*value));
        Some(match self.since.take() {
            Some(since) => {
                format!("{name}, on since step {since}, is over at step {step}: {metric} is {value}, {threshold}")
            }
            None => {
                self.since = Some(began);
                let (cause, keys) = advice(warning);
                format!(
                    "warning: {name} since step {began}: {metric} is {value}, {threshold} (watch.{name}); usually \
                     {cause}: see {keys}"
                )
            }
        })
    }
}

/// The figure that a warning is about, if the record has it.
fn read(warning: Warning, watch: &Watch, ppo: &Ppo, record: &Record, first: Option<f64>) -> Option<Reading> {
    if warning == Warning::CriticMisleads && record.step <= ppo.critic_warmup_steps as u64 {
        return None;
    }
    let mut figures = metrics(warning).iter().filter_map(|name| Some((*name, record.get(name)?)));
    let (metric, value) = figures.find(|(_, value)| !value.is_nan())?;
    // The state of a run is JSON, which has no infinity.
    let value = value.clamp(f64::MIN, f64::MAX);
    let (beyond, threshold) = compare(warning, watch, value, first.unwrap_or(value)).unwrap_or_else(|| {
        let same = record.get("critic/score/max") == record.get("critic/score/min");
        (same, if same { "the same for all responses" } else { "and not the same for all responses" }.into())
    });
    Some(Reading { metric, value, beyond, threshold })
}

/// Where a warning's figure is found: the first of these that a record has.
fn metrics(warning: Warning) -> &'static [&'static str] {
    match warning {
        Warning::RewardConstant => &["critic/score/mean"],
        Warning::EntropyCollapsed => &["actor/entropy"],
        Warning::ResponsesCut => &["response_length/clip_ratio"],
        Warning::KlHigh => &["actor/reward_kl_penalty", "actor/kl_loss"],
        Warning::UpdateTooFar => &["actor/ppo_kl"],
        Warning::CriticMisleads => &["critic/vf_explained_var"],
        Warning::LengthRunsAway => &["response_length/mean"],
    }
}

/// Whether a figure that was `first` at the beginning is beyond its threshold, and the threshold in words; nothing if
/// it has none.
fn compare(warning: Warning, watch: &Watch, value: f64, first: f64) -> Option<(bool, String)> {
    let above = |most: f64| Some((value > most, format!("threshold {}", figure(most))));
    match warning {
        Warning::RewardConstant => None,
        Warning::EntropyCollapsed => {
            let least = (watch.entropy_collapsed * first).max(watch.entropy_floor);
            Some((value < least, format!("threshold {}, at first it was {}", figure(least), figure(first))))
        }
        Warning::ResponsesCut => above(watch.responses_cut),
        Warning::KlHigh => above(watch.kl_high),
        Warning::UpdateTooFar => above(watch.update_too_far),
        Warning::CriticMisleads => {
            Some((value < watch.critic_misleads, format!("threshold {}", figure(watch.critic_misleads))))
        }
        Warning::LengthRunsAway => {
            let most = watch.length_runs_away * first;
            Some((value > most, format!("threshold {}, at first it was {}", figure(most), figure(first))))
        }
    }
}

/// What usually causes a warning, and the keys to look at.
fn advice(warning: Warning) -> (&'static str, &'static str) {
    match warning {
        Warning::RewardConstant => {
            ("the model never answers in the layout that is asked for, or the problems are too hard", "[sft], [task]")
        }
        Warning::EntropyCollapsed => {
            ("the actor learns too fast, or nothing rewards variety", "ppo.actor_lr, ppo.entropy_coef, ppo.kl_coef")
        }
        Warning::ResponsesCut => {
            ("responses do not end, or have too little room", "rollout.max_response_tokens, rollout.stop, [sft]")
        }
        Warning::KlHigh => ("the actor learns too fast, or little holds it back", "ppo.actor_lr, ppo.kl_coef"),
        Warning::UpdateTooFar => {
            ("a step's updates are too large or too many", "ppo.actor_lr, ppo.epochs, ppo.mini_batch, ppo.grad_clip")
        }
        Warning::CriticMisleads => {
            ("the critic learns too fast, or has learnt too little", "ppo.critic_lr, ppo.critic_warmup_steps")
        }
        Warning::LengthRunsAway => {
            ("length is rewarded, or responses no longer end", "[reward], rollout.max_response_tokens, ppo.kl_coef")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Stage;

    fn record(step: u64, figures: &[(&'static str, f64)]) -> Record {
        let mut record = Record::new(Stage::Ppo, step);
        figures.iter().for_each(|(name, value)| record.set(*name, *value));
        record
    }

    fn ppo() -> Ppo {
        toml::from_str("critic_warmup_steps = 2").unwrap()
    }

    /// What is said and recorded at each step about one metric with these values, from step 1.
    fn series(watch: &Watch, warning: Warning, values: &[f64]) -> (Vec<(u64, String)>, Vec<Option<f64>>) {
        let metric = metrics(warning)[0];
        let (mut dogs, mut said, mut recorded) = (Watchdogs::default(), vec![], vec![]);
        for (step, value) in (1..).zip(values) {
            let mut record = record(step, &[(metric, *value)]);
            said.extend(dogs.observe(watch, &ppo(), &mut record).into_iter().map(|line| (step, line)));
            recorded.push(record.get(&format!("watch/{}", warning.name())));
        }
        (said, recorded)
    }

    #[test]
    fn a_warning_begins_once_and_ends_once() {
        let watch = Watch { patience: 2, ..Watch::default() };
        // One step beyond says nothing; one step within does not end it.
        let values = [0.1, 1.5, 0.9, 1.2, 1.3, 1.4, 0.5, f64::INFINITY, 0.5, 0.4, 0.3];
        let (said, recorded) = series(&watch, Warning::KlHigh, &values);
        let expected = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0];
        assert_eq!(recorded, expected.map(Some));
        assert_eq!(
            said,
            [
                (
                    5,
                    "warning: kl_high since step 4: actor/reward_kl_penalty is 1.30, threshold 1 (watch.kl_high); \
                     usually the actor learns too fast, or little holds it back: see ppo.actor_lr, ppo.kl_coef"
                        .to_string()
                ),
                (
                    10,
                    "kl_high, on since step 4, is over at step 10: actor/reward_kl_penalty is 0.400, threshold 1"
                        .to_string()
                ),
            ]
        );
    }

    #[test]
    fn every_warning_has_its_threshold() {
        let watch = Watch { patience: 1, entropy_floor: 0.05, ..Watch::default() };
        // Within, within, beyond; the first value is what some are compared with.
        for (warning, values) in [
            (Warning::EntropyCollapsed, [1.0, 0.11, 0.09]),
            // A tenth of the first would be 0.02.
            (Warning::EntropyCollapsed, [0.2, 0.06, 0.04]),
            (Warning::ResponsesCut, [0.0, 0.9, 0.91]),
            (Warning::KlHigh, [-0.1, 1.0, 1.1]),
            (Warning::UpdateTooFar, [0.0, 0.2, 0.21]),
            (Warning::LengthRunsAway, [30.0, 120.0, 121.0]),
        ] {
            let (said, recorded) = series(&watch, warning, &values);
            assert_eq!(recorded, [0.0, 0.0, 1.0].map(Some), "{warning:?}");
            let [(3, line)] = said.as_slice() else { panic!("{said:?}") };
            assert!(line.starts_with(&format!("warning: {} since step 3: ", warning.name())), "{line}");
            assert!(!line.contains('\n') && line.contains("; usually ") && line.contains(": see "), "{line}");
        }
        // Before the critic's warm-up is over nothing is expected of it.
        let (_, recorded) = series(&watch, Warning::CriticMisleads, &[-9.0, -9.0, -1.0, -1.1, f64::NAN]);
        assert_eq!(recorded, [None, None, Some(0.0), Some(1.0), None]);
        // Off.
        let off = Watch { kl_high: 0.0, ..watch };
        assert_eq!(series(&off, Warning::KlHigh, &[9.0; 3]), (vec![], vec![None; 3]));
    }

    #[test]
    fn a_constant_reward_is_one_that_all_responses_earn() {
        let watch = Watch { reward_constant: 3, ..Watch::default() };
        let step = |step, [min, mean, max]: [f64; 3]| {
            record(step, &[("critic/score/mean", mean), ("critic/score/max", max), ("critic/score/min", min)])
        };
        let mut dogs = Watchdogs::default();
        let mut said = vec![];
        for (at, scores) in (1..).zip([[0.0, 0.1, 1.0], [0.0; 3], [0.0; 3], [0.1; 3], [0.0; 3]]) {
            said.extend(dogs.observe(&watch, &ppo(), &mut step(at, scores)));
        }
        let [line] = said.as_slice() else { panic!("{said:?}") };
        assert!(
            line.starts_with(
                "warning: reward_constant since step 2: critic/score/mean is 0.100, the same for all responses \
                 (watch.reward_constant); usually the model never answers"
            ),
            "{line}"
        );
        assert_eq!(dogs.on().collect::<Vec<_>>(), [(Warning::RewardConstant, 2)]);
        assert_eq!(dogs.stopping(&watch), []);
        let stop = Watch { stop: vec![Warning::RewardConstant], ..watch };
        assert_eq!(dogs.stopping(&stop), [(Warning::RewardConstant, 2)]);
    }

    #[test]
    fn what_is_remembered_survives_a_checkpoint() {
        let watch = Watch { patience: 3, stop: vec![Warning::KlHigh], ..Watch::default() };
        let values = [0.1, 1.1, 1.0 / 3.0 + 1.0, f64::INFINITY, 1.2, 0.7, 0.1, 0.2];
        let run = |interrupted: bool| {
            let (mut dogs, mut said) = (Watchdogs::default(), vec![]);
            for (step, value) in (1..).zip(values) {
                let mut record = record(step, &[("actor/reward_kl_penalty", value), ("actor/entropy", 1.0 / value)]);
                said.extend(dogs.observe(&watch, &ppo(), &mut record));
                if interrupted {
                    dogs = serde_json::from_str(&serde_json::to_string(&dogs).unwrap()).unwrap();
                    dogs.check(step as usize).unwrap();
                }
            }
            (said, dogs)
        };
        assert_eq!(run(false), run(true));
        let mut dogs = Watchdogs::default();
        for step in 1..=3 {
            dogs.observe(&watch, &ppo(), &mut record(step, &[("actor/kl_loss", 2.0)]));
        }
        assert_eq!(dogs.stopping(&watch), [(Warning::KlHigh, 1)]);
        assert!(dogs.check(0).is_err());
        // Another threshold may be met by now.
        assert_eq!(dogs.stopping(&Watch { kl_high: 3.0, ..watch }), []);
    }
}
