//! Why there is no reply.

use std::fmt;

/// Why there is no reply, and whether it is worth asking for anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This request was not answered; another one may be.
    Request(String),
    /// No request will be, unless the user changes something: the key, the model's name, a template.
    Unusable(String),
    /// Whoever is asked does not answer any more.
    Gone(String),
    /// The budget is spent; which one.
    Budget(String),
    /// A signal asked to stop.
    Stopped,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Refusal::Request(why) | Refusal::Unusable(why) | Refusal::Gone(why) | Refusal::Budget(why) => {
                f.write_str(why)
            }
            Refusal::Stopped => f.write_str("stopped"),
        }
    }
}
