//! The warm start: supervised fine-tuning with the loss on the responses only.

use super::batch::{Batch, Sequence, in_rows};
use super::descent::{OptimizerStep, Sums, descend};
use super::estimates::log_probs;
use super::learner::Learner;
use super::not_finite::explain;
use super::pulse::{Phase, Pulse};
use crate::Stopped;
use crate::algo::aggregate::token_mean;
use crate::algo::schedule;
use crate::checkpoint::{RunFolder, tolerate};
use crate::dist::Comm;
use crate::metrics::{Metrics, Record, Stage};
use crate::model::Policy;
use crate::recipe::Sft;
use crate::rng::{self, Purpose};
use crate::terminal::{Progress, counted};
use crate::torch::AdamWStep;
use anyhow::{Error, Result};
use rand::seq::SliceRandom;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ops::Range;
use std::time::{Duration, Instant};
use tch::Kind;

/// The defaults of torch.optim.AdamW.
const BETAS: [f64; 2] = [0.9, 0.999];
const EPS: f64 = 1e-8;

/// The rows of the warm start, tokenised.
pub struct Rows {
    pub train: Vec<Sequence>,
    pub validation: Vec<Sequence>,
}

impl Rows {
    /// Their numbers and lengths in one line.
    pub fn summary(&self) -> String {
        let [training, validation] =
            [counted(self.train.len(), "training row"), counted(self.validation.len(), "validation row")];
        let (fewest, most, mean) = self.tokens();
        format!("warm start: {training} and {validation} of {fewest} to {most} tokens, {mean:.0} on average")
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let (fewest, most, mean) = self.tokens();
        json!({
            "training": self.train.len(),
            "validation": self.validation.len(),
            "tokens": { "fewest": fewest, "most": most, "mean": mean },
        })
    }

    /// The fewest, the most and the mean tokens of all rows.
    fn tokens(&self) -> (usize, usize, f64) {
        let all = || self.train.iter().chain(&self.validation).map(Sequence::tokens);
        let mean = all().sum::<usize>() as f64 / all().count().max(1) as f64;
        (all().min().unwrap_or(0), all().max().unwrap_or(0), mean)
    }
}

/// A warm start.
pub struct WarmStart<'a> {
    pub sft: &'a Sft,
    pub seed: u64,
    pub rows: &'a Rows,
    pub comm: &'a dyn Comm,
    pub pulse: &'a Pulse<'a>,
    /// What an interrupted warm start has behind it.
    pub done: Done,
    pub folder: &'a RunFolder,
    /// The text of a row.
    pub text: &'a dyn Fn(&Sequence) -> String,
    /// Keeps what has been learnt; called by all ranks.
    pub keep: &'a dyn Fn(&Done, &Learner<Policy>) -> Result<()>,
}

/// How far a warm start has come.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Done {
    #[serde(rename = "sft_steps")]
    pub steps: usize,
    /// The figures of the last of them, if it was interrupted in its validation: they are not recorded yet.
    #[serde(default)]
    pub unrecorded: Vec<(String, f64)>,
}

impl Done {
    fn steps(steps: usize) -> Self {
        Self { steps, ..Self::default() }
    }
}

/// Epochs that end so soon after what was learnt has been kept do not keep it again.
const KEPT_FOR: Duration = Duration::from_secs(600);

