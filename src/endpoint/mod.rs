//! Models behind an OpenAI-compatible endpoint: chat completions and embeddings.
//!
//! `client` asks, waits and asks again; `budget` bounds what that costs, in all processes together; `cache` keeps what
//! was said, so that nothing is asked twice; `service` is the three of them together, and `workers` are the threads
//! that wait. Who asks and what for is none of this room's business.

mod budget;
mod cache;
mod client;
mod refusal;
mod service;
mod settings;
mod wire;
mod workers;

pub use budget::{Budget, Limits, Spent, spent_in};
pub use cache::Cache;
pub use client::Client;
pub use refusal::Refusal;
pub use service::{Answer, Service};
pub use settings::{Settings, USUAL_KEY, body_over};
pub use wire::{Fault, Reply, check_url, reply_of, usage_of, vectors_of};
pub use workers::{GRACE, each};
