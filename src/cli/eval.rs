//! `ppo-train eval`

use super::common::{decoding, print, print_json, recipe_of, self_contained, split, whole_model_of};
use anyhow::{Context, Result};
use clap::Args;
use ppo_train::analysis::Paired;
use ppo_train::env::Environment;
use ppo_train::model::Policy;
use ppo_train::plan;
use ppo_train::recipe::Decoding;
use ppo_train::stats::{Bootstrap, RESAMPLES};
use ppo_train::task::{Split, Task};
use ppo_train::torch;
use ppo_train::train::evaluate::{Evaluation, evaluate};
use ppo_train::train::pulse::Pulse;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Evaluate a run's checkpoint on held-out problems, also on those of another task.
///
/// Example: ppo-train eval checkpoints/quickstart/step_000044 --split test --decoding sampled
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Eval {
    /// A checkpoint: the folder of a step in a run folder.
    checkpoint: PathBuf,
    /// The split to evaluate on.
    #[arg(long, default_value = "test", value_parser = split())]
    split: Split,
    /// The most probable token each time, or a sample at temperature 1.
    #[arg(long, default_value = "greedy", value_parser = decoding())]
    decoding: Decoding,
    /// Number of problems, from the first one on (0: all).
    #[arg(long, default_value_t = 0)]
    problems: usize,
    /// Take task, prompts and rewards from this recipe instead of the run's.
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<PathBuf>,
    /// Let another checkpoint answer the same problems too, and test the difference: --against CHECKPOINT.
    #[arg(long, value_name = "CHECKPOINT")]
    against: Option<PathBuf>,
    /// Print JSON: the means, and one entry per problem.
    #[arg(long)]
    json: bool,
}

impl Eval {
    pub fn run(self) -> Result<()> {
        let (first, task) = self.evaluate(&self.checkpoint, None)?;
        let Some(against) = &self.against else {
            return if self.json { print_json(&self.json(&first, &*task)) } else { print(self.text(&first, &*task)) };
        };
        // The other one need not have the same shape, nor a run folder.
        let (second, task) = self.evaluate(against, Some(task))?;
        let bootstrap = Bootstrap::new(RESAMPLES, first.prompts.len());
        let paired = Paired::of(&first.right(), &second.right(), &bootstrap).context("no problems")?;
        let classes = first.answers(&*task).zip(second.answers(&*task));
        let macro_f1 = classes.map(|(first, second)| first.macro_f1_minus(&second, &bootstrap));
        if self.json {
            let mut all = self.json(&first, &*task);
            all["against"] = self.json(&second, &*task);
            all["paired"] = serde_json::to_value(&paired)?;
            if let Some((difference, interval)) = macro_f1 {
                all["paired"]["macro_f1"] = json!({ "difference": difference, "interval": interval });
            }
            return print_json(&all);
        }
        let [one, other] = [&self.checkpoint, against].map(|path| path.display().to_string());
        print(format_args!("{one}\n{}\n\n{other}\n{}\n", self.text(&first, &*task), self.text(&second, &*task)))?;
        print(paired.text(&one, &other))?;
        macro_f1.map_or(Ok(()), |(difference, interval)| {
            let interval = interval.map_or("".into(), |[low, high]| format!(" [{low:+.3}, {high:+.3}]"));
            print(format_args!("difference of macro-F1: {difference:+.3}{interval}"))
        })
    }

    /// Evaluates a checkpoint. `task`: if it is read already.
    fn evaluate(&self, checkpoint: &Path, task: Option<Box<dyn Task>>) -> Result<(Evaluation, Box<dyn Task>)> {
        let model = whole_model_of(checkpoint, &["recipe.toml"])?;
        let recipe = self.recipe.clone().map_or_else(|| recipe_of(&self.checkpoint), Ok)?;
        let plan = plan::load(&recipe, &self_contained(&model), None)?;
        let env = match task {
            Some(task) => Environment::new(&plan, task)?,
            None => Environment::of(&plan)?,
        };
        let evaluated = torch::catching(|| {
            let policy = Policy::new(&plan.config, plan.weights(&model, plan::use_device(&plan.recipe.machine)?)?);
            evaluate(&policy, &plan, &env, self.split, self.problems, self.decoding, &Pulse::unwatched())
        });
        let result = evaluated.map_err(|error| plan::with_relief(&plan, error))?;
        Ok((result, env.task))
    }

    fn text(&self, evaluation: &Evaluation, task: &dyn Task) -> String {
        let sentence = evaluation.sentence(self.split);
        let bootstrap = || Bootstrap::new(RESAMPLES, evaluation.prompts.len());
        let classes = evaluation.answers(task).map(|answers| format!("\n{}", answers.summary(&bootstrap()).text()));
        format!("{sentence}{}", classes.unwrap_or_default())
    }

    fn json(&self, evaluation: &Evaluation, task: &dyn Task) -> Value {
        let mut all = evaluation.json();
        if let Some(answers) = evaluation.answers(task) {
            all["classes"] = json!(answers.summary(&Bootstrap::new(RESAMPLES, evaluation.prompts.len())));
        }
        all
    }
}
