//! What a step writes down: the field's metric names (verl's) for rollouts, estimates, updates and time.

use super::batch::Sequence;
use super::experience::{Experience, Rollouts};
use super::update::{Scalars, mean};
use crate::algo::advantage::explained_variance;
use crate::metrics::Record;
use crate::recipe::{KlIn, Ppo};
use crate::terminal;

/// Scores and lengths of the rollouts; the samples of a prompt lie side by side in groups of `samples`.
pub fn rollouts(record: &mut Record, rollouts: &Rollouts, samples: usize) {
    let count = rollouts.scores.len().max(1) as f64;
    let lengths =
        |of: fn(&Sequence) -> usize| -> Vec<f32> { rollouts.sequences.iter().map(|s| of(s) as f32).collect() };
    let responses = lengths(|s| s.response.len());
    let prompts = lengths(|s| s.prompt.len());
    record.summary("critic/score", &rollouts.scores);
    record.set("reward/accuracy", rollouts.grades.iter().map(|g| g.accuracy).sum::<f64>() / count);
    record.set("reward/format", rollouts.grades.iter().map(|g| g.format).sum::<f64>() / count);
    let flat = rollouts.scores.chunks(samples).filter(|group| group.iter().all(|score| *score == group[0])).count();
    record.set("reward/zero_std_frac", flat as f64 / (count / samples as f64));
    record.summary("response_length", &responses);
    record.summary("prompt_length", &prompts);
    let cut = rollouts.terminated.iter().filter(|t| !**t).count() as f64;
    record.set("response_length/clip_ratio", cut / count);
    let ended: Vec<f32> = responses.iter().zip(&rollouts.terminated).filter(|(_, t)| **t).map(|(l, _)| *l).collect();
    record.set("response_length/terminated_mean", ended.iter().sum::<f32>() as f64 / ended.len().max(1) as f64);
    record.histogram("rollout/scores", rollouts.scores.iter().map(|s| f64::from(*s)).collect());
    record.histogram("rollout/response_length", responses.iter().map(|l| f64::from(*l)).collect());
}

/// Says so when no rollout of the first step holds an answer: such a run cannot learn, and its texts show why.
pub fn warn_when_nothing_answers(rollouts: &Rollouts) {
    if !rollouts.grades.iter().any(|g| g.answered) {
        let count = rollouts.texts.len();
        terminal::warn(&format!(
            "warning: none of the {count} rollouts of the first step holds an answer. Three of them:"
        ));
        for text in rollouts.texts.iter().take(3) {
            // A terminal would obey control characters.
            let shown: String = text.chars().filter(|c| *c == '\n' || !c.is_control()).collect();
            terminal::warn(&format!("---\n{shown}"));
        }
        terminal::warn("---\nthe reward stays zero until one does: a warm start ([sft]) teaches the layout");
    }
}

/// Rewards, estimates and updates of a step.
pub fn learning(
    record: &mut Record,
    ppo: &Ppo,
    xp: &Experience,
    kl_coef: f64,
    rate: f64,
    gap: (f64, f64, f64),
    updates: [&[Scalars]; 2],
) {
    record.summary("critic/rewards", &xp.host.rewards);
    record.summary("critic/advantages", &xp.host.advantages);
    record.summary("critic/returns", &xp.host.returns);
    if xp.values.is_some() {
        record.summary("critic/values", &xp.host.values);
        record.set("critic/vf_explained_var", explained_variance(&xp.host.values, &xp.host.returns));
        record.set("critic/lr", ppo.critic_lr * rate);
    }
    for (name, value) in updates.into_iter().flat_map(mean) {
        record.set(name, value);
    }
    record.set("actor/lr", ppo.actor_lr * rate);
    if ppo.kl_in == KlIn::Reward {
        record.set("actor/reward_kl_penalty", xp.kl);
        record.set("actor/reward_kl_penalty_coeff", kl_coef);
    } else if ppo.kl_in == KlIn::Loss {
        record.set("actor/kl_coef", kl_coef);
    }
    for (name, value) in [("mean", gap.0), ("max", gap.1), ("std", gap.2)] {
        record.set(format!("training/rollout_probs_diff_{name}"), value);
    }
    record.set("training/global_step", record.step as f64);
}
