//! Reads formulas:
//!
//! ```text
//! model   = value "~" terms [ "|" effects ]
//! path    = factor "->" factor { "+" factor } "->" value [ "~" terms ] [ "|" effects ]
//! terms   = term { ( "+" | "-" ) term }          0, 1: without, with a constant; - takes only the constant away
//! term    = factor { ":" factor } | factor { "*" factor } | "offset" "(" value ")" | "0" | "1"
//! factor  = value | "C" "(" NAME [ "," "base" "=" ( TEXT | NAME | NUMBER ) ] ")"
//! value   = NAME | ( "log" | "log1p" | "sqrt" ) "(" value ")" | ( "len" | "sum" ) "(" NAME ")"
//! effects = NAME { ":" NAME } { "+" NAME { ":" NAME } }
//! ```

use super::formula::{CALLS, Category, Cross, Factor, Formula, Function, Path, Reduce, Term, Variable};
use super::words::{Fault, Placed, Word, words};
use crate::recipe::spelling::nearest;
use std::collections::BTreeSet;
use std::ops::Range;

/// Most terms of a formula.
pub const MAX_TERMS: usize = 256;
/// Most factors of a product, whose parts are all terms of `a*b*c`.
pub const MAX_FACTORS: usize = 5;
/// Most functions around a column.
const MAX_DEPTH: usize = 8;

struct Parser {
    words: Vec<Placed>,
    at: usize,
}

/// The terms of a formula.
#[derive(Default)]
struct Terms {
    terms: Vec<Term>,
    offsets: Vec<Variable>,
    without_constant: Option<Range<usize>>,
}

/// Reads a model.
///
/// # Errors
/// The first thing that is wrong, with its place.
pub fn model(text: &str) -> Result<Formula, Fault> {
    let mut parser = Parser { words: words(text)?, at: 0 };
    let outcome = parser.value("the outcome, such as `correct ~ tokens`")?;
    parser.sign('~', "`~` after the outcome")?;
    let Terms { terms, offsets, without_constant } = parser.terms()?;
    let effects = parser.effects_behind()?;
    parser.end("`+`, `:`, `*` or `|` and fixed effects")?;
    Ok(Formula { outcome, terms, constant: without_constant.is_none(), offsets, effects })
}

/// Reads a mediation.
///
/// # Errors
/// As `model`.
pub fn path(text: &str) -> Result<Path, Fault> {
    let mut parser = Parser { words: words(text)?, at: 0 };
    let cause = parser.factor("the cause, such as `x -> m -> y`")?;
    parser.expect(&Word::Arrow, "`->` after the cause")?;
    let mut mediators = vec![parser.factor("a mediator")?];
    while parser.takes('+') {
        mediators.push(parser.factor("a mediator")?);
    }
    parser.expect(&Word::Arrow, "`+` and another mediator, or `->` and the outcome")?;
    let outcome = parser.value("the outcome")?;
    let mut terms = Terms::default();
    if parser.takes('~') {
        terms = parser.terms()?;
    }
    let effects = parser.effects_behind()?;
    parser.end("`~` and controls, or `|` and fixed effects")?;
    if let Some(offset) = terms.offsets.first() {
        return Err(Fault::new(&offset.span, "a mediation has no offset"));
    }
    if let Some(span) = terms.without_constant {
        return Err(Fault::new(&span, "the equations of a mediation have a constant"));
    }
    Ok(Path { cause, mediators, outcome, controls: terms.terms, effects })
}

/// Reads columns whose values make clusters: `task`, or `task:seed`.
///
/// # Errors
/// As `model`.
pub fn cross(text: &str) -> Result<Cross, Fault> {
    let mut parser = Parser { words: words(text)?, at: 0 };
    let cross = parser.cross()?;
    parser.end("`:` and another column")?;
    Ok(cross)
}

impl Parser {
    fn peek(&self) -> &Word {
        &self.words[self.at].0
    }

    fn span(&self) -> Range<usize> {
        self.words[self.at].1.clone()
    }

    /// Where the word before this one ends.
    fn last(&self) -> usize {
        self.at.checked_sub(1).map_or(0, |at| self.words[at].1.end)
    }

