//! Responses while they are written, and what the two ways of drawing their tokens have in common.

use super::constraint::Constraint;
use crate::torch::{ids_to_host, to_host};
use std::ops::Range;
use tch::Tensor;

/// When a response ends.
pub struct Stop<'a> {
    /// Whether a response, by its number, ends with the last of its ids so far, which stays part of it.
    pub ends: &'a dyn Fn(usize, &[i64]) -> bool,
    /// Longest response in tokens.
    pub max_tokens: usize,
}

/// What was generated for one sample of one prompt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    pub ids: Vec<i64>,
    /// Log-prob of each token as the sampler saw it, in nats.
    pub log_probs: Vec<f32>,
    /// Whether it ended by itself; otherwise it was cut off.
    pub terminated: bool,
}

/// Rows whose next tokens can be drawn.
pub trait Drawing {
    /// Which response each row extends.
    fn rows(&self) -> &[usize];

    /// Draws the next tokens of all rows, one or more: these and their log-probs, [tokens, B] each.
    fn draw(&mut self, progress: &mut Progress) -> (Tensor, Tensor);

    /// Drops all rows except those of the indices `live`.
    fn keep(&mut self, live: &[i64]);

    /// Lets the responses to further prompts take the place of the rows of these indices. Returns whether it went on to
    /// the end.
    fn replace(&mut self, rows: &[usize], prompts: Range<usize>) -> bool;
}

/// The responses so far.
pub struct Progress<'a> {
    pub stop: &'a Stop<'a>,
    pub responses: Vec<Response>,
    /// What holds them to grammars.
    pub held: Option<Constraint<'a>>,
}

impl Progress<'_> {
    /// Tokens that a response may still have.
    fn left(&self, response: usize) -> usize {
        self.stop.max_tokens - self.responses[response].ids.len()
    }

    /// Whether a response has no more tokens to come.
    pub fn has_ended(&self, response: usize) -> bool {
        self.responses[response].terminated || self.left(response) == 0
    }

    /// The most tokens that one of these responses may still have.
    pub fn most_left(&self, responses: &[usize]) -> usize {
        let live = responses.iter().filter(|&&response| !self.has_ended(response));
        live.map(|&response| self.left(response)).max().unwrap_or(1)
    }

    /// Logits [B, V] of the next tokens of these responses, -inf where a grammar does not allow one.
    pub fn masked(&mut self, logits: &Tensor, responses: &[usize]) -> Tensor {
        let left = |&response: &usize| (!self.has_ended(response)).then(|| self.left(response) - 1);
        let left: Vec<Option<usize>> = responses.iter().map(left).collect();
        match &mut self.held {
            Some(held) => held.mask(logits, responses.iter().copied().zip(left)),
            None => logits.shallow_clone(),
        }
    }

    /// Moves tokens and their log-probs, [tokens, B], to the host and into the responses of the rows.
    pub fn take(&mut self, tokens: &Tensor, log_probs: &Tensor, rows: &[usize]) {
        for (i, (token, log_prob)) in ids_to_host(tokens).into_iter().zip(to_host(log_probs)).enumerate() {
            let row = rows[i % rows.len()];
            if self.has_ended(row) {
                continue;
            }
            let response = &mut self.responses[row];
            response.ids.push(token);
            response.log_probs.push(log_prob);
            let complete = self.held.as_mut().is_some_and(|constraint| constraint.read(row, token));
            response.terminated = complete || (self.stop.ends)(row, &response.ids);
        }
    }
}
