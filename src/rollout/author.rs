//! A model folder that answers messages: writer and weights together. A message is that of a user in the folder's chat
//! template, if it has one.

use super::constraint::Constraint;
use super::engine::Engine;
use super::progress::Response;
use super::vocabulary::Vocabulary;
use super::writer::Writer;
use crate::grammar::Grammar;
use crate::hash::hash;
use crate::model::Policy;
use crate::rng::ChaCha8Rng;
use crate::terminal;
use crate::text::chat;
use crate::torch::{padded, to_host};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::UNIX_EPOCH;
use tch::{Device, Kind, Tensor};

/// How a model folder writes.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// 0: always the most probable token.
    pub temperature: f64,
    /// Longest reply in tokens.
    pub max_tokens: usize,
    pub seed: u64,
    /// Replies at a time.
    pub batch: usize,
    pub precision: Kind,
    /// Where its weights are (none: on the best device there is).
    pub device: Option<Device>,
}

impl Default for Manner {
    fn default() -> Self {
        Self { temperature: 0.0, max_tokens: 1024, seed: 0, batch: 8, precision: Kind::Float, device: None }
    }
}

/// A model folder with its weights.
pub struct Author {
    dir: PathBuf,
    writer: Writer,
    policy: Mutex<Policy>,
    manner: Manner,
    has_chat: bool,
    identity: Value,
    vocabulary: OnceLock<Vocabulary>,
    stop: Arc<AtomicBool>,
}

impl Author {
    /// Loads a model. It stops writing when `stop` is set.
    ///
    /// # Errors
    /// Bad input: the folder is not that of a model that we read.
    pub fn open(dir: &Path, manner: Manner, stop: Arc<AtomicBool>) -> Result<Self> {
        let writer = Writer::open(dir, &[], manner.max_tokens)?;
        let has_chat = match chat(dir, "?") {
            Ok(_) => true,
            Err(error) => {
                terminal::warn(&format!("note: {error:#}; it gets the prompts as they are"));
                false
            }
        };
        let policy = Mutex::new(writer.policy(manner.precision, manner.device)?);
        let identity = identity(dir, &manner);
        let vocabulary = OnceLock::new();
        Ok(Self { dir: dir.to_path_buf(), writer, policy, manner, has_chat, identity, vocabulary, stop })
    }

    /// What its replies depend on besides the message.
    pub fn identity(&self) -> &Value {
        &self.identity
    }

    pub fn manner(&self) -> &Manner {
        &self.manner
    }

    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// The tokens of a message, up to where the reply begins. Special tokens written out in the message are text, so
    /// that it cannot end its own turn.
    ///
    /// # Errors
    /// Bad input: it has none, or with the longest reply more than the model reads.
    pub fn message(&self, text: &str) -> Result<Vec<i64>> {
        let tokenizer = &self.writer.tokenizer;
        if !tokenizer.has_special(text) {
            return if self.has_chat { self.writer.prompt(&chat(&self.dir, text)?) } else { self.writer.prompt(text) };
        }
        // The template's own special tokens stay what they are. No text has its own hash in it.
        let mark = hash(text.as_bytes());
        let frame = if self.has_chat { chat(&self.dir, &mark)? } else { mark.clone() };
        let (before, after) = frame.split_once(&mark).context("the chat template does not show the message")?;
        let parts = [tokenizer.encode_prompt(before)?, tokenizer.encode_plain(text)?, tokenizer.encode(after)?];
        self.writer.fitting(parts.concat())
    }

    /// A reply to each message; `stream` returns the random stream of a message. Where `grammars` are given, one for
    /// each message, the replies are texts of them. If it was stopped, replies may be incomplete.
    ///
    /// # Errors
    /// Bad input: the tokenizer cannot spell what grammars want.
    pub fn write(
        &self,
        messages: &[Vec<i64>],
        grammars: Option<&[Arc<Grammar>]>,
        stream: impl Fn(usize) -> ChaCha8Rng,
    ) -> Result<Vec<Response>> {
        let constraint = match grammars {
            Some(grammars) => Some(Constraint::new(self.vocabulary()?, grammars, 1)),
            None => None,
        };
        let Writer { tokenizer, ends, .. } = &self.writer;
        let ends = |_: usize, ids: &[i64]| self.is_stopped() || ends.at(tokenizer, ids);
        let policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        let engine = Engine { batch: self.manner.batch, ..self.writer.engine(&policy, self.manner.temperature, &ends) };
        Ok(engine.generate_within(messages, 1, constraint, |message, _| stream(message), |_| ()))
    }

    /// The text of a reply.
    ///
    /// # Errors
    /// An id that the tokenizer does not know.
    pub fn text(&self, response: &Response) -> Result<String> {
        self.writer.text(response)
    }

    /// For each text the mean, [H], of the hidden states after the last norm over its tokens, or over as many of them
    /// as the model reads.
    ///
    /// # Errors
    /// Bad input: a text without tokens.
    pub fn mean_states(&self, texts: &[String]) -> Result<Vec<Vec<f32>>> {
        let policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        let limit = usize::try_from(policy.config.max_position_embeddings).unwrap_or(usize::MAX);
        let mut means = Vec::with_capacity(texts.len());
        for part in texts.chunks(self.manner.batch.max(1)) {
            let ids = part.iter().map(|text| {
                let mut ids = self.writer.tokenizer.encode_prompt(text)?;
                ids.truncate(limit);
                anyhow::ensure!(!ids.is_empty(), "a text without tokens has no hidden states");
                Ok(ids)
            });
            let ids: Vec<Vec<i64>> = ids.collect::<Result<_>>()?;
            let states = tch::no_grad(|| policy.decoder.forward(&padded(&ids, policy.device()))); // [B, T, H]
            for (row, ids) in ids.iter().enumerate() {
                let own: Tensor = states.get(row as i64).narrow(0, 0, ids.len() as i64); // [t, H]
                means.push(to_host(&own.mean_dim(0, false, Kind::Float)));
            }
        }
        Ok(means)
    }

    fn vocabulary(&self) -> Result<&Vocabulary> {
        if let Some(known) = self.vocabulary.get() {
            return Ok(known);
        }
        let new = self.writer.vocabulary()?;
        Ok(self.vocabulary.get_or_init(|| new))
    }
}

/// What the replies of a model folder depend on besides the message.
pub fn identity(dir: &Path, manner: &Manner) -> Value {
    json!({
        "folder": dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy(),
        "weights": stamp(dir),
        "temperature": manner.temperature,
        "max_tokens": manner.max_tokens,
        "seed": manner.seed,
        "precision": format!("{:?}", manner.precision),
    })
}

/// What tells other weights in the same folder: bytes of the files, and when the newest was written, in seconds.
fn stamp(dir: &Path) -> Value {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let weights = files.filter(|file| file.path().extension().is_some_and(|extension| extension == "safetensors"));
    let facts = weights.filter_map(|file| {
        let facts = file.metadata().ok()?;
        let written = facts.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
        Some((facts.len(), written.as_secs()))
    });
    let (bytes, newest) = facts.fold((0, 0), |(sum, newest), (bytes, written)| (sum + bytes, newest.max(written)));
    json!({ "bytes": bytes, "written": newest })
}
