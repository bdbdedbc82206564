//! The reward of a Countdown response: accuracy for the answer, format for the layout, each 0 or 1.
//!
//! Two rule sets. `strict`: the last `<answer>` counts, exactly one closed `<think>` block and then one closed `<answer>`
//! block earn the format reward, and text around the blocks is free. `tinyzero`: TinyZero's scorer, so that curves lie
//! over verl's: the last line alone, the last closed answer block in it, any such block earns the format reward, `=`
//! always fails. Where its Python would evaluate more than the game has (`**`, `//`, decimals, a leading sign), ours
//! finds no expression: the one known difference.
//!
//! With `dialogue_format` the strict rules also know the persona layout: `<group_solution>` is an answer as `<answer>`
//! is (whichever opens last counts), and the format reward also goes to a cast of 2 to 4 personas, then a conversation of
//! `<thinkN>` turns in which at least two of them speak, then the group solution, with an `<answer>` in it or after it or
//! none. A `<think>` that the prompt opened plays no part in that layout: its turns are the thinking.
//!
//! Tags are looked for in decoded text and matched exactly; one pass over the response finds them all.

use super::expression::{self, Fault, Rational};
use crate::recipe::{Reward, Rules};
use std::fmt;

/// The parts of a response's reward.
#[derive(Clone, Debug, PartialEq)]
pub struct Grade {
    /// 1 where the answer is right, else 0.
    pub accuracy: f64,
    /// 1 where the layout is right, else 0.
    pub format: f64,
    /// Why accuracy is what it is.
    pub verdict: Verdict,
}

impl Grade {
    /// The scalar that PPO is given at the response's last token.
    pub fn reward(&self, weights: &Reward) -> f64 {
        weights.accuracy * self.accuracy + weights.format * self.format
    }
}

/// What became of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    /// There is no answer tag (where the rules look for one).
    NoAnswer,
    /// The last answer tag is not closed.
    Unclosed,
    /// The answer is no expression, or has no value.
    Unparsable(Fault),
    /// The answer's integers are not the problem's.
    WrongNumbers,
    WrongValue(Rational),
    /// The expression is right, and what follows its `=` is not the target.
    FalseEquation,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Verdict::Right => write!(f, "right"),
            Verdict::NoAnswer => write!(f, "no answer"),
            Verdict::Unclosed => write!(f, "answer not closed"),
            Verdict::Unparsable(fault) => write!(f, "no expression: {fault}"),
            Verdict::WrongNumbers => write!(f, "wrong numbers"),
            Verdict::WrongValue(value) => write!(f, "wrong value {value}"),
            Verdict::FalseEquation => write!(f, "false equation"),
        }
    }
}

/// Grades a response to the problem of making `target` of `numbers`. `prompt_opens_think`: whether the prompt ended inside
/// an open `<think>`. Time is linear in the response's length.
pub fn grade(response: &str, numbers: &[i64], target: i64, rules: &Reward, prompt_opens_think: bool) -> Grade {
    let (verdict, format) = match rules.rules {
        Rules::Strict => {
            let marks = marks(response);
            let verdict = match last_opened_answer(&marks, response, rules.dialogue_format) {
                Ok(answer) => judge(answer, numbers, target, rules.allow_equals),
                Err(verdict) => verdict,
            };
            let format =
                is_think_then_answer(&marks, prompt_opens_think) || rules.dialogue_format && is_persona_layout(&marks);
            (verdict, format)
        }
        Rules::Tinyzero => {
            let line = response.rsplit('\n').next().unwrap_or_default();
            match last_closed_answer(line) {
                // Its pattern knows ASCII signs only.
                Some(answer) => match answer.chars().find(|c| !c.is_ascii()) {
                    Some(other) => (Verdict::Unparsable(Fault::Unexpected(other)), true),
                    None => (judge(answer, numbers, target, false), true),
                },
                None if line.contains("<answer>") => (Verdict::Unclosed, false),
                None => (Verdict::NoAnswer, false),
            }
        }
    };
    Grade { accuracy: f64::from(verdict == Verdict::Right), format: f64::from(format), verdict }
}

