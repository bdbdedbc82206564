//! Whether the personas of a trace are distinct inside the model: the residual stream over the segments that a judge
//! attributes to each voice (`stats::distinct`). Segments are lines of `segments.jsonl` in the job's folder, and
//! `vectors.safetensors` has the contrast of the two voices, which `steer` can add.
//!
//! | figure | what it is |
//! |---|---|
//! | `distance/between` | how much farther apart voices are than segments of one, at equal gap and length |
//! | `probe/accuracy` | balanced accuracy of a linear probe that tells the first voice from the second |
//! | `.../chance`, `.../p` | the same with voices permuted within their traces: mean, and one-sided p |
//! | `contrast/norm` | length of the mean difference of the two voices, in typical lengths of a matched vector |
//! | `contrast/split_half` | cosine of that difference between two halves of the traces; and by chance |
//! | `contrast/cosine_to_start` | its cosine with that of step 0, if this has been judged |
//! | `traces`, `segments` | traces with two voices of which one speaks twice, and their segments |

use super::identity::of_responses;
use super::judges::{Panel, identities};
use super::outcome::Outcome;
use super::schedule::Job;
use crate::checkpoint::{RunFolder, read_tensors, save_tensors, write_text};
use crate::env::{Environment, Prompt};
use crate::judge::{self, Trace};
use crate::model::Policy;
use crate::plan::Plan;
use crate::recipe::{Decoding, Distinct};
use crate::sae::{Residuals, Text};
use crate::stats::distinct::{self, Segment, Tested, cosine};
use crate::stats::{Figure, Place};
use crate::task::{Split, in_words};
use crate::text::Tokenizer;
use crate::torch::{on_device, to_host};
use crate::train::evaluate::evaluate;
use crate::train::pulse::Pulse;
use crate::train::rollouts::Rollout;
use anyhow::Result;
use serde_json::{Value, json};
use std::path::Path;
use tch::Kind;

/// The file of segments.
const SEGMENTS: &str = "segments.jsonl";
/// The file of the contrast.
const VECTORS: &str = "vectors.safetensors";
/// Its tensor, [H].
const CONTRAST: &str = "contrast";
/// A segment of fewer tokens says nothing.
const FEWEST_TOKENS: usize = 3;

/// The layer, from 0, after which the residual stream is read.
fn layer(plan: &Plan, settings: &Distinct) -> usize {
    settings.layer.unwrap_or(plan.config.num_hidden_layers as usize / 2)
}

/// Looks at the voices that `open`'s judge finds in the policy's responses.
///
/// # Errors
/// Those of the judge.
pub fn look(
    plan: &Plan,
    settings: &Distinct,
    (policy, pulse): (&Policy, &Pulse),
    open: impl FnOnce() -> Result<Panel>,
    (job, run, folder): (&Job, &RunFolder, &Path),
) -> Result<Outcome> {
    let env = Environment::of(plan)?;
    let evaluation = evaluate(policy, plan, &env, Split::Validation, settings.traces, Decoding::Sampled, pulse)?;
    let (judge, _) = open()?;
    let trace = |(prompt, rollout): (&Prompt, &Rollout)| Trace {
        problem: in_words(&env.task.variables(prompt.split, prompt.index)),
        text: rollout.text.clone(),
    };
    let traces: Vec<Trace> = evaluation.prompts.iter().zip(&evaluation.rollouts).map(trace).collect();
    let judgements = judge.judge(&traces)?;
    let residuals = Residuals { policy, layer: layer(plan, settings) };
    let mut segments: Vec<Segment> = vec![];
    let mut missing = 0;
    for (text, (rollout, judgement)) in evaluation.rollouts.iter().zip(judgements).enumerate() {
        let Ok(judgement) = judgement else {
            missing += 1;
            continue;
        };
        let said = said(&env.tokenizer, &rollout.sequence.response, &judgement.segments)?;
        if !said.is_empty() {
            segments.extend(means(&residuals, rollout, text, &said));
        }
    }
    let lines = segments.iter().map(|one| {
        let Segment { text, voice, start, tokens, .. } = one;
        json!({ "index": text, "voice": voice, "start": start, "tokens": tokens }).to_string() + "\n"
    });
    write_text(&folder.join(SEGMENTS), &lines.collect::<String>())?;
    let found = distinct::distinct(&segments, settings.permutations, plan.recipe.seed);
    let mut figures = figures(&found);
    if let Some(contrast) = &found.contrast {
        let vector = tch::Tensor::from_slice(&contrast.vector);
        save_tensors(&folder.join(VECTORS), &[(CONTRAST, vector)])?;
        let start = contrast_of(run, job).filter(|start| start.len() == contrast.vector.len());
        figures.extend(start.map(|start| Figure::plain("contrast/cosine_to_start", cosine(&contrast.vector, &start))));
    }
    let blind = judge.cannot_see().map(str::to_string);
    Ok(Outcome {
        hook: job.hook.clone(),
        step: job.step,
        identity: identity(plan, settings)?,
        summary: summary(&found, traces.len()),
        missing: (missing > 0).then(|| format!("{missing} of {} traces are not judged", traces.len())),
        notes: blind.into_iter().chain([format!("residual stream after layer {}", residuals.layer)]).collect(),
        figures,
    })
}

