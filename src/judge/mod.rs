//! Who reads a trace and says how it reasons: which behaviours it shows, and how many perspectives speak in it.
//!
//! A judge says what it can see and leaves out what it cannot: an absent part is missing, never zero.

mod collectivity;
mod interface;
pub mod lexical;
mod voices;

pub use collectivity::{Words, words};
pub use interface::{COGNITIVE, CONVERSATIONAL, Judge, Judgement, Perspective, ROLES, Refusal, Segment, TRAITS, Trace};
pub use lexical::Lexical;
