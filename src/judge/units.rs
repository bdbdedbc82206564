//! The parts of a trace that a judge can name: its sentences, numbered, so that nobody has to count bytes.
//!
//! Lines that are only tags are shown without a number: they are nobody's. Answers, solutions and the cast of
//! characters are not shown: no voice says them. In a trace of very many sentences several of a line have one
//! number, as few as will do, and in one of very many lines several lines have.
//!
//! What a judge sees may have tags in it, as in `<think2> No.`; what a segment covers never has: a tag ends a segment,
//! and another one of the same voice begins after it. So segments are what voices say, whoever attributed it.

use super::interface::Segment;
use super::voices::hidden;
use crate::text::tags::marks;
use std::iter::once;
use std::ops::Range;

/// Most numbered parts.
const MOST: usize = 100;

/// A trace, cut into lines and sentences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Units {
    /// Byte ranges in the text, in order, without the white space around them.
    all: Vec<Range<usize>>,
    /// Which of them have a number.
    numbered: Vec<usize>,
    /// What no segment covers, by its start: tags, and what is not shown, with the tags in it.
    unsaid: Vec<Range<usize>>,
}

impl Units {
    pub fn of(text: &str) -> Self {
        let hidden = hidden(text);
        let lines = lines(text, &hidden);
        let tags = marks(text).into_iter().map(|mark| mark.start..mark.end);
        let mut unsaid: Vec<Range<usize>> = tags.chain(hidden).collect();
        unsaid.sort_unstable_by_key(|range| range.start);
        let units = |all| Self::numbered(text, all, &unsaid);
        let sentences: Vec<Vec<Range<usize>>> = lines.iter().map(|line| sentences(text, line)).collect();
        let grouped = |together: usize| {
            let groups = sentences.iter().flat_map(|line| line.chunks(together));
            units(groups.map(joined).collect())
        };
        // The fewest sentences together that leave no more than `MOST` parts, if any number does.
        let (mut few, mut many) = (1, sentences.iter().map(Vec::len).max().unwrap_or(1).max(1));
        while few < many {
            let middle = usize::midpoint(few, many);
            if grouped(middle).len() <= MOST { many = middle } else { few = middle + 1 }
        }
        let found = grouped(few);
        if found.len() <= MOST {
            return found;
        }
        let speaking: Vec<Range<usize>> = found.numbered.iter().map(|at| found.all[*at].clone()).collect();
        units(speaking.chunks(speaking.len().div_ceil(MOST)).map(joined).collect())
    }

    fn numbered(text: &str, all: Vec<Range<usize>>, unsaid: &[Range<usize>]) -> Self {
        let numbered = (0..all.len()).filter(|&at| speaks(&text[all[at].clone()])).collect();
        Self { all, numbered, unsaid: unsaid.to_vec() }
    }

    /// How many parts have a number.
    pub fn len(&self) -> usize {
        self.numbered.len()
    }

    /// All parts in order, each with its number from 1, if it has one.
    pub fn lines<'a>(&self, text: &'a str) -> Vec<(Option<usize>, &'a str)> {
        let number = |at: usize| self.numbered.binary_search(&at).ok().map(|index| index + 1);
        self.all.iter().enumerate().map(|(at, range)| (number(at), &text[range.clone()])).collect()
    }

    /// The segments of numbered parts that belong to these perspectives, from 1, or to nobody, 0. Neighbours of one
    /// perspective are one segment, with what is between them, unless that is a tag or not shown.
    pub fn segments(&self, text: &str, perspectives: &[usize]) -> Vec<Segment> {
        let mut segments: Vec<Segment> = vec![];
        let mut last = 0;
        for (&at, &perspective) in self.numbered.iter().zip(perspectives) {
            let Range { start, end } = self.all[at];
            match segments.last_mut() {
                Some(segment) if last == perspective && last > 0 => segment.end = end,
                _ if perspective > 0 => segments.push(Segment { start, end, perspective: perspective - 1 }),
                _ => {}
            }
            last = perspective;
        }
        segments.into_iter().flat_map(|segment| self.said(text, segment)).collect()
    }

    /// The parts of a segment that somebody says, without the white space around them.
    fn said(&self, text: &str, whole: Segment) -> Vec<Segment> {
        let first = self.unsaid.partition_point(|range| range.start < whole.start);
        let within = self.unsaid[first..].iter().take_while(|range| range.start < whole.end).cloned();
        let (mut parts, mut at) = (vec![], whole.start);
        for unsaid in within.chain(once(whole.end..whole.end)) {
            let part = trimmed(text, at..unsaid.start.max(at));
            parts.extend(part.map(|Range { start, end }| Segment { start, end, ..whole }));
            at = at.max(unsaid.end);
        }
        parts
    }
}

