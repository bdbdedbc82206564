//! Steering: h' = h + s d, a direction times a strength that is added to the residual stream after one layer at every
//! token that a response consists of, and at those of its prompt if wanted.
//!
//! Each response has its own direction and strength, so that several conditions are rows of one batch. The first token
//! of a response follows from the prompt's last one, and is steered only if that is. Products s d are made in float32
//! and rounded to the model's precision once; a strength of 0 adds zeros, which changes nothing to the last bit.
//!
//! Shapes: R responses of a batch, H hidden.

use crate::bad;
use crate::model::{ModelConfig, Policy, Steer};
use anyhow::Result;
use std::ops::Range;
use tch::{Kind, Tensor};

/// What is added to the residual stream while responses are written.
pub struct Steering {
    layer: usize,
    /// [directions, H], float32.
    directions: Tensor,
    /// Of each response, by its number: which direction, and how strongly.
    responses: Vec<(usize, f32)>,
    prompt_from: Option<usize>,
}

/// Checks the number of a layer, from 0.
///
/// # Errors
/// Bad input: the model has no such layer.
pub fn check_layer(config: &ModelConfig, layer: usize) -> Result<()> {
    let layers = config.num_hidden_layers;
    if layer as i64 >= layers {
        return Err(bad!("there is no layer {layer}: the model has {layers}, from 0 to {}", layers - 1));
    }
    Ok(())
}

impl Steering {
    /// Directions [H] each, of which each response, in the engine's order (prompt by prompt, the samples of a prompt
    /// side by side), has one by its index, and a strength. They are added after `layer` (from 0) at the tokens of
    /// responses, and from the position `prompt_from` on at those of prompts; none: at no token of a prompt.
    ///
    /// # Errors
    /// Bad input: a layer that the model does not have, a direction of another size, or numbers that are not finite.
    pub fn new(
        config: &ModelConfig,
        layer: usize,
        directions: &[&[f32]],
        responses: Vec<(usize, f64)>,
        prompt_from: Option<usize>,
    ) -> Result<Self> {
        check_layer(config, layer)?;
        let width = config.hidden_size;
        if let Some(other) = directions.iter().find(|direction| direction.len() as i64 != width) {
            return Err(bad!("a direction has {} numbers, but the model's residual stream {width}", other.len()));
        }
        let largest = |direction: &[f32]| direction.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
        let is_finite = |direction: &[f32]| direction.iter().all(|x| x.is_finite());
        for (which, strength) in &responses {
            let known = directions.get(*which).copied().filter(|direction| is_finite(direction));
            let Some(direction) = known else { return Err(bad!("direction {which} has numbers that are not finite")) };
            if !(largest(direction) * *strength as f32).is_finite() {
                return Err(bad!("a strength of {strength} takes the direction beyond the range of float32"));
            }
        }
        let all = Tensor::from_slice(&directions.concat()).view([directions.len() as i64, width]);
        let responses = responses.into_iter().map(|(which, strength)| (which, strength as f32)).collect();
        Ok(Self { layer, directions: all, responses, prompt_from })
    }

    /// From which token on those of prompts are steered too.
    pub(super) fn prompt_from(&self) -> Option<usize> {
        self.prompt_from
    }

    /// The tap for the rows of a batch: the responses of these numbers.
    pub(super) fn rows(&self, responses: Range<usize>, policy: &Policy) -> Steer {
        let (which, strengths): (Vec<i64>, Vec<f32>) =
            self.responses[responses].iter().map(|(which, strength)| (*which as i64, *strength)).unzip();
        let directions = self.directions.index_select(0, &Tensor::from_slice(&which)); // [R, H]
        let added = directions * Tensor::from_slice(&strengths).unsqueeze(1);
        let kind: Kind = policy.weights.flat().kind();
        Steer { layer: self.layer, added: added.to_device(policy.device()).to_kind(kind).unsqueeze(1), from: 0 }
    }
}
