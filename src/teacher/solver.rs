//! Our own solver as the teacher of Countdown: no model, no costs. It draws traces until one is right, so that it drops
//! a problem only if that has no solution within bounds.

use super::grading::Right;
use super::interface::{Arm, Refusal, Reply, Request, Teacher};
use super::judge::judge;
use super::problems::Problem;
use crate::bad;
use crate::hash::number;
use crate::recipe::TraceStyle;
use crate::rng::{self, Purpose};
use crate::task::countdown::solver::solve;
use crate::task::countdown::{self, SolverOptions, solver_dialogue, solver_trace};
use anyhow::Result;
use serde_json::{Value, json};
use std::sync::Arc;

/// Traces drawn for a problem before it is given up.
const DRAWS: u64 = 64;
const OPTIONS: SolverOptions = SolverOptions { tries: [2, 10], insight: 0.3, more: 0, max_value: 9_999 };

/// The solver with a seed.
pub struct Solver {
    seed: u64,
}

impl Solver {
    /// A solver for these problems.
    ///
    /// # Errors
    /// Bad input: one of them is not of Countdown.
    pub fn new(problems: &[Arc<Problem>], seed: u64) -> Result<Self> {
        match problems.iter().find(|problem| !matches!(problem.right, Right::Countdown(_))) {
            None => Ok(Self { seed }),
            Some(other) => Err(bad!(
                "`{}` is not a problem of Countdown, which is all that our solver solves: name a teacher with --url \
                 and --model, or with --teacher",
                other.pid
            )),
        }
    }

    fn trace(&self, problem: &countdown::Problem, request: &Request, draw: u64) -> String {
        let index = number(format!("{problem:?}").as_bytes());
        let step = request.attempt * DRAWS + draw;
        let mut rng = rng::stream(self.seed, Purpose::Traces, step, index);
        match request.arm {
            Arm::Dialogue { personas } => solver_dialogue(problem, personas, &OPTIONS, &mut rng),
            Arm::Monologue => solver_trace(problem, TraceStyle::Monologue, &OPTIONS, &mut rng),
        }
    }
}

impl Teacher for Solver {
    fn identity(&self) -> Value {
        json!({ "solver": env!("CARGO_PKG_VERSION"), "seed": self.seed })
    }

    fn ask(&self, requests: &[Request]) -> Vec<Result<Reply, Refusal>> {
        let reply = |request: &Request| {
            let Right::Countdown(problem) = &request.problem.right else {
                return Err(Refusal::Request("not a problem of Countdown".into()));
            };
            if solve(problem, OPTIONS.max_value).is_none() {
                return Err(Refusal::Request("it has no solution within bounds".into()));
            }
            let replies = (0..DRAWS).map(|draw| Reply { text: self.trace(problem, request, draw), ..Reply::default() });
            let mut last = Reply::default();
            for reply in replies {
                if judge(&request.problem, request.arm, &reply).is_ok() {
                    return Ok(reply);
                }
                last = reply;
            }
            Ok(last)
        };
        requests.iter().map(reply).collect()
    }
}
