//! What a group concludes. It may say so more than once, in its solution, its consensus and its answer, and in words;
//! but a trace whose conclusions contradict each other teaches one of them at random.
//!
//! Decided: only what is plain is compared: the letter of a choice, a number alone, a word alone. `(A)` contradicts
//! `It is (C)`; a sentence without a letter contradicts nothing.

use super::blocks::Block;
use crate::text::tags::{Tag, marks};
use std::fmt;

/// The text of the only answer block in a text.
pub fn answer_in(text: &str) -> Option<&str> {
    around_answer(text).map(|[_, answer, _]| answer.trim())
}

/// A text before, in and after its only answer block.
fn around_answer(text: &str) -> Option<[&str; 3]> {
    match marks(text)[..] {
        [open, close] if !open.closes && close.closes && (open.tag, close.tag) == (Tag::Answer, Tag::Answer) => {
            Some([&text[..open.start], &text[open.end..close.start], &text[close.end..]])
        }
        _ => None,
    }
}

/// What contradicts what among the blocks after a conversation, as a sentence, and the byte where the second of the two
/// is.
pub fn contradiction(ending: &[Block]) -> Option<(usize, String)> {
    let mut said: Vec<(Tag, Conclusion)> = vec![];
    for block in ending {
        let parts = match around_answer(block.text) {
            Some([before, answer, after]) => vec![(block.tag, before), (Tag::Answer, answer), (block.tag, after)],
            None => vec![(block.tag, block.text)],
        };
        for (tag, text) in parts {
            let Some(now) = Conclusion::of(text) else { continue };
            // `Agreed.` is no answer.
            if tag == Tag::GroupConsensus && matches!(now, Conclusion::Word(_)) {
                continue;
            }
            if let Some((other, earlier)) = said.iter().find(|(_, earlier)| earlier.contradicts(&now)) {
                return Some((block.span.start, format!("`<{other}>` says {earlier}, but `<{tag}>` says {now}")));
            }
            said.push((tag, now));
        }
    }
    None
}

/// A conclusion that is plain.
#[derive(Debug, PartialEq)]
enum Conclusion {
    /// The letter of a choice, in upper case.
    Choice(char),
    Number(f64),
    /// In lower case.
    Word(String),
}

impl fmt::Display for Conclusion {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Choice(letter) => write!(f, "({letter})"),
            Self::Number(value) => write!(f, "{value}"),
            Self::Word(word) => f.write_str(word),
        }
    }
}

impl Conclusion {
    fn of(text: &str) -> Option<Self> {
        let around = |c: char| c.is_whitespace() || matches!(c, '*' | '$' | '`' | '"' | '\'' | '.');
        let text = text.trim_matches(around);
        let word = text.trim_start_matches('(').trim_end_matches([')', ':', '.']);
        match word.as_bytes() {
            [letter] if letter.is_ascii_alphabetic() => Some(Self::Choice(char::from(letter.to_ascii_uppercase()))),
            [_, _, ..] if word.chars().all(|c| c.is_alphabetic() || c == '-') => Some(Self::Word(word.to_lowercase())),
            _ => enclosed(text).map(Self::Choice).or_else(|| number(text).map(Self::Number)),
        }
    }

    /// Whether both cannot be meant. Numbers with a fraction may be rounded.
    fn contradicts(&self, other: &Self) -> bool {
        const ROUNDED: f64 = 0.05;
        match (self, other) {
            (Self::Choice(one), Self::Choice(other)) => one != other,
            (Self::Word(one), Self::Word(other)) => one != other,
            (Self::Number(one), Self::Number(other)) => {
                let exact = one.fract() == 0.0 && other.fract() == 0.0;
                let room = if exact { 0.0 } else { ROUNDED * one.abs().max(other.abs()) };
                (one - other).abs() > room
            }
            _ => false,
        }
    }
}

