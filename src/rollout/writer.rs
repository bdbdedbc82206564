//! A model folder that writes text: its tokenizer, its ends, and the engine around its weights.

use super::engine::Engine;
use super::progress::{Response, Stop};
use super::sampler::Sampling;
use super::vocabulary::Vocabulary;
use crate::model::{Head, ModelConfig, Policy, Weights, missing_files};
use crate::rng::ChaCha8Rng;
use crate::terminal;
use crate::text::{Ends, Tokenizer};
use crate::torch::device;
use crate::{OrBadInput, bad};
use anyhow::Result;
use std::path::{Path, PathBuf};
use tch::{Device, Kind};

/// What a folder needs to write, without its weights.
pub struct Writer {
    dir: PathBuf,
    config: ModelConfig,
    pub tokenizer: Tokenizer,
    pub ends: Ends,
    /// Longest text in tokens.
    pub max_tokens: usize,
}

impl Writer {
    /// A writer of at most `max_tokens` tokens, which end at the model's own ends and after any of the strings `stop`.
    ///
    /// # Errors
    /// Bad input: the folder's configuration or tokenizer cannot be used.
    pub fn open(dir: &Path, stop: &[String], max_tokens: usize) -> Result<Self> {
        let config = ModelConfig::from_dir(dir).bad_input()?;
        if let Some(missing) = missing_files(dir) {
            return Err(bad!("{missing}"));
        }
        let tokenizer = Tokenizer::from_dir(dir)?;
        let tokens = config.end_tokens(&tokenizer);
        tokens.notes.iter().for_each(|note| terminal::warn(note));
        let ends = Ends::new(&tokenizer, tokens.ids, stop);
        Ok(Self { dir: dir.to_path_buf(), config, tokenizer, ends, max_tokens })
    }

    /// The tokens of a prompt.
    ///
    /// # Errors
    /// Bad input: it has none, or with the longest text more than the model reads.
    pub fn prompt(&self, prompt: &str) -> Result<Vec<i64>> {
        self.fitting(self.tokenizer.encode_prompt(prompt)?)
    }

    /// Tokens of a prompt, if there are any and the model can read them with the longest text.
    ///
    /// # Errors
    /// Bad input: it cannot.
    pub fn fitting(&self, ids: Vec<i64>) -> Result<Vec<i64>> {
        let (read, new, limit) = (ids.len(), self.max_tokens, self.config.max_position_embeddings);
        if ids.is_empty() || read.saturating_add(new) > limit as usize {
            return Err(bad!(
                "{read} prompt tokens and {new} new ones, expected at least 1 prompt token and at most {limit} in total"
            ));
        }
        Ok(ids)
    }

    /// The folder's weights on a device (none: on the best there is).
    ///
    /// # Errors
    /// Bad input: they cannot be read.
    pub fn policy(&self, precision: Kind, on: Option<Device>) -> Result<Policy> {
        let on = on.map_or_else(|| device("auto"), Ok)?;
        let weights = Weights::load(&self.dir, &self.config, Head::Language, precision, on);
        Ok(Policy::new(&self.config, weights.bad_input()?))
    }

    /// `samples` texts for each prompt, at a temperature (0: always the most probable token), until they end or `quit`
    /// says so; `stream` and `watch` as in `Engine::generate`.
    pub fn write(
        &self,
        policy: &Policy,
        (prompts, samples): (&[Vec<i64>], usize),
        temperature: f64,
        quit: &dyn Fn() -> bool,
        stream: impl Fn(usize, usize) -> ChaCha8Rng,
        watch: impl FnMut(&[Response]),
    ) -> Vec<Response> {
        let ends = |_: usize, ids: &[i64]| quit() || self.ends.at(&self.tokenizer, ids);
        self.engine(policy, temperature, &ends).generate(prompts, samples, stream, watch)
    }

    /// An engine that writes as the folder's model does, at a temperature (0: always the most probable token).
    pub(super) fn engine<'a>(
        &self,
        policy: &'a Policy,
        temperature: f64,
        ends: &'a dyn Fn(usize, &[i64]) -> bool,
    ) -> Engine<'a> {
        let greedy = temperature == 0.0;
        let temperature = if greedy { 1.0 } else { temperature };
        Engine {
            policy,
            sampling: Sampling { temperature, greedy, ..Sampling::plain() },
            stop: Stop { ends, max_tokens: self.max_tokens },
            vocabulary: self.known(),
            batch: 0,
            goes_on: &|| true,
            steering: None,
        }
    }

    /// The tokens that grammars can be spelt with.
    ///
    /// # Errors
    /// Bad input: some character has none.
    pub(super) fn vocabulary(&self) -> Result<Vocabulary> {
        Vocabulary::new(&self.tokenizer, self.known())
    }

    /// Ids below this are known to tokenizer and model.
    fn known(&self) -> i64 {
        self.tokenizer.vocab_size().min(self.config.vocab_size)
    }

    /// The text of a response, up to its first stop string.
    ///
    /// # Errors
    /// An id that the tokenizer does not know.
    pub fn text(&self, response: &Response) -> Result<String> {
        let text = self.tokenizer.decode_text(&response.ids, self.ends.tokens())?;
        Ok(self.ends.cut(&text).to_string())
    }
}
