//! The same problems answered under several conditions: a direction and a strength each.
//!
//! The conditions of a problem are samples of one prompt, so that they are rows of one batch, and all of them draw the
//! same random numbers: what differs between two of them is the condition alone. Those of strength 0 are drawn as
//! `ppo-train eval` draws them.

use super::direction::Direction;
use crate::Stopped;
use crate::env::{Environment, Prompt};
use crate::model::Policy;
use crate::plan::Plan;
use crate::recipe::Decoding;
use crate::rng::{self, Purpose};
use crate::rollout::{Engine, Sampling, Steering, Stop};
use crate::train::rollouts::{Rollout, grade};
use anyhow::Result;

/// Responses at a time, if a recipe does not bound them.
const TOGETHER: usize = 256;

/// Who answers, and how.
pub struct Setting<'a> {
    pub policy: &'a Policy,
    pub plan: &'a Plan,
    pub env: &'a Environment,
    pub decoding: Decoding,
    /// The layer after which directions are added, from 0.
    pub layer: usize,
    /// From which token on those of prompts are steered too; none: only those of responses are.
    pub prompt_from: Option<usize>,
    /// Asked between tokens whether to go on.
    pub goes_on: &'a dyn Fn() -> bool,
}

/// One way to answer all problems.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Condition {
    /// Which of the directions.
    pub direction: usize,
    /// As it is shown, in the unit of the strengths.
    pub strength: f64,
    /// What the direction is multiplied by.
    pub factor: f64,
}

/// The answers under a condition, problem by problem, [P].
pub struct Answers {
    pub condition: Condition,
    pub rollouts: Vec<Rollout>,
}

impl Setting<'_> {
    /// Lets all conditions answer all problems, and gives `take` the answers under some conditions at a time, in their
    /// order.
    ///
    /// # Errors
    /// Bad input: directions that do not fit the model. `Stopped` if `goes_on` says no. Those of `take`.
    pub fn answer(
        &self,
        prompts: &[Prompt],
        directions: &[Direction],
        conditions: &[Condition],
        mut take: impl FnMut(Vec<Answers>) -> Result<()>,
    ) -> Result<()> {
        let rollout = &self.plan.recipe.rollout;
        // A batch holds whole prompts, each with all conditions of a group. No response depends on how many there are.
        let batch = if rollout.batch == 0 { TOGETHER } else { rollout.batch };
        let together = batch.min((TOGETHER / prompts.len().max(1)).max(1));
        for group in conditions.chunks(together) {
            let vectors: Vec<&[f32]> = directions.iter().map(|direction| direction.vector.as_slice()).collect();
            let own: Vec<(usize, f64)> =
                group.iter().map(|condition| (condition.direction, condition.factor)).collect();
            let config = &self.policy.config;
            let steering = Steering::new(config, self.layer, &vectors, own.repeat(prompts.len()), self.prompt_from)?;
            // As without steering, if nothing is added.
            let is_steered = group.iter().any(|condition| condition.factor != 0.0);
            let engine = Engine {
                policy: self.policy,
                sampling: match self.decoding {
                    Decoding::Greedy => Sampling::greedy(),
                    Decoding::Sampled => Sampling::plain(),
                },
                stop: Stop { ends: &|_, ids| self.env.ends_at(ids), max_tokens: rollout.max_response_tokens },
                vocabulary: self.env.tokenizer.vocab_size().min(self.plan.config.vocab_size),
                batch: batch.max(group.len()),
                goes_on: self.goes_on,
                steering: is_steered.then_some(&steering),
            };
            let ids: Vec<&[i64]> = prompts.iter().map(|prompt| &*prompt.ids).collect();
            let stream = |problem: usize, _| rng::stream(self.plan.recipe.seed, Purpose::Evaluation, 0, problem as u64);
            let responses = engine.generate(&ids, group.len(), stream, |_| ());
            if !(self.goes_on)() {
                return Err(Stopped("nothing is kept but what an endpoint answered, with --answers").into());
            }
            let empty =
                |condition: &Condition| Answers { condition: *condition, rollouts: Vec::with_capacity(prompts.len()) };
            let mut answers: Vec<Answers> = group.iter().map(empty).collect();
            for (at, rollout) in grade(self.env, prompts, responses)?.into_iter().enumerate() {
                answers[at % group.len()].rollouts.push(rollout);
            }
            take(answers)?;
        }
        Ok(())
    }
}
