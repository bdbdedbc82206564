//! Whether an answer solves a Countdown problem.
//!
//! Under `tinyzero` an answer with `=` always fails, and only ASCII signs are known. TinyZero's Python evaluates more
//! than the game has (`**`, `//`, decimals, a leading sign), which is an error here: the only known difference.

use super::expression::{self, Fault, Rational};
use super::problem::Problem;
use crate::recipe::Rules;
use crate::task::Verdict;
use std::fmt;

/// The outcome of judging an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Right,
    /// The answer is not an expression, or has no value.
    Unparsable(Fault),
    /// The answer's integers are not the problem's.
    WrongNumbers,
    WrongValue(Rational),
    /// The expression is right, and what follows its `=` is not the target.
    FalseEquation,
    /// The expression is right, and what follows its `=` is not one.
    UnparsableSide(Fault),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Outcome::Right => write!(f, "right"),
            Outcome::Unparsable(fault) => write!(f, "not an expression: {fault}"),
            Outcome::WrongNumbers => write!(f, "wrong numbers"),
            Outcome::WrongValue(value) => write!(f, "wrong value {value}"),
            Outcome::FalseEquation => write!(f, "false equation"),
            Outcome::UnparsableSide(fault) => write!(f, "not an expression after `=`: {fault}"),
        }
    }
}

/// Compares an answer's text with the problem.
pub fn judge(answer: &str, problem: &Problem, rules: Rules, allow_equals: bool) -> Verdict {
    let outcome = match (rules, answer.chars().find(|c| !c.is_ascii())) {
        (Rules::Strict, _) => compare(answer, problem, allow_equals),
        (Rules::Tinyzero, None) => compare(answer, problem, false),
        (Rules::Tinyzero, Some(other)) => Outcome::Unparsable(Fault::Unexpected(other)),
    };
    Verdict { right: outcome == Outcome::Right, reason: outcome.to_string() }
}

