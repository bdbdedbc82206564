//! Arithmetic on integers, parsed and evaluated exactly, for text that a model wrote.
//!
//! Nothing is handed to an interpreter. The grammar is `+ - * /`, parentheses and decimal integers, with the signs
//! `× ÷ −` that models like to write; there is no unary minus, since the game has none: every sign is an operation on
//! two numbers. The parser keeps two explicit stacks (operators and values) and evaluates as it reads, so neither a
//! tree nor recursion is needed, and length, depth and number of terms have hard limits. Values are fractions of i128
//! in lowest terms; an overflow is an error, not a wrong value.

use std::fmt;

/// Longest expression, in bytes.
pub const MAX_LENGTH: usize = 1024;
/// Most parentheses open at a time.
pub const MAX_DEPTH: usize = 32;
/// Most integers in an expression.
pub const MAX_TERMS: usize = 64;
/// Most digits of an integer; this many always fit in an i64.
const MAX_DIGITS: usize = 18;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    Add,
    Sub,
    Mul,
    Div,
}

impl Op {
    pub fn symbol(self) -> char {
        match self {
            Op::Add => '+',
            Op::Sub => '-',
            Op::Mul => '*',
            Op::Div => '/',
        }
    }

    /// 1 for sums, 2 for products: the higher binds first.
    pub fn precedence(self) -> u8 {
        match self {
            Op::Add | Op::Sub => 1,
            Op::Mul | Op::Div => 2,
        }
    }

    fn from_char(c: char) -> Option<Self> {
        match c {
            '+' => Some(Op::Add),
            '-' | '\u{2212}' => Some(Op::Sub),
            '*' | '×' => Some(Op::Mul),
            '/' | '÷' => Some(Op::Div),
            _ => None,
        }
    }
}

/// An exact fraction: lowest terms, positive denominator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rational {
    numerator: i128,
    denominator: i128,
}

impl Rational {
    pub fn integer(value: i64) -> Self {
        Self { numerator: value.into(), denominator: 1 }
    }

    /// `self op other`.
    ///
    /// # Errors
    /// Division by zero, or a numerator or denominator that an i128 cannot hold.
    pub fn apply(self, op: Op, other: Self) -> Result<Self, Fault> {
        let (a, b, c, d) = (self.numerator, self.denominator, other.numerator, other.denominator);
        if op == Op::Div && c == 0 {
            return Err(Fault::DivisionByZero);
        }
        let scaled = || Some((a.checked_mul(d)?, c.checked_mul(b)?, b.checked_mul(d)?));
        let fraction = match op {
            Op::Add => scaled().and_then(|(l, r, d)| Some((l.checked_add(r)?, d))),
            Op::Sub => scaled().and_then(|(l, r, d)| Some((l.checked_sub(r)?, d))),
            Op::Mul => a.checked_mul(c).zip(b.checked_mul(d)),
            Op::Div => a.checked_mul(d).zip(b.checked_mul(c)),
        };
        fraction.and_then(|(n, d)| Self::reduced(n, d)).ok_or(Fault::Overflow)
    }

    /// Whether this lies within 1e-5 of `target`, the tolerance that TinyZero's scorer allows.
    pub fn is_near(self, target: i64) -> bool {
        let off = i128::from(target)
            .checked_mul(self.denominator)
            .and_then(|t| self.numerator.checked_sub(t))
            .and_then(|off| off.checked_mul(100_000));
        off.is_some_and(|off| off.unsigned_abs() < self.denominator.unsigned_abs())
    }

    /// None if lowest terms with a positive denominator do not fit (one of the two is `i128::MIN`).
    fn reduced(numerator: i128, denominator: i128) -> Option<Self> {
        let (mut a, mut b) = (numerator.checked_abs()?, denominator.checked_abs()?);
        while b != 0 {
            (a, b) = (b, a % b);
        }
        let divisor = a * denominator.signum();
        Some(Self { numerator: numerator / divisor, denominator: denominator / divisor })
    }
}

impl fmt::Display for Rational {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self.denominator {
            1 => write!(f, "{}", self.numerator),
            denominator => write!(f, "{}/{denominator}", self.numerator),
        }
    }
}

