//! Generation: token ids in, token ids and log-probs out.

mod cache;
mod engine;
mod sampler;

pub use engine::{Engine, PREFILL_TOKENS, Response, Stop};
pub use sampler::Sampling;
