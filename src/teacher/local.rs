//! A local model as the teacher, through the rollout engine. A prompt is a user message in the folder's chat template,
//! if it has one; what a request draws depends on its prompt and attempt, not on its batch.

use super::interface::{Refusal, Reply, Request, Teacher};
use crate::hash::number;
use crate::model::Policy;
use crate::rng::{self, Purpose};
use crate::rollout::Writer;
use crate::terminal;
use crate::text::chat;
use anyhow::Result;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;
use tch::Kind;

/// How a local model writes.
#[derive(Clone, Copy, Debug)]
pub struct Sampling {
    /// 0: always the most probable token.
    pub temperature: f64,
    /// Longest reply in tokens.
    pub max_tokens: usize,
    pub seed: u64,
    /// Requests at a time.
    pub batch: usize,
    pub precision: Kind,
}

/// A model folder with its weights.
pub struct Local {
    dir: PathBuf,
    writer: Writer,
    policy: Mutex<Policy>,
    sampling: Sampling,
    has_chat: bool,
    identity: Value,
    stop: Arc<AtomicBool>,
}

impl Local {
    /// Loads a model.
    ///
    /// # Errors
    /// Bad input: the folder is not that of a model that we read.
    pub fn open(dir: &Path, sampling: Sampling, stop: Arc<AtomicBool>) -> Result<Self> {
        let writer = Writer::open(dir, &[], sampling.max_tokens)?;
        let has_chat = match chat(dir, "?") {
            Ok(_) => true,
            Err(error) => {
                terminal::warn(&format!("note: {error:#}; it gets the prompts as they are"));
                false
            }
        };
        let policy = Mutex::new(writer.policy(sampling.precision)?);
        let identity = json!({
            "folder": dir.file_name().unwrap_or(dir.as_os_str()).to_string_lossy(),
            "weights": stamp(dir),
            "temperature": sampling.temperature,
            "max_tokens": sampling.max_tokens,
            "seed": sampling.seed,
            "precision": format!("{:?}", sampling.precision),
        });
        Ok(Self { dir: dir.to_path_buf(), writer, policy, sampling, has_chat, identity, stop })
    }

    fn ids(&self, request: &Request) -> Result<Vec<i64>> {
        let text = if self.has_chat { chat(&self.dir, &request.prompt)? } else { request.prompt.clone() };
        self.writer.prompt(&text)
    }
}

impl Teacher for Local {
    fn identity(&self) -> Value {
        self.identity.clone()
    }

    fn batch(&self) -> usize {
        self.sampling.batch
    }

    fn ask(&self, requests: &[Request]) -> Vec<Result<Reply, Refusal>> {
        let mut replies: Vec<Result<Reply, Refusal>> = vec![];
        let mut asked: Vec<(usize, Vec<i64>)> = vec![];
        for (at, request) in requests.iter().enumerate() {
            match self.ids(request) {
                Ok(ids) => {
                    asked.push((at, ids));
                    replies.push(Ok(Reply::default()));
                }
                Err(error) => replies.push(Err(Refusal::Request(format!("{error:#}")))),
            }
        }
        if asked.is_empty() {
            return replies;
        }
        let prompts: Vec<Vec<i64>> = asked.iter().map(|(_, ids)| ids.clone()).collect();
        let stream = |prompt: usize, _: usize| {
            let request = &requests[asked[prompt].0];
            let index = number(request.prompt.as_bytes());
            rng::stream(self.sampling.seed, Purpose::Rollout, request.attempt, index)
        };
        let quit = || self.stop.load(Ordering::Relaxed);
        let policy = self.policy.lock().unwrap_or_else(PoisonError::into_inner);
        let responses = self.writer.write(&policy, (&prompts, 1), self.sampling.temperature, &quit, stream, |_| ());
        if quit() {
            return requests.iter().map(|_| Err(Refusal::Stopped)).collect();
        }
        for ((at, ids), response) in asked.iter().zip(responses) {
            let text = self.writer.text(&response).map_err(|error| Refusal::Request(format!("{error:#}")));
            replies[*at] = text.map(|text| Reply {
                text,
                cut: !response.terminated,
                prompt_tokens: ids.len() as u64,
                completion_tokens: response.ids.len() as u64,
            });
        }
        replies
    }
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
