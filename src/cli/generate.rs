//! `ppo-train generate`

use super::common::{STDOUT, precision, print_json_line, temperature};
use anyhow::{Context, Result};
use clap::Args;
use clap::builder::{NonEmptyStringValueParser, RangedU64ValueParser};
use ppo_train::checkpoint::ensure_whole;
use ppo_train::plan::use_device;
use ppo_train::recipe::Machine;
use ppo_train::rng::{self, Purpose};
use ppo_train::rollout::{Response, Writer};
use ppo_train::terminal::harmless;
use ppo_train::text::chat;
use std::io::{IsTerminal, Write};
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
    #[arg(long, default_value_t = 256, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 24))]
    max_tokens: usize,
    /// Sampling temperature, from 0.001 to 100 (0: always the most probable token).
    #[arg(long, default_value_t = 0.0, value_parser = temperature)]
    temperature: f64,
    /// Number of continuations.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=100_000))]
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
        ensure_whole(&self.model, &[])?;
        let writer = Writer::open(&self.model, &self.stop, self.max_tokens)?;
        let prompt = if self.chat { chat(&self.model, &self.prompt)? } else { self.prompt.clone() };
        let ids = writer.prompt(&prompt)?;
        let policy = writer.policy(self.precision, Some(use_device(&Machine::default())?))?;
        let stream = |_, sample: usize| rng::stream(self.seed, Purpose::Rollout, 0, sample as u64);
        let prompt_ids = ids.clone();
        let (mut read, mut shown, mut write) = (0, String::new(), writer.tokenizer.streaming(writer.ends.tokens()));
        let mut out = std::io::stdout();
        // A file gets the text as it is, a terminal without what it would obey.
        let raw = !out.is_terminal();
        let shown_as = |text: &str| if raw { text.to_string() } else { harmless(text).into_owned() };
        let mut written = Ok(());
        let watch = |responses: &[Response]| {
            if let ([response], false) = (responses, self.json) {
                // The engine only draws ids that the tokenizer knows.
                let new: String = response.ids[read..].iter().filter_map(|id| write(*id).ok()).collect();
                if written.is_ok() {
                    written = out.write_all(shown_as(&new).as_bytes()).and_then(|()| out.flush());
                }
                (read, shown) = (response.ids.len(), std::mem::take(&mut shown) + &new);
            }
        };
        let prompts = (&[ids][..], self.samples);
        let responses = writer.write(&policy, prompts, self.temperature, &|| false, stream, watch);
        written.context(STDOUT)?;
        for response in responses {
            let text = writer.text(&response)?;
            if self.json {
                let entry = serde_json::json!({
                    "prompt_ids": prompt_ids,
                    "text": text,
                    "ids": response.ids,
                    "log_probs": response.log_probs,
                    "terminated": response.terminated,
                });
                print_json_line(&entry)?;
            } else {
                writeln!(std::io::stdout(), "{}", shown_as(text.strip_prefix(&shown).unwrap_or(&text)))
                    .context(STDOUT)?;
            }
        }
        Ok(())
    }
}
