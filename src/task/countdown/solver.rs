//! Ways to combine all numbers of a problem, and the exhaustive search for those that reach the target.
//!
//! A `Derivation` is a straight-line program: each step joins two terms, a term being a given number or the result of
//! an earlier step. The search, the traces (`12-5=7,7*7=49`) and the answer (`(12-5)*7`) use the same form. All results
//! are non-negative integers, as in the public set: the smaller number is subtracted from the larger, and quotients
//! must be exact.

use super::expression::Op;
use super::problem::{MAX_NUMBERS, Problem};
use std::ops::ControlFlow;

/// Most steps a search tries: enough for all of five numbers. Six or more have so many solutions that one comes early.
pub const MAX_VISITS: usize = 4_000_000;

/// One operation. Terms `0..n` are the numbers given, term `n + k` is the result of step `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Step {
    pub left: usize,
    pub op: Op,
    pub right: usize,
}

/// Every number used once: `n - 1` steps over `n` numbers, each result except the last used by a later step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Derivation {
    /// The value of each term: the numbers, then the steps' results.
    pub values: Vec<i64>,
    pub steps: Vec<Step>,
}

impl Derivation {
    pub fn value(&self) -> i64 {
        self.values.last().copied().unwrap_or_default()
    }

    /// The steps as sums, in the order they are taken: `12-5=7,7*7=49`.
    pub fn sums(&self) -> String {
        let first_result = self.values.len() - self.steps.len();
        let sum = |(k, step): (usize, &Step)| {
            let (left, right) = (self.values[step.left], self.values[step.right]);
            format!("{left}{}{right}={}", step.op.symbol(), self.values[first_result + k])
        };
        self.steps.iter().enumerate().map(sum).collect::<Vec<_>>().join(",")
    }

    /// The whole as one expression, with only the parentheses that its value needs: `(12-5)*7`.
    pub fn expression(&self) -> String {
        match self.values.len() {
            0 => String::new(),
            terms => self.term(terms - 1).0,
        }
    }

    /// A term's text, and the precedence of its outermost operator (3: a number).
    fn term(&self, term: usize) -> (String, u8) {
        let first_result = self.values.len() - self.steps.len();
        let Some(step) = term.checked_sub(first_result).map(|k| self.steps[k]) else {
            return (self.values[term].to_string(), 3);
        };
        let bracketed = |(text, precedence), least| if precedence < least { format!("({text})") } else { text };
        let precedence = step.op.precedence();
        // a-(b-c) and a/(b*c) need theirs, a+(b-c) and a*(b/c) do not.
        let least_right = precedence + u8::from(matches!(step.op, Op::Sub | Op::Div));
        let left = bracketed(self.term(step.left), precedence);
        let right = bracketed(self.term(step.right), least_right);
        (format!("{left}{}{right}", step.op.symbol()), precedence)
    }
}

/// The result of an operation of the game: a non-negative integer of at most `max_value`, or None.
pub fn result(left: i64, op: Op, right: i64, max_value: i64) -> Option<i64> {
    let value = match op {
        Op::Add => left.checked_add(right),
        Op::Sub => left.checked_sub(right),
        Op::Mul => left.checked_mul(right),
        Op::Div if right != 0 && left % right == 0 => Some(left / right),
        Op::Div => None,
    };
    value.filter(|value| (0..=max_value).contains(value))
}

/// A derivation of the target in which no result exceeds `max_value`.
pub fn solve(problem: &Problem, max_value: i64) -> Option<Derivation> {
    solve_within(problem, max_value, &mut { MAX_VISITS })
}

/// The same in at most `visits` steps; those taken are subtracted.
pub fn solve_within(problem: &Problem, max_value: i64, visits: &mut usize) -> Option<Derivation> {
    let mut found = None;
    search(problem, max_value, visits, |derivation| {
        found = Some(derivation);
        ControlFlow::Break(())
    });
    found
}

/// All derivations of the target in which no result exceeds `max_value`, in a fixed order.
pub fn solutions(problem: &Problem, max_value: i64) -> Vec<Derivation> {
    let mut found = vec![];
    search(problem, max_value, &mut { MAX_VISITS }, |derivation| {
        found.push(derivation);
        ControlFlow::Continue(())
    });
    found
}

/// Calls `each` with every solution until it returns Break, there are no more, or no `visits` are left. A problem with
/// more than `MAX_NUMBERS` numbers, or with none, has no solutions.
fn search(problem: &Problem, max_value: i64, visits: &mut usize, each: impl FnMut(Derivation) -> ControlFlow<()>) {
    let n = problem.nums.len();
    if n == 0 || n > MAX_NUMBERS {
        return;
    }
    let mut terms = [(0, 0); MAX_NUMBERS];
    for (slot, term) in terms.iter_mut().zip(problem.nums.iter().copied().enumerate()) {
        *slot = term;
    }
    let (target, values) = (problem.target, problem.nums.clone());
    let mut search = Search { target, max_value, visits, values, steps: vec![], each };
    // Complete or stopped early: every solution that was found has been passed on.
    let _ = search.visit(&terms, n);
}

