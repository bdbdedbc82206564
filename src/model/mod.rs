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
