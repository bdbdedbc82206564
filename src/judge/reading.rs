//! How a trace is judged, whoever does it: one question after another, each with a small reply of a fixed form.
//!
//! Decided: a few requests per trace. A reply of a few fields parses better than one of all of them, and questions that
//! are asked together colour each other. Whose a part is is asked last, with the perspectives that were found; where
//! there is one, everything is its own, and nothing is asked.

use super::interface::{COGNITIVE, CONVERSATIONAL, Judgement, Perspective, ROLES, Refusal, Segment, Trace};
use super::prompts::{MAX_EXPERTISE, MAX_PERSPECTIVES, Prompts, Question, perspectives_variables, segments_variables};
use super::units::Units;
use crate::grammar::Schema;
use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

/// Largest count.
const MAX_COUNT: u32 = 999;

/// A trace, and what was found out about it.
pub struct Reading<'a> {
    trace: &'a Trace,
    units: Units,
    found: Judgement,
}

impl<'a> Reading<'a> {
    /// # Errors
    /// There is nothing to judge.
    pub fn new(trace: &'a Trace) -> Result<Self, Refusal> {
        let units = Units::of(&trace.text);
        if units.len() == 0 {
            return Err(Refusal("there is no text to judge".into()));
        }
        Ok(Self { trace, units, found: Judgement::default() })
    }

    /// Whether a question needs to be asked, now that those before it are answered.
    pub fn asks(&self, question: Question) -> bool {
        question != Question::Segments || self.perspectives().len() > 1
    }

    /// What to ask.
    ///
    /// # Errors
    /// Bad input: a template cannot be rendered.
    pub fn prompt(&self, prompts: &Prompts, question: Question) -> Result<String> {
        let trace = prompts.trace(&self.trace.problem, &self.units.lines(&self.trace.text))?;
        let variables = match question {
            Question::Perspectives => perspectives_variables(),
            Question::Segments => {
                let names = self.perspectives().iter().map(|one| one.expertise.as_deref().unwrap_or_default());
                let names: Vec<&str> = names.collect();
                segments_variables(&names, self.units.len())
            }
            _ => json!({}),
        };
        Ok(trace + &prompts.question(question, &variables)?)
    }

    /// What the reply must look like.
    pub fn schema(&self, question: Question) -> Schema {
        let count = Schema::Integer { min: 0, max: MAX_COUNT };
        match question {
            Question::Conversational => Schema::object(CONVERSATIONAL, &count),
            Question::Roles => Schema::object(ROLES, &count),
            Question::Cognitive => Schema::object(COGNITIVE, &count),
            Question::Perspectives => {
                let bfi = Schema::List { item: Box::new(Schema::Integer { min: 1, max: 5 }), min: 10, max: 10 };
                let expertise = Schema::Text { max: MAX_EXPERTISE };
                let one = Schema::Object(vec![("expertise".into(), expertise), ("bfi".into(), bfi)]);
                let all = Schema::List { item: Box::new(one), min: 1, max: MAX_PERSPECTIVES };
                Schema::object(["perspectives"], &all)
            }
            Question::Segments => {
                let parts = (1..=self.units.len()).map(|number| number.to_string());
                Schema::object(parts, &Schema::Integer { min: 0, max: self.perspectives().len() as u32 })
            }
        }
    }

    /// Takes a reply, which must fit the schema.
    ///
    /// # Errors
    /// It does not: a bug of ours, since it was checked.
    pub fn take(&mut self, question: Question, reply: &Value) -> Result<()> {
        match question {
            Question::Conversational => self.found.conversational = Some(counts(reply, CONVERSATIONAL)?),
            Question::Roles => self.found.roles = Some(counts(reply, ROLES)?),
            Question::Cognitive => self.found.cognitive = Some(counts(reply, COGNITIVE)?),
            Question::Perspectives => {
                #[derive(Deserialize)]
                struct One {
                    expertise: String,
                    bfi: [u8; 10],
                }
                let all = Vec::<One>::deserialize(&reply["perspectives"])?;
                let perspective =
                    |one: One| Perspective { bfi: Some(one.bfi), expertise: Some(one.expertise.trim().to_string()) };
                self.found.perspectives = Some(all.into_iter().map(perspective).collect());
            }
            Question::Segments => {
                let of = |number: usize| usize::deserialize(&reply[&number.to_string()]);
                let perspectives = (1..=self.units.len()).map(of).collect::<Result<Vec<_>, _>>()?;
                self.found.segments = self.units.segments(&perspectives);
            }
        }
        Ok(())
    }

