//! What reads texts and files of others, each with what must hold whatever it is given: `scripts/fuzz` looks for inputs
//! that break it, and `tests/it/seeds.rs` tries those in `fuzz/seeds`.

mod autoencoder;
mod chat;
mod claims;
mod config;
mod dialogue;
mod expression;
mod features;
mod formula;
mod grammar;
mod heartbeat;
mod history;
mod index;
mod judge;
mod lexical;
mod log;
mod overrides;
mod parquet;
mod problems;
mod recipe;
mod reward;
mod spent;
mod state;
mod sums;
mod template;
mod tokenizer;
mod traces;
mod weights;
mod wire;

use std::fmt::Display;

/// Takes an input, and panics if something does not hold.
pub type Target = fn(&[u8]);

/// The targets with their names, which are those of their files and of their folders of seeds.
pub const ALL: [(&str, Target); 28] = [
    ("autoencoder", autoencoder::run),
    ("chat", chat::run),
    ("claims", claims::run),
    ("config", config::run),
    ("dialogue", dialogue::run),
    ("expression", expression::run),
    ("features", features::run),
    ("formula", formula::run),
    ("grammar", grammar::run),
    ("heartbeat", heartbeat::run),
    ("history", history::run),
    ("index", index::run),
    ("judge", judge::run),
    ("lexical", lexical::run),
    ("log", log::run),
    ("overrides", overrides::run),
    ("parquet", parquet::run),
    ("problems", problems::run),
    ("recipe", recipe::run),
    ("reward", reward::run),
    ("spent", spent::run),
    ("state", state::run),
    ("sums", sums::run),
    ("template", template::run),
    ("tokenizer", tokenizer::run),
    ("traces", traces::run),
    ("weights", weights::run),
    ("wire", wire::run),
];

/// Takes bytes that are text; of others no parser of texts sees more than that they are none.
fn text(data: &[u8], run: impl FnOnce(&str)) {
    if let Ok(text) = std::str::from_utf8(data) {
        run(text);
    }
}

/// What refuses an input of so many bytes says why, and not much more than it was given.
fn refused(error: impl Display, bytes: usize) {
    let message = error.to_string();
    assert!(!message.trim().is_empty(), "no reason");
    assert!(message.len() <= 4096 + 8 * bytes, "a message of {} bytes: {message}", message.len());
}
