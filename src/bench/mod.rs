//! How fast this machine does the work of a PPO step: the stages of the training loop on made-up tokens.
//!
//! Decided: what is measured is the code that trains (engine, batch, estimates, updates), on models with random weights
//! and prompts of random ids, since the time depends on shapes alone. Responses end at lengths that are drawn once, so
//! that two programs, or two versions of this one, do the same work.

mod growth;
mod profile;
mod report;
mod work;

pub use growth::{Growth, grow};
pub use profile::{STAGES, Spent};
pub use report::{Measured, Peak, Stage};
pub use work::{Tokens, Work};

use crate::dist::Solo;
use crate::model::{Head, Policy, Weights};
use crate::plan::{Plan, measured_peak};
use crate::recipe::Ppo;
use crate::rng::{self, Purpose};
use crate::rollout::{Engine, Response, Sampling, Stop};
use crate::torch::{Profile, device_memory, most_resident_bytes};
use crate::train::batch::{Batch, Sequence, in_rows};
use crate::train::clock::Clock;
use crate::train::estimates::estimate;
use crate::train::experience::{Scored, experience};
use crate::train::learner::Models;
use crate::train::operations::Counted;
use crate::train::update::{StepSettings, Updates};
use anyhow::{Context, Result};
use rand::RngExt;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How long each product of the ceiling is measured.
const CEILING: Duration = Duration::from_millis(400);

/// The models of a plan with random weights, and what they work on.
pub struct Bench<'a> {
    plan: &'a Plan,
    ppo: &'a Ppo,
    work: Work,
    models: Models,
    prompts: Vec<Arc<[i64]>>,
    /// Tokens of each response.
    lengths: Vec<usize>,
}

impl<'a> Bench<'a> {
    /// Allocates the models.
    ///
    /// # Errors
    /// Bad input: a device that is not there. Those of libtorch.
    pub fn new(plan: &'a Plan, work: Work) -> Result<Self> {
        let ppo = plan.recipe.ppo.as_ref().context("a plan without PPO has no step")?;
        let (config, device) = (&plan.config, plan.device()?);
        let weights = Weights::random(config, Head::Language, plan.kind(), device, plan.recipe.seed)?;
        let models = Models::new(plan, ppo, Policy::new(config, weights), &Solo);
        let mut rng = rng::stream(plan.recipe.seed, Purpose::Problems, 0, 0);
        let vocabulary = config.vocab_size;
        let lengths = |rng: &mut _, count, tokens: Tokens| (0..count).map(|_| tokens.draw(rng)).collect::<Vec<_>>();
        let prompts = lengths(&mut rng, work.prompts, work.prompt_tokens);
        let prompts = prompts.into_iter().map(|tokens| (0..tokens).map(|_| rng.random_range(0..vocabulary)).collect());
        let prompts = prompts.collect();
        let lengths = lengths(&mut rng, work.prompts * work.samples, work.response_tokens);
        Ok(Self { plan, ppo, work, models, prompts, lengths })
    }

    /// The shapes of the work for programs that do the same (scripts/peer_step.py): tokens of each prompt and of each
    /// response, those to a prompt side by side.
    pub fn shapes(&self) -> Value {
        json!({
            "prompts": self.prompts.iter().map(|prompt| prompt.len()).collect::<Vec<_>>(),
            "responses": self.lengths,
            "precision": self.plan.recipe.machine.precision,
            "micro_batch_tokens": self.ppo.micro_batch_tokens,
        })
    }

    /// Measures `steps` steps, after one that is not counted; `watch` is called after each.
    ///
    /// # Errors
    /// Those of a step.
    pub fn measure(&mut self, steps: usize, mut watch: impl FnMut(&Clock)) -> Result<Measured> {
        watch(&self.step(|_| Ok(()))?);
        let mut clocks = Vec::with_capacity(steps);
        for _ in 0..steps {
            let clock = self.step(|_| Ok(()))?;
            watch(&clock);
            clocks.push(clock);
        }
        let (config, kind, device) = (&self.plan.config, self.plan.kind(), self.plan.device()?);
        // The ceiling takes memory of its own.
        let peak = Peak { host: most_resident_bytes(), gpu: device_memory(device).map(|memory| memory.most_taken) };
        let gemm = measured_peak(config, kind, device, CEILING)?;
        let responses = self.lengths.chunks(self.work.samples);
        let counted = Counted::of(config, self.prompts.iter().map(|prompt| prompt.len()).zip(responses));
        Ok(Measured::new(&clocks, &counted, gemm, peak))
    }

