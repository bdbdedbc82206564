//! Example traces, with the parts of each perspective marked.

use super::hooks::done;
use crate::checkpoint::RunFolder;
use crate::hooks::persona::{self, Judged};
use crate::hooks::schedule::PERSONA;
use anyhow::Result;
use serde::Serialize;

/// A trace to show.
#[derive(Serialize)]
pub struct Example {
    pub step: usize,
    pub problem: String,
    pub reward: f64,
    pub verdict: String,
    pub perspectives: usize,
    pub parts: Vec<Part>,
}

/// A piece of a trace; `voice` is the number of its perspective from 1, 0 for none.
#[derive(Serialize)]
pub struct Part {
    pub voice: usize,
    pub text: String,
}

/// The first `count` judged traces at the first and the last judged step of a run.
///
/// # Errors
/// A file of judged traces that cannot be read.
pub fn read(run: &RunFolder, count: usize) -> Result<Vec<Example>> {
    let judged: Vec<_> = done(run)?.into_iter().filter(|job| job.hook == PERSONA).collect();
    let ends = judged.first().into_iter().chain(judged.last().filter(|_| judged.len() > 1));
    let mut all = vec![];
    for job in ends {
        let judged = persona::read(&job.folder(run))?;
        all.extend(judged.into_iter().take(count).map(|judged| example(job.step, judged)));
    }
    Ok(all)
}

fn example(step: usize, judged: Judged) -> Example {
    let judgement = judged.judgement.unwrap_or_default();
    let mut parts = vec![];
    let mut at = 0;
    let mut push = |voice: usize, from: usize, to: usize| {
        if let Some(text) = judged.text.get(from..to).filter(|text| !text.is_empty()) {
            parts.push(Part { voice, text: text.into() });
        }
    };
    for segment in &judgement.segments {
        push(0, at, segment.start);
        push(segment.perspective + 1, segment.start, segment.end);
        at = segment.end;
    }
    push(0, at, judged.text.len());
    Example {
        step,
        problem: judged.problem,
        reward: judged.reward,
        verdict: judged.verdict,
        perspectives: judgement.perspectives.map_or(0, |all| all.len()),
        parts,
    }
}
