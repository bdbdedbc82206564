//! Formulas of models and of mediations: what they are made of, and how they are written.

use super::words::is_plain;
use std::fmt;
use std::ops::Range;

/// `outcome ~ terms | effects`
#[derive(Clone, Debug)]
pub struct Formula {
    pub outcome: Variable,
    pub terms: Vec<Term>,
    /// Whether the model has a constant.
    pub constant: bool,
    /// What is added with the coefficient 1.
    pub offsets: Vec<Variable>,
    pub effects: Vec<Cross>,
}

/// `cause -> mediators -> outcome ~ controls | effects`
#[derive(Clone, Debug)]
pub struct Path {
    pub cause: Factor,
    pub mediators: Vec<Factor>,
    pub outcome: Variable,
    pub controls: Vec<Term>,
    pub effects: Vec<Cross>,
}

/// A product of factors.
#[derive(Clone, Debug)]
pub struct Term(pub Vec<Factor>);

#[derive(Clone, Debug)]
pub enum Factor {
    /// A number; a column of texts is a category.
    Variable(Variable),
    /// A column whose values are names.
    Category(Category),
}

#[derive(Clone, Debug)]
pub struct Variable {
    pub column: String,
    pub reduce: Option<Reduce>,
    /// From the innermost one.
    pub functions: Vec<Function>,
    pub span: Range<usize>,
}

#[derive(Clone, Debug)]
pub struct Category {
    pub column: String,
    /// The level that the others are held against, and where it is written.
    pub base: Option<(String, Range<usize>)>,
    pub span: Range<usize>,
}

/// Columns whose values together make a level or a cluster.
#[derive(Clone, Debug)]
pub struct Cross {
    pub columns: Vec<String>,
    pub span: Range<usize>,
}

/// What makes a number of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reduce {
    Len,
    Sum,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Function {
    Log,
    Log1p,
    Sqrt,
}

/// The words before a parenthesis.
pub const CALLS: [&str; 7] = ["C", "offset", "log", "log1p", "sqrt", "len", "sum"];

impl Reduce {
    pub const ALL: [Self; 2] = [Self::Len, Self::Sum];

    pub fn name(self) -> &'static str {
        match self {
            Self::Len => "len",
            Self::Sum => "sum",
        }
    }
}

impl Function {
    pub const ALL: [Self; 3] = [Self::Log, Self::Log1p, Self::Sqrt];

    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Log1p => "log1p",
            Self::Sqrt => "sqrt",
        }
    }

    /// The function's value; what it takes, if that is not among it.
    pub fn of(self, value: f64) -> Result<f64, &'static str> {
        match self {
            Self::Log if value <= 0.0 => Err("takes numbers above 0; log1p(x) = log(1 + x) takes 0 as well"),
            Self::Log1p if value <= -1.0 => Err("takes numbers above -1"),
            Self::Sqrt if value < 0.0 => Err("takes no negative numbers"),
            Self::Log => Ok(value.ln()),
            Self::Log1p => Ok(value.ln_1p()),
            Self::Sqrt => Ok(value.sqrt()),
        }
    }
}

impl Factor {
    pub fn column(&self) -> &str {
        match self {
            Self::Variable(variable) => &variable.column,
            Self::Category(category) => &category.column,
        }
    }

    pub fn span(&self) -> &Range<usize> {
        match self {
            Self::Variable(variable) => &variable.span,
            Self::Category(category) => &category.span,
        }
    }
}

impl Term {
    pub fn span(&self) -> Range<usize> {
        let (first, last) = (self.0.first(), self.0.last());
        first.map_or(0, |f| f.span().start)..last.map_or(0, |f| f.span().end)
    }
}

/// A name as a formula has it.
fn name(column: &str) -> String {
    if is_plain(column) { column.into() } else { format!("`{column}`") }
}

fn joined<T: fmt::Display>(parts: &[T], sign: &str) -> String {
    parts.iter().map(T::to_string).collect::<Vec<_>>().join(sign)
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let inner = name(&self.column);
        let inner = self.reduce.map_or(inner.clone(), |reduce| format!("{}({inner})", reduce.name()));
        let all = self.functions.iter().fold(inner, |inner, function| format!("{}({inner})", function.name()));
        f.write_str(&all)
    }
}

impl fmt::Display for Category {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match &self.base {
            // A text has no way to hold both kinds of quotes.
            Some((base, _)) if base.contains('"') => write!(f, "C({}, base='{base}')", name(&self.column)),
            Some((base, _)) => write!(f, "C({}, base=\"{base}\")", name(&self.column)),
            None => write!(f, "C({})", name(&self.column)),
        }
    }
}

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Variable(variable) => variable.fmt(f),
            Self::Category(category) => category.fmt(f),
        }
    }
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&joined(&self.0, ":"))
    }
}

impl fmt::Display for Cross {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&joined(&self.columns.iter().map(|column| name(column)).collect::<Vec<_>>(), ":"))
    }
}

/// ` | effects`, if there are any.
fn behind(effects: &[Cross]) -> String {
    if effects.is_empty() { String::new() } else { format!(" | {}", joined(effects, " + ")) }
}

impl fmt::Display for Formula {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let constant = (!self.constant).then(|| "0".to_string());
        let offsets = self.offsets.iter().map(|offset| format!("offset({offset})"));
        let terms: Vec<String> =
            constant.into_iter().chain(self.terms.iter().map(Term::to_string)).chain(offsets).collect();
        let terms = if terms.is_empty() { "1".into() } else { terms.join(" + ") };
        write!(f, "{} ~ {terms}{}", self.outcome, behind(&self.effects))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} -> {} -> {}", self.cause, joined(&self.mediators, " + "), self.outcome)?;
        if !self.controls.is_empty() {
            write!(f, " ~ {}", joined(&self.controls, " + "))?;
        }
        f.write_str(&behind(&self.effects))
    }
}
