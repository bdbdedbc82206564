//! What is read in the residual stream: how long it is over prompts, and how its mean differs between two files of
//! traces.
//!
//! A trace weighs what any other does, whatever its length: its mean over its response's tokens is one of the values
//! whose mean is taken.

use super::direction::Direction;
use crate::sae::{Columns, Residuals, Text, texts};
use crate::text::Tokenizer;
use crate::torch::to_host;
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
    let columns = Columns { text: &["response", "text"], prompt: Some("prompt"), every_prompt: false, special: true };
    Ok(texts(path, columns, tokenizer, most_tokens)?.0)
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
