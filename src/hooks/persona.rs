//! Whether personas emerge: a judge reads responses to held-out problems. Each trace with its judgement is a line of
//! `traces.jsonl` in the job's folder.

use crate::judge::Judgement;
use serde::{Deserialize, Serialize};

/// The file of judged traces.
pub const JUDGED: &str = "traces.jsonl";

/// A trace with what was said about it.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
pub struct Judged {
    /// Of the problem in the validation split.
    pub index: usize,
    pub problem: String,
    pub text: String,
    /// Length in tokens.
    pub tokens: usize,
    pub reward: f64,
    pub accuracy: f64,
    pub format: f64,
    pub verdict: String,
    /// Absent if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub judgement: Option<Judgement>,
    /// Why there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}
