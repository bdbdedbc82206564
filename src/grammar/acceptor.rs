//! Follows a text byte by byte and says whether it is the beginning of a text of a grammar.
//!
//! Decided: it never leads into a dead end. Whatever it has accepted can be finished, `shortest` says in how many
//! bytes, and with the right byte next that number falls by one each time. So a writer with as many tokens left can
//! always finish, if each of these characters is a token of its vocabulary.

use super::compiled::{Grammar, Node, Part, Rule, SEPARATOR};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A place in the texts of a grammar. Two are equal if the same may follow in the same grammar.
#[derive(Clone, Debug)]
pub struct Acceptor {
    grammar: Arc<Grammar>,
    /// What is to come, the next last. Empty: the text is complete.
    ahead: Vec<Piece>,
}

/// A part of what is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Piece {
    Value(Node),
    /// A literal from this byte on.
    Literal(u32, u32),
    /// The rest of an integer: its value so far.
    Digits(Node, u32),
    /// The rest of a text and its quotation mark, after so many bytes.
    Letters(Node, u32),
    /// The rest of a list and its bracket, after so many elements.
    Items(Node, u32),
}

impl PartialEq for Acceptor {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.grammar, &other.grammar) && self.ahead == other.ahead
    }
}

impl Eq for Acceptor {}

impl Hash for Acceptor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.grammar).hash(state);
        self.ahead.hash(state);
    }
}

impl Acceptor {
    /// At the beginning of a text.
    pub fn new(grammar: Arc<Grammar>) -> Self {
        let ahead = vec![Piece::Value(grammar.root())];
        Self { grammar, ahead }
    }

    /// Whether the text is complete: nothing may follow.
    pub fn is_complete(&self) -> bool {
        self.ahead.is_empty()
    }

    /// The fewest bytes that complete the text.
    pub fn shortest(&self) -> usize {
        self.ahead.iter().map(|piece| self.shortest_of(*piece) as usize).sum()
    }

    /// Reads one more byte. Returns whether it may come here; if not, the acceptor is of no more use.
    #[must_use]
    pub fn read(&mut self, byte: u8) -> bool {
        while let Some(piece) = self.ahead.pop() {
            match piece {
                Piece::Value(node) => match self.grammar.rule(node) {
                    Rule::Sequence(parts) => {
                        let parts = parts.iter().rev().map(|part| match *part {
                            Part::Literal(literal) => Piece::Literal(literal, 0),
                            Part::Value(node) => Piece::Value(node),
                        });
                        self.ahead.extend(parts);
                    }
                    Rule::List { .. } => return self.follow(byte == b'[', Piece::Items(node, 0)),
                    Rule::Text { .. } => return self.follow(byte == b'"', Piece::Letters(node, 0)),
                    Rule::Integer { min, max } => {
                        let (value, range) = (u32::from(byte.wrapping_sub(b'0')), (*min, *max));
                        let fits = byte.is_ascii_digit() && missing(value, range).is_some();
                        return self.follow(fits, Piece::Digits(node, value));
                    }
                },
                Piece::Literal(literal, at) => {
                    let text = self.grammar.text_of(literal);
                    let (fits, last) = (text[at as usize] == byte, at as usize + 1 == text.len());
                    return if last { fits } else { self.follow(fits, Piece::Literal(literal, at + 1)) };
                }
                Piece::Digits(node, value) => {
                    let Rule::Integer { min, max } = *self.grammar.rule(node) else { return false };
                    if byte.is_ascii_digit() {
                        let longer = value.checked_mul(10).and_then(|v| v.checked_add(u32::from(byte - b'0')));
                        // JSON has no numbers that begin with a zero.
                        let longer = longer.filter(|longer| value > 0 && missing(*longer, (min, max)).is_some());
                        return longer.is_some_and(|longer| self.follow(true, Piece::Digits(node, longer)));
                    }
                    if value < min {
                        return false;
                    }
                    // The number is complete: the byte belongs to what follows it.
                }
                Piece::Letters(node, read) => {
                    let Rule::Text { max } = *self.grammar.rule(node) else { return false };
                    return match byte {
                        b'"' => read > 0,
                        b'\\' => false,
                        b' ' if read == 0 => false,
                        b' '..=b'~' => self.follow(read < max, Piece::Letters(node, read + 1)),
                        _ => false,
                    };
                }
                Piece::Items(node, read) => {
                    let Rule::List { item, min, max } = *self.grammar.rule(node) else { return false };
                    if byte == b']' {
                        return read >= min;
                    }
                    if read == max {
                        return false;
                    }
                    self.ahead.extend([Piece::Items(node, read + 1), Piece::Value(item)]);
                    if read > 0 {
                        self.ahead.push(Piece::Literal(Grammar::SEPARATOR, 0));
                    }
                }
            }
        }
        false
    }

