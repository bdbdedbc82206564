//! `ppo-train data`

use super::common::{RecipeArgs, STDOUT, print, print_json, split};
use anyhow::{Context, Result};
use clap::Args;
use ppo_train::env::Environment;
use ppo_train::recipe::Sft;
use ppo_train::task::Split;
use ppo_train::{bad, terminal, traces};
use serde_json::json;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

/// Write a recipe's problems, or the traces of its warm start, as JSONL; or show what these traces are like.
///
/// Example: ppo-train data recipes/quickstart.toml --stats
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Data {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// The split to take problems from.
    #[arg(long, default_value = "train", value_parser = split(), conflicts_with = "traces")]
    split: Split,
    /// Write the prompts and responses of the warm start instead of problems.
    #[arg(long)]
    traces: bool,
    /// Print what the traces of the warm start are like: lengths, personas, what the reward makes of them, hashes.
    #[arg(long, conflicts_with_all = ["traces", "split", "file", "count"])]
    stats: bool,
    /// With --stats: print JSON.
    #[arg(long, requires = "stats")]
    json: bool,
    /// The first so many; fewer if the recipe has fewer.
    #[arg(long, default_value_t = 10)]
    count: usize,
    /// The file to write (default: standard output).
    #[arg(long)]
    file: Option<PathBuf>,
}

impl Data {
    pub fn run(self) -> Result<()> {
        let plan = self.recipe.load()?;
        let env = Environment::of(&plan)?;
        let sft = || match &plan.recipe.sft {
            None => Err(bad!("the recipe has no [sft] section, so there are no traces")),
            Some(Sft { from: Some(from), .. }) => Err(bad!(
                "the recipe begins with the finished warm start {}, so there are no traces\n\
                 what the rows of that one were like is in traces.json of its run",
                from.display()
            )),
            Some(sft) => Ok(sft),
        };
        if self.stats {
            let stats = traces::prepare(&plan, sft()?, &env)?.stats;
            return match self.json {
                true => print_json(&serde_json::to_value(&stats)?),
                false => print(terminal::table(&["warm start", ""], &stats.table())),
            };
        }
        let (mut out, place): (Box<dyn Write>, _) = match &self.file {
            None => (Box::new(std::io::stdout().lock()), STDOUT.to_string()),
            Some(path) => {
                let place = format!("cannot write {}", path.display());
                (Box::new(BufWriter::new(File::create(path).with_context(|| place.clone())?)), place)
            }
        };
        if self.traces {
            let sft = sft()?;
            for trace in traces::traces(&plan, sft, &env, self.count.min(sft.train))? {
                writeln!(out, "{}", json!({"prompt": trace.prompt, "response": trace.response}))
                    .with_context(|| place.clone())?;
            }
        } else {
            let split = self.split;
            for index in 0..self.count.min(env.task.len(split)) {
                writeln!(out, "{}", env.task.variables(split, index)).with_context(|| place.clone())?;
            }
        }
        out.flush().context(place)
    }
}