/// What a result depends on besides the checkpoint.
///
/// # Errors
/// Those of the judge, and a prompt template that cannot be read.
pub fn identity(plan: &Plan, settings: &Distinct) -> Result<Value> {
    let mut identity = of_responses(plan, Decoding::Sampled)?;
    identity.insert("judge".into(), identities(&settings.judge)?.0);
    identity.insert("traces".into(), json!(settings.traces));
    identity.insert("layer".into(), json!(layer(plan, settings)));
    identity.insert("permutations".into(), json!(settings.permutations));
    Ok(identity.into())
}

/// What one voice says in a row: the voice, and the tokens, which have gaps where tags or others' words stand between.
type Said = (usize, Vec<usize>);

/// The tokens of each voice's segments, in order, those alone that are in a segment from end to end.
fn said(tokenizer: &Tokenizer, ids: &[i64], segments: &[judge::Segment]) -> Result<Vec<Said>> {
    // Where in the text each token begins, and ends.
    let mut streaming = tokenizer.streaming(&[]);
    let mut spans = Vec::with_capacity(ids.len());
    let mut bytes = 0;
    for id in ids {
        let start = bytes;
        bytes += streaming(*id)?.len();
        spans.push(start..bytes);
    }
    let mut all: Vec<Said> = vec![];
    for segment in segments {
        let first = spans.partition_point(|span| span.start < segment.start);
        let end = spans.partition_point(|span| span.end <= segment.end).max(first);
        match all.last_mut() {
            Some((voice, tokens)) if *voice == segment.perspective => tokens.extend(first..end),
            _ => all.push((segment.perspective, (first..end).collect())),
        }
    }
    all.retain(|(_, tokens)| tokens.len() >= FEWEST_TOKENS);
    Ok(all)
}

/// The segments of a response, with the means of its residual stream.
fn means(residuals: &Residuals, rollout: &Rollout, text: usize, said: &[Said]) -> Vec<Segment> {
    let (prompt, response) = (&rollout.sequence.prompt, &rollout.sequence.response);
    let whole = Text { ids: [prompt, response.as_slice()].concat(), first: prompt.len(), row: 0 };
    let stream = residuals.of(&[&whole]).to_kind(Kind::Float); // [response, H]
    // One row of weights for each segment.
    let width = response.len();
    let mut weights = vec![0f32; said.len() * width];
    for (row, (_, tokens)) in weights.chunks_mut(width).zip(said) {
        tokens.iter().for_each(|token| row[*token] = 1.0 / tokens.len() as f32);
    }
    let weights = on_device(&weights, stream.device()).view([said.len() as i64, width as i64]);
    let vectors = to_host(&weights.matmul(&stream));
    let hidden = vectors.len() / said.len();
    let segment = |((voice, tokens), vector): (&Said, &[f32])| Segment {
        text,
        voice: *voice,
        start: tokens[0],
        tokens: tokens.len(),
        vector: vector.to_vec(),
    };
    said.iter().zip(vectors.chunks(hidden)).map(segment).collect()
}

/// The contrast that this hook found at step 0.
fn contrast_of(run: &RunFolder, job: &Job) -> Option<Vec<f32>> {
    let start = Job { step: 0, hook: job.hook.clone() };
    let whole = job.step > 0 && start.is_done(run);
    let tensors = whole.then(|| read_tensors(&start.folder(run).join(VECTORS)).ok())??;
    tensors.get(CONTRAST).map(to_host)
}

