//! What a judge is: traces in, judgements or refusals out.

use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The conversational behaviours (arXiv:2601.10825), in the order of `Judgement::conversational`.
pub const CONVERSATIONAL: [&str; 4] = ["question_answering", "perspective_shift", "conflict", "reconciliation"];

/// The cognitive behaviours (arXiv:2503.01307), in the order of `Judgement::cognitive`.
pub const COGNITIVE: [&str; 4] = ["verification", "backtracking", "subgoal_setting", "backward_chaining"];

/// The categories of interaction process analysis (Bales 1950), in the order of `Judgement::roles`: 1 to 3 are
/// positive, 4 to 6 give, 7 to 9 ask, 10 to 12 are negative.
pub const ROLES: [&str; 12] = [
    "shows_solidarity",
    "releases_tension",
    "agrees",
    "gives_suggestion",
    "gives_opinion",
    "gives_orientation",
    "asks_for_orientation",
    "asks_for_opinion",
    "asks_for_suggestion",
    "disagrees",
    "shows_tension",
    "shows_antagonism",
];

/// The traits that the BFI-10 measures (Rammstedt and John 2007), in the order of scores.
pub const TRAITS: [&str; 5] = ["extraversion", "agreeableness", "conscientiousness", "neuroticism", "openness"];

/// What is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The problem, as the prompt showed it.
    pub problem: String,
    /// What the model wrote, tags included.
    pub text: String,
}

/// What a judge says about a trace. Parts that it cannot see are `None`, or empty.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Judgement {
    /// How often each behaviour of `CONVERSATIONAL` occurs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversational: Option<[u32; 4]>,
    /// How many utterances have each role of `ROLES`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub roles: Option<[u32; 12]>,
    /// How often each behaviour of `COGNITIVE` occurs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cognitive: Option<[u32; 4]>,
    /// The perspectives that speak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub perspectives: Option<Vec<Perspective>>,
    /// Which part of the text belongs to which perspective, in the order of the text, without overlap.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
    /// The parts that were asked for, and about which nothing is known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// What was left out of an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Judgement {
    /// Checks a judgement of a text that comes from a file.
    ///
    /// # Errors
    /// A mark of the BFI-10 that is not from 1 to 5; a segment that is no part of the text, overlaps the one before, or
    /// is of no perspective.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let voices = self.perspectives.as_deref().unwrap_or_default();
        let marks = voices.iter().filter_map(|voice| voice.bfi.as_ref()).flatten();
        if let Some(mark) = marks.into_iter().find(|mark| !(1..=5).contains(*mark)) {
            return Err(format!("a `bfi` has the mark {mark}, expected 1 to 5"));
        }
        let mut last = 0;
        for Segment { start, end, perspective } in &self.segments {
            if *start < last || start > end || text.get(*start..*end).is_none() {
                return Err(format!("the segment from {start} to {end} is no part of the text after byte {last}"));
            }
            if *perspective >= voices.len() {
                return Err(format!("a segment is of perspective {perspective}, but there are {}", voices.len()));
            }
            last = *end;
        }
        Ok(())
    }
}

/// A part of a judgement that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Missing {
    /// The name of its question, such as `segments`.
    pub part: String,
    pub why: String,
}

/// One of the voices of a trace.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Perspective {
    /// Answers to the items of the BFI-10, each from 1 (disagree strongly) to 5 (agree strongly), in its order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bfi: Option<[u8; 10]>,
    /// What it knows about, in a few words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expertise: Option<String>,
}

/// A part of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Segment {
    /// Byte offsets in the trace's text.
    pub start: usize,
    pub end: usize,
    /// Index of the perspective.
    pub perspective: usize,
}

/// Why there is no judgement of one trace. The trace counts as missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// Somebody who judges traces.
pub trait Judge: Send + Sync {
    /// What its judgements depend on besides the trace: its kind, the model, the prompts' hash. No secrets.
    fn identity(&self) -> Value;

    /// What it cannot see, in a sentence for people; none if it sees everything.
    fn cannot_see(&self) -> Option<&'static str> {
        None
    }

    /// What judging has cost so far, for people; none if it costs nothing.
    fn cost(&self) -> Option<String> {
        None
    }

    /// One outcome per trace, in order.
    ///
    /// # Errors
    /// Nothing can be judged: the model, the key or the budget is missing, or the run is stopped.
    fn judge(&self, traces: &[Trace]) -> Result<Vec<Result<Judgement, Refusal>>>;
}
