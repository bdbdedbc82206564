//! Who reads a trace and says how it reasons: which behaviours it shows, and how many perspectives speak in it.
//!
//! A judge says what it can see and leaves out what it cannot: an absent part is missing, never zero.

mod agreement;
mod collectivity;
mod interface;
pub mod lexical;
pub mod metrics;
mod separate;
mod voices;

pub use agreement::{Agreement, Icc, agreement, icc};
pub use collectivity::{Words, words};
pub use interface::{COGNITIVE, CONVERSATIONAL, Judge, Judgement, Perspective, ROLES, Refusal, Segment, TRAITS, Trace};
pub use lexical::Lexical;
pub use metrics::{Difference, Figure, Judged, differences, figures};
pub use separate::{Auc, separate};
