//! What a teacher is: requests in, replies or refusals out.

use super::problems::Problem;
pub use crate::endpoint::{Refusal, Reply};
use serde_json::{Value, json};
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

/// Somebody who solves problems.
pub trait Teacher: Send + Sync {
    /// What its answers depend on besides the request: the model and how it samples. No secrets.
    fn identity(&self) -> Value;

    /// How many requests it likes to get at a time.
    fn batch(&self) -> usize {
        1
    }

    /// One outcome per request. What it costs is the teacher's to take from its budget; our own solver has none.
    fn ask(&self, requests: &[Request]) -> Vec<Result<Reply, Refusal>>;
}
