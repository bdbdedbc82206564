//! Whether a conclusion is the right answer: Countdown by the reward's own judge, choices by their letter, numbers by
//! value, anything else by its words. What a teacher wrote is compared, never evaluated.

use crate::recipe::Rules;
use crate::task::countdown::{self, judge};
use anyhow::{Result, anyhow};

/// How answers are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Countdown,
    Choice,
    Number,
    Exact,
}

impl Kind {
    pub const ALL: [Kind; 4] = [Kind::Countdown, Kind::Choice, Kind::Number, Kind::Exact];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Countdown => "countdown",
            Kind::Choice => "choice",
            Kind::Number => "number",
            Kind::Exact => "exact",
        }
    }

    /// The kind that the form of an answer tells: a letter such as `C`, `(C)` or `c)` is a choice; digits, also with a
    /// sign, thousands, a fraction or a unit sign, are a number; anything else is exact.
    pub fn of_answer(answer: &str) -> Kind {
        match (lone_letter(answer), number(answer)) {
            (Some(_), _) => Kind::Choice,
            (_, Some(_)) => Kind::Number,
            _ => Kind::Exact,
        }
    }
}

/// The right answer of a problem.
#[derive(Clone, Debug, PartialEq)]
pub enum Right {
    Countdown(countdown::Problem),
    /// The letter, and the text of that choice if it is known.
    Choice(char, Option<String>),
    Number(f64),
    /// In the form of `plain`.
    Exact(String),
}

impl Right {
    /// The right answer from its text, for any kind but Countdown; `choices` are the texts of (A), (B), ...
    ///
    /// # Errors
    /// It is not of this kind.
    pub fn of(kind: Kind, answer: &str, choices: &[String]) -> Result<Self> {
        match kind {
            Kind::Countdown => Err(anyhow!("a problem of Countdown has `target` and `nums`")),
            Kind::Choice => {
                let letter = lone_letter(answer).ok_or_else(|| anyhow!("`{answer}` is not the letter of a choice"))?;
                let text = choices.get((letter as u8 - b'A') as usize).map(|text| plain(text));
                Ok(Right::Choice(letter, text))
            }
            Kind::Number => number(answer).map(Right::Number).ok_or_else(|| anyhow!("`{answer}` is not a number")),
            Kind::Exact => Ok(Right::Exact(plain(answer))),
        }
    }

    pub fn kind(&self) -> Kind {
        match self {
            Right::Countdown(_) => Kind::Countdown,
            Right::Choice(..) => Kind::Choice,
            Right::Number(_) => Kind::Number,
            Right::Exact(_) => Kind::Exact,
        }
    }

    /// Compares a conclusion.
    ///
    /// # Errors
    /// What it is instead, in a few words.
    pub fn judge(&self, conclusion: &str) -> Result<(), String> {
        let wrong = || Err(short(conclusion));
        match self {
            Right::Countdown(problem) => {
                let verdict = judge(conclusion, problem, Rules::Strict, true);
                if verdict.right { Ok(()) } else { Err(verdict.reason) }
            }
            Right::Choice(letter, text) => match chosen(conclusion) {
                Some(chosen) if chosen == *letter => Ok(()),
                None if text.as_ref().is_some_and(|text| *text == plain(conclusion)) => Ok(()),
                Some(_) => wrong(),
                None => Err(format!("no choice in: {}", short(conclusion))),
            },
            Right::Number(right) => match last_number(conclusion) {
                Some(value) if is_close(value, *right) => Ok(()),
                Some(_) => wrong(),
                None => Err(format!("no number in: {}", short(conclusion))),
            },
            Right::Exact(right) => {
                if *right == plain(conclusion) {
                    Ok(())
                } else {
                    wrong()
                }
            }
        }
    }
}

/// At most 60 characters on one line.
fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= 60 { line } else { line.chars().take(59).chain(['…']).collect() }
}

