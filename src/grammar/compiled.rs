//! A schema as an acceptor reads it: nodes that refer to each other by number, and how short each can be.

use super::schema::Schema;

/// A node's number.
pub type Node = u32;

/// What is at a node.
#[derive(Debug)]
pub enum Rule {
    /// Text and values, one after another.
    Sequence(Vec<Part>),
    List {
        item: Node,
        min: u32,
        max: u32,
    },
    Integer {
        min: u32,
        max: u32,
    },
    Text {
        max: u32,
    },
}

/// A part of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The number of a literal.
    Literal(u32),
    Value(Node),
}

/// A schema, compiled. Its texts are the JSON of the schema's values with `, ` and `: ` between their parts, as Python
/// writes it and models have mostly read it; there is no other white space.
#[derive(Debug)]
pub struct Grammar {
    rules: Vec<Rule>,
    literals: Vec<String>,
    /// Bytes of the shortest text of each node.
    shortest: Vec<u32>,
    root: Node,
}

/// Between the elements of a list and the keys of an object.
pub const SEPARATOR: &str = ", ";

impl Grammar {
    /// The literal between the elements of a list.
    pub(super) const SEPARATOR: u32 = 0;

    /// Compiles a schema.
    pub fn new(schema: &Schema) -> Self {
        let mut grammar = Self { rules: vec![], literals: vec![SEPARATOR.to_string()], shortest: vec![], root: 0 };
        grammar.root = grammar.add(schema);
        grammar
    }

    fn add(&mut self, schema: &Schema) -> Node {
        let (rule, shortest) = match schema {
            Schema::Object(keys) => {
                let mut parts = vec![];
                let mut shortest = 0;
                for (at, (key, schema)) in keys.iter().enumerate() {
                    let before = if at == 0 { "{" } else { SEPARATOR };
                    let key = serde_json::Value::from(key.as_str());
                    shortest += self.literal(&mut parts, format!("{before}{key}: "));
                    let value = self.add(schema);
                    shortest += self.shortest(value);
                    parts.push(Part::Value(value));
                }
                shortest += self.literal(&mut parts, if keys.is_empty() { "{}" } else { "}" }.to_string());
                (Rule::Sequence(parts), shortest)
            }
            Schema::List { item, min, max } => {
                let (min, max) = (*min as u32, *max as u32);
                let item = self.add(item);
                let items = min * self.shortest(item) + min.saturating_sub(1) * SEPARATOR.len() as u32;
                (Rule::List { item, min, max }, 2 + items)
            }
            Schema::Integer { min, max } => (Rule::Integer { min: *min, max: *max }, digits(*min)),
            Schema::Text { max } => (Rule::Text { max: *max as u32 }, 3),
        };
        self.rules.push(rule);
        self.shortest.push(shortest);
        self.rules.len() as Node - 1
    }

    fn literal(&mut self, parts: &mut Vec<Part>, text: String) -> u32 {
        let length = text.len() as u32;
        parts.push(Part::Literal(self.literals.len() as u32));
        self.literals.push(text);
        length
    }

    pub(super) fn root(&self) -> Node {
        self.root
    }

    pub(super) fn rule(&self, node: Node) -> &Rule {
        &self.rules[node as usize]
    }

    pub(super) fn text_of(&self, literal: u32) -> &[u8] {
        self.literals[literal as usize].as_bytes()
    }

    /// Bytes of the shortest text of a node.
    pub(super) fn shortest(&self, node: Node) -> u32 {
        self.shortest[node as usize]
    }

    /// Bytes of the shortest text of all.
    pub fn shortest_text(&self) -> usize {
        self.shortest(self.root) as usize
    }
}

/// Digits of a number.
fn digits(number: u32) -> u32 {
    number.checked_ilog10().unwrap_or(0) + 1
}
