//! What is read in the residual stream: how long it is over prompts, and how its mean differs between two files of
//! traces.
//!
//! A trace weighs what any other does, whatever its length: its mean over its response's tokens is one of the values
//! whose mean is taken.

use super::direction::Direction;
use crate::model::Policy;
use crate::rows::{self, field, place};
use crate::text::Tokenizer;
use crate::torch::{padded, to_host};
use crate::{OrBadInput, bad};
use anyhow::Result;
use std::path::Path;
use tch::{Kind, Tensor};

/// Tokens, padding included, that are read at a time.
const TOKENS: usize = 16_384;

/// Tokens of which those from some place on are looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    pub ids: Vec<i64>,
    /// The first that counts.
    pub from: usize,
}

/// The traces of a file (.jsonl, .json or .parquet): rows with a `response` or `text`, and the `prompt` before it if
/// there is one, as `steer --traces` writes them. Of a long one as many tokens count as the model reads.
///
/// # Errors
/// Bad input: a file that cannot be read or has no rows; a row without a text.
pub fn passages(path: &Path, tokenizer: &Tokenizer, most_tokens: usize) -> Result<Vec<Passage>> {
    const COLUMNS: [&str; 3] = ["prompt", "response", "text"];
    let mut all = vec![];
    for row in rows::read(path, &COLUMNS).bad_input()? {
        let (number, row) = row.bad_input()?;
        let place = || place(path, number);
        let text = |name: &str| field(&row, name).and_then(|text| text.as_str());
        let Some(response) = text("response").or_else(|| text("text")).filter(|text| !text.is_empty()) else {
            return Err(bad!("{}: expected a text in `response` or `text`", place()));
        };
        let mut ids = tokenizer.encode_prompt(text("prompt").unwrap_or_default())?;
        let from = ids.len();
        ids.extend(tokenizer.encode(response)?);
        ids.truncate(most_tokens);
        if ids.len() <= from {
            return Err(bad!("{}: its prompt of {from} tokens leaves none for the response", place()));
        }
        all.push(Passage { ids, from });
    }
    match all.is_empty() {
        true => Err(bad!("{} has no rows", path.display())),
        false => Ok(all),
    }
}

/// The mean length of the residual stream after `layer` over the passages' tokens. Where a passage counts from its
/// first token, that is left out: what nothing comes before is many times as long as the rest.
pub fn mean_norm(policy: &Policy, layer: usize, passages: &[Passage]) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    each(policy, layer, passages, |states, passage| {
        let first = i64::from(passage.from == 0 && passage.ids.len() > 1);
        let norms = states.narrow(0, first, states.size()[0] - first).to_kind(Kind::Float).square();
        let norms = norms.sum_dim_intlist(-1, false, Kind::Float).sqrt(); // [t]
        sum += norms.sum(Kind::Double).double_value(&[]);
        count += norms.size()[0];
    });
    sum / count.max(1) as f64
}

/// The mean of `first` minus that of `second`, in the residual stream after `layer`.
///
/// # Errors
/// Bad input: the two have the same mean.
pub fn difference_of_means(
    policy: &Policy,
    layer: usize,
    first: &[Passage],
    second: &[Passage],
    name: String,
) -> Result<Direction> {
    let (one, other) = (mean(policy, layer, first), mean(policy, layer, second));
    let difference = one.iter().zip(&other).map(|(one, other)| (one - other) as f32).collect();
    Direction::from_vector(name, difference, None)
}

/// The mean [H] over passages of their mean over tokens.
fn mean(policy: &Policy, layer: usize, passages: &[Passage]) -> Vec<f64> {
    let mut sum = vec![0.0; policy.config.hidden_size as usize];
    each(policy, layer, passages, |states, _| {
        let own = to_host(&states.mean_dim(0, false, Kind::Float));
        sum.iter_mut().zip(own).for_each(|(sum, x)| *sum += f64::from(x));
    });
    sum.iter().map(|sum| sum / passages.len() as f64).collect()
}

/// Shows `take` the states [t, H] of each passage's tokens that count, after `layer`.
fn each(policy: &Policy, layer: usize, passages: &[Passage], mut take: impl FnMut(Tensor, &Passage)) {
    let mut rest = passages;
    while !rest.is_empty() {
        let mut longest = 0;
        let fits = |(rows, passage): &(usize, &Passage)| {
            longest = longest.max(passage.ids.len());
            (rows + 1) * longest <= TOKENS
        };
        let rows = rest.iter().enumerate().take_while(fits).count().max(1);
        let (part, after) = rest.split_at(rows);
        let ids: Vec<&[i64]> = part.iter().map(|passage| passage.ids.as_slice()).collect();
        let states = tch::no_grad(|| policy.decoder.residual(&padded(&ids, policy.device()), layer)); // [B, T, H]
        for (row, passage) in part.iter().enumerate() {
            let own = (passage.ids.len() - passage.from) as i64;
            take(states.get(row as i64).narrow(0, passage.from as i64, own), passage);
        }
        rest = after;
    }
}