/// Why a text is not an expression, or has no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Empty,
    TooLong,
    TooDeep,
    TooManyTerms,
    NumberTooLong,
    /// A character that is not allowed, or not here.
    Unexpected(char),
    /// The text ends where a number must follow.
    EndsEarly,
    /// A parenthesis is never closed.
    Unclosed,
    DivisionByZero,
    Overflow,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Fault::Empty => write!(f, "empty"),
            Fault::TooLong => write!(f, "longer than {MAX_LENGTH} bytes"),
            Fault::TooDeep => write!(f, "more than {MAX_DEPTH} nested parentheses"),
            Fault::TooManyTerms => write!(f, "more than {MAX_TERMS} numbers"),
            Fault::NumberTooLong => write!(f, "a number of more than {MAX_DIGITS} digits"),
            Fault::Unexpected(c) => write!(f, "unexpected {c:?}"),
            Fault::EndsEarly => write!(f, "ends where a number must follow"),
            Fault::Unclosed => write!(f, "a parenthesis is not closed"),
            Fault::DivisionByZero => write!(f, "division by zero"),
            Fault::Overflow => write!(f, "numbers too large"),
        }
    }
}

/// An expression's value and the integers it is made of, in order of appearance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub value: Rational,
    pub numbers: Vec<i64>,
}

/// Parses and evaluates a whole text (white space between the parts is allowed), in time linear in its length.
///
/// # Errors
/// The first `Fault` from the left.
pub fn parse(text: &str) -> Result<Parsed, Fault> {
    if text.len() > MAX_LENGTH {
        return Err(Fault::TooLong);
    }
    let mut stacks = Stacks::default();
    let mut numbers = vec![];
    let mut depth = 0;
    let mut after_value = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '0'..='9' if !after_value => {
                let (mut value, mut digits) = (digit(c), 1);
                while let Some(next) = chars.next_if(char::is_ascii_digit) {
                    digits += 1;
                    if digits > MAX_DIGITS {
                        return Err(Fault::NumberTooLong);
                    }
                    value = value * 10 + digit(next);
                }
                if numbers.len() == MAX_TERMS {
                    return Err(Fault::TooManyTerms);
                }
                numbers.push(value);
                stacks.values.push(Rational::integer(value));
                after_value = true;
            }
            '(' if !after_value => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Err(Fault::TooDeep);
                }
                stacks.pending.push(None);
            }
            ')' if after_value && depth > 0 => {
                depth -= 1;
                stacks.settle(0)?;
                stacks.pending.pop();
            }
            c => match Op::from_char(c) {
                Some(op) if after_value => {
                    stacks.settle(op.precedence())?;
                    stacks.pending.push(Some(op));
                    after_value = false;
                }
                _ => return Err(Fault::Unexpected(c)),
            },
        }
    }
    if !after_value {
        return Err(if numbers.is_empty() && depth == 0 { Fault::Empty } else { Fault::EndsEarly });
    }
    if depth > 0 {
        return Err(Fault::Unclosed);
    }
    stacks.settle(0)?;
    let value = stacks.values.pop().ok_or(Fault::Empty)?;
    Ok(Parsed { value, numbers })
}

fn digit(c: char) -> i64 {
    i64::from(c as u32 - '0' as u32)
}

/// The two stacks of operator-precedence parsing; `None` is an open parenthesis.
#[derive(Default)]
struct Stacks {
    pending: Vec<Option<Op>>,
    values: Vec<Rational>,
}