struct Search<'a, F> {
    target: i64,
    max_value: i64,
    visits: &'a mut usize,
    values: Vec<i64>,
    steps: Vec<Step>,
    each: F,
}

impl<F: FnMut(Derivation) -> ControlFlow<()>> Search<'_, F> {
    /// Joins two of the first `n` terms in every way; each is (number of the term, value).
    fn visit(&mut self, terms: &[(usize, i64); MAX_NUMBERS], n: usize) -> ControlFlow<()> {
        if n == 1 {
            if terms[0].1 != self.target {
                return ControlFlow::Continue(());
            }
            return (self.each)(Derivation { values: self.values.clone(), steps: self.steps.clone() });
        }
        for i in 0..n {
            for j in i + 1..n {
                let (mut large, mut small) = (terms[i], terms[j]);
                if large.1 < small.1 {
                    (large, small) = (small, large);
                }
                let mut rest = *terms;
                rest[j] = rest[n - 1];
                for op in [Op::Add, Op::Sub, Op::Mul, Op::Div] {
                    let Some(value) = result(large.1, op, small.1, self.max_value) else { continue };
                    if *self.visits == 0 {
                        return ControlFlow::Break(());
                    }
                    *self.visits -= 1;
                    // Most joins are the last of their derivation, and most of those miss the target.
                    if n == 2 && value != self.target {
                        continue;
                    }
                    rest[i] = (self.values.len(), value);
                    self.values.push(value);
                    self.steps.push(Step { left: large.0, op, right: small.0 });
                    self.visit(&rest, n - 1)?;
                    self.values.pop();
                    self.steps.pop();
                }
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::countdown::expression::parse;
    use proptest::prelude::*;

    fn problem(numbers: &[i64], target: i64) -> Problem {
        Problem { nums: numbers.to_vec(), target }
    }

    #[test]
    fn solutions_are_found_if_and_only_if_there_are_any() {
        assert_eq!(solve(&problem(&[5, 7, 12], 67), 199).unwrap().value(), 67);
        assert_eq!(solve(&problem(&[7], 7), 199).unwrap().expression(), "7");
        assert!(solve(&problem(&[1, 1, 1], 10), 199).is_none());
        assert!(solve(&problem(&[], 10), 199).is_none());
        // 16*25/20 is the only way, and needs 400.
        assert!(solve(&problem(&[25, 16, 20], 20), 199).is_none());
        assert!(solve(&problem(&[25, 16, 20], 20), 400).is_some());
        // More steps than a search may take: it gives up instead of hanging.
        assert!(solve(&problem(&[1; 8], 1_000_000), 1_000_000).is_none());
    }

    #[test]
    fn expressions_have_the_fewest_parentheses() {
        let steps = |steps: &[(usize, Op, usize)], numbers: &[i64]| {
            let mut values = numbers.to_vec();
            for &(l, op, r) in steps {
                values.push(result(values[l], op, values[r], 10_000).unwrap());
            }
            let steps = steps.iter().map(|&(left, op, right)| Step { left, op, right }).collect();
            let derivation = Derivation { values, steps };
            (derivation.expression(), derivation.sums())
        };
        use Op::*;
        for (given, numbers, expression, sums) in [
            (&[(0, Mul, 1), (3, Add, 2)][..], &[5, 12, 7][..], "5*12+7", "5*12=60,60+7=67"),
            (&[(0, Sub, 1), (3, Mul, 2)], &[12, 5, 7], "(12-5)*7", "12-5=7,7*7=49"),
            (&[(0, Sub, 1), (2, Sub, 3)], &[12, 5, 9], "9-(12-5)", "12-5=7,9-7=2"),
            (&[(0, Sub, 1), (2, Add, 3)], &[12, 5, 9], "9+12-5", "12-5=7,9+7=16"),
            (&[(0, Mul, 1), (2, Div, 3)], &[2, 3, 12], "12/(2*3)", "2*3=6,12/6=2"),
            (&[(0, Div, 1), (2, Mul, 3)], &[6, 3, 5], "5*6/3", "6/3=2,5*2=10"),
            (&[(0, Add, 1), (2, Sub, 3), (4, Mul, 5)], &[1, 2, 9, 4], "(1+2)*(9-4)", "1+2=3,9-4=5,3*5=15"),
        ] {
            assert_eq!(steps(given, numbers), (expression.to_string(), sums.to_string()));
        }
    }

    proptest! {
        /// Each solution's expression uses every number once and has the value of the target.
        #[test]
        fn solutions_are_right(numbers in prop::collection::vec(0..30i64, 1..5), target in 0..60i64) {
            for solution in solutions(&problem(&numbers, target), 199) {
                let mut parsed = parse(&solution.expression()).unwrap();
                let mut numbers = numbers.clone();
                numbers.sort_unstable();
                parsed.numbers.sort_unstable();
                prop_assert_eq!(parsed.numbers, numbers);
                prop_assert_eq!(parsed.value.to_string(), target.to_string());
            }
        }
    }
}
