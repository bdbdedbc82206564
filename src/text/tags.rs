//! The tags of responses, found in decoded text and matched exactly; what else stands in angle brackets is text.

use std::fmt;

/// What a tag is called. Personas and their turns count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tag {
    Think,
    Answer,
    Cast,
    Persona(usize),
    Conversation,
    /// `<thinkN>`: a turn of persona N.
    Turn(usize),
    GroupConsensus,
    GroupSolution,
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Tag::Think => write!(f, "think"),
            Tag::Answer => write!(f, "answer"),
            Tag::Cast => write!(f, "cast_of_characters"),
            Tag::Persona(number) => write!(f, "persona{number}"),
            Tag::Conversation => write!(f, "conversation"),
            Tag::Turn(number) => write!(f, "think{number}"),
            Tag::GroupConsensus => write!(f, "group_consensus"),
            Tag::GroupSolution => write!(f, "group_solution"),
        }
    }
}

impl Tag {
    /// The tag of a name between angle brackets.
    fn named(name: &str) -> Option<Tag> {
        match name {
            "think" => Some(Tag::Think),
            "answer" => Some(Tag::Answer),
            "cast_of_characters" => Some(Tag::Cast),
            "conversation" => Some(Tag::Conversation),
            "group_consensus" => Some(Tag::GroupConsensus),
            "group_solution" => Some(Tag::GroupSolution),
            _ => {
                let turn = name.strip_prefix("think").and_then(number).map(Tag::Turn);
                turn.or_else(|| name.strip_prefix("persona").and_then(number).map(Tag::Persona))
            }
        }
    }

    /// A block of this tag, with the tags on lines of their own.
    pub fn around(self, text: &str) -> String {
        format!("<{self}>\n{text}\n</{self}>")
    }
}

/// A number from 1 to 99 as tags write it.
fn number(digits: &str) -> Option<usize> {
    let plain = matches!(digits.as_bytes(), [b'1'..=b'9'] | [b'1'..=b'9', b'0'..=b'9']);
    plain.then(|| digits.parse().ok()).flatten()
}

/// A tag found in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    pub tag: Tag,
    pub closes: bool,
    /// Byte offsets of the tag itself.
    pub start: usize,
    pub end: usize,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "`<{}{}>`", if self.closes { "/" } else { "" }, self.tag)
    }
}

/// All tags of a text, in order. Time is linear in the text's length.
pub fn marks(text: &str) -> Vec<Mark> {
    const LONGEST: usize = "</cast_of_characters>".len();
    let mut marks = vec![];
    for (start, _) in text.match_indices('<') {
        let bytes = &text.as_bytes()[start + 1..];
        let Some(length) = bytes.iter().take(LONGEST).position(|&b| b == b'>') else { continue };
        let name = &text[start + 1..start + 1 + length];
        let (closes, name) = name.strip_prefix('/').map_or((false, name), |name| (true, name));
        if let Some(tag) = Tag::named(name) {
            marks.push(Mark { tag, closes, start, end: start + length + 2 });
        }
    }
    marks
}

/// Something about a text, and where it is. As a sentence: `line 3, byte 57: a second <answer>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// What was found, in plain words; tags are named as they are written.
    pub what: String,
    /// Byte offset in the text.
    pub at: usize,
    /// Line of the text, from 1.
    pub line: usize,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "line {}, byte {}: {}", self.line, self.at, self.what)
    }
}

impl std::error::Error for Remark {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_tags_are_found() {
        let text = "<think>é</think1><persona12></answer><think0><think01><think100><Answer>< answer><group_consensus>";
        let found: Vec<String> = marks(text).iter().map(Mark::to_string).collect();
        assert_eq!(found, ["`<think>`", "`</think1>`", "`<persona12>`", "`</answer>`", "`<group_consensus>`"]);
        assert_eq!(marks("a<<think>b")[0], Mark { tag: Tag::Think, closes: false, start: 2, end: 9 });
    }
}
