//! What is known about one step: named scalars in the order they were set, and optionally histograms and texts.
//!
//! Names are those of verl's dashboards, `group/name`. Values that are not finite stay as they are: a NaN in a record
//! is a finding, and every writer shows it.

use super::outcomes::Outcomes;
use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a record's step counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Optimizer steps of the warm start.
    Sft,
    /// Steps of PPO.
    Ppo,
    /// The PPO step after which the model was evaluated (0: before the first).
    Evaluation,
    /// The PPO step whose checkpoint a hook judged; written later than the records of that step.
    Hook,
}

impl Stage {
    const ALL: [Self; 4] = [Self::Sft, Self::Ppo, Self::Evaluation, Self::Hook];

    /// The stage's name in the files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sft => "sft",
            Self::Ppo => "ppo",
            Self::Evaluation => "evaluation",
            Self::Hook => "hook",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }

    /// The first step of this stage that a run continuing after `resume` still has to do; `None`: the stage is done.
    /// After an evaluation all of its step is done, and after PPO's part of a step its evaluation is not.
    pub(super) fn first_undone(self, resume: Option<(Stage, u64)>) -> Option<u64> {
        match (self, resume) {
            (_, None) => Some(0),
            (Self::Sft, Some((Self::Sft, last))) => Some(last + 1),
            (Self::Sft, Some(_)) => None,
            (_, Some((Self::Sft, _))) => Some(0),
            (Self::Evaluation, Some((Self::Ppo, last))) => Some(last),
            (_, Some((_, last))) => Some(last + 1),
        }
    }
}

/// What the names of a task's validation metrics begin with: `val/TASK`, and `val/TASK_DECODING` if the decoding is not
/// greedy.
pub fn validation(task: &str, decoding: &str) -> String {
    if decoding == "greedy" { format!("val/{task}") } else { format!("val/{task}_{decoding}") }
}

/// Whether a figure measures the machine, and not what is learnt: it differs when the same run is repeated.
pub fn measures_machine(name: &str) -> bool {
    let mfu = ["actor/mfu", "critic/mfu"].contains(&name);
    mfu || ["timing", "perf/", "sft/tokens_per_s"].iter().any(|prefix| name.starts_with(prefix))
}

/// One step's figures.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub stage: Stage,
    pub step: u64,
    /// When the record was started, in seconds since 1970.
    pub time: f64,
    scalars: Vec<(Cow<'static, str>, f64)>,
    histograms: Vec<(Cow<'static, str>, Vec<f64>)>,
    texts: Vec<(Cow<'static, str>, String)>,
    outcomes: Vec<Outcomes>,
}

impl Record {
    /// An empty record, dated now.
    pub fn new(stage: Stage, step: u64) -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        let (scalars, histograms, texts, outcomes) = Default::default();
        Self { stage, step, time, scalars, histograms, texts, outcomes }
    }

    /// Sets a scalar; the value of an existing name is overwritten.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, value: f64) {
        let name = name.into();
        match self.scalars.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.scalars.push((name, value)),
        }
    }

    /// The value of a scalar.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.scalars.iter().find(|(known, _)| known == name).map(|&(_, value)| value)
    }

    /// Sets `prefix/mean`, `prefix/max` and `prefix/min`; nothing if there are no values. One NaN makes all three NaN.
    pub fn summary(&mut self, prefix: &str, values: &[f32]) {
        if values.is_empty() {
            return;
        }
        let (mut sum, mut max, mut min) = (0.0, f64::NEG_INFINITY, f64::INFINITY);
        for value in values.iter().map(|&v| f64::from(v)) {
            sum += value;
            // `f64::max` would ignore a NaN.
            max = if value > max || value.is_nan() { value } else { max };
            min = if value < min || value.is_nan() { value } else { min };
        }
        self.set(format!("{prefix}/mean"), sum / values.len() as f64);
        self.set(format!("{prefix}/max"), max);
        self.set(format!("{prefix}/min"), min);
    }

    /// Adds the distribution of `values`, for TensorBoard.
    pub fn histogram(&mut self, tag: impl Into<Cow<'static, str>>, values: Vec<f64>) {
        self.histograms.push((tag.into(), values));
    }

    /// Adds a text, shown as it is (not as markdown).
    pub fn text(&mut self, tag: impl Into<Cow<'static, str>>, text: impl Into<String>) {
        self.texts.push((tag.into(), text.into()));
    }

    /// Adds an evaluation problem by problem, for `evaluations.jsonl`.
    pub fn outcome(&mut self, outcomes: Outcomes) {
        self.outcomes.push(outcomes);
    }

    /// Names and values in the order they were set.
    pub fn scalars(&self) -> impl Iterator<Item = (&str, f64)> {
        self.scalars.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    /// Tags and values.
    pub fn histograms(&self) -> impl Iterator<Item = (&str, &[f64])> {
        self.histograms.iter().map(|(tag, values)| (tag.as_ref(), values.as_slice()))
    }

    /// Tags and texts.
    pub fn texts(&self) -> impl Iterator<Item = (&str, &str)> {
        self.texts.iter().map(|(tag, text)| (tag.as_ref(), text.as_str()))
    }

    /// The evaluations, in the order they were added.
    pub fn outcomes(&self) -> &[Outcomes] {
        &self.outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_keep_their_order_and_their_last_value() {
        let mut record = Record::new(Stage::Ppo, 3);
        record.set("b", 1.0);
        record.set("a".to_string(), 2.0);
        record.set("b", 3.0);
        assert_eq!(record.scalars().collect::<Vec<_>>(), [("b", 3.0), ("a", 2.0)]);
        assert_eq!(record.get("c"), None);
    }

    #[test]
    fn a_summary_does_not_hide_a_nan() {
        for values in [[f32::NAN, 1.0, 2.0], [1.0, f32::NAN, 2.0], [1.0, 2.0, f32::NAN]] {
            let mut record = Record::new(Stage::Ppo, 0);
            record.summary("x", &values);
            assert_eq!(record.scalars().filter(|(_, value)| value.is_nan()).count(), 3, "{values:?}");
        }
        let mut record = Record::new(Stage::Ppo, 0);
        record.summary("x", &[1.0, -3.0, 5.0]);
        record.summary("none", &[]);
        assert_eq!(record.scalars().collect::<Vec<_>>(), [("x/mean", 1.0), ("x/max", 5.0), ("x/min", -3.0)]);
    }
}