/// Compares an answer's text with the problem.
fn judge(answer: &str, numbers: &[i64], target: i64, allow_equals: bool) -> Verdict {
    let (left, rest) = match answer.split_once('=') {
        Some((left, rest)) if allow_equals => (left, Some(rest)),
        _ => (answer, None),
    };
    let mut parsed = match expression::parse(left) {
        Ok(parsed) => parsed,
        Err(fault) => return Verdict::Unparsable(fault),
    };
    let mut numbers = numbers.to_vec();
    numbers.sort_unstable();
    parsed.numbers.sort_unstable();
    let is_target = |side| expression::parse(side).is_ok_and(|parsed| parsed.value.is_near(target));
    if parsed.numbers != numbers {
        Verdict::WrongNumbers
    } else if !parsed.value.is_near(target) {
        Verdict::WrongValue(parsed.value)
    } else if !rest.is_none_or(|rest| rest.split('=').all(is_target)) {
        Verdict::FalseEquation
    } else {
        Verdict::Right
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    Think,
    Answer,
    Cast,
    /// 1 to 4.
    Persona(usize),
    Conversation,
    /// `<thinkN>`: a turn of persona N.
    Turn(usize),
    GroupSolution,
}

/// A tag found in a text.
#[derive(Clone, Copy, Debug)]
struct Mark {
    tag: Tag,
    closes: bool,
    /// Byte offsets of the tag itself.
    start: usize,
    end: usize,
}

/// All tags of a text, in order.
fn marks(text: &str) -> Vec<Mark> {
    const LONGEST: usize = "</cast_of_characters>".len();
    let mut marks = vec![];
    for (start, _) in text.match_indices('<') {
        let bytes = &text.as_bytes()[start + 1..];
        let Some(length) = bytes.iter().take(LONGEST).position(|&b| b == b'>') else { continue };
        let (closes, name) = match &bytes[..length] {
            [b'/', name @ ..] => (true, name),
            name => (false, name),
        };
        let tag = match name {
            b"think" => Tag::Think,
            b"answer" => Tag::Answer,
            b"cast_of_characters" => Tag::Cast,
            b"conversation" => Tag::Conversation,
            b"group_solution" => Tag::GroupSolution,
            [b't', b'h', b'i', b'n', b'k', n @ b'1'..=b'4'] => Tag::Turn(usize::from(n - b'0')),
            [b'p', b'e', b'r', b's', b'o', b'n', b'a', n @ b'1'..=b'4'] => Tag::Persona(usize::from(n - b'0')),
            _ => continue,
        };
        marks.push(Mark { tag, closes, start, end: start + length + 2 });
    }
    marks
}

/// The text of the last answer that is opened, or why there is none.
fn last_opened_answer<'a>(marks: &[Mark], text: &'a str, dialogue: bool) -> Result<&'a str, Verdict> {
    let is_answer = |tag| tag == Tag::Answer || dialogue && tag == Tag::GroupSolution;
    let last = marks.iter().rposition(|mark| !mark.closes && is_answer(mark.tag)).ok_or(Verdict::NoAnswer)?;
    let open = marks[last];
    let close = marks[last..].iter().find(|mark| mark.closes && mark.tag == open.tag).ok_or(Verdict::Unclosed)?;
    Ok(&text[open.end..close.start])
}

/// The text of the last of a line's closed answer blocks, which are taken from the left and do not overlap.
fn last_closed_answer(line: &str) -> Option<&str> {
    let (mut open, mut last) = (None, None);
    for mark in marks(line).into_iter().filter(|mark| mark.tag == Tag::Answer) {
        match (open, mark.closes) {
            (None, false) => open = Some(mark.end),
            (Some(start), true) => {
                last = Some(&line[start..mark.start]);
                open = None;
            }
            _ => {}
        }
    }
    last
}

fn is_think_then_answer(marks: &[Mark], prompt_opens_think: bool) -> bool {
    let opened = prompt_opens_think.then_some((Tag::Think, false));
    let found = marks.iter().map(|mark| (mark.tag, mark.closes));
    let found = opened.into_iter().chain(found.filter(|(tag, _)| matches!(tag, Tag::Think | Tag::Answer)));
    found.eq([(Tag::Think, false), (Tag::Think, true), (Tag::Answer, false), (Tag::Answer, true)])
}

