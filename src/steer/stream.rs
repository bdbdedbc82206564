//! What is read in the residual stream: how long it is over prompts, and how its mean differs between two files of
//! traces.
//!
//! A trace weighs what any other does, whatever its length: its mean over its response's tokens is one of the values
//! whose mean is taken.

use super::direction::Direction;
use crate::rows::{self, field, place};
use crate::sae::{Residuals, Text};
use crate::text::Tokenizer;
use crate::torch::to_host;
use crate::{OrBadInput, bad};
use anyhow::Result;
use std::path::Path;
use tch::Kind;

/// The traces of a file (.jsonl, .json or .parquet): rows with a `response` or `text`, and the `prompt` before it if
/// there is one, as `steer --traces` writes them. Of a long one as many tokens count as the model reads; one that has
/// no token does not count. Without a prompt the first token is left out: what a model makes of it is the same in every
/// text, and many times as large as anything else.
///
/// # Errors
/// Bad input: a file that cannot be read or has no rows; a row without a text.
pub fn passages(path: &Path, tokenizer: &Tokenizer, most_tokens: usize) -> Result<Vec<Text>> {
    const COLUMNS: [&str; 3] = ["prompt", "response", "text"];
    let mut all = vec![];
    for row in rows::read(path, &COLUMNS).bad_input()? {
        let (number, row) = row.bad_input()?;
        let place = || place(path, number);
        let text = |name: &str| field(&row, name).and_then(|text| text.as_str());
        let Some(response) = text("response").or_else(|| text("text")) else {
            return Err(bad!("{}: expected a text in `response` or `text`", place()));
        };
        let mut ids = tokenizer.encode_prompt(text("prompt").unwrap_or_default())?;
        let first = ids.len().max(1);
        ids.extend(tokenizer.encode(response)?);
        ids.truncate(most_tokens);
        // A response that ended at once has nothing to be looked at.
        if ids.len() > first {
            all.push(Text { ids, first, row: number });
        }
    }
    match all.is_empty() {
        true => Err(bad!("{} has no rows with a text of two tokens or more", path.display())),
        false => Ok(all),
    }
}

/// The mean length of the residual stream over the texts' tokens. Where a text counts from its first token, that is
/// left out: what nothing comes before is many times as long as the rest.
///
/// # Errors
/// None of its own.
pub fn mean_norm(residuals: &Residuals, texts: &[Text]) -> Result<f64> {
    let (mut sum, mut count) = (0.0, 0);
    residuals.each_text(&refs(texts), |text, states| {
        let first = i64::from(text.first == 0 && text.ids.len() > 1);
        let norms = states.narrow(0, first, states.size()[0] - first).to_kind(Kind::Float).square();
        let norms = norms.sum_dim_intlist(-1, false, Kind::Float).sqrt(); // [t]
        sum += norms.sum(Kind::Double).double_value(&[]);
        count += norms.size()[0];
        Ok(())
    })?;
    Ok(sum / count.max(1) as f64)
}

/// The mean of `first` minus that of `second`, in the residual stream.
///
/// # Errors
/// Bad input: the two have the same mean.
pub fn difference_of_means(residuals: &Residuals, first: &[Text], second: &[Text], name: String) -> Result<Direction> {
    let (one, other) = (mean(residuals, first)?, mean(residuals, second)?);
    let difference = one.iter().zip(&other).map(|(one, other)| (one - other) as f32).collect();
    Direction::from_vector(name, difference, None)
}

/// The mean [H] over texts of their mean over tokens.
fn mean(residuals: &Residuals, texts: &[Text]) -> Result<Vec<f64>> {
    let mut sum = vec![0.0; residuals.policy.config.hidden_size as usize];
    residuals.each_text(&refs(texts), |_, states| {
        let own = to_host(&states.mean_dim(0, false, Kind::Float));
        sum.iter_mut().zip(own).for_each(|(sum, x)| *sum += f64::from(x));
        Ok(())
    })?;
    Ok(sum.iter().map(|sum| sum / texts.len() as f64).collect())
}

fn refs(texts: &[Text]) -> Vec<&Text> {
    texts.iter().collect()
}