    /// One more step, with the time that each kind of operation took in its stages.
    ///
    /// # Errors
    /// Those of a step.
    pub fn profile(&mut self) -> Result<Spent> {
        let mut spent = Spent::default();
        let device = self.plan.device()?;
        let mut profile = Some(Profile::start(device)?);
        self.step(|stage| {
            if let Some(done) = profile.take() {
                spent.add(stage, done.read()?);
            }
            // Nothing comes after the last one.
            profile = STAGES.last().is_some_and(|last| *last != stage).then(|| Profile::start(device)).transpose()?;
            Ok(())
        })?;
        Ok(spent)
    }

    /// One step, as `train::ppo` does it; `watch` is called after each of `STAGES`.
    fn step(&mut self, mut watch: impl FnMut(&'static str) -> Result<()>) -> Result<Clock> {
        let (ppo, temperature) = (self.ppo, self.plan.recipe.rollout.temperature);
        let mut clock = Clock::start().on(self.models.actor.model.device());
        let responses = self.roll_out();
        clock.lap("gen");
        watch(STAGES[0])?;
        let prompts = self.prompts.iter().flat_map(|prompt| std::iter::repeat_n(prompt, self.work.samples));
        let sequences = prompts.zip(responses);
        let sequences =
            sequences.map(|(prompt, Response { ids, .. })| Sequence { prompt: prompt.clone(), response: ids });
        let sequences: Vec<Sequence> = sequences.collect();
        let all: Vec<&Sequence> = sequences.iter().collect();
        let batch = Batch::new(&all, ppo.micro_batch_tokens, self.models.actor.model.device(), &Solo);
        let batch = batch.packed(in_rows(ppo.packing, &self.models.actor.model.decoder, &Solo)?);
        let estimates = estimate(&self.models, &batch, temperature, &mut clock)?;
        let scored = Scored {
            scores: &(0..all.len()).map(|i| (i % 2) as f32).collect::<Vec<_>>(),
            lengths: &batch.lengths(0..all.len()),
            group: self.work.samples,
            kl_coef: ppo.kl_coef,
        };
        let experience = experience(ppo, &scored, estimates);
        clock.lap("adv");
        watch(STAGES[1])?;
        let settings =
            StepSettings { actor_lr: ppo.actor_lr, critic_lr: ppo.critic_lr, kl_coef: ppo.kl_coef, temperature };
        let updates = Updates { ppo, settings, batch: &batch, experience: &experience };
        updates.critic(&mut self.models, false, &mut vec![])?;
        clock.lap("update_critic");
        watch(STAGES[2])?;
        updates.actor(&mut self.models, &mut vec![])?;
        clock.lap("update_actor");
        watch(STAGES[3])?;
        Ok(clock)
    }

    /// Responses of the lengths that were drawn.
    fn roll_out(&self) -> Vec<Response> {
        let Self { plan, work, lengths, .. } = self;
        let rollout = &plan.recipe.rollout;
        let engine = Engine {
            policy: &self.models.actor.model,
            sampling: Sampling {
                temperature: rollout.temperature,
                top_p: rollout.top_p,
                top_k: rollout.top_k as i64,
                greedy: false,
            },
            stop: Stop { ends: &|row, ids| ids.len() >= lengths[row], max_tokens: work.response_tokens.most },
            vocabulary: plan.config.vocab_size,
            batch: rollout.batch,
            goes_on: &|| true,
            steering: None,
        };
        let stream =
            |p: usize, s: usize| rng::stream(plan.recipe.seed, Purpose::Rollout, 0, (p * work.samples + s) as u64);
        engine.generate(&self.prompts, work.samples, stream, |_| ())
    }
}