    /// What was found out.
    pub fn judgement(mut self) -> Judgement {
        if self.perspectives().len() == 1 {
            self.found.segments = self.whole();
        }
        self.found
    }

    fn whole(&self) -> Vec<Segment> {
        self.units.segments(&vec![1; self.units.len()])
    }

    fn perspectives(&self) -> &[Perspective] {
        self.found.perspectives.as_deref().unwrap_or_default()
    }
}

/// The counts of these names, in their order.
fn counts<const N: usize>(reply: &Value, names: [&str; N]) -> Result<[u32; N]> {
    let mut counts = [0; N];
    for (count, name) in counts.iter_mut().zip(names) {
        *count = u32::deserialize(&reply[name])?;
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grammar::find;

    /// A judge who copies the layouts, with numbers in the places, is understood.
    #[test]
    fn the_layouts_that_are_asked_for_are_the_ones_that_are_read() {
        let prompts = Prompts::new(None).unwrap();
        let trace = Trace { problem: "3 + 4?".into(), text: "<think1>\nIs it 8? No.\n</think1>\n7".into() };
        let mut reading = Reading::new(&trace).unwrap();
        for question in Question::ALL {
            assert!(reading.asks(question));
            let prompt = reading.prompt(&prompts, question).unwrap();
            assert!(prompt.contains("3 + 4?\n====") && prompt.contains("\n[2] No.\n</think1>\n[3] 7\n"), "{prompt}");
            let layout = prompt.trim_end().lines().last().unwrap();
            let reply = match question {
                Question::Perspectives => layout
                    .replace('N', "4")
                    .replace('T', " logic ")
                    .replace("}]}", "}, {\"expertise\": \"doubt\", \"bfi\": [1, 1, 1, 1, 1, 1, 1, 1, 1, 5]}]}"),
                Question::Segments => {
                    assert!(
                        prompt.contains("1. logic\n2. doubt\n") && prompt.contains("from \"1\" to \"3\""),
                        "{prompt}"
                    );
                    layout.replace('P', "2").replace("and so on", "\"3\": 0")
                }
                _ => layout.replace('N', "3"),
            };
            let reply = find(&reply, &reading.schema(question)).unwrap();
            reading.take(question, &reply).unwrap();
        }
        let judgement = reading.judgement();
        assert_eq!(
            (judgement.conversational, judgement.roles, judgement.cognitive),
            (Some([3; 4]), Some([3; 12]), Some([3; 4]))
        );
        let perspectives = judgement.perspectives.unwrap();
        assert_eq!(perspectives[0], Perspective { bfi: Some([4; 10]), expertise: Some("logic".into()) });
        assert_eq!(perspectives[1].bfi, Some([1, 1, 1, 1, 1, 1, 1, 1, 1, 5]));
        assert_eq!(judgement.segments, [Segment { start: 9, end: 21, perspective: 1 }]);
    }

    #[test]
    fn one_perspective_has_the_whole_text() {
        let trace = Trace { problem: String::new(), text: " One. Two. ".into() };
        let mut reading = Reading::new(&trace).unwrap();
        reading
            .take(Question::Perspectives, &json!({"perspectives": [{"expertise": "a", "bfi": vec![3; 10]}]}))
            .unwrap();
        assert!(!reading.asks(Question::Segments));
        assert_eq!(reading.judgement().segments, [Segment { start: 1, end: 10, perspective: 0 }]);
        let empty = Trace { problem: "?".into(), text: "<think>\n".into() };
        assert_eq!(Reading::new(&empty).err(), Some(Refusal("there is no text to judge".into())));
    }
}