    fn follow(&mut self, fits: bool, piece: Piece) -> bool {
        if fits {
            self.ahead.push(piece);
        }
        fits
    }

    fn shortest_of(&self, piece: Piece) -> u32 {
        match piece {
            Piece::Value(node) => self.grammar.shortest(node),
            Piece::Literal(literal, at) => self.grammar.text_of(literal).len() as u32 - at,
            Piece::Digits(node, value) => match *self.grammar.rule(node) {
                Rule::Integer { min, max } => missing(value, (min, max)).unwrap_or(0),
                _ => 0,
            },
            Piece::Letters(_, read) => 1 + u32::from(read == 0),
            Piece::Items(node, read) => match *self.grammar.rule(node) {
                Rule::List { item, min, .. } => {
                    let more = min.saturating_sub(read);
                    let separators = if read == 0 { more.saturating_sub(1) } else { more };
                    1 + more * self.grammar.shortest(item) + separators * SEPARATOR.len() as u32
                }
                _ => 0,
            },
        }
    }
}

/// How many digits a number of this beginning needs at least to be in a range; none if it cannot be.
fn missing(value: u32, (min, max): (u32, u32)) -> Option<u32> {
    let (value, min, max) = (u64::from(value), u64::from(min), u64::from(max));
    // No digit can follow a zero.
    let most = if value == 0 { 0 } else { 9 };
    (0..=most).find(|more| {
        let scale = 10u64.pow(*more);
        value * scale <= max && value * scale + scale > min
    })
}

#[cfg(test)]
mod tests {
    use super::super::Schema;
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn accepts(schema: &Schema, text: &str) -> bool {
        let mut acceptor = Acceptor::new(Arc::new(Grammar::new(schema)));
        text.bytes().all(|byte| acceptor.read(byte)) && acceptor.is_complete()
    }

    /// Every number of up to three digits against every small range.
    #[test]
    fn integers_are_those_of_the_range() {
        for (min, max) in [(0, 0), (0, 9), (1, 5), (5, 12), (7, 100), (90, 110), (10, 10), (0, 999), (121, 129)] {
            let schema = Schema::object(["a"], &Schema::Integer { min, max });
            let accepted: Vec<u32> = (0..1100).filter(|n| accepts(&schema, &format!("{{\"a\": {n}}}"))).collect();
            assert_eq!(accepted, (min..=max).collect::<Vec<_>>(), "{min} to {max}");
            for wrong in ["", "-1", "01", "00", "1.0", "1e1", " 1"] {
                assert!(!accepts(&schema, &format!("{{\"a\": {wrong}}}")), "{min} to {max}: {wrong}");
            }
        }
        let most = Schema::object(["a"], &Schema::Integer { min: 0, max: u32::MAX });
        assert!(accepts(&most, "{\"a\": 4294967295}") && !accepts(&most, "{\"a\": 4294967296}"));
    }

