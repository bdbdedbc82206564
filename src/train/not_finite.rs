//! Numbers that are not finite: which loss, which tensors and which sequences they come from, and a file with
//! everything that is known of these sequences.
//!
//! Decided: nothing is looked for while all is well. An update fetches its norms and the sum of its weights in one
//! transfer, and a loss that is not finite makes the norm so. Only then are its micro-batches computed again, one by
//! one, with weights that the update has not changed, and in the first one that fails its sequences, each alone.

use super::batch::{Batch, MicroBatch};
use crate::checkpoint::write_file;
use crate::optim::AdamW;
use anyhow::{Result, anyhow};
use serde_json::{Map, Value, json};
use std::fmt;
use std::ops::Range;
use std::path::Path;
use tch::Tensor;

/// Tensors and sequences that a message names.
const NAMED: usize = 3;

/// What is left to do.
const HELP: &str = "no weights of this step are saved, and --resume comes to the same; a smaller learning rate, a \
                    smaller grad_clip or float32 in place of bfloat16 may not";

/// An update, or what it would learn from, is not finite.
#[derive(Debug)]
pub struct NotFinite {
    what: String,
    /// The sequences of the batch that it comes from, as far as that is known.
    pub sequences: Vec<usize>,
}

impl NotFinite {
    pub fn new(what: String, sequences: Vec<usize>) -> Self {
        Self { what, sequences }
    }

    /// Weights that an update with a finite gradient has made so.
    pub fn weights(tensors: &[String], lr: f64, norm: f64) -> Self {
        let named = named(tensors);
        Self::new(
            format!("after the update {named} is not finite (learning rate {lr}, gradient's norm {norm})"),
            vec![],
        )
    }
}

impl fmt::Display for NotFinite {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.what)?;
        match self.sequences.as_slice() {
            [] => Ok(()),
            [one] => write!(f, "; it comes from sequence {one}"),
            some => write!(f, "; it comes from sequences {}", list(some)),
        }
    }
}

impl std::error::Error for NotFinite {}

/// Where an update whose norm is `norm` came from: `loss` of the micro-batches of `mini`, whose figures `figures` are
/// not finite. The weights are those before it.
///
/// # Errors
/// A gradient that cannot be had.
pub fn culprit(
    batch: &Batch,
    mini: Range<usize>,
    optimizers: &mut [&mut AdamW],
    (norm, figures): (f64, &[&str]),
    mut loss: impl FnMut(&MicroBatch) -> Tensor,
) -> Result<NotFinite> {
    for micro in batch.micro_batches(mini.clone()) {
        let together = probe(&micro, optimizers, &mut loss)?;
        if together.is_sound() {
            continue;
        }
        let mut alone = vec![];
        for &row in &micro.rows {
            if !probe(&batch.alone(row), optimizers, &mut loss)?.is_sound() {
                alone.push(row);
            }
        }
        let mut rows = if alone.is_empty() { micro.rows } else { alone };
        rows.sort_unstable();
        return Ok(NotFinite::new(together.sentence(figures), rows));
    }
    let what = format!("the gradient is not finite (norm {norm}), though those of all its micro-batches are");
    Ok(NotFinite::new(what, vec![]))
}

/// A micro-batch's loss, and the tensors whose gradients are not finite.
struct Probe {
    loss: f64,
    tensors: Vec<String>,
}

fn probe(
    micro: &MicroBatch,
    optimizers: &mut [&mut AdamW],
    loss: &mut impl FnMut(&MicroBatch) -> Tensor,
) -> Result<Probe> {
    for optimizer in &mut *optimizers {
        optimizer.begin()?;
    }
    let value = loss(micro);
    value.backward();
    let tensors = optimizers.iter().flat_map(|optimizer| optimizer.broken_gradients()).collect();
    for optimizer in optimizers {
        optimizer.abandon()?;
    }
    Ok(Probe { loss: value.double_value(&[]), tensors })
}

impl Probe {
    fn is_sound(&self) -> bool {
        self.loss.is_finite() && self.tensors.is_empty()
    }

    fn sentence(&self, figures: &[&str]) -> String {
        let loss = match (self.loss.is_finite(), figures) {
            (true, _) => return format!("the gradient of {} is not finite, though the loss is", named(&self.tensors)),
            (false, []) => format!("the loss is {}", self.loss),
            (false, figures) => format!("the loss is {} ({})", self.loss, figures.join(", ")),
        };
        if self.tensors.is_empty() {
            loss
        } else {
            format!("{loss}, and so is the gradient of {}", named(&self.tensors))
        }
    }
}

fn named(tensors: &[String]) -> String {
    match tensors {
        [one] => one.clone(),
        [first, rest @ ..] => format!("{first} and {} more tensors", rest.len()),
        [] => "no tensor".into(),
    }
}

fn list(sequences: &[usize]) -> String {
    let mut shown: Vec<String> = sequences.iter().take(NAMED).map(usize::to_string).collect();
    let last = match sequences.len().saturating_sub(NAMED) {
        0 => shown.pop().unwrap_or_default(),
        more => format!("{more} more"),
    };
    format!("{} and {last}", shown.join(", "))
}

/// Numbers as JSON, those that are not finite as the words that metrics.jsonl has for them.
pub fn numbers(values: &[f32]) -> Value {
    values.iter().map(|value| crate::json::number(f64::from(*value))).collect()
}

/// Adds the `place` to an error; if it is about numbers that are not finite, writes what is known of the batch to
/// `path`, and says so. `known` tells what there is about each of its `sequences`.
pub fn explain(
    error: anyhow::Error,
    place: String,
    path: &Path,
    sequences: Range<usize>,
    known: impl Fn(usize) -> Map<String, Value>,
) -> anyhow::Error {
    let error = error.context(place);
    let Some(found) = error.downcast_ref::<NotFinite>() else { return error };
    let each = sequences.map(|at| {
        let mut own = Map::new();
        own.insert("sequence".into(), at.into());
        own.insert("suspect".into(), found.sequences.contains(&at).into());
        own.extend(known(at));
        own
    });
    let text = json!({ "error": format!("{error:#}"), "sequences": each.collect::<Vec<_>>() }).to_string();
    let kept = match write_file(path, text) {
        Ok(()) => format!("its sequences are in {}", path.display()),
        Err(unwritten) => format!("its sequences are not kept: {unwritten:#}"),
    };
    anyhow!("{error:#}\n{kept}\n{HELP}")
}
