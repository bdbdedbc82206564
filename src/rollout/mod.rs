//! Generation: token ids in, token ids and log-probs out; a folder that writes text; responses held to a grammar.

mod author;
mod batch;
mod cache;
mod constraint;
mod engine;
mod far_away;
mod near;
mod progress;
mod sampler;
mod steering;
mod vocabulary;
mod writer;

pub use author::{Author, Manner, identity as author_identity};
pub use batch::PREFILL_TOKENS;
pub use constraint::Constraint;
pub use engine::Engine;
pub use progress::{Response, Stop};
pub use sampler::Sampling;
pub use steering::{Steering, check_layer};
pub use vocabulary::Vocabulary;
pub use writer::Writer;
