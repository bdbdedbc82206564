//! Traces that our own solver writes, for a warm start.
//!
//! A trace is a search in tries, each a line of sums with a verdict (`12-5=7,7*7=49 no`). The searcher is honest and
//! impatient: a try is a solution only with probability `insight`, otherwise random, and after a random budget of tries
//! it answers with the last one, right or wrong. A warm start on such traces teaches the layout, the sums and the habit
//! of trying; PPO has to find out that it pays to keep searching.
//!
//! A dialogue ends with the group's solution and then, on a separate line, the same in `<answer>` tags: so its accuracy
//! is graded under every rule set, and the recipe's `dialogue_format` decides only about the format reward.
//!
//! Responses have no end-of-sequence token, and begin with their own `<think>`; if the prompt has already opened one,
//! `layout::after_open_think` removes it.

use super::expression::Op;
use super::problem::Problem;
use super::solver::{self, Derivation, Step};
use crate::recipe::TraceStyle;
use crate::rng::ChaCha8Rng;
use rand::RngExt;
use rand::seq::{IndexedRandom, SliceRandom};
use std::collections::HashSet;

/// Largest result of a step: up to here the quickstart's tokenizer has one token per number.
pub const MAX_VALUE: i64 = 199;

/// How the solver searches when it writes a trace.
#[derive(Clone, Debug)]
pub struct SolverOptions {
    /// Fewest and most tries before it gives up.
    pub tries: [usize; 2],
    /// Probability that a try is a solution (if there is one within `max_value`).
    pub insight: f64,
    /// Wrong tries before the last one, beyond those of the search.
    pub more: usize,
    /// Largest result of a step.
    pub max_value: i64,
}

/// A response to `problem` in the given style; `rng`: a stream of `Purpose::Traces`.
///
/// The answer is wrong if the search fails. `Sums` has no search and no answer: it is 6 to 8 lines of sums with the
/// problem's numbers (fewer if there are no more), each with its verdict, whatever the lines before.
pub fn solver_trace(problem: &Problem, style: TraceStyle, options: &SolverOptions, rng: &mut ChaCha8Rng) -> String {
    match style {
        TraceStyle::Monologue => monologue(problem, &search(problem, options, rng)),
        TraceStyle::Dialogue => {
            let tries = search(problem, options, rng);
            let personas = rng.random_range(2..=4);
            dialogue(problem, &tries, personas, rng)
        }
        TraceStyle::Sums => {
            let lines = rng.random_range(6..=8);
            let solutions = solver::solutions(problem, options.max_value);
            let mut tried = HashSet::new();
            let sums = (0..lines).map_while(|_| next_try(problem, &solutions, options, &mut tried, rng));
            sums.map(|derivation| line(&derivation, problem) + "\n").collect()
        }
    }
}

/// A dialogue of so many personas, 2 to 4, about a search.
pub fn solver_dialogue(problem: &Problem, personas: usize, options: &SolverOptions, rng: &mut ChaCha8Rng) -> String {
    let tries = search(problem, options, rng);
    dialogue(problem, &tries, personas, rng)
}

/// The tries of a search; the last one is the answer. At least one, unless the numbers allow none within `max_value`.
fn search(problem: &Problem, options: &SolverOptions, rng: &mut ChaCha8Rng) -> Vec<Derivation> {
    let [fewest, most] = options.tries;
    let budget = rng.random_range(fewest.max(1)..=most.max(fewest).max(1));
    let solutions = solver::solutions(problem, options.max_value);
    let mut tried = HashSet::new();
    let mut tries = vec![];
    for _ in 0..budget {
        let Some(next) = next_try(problem, &solutions, options, &mut tried, rng) else { break };
        let found = next.value() == problem.target;
        tries.push(next);
        if found {
            break;
        }
    }
    let wrong = std::iter::from_fn(|| untried(&problem.nums, options.max_value, &mut tried, rng));
    let wrong: Vec<_> = wrong.filter(|other| other.value() != problem.target).take(options.more).collect();
    let last = tries.len().saturating_sub(1);
    tries.splice(last..last, wrong);
    tries
}

