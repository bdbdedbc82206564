//! PolitiFact: was a claim found to be true, half-true or false?
//!
//! Fact-checkers rated each claim with one of six ratings, of which the task makes three classes (`label`). The prompt
//! shows the claim; its speaker, context and subject are there for templates that ask for them.

mod files;
mod history;
mod label;
mod said;
mod settings;

pub use files::{Claim, LIAR, claims};
pub use label::{CLASSES, Order, class_of_answer};

use super::splits::warn_of_shared;
use super::{Classes, Split, Task, Verdict};
use crate::recipe::Politifact;
use crate::terminal;
use anyhow::{Context, Result};
use files::{ABOUT, splits};
use serde_json::{Map, Value};

/// The claims of the three splits.
pub struct PolitifactTask {
    /// In the order of `Split::ALL`.
    claims: [Vec<Claim>; 3],
    /// The class of each claim, in the same order.
    classes: [Vec<usize>; 3],
}

impl PolitifactTask {
    /// Reads the recipe's files.
    ///
    /// # Errors
    /// A bad file, or one with fewer rows than the recipe asks for.
    pub fn new(task: &Politifact) -> Result<Self> {
        let order = Order::of(&task.label_order).context("task.label_order")?;
        let claims = splits(task, order)?;
        warn_of_shared(&claims.each_ref().map(|split| split.iter().map(|claim| claim.text.to_lowercase()).collect()));
        let classes = claims.each_ref().map(|split| split.iter().map(|claim| claim.class).collect::<Vec<_>>());
        for (split, classes) in Split::ALL.iter().zip(&classes) {
            let absent: Vec<&str> = (0..CLASSES.len()).filter(|c| !classes.contains(c)).map(|c| CLASSES[c]).collect();
            if !absent.is_empty() {
                let (name, absent) = (split.name(), absent.join(" or "));
                terminal::warn(&format!("warning: no claim of the {name} split is {absent}"));
            }
        }
        Ok(Self { claims, classes })
    }

    fn claim(&self, split: Split, index: usize) -> &Claim {
        &self.claims[split as usize][index]
    }
}

impl Task for PolitifactTask {
    fn name(&self) -> &'static str {
        "politifact"
    }

    fn len(&self, split: Split) -> usize {
        self.claims[split as usize].len()
    }

    /// `{"claim": "Incomes are up."}`, with `speaker`, `context` and `subject` if the file has them.
    fn variables(&self, split: Split, index: usize) -> Value {
        let claim = self.claim(split, index);
        let about = ABOUT.iter().zip(&claim.about).filter_map(|(name, text)| Some((*name, text.as_ref()?)));
        let all = [("claim", &claim.text)].into_iter().chain(about);
        Value::Object(all.map(|(name, text)| (name.to_string(), text.as_str().into())).collect::<Map<_, _>>())
    }

    fn judge(&self, split: Split, index: usize, answer: &str) -> Verdict {
        let class = self.claim(split, index).class;
        match class_of_answer(answer) {
            Some(given) if given == class => Verdict { right: true, reason: "right".into() },
            Some(given) => Verdict { right: false, reason: format!("{}, not {}", CLASSES[class], CLASSES[given]) },
            None => Verdict { right: false, reason: "names no verdict".into() },
        }
    }

    fn right_answer(&self, split: Split, index: usize) -> Option<String> {
        Some(CLASSES[self.claim(split, index).class].into())
    }

    /// The next class.
    fn wrong_answer(&self, split: Split, index: usize) -> String {
        CLASSES[(self.claim(split, index).class + 1) % CLASSES.len()].into()
    }

    fn classes(&self) -> Option<Classes<'_>> {
        let truth = self.classes.each_ref().map(Vec::as_slice);
        Some(Classes { names: &CLASSES, truth, named: class_of_answer })
    }
}

#[cfg(test)]
mod tests;
