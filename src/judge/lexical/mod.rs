//! A judge that needs nothing but the text: words, punctuation and tags.
//!
//! Tags decide who speaks (`voices`), words decide what is done (`rules`): a dialogue shows the same behaviours with
//! and without its tags. A behaviour is counted once for each sentence with a cue of it, whatever the number of cues.
//! Three things need more than one sentence:
//!
//! - A question counts if something other than a question follows it, by whomever; several in a row count once.
//! - Mere agreement reconciles if there was a difference (a conflict or another view) since the last agreement.
//! - A `but` that opens a sentence is a conflict after one that agrees; a `no` is none if it answers a question of the
//!   same line.

mod rules;
mod sentences;

pub use rules::{Cue, RULES};

use super::interface::{Judge, Judgement, Perspective, Refusal, Segment, Trace};
use super::voices::{speakers, speeches};
use crate::hash::hash_of_texts;
use anyhow::Result;
use sentences::{Sentence, sentences};
use serde_json::{Value, json};

/// Raised when the counts of a text change by other means than the rules.
const VERSION: u32 = 1;

/// The judge; it has no settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lexical;

impl Judge for Lexical {
    fn identity(&self) -> Value {
        let rules = RULES.iter().map(|(cue, pattern, _)| format!("{cue:?} {pattern}"));
        json!({"kind": "lexical", "version": VERSION, "rules": hash_of_texts(rules)})
    }

    fn cannot_see(&self) -> Option<&'static str> {
        Some(
            "the lexical judge sees words, not meaning, and only English ones; it cannot see roles, personalities and \
             expertise, nor voices without tags: a text without <think1>, <think2> counts as one perspective",
        )
    }

    fn judge(&self, traces: &[Trace]) -> Result<Vec<Result<Judgement, Refusal>>> {
        Ok(traces.iter().map(|trace| Ok(judgement(&trace.text))).collect())
    }
}

/// The judgement of a text. Time is linear in its length.
pub fn judgement(text: &str) -> Judgement {
    let speeches = speeches(text);
    let speakers = speakers(&speeches);
    let mut listener = Listener::default();
    let mut turn = None;
    for speech in &speeches {
        let goes_on = turn == Some(speech.turn);
        for (place, sentence) in sentences(&text[speech.span.clone()]).into_iter().enumerate() {
            listener.hear(Sentence { opens: sentence.opens && !(goes_on && place == 0), ..sentence });
        }
        turn = Some(speech.turn);
    }
    let segment = |speech: &super::voices::Speech| Segment {
        start: speech.span.start,
        end: speech.span.end,
        perspective: speakers.binary_search(&speech.speaker).unwrap_or_default(),
    };
    Judgement {
        conversational: Some(listener.conversational),
        roles: None,
        cognitive: Some(listener.cognitive),
        perspectives: Some(vec![Perspective::default(); speakers.len()]),
        segments: speeches.iter().map(segment).collect(),
        ..Judgement::default()
    }
}

/// Counts behaviours, sentence by sentence.
#[derive(Default)]
struct Listener {
    conversational: [u32; 4],
    cognitive: [u32; 4],
    /// A question waits for its answer.
    asked: bool,
    /// There is a difference that nobody has settled.
    differs: bool,
    /// What the sentence before did.
    before: Before,
}

#[derive(Default)]
struct Before {
    agrees: bool,
    asks: bool,
}

impl Listener {
    fn hear(&mut self, sentence: Sentence) {
        let cues: Vec<Cue> = rules::cues(sentence.text).collect();
        let has = |cue: Cue| cues.contains(&cue);

        let asks = sentence.asks && is_question(sentence.text);
        let answered = self.asked && !asks;
        self.asked = asks;

        let shift = has(Cue::Shift);
        let own_answer = self.before.asks && !sentence.opens;
        let conflict =
            has(Cue::Conflict) || has(Cue::Contrast) && self.before.agrees || has(Cue::Denial) && !own_answer;
        let agrees = (has(Cue::Agreement) || has(Cue::Reconciliation)) && !conflict;
        let reconciles = has(Cue::Reconciliation) || agrees && self.differs;
        self.differs = conflict || shift || self.differs && !agrees;
        self.before = Before { agrees: has(Cue::Agreement) || has(Cue::Reconciliation), asks };

        add(&mut self.conversational, [answered, shift, conflict, reconciles]);
        add(&mut self.cognitive, [Cue::Verification, Cue::Backtracking, Cue::Subgoal, Cue::Backward].map(has));
    }
}

/// Adds one to each count whose behaviour was seen.
fn add(counts: &mut [u32; 4], seen: [bool; 4]) {
    for (count, seen) in counts.iter_mut().zip(seen) {
        *count += u32::from(seen);
    }
}

/// Whether what ends with a question mark asks something: it has a word, and does not merely restate the problem.
fn is_question(sentence: &str) -> bool {
    let has_word = sentence.split(|c: char| !c.is_alphabetic()).any(|word| word.chars().nth(1).is_some());
    let start = sentence.get(..40).unwrap_or(sentence).to_lowercase();
    has_word && !["the question", "the problem", "the task", "question"].iter().any(|quoted| start.starts_with(quoted))
}

#[cfg(test)]
mod tests;