/// One of `solutions` by insight, or something untried.
fn next_try(
    problem: &Problem,
    solutions: &[Derivation],
    options: &SolverOptions,
    tried: &mut HashSet<Vec<(i64, Op, i64)>>,
    rng: &mut ChaCha8Rng,
) -> Option<Derivation> {
    let insight = rng.random_bool(options.insight.clamp(0.0, 1.0));
    let solution = if insight { solutions.choose(rng).cloned() } else { None };
    solution.or_else(|| untried(&problem.nums, options.max_value, tried, rng))
}

/// Random derivations drawn before the search assumes that all were tried.
const DRAWS: usize = 100;

/// A random derivation that was not in `tried`, and is added to it; `5+7` and `7+5` count as one.
fn untried(
    nums: &[i64],
    max_value: i64,
    tried: &mut HashSet<Vec<(i64, Op, i64)>>,
    rng: &mut ChaCha8Rng,
) -> Option<Derivation> {
    (0..DRAWS).filter_map(|_| random(nums, max_value, rng)).find(|derivation| {
        let key = derivation.steps.iter().map(|step| {
            let (left, right) = (derivation.values[step.left], derivation.values[step.right]);
            let ordered = matches!(step.op, Op::Sub | Op::Div);
            if ordered { (left, step.op, right) } else { (left.min(right), step.op, left.max(right)) }
        });
        tried.insert(key.collect())
    })
}

/// Joins two random terms by a random operation until one is left. None if no operation is possible.
fn random(nums: &[i64], max_value: i64, rng: &mut ChaCha8Rng) -> Option<Derivation> {
    let mut values = nums.to_vec();
    let mut steps = vec![];
    let mut terms: Vec<usize> = (0..nums.len()).collect();
    while terms.len() > 1 {
        terms.shuffle(rng);
        let (left, right) = (terms.pop()?, terms.pop()?);
        let joined = [(left, right), (right, left)]
            .into_iter()
            .flat_map(|(left, right)| [Op::Add, Op::Sub, Op::Mul, Op::Div].map(|op| Step { left, op, right }));
        let result = |step: &Step| solver::result(values[step.left], step.op, values[step.right], max_value);
        let possible: Vec<_> = joined.filter_map(|step| Some((step, result(&step)?))).collect();
        let &(step, value) = possible.choose(rng)?;
        terms.push(values.len());
        values.push(value);
        steps.push(step);
    }
    Some(Derivation { values, steps })
}

/// `12-5=7,7*7=49 no`
fn line(attempt: &Derivation, problem: &Problem) -> String {
    let verdict = if attempt.value() == problem.target { "yes" } else { "no" };
    format!("{} {verdict}", attempt.sums())
}

fn answer(tries: &[Derivation]) -> String {
    tries.last().map(Derivation::expression).unwrap_or_default()
}

fn monologue(problem: &Problem, tries: &[Derivation]) -> String {
    let lines: String = tries.iter().map(|attempt| line(attempt, problem) + "\n").collect();
    format!("<think>\n{lines}</think>\n<answer>{}</answer>", answer(tries))
}

const PERSONAS: [&str; 6] = [
    "likes products",
    "likes sums",
    "looks for differences",
    "asks questions",
    "doubts each step",
    "starts at the end",
];
const OPENINGS: [&str; 3] = ["Let us try this.", "I would begin so.", "What about this?"];
const OBJECTIONS: [&str; 6] = [
    "No, that misses.",
    "I disagree, look here.",
    "Why that? Try this.",
    "Not yet. What about this?",
    "Wait, what if we do this?",
    "That is not it. I have another.",
];
const AGREEMENTS: [&str; 3] = ["Yes, I agree.", "Right, that is it.", "Agreed, all numbers used."];
const SURRENDERS: [&str; 2] = ["No, but we stop here.", "I see no better one."];

