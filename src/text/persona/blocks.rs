//! Blocks: a tag, text, and the tag's end.

use crate::text::tags::{Mark, Remark, Tag, marks};
use std::cell::Cell;
use std::fmt::Display;
use std::ops::Range;

/// A block's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block<'a> {
    pub tag: Tag,
    /// Without the blanks around it; never empty.
    pub text: &'a str,
    /// Where `text` is in what was read, in bytes.
    pub span: Range<usize>,
}

/// The names of tags, written as `letters` does.
const NAMES: [&str; 7] =
    ["think", "answer", "castofcharacters", "persona", "conversation", "groupconsensus", "groupsolution"];

/// Reads blocks one after another, and notes the text between them.
pub struct Reader<'a> {
    text: &'a str,
    marks: Vec<Mark>,
    /// Index of the next mark.
    next: usize,
    /// Where the last mark that was read ends.
    end: usize,
    /// The last byte that was remarked upon, and its line: a text of a thousand notes is not read a thousand times.
    remarked: Cell<(usize, usize)>,
    pub notes: Vec<Remark>,
}

impl<'a> Reader<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, marks: marks(text), next: 0, end: 0, remarked: Cell::new((0, 1)), notes: vec![] }
    }

    /// The next mark, which has not been read.
    pub fn peek(&self) -> Option<Mark> {
        self.marks.get(self.next).copied()
    }

    pub fn remark(&self, at: usize, what: impl Display) -> Remark {
        let (from, line) = match self.remarked.get() {
            known if known.0 <= at => known,
            _ => (0, 1),
        };
        let line = line + self.text.as_bytes()[from..at].iter().filter(|byte| **byte == b'\n').count();
        self.remarked.set((at, line));
        Remark { what: what.to_string(), at, line }
    }

    /// That the next mark is not what should be here.
    pub fn unexpected(&self, expected: impl Display) -> Remark {
        match self.peek() {
            Some(mark) => self.remark(mark.start, format_args!("expected {expected}, found {mark}")),
            None => self.remark(self.text.len(), format_args!("expected {expected}, found the end")),
        }
    }

    /// Reads a block without blocks in it.
    ///
    /// # Errors
    /// It is not next, not closed, or empty.
    pub fn block(&mut self, tag: Tag) -> Result<Block<'a>, Remark> {
        let open = self.open(tag)?;
        self.close(open)
    }

    /// Reads the beginning of a block; the same tag twice in a row is one.
    ///
    /// # Errors
    /// It is not next.
    pub fn open(&mut self, tag: Tag) -> Result<Mark, Remark> {
        let is_open = |mark: &Mark| mark.tag == tag && !mark.closes;
        let mut open = self.peek().filter(is_open).ok_or_else(|| self.unexpected(format_args!("`<{tag}>`")))?;
        self.note_text(open.start);
        self.step();
        while let Some(again) = self.peek().filter(is_open) {
            if !self.text[open.end..again.start].trim().is_empty() {
                break;
            }
            self.notes.push(self.remark(again.start, format_args!("{again} opens twice")));
            open = again;
            self.step();
        }
        Ok(open)
    }

    /// Reads the end of a block whose content is text.
    ///
    /// # Errors
    /// It is not next, or the block is empty.
    pub fn close(&mut self, open: Mark) -> Result<Block<'a>, Remark> {
        let ends = |mark: &Mark| mark.tag == open.tag && mark.closes;
        let close = match self.peek() {
            Some(mark) if ends(&mark) => mark,
            Some(mark) if !mark.closes && self.marks[self.next..].iter().any(ends) => {
                return Err(self.remark(mark.start, format_args!("{mark} opens within {open}")));
            }
            Some(mark) => {
                return Err(self.remark(open.start, format_args!("{open} is not closed before {mark}")));
            }
            None => return Err(self.remark(open.start, format_args!("{open} is not closed"))),
        };
        self.step();
        let content = &self.text[open.end..close.start];
        let text = content.trim();
        if text.is_empty() {
            return Err(self.remark(open.start, format_args!("{open} is empty")));
        }
        let start = open.end + content.len() - content.trim_start().len();
        Ok(Block { tag: open.tag, text, span: start..start + text.len() })
    }

    /// Reads a block without blocks in it, which may lack its end if one of `after` follows, or end like `other` before
    /// that: both are noted. An end whose name is no tag of the layout is left out of the text.
    ///
    /// # Errors
    /// Those of `block`.
    pub fn block_before(&mut self, tag: Tag, other: Tag, after: [(Tag, bool); 2]) -> Result<Block<'a>, Remark> {
        let open = self.open(tag)?;
        let stray = self.peek().filter(|mark| mark.closes && mark.tag == other);
        let next = self.marks.get(self.next + usize::from(stray.is_some())).copied();
        let Some(next) = next.filter(|mark| after.contains(&(mark.tag, mark.closes))) else {
            return self.close(open);
        };
        let end = stray.unwrap_or(next).start;
        let content = &self.text[open.end..end];
        let mut text = content.trim();
        if let Some((before, stray)) = text.rsplit_once("</")
            && stray.strip_suffix('>').is_some_and(|name| !name.contains('>'))
        {
            text = before.trim_end();
        }
        if text.is_empty() {
            return Err(self.remark(open.start, format_args!("{open} is empty")));
        }
        self.notes.push(self.remark(open.start, format_args!("{open} is not closed before {next}")));
        if stray.is_some() {
            self.step();
        }
        self.end = next.start;
        let start = open.end + content.len() - content.trim_start().len();
        Ok(Block { tag, text, span: start..start + text.len() })
    }

    /// Reads the end of a block of blocks, if it is next.
    pub fn ends(&mut self, tag: Tag) -> bool {
        let Some(mark) = self.peek().filter(|mark| mark.tag == tag && mark.closes) else { return false };
        self.note_text(mark.start);
        self.step();
        true
    }

    /// Skips the next mark.
    pub fn step(&mut self) {
        if let Some(mark) = self.peek() {
            self.end = mark.end;
            self.next += 1;
        }
    }

    /// What follows the last mark.
    pub fn rest(&self) -> &'a str {
        &self.text[self.end..]
    }

    /// Notes text between the last mark and the byte `to`.
    pub fn note_text(&mut self, to: usize) {
        if let Some((at, _)) = self.text_before(to) {
            self.notes.push(self.remark(at, "text outside of the blocks"));
        }
    }

    /// Refuses text between the last mark and the next.
    ///
    /// # Errors
    /// Text is there instead of what was `expected`; it is named by what it begins with.
    pub fn refuse_text(&self, expected: &str) -> Result<(), Remark> {
        let next = self.peek().map_or(self.text.len(), |mark| mark.start);
        match self.text_before(next) {
            None => Ok(()),
            Some((at, text)) => Err(self.remark(at, format_args!("expected {expected}, found `{}`", beginning(text)))),
        }
    }

    /// The text between the last mark and the byte `to`, without the blanks around it, and where it is.
    fn text_before(&self, to: usize) -> Option<(usize, &'a str)> {
        let between = &self.text[self.end..to];
        let at = self.end + between.len() - between.trim_start().len();
        Some((at, between.trim())).filter(|(_, text)| !text.is_empty())
    }

    /// Refuses what is a tag but for its case, or for blanks, signs and digits: `<Think2>`, `<think 2>`, `<think02>`.
    /// Whoever wrote it meant a tag, and what it was to divide would run together. Time is linear in the text's length.
    ///
    /// # Errors
    /// The first of them.
    pub fn refuse_misspelt(&self) -> Result<(), Remark> {
        for (start, _) in self.text.match_indices('<') {
            let inner = &self.text[start + 1..];
            // Another `<` begins anew, so that no byte is looked at twice.
            let Some(length) = inner.find(['<', '>', '\n']).filter(|at| inner.as_bytes()[*at] == b'>') else {
                continue;
            };
            let is_tag = self.marks.binary_search_by_key(&start, |mark| mark.start).is_ok();
            if !is_tag && NAMES.contains(&letters(&inner[..length]).as_str()) {
                let found = beginning(&self.text[start..]);
                return Err(self.remark(start, format_args!("`{found}` is not a tag, though it is almost one")));
            }
        }
        Ok(())
    }
}

