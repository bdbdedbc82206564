//! The language model and the critic: `config.json` -> weights -> rope -> decoder -> log-probs and values.

pub mod config;
pub mod decoder;
pub mod heads;
pub mod rope;
pub mod weights;

pub use config::{Family, ModelConfig};
pub use decoder::{Decoder, KeyValues, PRODUCTS_TOKENS};
pub use heads::{Critic, Policy, VOCABULARY_PART, ValueHead};
pub use weights::{Head, Weights};

use tch::{Device, Tensor};

/// Token ids of several sequences as [B, T], padded on the right with zeros up to the longest.
pub fn padded(sequences: &[Vec<i64>], device: Device) -> Tensor {
    let width = sequences.iter().map(Vec::len).max().unwrap_or(0);
    let mut ids = vec![0i64; sequences.len() * width];
    for (row, sequence) in ids.chunks_mut(width.max(1)).zip(sequences) {
        row[..sequence.len()].copy_from_slice(sequence);
    }
    Tensor::from_slice(&ids).view([sequences.len() as i64, width as i64]).to_device(device)
}