    #[test]
    fn texts_lists_and_objects_are_in_one_spelling() {
        let text = Schema::Text { max: 3 };
        let list = |min, max| Schema::List { item: Box::new(text.clone()), min, max };
        let both = Schema::Object(vec![("a\"b".into(), list(0, 2)), ("c".into(), Schema::Object(vec![]))]);
        for (reply, fits) in [
            (r#"{"a\"b": [], "c": {}}"#, true),
            (r#"{"a\"b": ["x"], "c": {}}"#, true),
            (r#"{"a\"b": ["x y", "~! "], "c": {}}"#, true),
            (r#"{"a\"b": ["x", "y", "z"], "c": {}}"#, false),
            (r#"{"a\"b": ["wxyz"], "c": {}}"#, false),
            (r#"{"a\"b": [" x"], "c": {}}"#, false),
            (r#"{"a\"b": [""], "c": {}}"#, false),
            (r#"{"a\"b": ["é"], "c": {}}"#, false),
            (r#"{"a\"b": ["\n"], "c": {}}"#, false),
            (r#"{"a\"b": ["x",], "c": {}}"#, false),
            (r#"{"a\"b":[], "c": {}}"#, false),
            (r#"{"c": {}, "a\"b": []}"#, false),
            (r#"{"a\"b": []}"#, false),
            (r#"{"a\"b": [], "c": {}} "#, false),
        ] {
            assert_eq!(accepts(&both, reply), fits, "{reply}");
        }
        assert!(accepts(&list(2, 2), r#"["x", "y"]"#) && !accepts(&list(2, 2), r#"["x"]"#));
    }

    fn schemas() -> impl Strategy<Value = Schema> {
        let leaf = prop_oneof![
            (0u32..300, 0u32..300).prop_map(|(min, more)| Schema::Integer { min, max: min + more }),
            (1usize..6).prop_map(|max| Schema::Text { max }),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                (inner.clone(), 0usize..3, 0usize..3).prop_map(|(item, min, more)| Schema::List {
                    item: Box::new(item),
                    min,
                    max: min + more
                }),
                prop::collection::vec(inner, 0..4).prop_map(|values| {
                    let keys = (0..).map(|n: usize| format!("key{n}"));
                    Schema::Object(keys.zip(values).collect())
                }),
            ]
        })
    }

    proptest! {
        /// Whatever is drawn: each accepted byte can be followed by one that shortens the rest, the shortest rest
        /// completes the text, and a complete text is JSON that the schema's own check accepts.
        #[test]
        fn whatever_is_accepted_becomes_a_reply(schema in schemas(), draws in prop::collection::vec(0u32..1000, 60)) {
            let schema = Schema::object(["all"], &schema);
            let mut acceptor = Acceptor::new(Arc::new(Grammar::new(&schema)));
            let mut text = String::new();
            for at in 0.. {
                if acceptor.is_complete() {
                    break;
                }
                let next: Vec<(u8, Acceptor)> = (0..=255).filter_map(|byte| {
                    let mut next = acceptor.clone();
                    next.read(byte).then_some((byte, next))
                }).collect();
                prop_assert!(next.iter().any(|(_, next)| next.shortest() + 1 == acceptor.shortest()), "after {text}");
                let (byte, state) = match draws.get(at) {
                    Some(draw) => next[*draw as usize % next.len()].clone(),
                    None => next.iter().min_by_key(|(_, next)| next.shortest()).unwrap().clone(),
                };
                text.push(char::from(byte));
                acceptor = state;
            }
            prop_assert_eq!(acceptor.shortest(), 0);
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(schema.check(&value), Ok(()), "{}", text);
        }
    }

    #[test]
    fn equal_places_are_equal() {
        let grammar = Arc::new(Grammar::new(&Schema::object(["a"], &Schema::Integer { min: 0, max: 99 })));
        let at = |text: &str| {
            let mut acceptor = Acceptor::new(Arc::clone(&grammar));
            assert!(text.bytes().all(|byte| acceptor.read(byte)), "{text}");
            acceptor
        };
        assert_eq!(at("{\"a\": 4"), at("{\"a\": 4"));
        assert_ne!(at("{\"a\": 4"), at("{\"a\": 5"));
        assert_ne!(at("{"), at("{\""));
        assert_eq!(grammar.shortest_text(), json!({ "a": 0 }).to_string().len() + 1);
    }
}
