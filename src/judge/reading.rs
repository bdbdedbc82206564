//! How a trace is judged, whoever does it: one question after another, each with a small reply of a fixed form.
//!
//! Decided: a few requests per trace. A reply of a few fields parses better than one of all of them, and questions that
//! are asked together colour each other. Whose a part is is asked last, with the perspectives that were found; where
//! there is one, everything is its own, and nothing is asked.
//!
//! Parts fail one by one: a question without an answer is missing from its own figures and from no others, since what
//! is hard to answer (whose is each of a hundred parts?) is not hard at random. Of perspectives beyond the most that
//! may be named, and of an expertise beyond its length, what was asked for is kept and the rest is noted: the judge has
//! understood the question and said more than it wants. A list of marks of the wrong length is no answer.
//!
//! Where nobody says anything, nothing is asked: nothing happens there, and there are no perspectives.

use super::interface::{COGNITIVE, CONVERSATIONAL, Judgement, Missing, Perspective, ROLES, Refusal, Segment, Trace};
use super::prompts::{MAX_EXPERTISE, MAX_PERSPECTIVES, Prompts, Question, perspectives_variables, segments_variables};
use super::units::Units;
use super::voices::speeches;
use crate::grammar::Schema;
use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

/// Largest count.
const MAX_COUNT: u32 = 999;
/// Perspectives, and characters of an expertise, that are read before they are cut.
const READ_PERSPECTIVES: usize = 100;
const READ_EXPERTISE: usize = 4000;

/// A trace, and what was found out about it.
pub struct Reading<'a> {
    trace: &'a Trace,
    units: Units,
    found: Judgement,
}

impl<'a> Reading<'a> {
    pub fn new(trace: &'a Trace) -> Self {
        let units = Units::of(&trace.text);
        let mut found = Judgement::default();
        if units.len() == 0 || speeches(&trace.text).is_empty() {
            found.conversational = Some([0; 4]);
            found.roles = Some([0; 12]);
            found.cognitive = Some([0; 4]);
            found.perspectives = Some(vec![]);
        }
        Self { trace, units, found }
    }