impl WarmStart<'_> {
    /// Trains `learner` on the rows: epochs of shuffled batches, a warm-up, a cosine to zero.
    ///
    /// # Errors
    /// `Stopped` on a signal, once what has been learnt is kept; `NotFinite`; those of `keep`.
    pub fn train(&self, learner: &mut Learner<Policy>, metrics: &mut Metrics) -> Result<()> {
        let Self { sft, rows, comm, pulse, .. } = *self;
        let steps_per_epoch = rows.train.len().div_ceil(sft.batch);
        let total = steps_per_epoch * sft.epochs;
        let warmup = (sft.warmup_ratio * total as f64).round() as usize;
        let mut progress = Progress::resumed(self.done.steps as u64, total as u64, "warm start");
        let (mut done, mut kept, mut micro_tokens) = (0, Instant::now(), sft.micro_batch_tokens);
        pulse.count(Stage::Sft, self.done.steps, total);
        let packed = in_rows(sft.packing, &learner.model.decoder, comm)?;
        for epoch in 0..sft.epochs {
            let mut order: Vec<&Sequence> = rows.train.iter().collect();
            order.shuffle(&mut rng::stream(self.seed, Purpose::Shuffle, epoch as u64, 0));
            let batch = Batch::new(&order, micro_tokens, learner.model.device(), comm).packed(packed).under(pulse);
            for mini in batch.minis(sft.batch) {
                done += 1;
                let mut record = Record::new(Stage::Sft, done as u64);
                if done < self.done.steps || done == self.done.steps && self.done.unrecorded.is_empty() {
                    continue;
                }
                if done == self.done.steps {
                    self.done.unrecorded.iter().for_each(|(name, value)| record.set(name.clone(), *value));
                } else {
                    let lr = sft.lr * schedule::factor(schedule::cosine, done - 1, warmup, total);
                    match self.step(learner, &batch, mini.clone(), lr, &mut record) {
                        Ok(()) => {}
                        Err(error) if error.is::<Stopped>() => {
                            return self.stop(&Done::steps(done - 1), learner, metrics, error);
                        }
                        Err(error) => return Err(self.explain(error, done, mini, &order)),
                    }
                }
                if done % steps_per_epoch == 0 && !rows.validation.is_empty() {
                    match self.validation_loss(&learner.model, packed) {
                        Ok(loss) => record.set("sft/val_loss", loss),
                        Err(error) if error.is::<Stopped>() => {
                            let figures = record.scalars().map(|(name, value)| (name.to_string(), value)).collect();
                            return self.stop(&Done { steps: done, unrecorded: figures }, learner, metrics, error);
                        }
                        Err(error) => return Err(error),
                    }
                }
                pulse.count(Stage::Sft, done, total);
                progress.step(&record);
                metrics.write(&record);
            }
            micro_tokens = batch.micro_tokens();
            if comm.any(kept.elapsed() > KEPT_FOR)? && done < total {
                metrics.flush();
                let kept_now = (self.keep)(&Done::steps(done), learner);
                tolerate(kept_now, "what the warm start has learnt so far is not kept")?;
                kept = Instant::now();
            }
        }
        Ok(())
    }

    /// Keeps what has been learnt before the warm start stops.
    fn stop(&self, done: &Done, learner: &Learner<Policy>, metrics: &mut Metrics, stopped: Error) -> Result<()> {
        self.pulse.enter(Phase::Saving);
        metrics.flush();
        (self.keep)(done, learner)?;
        Err(stopped)
    }

    /// One step on the rows `mini`; records its figures.
    ///
    /// # Errors
    /// Those of `descend`; the weights are as before.
    fn step(
        &self,
        learner: &mut Learner<Policy>,
        batch: &Batch,
        mini: Range<usize>,
        lr: f64,
        record: &mut Record,
    ) -> Result<()> {
        let (sft, started) = (self.sft, Instant::now());
        let hyper = AdamWStep { lr, betas: BETAS, eps: EPS, weight_decay: sft.weight_decay };
        let tokens: usize = batch.sequences[mini.clone()].iter().map(|row| row.tokens()).sum();
        let mut sums = Sums::of(&["sft/loss"], batch.device);
        let Learner { model, optimizer } = learner;
        let mut step = [OptimizerStep { optimizer, max_norm: sft.grad_clip, hyper }];
        let norms = descend(batch, mini, token_mean, &mut step, &mut sums, |micro, weights, sums| {
            let log_probs = model.log_probs(&model.hidden(&micro.tokens), &micro.targets, 1.0);
            let loss = -(log_probs * weights).sum(Kind::Float);
            sums.add("sft/loss", &loss);
            loss
        })?;
        for (name, value) in sums.read(self.comm)? {
            record.set(name, value);
        }
        record.set("sft/lr", lr);
        record.set("sft/grad_norm", norms[0]);
        record.set("sft/tokens_per_s", tokens as f64 / started.elapsed().as_secs_f64());
        Ok(())
    }

    /// An error of a step, with the place of its rows if it is about numbers that are not finite.
    fn explain(&self, error: Error, step: usize, mini: Range<usize>, order: &[&Sequence]) -> Error {
        let known = |at: usize| {
            let Sequence { prompt, response } = order[at];
            let known = json!({ "prompt_ids": &**prompt, "response_ids": response, "text": (self.text)(order[at]) });
            known.as_object().cloned().unwrap_or_default()
        };
        explain(error, format!("step {step} of the warm start"), &self.folder.not_finite(Stage::Sft, step), mini, known)
    }

    /// Mean negative log-prob per response token, in nats.
    fn validation_loss(&self, policy: &Policy, packed: bool) -> Result<f64> {
        let rows: Vec<&Sequence> = self.rows.validation.iter().collect();
        let batch = Batch::new(&rows, self.sft.micro_batch_tokens, policy.device(), self.comm);
        let batch = batch.packed(packed).under(self.pulse);
        Ok(-log_probs(policy, &batch, 1.0)?.mean(Kind::Float).double_value(&[]))
    }
}
