//! Generation: token ids in, token ids and log-probs out; and a folder that writes text.

mod cache;
mod engine;
mod sampler;
mod writer;

pub use engine::{Engine, PREFILL_TOKENS, Response, Stop};
pub use sampler::Sampling;
pub use writer::Writer;
