//! Example traces, with the parts of each perspective marked.

use super::profile::{Dots, Voice, voices};
use crate::hooks::persona::Judged;
use serde::Serialize;
use std::cmp::Reverse;

/// A trace to show.
#[derive(Serialize)]
pub struct Example {
    pub step: usize,
    pub problem: String,
    pub reward: f64,
    pub verdict: String,
    /// What there is to say about its perspectives: how many, or why nothing is known.
    pub about: String,
    pub voices: Vec<Voice>,
    pub traits: Vec<Dots>,
    /// Of the picture of the traits.
    pub height: f64,
    pub parts: Vec<Part>,
}

/// A piece of a trace; `voice` is the number of its perspective from 1, 0 for none.
#[derive(Serialize)]
pub struct Part {
    pub voice: usize,
    pub text: String,
}

/// `count` of the judged traces of a step: right and wrong ones in turn, those with more perspectives first, and those
/// that were not judged last.
pub fn examples(step: usize, judged: &[Judged], count: usize) -> Vec<Example> {
    let many = |judged: &Judged| judged.judgement.as_ref().map(|own| own.perspectives.as_ref().map_or(0, Vec::len));
    let mut sorted: Vec<&Judged> = judged.iter().collect();
    sorted.sort_by_key(|own| Reverse(many(own)));
    let (right, wrong): (Vec<&Judged>, Vec<&Judged>) = sorted.into_iter().partition(|own| own.accuracy > Some(0.0));
    let mut chosen: Vec<(usize, bool, &Judged)> = vec![];
    chosen.extend(right.into_iter().enumerate().map(|(rank, own)| (rank, false, own)));
    chosen.extend(wrong.into_iter().enumerate().map(|(rank, own)| (rank, true, own)));
    chosen.sort_by_key(|(rank, wrong, own)| (own.judgement.is_none(), *rank, *wrong));
    chosen.into_iter().take(count).map(|(_, _, judged)| example(step, judged)).collect()
}

fn example(step: usize, judged: &Judged) -> Example {
    let perspectives = judged.judgement.as_ref().and_then(|judgement| judgement.perspectives.as_deref());
    let about = match (&judged.judgement, perspectives.map(<[_]>::len)) {
        (None, _) => format!("not judged: {}", judged.missing.as_deref().unwrap_or("the judge gives no reason")),
        (_, None) => "the judge says nothing of its perspectives".into(),
        (_, Some(1)) => "one perspective".into(),
        (_, Some(number)) => format!("{number} perspectives"),
    };
    let (voices, traits, height) = voices(perspectives.unwrap_or_default());
    Example {
        step,
        problem: judged.problem.clone(),
        reward: judged.reward.unwrap_or_default(),
        verdict: judged.verdict.clone().unwrap_or_default(),
        about,
        voices,
        traits,
        height,
        parts: parts(judged),
    }
}

/// The text in pieces that together are all of it.
fn parts(judged: &Judged) -> Vec<Part> {
    let segments = judged.judgement.as_ref().map_or(&[][..], |judgement| &judgement.segments);
    let mut parts = vec![];
    let mut at = 0;
    let mut push = |voice: usize, from: usize, to: usize| match judged.text.get(from..to) {
        Some(text) if !text.is_empty() => {
            parts.push(Part { voice, text: text.into() });
            to
        }
        _ => from,
    };
    for segment in segments {
        at = push(0, at, segment.start);
        // What does not fit the text, or comes twice, stays plain.
        if segment.start == at {
            at = push(segment.perspective + 1, segment.start, segment.end);
        }
    }
    push(0, at, judged.text.len());
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn trace(index: usize, accuracy: f64, judgement: Value) -> Judged {
        let mut trace = json!({
            "index": index, "problem": index.to_string(), "text": "one two", "tokens": 2, "reward": 0.5,
            "accuracy": accuracy, "format": 1.0, "verdict": "no answer", "missing": "no reply in 60 s",
        });
        if judgement != Value::Null {
            trace["judgement"] = judgement;
        }
        serde_json::from_value(trace).unwrap()
    }

    fn several(voices: usize) -> Value {
        json!({ "perspectives": vec![json!({}); voices] })
    }

    #[test]
    fn examples_have_many_voices_and_are_right_and_wrong() {
        let traces = [
            trace(0, 0.0, several(1)),
            trace(1, 0.0, Value::Null),
            trace(2, 0.0, several(4)),
            trace(3, 1.0, several(2)),
            trace(4, 1.0, several(3)),
            trace(5, 0.0, several(2)),
        ];
        let chosen = |count| examples(7, &traces, count).iter().map(|own| own.problem.clone()).collect::<Vec<_>>();
        assert_eq!(chosen(3), ["4", "2", "3"]);
        assert_eq!(chosen(9), ["4", "2", "3", "5", "0", "1"]);
        assert!(chosen(0).is_empty());
        assert_eq!(examples(7, &traces, 9)[5].about, "not judged: no reply in 60 s");
        assert_eq!(examples(7, &traces, 9)[4].about, "one perspective");
    }

    #[test]
    fn pieces_are_the_whole_text() {
        for segments in [
            json!([]),
            json!([{"start": 0, "end": 3, "perspective": 0}, {"start": 4, "end": 7, "perspective": 1}]),
            json!([{"start": 0, "end": 5, "perspective": 0}, {"start": 4, "end": 7, "perspective": 1}]),
            json!([{"start": 2, "end": 99, "perspective": 0}]),
            json!([{"start": 5, "end": 2, "perspective": 0}]),
        ] {
            let parts = parts(&trace(0, 0.0, json!({ "segments": segments })));
            assert_eq!(parts.iter().map(|part| part.text.as_str()).collect::<String>(), "one two", "{segments}");
        }
    }
}
