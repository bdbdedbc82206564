//! Traces of tasks, as priming sets have them: rows with a `task`, its `answer`, and how it was solved, as a `dialogue`
//! of personas or a `monologue`.

use super::lengths::{Measured, lengthened, nearest, shortened};
use super::trace::Trace;
use crate::recipe::FileData;
use crate::task::layout::after_open_think;
use crate::text::persona::{Block, Dialogue, Monologue, merge_utterances};
use crate::text::tags::Tag;
use crate::text::{PromptTemplate, Tokenizer, opens_think};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};
use std::error::Error;
use std::fmt;
use std::path::Path;

/// The columns of such a row.
pub const COLUMNS: [&str; 5] = ["pid", "task", "answer", "dialogue", "monologue"];

/// What a monologue says before its paragraphs are repeated.
const AGAIN: &str = "Let me go over this once more.";

/// Whether a row has a trace.
pub fn has_trace(row: &Map<String, Value>) -> bool {
    ["dialogue", "monologue"].iter().any(|key| row.get(*key).is_some_and(|value| !value.is_null()))
}

/// Makes prompts and responses of rows with a task, as the recipe wants them.
pub struct Tasks<'a> {
    data: &'a FileData,
    template: PromptTemplate,
    tokenizer: &'a Tokenizer,
}

impl<'a> Tasks<'a> {
    /// # Errors
    /// Bad input: a template that cannot be used.
    pub fn new(data: &'a FileData, tokenizer: &'a Tokenizer, tokenizer_dir: &Path) -> Result<Self> {
        Ok(Self { data, template: PromptTemplate::new(&data.template, tokenizer_dir)?, tokenizer })
    }

    /// The trace of a row; if the recipe says so, as long as that of its `partner`.
    ///
    /// # Errors
    /// `Unreadable`: a layout that cannot be read, the partner's included, with tag and place. Else: a missing or empty
    /// key; a partner that solves another task.
    pub fn trace(&self, row: &Map<String, Value>, partner: Option<&Map<String, Value>>) -> Result<Trace> {
        let (task, answer) = (text(row, "task")?, answer(row)?);
        let solved = Solved::of(row)?;
        let prompt = self.template.render(&json!({ "task": task }))?;
        let write = |solved: &Solved| solved.write(self.data, opens_think(&prompt));
        let (mut response, mut wanted) = (write(&solved), None);
        if let Some(partner) = partner {
            let (other_task, other_answer) = (text(partner, "task")?, self::answer(partner)?);
            ensure!(task == other_task, "key `task`: the partner solves another task");
            ensure!(answer == other_answer, "key `answer`: {answer}, but {other_answer} in the partner");
            let other = write(&Solved::of(partner).context("in the partner")?);
            if self.data.match_lengths {
                let tokens = self.tokenizer.encode(&other)?.len();
                response = self.as_long_as(&solved, tokens, response, &write)?;
                wanted = Some(tokens);
            }
        }
        let problem = json!([task, answer]).to_string();
        Ok(Trace { prompt, response, problem, wanted, taggable: !self.data.answer_tags, ..Trace::default() })
    }

    /// `solved` in as nearly `wanted` tokens as can be; `plain` is its text as it is, and `write` writes others.
    fn as_long_as(
        &self,
        solved: &Solved,
        wanted: usize,
        plain: String,
        write: &dyn Fn(&Solved) -> String,
    ) -> Result<String> {
        let plain = Measured::of(self.tokenizer, plain)?;
        let longer = plain.tokens > wanted;
        // What is right already stays as it is, to the letter.
        let first = std::iter::once(Ok(plain));
        let texts: Box<dyn Iterator<Item = String>> = match solved {
            Solved::Dialogue(dialogue) if longer => Box::new(shortened(&dialogue.turns).skip(1).map(|turns| {
                let shorter = Dialogue { turns, ..dialogue.clone() };
                write(&Solved::Dialogue(shorter))
            })),
            // Nobody can be made to say more.
            Solved::Dialogue(_) => Box::new(std::iter::empty()),
            Solved::Monologue(monologue) => {
                let (units, divider) = units(monologue.thought.text);
                let lists: Vec<Vec<&str>> = match longer {
                    true => shortened(&units).skip(1).collect(),
                    // Each repeats at least a token more than the one before.
                    false => lengthened(&units, AGAIN).skip(1).take(wanted).collect(),
                };
                let joined = move |units: Vec<&str>| {
                    let thought = Block { text: &units.join(divider), ..monologue.thought.clone() };
                    write(&Solved::Monologue(Monologue { thought, ..monologue.clone() }))
                };
                Box::new(lists.into_iter().map(joined))
            }
        };
        nearest(wanted, first.chain(texts.map(|text| Measured::of(self.tokenizer, text))))
    }
}

