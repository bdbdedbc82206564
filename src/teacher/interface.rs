//! What a teacher is: requests in, replies or refusals out.

use super::problems::Problem;
use serde_json::{Value, json};
use std::fmt;
use std::sync::Arc;

/// The two ways to solve a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// A conversation of so many personas.
    Dialogue {
        personas: usize,
    },
    Monologue,
}

impl Arm {
    /// The arm's name in files.
    pub fn name(self) -> &'static str {
        match self {
            Arm::Dialogue { .. } => "dialogue",
            Arm::Monologue => "monologue",
        }
    }
}

/// A question to the teacher.
#[derive(Clone, Debug)]
pub struct Request {
    pub problem: Arc<Problem>,
    pub arm: Arm,
    /// How often this was asked before, for another answer each time.
    pub attempt: u64,
    /// What the teacher is shown.
    pub prompt: String,
}

impl Request {
    /// What the answer depends on, if the teacher is `identity`.
    pub fn identity(&self, identity: &Value) -> Value {
        json!({ "teacher": identity, "attempt": self.attempt, "prompt": self.prompt })
    }
}

/// What a teacher wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    pub text: String,
    /// Whether it was cut off at the longest length.
    pub cut: bool,
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

/// Why there is no reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// This request was not answered; another one may be.
    Request(String),
    /// No request will be, unless the user changes something: the key, the model's name, a template.
    Teacher(String),
    /// The teacher does not answer any more.
    Gone(String),
    /// The budget is spent; which one.
    Budget(String),
    /// A signal asked to stop.
    Stopped,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Refusal::Request(why) | Refusal::Teacher(why) | Refusal::Gone(why) | Refusal::Budget(why) => {
                f.write_str(why)
            }
            Refusal::Stopped => f.write_str("stopped"),
        }
    }
}

/// Somebody who solves problems.
pub trait Teacher: Send + Sync {
    /// What its answers depend on besides the request: the model and how it samples. No secrets.
    fn identity(&self) -> Value;

    /// How many requests it likes to get at a time.
    fn batch(&self) -> usize {
        1
    }

    /// One outcome per request.
    fn ask(&self, requests: &[Request]) -> Vec<Result<Reply, Refusal>>;
}