    fn next(&mut self) -> Placed {
        let word = self.words[self.at].clone();
        self.at = (self.at + 1).min(self.words.len() - 1);
        word
    }

    /// Takes a sign if it is next.
    fn takes(&mut self, sign: char) -> bool {
        let is = *self.peek() == Word::Sign(sign);
        if is {
            self.next();
        }
        is
    }

    fn unexpected(&self, expected: &str) -> Fault {
        Fault::new(&self.span(), format!("{} where {expected} was expected", self.peek()))
    }

    fn expect(&mut self, word: &Word, expected: &str) -> Result<(), Fault> {
        if self.peek() != word {
            return Err(self.unexpected(expected));
        }
        self.next();
        Ok(())
    }

    fn sign(&mut self, sign: char, expected: &str) -> Result<(), Fault> {
        self.expect(&Word::Sign(sign), expected)
    }

    fn end(&mut self, expected: &str) -> Result<(), Fault> {
        self.expect(&Word::End, expected)
    }

    fn column(&mut self, expected: &str) -> Result<String, Fault> {
        match self.peek().clone() {
            Word::Quoted(name) if name.is_empty() => Err(Fault::new(&self.span(), "a column has a name")),
            Word::Name(name) | Word::Quoted(name) => {
                self.next();
                Ok(name)
            }
            _ => Err(self.unexpected(expected)),
        }
    }

    /// Whether a name and a parenthesis are next.
    fn is_call(&self) -> Option<&str> {
        match (self.peek(), self.words.get(self.at + 1)) {
            (Word::Name(name), Some((Word::Sign('('), _))) => Some(name),
            _ => None,
        }
    }

    fn value(&mut self, expected: &str) -> Result<Variable, Fault> {
        let start = self.span().start;
        let mut functions = Vec::new();
        let mut reduce = None;
        let mut open = 0;
        while let Some(call) = self.is_call().filter(|_| reduce.is_none()) {
            let function = Function::ALL.into_iter().find(|function| function.name() == call);
            let reduction = Reduce::ALL.into_iter().find(|reduction| reduction.name() == call);
            match (function, reduction) {
                (Some(function), _) => functions.insert(0, function),
                (_, Some(reduction)) => reduce = Some(reduction),
                _ => return Err(self.unknown_call(call)),
            }
            open += 1;
            if open > MAX_DEPTH {
                return Err(Fault::new(&self.span(), format!("more than {MAX_DEPTH} functions around a column")));
            }
            self.next();
            self.next();
        }
        let expected = if open > 0 { "a column" } else { expected };
        let column = self.column(expected)?;
        for _ in 0..open {
            self.sign(')', "`)`")?;
        }
        Ok(Variable { column, reduce, functions, span: start..self.last() })
    }

    fn unknown_call(&self, call: &str) -> Fault {
        let span = self.span();
        let what = match call {
            "C" => "a category where a number was expected".to_string(),
            "offset" => "an offset is a term of its own".to_string(),
            _ => {
                let hint = nearest(call, CALLS).map_or(String::new(), |known| format!("; did you mean `{known}`?"));
                format!("there is no function `{call}`{hint}\nthe functions are: {}", CALLS.join(", "))
            }
        };
        Fault::new(&span, what)
    }

    fn factor(&mut self, expected: &str) -> Result<Factor, Fault> {
        if self.is_call() != Some("C") {
            return Ok(Factor::Variable(self.value(expected)?));
        }
        let start = self.span().start;
        self.next();
        self.next();
        let column = self.column("a column")?;
        let mut base = None;
        if self.takes(',') {
            self.expect(&Word::Name("base".into()), "`base=` and a level")?;
            self.sign('=', "`=` after `base`")?;
            let (word, span) = self.next();
            base = match word {
                Word::Name(level) | Word::Text(level) | Word::Number(level) => Some((level, span)),
                other => return Err(Fault::new(&span, format!("{other} where a level was expected"))),
            };
        }
        self.sign(')', if base.is_some() { "`)`" } else { "`,` and the baseline, or `)`" })?;
        Ok(Factor::Category(Category { column, base, span: start..self.last() }))
    }

