//! What the JSON of a model's reply must look like: checked after it was written, or enforced while it is.
//!
//! `Schema` says what is wanted; `find` takes it out of a reply that may have text around it; `Acceptor` follows a text
//! byte by byte and says what may come next, so that a sampler can be held to it.

mod acceptor;
mod compiled;
mod extract;
mod schema;

pub use acceptor::Acceptor;
pub use compiled::Grammar;
pub use extract::find;
pub use schema::Schema;
