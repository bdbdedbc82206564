//! The two layouts of a reasoning trace: a dialogue of personas, and the monologue of one voice. Reading, writing, and
//! making one of the other; all on text, without a tokenizer.

mod blocks;
mod conclusions;
mod dialogue;
mod monologue;
mod rewrite;

pub use blocks::Block;
pub use dialogue::{Counts, Dialogue};
pub use monologue::Monologue;
pub use rewrite::{merge_utterances, rename_tags};
