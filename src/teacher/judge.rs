//! What a reply is worth: a trace whose layout and answer are right, or the reason why it is dropped.

use super::interface::{Arm, Reply};
use super::problems::Problem;
use crate::text::persona::{Dialogue, Monologue};
use serde_json::{Value, json};
use std::fmt;

/// A solution in the layout of its arm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// Tidy: without the text around the blocks.
    pub text: String,
    /// Words of the utterances or of the thought.
    pub words: usize,
    /// Utterances; of a monologue, 1.
    pub turns: usize,
}

/// Why a solution is dropped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The answer is not the right one.
    Wrong(String),
    /// The layout is not the one that was asked for: what the parser says.
    Layout(String),
    /// The reply was cut off at the longest length.
    Cut,
    /// There is no reply.
    Refused(String),
}

impl Flaw {
    /// The names of the kinds of flaws, in the order of a report.
    pub const NAMES: [&str; 4] = ["wrong answer", "layout", "cut off", "no reply"];

    pub fn name(&self) -> &'static str {
        match self {
            Flaw::Wrong(_) => Self::NAMES[0],
            Flaw::Layout(_) => Self::NAMES[1],
            Flaw::Cut => Self::NAMES[2],
            Flaw::Refused(_) => Self::NAMES[3],
        }
    }

    /// For the report.
    pub fn json(&self) -> Value {
        json!({ "why": self.name(), "detail": self.to_string() })
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Flaw::Wrong(detail) | Flaw::Layout(detail) | Flaw::Refused(detail) => f.write_str(detail),
            Flaw::Cut => f.write_str("at the longest length"),
        }
    }
}

/// Judges a reply to a problem.
///
/// # Errors
/// Why it is dropped.
pub fn judge(problem: &Problem, arm: Arm, reply: &Reply) -> Result<Trace, Flaw> {
    if reply.cut {
        return Err(Flaw::Cut);
    }
    let text = without_reasoning(&reply.text);
    let layout = |what: &dyn fmt::Display| Flaw::Layout(what.to_string());
    let (trace, conclusion) = match arm {
        Arm::Dialogue { personas } => {
            let dialogue = Dialogue::parse(text).map_err(|remark| layout(&remark))?;
            let counts = dialogue.counts();
            if counts.personas != personas {
                return Err(layout(&format_args!("{} personas, {personas} were asked for", counts.personas)));
            }
            if let Some(silent) = (1..=personas).find(|number| !dialogue.speaks(*number)) {
                return Err(layout(&format_args!("persona {silent} never speaks")));
            }
            let trace = Trace { text: dialogue.write(), words: counts.words, turns: counts.turns };
            (trace, dialogue.conclusion().to_string())
        }
        Arm::Monologue => {
            let monologue = Monologue::parse(text).map_err(|remark| layout(&remark))?;
            let trace = Trace { text: monologue.write(), words: monologue.words(), turns: 1 };
            (trace, monologue.answer.to_string())
        }
    };
    problem.right.judge(&conclusion).map_err(Flaw::Wrong)?;
    Ok(trace)
}

/// What a reasoning model writes after a think block of its own.
fn without_reasoning(text: &str) -> &str {
    let after = text.trim_start().strip_prefix("<think>").and_then(|rest| rest.split_once("</think>"));
    let after = after.map(|(_, after)| after.trim_start());
    after.filter(|after| after.starts_with("<think>") || after.starts_with("<cast_of_characters>")).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::super::grading::{Kind, Right};
    use super::*;

    #[test]
    fn replies_are_traces_or_have_a_flaw() {
        let right = Right::of(Kind::Number, "7", &[]).unwrap();
        let problem = Problem { pid: "1".into(), task: "3 + 4?".into(), answer: "7".into(), right };
        let judged = |arm: Arm, text: &str| judge(&problem, arm, &Reply { text: text.into(), ..Reply::default() });
        let pair = Arm::Dialogue { personas: 2 };
        let text = "Sure!\n<cast_of_characters><persona1>A</persona1><persona2>B</persona2></cast_of_characters>\
            <conversation><think2>3 and 4</think2><think1>So 7</think1></conversation>\
            <group_solution>seven</group_solution><answer>7</answer>";
        let trace = judged(pair, text).unwrap();
        assert_eq!((trace.words, trace.turns), (5, 2));
        assert!(trace.text.starts_with("<cast_of_characters>\n<persona1>\nA\n"), "{}", trace.text);
        let detail = |arm: Arm, text: &str| judged(arm, text).map_err(|flaw| (flaw.name(), flaw.to_string()));
        let flaw = |name, detail: &str| Err((name, detail.to_string()));
        let three = Arm::Dialogue { personas: 3 };
        assert_eq!(detail(three, text), flaw("layout", "2 personas, 3 were asked for"));
        let silent = text.replace("think1", "think2");
        assert_eq!(detail(pair, &silent), flaw("layout", "persona 1 never speaks"));
        assert_eq!(detail(pair, &text.replace(">7<", ">8<")), flaw("wrong answer", "8"));
        let broken = flaw("layout", "line 1, byte 0: expected `<cast_of_characters>`, found `<think>`");
        assert_eq!(detail(pair, "<think>a</think>7"), broken);
        assert_eq!(judged(Arm::Monologue, "<think>a b</think>7").unwrap().words, 2);
        assert_eq!(detail(Arm::Monologue, "7").unwrap_err().0, "layout");
        // A reasoning model thinks in a block of its own first.
        let own = "<think>\nHm <persona1>\n</think>\n\n";
        let dialogue = text.trim_start_matches("Sure!\n");
        assert_eq!(judged(pair, &format!("{own}{dialogue}")).unwrap(), trace);
        let monologue = judged(Arm::Monologue, &format!("{own}<think>a b</think>7")).unwrap();
        assert_eq!(monologue.text, "<think>\na b\n</think>\n\n7");
        let cut = Reply { text: "<think>a</think>7".into(), cut: true };
        assert_eq!(judge(&problem, Arm::Monologue, &cut), Err(Flaw::Cut));
    }
}
