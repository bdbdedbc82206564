//! Responses that are texts of a grammar by construction: before a token is drawn, all that cannot come next are
//! masked.
//!
//! Nothing is drawn again and nothing is repaired. A response ends where its text is complete; with few tokens left
//! only those may be drawn that lead to the end in time, so that none is cut off. What may come next depends on the
//! place in the grammar alone, and is looked up once for each place.

use super::vocabulary::{Allowed, Vocabulary};
use crate::grammar::{Acceptor, Grammar};
use std::collections::HashMap;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Masks that are kept: of a vocabulary of 150,000, 80 MB.
const KEPT: usize = 512;

/// Responses held to a grammar each.
pub struct Constraint<'a> {
    vocabulary: &'a Vocabulary,
    /// Where each response is.
    places: Vec<Acceptor>,
    masks: HashMap<Acceptor, Mask>,
}

/// What may not come next, [V], and the most tokens that are needed after what may.
struct Mask {
    forbidden: Tensor,
    need: usize,
}

impl<'a> Constraint<'a> {
    /// For responses to so many prompts, `samples` each: the grammar of each prompt.
    pub fn new(vocabulary: &'a Vocabulary, grammars: &[Arc<Grammar>], samples: usize) -> Self {
        let places = grammars.iter().flat_map(|grammar| vec![Acceptor::new(Arc::clone(grammar)); samples]).collect();
        Self { vocabulary, places, masks: HashMap::new() }
    }

    /// Logits [B, V] of the next tokens of `responses` (B), -inf where a token cannot come next, with the number of
    /// tokens that may follow it; or those of a row that has ended, for which anything can.
    pub(super) fn mask(&mut self, logits: &Tensor, responses: impl Iterator<Item = (usize, Option<usize>)>) -> Tensor {
        let (width, device) = (logits.size()[1], logits.device());
        let masks = responses.map(|(response, left)| self.forbidden(response, left, width, device));
        let masks: Vec<Tensor> = masks.collect();
        logits.masked_fill(&Tensor::stack(&masks, 0), f64::NEG_INFINITY)
    }

    fn forbidden(&mut self, response: usize, left: Option<usize>, width: i64, device: Device) -> Tensor {
        let Some(left) = left else { return Tensor::zeros([width], (Kind::Bool, device)) };
        let place = &self.places[response];
        if self.masks.len() >= KEPT {
            self.masks.clear();
        }
        let known = self.masks.entry(place.clone()).or_insert_with(|| {
            let allowed = self.vocabulary.allowed(place, usize::MAX);
            Mask { forbidden: forbidden(&allowed, width, device), need: allowed.need }
        });
        if known.need <= left {
            return known.forbidden.shallow_clone();
        }
        forbidden(&self.vocabulary.allowed(place, left), width, device)
    }

    /// Takes the next token of a response. Returns whether the text is complete.
    pub(super) fn read(&mut self, response: usize, token: i64) -> bool {
        let place = &mut self.places[response];
        let text = self.vocabulary.text(token).unwrap_or_default();
        text.bytes().all(|byte| place.read(byte)) && place.is_complete()
    }
}

/// [V], true for all but the allowed.
fn forbidden(allowed: &Allowed, width: i64, device: Device) -> Tensor {
    let mut all = vec![true; width as usize];
    for &id in &allowed.ids {
        all[id as usize] = false;
    }
    Tensor::from_slice(&all).to_device(device)
}