/// The search as a dialogue: each try is the turn of a different persona than the try before, and a
/// last turn agrees or gives up.
fn dialogue(problem: &Problem, tries: &[Derivation], personas: usize, rng: &mut ChaCha8Rng) -> String {
    let cast = PERSONAS.sample(rng, personas).enumerate();
    let cast: String = cast.map(|(i, trait_)| format!("<persona{n}>{trait_}</persona{n}>\n", n = i + 1)).collect();
    let solved = tries.last().is_some_and(|last| last.value() == problem.target);
    let mut speaker = rng.random_range(0..personas);
    let mut conversation = String::new();
    for (i, attempt) in tries.iter().map(Some).chain([None]).enumerate() {
        let phrases: &[&str] = match attempt {
            Some(_) if i == 0 => &OPENINGS,
            Some(_) => &OBJECTIONS,
            None if solved => &AGREEMENTS,
            None => &SURRENDERS,
        };
        let mut turn = phrases.choose(rng).copied().unwrap_or_default().to_string();
        if let Some(attempt) = attempt {
            turn = format!("{turn} {}", line(attempt, problem));
        }
        conversation += &format!("<think{n}>{turn}</think{n}>\n", n = speaker + 1);
        speaker = (speaker + rng.random_range(1..personas)) % personas;
    }
    let answer = answer(tries);
    format!(
        "<cast_of_characters>\n{cast}</cast_of_characters>\n<conversation>\n{conversation}</conversation>\n\
         <group_solution>{answer}</group_solution>\n<answer>{answer}</answer>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Reward;
    use crate::rng::{Purpose, stream};
    use crate::task::countdown::{CountdownTask, expression};
    use crate::task::{Grade, Split};
    use proptest::prelude::*;

    const IMPATIENT: SolverOptions = SolverOptions { tries: [1, 4], insight: 0.2, more: 0, max_value: 199 };
    const INSIGHTFUL: SolverOptions = SolverOptions { tries: [1, 4], insight: 1.0, more: 0, max_value: 199 };

    fn trace(problem: &Problem, style: TraceStyle, options: &SolverOptions, index: u64) -> String {
        solver_trace(problem, style, options, &mut stream(7, Purpose::Traces, 0, index))
    }

    fn graded(problem: &Problem, response: &str, rules: &str, opened: bool) -> Grade {
        let rules: Reward = toml::from_str(rules).unwrap();
        crate::task::grade(
            &CountdownTask::of(problem.clone(), rules.rules, true),
            (Split::Train, 0),
            response,
            &rules,
            opened,
        )
    }

    /// Checks each `a.b=c` of a line, and that the numbers and all results except the last are used, each once.
    fn check_sums(sums: &str, nums: &[i64]) {
        let mut terms = nums.to_vec();
        for sum in sums.split(',') {
            let (left, right) = sum.split_once('=').unwrap();
            let parsed = expression::parse(left).unwrap();
            assert_eq!(parsed.value.to_string(), right, "{sums}");
            for number in parsed.numbers {
                terms.swap_remove(terms.iter().position(|&term| term == number).expect(sums));
            }
            terms.push(right.parse().unwrap());
            assert!((0..=199).contains(terms.last().unwrap()), "{sums}");
        }
        assert_eq!(terms.len(), 1, "{sums}");
    }

    fn problems() -> impl Strategy<Value = Problem> {
        let nums = prop::collection::vec(1..26i64, 3..5);
        (nums, 10..100i64)
            .prop_map(|(nums, target)| Problem { nums, target })
            .prop_filter("solvable", |problem| solver::solve(problem, 199).is_some())
    }

    #[test]
    fn a_trace_is_a_function_of_its_stream() {
        let problem = Problem { nums: vec![5, 7, 12], target: 67 };
        for style in [TraceStyle::Monologue, TraceStyle::Dialogue, TraceStyle::Sums] {
            assert_eq!(trace(&problem, style, &IMPATIENT, 3), trace(&problem, style, &IMPATIENT, 3));
            assert_ne!(trace(&problem, style, &IMPATIENT, 3), trace(&problem, style, &IMPATIENT, 4));
        }
    }

    #[test]
    fn searches_end_within_their_budget_and_some_fail() {
        let problem = Problem { nums: vec![5, 7, 12], target: 67 };
        let traces: Vec<_> = (0..300).map(|i| trace(&problem, TraceStyle::Monologue, &IMPATIENT, i)).collect();
        let tries: HashSet<_> = traces.iter().map(|trace| trace.lines().count() - 3).collect();
        assert_eq!(tries, HashSet::from([1, 2, 3, 4]));
        let right = traces.iter().filter(|trace| graded(&problem, trace, "", false).accuracy == 1.0).count();
        assert!((60..240).contains(&right), "{right} of 300 right");
        // No solution within the bound: insight does not help.
        let problem = Problem { nums: vec![25, 16, 20], target: 20 };
        assert_eq!(graded(&problem, &trace(&problem, TraceStyle::Monologue, &INSIGHTFUL, 0), "", false).accuracy, 0.0);
    }

    #[test]
    fn more_tries_are_wrong_and_come_before_the_last() {
        let problem = Problem { nums: vec![5, 7, 12], target: 67 };
        for index in 0..100 {
            let plain = trace(&problem, TraceStyle::Monologue, &IMPATIENT, index);
            let longer = trace(&problem, TraceStyle::Monologue, &SolverOptions { more: 5, ..IMPATIENT }, index);
            let lines = |text: &str| text.lines().map(str::to_string).collect::<Vec<_>>();
            let (plain, longer) = (lines(&plain), lines(&longer));
            // All but the last try and what follows it; then five wrong ones.
            let before = plain.len() - 3;
            assert_eq!(longer.len(), plain.len() + 5);
            assert_eq!(longer[..before], plain[..before]);
            assert_eq!(longer[before + 5..], plain[before..]);
            assert!(longer[before..before + 5].iter().all(|line| line.ends_with(" no")), "{longer:?}");
        }
    }

    proptest! {
        #[test]
        fn solutions_are_graded_right(problem in problems(), index: u64) {
            let monologue = trace(&problem, TraceStyle::Monologue, &INSIGHTFUL, index);
            let dialogue = trace(&problem, TraceStyle::Dialogue, &INSIGHTFUL, index);
            for (rules, dialogue_format) in [("", 0.0), ("dialogue_format = true", 1.0), ("rules = 'tinyzero'", 1.0)] {
                let accuracy_and_format = |response: &str, opened| {
                    let grade = graded(&problem, response, rules, opened);
                    (grade.accuracy, grade.format)
                };
                prop_assert_eq!(accuracy_and_format(&monologue, false), (1.0, 1.0));
                let continued = crate::task::layout::after_open_think(&monologue);
                prop_assert_eq!(accuracy_and_format(continued, true), (1.0, 1.0));
                prop_assert_eq!(accuracy_and_format(&dialogue, false), (1.0, dialogue_format));
            }
            let (group, _) = dialogue.split_once("\n<answer>").unwrap();
            prop_assert_eq!(graded(&problem, group, "dialogue_format = true", false).format, 1.0);
            prop_assert_eq!(graded(&problem, group, "dialogue_format = true", false).accuracy, 1.0);
        }

        #[test]
        fn every_sum_is_true_and_every_verdict_is_honest(problem in problems(), index: u64) {
            let tries_of = |text: &str| -> Vec<(String, String)> {
                let lines = text.lines().filter_map(|line| line.rsplit_once(' '));
                lines.map(|(sums, verdict)| (sums.to_string(), verdict.to_string())).collect()
            };
            let sums = tries_of(&trace(&problem, TraceStyle::Sums, &IMPATIENT, index));
            prop_assert!((6..=8).contains(&sums.len()));
            let monologue = trace(&problem, TraceStyle::Monologue, &IMPATIENT, index);
            let tries = tries_of(&monologue);
            for (line, verdict) in sums.iter().chain(&tries) {
                check_sums(line, &problem.nums);
                let right = line.ends_with(&format!("={}", problem.target));
                prop_assert_eq!(verdict, if right { "yes" } else { "no" });
            }
            let right = tries.last().unwrap().1 == "yes";
            prop_assert_eq!(graded(&problem, &monologue, "", false).accuracy, f64::from(right));
        }
    }
}
