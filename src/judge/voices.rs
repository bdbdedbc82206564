//! Who speaks where, as far as tags tell.
//!
//! In the persona layout each `<thinkN>` is a turn of persona N. The layout may be broken, or cut off: a turn ends at
//! its own end, at another turn's, at any other tag but an answer's, or at the end of the text; without its opening
//! tag it begins at the tag before. What stands outside of the turns is nobody's.
//!
//! Without a turn there is one voice, that of `<think>` (which the prompt may have opened), or of the whole text if
//! that has no such tag. Answers, solutions and the cast of characters are never said by a voice.

use crate::text::tags::{Mark, Tag, marks};
use std::ops::Range;

/// A part of a text that one voice says, without the blanks around it; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speech {
    /// The number of the persona; 0 is the voice without a number.
    pub speaker: usize,
    /// Counts the turns from 0. An answer may divide a turn, whose speeches then have the same number.
    pub turn: usize,
    /// Bytes of the text.
    pub span: Range<usize>,
}

/// All that is said, in order.
pub fn speeches(text: &str) -> Vec<Speech> {
    let marks = marks(text);
    let mut reader = Reader { text, found: vec![], speaker: None, hidden: false, turn: 0, end: 0 };
    for mark in &marks {
        reader.read(mark);
    }
    reader.piece(text.len(), None);
    if reader.found.iter().any(|speech| speech.speaker > 0) {
        reader.found.retain(|speech| speech.speaker > 0);
    } else if !marks.iter().any(|mark| voice(mark.tag).is_some()) {
        reader = Reader { text, found: vec![], speaker: Some(0), hidden: false, turn: 0, end: 0 };
        for mark in &marks {
            reader.read(mark);
            reader.speaker = Some(0);
        }
        reader.piece(text.len(), None);
    }
    reader.found
}

/// The numbers of the voices that speak, in ascending order.
pub fn speakers(speeches: &[Speech]) -> Vec<usize> {
    let mut speakers: Vec<usize> = speeches.iter().map(|speech| speech.speaker).collect();
    speakers.sort_unstable();
    speakers.dedup();
    speakers
}

/// The bytes that are never said by a voice: answers, solutions and the cast of characters, with their tags.
pub fn hidden(text: &str) -> Vec<Range<usize>> {
    let (mut all, mut from) = (vec![], None);
    for mark in marks(text) {
        let speaks = matches!(mark.tag, Tag::Think | Tag::Turn(_) | Tag::Conversation);
        match from {
            None if !speaks && !mark.closes => from = Some(mark.start),
            Some(start) if speaks || mark.closes => {
                all.push(start..if speaks { mark.start } else { mark.end });
                from = None;
            }
            _ => {}
        }
    }
    all.extend(from.map(|start| start..text.len()));
    all
}

/// The voice of a tag that somebody speaks in.
fn voice(tag: Tag) -> Option<usize> {
    match tag {
        Tag::Think => Some(0),
        Tag::Turn(number) => Some(number),
        _ => None,
    }
}

struct Reader<'a> {
    text: &'a str,
    found: Vec<Speech>,
    /// Whose turn it is.
    speaker: Option<usize>,
    /// Whether what follows is said by nobody.
    hidden: bool,
    turn: usize,
    /// Where the last mark ends.
    end: usize,
}