/// The letter of `C`, `(C)`, `C)`, `C.` or `c`, and nothing else.
fn lone_letter(answer: &str) -> Option<char> {
    let inner = answer.trim().trim_matches(['*', '$', '`']).trim_start_matches('(').trim_end_matches([')', '.', ':']);
    let mut characters = inner.chars();
    let letter = characters.next().filter(char::is_ascii_alphabetic)?;
    characters.next().is_none().then(|| letter.to_ascii_uppercase())
}

/// The letter that a conclusion settles on: what it begins with (`C`, `(C) a cup`, `C: a cup`), else the only letter
/// that it has in parentheses, else what follows its last "answer" (`the answer is C`).
fn chosen(conclusion: &str) -> Option<char> {
    let text = conclusion.trim().trim_start_matches(['*', '$', '`', ' ']);
    let capital = |letter: Option<char>| letter.filter(char::is_ascii_uppercase);
    let first = text.split_whitespace().next().unwrap_or_default();
    let marked = |word: &str| word.chars().count() > 1 || text == word;
    if let Some(letter) = capital(text.chars().next()).and_then(|_| lone_letter(first)).filter(|_| marked(first)) {
        return Some(letter);
    }
    if first.starts_with('(') {
        return lone_letter(first);
    }
    let mut enclosed: Vec<char> = text
        .match_indices('(')
        .filter_map(|(at, _)| match text.as_bytes().get(at + 1..at + 3) {
            Some([letter @ b'A'..=b'Z', b')']) => Some(char::from(*letter)),
            _ => None,
        })
        .collect();
    enclosed.dedup();
    if let [letter] = enclosed[..] {
        return Some(letter);
    }
    let (_, after) = text.rsplit_once("nswer")?;
    let mut words = after.split_whitespace().map(|word| word.trim_matches([':', '*', '"', ',']));
    let word = words.find(|word| !word.is_empty() && *word != "is")?;
    capital(lone_letter(word)).filter(|letter| word.contains(*letter))
}

/// A number as people write it: `-1,250.5`, `3/4`, `$12`, `45%`, `12 000` is not one.
fn number(text: &str) -> Option<f64> {
    let text = text.trim().trim_end_matches('.').trim_matches(['$', '%', '€', '£', '°']).trim();
    if let Some((over, under)) = text.split_once('/') {
        let (over, under) = (plain_number(over)?, plain_number(under)?);
        return (under != 0.0).then(|| over / under);
    }
    plain_number(text)
}

fn plain_number(text: &str) -> Option<f64> {
    let text = text.trim().replace('\u{2212}', "-");
    let digits = text.trim_start_matches(['-', '+']);
    let (whole, _) = digits.split_once(['.', 'e', 'E']).unwrap_or((digits, ""));
    if whole.contains(',') {
        let groups: Vec<&str> = whole.split(',').collect();
        let grouped = (1..=3).contains(&groups[0].len()) && groups[1..].iter().all(|group| group.len() == 3);
        if !grouped {
            return None;
        }
    }
    let begins = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    begins.then(|| text.replace(',', "").parse().ok()).flatten().filter(|value: &f64| value.is_finite())
}

/// The value of a text that is a number, or else the last number in it.
fn last_number(text: &str) -> Option<f64> {
    let part = |c: char| c.is_ascii_digit() || matches!(c, '.' | ',' | '-' | '+' | '/' | '\u{2212}');
    let trimmed = |word: &str| number(word.trim_end_matches(['.', ',', '-', '/', '+']));
    number(text).or_else(|| text.rsplit(|c: char| !part(c)).find_map(trimmed))
}

/// Words in lower case, without the marks around them: `\boxed{Valid}.` is `valid`, and `0, 1` is `0,1`.
fn plain(text: &str) -> String {
    let mut text = text.trim();
    loop {
        let bare = text.trim_matches(|c: char| c.is_whitespace() || matches!(c, '.' | '$' | '"' | '\'' | '*' | '`'));
        let inner = bare.strip_prefix("\\boxed{").and_then(|rest| rest.strip_suffix('}')).unwrap_or(bare);
        if inner == text {
            break;
        }
        text = inner;
    }
    let words = text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
    words.replace(" ,", ",").replace(", ", ",")
}