fn compare(answer: &str, problem: &Problem, allow_equals: bool) -> Outcome {
    let (left, rest) = match answer.split_once('=') {
        Some((left, rest)) if allow_equals => (left, Some(rest)),
        _ => (answer, None),
    };
    let mut parsed = match expression::parse(left) {
        Ok(parsed) => parsed,
        Err(fault) => return Outcome::Unparsable(fault),
    };
    parsed.numbers.sort_unstable();
    // What is wrong with a further side; `98.0` is spelt differently and no less right than `98`.
    let fault = |side: &str| match expression::parse(side) {
        Ok(parsed) if parsed.value.is_near(problem.target) => None,
        Ok(_) => Some(Outcome::FalseEquation),
        Err(fault) => match side.trim().parse::<f64>() {
            Ok(value) if value == problem.target as f64 => None,
            Ok(value) if value.is_finite() => Some(Outcome::FalseEquation),
            _ => Some(Outcome::UnparsableSide(fault)),
        },
    };
    if parsed.numbers != problem.canonical().nums {
        Outcome::WrongNumbers
    } else if !parsed.value.is_near(problem.target) {
        Outcome::WrongValue(parsed.value)
    } else {
        rest.into_iter().flat_map(|rest| rest.split('=')).find_map(fault).unwrap_or(Outcome::Right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Reward;
    use crate::task::countdown::CountdownTask;
    use crate::task::{Grade, Split};
    use proptest::prelude::*;

    fn rules(text: &str) -> Reward {
        toml::from_str(text).unwrap()
    }

    fn grade(response: &str, rules: &Reward, opened: bool) -> Grade {
        let task = CountdownTask::of(Problem { nums: vec![5, 7, 12], target: 67 }, rules.rules, true);
        crate::task::grade(&task, (Split::Train, 0), response, rules, opened)
    }

    /// Accuracy, format and verdict of a response to 5, 7, 12 -> 67.
    fn graded(response: &str, rules: &Reward, opened: bool) -> (f64, f64, String) {
        let grade = grade(response, rules, opened);
        (grade.accuracy, grade.format, grade.reason)
    }

    #[test]
    fn strict_rules() {
        let rules = rules("");
        for (response, opened, accuracy, format, verdict) in [
            ("<think>a</think><answer>5*12+7</answer>", false, 1.0, 1.0, "right"),
            ("a</think>\n<answer> 7+12*5 = 67 </answer><|endoftext|>", true, 1.0, 1.0, "right"),
            ("a</think><answer>5*12+7</answer>", false, 1.0, 0.0, "right"),
            ("<think>a</think><answer>5*12+7</answer>", true, 1.0, 0.0, "right"),
            ("<answer>5*12+7</answer>", false, 1.0, 0.0, "right"),
            ("<answer>5*12+7</answer><think>a</think>", false, 1.0, 0.0, "right"),
            ("<think></think><answer>1</answer><answer>5*12+7</answer>", false, 1.0, 0.0, "right"),
            ("<think></think><answer>5*12+7</answer><answer>1</answer>", false, 0.0, 0.0, "wrong numbers"),
            ("<think></think><answer>5*12-7</answer>", false, 0.0, 1.0, "wrong value 53"),
            ("<think></think><answer>5*12+7=68</answer>", false, 0.0, 1.0, "false equation"),
            ("<think></think><answer>5*12+7 = 67.0</answer>", false, 1.0, 1.0, "right"),
            ("<think></think><answer>5*12+7 = 67.5</answer>", false, 0.0, 1.0, "false equation"),
            ("<think></think><answer>5*12+7=</answer>", false, 0.0, 1.0, "not an expression after `=`: empty"),
            (
                "<think></think><answer>5*12+7=it</answer>",
                false,
                0.0,
                1.0,
                "not an expression after `=`: unexpected 'i'",
            ),
            ("<think></think><answer>5*12+7=60+7=67</answer>", false, 1.0, 1.0, "right"),
            ("<think></think><answer>5*12+7+0</answer>", false, 0.0, 1.0, "wrong numbers"),
            ("<think></think><answer>67</answer>", false, 0.0, 1.0, "wrong numbers"),
            ("<think></think><answer>sixty-seven</answer>", false, 0.0, 1.0, "not an expression: unexpected 's'"),
            ("<think></think><answer></answer>", false, 0.0, 1.0, "not an expression: empty"),
            ("<think></think><answer>5*12+7", false, 0.0, 0.0, "answer not closed"),
            ("5*12+7=67", false, 0.0, 0.0, "no answer"),
            ("<group_solution>5*12+7</group_solution>", false, 0.0, 0.0, "no answer"),
        ] {
            assert_eq!(
                graded(response, &rules, opened),
                (accuracy, format, verdict.to_string()),
                "{response} {opened}"
            );
        }
        let verdict = judge("5*12+7=67", &Problem { nums: vec![5, 7, 12], target: 67 }, Rules::Strict, false);
        assert_eq!((verdict.right, verdict.reason.as_str()), (false, "not an expression: unexpected '='"));
    }

    #[test]
    fn tinyzero_rules() {
        let rules = rules("rules = 'tinyzero'");
        for (response, accuracy, format, verdict) in [
            ("a\n<answer>5*12+7</answer>", 1.0, 1.0, "right"),
            ("<answer>1</answer> <answer> 5*12+7 </answer><|endoftext|>", 1.0, 1.0, "right"),
            ("<answer>5*12+7</answer>\n", 0.0, 0.0, "no answer"),
            ("<answer>5*12+7</answer>\nSo it is.", 0.0, 0.0, "no answer"),
            ("<answer>5*12+7", 0.0, 0.0, "answer not closed"),
            ("<answer>5*12+7=67</answer>", 0.0, 1.0, "not an expression: unexpected '='"),
            ("<answer>5×12+7</answer>", 0.0, 1.0, "not an expression: unexpected '×'"),
            ("<answer>1<answer>5*12+7</answer>", 0.0, 1.0, "not an expression: unexpected '<'"),
            ("<answer>5*12+7</answer><answer>1", 1.0, 1.0, "right"),
        ] {
            for opened in [false, true] {
                assert_eq!(graded(response, &rules, opened), (accuracy, format, verdict.to_string()), "{response}");
            }
        }
    }

    #[test]
    fn the_persona_layout_earns_the_format_reward_if_the_recipe_says_so() {
        let cast = "<cast_of_characters><persona1>a</persona1><persona2>b</persona2></cast_of_characters>";
        let talk = "<conversation><think2>c</think2><think1>d</think1><think2>e</think2></conversation>";
        let end = "<group_solution>5*12+7</group_solution>";
        let inside = "<group_solution>So: <answer>5*12+7</answer></group_solution>";
        let cases = [
            (format!("{cast}\n{talk}\n{end}"), 1.0),
            (format!("{cast}{talk}{end}<answer>5*12+7</answer>"), 1.0),
            (format!("{cast}{talk}{inside}"), 1.0),
            (format!("{cast}{talk}{end}{end}"), 0.0),
            (format!("{talk}{end}"), 0.0),
            (format!("{cast}{end}"), 0.0),
            (format!("{cast}<conversation><think1>c</think1></conversation>{end}"), 0.0),
            (format!("{cast}{}{end}", talk.replace("think1", "think3")), 0.0),
            (format!("{cast}{}{end}", talk.replacen("</think2>", "", 1)), 0.0),
        ];
        for (response, format) in cases {
            for opened in [false, true] {
                let (accuracy, found, verdict) = graded(&response, &rules("dialogue_format = true"), opened);
                assert_eq!((accuracy, found, verdict.as_str()), (1.0, format, "right"), "{response}");
            }
            assert_eq!(graded(&response, &rules(""), false).1, 0.0);
        }
    }

    #[test]
    fn long_texts_take_linear_time() {
        for part in ["<", "<answer>", "</answer>", "<think1>", "<answer>1=", "<answer>1</answer>", "="] {
            let text = part.repeat(1 << 17);
            for rules in [rules("dialogue_format = true"), rules("rules = 'tinyzero'")] {
                graded(&text, &rules, false);
            }
        }
    }

    proptest! {
        #[test]
        fn no_text_panics_and_rewards_stay_between_0_and_1(
            parts in prop::collection::vec(prop_oneof![
                any::<String>(),
                "</?(think[0-5]?|answer|persona[1-4]|conversation|group_solution|cast_of_characters)>",
                "[0-9+*/()= -]{0,12}",
            ], 0..12),
            opened: bool,
        ) {
            let response = parts.concat();
            for rules in [rules("dialogue_format = true"), rules("rules = 'tinyzero'")] {
                let grade = grade(&response, &rules, opened);
                prop_assert_eq!(grade.accuracy == 1.0, grade.reason == "right");
                prop_assert!((0.0..=1.0).contains(&grade.reward));
            }
        }
    }
}