    fn terms(&mut self) -> Result<Terms, Fault> {
        let mut all = Terms::default();
        let mut negative = self.takes('-');
        loop {
            let span = self.span();
            match self.peek() {
                Word::Number(number) if number == "0" || number == "1" => {
                    let without = (number == "0") != negative;
                    all.without_constant = without.then(|| span.clone());
                    self.next();
                }
                _ if negative => return Err(self.unexpected("`1`, as only the constant can be taken away,")),
                _ if self.is_call() == Some("offset") => {
                    self.next();
                    self.next();
                    all.offsets.push(self.value("a column")?);
                    self.sign(')', "`)`")?;
                }
                _ => self.product(&mut all.terms)?,
            }
            if all.terms.len() > MAX_TERMS {
                return Err(Fault::new(&span, format!("more than {MAX_TERMS} terms")));
            }
            negative = *self.peek() == Word::Sign('-');
            if !negative && *self.peek() != Word::Sign('+') {
                return Ok(all);
            }
            self.next();
        }
    }

    /// `a`, `a:b` or `a*b`; terms that are there already are not added again.
    fn product(&mut self, terms: &mut Vec<Term>) -> Result<(), Fault> {
        let mut factors = vec![self.factor("a term")?];
        let sign = match self.peek() {
            Word::Sign(sign @ (':' | '*')) => Some(*sign),
            _ => None,
        };
        while let Some(sign) = sign.filter(|sign| self.takes(*sign)) {
            factors.push(self.factor(&format!("a factor after `{sign}`"))?);
        }
        if let Word::Sign(':' | '*') = self.peek() {
            return Err(Fault::new(&self.span(), "`:` and `*` in one product\nwrite the terms out, as in a + b + a:b"));
        }
        // A factor times itself is no other term, as in R.
        let mut known = BTreeSet::new();
        factors.retain(|factor| known.insert(factor.to_string()));
        if factors.len() > MAX_FACTORS {
            let span = factors[0].span().start..self.last();
            return Err(Fault::new(&span, format!("a product of more than {MAX_FACTORS} factors")));
        }
        let whole = (1u32 << factors.len()) - 1;
        let mut parts: Vec<u32> = if sign == Some('*') { (1..=whole).collect() } else { vec![whole] };
        parts.sort_by_key(|part| part.count_ones());
        for part in parts {
            let chosen = factors.iter().enumerate().filter(|(at, _)| part >> at & 1 == 1);
            let term = Term(chosen.map(|(_, factor)| factor.clone()).collect());
            if !terms.iter().any(|known| known.to_string() == term.to_string()) {
                terms.push(term);
            }
        }
        Ok(())
    }

    fn effects_behind(&mut self) -> Result<Vec<Cross>, Fault> {
        let mut effects: Vec<Cross> = Vec::new();
        if !self.takes('|') {
            return Ok(effects);
        }
        loop {
            let effect = self.cross()?;
            if effects.iter().any(|known| known.to_string() == effect.to_string()) {
                return Err(Fault::new(&effect.span, format!("the fixed effect {effect} is there twice")));
            }
            effects.push(effect);
            if effects.len() > MAX_FACTORS {
                return Err(Fault::new(&self.span(), format!("more than {MAX_FACTORS} fixed effects")));
            }
            if !self.takes('+') {
                return Ok(effects);
            }
        }
    }