    /// Whether a question needs to be asked, now that those before it are answered.
    pub fn asks(&self, question: Question) -> bool {
        match question {
            Question::Segments => self.perspectives().len() > 1,
            _ => self.found.perspectives.as_ref().is_none_or(|all| !all.is_empty()),
        }
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

    /// What the reply is to look like.
    pub fn schema(&self, question: Question) -> Schema {
        self.schema_of(question, MAX_PERSPECTIVES, MAX_EXPERTISE)
    }

    /// The replies that are read: those, and those that say more than was asked for.
    pub fn accepts(&self, question: Question) -> Schema {
        self.schema_of(question, READ_PERSPECTIVES, READ_EXPERTISE)
    }

    fn schema_of(&self, question: Question, most: usize, letters: usize) -> Schema {
        let count = Schema::Integer { min: 0, max: MAX_COUNT };
        match question {
            Question::Conversational => Schema::object(CONVERSATIONAL, &count),
            Question::Roles => Schema::object(ROLES, &count),
            Question::Cognitive => Schema::object(COGNITIVE, &count),
            Question::Perspectives => {
                let bfi = Schema::List { item: Box::new(Schema::Integer { min: 1, max: 5 }), min: 10, max: 10 };
                let expertise = Schema::Text { max: letters };
                let one = Schema::Object(vec![("expertise".into(), expertise), ("bfi".into(), bfi)]);
                Schema::object(["perspectives"], &Schema::List { item: Box::new(one), min: 1, max: most })
            }
            Question::Segments => {
                let parts = (1..=self.units.len()).map(|number| number.to_string());
                Schema::object(parts, &Schema::Integer { min: 0, max: self.perspectives().len() as u32 })
            }
        }
    }

    /// Notes that a question has no answer.
    pub fn miss(&mut self, question: Question, why: String) {
        self.found.missing.push(Missing { part: question.name().to_string(), why });
    }

    /// Takes a reply, which must be one that is accepted.
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
                if all.len() > MAX_PERSPECTIVES {
                    let note = format!("{} perspectives were named, the first {MAX_PERSPECTIVES} count", all.len());
                    self.found.notes.push(note);
                }
                let mut perspective = |one: One| {
                    let whole = one.expertise.trim();
                    let expertise: String = whole.chars().take(MAX_EXPERTISE).collect();
                    if expertise.len() < whole.len() {
                        self.found.notes.push(format!("an expertise was cut after {MAX_EXPERTISE} characters"));
                    }
                    Perspective { bfi: Some(one.bfi), expertise: Some(expertise) }
                };
                let perspectives = all.into_iter().take(MAX_PERSPECTIVES).map(&mut perspective).collect();
                self.found.perspectives = Some(perspectives);
            }
            Question::Segments => {
                let of = |number: usize| usize::deserialize(&reply[&number.to_string()]);
                let perspectives = (1..=self.units.len()).map(of).collect::<Result<Vec<_>, _>>()?;
                self.found.segments = self.units.segments(&self.trace.text, &perspectives);
            }
        }
        Ok(())
    }

    /// What was found out.
    ///
    /// # Errors
    /// Nothing; why the first question has no answer.
    pub fn judgement(mut self) -> Result<Judgement, Refusal> {
        let Judgement { conversational, roles, cognitive, perspectives, missing, .. } = &self.found;
        let nothing = conversational.is_none() && roles.is_none() && cognitive.is_none() && perspectives.is_none();
        if let (true, Some(Missing { part, why })) = (nothing, missing.first()) {
            return Err(Refusal(format!("{part}: {why}")));
        }
        if self.perspectives().len() == 1 {
            self.found.segments = self.whole();
        }
        Ok(self.found)
    }

    fn whole(&self) -> Vec<Segment> {
        self.units.segments(&self.trace.text, &vec![1; self.units.len()])
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
        let mut reading = Reading::new(&trace);
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
        let judgement = reading.judgement().unwrap();
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
        let mut reading = Reading::new(&trace);
        reading
            .take(Question::Perspectives, &json!({"perspectives": [{"expertise": "a", "bfi": vec![3; 10]}]}))
            .unwrap();
        assert!(!reading.asks(Question::Segments));
        assert_eq!(reading.judgement().unwrap().segments, [Segment { start: 1, end: 10, perspective: 0 }]);
    }

    #[test]
    fn where_nobody_speaks_nothing_happens() {
        for text in ["", "<think>\n", "<think></think><answer>7</answer>", "<think></think>It is 7."] {
            let trace = Trace { problem: "?".into(), text: text.into() };
            let reading = Reading::new(&trace);
            assert!(!Question::ALL.iter().any(|question| reading.asks(*question)));
            let judgement = reading.judgement().unwrap();
            let lexical = crate::judge::lexical::judgement(text);
            assert_eq!((judgement.conversational, judgement.perspectives), (Some([0; 4]), Some(vec![])));
            assert_eq!((lexical.conversational, lexical.perspectives), (Some([0; 4]), Some(vec![])), "{text}");
        }
    }

    #[test]
    fn parts_are_missing_one_by_one() {
        let trace = Trace { problem: String::new(), text: "One. Two.".into() };
        let mut reading = Reading::new(&trace);
        reading.miss(Question::Conversational, "no reply".into());
        assert_eq!(Reading::new(&trace).judgement(), Ok(Judgement::default()));
        reading
            .take(
                Question::Cognitive,
                &json!({"verification": 1, "backtracking": 0, "subgoal_setting": 0,
            "backward_chaining": 0}),
            )
            .unwrap();
        let judgement = reading.judgement().unwrap();
        assert_eq!((judgement.conversational, judgement.cognitive), (None, Some([1, 0, 0, 0])));
        assert_eq!(judgement.missing, [Missing { part: "conversational".into(), why: "no reply".into() }]);
        let mut reading = Reading::new(&trace);
        reading.miss(Question::Conversational, "no reply".into());
        reading.miss(Question::Roles, "no JSON".into());
        assert_eq!(reading.judgement(), Err(Refusal("conversational: no reply".into())));
    }

    #[test]
    fn more_than_was_asked_for_is_cut_and_said() {
        let trace = Trace { problem: String::new(), text: "One. Two.".into() };
        let mut reading = Reading::new(&trace);
        let voice = |letters: usize| json!({ "expertise": "é".repeat(letters), "bfi": vec![3; 10] });
        let reply = json!({ "perspectives": (0..9).map(|at| voice(115 + at)).collect::<Vec<_>>() });
        let question = Question::Perspectives;
        assert!(reading.schema(question).check(&reply).is_err() && reading.accepts(question).check(&reply).is_ok());
        reading.take(question, &reply).unwrap();
        let judgement = reading.judgement().unwrap();
        let lengths: Vec<_> =
            judgement.perspectives.unwrap().iter().map(|one| one.expertise.clone().unwrap().chars().count()).collect();
        assert_eq!(lengths, [115, 116, 117, 118, 119, 120, 120, 120]);
        assert_eq!(judgement.notes.len(), 3);
        assert_eq!(judgement.notes[0], "9 perspectives were named, the first 8 count");
    }
}