/// The paragraphs of a text, or its lines if there are hardly any; and what divides them.
fn units(text: &str) -> (Vec<&str>, &'static str) {
    let parts = |divider| text.split(divider).filter(|unit| !unit.trim().is_empty()).collect::<Vec<_>>();
    let paragraphs = parts("\n\n");
    if paragraphs.len() > 2 { (paragraphs, "\n\n") } else { (parts("\n"), "\n") }
}

/// Why a trace cannot be read. Models write traces, so some of them are broken.
#[derive(Debug)]
pub struct Unreadable(String);

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Error for Unreadable {}

/// A trace that was read.
enum Solved<'a> {
    Dialogue(Dialogue<'a>),
    Monologue(Monologue<'a>),
}

impl<'a> Solved<'a> {
    fn of(row: &'a Map<String, Value>) -> Result<Self> {
        let has = |key: &str| row.get(key).is_some_and(|value| !value.is_null());
        match (has("dialogue"), has("monologue")) {
            (true, true) => bail!("both `dialogue` and `monologue`: keep one of them"),
            (true, false) => {
                let dialogue = Dialogue::parse(text(row, "dialogue")?);
                Ok(Self::Dialogue(dialogue.map_err(|remark| Unreadable(format!("key `dialogue`, {remark}")))?))
            }
            (false, _) => {
                let monologue = Monologue::parse(text(row, "monologue")?);
                Ok(Self::Monologue(monologue.map_err(|remark| Unreadable(format!("key `monologue`, {remark}")))?))
            }
        }
    }

    /// The response, as the recipe's keys change it; without its `<think>` if the prompt has `opened` it.
    fn write(&self, data: &FileData, opened: bool) -> String {
        let text = match self {
            Self::Dialogue(dialogue) if data.merge_utterances => {
                merge_utterances(dialogue, data.answer_tags || dialogue.answer().is_some())
            }
            Self::Dialogue(dialogue) if data.answer_tags => {
                let answer = Block { tag: Tag::Answer, text: dialogue.conclusion(), span: 0..0 };
                Dialogue { ending: vec![answer], ..dialogue.clone() }.write()
            }
            Self::Dialogue(dialogue) => dialogue.write(),
            Self::Monologue(monologue) => {
                Monologue { tagged: monologue.tagged || data.answer_tags, ..monologue.clone() }.write()
            }
        };
        if opened { after_open_think(&text).to_string() } else { text }
    }
}

/// A row's answer: a text or a number.
fn answer(row: &Map<String, Value>) -> Result<&Value> {
    let value = row.get("answer").context("missing key `answer`")?;
    ensure!(value.is_string() || value.is_number(), "key `answer`: expected a string or a number");
    Ok(value)
}

/// A text that is not blank.
fn text<'a>(row: &'a Map<String, Value>, key: &str) -> Result<&'a str> {
    let value = row.get(key).with_context(|| format!("missing key `{key}`"))?;
    ensure!(!value.is_null(), "key `{key}` is null");
    let text = value.as_str().with_context(|| format!("key `{key}`: expected a string"))?;
    ensure!(!text.trim().is_empty(), "key `{key}` is blank");
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIALOGUE: &str = "<cast_of_characters>\n<persona1>\nA cook\n</persona1>\n<persona2>\nA clerk\n</persona2>\n\
        </cast_of_characters>\n<conversation>\n<think1>\nIs it 1+2?\n</think1>\n<think2>\nNo, it is 2+2.\n</think2>\n\
        <think1>\nThat is 4.\n</think1>\n</conversation>\n<group_solution>\n4\n</group_solution>";
    const MONOLOGUE: &str = "<think>\nIt may be 1+2.\n\nNo, 2+2.\n\nThat is 4.\n</think>\n\n4";

    /// A row with one of the two.
    fn row(key: &str, text: &str) -> Map<String, Value> {
        match json!({ "task": "What is 2+2?", "answer": "4", key: text }) {
            Value::Object(row) => row,
            _ => unreachable!(),
        }
    }

    /// The response to such a row, under these keys, and its number of tokens.
    fn response(key: &str, text: &str, keys: &str, partner: Option<(&str, &str)>) -> Result<(String, usize), String> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/countdown-base");
        let tokenizer = Tokenizer::from_dir(&dir).unwrap();
        let data: FileData = toml::from_str(&format!("path = 'x'\n{keys}")).unwrap();
        let tasks = Tasks::new(&data, &tokenizer, &dir).unwrap();
        let partner = partner.map(|(key, text)| row(key, text));
        let trace = tasks.trace(&row(key, text), partner.as_ref()).map_err(|error| format!("{error:#}"))?;
        assert!(trace.prompt.ends_with("\nUser: What is 2+2?\nAssistant:"), "{}", trace.prompt);
        assert_eq!(trace.problem, r#"["What is 2+2?","4"]"#);
        let tokens = tokenizer.encode(&trace.response).unwrap().len();
        Ok((trace.response, tokens))
    }

    #[test]
    fn the_keys_of_a_recipe_change_traces() {
        let plain = |key: &str, text: &str, keys: &str| response(key, text, keys, None).unwrap().0;
        assert_eq!(plain("dialogue", DIALOGUE, ""), DIALOGUE);
        assert_eq!(plain("monologue", MONOLOGUE, ""), MONOLOGUE);
        let (before, _) = DIALOGUE.split_once("<group_solution>").unwrap();
        assert_eq!(plain("dialogue", DIALOGUE, "answer_tags = true"), format!("{before}<answer>\n4\n</answer>"));
        let tagged = MONOLOGUE.replace("\n\n4", "\n<answer>4</answer>");
        assert_eq!(plain("monologue", MONOLOGUE, "answer_tags = true"), tagged);
        let merged = "<think>\nIs it 1+2?\nNo, it is 2+2.\nThat is 4.\n</think>\n\n4";
        assert_eq!(plain("dialogue", DIALOGUE, "merge_utterances = true"), merged);
    }

    const MATCHED: &str = "match_lengths = true";

    #[test]
    fn traces_get_the_length_of_their_partners() {
        let (_, dialogue) = response("dialogue", DIALOGUE, "", None).unwrap();
        let (_, monologue) = response("monologue", MONOLOGUE, "", None).unwrap();
        assert!(monologue < dialogue);
        let (text, longer) = response("monologue", MONOLOGUE, MATCHED, Some(("dialogue", DIALOGUE))).unwrap();
        assert!(text.contains("That is 4.\n\nLet me go over this once more.\n\nIt may be 1+2."), "{text}");
        assert!(longer.abs_diff(dialogue) < monologue.abs_diff(dialogue) / 3, "{longer} {dialogue}");
        let (text, shorter) = response("dialogue", DIALOGUE, MATCHED, Some(("monologue", MONOLOGUE))).unwrap();
        assert!(!text.contains("2+2.") && text.contains("1+2?") && text.contains("That is 4."), "{text}");
        assert!(shorter < dialogue);
        let long = MONOLOGUE.replace("No", &"No, no, no. ".repeat(30));
        let unchanged = response("dialogue", DIALOGUE, MATCHED, Some(("monologue", &long))).unwrap();
        assert_eq!(unchanged, (DIALOGUE.to_string(), dialogue));
        let paired = response("monologue", MONOLOGUE, "", Some(("dialogue", DIALOGUE))).unwrap();
        assert_eq!(paired, (MONOLOGUE.to_string(), monologue));
    }

    #[test]
    fn a_think_that_the_prompt_opens_is_neither_written_nor_counted() {
        let folder = tempfile::tempdir().unwrap();
        let template = folder.path().join("think.jinja");
        std::fs::write(&template, "{{ task }} <think>").unwrap();
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/countdown-base");
        let tokenizer = Tokenizer::from_dir(&dir).unwrap();
        let data: FileData = toml::from_str(&format!("path = 'x'\ntemplate = {template:?}\n{MATCHED}")).unwrap();
        let tasks = Tasks::new(&data, &tokenizer, &dir).unwrap();
        let monologue = row("monologue", MONOLOGUE);
        let trace = tasks.trace(&monologue, Some(&monologue)).unwrap();
        assert_eq!(trace.response, MONOLOGUE.strip_prefix("<think>").unwrap());
        assert_eq!(trace.wanted, Some(tokenizer.encode(&trace.response).unwrap().len()));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (key, text, message) in [
            ("dialogue", "", "key `dialogue` is blank"),
            ("dialogue", MONOLOGUE, "key `dialogue`, line 1, byte 0: expected `<cast_of_characters>`, found `<think>`"),
            ("monologue", "4", "key `monologue`, line 1, byte 1: expected `<think>`, found the end"),
        ] {
            assert_eq!(response(key, text, "", None).unwrap_err(), message);
        }
        let error = response("monologue", MONOLOGUE, "", Some(("dialogue", "x"))).unwrap_err();
        assert!(error.starts_with("in the partner: key `dialogue`, line 1"), "{error}");
    }
}
