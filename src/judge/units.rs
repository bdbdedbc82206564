//! The parts of a trace that a judge can name: its sentences, numbered, so that nobody has to count bytes.
//!
//! Lines that are only tags are shown without a number: they are nobody's. A trace of very many sentences is numbered
//! by lines, and one of very many lines by several lines at a time.

use super::interface::Segment;
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
}

impl Units {
    pub fn of(text: &str) -> Self {
        let sentences = Self::numbered(text, sentences(text));
        if sentences.len() <= MOST {
            return sentences;
        }
        let lines = Self::numbered(text, lines(text));
        let together = lines.len().div_ceil(MOST).max(1);
        if together == 1 {
            return lines;
        }
        let groups = lines.numbered.chunks(together);
        let joined = groups.map(|group| lines.all[group[0]].start..lines.all[group[group.len() - 1]].end);
        Self::numbered(text, joined.collect())
    }

    fn numbered(text: &str, all: Vec<Range<usize>>) -> Self {
        let numbered = (0..all.len()).filter(|&at| speaks(&text[all[at].clone()])).collect();
        Self { all, numbered }
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
    /// perspective are one segment, with what is between them.
    pub fn segments(&self, perspectives: &[usize]) -> Vec<Segment> {
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
        segments
    }
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

/// Lines that are not blank.
fn lines(text: &str) -> Vec<Range<usize>> {
    let mut start = 0;
    let mut all = vec![];
    for line in text.split_inclusive('\n') {
        all.extend(trimmed(text, start..start + line.len()));
        start += line.len();
    }
    all
}

/// Sentences: lines, cut where a full stop, question mark or exclamation mark is followed by a blank.
fn sentences(text: &str) -> Vec<Range<usize>> {
    let cut = |line: Range<usize>| {
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
    };
    lines(text).into_iter().flat_map(cut).collect()
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
        assert_eq!((Units::of(&sentences(100)).len(), Units::of(&sentences(101)).len()), (100, 1));
        let text = "One. Two.\n".repeat(100);
        assert_eq!(Units::of(&text).len(), 100);
        let text = "One. Two.\n<b>\n".repeat(250);
        let units = Units::of(&text);
        assert_eq!((units.len(), units.lines(&text)[0].1), (84, "One. Two.\n<b>\nOne. Two.\n<b>\nOne. Two."));
    }

    #[test]
    fn parts_of_one_perspective_are_one_segment() {
        let text = "<a>\nOne. Two.\n</a>\nThree. Four.";
        let units = Units::of(text);
        let segments = |perspectives: &[usize]| -> Vec<(&str, usize)> {
            let all = units.segments(perspectives);
            all.iter().map(|segment| (&text[segment.start..segment.end], segment.perspective)).collect()
        };
        assert_eq!(segments(&[1, 1, 1, 1]), [("One. Two.\n</a>\nThree. Four.", 0)]);
        assert_eq!(segments(&[2, 1, 1, 2]), [("One.", 1), ("Two.\n</a>\nThree.", 0), ("Four.", 1)]);
        assert_eq!(segments(&[0, 2, 0, 2]), [("Two.", 1), ("Four.", 1)]);
        assert_eq!(segments(&[0, 0, 0, 0]), []);
    }
}
