//! A second task, as small as one can be: write the larger of two numbers.

use super::{Settings, Split, Task, Verdict};
use crate::recipe::{Larger, Reward};
use anyhow::Result;
use serde_json::{Value, json};

impl Settings for Larger {
    fn sizes(&self) -> [usize; 3] {
        [self.problems; 3]
    }

    fn describe(&self) -> String {
        "two numbers below 10 each".into()
    }

    fn build(&self, _: &Reward) -> Result<Box<dyn Task>> {
        Ok(Box::new(LargerTask { problems: self.problems }))
    }
}

struct LargerTask {
    problems: usize,
}

impl LargerTask {
    fn numbers(split: Split, index: usize) -> [usize; 2] {
        [(3 * index + split as usize) % 10, (7 * index + 5) % 10]
    }

    fn larger(split: Split, index: usize) -> usize {
        let [a, b] = Self::numbers(split, index);
        a.max(b)
    }
}

impl Task for LargerTask {
    fn name(&self) -> &'static str {
        "larger"
    }

    fn len(&self, _: Split) -> usize {
        self.problems
    }

    fn variables(&self, split: Split, index: usize) -> Value {
        json!({ "numbers": Self::numbers(split, index) })
    }

    fn judge(&self, split: Split, index: usize, answer: &str) -> Verdict {
        let right = answer.trim() == Self::larger(split, index).to_string();
        Verdict { right, reason: if right { "right" } else { "not the larger one" }.into() }
    }

    fn right_answer(&self, split: Split, index: usize) -> Option<String> {
        Some(Self::larger(split, index).to_string())
    }

    fn wrong_answer(&self, _: Split, _: usize) -> String {
        "10".into()
    }
}
