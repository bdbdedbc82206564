//! Between problems and token ids: prompts rendered and encoded, responses decoded and graded.

use crate::plan::Plan;
use crate::recipe::Reward;
use crate::task::{Grade, Split, Task, grade, layout, settings};
use crate::text::{PromptTemplate, Tokenizer, opens_think};
use crate::{OrBadInput, bad};
use anyhow::{Context, Result};
use std::sync::Arc;

/// Prompts of a split that the preflight renders: as many as take about a second.
const PREFLIGHT_PROMPTS: usize = 10_000;

/// What a policy acts in: a task, and the way from its problems to token ids and back.
pub struct Environment {
    pub task: Box<dyn Task>,
    pub tokenizer: Tokenizer,
    template: PromptTemplate,
    reward: Reward,
    max_prompt_tokens: usize,
    max_response_tokens: usize,
    /// Ids that end a text, as the model declares; the first one ends the warm start's responses.
    pub ends: Vec<i64>,
    /// Ids that end a response: `ends` and the recipe's stop tokens.
    pub stop: Vec<i64>,
}

/// One problem as the model reads it.
pub struct Prompt {
    pub split: Split,
    pub index: usize,
    pub text: String,
    pub ids: Arc<[i64]>,
    pub opens_think: bool,
}

impl Environment {
    /// The environment of a plan, with all problems of its task.
    ///
    /// # Errors
    /// Bad input: problems, a tokenizer or a template that cannot be used; a stop token that is not one.
    pub fn of(plan: &Plan) -> Result<Self> {
        let task = settings(&plan.recipe.task).build(&plan.recipe.reward).bad_input()?;
        Self::new(plan, task)
    }

    /// `of`, with a given task.
    ///
    /// # Errors
    /// As `of`.
    pub fn new(plan: &Plan, task: Box<dyn Task>) -> Result<Self> {
        let recipe = &plan.recipe;
        let tokenizer = Tokenizer::from_dir(&plan.tokenizer_dir)?;
        let (known, rows) = (tokenizer.vocab_size(), plan.config.vocab_size);
        if known > rows {
            let dir = plan.tokenizer_dir.display();
            return Err(bad!("the tokenizer in {dir} has {known} entries, but the model only {rows}"));
        }
        let ends = match plan.config.eos_token_ids.as_slice() {
            [] => tokenizer.eos().to_vec(),
            ids => ids.to_vec(),
        };
        if ends.is_empty() {
            let config = recipe.model.path.join("config.json");
            return Err(bad!("{}: no eos_token_id, so no text would end", config.display()));
        }
        let mut stop = ends.clone();
        for token in &recipe.rollout.stop_tokens {
            let id = tokenizer
                .id(token)
                .ok_or_else(|| bad!("rollout.stop_tokens: `{token}` is not one entry of the tokenizer's vocabulary"))?;
            stop.push(id);
        }
        Ok(Self {
            task,
            reward: recipe.reward.clone(),
            template: PromptTemplate::new(&recipe.prompt.template, &plan.tokenizer_dir)?,
            tokenizer,
            max_prompt_tokens: recipe.rollout.max_prompt_tokens,
            max_response_tokens: recipe.rollout.max_response_tokens,
            ends,
            stop,
        })
    }

    /// The prompt of a problem.
    ///
    /// # Errors
    /// Bad input: a template that does not render, or a prompt longer than the recipe allows.
    pub fn prompt(&self, split: Split, index: usize) -> Result<Prompt> {
        let text = self.template.render(&self.task.variables(split, index))?;
        let ids = self.tokenizer.encode_prompt(&text)?;
        if ids.is_empty() || ids.len() > self.max_prompt_tokens {
            return Err(bad!(
                "problem {index} of the {} split has a prompt of {} tokens, rollout.max_prompt_tokens is {}:\n{text}",
                split.name(),
                ids.len(),
                self.max_prompt_tokens
            ));
        }
        Ok(Prompt { split, index, opens_think: opens_think(&text), text, ids: ids.into() })
    }

    /// The text of a response, without the token that ended it.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        let text = ids.split_last().filter(|(last, _)| self.ends.contains(last)).map_or(ids, |(_, text)| text);
        self.tokenizer.decode(text).context("a response cannot be decoded")
    }

    /// Grades a response to `prompt`.
    pub fn grade(&self, prompt: &Prompt, response: &str) -> Grade {
        grade(self.task.as_ref(), (prompt.split, prompt.index), response, &self.reward, prompt.opens_think)
    }

    /// Renders prompts of all splits, and sends a right and a wrong answer the way every rollout will go: through the
    /// prompt, the tokenizer and the reward.
    ///
    /// # Errors
    /// Bad input: a prompt that does not render or is too long; a right answer that would not earn the full reward, or
    /// a wrong one that would.
    pub fn preflight(&self) -> Result<()> {
        for split in Split::ALL {
            let problems = self.task.len(split);
            // All of them, or an even sample if there are very many.
            for index in (0..problems).step_by(problems.div_ceil(PREFLIGHT_PROMPTS).max(1)) {
                self.prompt(split, index)?;
            }
        }
        let solvable = (0..self.task.len(Split::Train).min(1000))
            .find_map(|index| Some((index, self.task.right_answer(Split::Train, index)?)));
        let (index, right) = solvable.ok_or_else(|| bad!("none of the first training problems has a solution"))?;
        let prompt = self.prompt(Split::Train, index)?;
        let wrong = self.task.wrong_answer(Split::Train, index);
        let reward = &self.reward;
        let full = reward.accuracy + reward.format;
        for (right, example) in [(true, right), (false, wrong)] {
            // Cut where a rollout of the same tokens would end.
            let response = layout::monologue(&example, &example, prompt.opens_think);
            let mut ids = self.tokenizer.encode(&response)?;
            let stop = ids.iter().position(|id| self.stop.contains(id)).map_or(ids.len(), |at| at + 1);
            ids.truncate(stop.min(self.max_response_tokens));
            let seen = self.decode(&ids)?;
            let grade = self.grade(&prompt, &seen);
            let earned = grade.reward;
            let expected = if right { (earned - full).abs() < 1e-9 } else { grade.accuracy == 0.0 };
            if !expected {
                return Err(bad!(
                    "this recipe's reward cannot be earned: a known {} answer earns {earned} of {full} ({})\n\
                     prompt:\n{}\nanswer, after encoding, stopping within {} tokens and decoding:\n{seen}",
                    if right { "right" } else { "wrong" },
                    grade.reason,
                    prompt.text,
                    self.max_response_tokens,
                ));
            }
        }
        Ok(())
    }
}
