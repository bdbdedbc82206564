//! Between problems and token ids: prompts rendered and encoded, responses decoded and graded.

use crate::plan::Plan;
use crate::recipe::Reward;
use crate::task::{Grade, Split, Task, grade, layout, settings};
use crate::terminal;
use crate::text::{Ends, PromptTemplate, Tokenizer, opens_think};
use crate::{OrBadInput, bad};
use anyhow::{Context, Result};
use std::sync::Arc;

/// Prompts of a split that the preflight renders: as many as take about a second.
pub const PREFLIGHT_PROMPTS: usize = 10_000;

/// What a policy acts in: a task, and the way from its problems to token ids and back.
pub struct Environment {
    pub task: Box<dyn Task>,
    pub tokenizer: Tokenizer,
    template: PromptTemplate,
    reward: Reward,
    max_prompt_tokens: usize,
    /// The recipe's key for it, for messages.
    pub limit: &'static str,
    max_response_tokens: usize,
    /// The id that the responses of a warm start end with.
    pub end: i64,
    /// Ids that end a text.
    pub ends: Vec<i64>,
    /// What ends a response: `ends` and the recipe's stop strings.
    stop: Ends,
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
        let ends = plan.config.end_tokens(&tokenizer);
        ends.notes.iter().for_each(|note| terminal::warn(note));
        let end = ends.written.ok_or_else(|| {
            let config = recipe.model.path.join("config.json");
            bad!("{}: no eos_token_id, so no text would end", config.display())
        })?;
        let stop = Ends::new(&tokenizer, ends.ids.clone(), &recipe.rollout.stop);
        Ok(Self {
            task,
            reward: recipe.reward.clone(),
            template: PromptTemplate::new(&recipe.prompt.template, &plan.tokenizer_dir)?,
            tokenizer,
            max_prompt_tokens: recipe.rollout.max_prompt_tokens,
            limit: "rollout.max_prompt_tokens",
            max_response_tokens: recipe.rollout.max_response_tokens,
            end,
            ends: ends.ids,
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
                "problem {index} of the {} split has a prompt of {} tokens, {} is {}:\n{text}",
                split.name(),
                ids.len(),
                self.limit,
                self.max_prompt_tokens
            ));
        }
        Ok(Prompt { split, index, opens_think: opens_think(&text), text, ids: ids.into() })
    }

    /// Whether a response ends with the last of its ids so far.
    pub fn ends_at(&self, ids: &[i64]) -> bool {
        self.stop.at(&self.tokenizer, ids)
    }

    /// The text of a response, without the token that ended it and what came after a stop string.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        let text = ids.split_last().filter(|(last, _)| self.ends.contains(last)).map_or(ids, |(_, text)| text);
        let text = self.tokenizer.decode(text).context("a response cannot be decoded")?;
        Ok(self.stop.cut(&text).to_string())
    }

    /// Whether a response's text goes on after a stop string, where a rollout would end.
    pub fn goes_on_after_stop(&self, text: &str) -> bool {
        self.stop.cut(text).len() < text.trim_end().len()
    }

    /// Grades a response to `prompt`.
    pub fn grade(&self, prompt: &Prompt, response: &str) -> Grade {
        grade(self.task.as_ref(), (prompt.split, prompt.index), response, &self.reward, prompt.opens_think)
    }

    /// Renders prompts of all splits, and checks that the reward of the first solvable training problem can be earned.
    ///
    /// # Errors
    /// Bad input: a prompt that does not render or is too long; no solvable problem; those of `check_reward`.
    pub fn preflight(&self) -> Result<()> {
        for split in Split::ALL {
            let problems = self.task.len(split);
            // All of them, or an even sample if there are very many.
            for index in (0..problems).step_by(problems.div_ceil(PREFLIGHT_PROMPTS).max(1)) {
                self.prompt(split, index)?;
            }
        }
        match self.check_reward()? {
            true => Ok(()),
            false => Err(bad!("none of the first training problems has a solution")),
        }
    }

    /// Sends a right and a wrong answer to the first solvable training problem the way every rollout will go: through
    /// the prompt, the tokenizer and the reward. Returns whether there is such a problem.
    ///
    /// # Errors
    /// Bad input: a right answer that would not earn the full reward, or a wrong one that would.
    pub fn check_reward(&self) -> Result<bool> {
        let solvable = (0..self.task.len(Split::Train).min(1000))
            .find_map(|index| Some((index, self.task.right_answer(Split::Train, index)?)));
        let Some((index, right)) = solvable else { return Ok(false) };
        let prompt = self.prompt(Split::Train, index)?;
        let full = self.reward.accuracy + self.reward.format;
        let grade = self.grade_answer(&prompt, &right, "right", &|grade| (grade.reward - full).abs() < 1e-9);
        grade.and_then(|()| {
            let wrong = self.task.wrong_answer(Split::Train, index);
            self.grade_answer(&prompt, &wrong, "wrong", &|grade| grade.accuracy == 0.0)
        })?;
        Ok(true)
    }

    /// Grades a known answer as a rollout's; `kind`: whether it is right or wrong, in a word.
    fn grade_answer(&self, prompt: &Prompt, answer: &str, kind: &str, fits: &dyn Fn(&Grade) -> bool) -> Result<()> {
        // The layout is judged by prompt and response together, as a reader sees them, whatever the prompt was taken
        // for; and cut where a rollout of the same tokens would end.
        let opened = prompt.text.trim_end().rsplit('\n').next().is_some_and(|line| line.ends_with("<think>"));
        let whole = self.tokenizer.encode(&layout::monologue(answer, answer, opened))?;
        let ids = &whole[..self.stop.first(&self.tokenizer, &whole).min(self.max_response_tokens)];
        let seen = self.decode(ids)?;
        let grade = self.grade(prompt, &seen);
        if fits(&grade) {
            return Ok(());
        }
        // An answer has no end token of its own.
        let end = ids.last().filter(|id| self.ends.contains(id));
        let cut = end.map_or(String::new(), |end| {
            format!("\nit is cut at {}, which is an end token of this model", self.tokenizer.list(&[*end]))
        });
        Err(bad!(
            "this recipe's reward cannot be earned: a known {kind} answer earns {} of {} ({}){cut}\n\
             prompt:\n{}\nanswer, after encoding, stopping within {} tokens and decoding:\n{seen}",
            grade.reward,
            self.reward.accuracy + self.reward.format,
            grade.reason,
            prompt.text,
            self.max_response_tokens,
        ))
    }
}
