//! Checks of the training: warm start, rollouts, PPO.

use crate::checkpoint::RECORD;
use crate::model::ModelConfig;
use crate::recipe::spelling::{nearest, no_file, similar};
use crate::recipe::{
    Advantage, CriticModel, KlEstimator, KlIn, MOST, Ppo, Rollout, Sft, SftData, Sources, Task, TraceStyle, Warning,
    Watch,
};
use crate::task::settings;
use crate::{BadInput, json};
use serde_json::Value;
use std::path::Path;

pub fn warm_start(sft: &Sft, config: &ModelConfig, at: &Sources) -> Result<(), BadInput> {
    if let Some(from) = &sft.from {
        let nothing = "a finished warm start has no rows\nleave `sft.from` out, or set sft.data = \"unset\"";
        at.ensure(sft.data.is_none(), "sft.from", nothing)?;
        return finished(from).map_err(|what| at.bad("sft.from", what));
    }
    match &sft.data {
        None => {
            let what =
                "missing section `data` in [sft]\n[sft.data] with kind = \"solver\" or \"file\"; or set sft.from";
            return Err(at.bad("sft", what));
        }
        Some(SftData::Solver(solver)) => {
            at.ensure(
                !solver.match_lengths || solver.style == TraceStyle::Monologue,
                "sft.data.match_lengths",
                "only a monologue can be lengthened\nset sft.data.style = \"monologue\", or match_lengths = false",
            )?;
            let [fewest, most] = solver.tries;
            at.ensure(
                1 <= fewest && fewest <= most && most <= 10_000,
                "sft.data.tries",
                format_args!(
                    "`sft.data.tries` is [{fewest}, {most}], expected [fewest, most] with 1 <= fewest <= most <= 10000"
                ),
            )?;
        }
        Some(SftData::File(file)) => {
            let path = &file.path;
            let hint = match nearest(&path.to_string_lossy(), ["solver"]) {
                Some(_) if similar(path).is_empty() => "; did you mean kind = \"solver\"?",
                _ => "",
            };
            let what = format!("{}{hint}\nexpected a .jsonl, .json or .parquet file", no_file(path));
            at.ensure(path.is_file(), "sft.data.path", what)?;
            at.ensure(
                file.validation.is_some() || sft.validation == 0,
                "sft.data.path",
                format_args!(
                    "`sft.validation` is {}, but there is no file to read these rows from\n\
                     set sft.data.validation, or sft.validation = 0",
                    sft.validation
                ),
            )?;
            at.ensure(
                !file.match_lengths || file.partner.is_some(),
                "sft.data.match_lengths",
                "there are no partners whose lengths could be matched\nset sft.data.partner, or match_lengths = false",
            )?;
            for (key, path) in
                [("sft.data.partner", &file.partner), ("sft.data.partner_validation", &file.partner_validation)]
            {
                let Some(path) = path else { continue };
                let what = format!("there is no file {}{}", path.display(), similar(path));
                at.ensure(path.is_file(), key, what)?;
            }
            if let Some(path) = &file.validation {
                at.ensure(path.is_file(), "sft.data.validation", no_file(path))?;
                at.ensure(
                    *path != file.path,
                    "sft.data.validation",
                    "the file of sft.data.path again: the loss would be validated on the rows that are trained on",
                )?;
            }
        }
    }
    at.ensure(
        sft.batch <= sft.train,
        "sft.batch",
        format_args!("`sft.batch` is {}, more than the {} rows to train on (sft.train)", sft.batch, sft.train),
    )?;
    let context = config.max_position_embeddings;
    at.ensure(
        sft.context as i64 <= context,
        "sft.context",
        format_args!("`sft.context` is {}, but the model's context is {context} tokens", sft.context),
    )?;
    at.ensure(
        sft.micro_batch_tokens >= sft.context,
        "sft.micro_batch_tokens",
        format_args!(
            "a row of {} tokens (sft.context) does not fit in a micro-batch of {}",
            sft.context, sft.micro_batch_tokens
        ),
    )
}

