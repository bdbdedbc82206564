//! What a teacher is asked: a template for each arm, built in or a file.
//!
//! Variables: `task`, `form` (what the answer should look like) and, of a dialogue, `personas` (their number).

use super::grading::Kind;
use super::interface::Arm;
use super::problems::Problem;
use crate::text::PromptTemplate;
use crate::{WRITTEN, bad, read_text};
use anyhow::Result;
use serde_json::json;
use std::path::Path;

/// The templates of both arms.
pub struct Prompts {
    dialogue: PromptTemplate,
    monologue: PromptTemplate,
}

impl Prompts {
    /// The built-in templates, or those in files.
    ///
    /// # Errors
    /// Bad input: a file that cannot be read or has a mistake; its line.
    pub fn new(dialogue: Option<&Path>, monologue: Option<&Path>) -> Result<Self> {
        Ok(Self {
            dialogue: template("dialogue prompt", dialogue, include_str!("templates/dialogue.jinja"))?,
            monologue: template("monologue prompt", monologue, include_str!("templates/monologue.jinja"))?,
        })
    }

    /// What to ask about a problem.
    ///
    /// # Errors
    /// Bad input: a template names an unknown variable.
    pub fn render(&self, problem: &Problem, arm: Arm) -> Result<String> {
        let (task, form) = (&problem.task, form(problem.right.kind()));
        match arm {
            Arm::Dialogue { personas } => {
                self.dialogue.render(&json!({ "task": task, "form": form, "personas": personas }))
            }
            Arm::Monologue => self.monologue.render(&json!({ "task": task, "form": form })),
        }
    }
}

fn template(what: &str, file: Option<&Path>, built_in: &str) -> Result<PromptTemplate> {
    let Some(file) = file else { return PromptTemplate::of_source(&format!("built-in {what}"), built_in) };
    let source = read_text(file, WRITTEN).map_err(|error| bad!("{} cannot be read: {error}", file.display()))?;
    PromptTemplate::of_source(&format!("{what} {}", file.display()), &source)
}

fn form(kind: Kind) -> &'static str {
    match kind {
        Kind::Countdown => "one arithmetic expression",
        Kind::Choice => "the letter of the right choice, in parentheses",
        Kind::Number => "one number",
        Kind::Exact => "nothing but the answer, as short as it can be",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::teacher::grading::Right;
    use crate::text::persona::{Dialogue, Monologue};

    /// The layouts that are asked for are the ones that are read.
    #[test]
    fn a_teacher_who_copies_the_layout_is_understood() {
        let right = Right::of(Kind::Number, "7", &[]).unwrap();
        let problem = Problem { pid: "1".into(), task: "3 + 4?".into(), answer: "7".into(), right };
        let prompts = Prompts::new(None, None).unwrap();
        for personas in 2..=4 {
            let prompt = prompts.render(&problem, Arm::Dialogue { personas }).unwrap();
            let layout = &prompt[prompt.find("<cast").unwrap()..prompt.find("\n\nThe conversation").unwrap()];
            let dialogue = Dialogue::parse(layout).unwrap();
            assert_eq!((dialogue.counts().personas, dialogue.conclusion()), (personas, "one number"));
            assert_eq!(
                dialogue.write(),
                layout.replace("<answer>one number</answer>", "<answer>\none number\n</answer>")
            );
            assert!(
                prompt.contains(&format!("each of the {personas} people")) && prompt.trim_end().ends_with("3 + 4?")
            );
        }
        let prompt = prompts.render(&problem, Arm::Monologue).unwrap();
        let layout = &prompt[prompt.find("<think>").unwrap()..prompt.find("\n\nThe problem").unwrap()];
        assert_eq!(Monologue::parse(layout).unwrap().write(), layout);
    }

    #[test]
    fn a_template_of_ones_own_replaces_a_built_in_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("own.jinja");
        let right = Right::of(Kind::Choice, "B", &[]).unwrap();
        let problem = Problem { pid: "1".into(), task: "Which?".into(), answer: "B".into(), right };
        std::fs::write(&file, "{{ personas }} of you: {{ task }}").unwrap();
        let arm = Arm::Dialogue { personas: 3 };
        assert_eq!(Prompts::new(Some(&file), None).unwrap().render(&problem, arm).unwrap(), "3 of you: Which?");
        std::fs::write(&file, "{{ people }}").unwrap();
        let error = Prompts::new(Some(&file), None).unwrap().render(&problem, arm).unwrap_err().to_string();
        assert!(error.contains("own.jinja") && error.contains("the variables are: task, form, personas"), "{error}");
    }
}
