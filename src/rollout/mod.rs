//! Generation: token ids in, token ids and log-probs out; a folder that writes text; responses held to a grammar.

mod author;
mod cache;
mod constraint;
mod engine;
mod sampler;
mod steering;
mod vocabulary;
mod writer;

pub use author::{Author, Manner, identity as author_identity};
pub use constraint::Constraint;
pub use engine::{Engine, PREFILL_TOKENS, Response, Stop};
pub use sampler::Sampling;
pub use steering::{Steering, check_layer};
pub use vocabulary::Vocabulary;
pub use writer::Writer;