/// Whether a folder is a finished warm start, which its record tells: without one, a model as it was before would pass
/// for a primed one.
///
/// # Errors
/// What it is instead, or lacks.
fn finished(from: &Path) -> Result<(), String> {
    const PLAIN: &str = "expected the `start` folder of a run with [sft]; a model that PPO starts from as it is \
                         belongs into model.path, without [sft]";
    let shown = from.display();
    if !from.join("config.json").is_file() {
        let hint = similar(from);
        return Err(format!("there is no finished warm start {shown}{hint}\nexpected the `start` folder of a run"));
    }
    let record = from.join(RECORD);
    if !record.is_file() {
        return Err(format!(
            "{shown} is a model, but no finished warm start: it has no {RECORD}, which says how it was trained\n{PLAIN}"
        ));
    }
    let record: Value = json::read(&record).map_err(|error| format!("{error:#}").replace('\n', " "))?;
    if record["sft"].is_null() {
        return Err(format!("{shown} had no warm start: its {RECORD} has no `sft`\n{PLAIN}"));
    }
    Ok(())
}

pub fn rollout(rollout: &Rollout, config: &ModelConfig, at: &Sources) -> Result<(), BadInput> {
    let sequences = rollout.prompts_per_step.saturating_mul(rollout.samples_per_prompt);
    at.ensure(
        sequences as u64 <= MOST,
        "rollout.samples_per_prompt",
        format_args!("{sequences} sequences per step, expected at most {MOST}"),
    )?;
    at.ensure(
        rollout.top_k as i128 <= i128::from(config.vocab_size),
        "rollout.top_k",
        format_args!("`rollout.top_k` is {}, but the vocabulary has {} (0: all)", rollout.top_k, config.vocab_size),
    )?;
    let named = !rollout.stop.iter().any(String::is_empty);
    at.ensure(named, "rollout.stop", "a stop string is empty, so every response would end at once")?;
    at.ensure(
        rollout.batch == 0 || rollout.batch >= rollout.samples_per_prompt,
        "rollout.batch",
        format_args!(
            "`rollout.batch` is {}, but the {} samples of a prompt are decoded together",
            rollout.batch, rollout.samples_per_prompt
        ),
    )
}

/// Only checked with PPO: without it nothing is rolled out, and the default lengths may exceed a small context.
pub fn context(rollout: &Rollout, config: &ModelConfig, at: &Sources) -> Result<(), BadInput> {
    let (prompt, response) = (rollout.max_prompt_tokens, rollout.max_response_tokens);
    let context = config.max_position_embeddings;
    at.ensure(
        (prompt + response) as i64 <= context,
        "rollout.max_response_tokens",
        format_args!(
            "{prompt} prompt and {response} response tokens make {}, but the model's context is {context}\n\
             shorten rollout.max_prompt_tokens or rollout.max_response_tokens",
            prompt + response
        ),
    )
}

pub fn ppo_numbers(ppo: &Ppo, at: &Sources) -> Result<(), BadInput> {
    let critic = ppo.needs_critic();
    at.ensure(
        !critic || ppo.value_coef > 0.0,
        "ppo.value_coef",
        "the critic would never learn: `ppo.value_coef` is 0, expected a number above 0",
    )?;
    at.ensure(
        critic || ppo.critic == CriticModel::Separate,
        "ppo.critic",
        "there is no critic to share\nonly advantage = \"gae\" has one; leave `ppo.critic` out",
    )?;
    at.ensure(
        ppo.critic == CriticModel::Separate || ppo.critic_mini_batch.is_none(),
        "ppo.critic_mini_batch",
        "a critic that shares the actor's decoder learns in the actor's mini-batches\n\
         leave `ppo.critic_mini_batch` out, or set ppo.critic = \"separate\"",
    )?;
    for beta in ppo.betas {
        at.ensure(
            (0.0..1.0).contains(&beta),
            "ppo.betas",
            format_args!("`ppo.betas` contains {beta}, expected two numbers of at least 0 and below 1"),
        )?;
    }
    at.ensure(
        ppo.clip_dual == 0.0 || ppo.clip_dual > 1.0,
        "ppo.clip_dual",
        format_args!("`ppo.clip_dual` is {}, expected a number above 1 (usually 3), or 0 for none", ppo.clip_dual),
    )?;
    at.ensure(
        ppo.critic_warmup_steps == 0 || critic,
        "ppo.critic_warmup_steps",
        "there is no critic to warm up\nonly advantage = \"gae\" has one; set critic_warmup_steps = 0",
    )?;
    at.ensure(
        ppo.critic_warmup_steps < ppo.steps,
        "ppo.critic_warmup_steps",
        format_args!(
            "the actor would never learn: only the critic learns for {} of {} steps",
            ppo.critic_warmup_steps, ppo.steps
        ),
    )
}