/// The letters of a name, in lower case.
fn letters(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphabetic).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// What a text begins with: something in brackets, or else its first line; of either not more than some characters.
fn beginning(text: &str) -> String {
    const SHOWN: usize = 32;
    let line = text.lines().next().unwrap_or_default();
    let bracket = line.find(['>', ']']).filter(|_| line.starts_with(['<', '[']));
    let whole = &line[..bracket.map_or(line.len(), |at| at + 1)];
    match whole.char_indices().nth(SHOWN) {
        None => whole.to_string(),
        Some((end, _)) => format!("{}…", &whole[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remarks_say_where_in_any_order() {
        let reader = Reader::new("é\nb\n\nc");
        for (at, place) in [(3, "line 2, byte 3"), (6, "line 4, byte 6"), (0, "line 1, byte 0"), (5, "line 3, byte 5")]
        {
            assert_eq!(reader.remark(at, "here").to_string(), format!("{place}: here"));
        }
    }

    #[test]
    fn what_is_almost_a_tag_is_named() {
        for tag in
            ["<Think2>", "<think 2>", "</think2 >", "<think02>", "<think_2>", "<think0>", "<think100>", "</ANSWER>"]
        {
            let text = format!("a < b <é> {tag}7");
            let remark = Reader::new(&text).refuse_misspelt().unwrap_err();
            assert_eq!((remark.at, remark.what), (11, format!("`{tag}` is not a tag, though it is almost one")));
        }
        for text in
            ["<think2>", "<thinker2>", "<thinking>", "< Truck >", "<Think\n2>", "<Think <2>", "a < think", "<é>"]
        {
            assert_eq!(Reader::new(text).refuse_misspelt(), Ok(()), "{text}");
        }
    }

    #[test]
    fn a_beginning_is_a_bracket_or_some_words() {
        for (text, shown) in [
            ("<Think2>\nso</Think2>", "<Think2>"),
            ("[think2] so", "[think2]"),
            ("they talk > a lot\nand", "they talk > a lot"),
            ("<think99999999999999999999>x", "<think99999999999999999999>"),
        ] {
            assert_eq!(beginning(text), shown);
        }
        assert_eq!(beginning(&"é".repeat(40)), format!("{}…", "é".repeat(32)));
    }
}