/// The range from the first to the last of several.
fn joined(ranges: &[Range<usize>]) -> Range<usize> {
    let (first, last) = (ranges.first(), ranges.last());
    first.map_or(0, |first| first.start)..last.map_or(0, |last| last.end)
}

/// Whether a part is more than tags and signs.
fn speaks(text: &str) -> bool {
    let mut rest = text;
    loop {
        let (before, tag) = rest.split_once('<').unwrap_or((rest, ""));
        if before.contains(char::is_alphanumeric) {
            return true;
        }
        match tag.split_once('>') {
            Some((_, after)) => rest = after,
            // No tag: the sign `<` before something.
            None => return tag.contains(char::is_alphanumeric),
        }
    }
}

/// Lines that are not blank, of what is shown.
fn lines(text: &str, hidden: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut all = vec![];
    let ends = hidden.iter().map(|range| range.start).chain([text.len()]);
    let starts = [0].into_iter().chain(hidden.iter().map(|range| range.end));
    for (mut start, end) in starts.zip(ends) {
        for line in text[start..end].split_inclusive('\n') {
            all.extend(trimmed(text, start..start + line.len()));
            start += line.len();
        }
    }
    all
}

/// The sentences of a line, cut where a full stop, question mark or exclamation mark is followed by a blank.
fn sentences(text: &str, line: &Range<usize>) -> Vec<Range<usize>> {
    let mut all = vec![];
    let mut start = line.start;
    let mut ended = false;
    for (at, c) in text[line.clone()].char_indices() {
        if ended && c.is_whitespace() {
            all.extend(trimmed(text, start..line.start + at));
            start = line.start + at;
        }
        // A quotation mark or bracket may close after the sentence's end.
        ended = matches!(c, '.' | '!' | '?' | '…') || ended && matches!(c, '"' | '\'' | ')' | '”' | '’' | '*');
    }
    all.extend(trimmed(text, start..line.end));
    all
}

