//! The language model and the critic: `config.json` -> weights -> rope -> attention -> decoder -> log-probs and values.

mod attention;
mod config;
mod config_file;
mod decoder;
mod heads;
mod nn;
mod products;
mod rope;
mod stored;
mod tap;
mod weights;

pub use attention::{Attend, Causal, KeyValues, PRODUCTS_TOKENS, Projected, masked_attention};
pub use config::{ADAPTER, Family, ModelConfig};
pub use decoder::{Decoder, Tokens};
pub use heads::{Critic, Policy, VOCABULARY_PART, ValueHead, critic_weights};
pub use products::Products;
pub use stored::{Stored, missing_files, named_tensor, tensor_names};
pub use tap::{Steer, Tap};
pub use weights::{Head, Weights};
