//! Traces as the tokens that are trained on: a prompt and a response with one end token, together within `sft.context`.

use super::trace::Trace;
use crate::bad;
use crate::env::Environment;
use crate::recipe::Sft;
use crate::terminal::counted;
use crate::train::batch::Sequence;
use anyhow::Result;
use std::borrow::Cow;

/// A row that is trained on.
pub struct Row {
    pub tokens: Sequence,
    /// Tokens of the whole response, without its end token.
    pub whole: usize,
}

impl Row {
    /// Whether the response is cut off at `sft.context`, or its end token is.
    pub fn is_cut(&self) -> bool {
        self.tokens.response.len() <= self.whole
    }
}

/// How many rows are not as their source has them, or not as the model will write.
#[derive(Default)]
pub struct Changes {
    /// Cut at the context.
    pub cut: usize,
    /// Without what followed the end token.
    pub ends: usize,
    /// With text after a stop string of the recipe.
    pub past_stop: usize,
}

/// Traces as tokens.
///
/// # Errors
/// Bad input: a row without prompt or response, with an end within it, or whose prompt fills the context.
pub fn tokenised(traces: &[Trace], sft: &Sft, env: &Environment, changes: &mut Changes) -> Result<Vec<Row>> {
    traces.iter().map(|trace| row(trace, sft, env, changes)).collect()
}

/// A trace as tokens: the response ends with one end token, whether or not its text has it.
fn row(trace: &Trace, sft: &Sft, env: &Environment, changes: &mut Changes) -> Result<Row> {
    let place = &trace.place;
    let prompt = env.tokenizer.encode_prompt(&trace.prompt)?;
    if let Some(end) = prompt.last().filter(|id| env.ends.contains(id)) {
        return Err(bad!("{place}: the prompt ends with the end token {}", env.tokenizer.list(&[*end])));
    }
    let mut response = response(trace, env, changes)?;
    let whole = response.len() - 1;
    if prompt.is_empty() || prompt.len() >= sft.context {
        let (length, context) = (counted(prompt.len(), "token"), sft.context);
        return Err(bad!("{place}: a prompt of {length} leaves no room for a response in sft.context = {context}"));
    }
    response.truncate(sft.context - prompt.len());
    let row = Row { tokens: Sequence { prompt: prompt.into(), response }, whole };
    changes.cut += usize::from(row.is_cut());
    Ok(row)
}

/// The ids of a trace's response, with one end token at their end.
fn response(trace: &Trace, env: &Environment, changes: &mut Changes) -> Result<Vec<i64>> {
    let place = &trace.place;
    let mut ids = env.tokenizer.encode(&trace.response)?;
    let whole = ids.len();
    let end = ids.iter().position(|id| env.ends.contains(id));
    let text = match end {
        None => Cow::Borrowed(&trace.response),
        Some(end) => Cow::Owned(env.tokenizer.decode(&ids[..end])?),
    };
    changes.past_stop += usize::from(env.goes_on_after_stop(&text));
    let Some(end) = end else {
        ids.push(env.end);
        return Ok(ids);
    };
    let after: Vec<i64> = ids.drain(end + 1..).filter(|id| !env.ends.contains(id)).collect();
    let token = env.tokenizer.list(&ids[end..]);
    if !env.tokenizer.decode(&after)?.trim().is_empty() {
        return Err(bad!("{place}: the response has the end token {token} before its text ends"));
    }
    if text.trim().is_empty() {
        return Err(bad!("{place}: the response is blank before its end token {token}"));
    }
    changes.ends += usize::from(whole > ids.len());
    Ok(ids)
}