fn figures(found: &distinct::Distinct) -> Vec<Figure> {
    let tested = |name: &str, value: &str, tested: Option<Tested>| {
        let Tested { value: own, chance, p } = tested?;
        let named = |part: &str, number| Figure::plain(format!("{name}/{part}"), number);
        Some([named(value, own), named("chance", chance), named("p", p)])
    };
    let counts = [("traces", found.texts), ("segments", found.segments)];
    let mut figures: Vec<Figure> = counts.map(|(name, count)| Figure::plain(name, count as f64)).into();
    figures.extend(tested("distance", "between", found.distance).into_iter().flatten());
    figures.extend(tested("probe", "accuracy", found.probe).into_iter().flatten());
    if let Some(contrast) = &found.contrast {
        figures.push(Figure::plain("contrast/norm", contrast.norm));
        figures.extend(tested("contrast", "split_half", Some(contrast.split_half)).into_iter().flatten());
    }
    figures
}

fn summary(found: &distinct::Distinct, traces: usize) -> String {
    if found.texts == 0 {
        return format!("none of {traces} traces has two voices of which one speaks twice");
    }
    let shown = |what: &str, tested: &Option<Tested>| {
        tested.as_ref().map(|one| format!("{what} {:.3} (by chance {:.3}, p = {:.3})", one.value, one.chance, one.p))
    };
    let parts = [shown("distance between voices", &found.distance), shown("probe", &found.probe)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    format!("{} of {traces} traces with voices: {}", found.texts, parts.join(", "))
}

/// In which picture a figure is shown.
pub fn place(name: &str) -> Option<Place> {
    match name {
        "distance/between" => Some(Place::new("Distance between voices inside", "between", "mean distances", true)),
        "distance/chance" => Some(Place::new("Distance between voices inside", "by chance", "mean distances", false)),
        "probe/accuracy" => Some(Place::new("Voices told apart by a probe", "probe", "balanced accuracy, %", true)),
        "probe/chance" => Some(Place::new("Voices told apart by a probe", "by chance", "balanced accuracy, %", false)),
        "contrast/chance" => Some(Place::new("Contrast of two voices", "by chance", "cosine", false)),
        "contrast/split_half" => Some(Place::new("Contrast of two voices", "between halves", "cosine", true)),
        "contrast/cosine_to_start" => Some(Place::new("Contrast of two voices", "with the start's", "cosine", true)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_are_found_among_tokens() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/countdown-base");
        let tokenizer = Tokenizer::from_dir(Path::new(folder)).unwrap();
        let text = "<think1>\n12+5=17 no\n</think1>\n<think2>\n5*12=60 no\n7-5=2\n</think2>";
        let ids = tokenizer.encode(text).unwrap();
        let at = |part: &str, perspective: usize| {
            let start = text.find(part).unwrap();
            judge::Segment { start, end: start + part.len(), perspective }
        };
        let all = [at("12+5=17 no", 0), at("5*12=60 no", 1), at("7-5=2", 1)];
        let words = |tokens: &[usize]| {
            let own: Vec<i64> = tokens.iter().map(|token| ids[*token]).collect();
            tokenizer.decode(&own).unwrap()
        };
        let own: Vec<(usize, String)> =
            said(&tokenizer, &ids, &all).unwrap().iter().map(|(voice, tokens)| (*voice, words(tokens))).collect();
        // What one voice says in a row is one segment; tokens that reach over an end, here into a tag, are left out.
        assert_eq!(own, [(0, "12+5=17".to_string()), (1, "5*12=607-5=2".to_string())]);
        let short = judge::Segment { start: 0, end: 1, perspective: 0 };
        assert!(said(&tokenizer, &ids, &[short]).unwrap().is_empty());
    }

    #[test]
    fn only_what_is_known_has_a_figure() {
        let names = |found: &distinct::Distinct| figures(found).into_iter().map(|one| one.name).collect::<Vec<_>>();
        assert_eq!(names(&distinct::Distinct::default()), ["traces", "segments"]);
        let probe = Some(Tested { value: 0.75, chance: 0.5, p: 0.01 });
        let some = distinct::Distinct { texts: 2, segments: 9, probe, ..distinct::Distinct::default() };
        assert_eq!(names(&some), ["traces", "segments", "probe/accuracy", "probe/chance", "probe/p"]);
        assert_eq!(summary(&some, 4), "2 of 4 traces with voices: probe 0.750 (by chance 0.500, p = 0.010)");
        assert!(summary(&distinct::Distinct::default(), 4).starts_with("none of 4 traces"));
    }
}