fn is_persona_layout(marks: &[Mark]) -> bool {
    const GROUP: [(Tag, bool); 2] = [(Tag::GroupSolution, false), (Tag::GroupSolution, true)];
    const ANSWER: [(Tag, bool); 2] = [(Tag::Answer, false), (Tag::Answer, true)];
    let Some((speakers, ending)) = after_conversation(marks) else { return false };
    speakers >= 2
        && (ending == GROUP
            || ending == [GROUP, ANSWER].concat()
            || ending == [GROUP[0], ANSWER[0], ANSWER[1], GROUP[1]])
}

/// How many personas spoke, and the tags that follow the conversation. None where the tags do not begin with a cast and
/// a conversation of its members.
fn after_conversation(marks: &[Mark]) -> Option<(usize, Vec<(Tag, bool)>)> {
    let mut rest = marks.iter().map(|mark| (mark.tag, mark.closes)).peekable();
    rest.next_if_eq(&(Tag::Cast, false))?;
    let mut personas = 0;
    while rest.next_if_eq(&(Tag::Persona(personas + 1), false)).is_some() {
        personas += 1;
        rest.next_if_eq(&(Tag::Persona(personas), true))?;
    }
    rest.next_if_eq(&(Tag::Cast, true))?;
    rest.next_if_eq(&(Tag::Conversation, false))?;
    let mut spoke = [false; 4];
    while let Some((Tag::Turn(speaker), _)) = rest.next_if(|mark| matches!(mark, (Tag::Turn(_), false))) {
        rest.next_if_eq(&(Tag::Turn(speaker), true))?;
        // Only members of the cast speak.
        *spoke[..personas].get_mut(speaker - 1)? = true;
    }
    rest.next_if_eq(&(Tag::Conversation, true))?;
    Some((spoke.iter().filter(|&&spoke| spoke).count(), rest.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rules(text: &str) -> Reward {
        toml::from_str(text).unwrap()
    }

    /// Accuracy, format and verdict of a response to 5, 7, 12 -> 67.
    fn graded(response: &str, rules: &Reward, opened: bool) -> (f64, f64, String) {
        let grade = grade(response, &[5, 7, 12], 67, rules, opened);
        (grade.accuracy, grade.format, grade.verdict.to_string())
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
            ("<think></think><answer>5*12+7=60+7=67</answer>", false, 1.0, 1.0, "right"),
            ("<think></think><answer>5*12+7+0</answer>", false, 0.0, 1.0, "wrong numbers"),
            ("<think></think><answer>67</answer>", false, 0.0, 1.0, "wrong numbers"),
            ("<think></think><answer>sixty-seven</answer>", false, 0.0, 1.0, "no expression: unexpected 's'"),
            ("<think></think><answer></answer>", false, 0.0, 1.0, "no expression: empty"),
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
        let (accuracy, _, verdict) = graded("<answer>5*12+7=67</answer>", &self::rules("allow_equals = false"), false);
        assert_eq!((accuracy, verdict.as_str()), (0.0, "no expression: unexpected '='"));
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
            ("<answer>5*12+7=67</answer>", 0.0, 1.0, "no expression: unexpected '='"),
            ("<answer>5×12+7</answer>", 0.0, 1.0, "no expression: unexpected '×'"),
            ("<answer>1<answer>5*12+7</answer>", 0.0, 1.0, "no expression: unexpected '<'"),
            ("<answer>5*12+7</answer><answer>1", 1.0, 1.0, "right"),
        ] {
            for opened in [false, true] {
                assert_eq!(graded(response, &rules, opened), (accuracy, format, verdict.to_string()), "{response}");
            }
        }
    }

    #[test]
    fn the_persona_layout_earns_the_format_reward_where_the_recipe_says_so() {
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
                let grade = grade(&response, &[5, 7, 12], 67, &rules, opened);
                prop_assert_eq!(grade.accuracy == 1.0, grade.verdict == Verdict::Right);
                prop_assert!((0.0..=1.0).contains(&grade.reward(&rules)));
            }
        }
    }
}
