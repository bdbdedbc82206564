//! The warm start: supervised fine-tuning with the loss on the responses alone.

use super::batch::{Sequence, slots};
use super::experience::log_probs;
use super::learner::Learner;
use super::stop::Stop;
use super::update::{Batches, Descent, Tally};
use crate::algo::schedule;
use crate::metrics::{Metrics, Record, Stage};
use crate::model::Policy;
use crate::plan::Plan;
use crate::recipe::{Aggregation, Schedule, Sft};
use crate::rng::{self, Purpose};
use crate::terminal::Progress;
use crate::torch::AdamWStep;
use anyhow::Result;
use rand::seq::SliceRandom;
use std::time::Instant;
use tch::Kind;

/// The rows of the warm start, tokenised.
pub struct Rows {
    pub train: Vec<Sequence>,
    pub validation: Vec<Sequence>,
    /// Rows that were cut at the context.
    pub cut: usize,
}

/// Trains `learner` on the rows: epochs of shuffled batches, a warm-up, a cosine to zero.
pub fn train(
    plan: &Plan,
    sft: &Sft,
    rows: &Rows,
    learner: &mut Learner<Policy>,
    metrics: &mut Metrics,
    stop: &Stop,
) -> Result<()> {
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
            stop.check()?;
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
            metrics.write(&record);
        }
    }
    Ok(())
}

/// Mean negative log-prob a response token, in nats.
fn validation_loss(sft: &Sft, rows: &[Sequence], policy: &Policy) -> f64 {
    -log_probs(policy, rows, sft.micro_batch_tokens, 1.0).mean(Kind::Float).double_value(&[])
}
