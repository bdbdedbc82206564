//! Who reads a trace and says how it reasons: which behaviours it shows, and how many perspectives speak in it.
//!
//! A judge says what it can see and leaves out what it cannot: an absent part is missing, never zero. A model is asked
//! by `reading`, with the `prompts`, about the numbered `units` of a trace: one behind a URL (`endpoint`), or a folder
//! (`local`). `embedder` makes vectors of what they say.

mod agreement;
mod collectivity;
mod embedder;
mod endpoint;
mod interface;
pub mod lexical;
mod local;
pub mod metrics;
mod prompts;
mod reading;
mod separate;
mod units;
mod voices;

pub use agreement::{Agreement, Icc, agreement, icc};
pub use collectivity::{Words, words};
pub use embedder::Embedder;
pub use endpoint::Endpoint;
pub use interface::{
    COGNITIVE, CONVERSATIONAL, Judge, Judgement, Missing, Perspective, ROLES, Refusal, Segment, TRAITS, Trace,
};
pub use lexical::Lexical;
pub use local::Local;
pub use metrics::{Difference, Judged, differences, figures, parts};
pub use prompts::{Prompts, Question};
pub use reading::Reading;
pub use separate::{Auc, separate};
