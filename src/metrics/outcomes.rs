//! What each problem of an evaluation came to. The means of these are in the records too; the problems one by one allow
//! runs to be compared on the same problems (docs/compare.md).

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// One evaluation, problem by problem, in the order of the problems: every array has an entry for each; those of
/// classes are empty if the task has none.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Outcomes {
    /// The task, as in metric names.
    pub task: String,
    /// The decoding mode, by its name in a recipe.
    pub decoding: String,
    /// A hash of the problems and their order: where it is equal, entry i is the same problem.
    pub problems: String,
    /// 1 for a right answer, else 0.
    pub accuracy: Vec<f64>,
    /// 1 for the layout asked for, else 0.
    pub format: Vec<f64>,
    pub reward: Vec<f64>,
    /// In tokens.
    pub response_length: Vec<u64>,
    /// Whether the response ended by itself; otherwise it was cut off.
    pub terminated: Vec<bool>,
    /// The class of the problem, if the task has classes: its place among their names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub class: Vec<usize>,
    /// The class that the response names; `None` (null) if it names none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answer: Vec<Option<usize>>,
}

impl Outcomes {
    /// All of it as a line of JSON, which is equal for equal evaluations alone.
    pub fn json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Number of problems.
    pub fn len(&self) -> usize {
        self.accuracy.len()
    }

    pub fn is_empty(&self) -> bool {
        self.accuracy.is_empty()
    }

    /// The entries of a figure, by the name that its mean has under `val/`; `None` if there is no such figure.
    pub fn figure(&self, name: &str) -> Option<Vec<f64>> {
        match name {
            "accuracy" => Some(self.accuracy.clone()),
            "format" => Some(self.format.clone()),
            "reward" => Some(self.reward.clone()),
            "response_length" => Some(self.response_length.iter().map(|length| *length as f64).collect()),
            "unanswered" if !self.answer.is_empty() => {
                Some(self.answer.iter().map(|answer| f64::from(u8::from(answer.is_none()))).collect())
            }
            "clip_ratio" => Some(self.terminated.iter().map(|ended| f64::from(u8::from(!ended))).collect()),
            _ => None,
        }
    }

    /// # Errors
    /// Arrays of different lengths.
    pub(super) fn check(&self) -> Result<()> {
        let others = [self.format.len(), self.reward.len(), self.response_length.len(), self.terminated.len()];
        let classes = [self.class.len(), self.answer.len()];
        let optional = classes == [0, 0] || classes == [self.len(); 2];
        ensure!(optional && others.iter().all(|length| *length == self.len()), "its arrays have different lengths");
        Ok(())
    }
}