/// Whether a number is the right one: an integer exactly, another one within a millionth of itself.
fn is_close(value: f64, right: f64) -> bool {
    let room = if right.fract() == 0.0 { 0.0 } else { 1e-6 * right.abs() };
    (value - right).abs() <= room
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_exact_and_fractions_close() {
        for (value, right, close) in [
            (2_000_001.0, 2_000_000.0, false),
            (2_000_000.0, 2_000_000.0, true),
            (1e-7, 0.0, false),
            (1.0 / 3.0, 0.333_333_3, true),
            (0.3333, 1.0 / 3.0, false),
            (-2.5, -2.5, true),
        ] {
            assert_eq!(is_close(value, right), close, "{value} {right}");
        }
    }

    #[test]
    fn the_form_of_an_answer_tells_its_kind() {
        for (answer, kind) in [
            ("(C)", Kind::Choice),
            ("c", Kind::Choice),
            ("B.", Kind::Choice),
            ("12", Kind::Number),
            ("-1,250.5", Kind::Number),
            ("3/4", Kind::Number),
            ("$12", Kind::Number),
            ("45 %", Kind::Number),
            ("0,1", Kind::Exact),
            ("valid", Kind::Exact),
            ("No", Kind::Exact),
            ("1/0", Kind::Exact),
            ("nan", Kind::Exact),
            ("[-10,4]", Kind::Exact),
        ] {
            assert_eq!(Kind::of_answer(answer), kind, "{answer}");
        }
    }

    #[test]
    fn conclusions_are_compared_as_their_kind_asks() {
        let cups = ["a plate".to_string(), "a bowl".into(), "A cup".into()];
        let choice = Right::of(Kind::Choice, "(C)", &cups).unwrap();
        let number = Right::of(Kind::Number, "1,250.5", &[]).unwrap();
        let half = Right::of(Kind::Number, "1/2", &[]).unwrap();
        let exact = Right::of(Kind::Exact, "0,1", &[]).unwrap();
        let countdown = Right::Countdown(countdown::Problem { nums: vec![5, 7, 12], target: 67 });
        for (right, conclusion, verdict) in [
            (&choice, "C", Ok(())),
            (&choice, "(C) a cup", Ok(())),
            (&choice, "C: a cup", Ok(())),
            (&choice, "**C**", Ok(())),
            (&choice, "a cup.", Ok(())),
            (&choice, "The answer is (C), not a plate", Ok(())),
            (&choice, "Of (A) and (C), the answer is C.", Ok(())),
            (&choice, "A cup is it", Err("no choice in: A cup is it")),
            (&choice, "(A)", Err("(A)")),
            (&choice, "Answer: B", Err("Answer: B")),
            (&choice, "a saucer", Err("no choice in: a saucer")),
            (&number, "1250.5", Ok(())),
            (&number, "x = $1,250.50", Ok(())),
            (&number, "It is 1250.5 metres.", Ok(())),
            (&number, "1250.6", Err("1250.6")),
            (&number, "many", Err("no number in: many")),
            (&half, "0.5", Ok(())),
            (&half, "2/4", Ok(())),
            (&half, "-1/2", Err("-1/2")),
            (&exact, "0, 1.", Ok(())),
            (&exact, "\\boxed{0,1}", Ok(())),
            (&exact, "1,0", Err("1,0")),
            (&countdown, "5*12+7", Ok(())),
            (&countdown, "5*12+7 = 67", Ok(())),
            (&countdown, "5*12-7", Err("wrong value 53")),
        ] {
            assert_eq!(right.judge(conclusion), verdict.map_err(str::to_string), "{conclusion}");
        }
        assert!(Right::of(Kind::Choice, "12", &[]).is_err() && Right::of(Kind::Number, "twelve", &[]).is_err());
    }
}
