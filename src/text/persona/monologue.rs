//! The layout of one voice: a `<think>` block, then the answer, in `<answer>` tags or plain.

use super::blocks::{Block, Reader};
use crate::text::tags::{Remark, Tag};

/// A monologue that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Monologue<'a> {
    pub thought: Block<'a>,
    /// What follows the thought: the text in `<answer>` tags, or all of it if there are none. Never empty.
    pub answer: &'a str,
    /// Whether the answer has tags.
    pub tagged: bool,
    /// Text outside of the blocks, if the answer has tags; text before the thought.
    pub notes: Vec<Remark>,
}

impl<'a> Monologue<'a> {
    /// Reads a monologue.
    ///
    /// # Errors
    /// No thought, or an empty one; no answer; a tag of another layout, one too many, or one that is misspelt.
    pub fn parse(text: &'a str) -> Result<Self, Remark> {
        let mut reader = Reader::new(text);
        let thought = reader.block(Tag::Think)?;
        let rest = reader.rest().trim();
        let tagged = reader.peek().is_some();
        let answer = if tagged { reader.block(Tag::Answer)?.text } else { rest };
        if reader.peek().is_some() {
            return Err(reader.unexpected("the end"));
        }
        if answer.is_empty() {
            return Err(reader.remark(text.len(), "no answer follows `</think>`"));
        }
        reader.refuse_misspelt()?;
        if tagged {
            reader.note_text(text.len());
        }
        Ok(Self { thought, answer, tagged, notes: reader.notes })
    }

    /// Words of the thought, as blanks divide them.
    pub fn words(&self) -> usize {
        self.thought.text.split_whitespace().count()
    }

    /// The monologue as text, tidy.
    pub fn write(&self) -> String {
        write(self.thought.text, self.answer, self.tagged)
    }
}

/// A thought and an answer, which may have tags.
pub fn write(thought: &str, answer: &str, tagged: bool) -> String {
    let answer = if tagged { format!("<{0}>{answer}</{0}>", Tag::Answer) } else { format!("\n{answer}") };
    format!("{}\n{answer}", Tag::Think.around(thought))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monologues_are_read_and_written() {
        for (text, thought, answer, tidy) in [
            ("<think>\nWell\n</think>\n\n(C) a cup", "Well", "(C) a cup", "<think>\nWell\n</think>\n\n(C) a cup"),
            ("<think>a\nb</think>7", "a\nb", "7", "<think>\na\nb\n</think>\n\n7"),
            ("<think>a</think><answer> 7 </answer>", "a", "7", "<think>\na\n</think>\n<answer>7</answer>"),
            ("<think>a</think>a <E> b", "a", "a <E> b", "<think>\na\n</think>\n\na <E> b"),
        ] {
            let monologue = Monologue::parse(text).unwrap();
            assert_eq!((monologue.thought.text, monologue.answer), (thought, answer));
            assert_eq!(&text[monologue.thought.span.clone()], thought);
            assert_eq!((monologue.write().as_str(), monologue.notes.len()), (tidy, 0));
            assert_eq!(Monologue::parse(tidy).unwrap().write(), tidy);
        }
        let untidy = Monologue::parse("So: <think>a b</think>It is <answer>7</answer>").unwrap();
        let notes: Vec<usize> = untidy.notes.iter().map(|note| note.at).collect();
        assert_eq!((untidy.words(), notes), (2, vec![0, 22]));
    }

    #[test]
    fn what_is_wrong_has_a_name_and_a_place() {
        for (text, message) in [
            ("7", "line 1, byte 1: expected `<think>`, found the end"),
            ("<think1>a</think1>7", "line 1, byte 0: expected `<think>`, found `<think1>`"),
            ("<think>a", "line 1, byte 0: `<think>` is not closed"),
            ("<think>\n</think>7", "line 1, byte 0: `<think>` is empty"),
            ("<think>a<answer>7</answer></think>", "line 1, byte 8: `<answer>` opens within `<think>`"),
            ("<think>a\n</think>\n", "line 3, byte 18: no answer follows `</think>`"),
            ("<think>a</think><think>b</think>7", "line 1, byte 16: expected `<answer>`, found `<think>`"),
            ("<think>a</think><answer>7</answer><answer>", "line 1, byte 34: expected the end, found `<answer>`"),
            ("<think>a</think><answer> </answer>", "line 1, byte 16: `<answer>` is empty"),
            ("<think>a</think><Answer>7</Answer>", "line 1, byte 16: `<Answer>` is not a tag, though it is almost one"),
        ] {
            assert_eq!(Monologue::parse(text).unwrap_err().to_string(), message);
        }
    }
}