    fn cross(&mut self) -> Result<Cross, Fault> {
        let start = self.span().start;
        let mut columns = vec![self.column("a column")?];
        while self.takes(':') {
            columns.push(self.column("a column")?);
        }
        Ok(Cross { columns, span: start..self.last() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_read_as_they_are_written() {
        for (text, expected) in [
            ("correct ~ questions + log(tokens) | problem", "correct ~ questions + log(tokens) | problem"),
            ("y~a*b", "y ~ a + b + a:b"),
            ("y ~ a*b*c + a:b", "y ~ a + b + c + a:b + a:c + b:c + a:b:c"),
            ("log1p(sqrt(n)) ~ -1 + x", "log1p(sqrt(n)) ~ 0 + x"),
            ("y ~ x - 1 + 1", "y ~ x"),
            ("y ~ x + 0 + x", "y ~ 0 + x"),
            ("y ~ 1", "y ~ 1"),
            ("y ~ 1 | a + b:c", "y ~ 1 | a + b:c"),
            ("y ~ C(kind, base=\"a b\") + C( k )", "y ~ C(kind, base=\"a b\") + C(k)"),
            ("y ~ C(kind, base=3):x", "y ~ C(kind, base=\"3\"):x"),
            ("y ~ C(kind, base='say \"a\"')", "y ~ C(kind, base='say \"a\"')"),
            ("n ~ x + offset(log(tokens))", "n ~ x + offset(log(tokens))"),
            ("`hooks/a b` ~ judgement.cognitive.0", "`hooks/a b` ~ judgement.cognitive.0"),
            ("y ~ log(sum(a.b)) + len(c) + log", "y ~ log(sum(a.b)) + len(c) + log"),
        ] {
            let parsed = model(text).map(|formula| formula.to_string());
            assert_eq!(parsed.as_deref(), Ok(expected), "{text}");
        }
        for (text, expected) in [
            ("x->m->y", "x -> m -> y"),
            ("C(arm) -> a + log1p(b) -> y ~ log(n) + C(k) | p", "C(arm) -> a + log1p(b) -> y ~ log(n) + C(k) | p"),
        ] {
            assert_eq!(path(text).map(|path| path.to_string()).as_deref(), Ok(expected), "{text}");
        }
        assert_eq!(cross("a:`b c`").unwrap().to_string(), "a:`b c`");
    }

    #[test]
    fn what_is_no_formula_says_where_and_why() {
        for (text, at, what) in [
            ("", 0, "the end where the outcome, such as `correct ~ tokens` was expected"),
            ("y", 1, "the end where `~` after the outcome was expected"),
            ("y ~ ", 4, "the end where a term was expected"),
            ("y ~ a b", 6, "`b` where `+`, `:`, `*` or `|` and fixed effects was expected"),
            ("y ~ a - b", 8, "`b` where `1`, as only the constant can be taken away, was expected"),
            ("y ~ lg(a)", 4, "there is no function `lg`; did you mean `log`?\nthe functions are: C, offset, log,"),
            ("y ~ log(a", 9, "the end where `)` was expected"),
            ("y ~ a:b*c", 7, "`:` and `*` in one product"),
            ("y ~ a:b:c:d:e:f", 4, "a product of more than 5 factors"),
            ("y ~ a/b", 5, "`/` has no meaning here\nput names with such characters in backquotes"),
            ("y ~ `a", 4, "this ` is not closed"),
            ("y ~ C(a, b)", 9, "`b` where `base=` and a level was expected"),
            ("y ~ C(a, base=)", 14, "`)` where a level was expected"),
            ("C(y) ~ a", 0, "a category where a number was expected"),
            ("y ~ log(offset(a))", 8, "an offset is a term of its own"),
            ("y ~ a | b + b", 12, "the fixed effect b is there twice"),
            ("y ~ 2", 4, "2 where a term was expected"),
            ("y ~ log(log(log(log(log(log(log(log(log(a)))))))))", 36, "more than 8 functions around a column"),
        ] {
            let fault = model(text).unwrap_err();
            assert!(fault.what.contains(what) && fault.span.start == at, "{text}: {fault:?}");
        }
        for (text, at, what) in [
            ("x -> m", 6, "the end where `+` and another mediator, or `->` and the outcome was expected"),
            ("x -> m -> y ~ 0 + a", 14, "the equations of a mediation have a constant"),
            ("x -> m -> y ~ offset(a)", 21, "a mediation has no offset"),
        ] {
            let fault = path(text).unwrap_err();
            assert!(fault.what.contains(what) && fault.span.start == at, "{text}: {fault:?}");
        }
        let long = format!("y ~ {}", "a".repeat(5000));
        assert!(model(&long).unwrap_err().what.contains("at most 4096 bytes, this has 5004"));
        let many = format!("y ~ {}", (0..300).map(|i| format!("x{i}")).collect::<Vec<_>>().join("+"));
        assert!(model(&many).unwrap_err().what.contains("more than 256 terms"));
        let shown = model("y ~ lg(a)").unwrap_err().shown("--model", "y ~ lg(a)").0;
        assert!(shown.contains("--model y ~ lg(a)") && shown.contains("            ^^"), "{shown}");
    }
}