/// A range without the white space at its ends, if anything is left.
fn trimmed(text: &str, range: Range<usize>) -> Option<Range<usize>> {
    let part = &text[range.clone()];
    let start = range.start + part.len() - part.trim_start().len();
    (!part.trim().is_empty()).then(|| start..start + part.trim().len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_have_numbers_and_tags_have_none() {
        let text = "<think1>\nWhat is 3 + 4? It is 7.\n\n  \"No!\" 7.5 is (more.) so\n</think1>\n<think2> äh… ok\n";
        let units = Units::of(text);
        let expected = [
            (None, "<think1>"),
            (Some(1), "What is 3 + 4?"),
            (Some(2), "It is 7."),
            (Some(3), "\"No!\""),
            (Some(4), "7.5 is (more.)"),
            (Some(5), "so"),
            (None, "</think1>"),
            (Some(6), "<think2> äh…"),
            (Some(7), "ok"),
        ];
        assert_eq!((units.lines(text), units.len()), (expected.to_vec(), 7));
        for (text, numbered) in [("", 0), (" \n", 0), ("</answer>", 0), ("a < b", 1), ("< b", 1), ("=== ...", 0)] {
            assert_eq!(Units::of(text).len(), numbered, "{text}");
        }
    }

    #[test]
    fn long_traces_are_numbered_more_coarsely() {
        let sentences = |count: usize| "One. ".repeat(count);
        assert_eq!((Units::of(&sentences(100)).len(), Units::of(&sentences(101)).len()), (100, 51));
        // A long paragraph among short lines.
        let text = format!("A.\n{}\nB.\n", sentences(1000));
        let units = Units::of(&text);
        assert_eq!((units.len(), units.lines(&text)[0].1), (2 + 1000usize.div_ceil(11), "A."));
        let text = "One. Two.\n".repeat(100);
        assert_eq!(Units::of(&text).len(), 100);
        let text = "One. Two.\n<b>\n".repeat(250);
        let units = Units::of(&text);
        assert_eq!((units.len(), units.lines(&text)[0].1), (84, "One. Two.\n<b>\nOne. Two.\n<b>\nOne. Two."));
        assert_eq!(Units::of(&"One.\n".repeat(100_000)).len(), 100);
    }

    /// What no voice says is hidden from models as it is from the lexical judge.
    #[test]
    fn casts_and_answers_are_not_shown() {
        let cast = "<cast_of_characters>\n<persona1>\nAda. Quiet.\n</persona1>\n</cast_of_characters>\n";
        let text = format!("{cast}<think1>\nSo <answer>7</answer> it is.\n</think1>\n<answer>\n7. Or 8.");
        let units = Units::of(&text);
        let shown: Vec<_> = units.lines(&text).into_iter().filter_map(|(number, text)| number.map(|_| text)).collect();
        assert_eq!(shown, ["So", "it is."]);
        assert!(!units.lines(&text).iter().any(|(_, text)| text.contains("Ada") || text.contains('8')));
        let spans = |parts: &[usize]| {
            let all = units.segments(&text, parts);
            all.iter().map(|segment| &text[segment.start..segment.end]).collect::<Vec<_>>()
        };
        assert_eq!(spans(&[1, 1]), ["So", "it is."]);
        let said = super::super::voices::speeches(&text);
        assert_eq!(said.iter().map(|speech| &text[speech.span.clone()]).collect::<Vec<_>>(), ["So", "it is."]);
    }

    #[test]
    fn parts_of_one_perspective_are_one_segment() {
        let text = "<a>\nOne. Two.\n</a>\nThree. Four.";
        let units = Units::of(text);
        let segments = |perspectives: &[usize]| -> Vec<(&str, usize)> {
            let all = units.segments(text, perspectives);
            all.iter().map(|segment| (&text[segment.start..segment.end], segment.perspective)).collect()
        };
        assert_eq!(segments(&[1, 1, 1, 1]), [("One. Two.\n</a>\nThree. Four.", 0)]);
        assert_eq!(segments(&[2, 1, 1, 2]), [("One.", 1), ("Two.\n</a>\nThree.", 0), ("Four.", 1)]);
        assert_eq!(segments(&[0, 2, 0, 2]), [("Two.", 1), ("Four.", 1)]);
        assert_eq!(segments(&[0, 0, 0, 0]), []);
    }

    /// Tags on the lines of what is said, between parts of one voice, and in parts of many lines.
    #[test]
    fn no_segment_has_a_tag_in_it() {
        let of = |text: &str, perspectives: &[usize]| -> Vec<(String, usize)> {
            let all = Units::of(text).segments(text, perspectives);
            all.iter().map(|segment| (text[segment.start..segment.end].to_string(), segment.perspective)).collect()
        };
        let said = |parts: &[(&str, usize)]| -> Vec<(String, usize)> {
            parts.iter().map(|(text, voice)| (text.to_string(), *voice)).collect()
        };
        let text = "<think1>Is it 7?</think1>\n<think2> No. It is 8.</think2>";
        let (first, second) = (("Is it 7?", 0), ("No.", 1));
        let shown: Vec<&str> = Units::of(text).lines(text).into_iter().map(|(_, part)| part).collect();
        assert_eq!(shown, ["<think1>Is it 7?</think1>", "<think2> No.", "It is 8.</think2>"]);
        assert_eq!(of(text, &[1, 2, 2]), said(&[first, ("No. It is 8.", 1)]));
        assert_eq!(of(text, &[1, 2, 1]), said(&[first, second, ("It is 8.", 0)]));
        // One voice on both sides of a tag; a broken tag is text.
        assert_eq!(of(text, &[1, 1, 1]), said(&[first, ("No. It is 8.", 0)]));
        assert_eq!(of("a</think1>b<think2 c", &[1]), said(&[("a", 0), ("b<think2 c", 0)]));
        let turns = "<think1>\nOne.\n</think1>\n<answer>7</answer>\n".repeat(250);
        let units = Units::of(&turns);
        let segments = units.segments(&turns, &vec![1; units.len()]);
        assert!(units.len() <= MOST && segments.len() == 250);
        assert!(segments.iter().all(|segment| &turns[segment.start..segment.end] == "One."));
    }
}
