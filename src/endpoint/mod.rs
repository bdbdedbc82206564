//! Models behind an OpenAI-compatible endpoint: chat completions and embeddings.
//!
//! `client` asks, waits and asks again; `budget` bounds what that costs; `cache` keeps what was said, so that nothing
//! is asked twice. Who asks and what for is none of this room's business.

mod budget;
mod cache;
mod client;
mod refusal;
mod settings;
mod wire;

pub use budget::{Budget, Spent};
pub use cache::Cache;
pub use client::Client;
pub use refusal::Refusal;
pub use settings::{Settings, body_over};
pub use wire::Reply;
