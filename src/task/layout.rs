//! The layout of a response: where its answer is, and whether its tags earn the format reward. Common to all tasks.
//!
//! Two rule sets. `strict`: the last `<answer>` counts; exactly one closed `<think>` block followed by one closed
//! `<answer>` block earns the format reward, and the text around the blocks is free. `tinyzero`: TinyZero's scorer, so
//! that curves can be compared with verl's: only the last line counts, and the last closed answer block in it; any such
//! block earns the format reward.
//!
//! With `dialogue_format` the strict rules also accept the persona layout: `<group_solution>` is an answer like
//! `<answer>` (whichever opens last counts), and the format reward also goes to a cast of 2 to 4 personas, then a
//! conversation of `<thinkN>` turns in which at least two of them speak, then the group solution, with an `<answer>` in
//! it, after it, or not at all. A `<think>` that the prompt opened plays no part in that layout: its turns are the
//! thinking.
//!
//! Tags are looked for in decoded text and matched exactly; one pass over the response finds them all.

use crate::recipe::{Reward, Rules};
use crate::text::tags::{self, Mark, Tag};
use std::fmt;

/// What the tags of a response mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout<'a> {
    /// The text of the answer that counts, or why there is none.
    pub answer: Result<&'a str, Missing>,
    /// Whether the layout earns the format reward.
    pub format: bool,
}

/// Why a response has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is no answer tag (where the rules look for one).
    Tag,
    /// The last answer tag is not closed.
    End,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Missing::Tag => "no answer",
            Missing::End => "answer not closed",
        })
    }
}

/// Reads the layout of a response. `prompt_opens_think`: whether the prompt ended inside an open `<think>`. Time is
/// linear in the response's length.
pub fn read<'a>(response: &'a str, rules: &Reward, prompt_opens_think: bool) -> Layout<'a> {
    match rules.rules {
        Rules::Strict => {
            let marks = marks(response);
            let monologue = is_think_then_answer(&marks, prompt_opens_think);
            Layout {
                answer: last_opened_answer(&marks, response, rules.dialogue_format),
                format: monologue || rules.dialogue_format && is_persona_layout(&marks),
            }
        }
        Rules::Tinyzero => {
            let line = response.rsplit('\n').next().unwrap_or_default();
            let missing = if line.contains("<answer>") { Missing::End } else { Missing::Tag };
            let answer = last_closed_answer(line).ok_or(missing);
            Layout { answer, format: answer.is_ok() }
        }
    }
}

/// A response of one voice, as the strict rules require it.
pub fn monologue(thought: &str, answer: &str, prompt_opens_think: bool) -> String {
    let open = if prompt_opens_think { "" } else { "<think>" };
    format!("{open}\n{thought}\n</think>\n<answer>{answer}</answer>")
}

/// A monologue for a prompt that has opened `<think>` itself.
pub fn after_open_think(response: &str) -> &str {
    response.strip_prefix("<think>").unwrap_or(response)
}

/// The tags that the rules know, in order; a cast has at most 4 personas.
fn marks(text: &str) -> Vec<Mark> {
    let known = |mark: &Mark| !matches!(mark.tag, Tag::Persona(5..) | Tag::Turn(5..) | Tag::GroupConsensus);
    tags::marks(text).into_iter().filter(known).collect()
}

/// The text of the last answer that is opened, or why there is none.
fn last_opened_answer<'a>(marks: &[Mark], text: &'a str, dialogue: bool) -> Result<&'a str, Missing> {
    let is_answer = |tag| tag == Tag::Answer || dialogue && tag == Tag::GroupSolution;
    let last = marks.iter().rposition(|mark| !mark.closes && is_answer(mark.tag)).ok_or(Missing::Tag)?;
    let open = marks[last];
    let close = marks[last..].iter().find(|mark| mark.closes && mark.tag == open.tag).ok_or(Missing::End)?;
    Ok(&text[open.end..close.start])
}

/// The text of the last of a line's closed answer blocks, which are taken from the left and do not overlap.
fn last_closed_answer(line: &str) -> Option<&str> {
    let (mut open, mut last) = (None, None);
    for mark in marks(line).into_iter().filter(|mark| mark.tag == Tag::Answer) {
        match (open, mark.closes) {
            (None, false) => open = Some(mark.end),
            (Some(start), true) => {
                last = Some(&line[start..mark.start]);
                open = None;
            }
            _ => {}
        }
    }
    last
}

fn is_think_then_answer(marks: &[Mark], prompt_opens_think: bool) -> bool {
    let opened = prompt_opens_think.then_some((Tag::Think, false));
    let found = marks.iter().map(|mark| (mark.tag, mark.closes));
    let found = opened.into_iter().chain(found.filter(|(tag, _)| matches!(tag, Tag::Think | Tag::Answer)));
    found.eq([(Tag::Think, false), (Tag::Think, true), (Tag::Answer, false), (Tag::Answer, true)])
}

fn is_persona_layout(marks: &[Mark]) -> bool {
    const GROUP: [(Tag, bool); 2] = [(Tag::GroupSolution, false), (Tag::GroupSolution, true)];
    const ANSWER: [(Tag, bool); 2] = [(Tag::Answer, false), (Tag::Answer, true)];
    let Some((speakers, ending)) = after_conversation(marks) else { return false };
    speakers >= 2
        && (ending == GROUP
            || ending == [GROUP, ANSWER].concat()
            || ending == [GROUP[0], ANSWER[0], ANSWER[1], GROUP[1]])
}

/// How many personas spoke, and the tags that follow the conversation. None if the tags do not begin with a cast and a
/// conversation of its members.
fn after_conversation(marks: &[Mark]) -> Option<(usize, Vec<(Tag, bool)>)> {
    let mut rest = marks.iter().map(|mark| (mark.tag, mark.closes)).peekable();
    rest.next_if_eq(&(Tag::Cast, false))?;
    let mut personas = 0;
    while rest.next_if_eq(&(Tag::Persona(personas + 1), false)).is_some() {
        personas += 1;
        rest.next_if_eq(&(Tag::Persona(personas), true))?;
    }
    rest.next_if_eq(&(Tag::Cast, true))?;
    rest.next_if_eq(&(Tag::Conversation, false))?;
    let mut spoke = [false; 4];
    while let Some((Tag::Turn(speaker), _)) = rest.next_if(|mark| matches!(mark, (Tag::Turn(_), false))) {
        rest.next_if_eq(&(Tag::Turn(speaker), true))?;
        // Only members of the cast speak.
        *spoke[..personas].get_mut(speaker - 1)? = true;
    }
    rest.next_if_eq(&(Tag::Conversation, true))?;
    Some((spoke.iter().filter(|&&spoke| spoke).count(), rest.collect()))
}