impl Reader<'_> {
    fn read(&mut self, mark: &Mark) {
        let closed = voice(mark.tag).filter(|_| mark.closes);
        self.piece(mark.start, closed);
        self.end = mark.end;
        match mark.tag {
            Tag::Think | Tag::Turn(_) => {
                self.speaker = voice(mark.tag).filter(|_| !mark.closes);
                self.hidden = false;
                self.turn += usize::from(!mark.closes);
            }
            Tag::Answer => self.hidden = !mark.closes,
            Tag::Cast | Tag::Persona(_) | Tag::GroupConsensus | Tag::GroupSolution => {
                self.speaker = None;
                self.hidden = !mark.closes;
            }
            Tag::Conversation => {
                self.speaker = None;
                self.hidden = false;
            }
        }
    }

    /// Notes what is said up to the byte `to`; `closed`: by whom, if nobody's turn was opened.
    fn piece(&mut self, to: usize, closed: Option<usize>) {
        let piece = &self.text[self.end..to];
        let said = piece.trim();
        let opened = self.speaker.is_some();
        let Some(speaker) = self.speaker.or(closed).filter(|_| !self.hidden && !said.is_empty()) else { return };
        self.turn += usize::from(!opened);
        let start = self.end + piece.len() - piece.trim_start().len();
        self.found.push(Speech { speaker, turn: self.turn, span: start..start + said.len() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `speaker.turn:text`, turns counted from the first that speaks.
    fn read(text: &str) -> Vec<String> {
        let speeches = speeches(text);
        let first = speeches.first().map_or(0, |speech| speech.turn);
        let show = |s: &Speech| format!("{}.{}:{}", s.speaker, s.turn - first, &text[s.span.clone()]);
        speeches.iter().map(show).collect()
    }

    #[test]
    fn turns_belong_to_personas() {
        let cast = "<cast_of_characters><persona1>A</persona1><persona2>B</persona2></cast_of_characters>";
        for (text, expected) in [
            (
                "<conversation>\n<think2>\nso?\n</think2><think1>3 </think1>\n<think2>é</think2></conversation>\
                    <group_solution>7</group_solution>",
                vec!["2.0:so?", "1.1:3", "2.2:é"],
            ),
            // Cut off within a turn, or within the answer.
            ("<conversation><think1>a</think1><think2>b c", vec!["1.0:a", "2.1:b c"]),
            ("<conversation><think1>a</think1></conversation><answer>5", vec!["1.0:a"]),
            ("<conversation><think1>a</think1><thin", vec!["1.0:a"]),
            // Ends and openings that are missing, crossed, doubled.
            ("<think1>a<think2>b</think2>", vec!["1.0:a", "2.1:b"]),
            ("<think1>a</think2><think2>b</think2>", vec!["1.0:a", "2.1:b"]),
            ("<think1>a</think1> b </think2>", vec!["1.0:a", "2.1:b"]),
            ("<think1><think1>a</think1>", vec!["1.0:a"]),
            ("<think1>a</conversation>b<group_solution>7", vec!["1.0:a"]),
            ("<think3> </think3><think1>a</think1>", vec!["1.0:a"]),
            // Between the turns, in the cast and in the solution nobody speaks.
            ("Well <think1>a</think1> hm <think2>b</think2> so", vec!["1.0:a", "2.1:b"]),
            ("<persona1>A</think1><persona2>B</persona2><think1>a</think1>", vec!["1.0:a"]),
            ("<think1>a</think1><group_solution>so <answer>7</answer> it is</group_solution>", vec!["1.0:a"]),
            // An answer within a turn is left out.
            ("<think1>a <answer>7</answer> b</think1><think2>c</think2>", vec!["1.0:a", "1.0:b", "2.1:c"]),
            // What is around or beside the turns is no voice of its own.
            ("<think><think1>a</think1><think2>b</think2></think>", vec!["1.0:a", "2.1:b"]),
            ("<think>I plan.</think><think1>a</think1>", vec!["1.0:a"]),
        ] {
            assert_eq!(read(text), expected, "{text}");
            assert_eq!(read(&format!("{cast}{text}")), expected, "{text} after a cast");
        }
    }

    #[test]
    fn one_voice_speaks_without_a_number() {
        for (text, expected) in [
            ("<think>\na b\n</think>\n(C) a cup", vec!["0.0:a b"]),
            ("<think>a</think><answer>7</answer>", vec!["0.0:a"]),
            ("a b</think><answer>7</answer>", vec!["0.0:a b"]),
            ("<think>a b", vec!["0.0:a b"]),
            ("<think>a <answer>7</answer> b</think>", vec!["0.0:a", "0.0:b"]),
            ("<think>a<answer>7", vec!["0.0:a"]),
            ("a b\nc", vec!["0.0:a b\nc"]),
            ("a <answer>7</answer> b", vec!["0.0:a", "0.0:b"]),
            ("a <group_solution>7</group_solution>", vec!["0.0:a"]),
            ("<persona1>A</persona1> a", vec!["0.0:a"]),
            ("<think></think>it is 7", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
        assert_eq!(speakers(&speeches("<think9>a</think9><think2>b</think2><think9>c")), [2, 9]);
    }
}