/// The letter in parentheses of a text that names no other one: `It is (C), as (C) holds`, but not `Not (B), so C`.
fn enclosed(text: &str) -> Option<char> {
    let bytes = text.as_bytes();
    let is_word = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    let named = text.match_indices(|c: char| c.is_ascii_uppercase()).filter_map(|(at, letter)| {
        let in_parentheses = at > 0 && bytes[at - 1] == b'(' && bytes.get(at + 1) == Some(&b')');
        let in_word = is_word(at + 1) || (at > 0 && is_word(at - 1));
        // `f(X)` is no choice, and `A` and `I` are words.
        let is_other = if in_parentheses { at > 1 && is_word(at - 2) } else { matches!(letter, "A" | "I") };
        (!in_word && !is_other).then(|| (char::from(bytes[at]), in_parentheses))
    });
    let named: Vec<(char, bool)> = named.collect();
    let (letter, _) = *named.iter().find(|(_, in_parentheses)| *in_parentheses)?;
    named.iter().all(|(other, _)| *other == letter).then_some(letter)
}

/// A number alone, with or without commas between thousands.
fn number(text: &str) -> Option<f64> {
    let digits = text.trim_start_matches(['-', '+']);
    let plain = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    plain.then(|| text.replace(',', "").parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_conclusions_contradict_each_other() {
        use Tag::{Answer, GroupConsensus, GroupSolution};
        fn found(blocks: &[(Tag, &str)]) -> Option<(usize, String)> {
            let blocks = blocks.iter().zip(0..).map(|((tag, text), at)| Block { tag: *tag, text, span: at..at });
            contradiction(&blocks.collect::<Vec<_>>())
        }
        for (one, other, what) in [
            ("(A)", "(C)", Some("(A), but `<group_solution>` says (C)")),
            ("a", "**C**", Some("(A), but `<group_solution>` says (C)")),
            ("A", "(C) a cup", Some("(A), but `<group_solution>` says (C)")),
            ("(A)", "All settle on (C), as (C) fits f(X).", Some("(A), but `<group_solution>` says (C)")),
            ("7", "$8$", Some("7, but `<group_solution>` says 8")),
            ("1,250", "1251", Some("1250, but `<group_solution>` says 1251")),
            ("Valid", "invalid.", Some("valid, but `<group_solution>` says invalid")),
            ("half-true", "true", Some("half-true, but `<group_solution>` says true")),
            ("0.33", "0.333", None),
            ("7", "7.0", None),
            ("7", "seven", None),
            ("7", "5+2", None),
            ("7", "It is 8, or so.", None),
            ("1/2", "0.5", None),
            ("yes", "Yes.", None),
            ("(C)", "C", None),
            ("(C)", "Not (A), but (C)", None),
            ("C", "We rejected (B), so it is C", None),
            ("(B)", "A look at it leaves (C)", Some("(B), but `<group_solution>` says (C)")),
            ("(C)", "a cup", None),
            ("", "7", None),
        ] {
            let expected = what.map(|what| (1, format!("`<answer>` says {what}")));
            assert_eq!(found(&[(Answer, one), (GroupSolution, other)]), expected, "{one} {other}");
        }
        let three = [(GroupConsensus, "We all agree"), (GroupSolution, "7"), (Answer, "8")];
        assert_eq!(found(&three), Some((2, "`<group_solution>` says 7, but `<answer>` says 8".into())));
        assert_eq!(found(&[(GroupConsensus, "Agreed."), (Answer, "Paris")]), None);
        let within = |text| found(&[(GroupSolution, text)]);
        let said = "`<group_solution>` says (C), but `<answer>` says (A)";
        assert_eq!(within("(C) <answer>(A)</answer>"), Some((0, said.into())));
        let said = "`<answer>` says (A), but `<group_solution>` says (C)";
        assert_eq!(within("<answer>(A)</answer> So (C)!"), Some((0, said.into())));
        assert_eq!(within("7 it is: <answer>3+4</answer>"), None);
    }

    #[test]
    fn an_answer_is_the_only_one() {
        assert_eq!(answer_in("x <answer> 7 </answer>"), Some("7"));
        for text in ["7", "<answer>7", "<answer>7</answer><answer>8</answer>", "<think>7</think>"] {
            assert_eq!(answer_in(text), None);
        }
    }
}
