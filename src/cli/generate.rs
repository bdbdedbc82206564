//! `ppo-train generate`

use super::common::{STDOUT, precision, print};
use anyhow::{Context, Result};
use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use ppo_train::env::end_tokens;
use ppo_train::model::{Head, ModelConfig, Policy, Weights, missing_files};
use ppo_train::rng::{self, Purpose};
use ppo_train::rollout::{Engine, Sampling, Stop};
use ppo_train::terminal;
use ppo_train::text::{Ends, Tokenizer, chat};
use ppo_train::torch::device;
use ppo_train::{OrBadInput, bad};
use std::io::Write;
use std::path::PathBuf;
use tch::Kind;

/// Continue a prompt with a model.
///
/// Example: ppo-train generate checkpoints/quickstart/start --prompt $'Numbers: 3 5 7\nTarget: 22\n'
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Generate {
    /// A Hugging Face model folder.
    model: PathBuf,
    /// The text to continue.
    #[arg(long)]
    prompt: String,
    /// Longest continuation in tokens.
    #[arg(long, default_value_t = 256)]
    max_tokens: usize,
    /// Sampling temperature (0: always the most probable token).
    #[arg(long, default_value_t = 0.0)]
    temperature: f64,
    /// Number of continuations.
    #[arg(long, default_value_t = 1)]
    samples: usize,
    /// Seed of the samples.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// A string that ends the text; may be repeated.
    #[arg(long, value_parser = NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// The precision of weights and activations.
    #[arg(long, default_value = "float32", value_parser = precision())]
    precision: Kind,
    /// Wrap the prompt as a user message in the model's chat template.
    #[arg(long)]
    chat: bool,
    /// Print JSON: one entry per sample, with the ids of prompt and text, and log-probs.
    #[arg(long)]
    json: bool,
}

impl Generate {
    /// A single sample is printed as it is generated, several samples one after another.
    pub fn run(self) -> Result<()> {
        let config = ModelConfig::from_dir(&self.model).bad_input()?;
        if let Some(missing) = missing_files(&self.model) {
            return Err(bad!("{missing}"));
        }
        let tokenizer = Tokenizer::from_dir(&self.model)?;
        let prompt = if self.chat { chat(&self.model, &self.prompt)? } else { self.prompt.clone() };
        let ids = tokenizer.encode_prompt(&prompt)?;
        let length = (ids.len() + self.max_tokens) as i64;
        if ids.is_empty() || length > config.max_position_embeddings {
            let (read, new, limit) = (ids.len(), self.max_tokens, config.max_position_embeddings);
            return Err(bad!(
                "{read} prompt tokens and {new} new ones, expected at least 1 prompt token and at most {limit} in total"
            ));
        }
        let weights = Weights::load(&self.model, &config, Head::Language, self.precision, device("auto")?);
        let weights = weights.bad_input()?;
        let policy = Policy::new(&config, weights);
        let tokens = end_tokens(&config, &tokenizer);
        tokens.notes.iter().for_each(|note| terminal::warn(note));
        let ends = Ends::new(&tokenizer, tokens.ids, &self.stop);
        let greedy = self.temperature == 0.0;
        let temperature = if greedy { 1.0 } else { self.temperature };
        let engine = Engine {
            policy: &policy,
            sampling: Sampling { temperature, greedy, ..Sampling::plain() },
            stop: Stop { ends: &|ids| ends.at(&tokenizer, ids), max_tokens: self.max_tokens },
            vocabulary: tokenizer.vocab_size().min(config.vocab_size),
            batch: 0,
        };
        let stream = |_, sample: usize| rng::stream(self.seed, Purpose::Rollout, 0, sample as u64);
        let prompt_ids = ids.clone();
        let (mut read, mut shown, mut write) = (0, String::new(), tokenizer.streaming());
        let mut out = std::io::stdout();
        let mut written = Ok(());
        let responses = engine.generate(&[ids], self.samples, stream, |responses| {
            if let ([response], false) = (responses, self.json) {
                // The engine only draws ids that the tokenizer knows.
                let new: String = response.ids[read..].iter().filter_map(|id| write(*id).ok()).collect();
                if written.is_ok() {
                    written = out.write_all(new.as_bytes()).and_then(|()| out.flush());
                }
                (read, shown) = (response.ids.len(), std::mem::take(&mut shown) + &new);
            }
        });
        written.context(STDOUT)?;
        for response in responses {
            let text = tokenizer.decode_text(&response.ids)?;
            let text = ends.cut(&text);
            if self.json {
                let entry = serde_json::json!({
                    "prompt_ids": prompt_ids,
                    "text": text,
                    "ids": response.ids,
                    "log_probs": response.log_probs,
                    "terminated": response.terminated,
                });
                print(entry)?;
            } else {
                print(text.strip_prefix(&shown).unwrap_or(text))?;
            }
        }
        Ok(())
    }
}
