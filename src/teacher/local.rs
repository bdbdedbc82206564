//! A local model as the teacher, through the rollout engine. What a request draws depends on its prompt and attempt,
//! not on its batch. Of a batch that the budget has too few requests for, the first ones are answered.

use super::interface::{Refusal, Reply, Request, Teacher};
use crate::checkpoint::ensure_whole;
use crate::endpoint::{Budget, Spent};
use crate::hash::number;
use crate::rng::{self, Purpose};
use crate::rollout::{Author, Manner};
use crate::torch::own_stream;
use anyhow::Result;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// A model folder that solves problems.
pub struct Local {
    author: Author,
    budget: Arc<Budget>,
}

impl Local {
    /// Loads a model. `budget`: what replies are taken from.
    ///
    /// # Errors
    /// Bad input: the folder is not that of a model that we read.
    pub fn open(dir: &Path, manner: Manner, budget: Arc<Budget>, stop: Arc<AtomicBool>) -> Result<Self> {
        ensure_whole(dir, &[])?;
        Ok(Self { author: Author::open(dir, manner, stop)?, budget })
    }
}

impl Teacher for Local {
    fn identity(&self) -> Value {
        self.author.identity().clone()
    }

    fn batch(&self) -> usize {
        self.author.manner().batch
    }

    fn ask(&self, requests: &[Request]) -> Vec<Result<Reply, Refusal>> {
        let refused = |error: anyhow::Error| Refusal::Request(format!("{error:#}"));
        let mut replies: Vec<Result<Reply, Refusal>> = vec![];
        let mut asked: Vec<(usize, Vec<i64>)> = vec![];
        for (at, request) in requests.iter().enumerate() {
            let ids = self.author.message(&request.prompt).map_err(refused);
            replies.push(ids.and_then(|ids| {
                self.budget.take()?;
                asked.push((at, ids));
                Ok(Reply::default())
            }));
        }
        if asked.is_empty() {
            return replies;
        }
        let prompts: Vec<Vec<i64>> = asked.iter().map(|(_, ids)| ids.clone()).collect();
        let stream = |prompt: usize| {
            let request = &requests[asked[prompt].0];
            let index = number(request.prompt.as_bytes());
            rng::stream(self.author.manner().seed, Purpose::Rollout, request.attempt, index)
        };
        // It is not the thread that loaded the weights which asks.
        let ready = self.author.manner().device.map_or(Ok(()), own_stream);
        let responses = match ready.and_then(|()| self.author.write(&prompts, None, stream)) {
            Ok(responses) => responses,
            Err(error) => return requests.iter().map(|_| Err(Refusal::Unusable(format!("{error:#}")))).collect(),
        };
        if self.author.is_stopped() {
            return requests.iter().map(|_| Err(Refusal::Stopped)).collect();
        }
        for ((at, ids), response) in asked.iter().zip(responses) {
            let (prompt_tokens, completion_tokens) = (ids.len() as u64, response.ids.len() as u64);
            let paid = self.budget.pay(Spent { prompt_tokens, completion_tokens, ..Spent::default() });
            let text = paid.and_then(|()| self.author.text(&response).map_err(refused));
            replies[*at] = text.map(|text| Reply { text, cut: !response.terminated });
        }
        replies
    }
}