pub fn batches(ppo: &Ppo, rollout: &Rollout, task: &Task, at: &Sources) -> Result<(), BadInput> {
    let (prompts, samples) = (rollout.prompts_per_step, rollout.samples_per_prompt);
    let sequences = prompts * samples;
    let critic = ppo.critic_mini_batch.filter(|_| ppo.needs_critic()).map(|size| ("ppo.critic_mini_batch", size));
    for (key, size) in [("ppo.mini_batch", ppo.mini_batch)].into_iter().chain(critic) {
        if sequences % size != 0 {
            let small = (1..=sequences.isqrt()).filter(|n| sequences % n == 0);
            let fitting: Vec<usize> = small.flat_map(|n| [n, sequences / n]).collect();
            let below = fitting.iter().filter(|n| **n < size).max().map(usize::to_string);
            let above = fitting.iter().filter(|n| **n > size).min().map(usize::to_string);
            let near: Vec<String> = below.into_iter().chain(above).collect();
            let what = format!(
                "a step has {sequences} sequences ({prompts} prompts x {samples} samples), not a multiple of {size}"
            );
            return Err(at.bad(key, format!("{what}\nthe nearest size that fits: {}", near.join(" or "))));
        }
    }
    if ppo.advantage != Advantage::Gae && samples < 2 {
        let name = if ppo.advantage == Advantage::Grpo { "grpo" } else { "rloo" };
        return Err(at.bad(
            "rollout.samples_per_prompt",
            format!(
                "advantage = \"{name}\" compares the samples of a prompt, but there is only one per prompt\n\
                 set rollout.samples_per_prompt to 2 or more, or ppo.advantage = \"gae\""
            ),
        ));
    }
    let [train, ..] = settings(task).sizes();
    at.ensure(
        prompts <= train,
        "rollout.prompts_per_step",
        format_args!("{prompts} prompts per step, but there are only {train} training problems (task.train)"),
    )?;
    let longest = rollout.max_prompt_tokens + rollout.max_response_tokens;
    at.ensure(
        ppo.micro_batch_tokens >= longest,
        "ppo.micro_batch_tokens",
        format_args!(
            "a sequence of {longest} tokens (max_prompt_tokens + max_response_tokens) exceeds a micro-batch of {}",
            ppo.micro_batch_tokens
        ),
    )
}

pub fn kl(ppo: &Ppo, at: &Sources) -> Result<(), BadInput> {
    if ppo.kl_target > 0.0 {
        at.ensure(
            ppo.kl_in == KlIn::Reward,
            "ppo.kl_target",
            "only a KL penalty in the reward can adapt to a target\nset kl_in = \"reward\", or kl_target = 0",
        )?;
        at.ensure(
            ppo.kl_coef > 0.0,
            "ppo.kl_coef",
            "the adaptive coefficient starts at kl_coef and is scaled: from 0 it never moves",
        )?;
    }
    at.ensure(
        ppo.kl_in != KlIn::Loss || ppo.kl_estimator != KlEstimator::K1 || ppo.kl_coef == 0.0,
        if at.has("ppo.kl_estimator") { "ppo.kl_estimator" } else { "ppo.kl_in" },
        "the gradient of k1 in the loss is 0 on average, so nothing would hold the actor back\n\
         set kl_estimator = \"k2\" or \"k3\", or kl_in = \"reward\"",
    )
}

pub fn watch(watch: &Watch, ppo: &Ppo, at: &Sources) -> Result<(), BadInput> {
    for warning in &watch.stop {
        let name = warning.name();
        let off = match warning {
            Warning::KlHigh if !ppo.needs_reference() => "there is no reference: `ppo.kl_in` is \"off\"".to_string(),
            Warning::CriticMisleads if !ppo.needs_critic() => "there is no critic".to_string(),
            _ if !watch.has(*warning) => format!("`watch.{name}` is 0"),
            _ => continue,
        };
        let what = format!("the warning `{name}` cannot stop the run, since it is off: {off}");
        return Err(at.bad("watch.stop", what));
    }
    Ok(())
}
