//! The language model and the critic: `config.json` -> weights -> rope -> attention -> decoder -> log-probs and values.

mod attention;
mod config;
mod decoder;
mod heads;
mod nn;
mod rope;
mod weights;

pub use attention::{Attend, KeyValues, PRODUCTS_TOKENS, causal_attention, masked_attention};
pub use config::{Family, ModelConfig};
pub use decoder::{Decoder, Tap};
pub use heads::{Critic, Policy, VOCABULARY_PART, ValueHead, critic_weights};
pub use weights::{Head, Weights, tensor_names};