impl Stacks {
    /// Applies the pending operators, back to the last parenthesis, that bind at least as strongly as `precedence`.
    /// Operators of equal precedence are thus applied from the left.
    fn settle(&mut self, precedence: u8) -> Result<(), Fault> {
        while let Some(&Some(op)) = self.pending.last()
            && op.precedence() >= precedence
        {
            self.pending.pop();
            let (Some(right), Some(left)) = (self.values.pop(), self.values.pop()) else {
                return Err(Fault::EndsEarly);
            };
            self.values.push(left.apply(op, right)?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The second implementation: a tree, fractions of i128 that are never reduced.
    #[derive(Clone, Debug)]
    enum Tree {
        Number(i64),
        Node(Box<Tree>, Op, Box<Tree>),
    }

    impl Tree {
        fn value(&self) -> Option<(i128, i128)> {
            match self {
                Tree::Number(n) => Some(((*n).into(), 1)),
                Tree::Node(left, op, right) => {
                    let ((a, b), (c, d)) = (left.value()?, right.value()?);
                    match op {
                        Op::Add => Some((a * d + c * b, b * d)),
                        Op::Sub => Some((a * d - c * b, b * d)),
                        Op::Mul => Some((a * c, b * d)),
                        Op::Div => (c != 0).then_some((a * d, b * c)),
                    }
                }
            }
        }

        fn text(&self) -> String {
            match self {
                Tree::Number(n) => n.to_string(),
                Tree::Node(left, op, right) => format!("({} {}{})", left.text(), op.symbol(), right.text()),
            }
        }

        fn numbers(&self) -> Vec<i64> {
            match self {
                Tree::Number(n) => vec![*n],
                Tree::Node(left, _, right) => [left.numbers(), right.numbers()].concat(),
            }
        }
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let op = prop::sample::select(vec![Op::Add, Op::Sub, Op::Mul, Op::Div]);
        (0..100i64).prop_map(Tree::Number).prop_recursive(5, 7, 2, move |inner| {
            (inner.clone(), op.clone(), inner).prop_map(|(l, op, r)| Tree::Node(Box::new(l), op, Box::new(r)))
        })
    }

    fn value(text: &str) -> Result<String, Fault> {
        parse(text).map(|parsed| parsed.value.to_string())
    }

    #[test]
    fn precedence_and_order_are_those_of_arithmetic() {
        for (text, expected) in [
            ("5*12+7", "67"),
            ("7+5*12", "67"),
            ("(7+5)*12", "144"),
            ("20-5-3", "12"),
            ("20-(5-3)", "18"),
            ("100/5/2", "10"),
            ("2*3/4", "3/2"),
            ("8/(3-8/3)", "24"),
            ("3-8", "-5"),
            (" ( 1 + 2 )×3÷9 − 1 ", "0"),
            ("((((7))))", "7"),
        ] {
            assert_eq!(value(text).as_deref(), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_expression_says_why() {
        for (text, fault) in [
            ("", Fault::Empty),
            ("  ", Fault::Empty),
            ("1+", Fault::EndsEarly),
            ("(", Fault::EndsEarly),
            ("(1+2", Fault::Unclosed),
            ("1+2)", Fault::Unexpected(')')),
            ("()", Fault::Unexpected(')')),
            ("-1+2", Fault::Unexpected('-')),
            ("1 2", Fault::Unexpected('2')),
            ("2(3)", Fault::Unexpected('(')),
            ("2**3", Fault::Unexpected('*')),
            ("1.5", Fault::Unexpected('.')),
            ("x", Fault::Unexpected('x')),
            ("1/(2-2)", Fault::DivisionByZero),
            ("1234567890123456789", Fault::NumberTooLong),
        ] {
            assert_eq!(value(text), Err(fault), "{text}");
        }
        assert_eq!(value(&"9".repeat(MAX_LENGTH + 1)), Err(Fault::TooLong));
        assert_eq!(value(&"(".repeat(MAX_DEPTH + 1)), Err(Fault::TooDeep));
        assert_eq!(value(&["1"; MAX_TERMS + 1].join("+")), Err(Fault::TooManyTerms));
        assert_eq!(value(&["999999999999999999"; 8].join("*")), Err(Fault::Overflow));
    }

    #[test]
    fn near_means_strictly_within_a_hundred_thousandth() {
        let near = |text: &str, target| parse(text).unwrap().value.is_near(target);
        assert!(near("100000*7/100000", 7));
        assert!(near("7+1/100001", 7));
        assert!(!near("7+1/100000", 7));
        assert!(!near("7-1/3", 7));
        assert!(!near("999999999999999999*999999999999999999", 7));
    }

    proptest! {
        #[test]
        fn agrees_with_a_tree_evaluator(tree in trees()) {
            let parsed = parse(&tree.text());
            match tree.value() {
                None => prop_assert_eq!(parsed, Err(Fault::DivisionByZero)),
                Some((n, d)) => {
                    let parsed = parsed.unwrap();
                    prop_assert_eq!(parsed.value.numerator * d, n * parsed.value.denominator);
                    prop_assert_eq!(parsed.numbers, tree.numbers());
                }
            }
        }

        #[test]
        fn no_text_panics(text in any::<String>(), sums in "[-0-9+*/() ×÷=]{0,80}") {
            let _ = (parse(&text), parse(&sums));
        }
    }
}
