//! The warm start: supervised fine-tuning with the loss on the responses alone.

use super::batch::{Sequence, slots};
use super::experience::log_probs;
use super::learner::Learner;
use super::run::Run;
use super::text::Text;
use super::update::{Batches, Descent, Tally};
use crate::BadInput;
use crate::algo::schedule;
use crate::metrics::console::Progress;
use crate::metrics::{Record, Stage};
use crate::model::Policy;
use crate::recipe::{Aggregation, Plan, Schedule, Sft};
use crate::rng::{self, Purpose};
use crate::task::Split;
use crate::text::traces::{self, Trace};
use crate::torch::AdamWStep;
use anyhow::{Context, Result};
use rand::seq::SliceRandom;
use std::path::Path;
use std::time::Instant;
use tch::Kind;

/// The rows of the warm start, tokenised.
pub struct Rows {
    pub train: Vec<Sequence>,
    pub validation: Vec<Sequence>,
    /// Rows that were cut at the context.
    pub cut: usize,
}

/// Largest result of a step in the solver's traces: three digits that a small tokenizer holds as one token.
const MAX_VALUE: i64 = 199;

/// Reads or writes the traces of `sft` and tokenises them; each response ends with the end-of-text token.
///
/// # Errors
/// Bad input: a file that cannot be read, too few rows, a row without prompt or response.
pub fn rows(plan: &Plan, sft: &Sft, text: &Text) -> Result<Rows> {
    let mut cut = 0;
    let mut tokenise = |traces: Vec<Trace>| -> Result<Vec<Sequence>> {
        traces.iter().map(|trace| sequence(trace, sft, text, &mut cut)).collect()
    };
    let train = tokenise(traces(plan, sft, text, 0, sft.train)?)?;
    let validation = tokenise(match &sft.validation_data {
        Some(path) => read(path, sft.validation)?,
        None if sft.data == SOLVER => traces(plan, sft, text, sft.train, sft.validation)?,
        None => vec![],
    })?;
    Ok(Rows { train, validation, cut })
}

/// `sft.data` of traces that our own solver writes.
const SOLVER: &str = "solver";

/// The training rows of the warm start as text, from the row `first` on: read, or written by the solver.
///
/// # Errors
/// As `rows`.
pub fn traces(plan: &Plan, sft: &Sft, text: &Text, first: usize, count: usize) -> Result<Vec<Trace>> {
    if sft.data != SOLVER {
        return Ok(read(Path::new(&sft.data), first + count)?.split_off(first));
    }
    let task = text.task.countdown().context("sft.data = \"solver\" needs task.kind = \"countdown\"")?;
    let options = traces::SolverOptions { tries: sft.tries, insight: sft.insight, max_value: MAX_VALUE };
    let write = |row: usize| {
        let index = row % text.task.len(Split::Train);
        let prompt = text.prompt(Split::Train, index)?;
        let mut rng = rng::stream(plan.recipe.seed, Purpose::Traces, 0, row as u64);
        let response = traces::solver_trace(task.problem(Split::Train, index), sft.style, &options, &mut rng);
        let response = if prompt.opens_think { traces::after_open_think(&response) } else { &response };
        Ok(Trace { response: response.to_string(), prompt: prompt.text })
    };
    (first..first + count).map(write).collect()
}

fn read(path: &Path, count: usize) -> Result<Vec<Trace>> {
    let traces = traces::read(path, count).map_err(|e| BadInput(format!("{e:#}")))?;
    if traces.len() < count {
        let found = traces.len();
        return Err(BadInput(format!("{} holds {found} rows, the recipe asks for {count}", path.display())).into());
    }
    Ok(traces)
}

fn sequence(trace: &Trace, sft: &Sft, text: &Text, cut: &mut usize) -> Result<Sequence> {
    let prompt = text.tokenizer.encode_prompt(&trace.prompt)?;
    let mut response = text.tokenizer.encode(&trace.response)?;
    response.extend(text.ends.first());
    if prompt.is_empty() || prompt.len() >= sft.context {
        return Err(BadInput(format!(
            "a prompt of {} tokens leaves no room in sft.context = {}",
            prompt.len(),
            sft.context
        ))
        .into());
    }
    if prompt.len() + response.len() > sft.context {
        response.truncate(sft.context - prompt.len());
        *cut += 1;
    }
    Ok(Sequence { prompt, response })
}

/// Trains `learner` on the rows: epochs of shuffled batches, a warm-up, a cosine to zero.
pub fn train(plan: &Plan, sft: &Sft, rows: &Rows, learner: &mut Learner<Policy>, run: &mut Run) -> Result<()> {
    let batches_an_epoch = rows.train.len().div_ceil(sft.batch);
    let total = batches_an_epoch * sft.epochs;
    let warmup = (sft.warmup * total as f64).round() as usize;
    let mut progress = Progress::new(total as u64, "warm start");
    let mut done = 0;
    for epoch in 0..sft.epochs {
        let mut order: Vec<Sequence> = rows.train.clone();
        order.shuffle(&mut rng::stream(plan.recipe.seed, Purpose::Shuffle, epoch as u64, 0));
        let slots = slots(&order);
        let batches = Batches {
            sequences: &order,
            slots: &slots,
            mini: sft.batch,
            micro_tokens: sft.micro_batch_tokens,
            aggregation: Aggregation::TokenMean,
            device: learner.model.device(),
        };
        for batch in batches.minis() {
            run.check_stop()?;
            let started = Instant::now();
            let lr = sft.lr * schedule::factor(Schedule::Cosine, done, warmup, total);
            let hyper = AdamWStep { lr, betas: [0.9, 0.999], eps: 1e-8, weight_decay: sft.weight_decay };
            let tokens: usize = order[batch.clone()].iter().map(Sequence::len).sum();
            let mut tally = Tally::default();
            let Learner { model, optimizer } = &mut *learner;
            let descent = Descent { optimizer, max_norm: sft.grad_clip, hyper };
            let [norm] = batches.descend([descent], batch, |micro, weights| {
                let log_probs = model.log_probs(&model.hidden(&micro.ids, &micro.read), &micro.targets, 1.0);
                let loss = -(log_probs * weights).sum(Kind::Float);
                tally.add("sft/loss", &loss);
                loss
            })?;
            done += 1;
            let mut record = Record::new(Stage::Sft, done as u64);
            for (name, value) in tally.finish() {
                record.set(name, value);
            }
            record.set("sft/lr", lr);
            record.set("sft/grad_norm", norm);
            record.set("sft/tokens_per_s", tokens as f64 / started.elapsed().as_secs_f64());
            if done % batches_an_epoch == 0 && !rows.validation.is_empty() {
                record.set("sft/val_loss", validation_loss(sft, &rows.validation, &learner.model));
            }
            progress.step(&record);
            run.metrics.write(&record);
        }
    }
    Ok(())
}

/// Mean negative log-prob a response token, in nats.
fn validation_loss(sft: &Sft, rows: &[Sequence], policy: &Policy) -> f64 {
    -log_probs(policy, rows, sft.micro_batch_tokens, 1.0).mean(Kind::Float).double_value(&[])
}
