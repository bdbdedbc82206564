//! The ratings of PolitiFact and the three classes of the task: true is what was rated true or mostly true, half-true
//! stands for itself, false is the rest. The recoding is that of arXiv:2601.10825.

use crate::recipe::spelling::nearest;
use anyhow::{Result, anyhow, bail, ensure};

/// The classes; elsewhere a class is its place in this list.
pub const CLASSES: [&str; 3] = ["true", "half-true", "false"];

/// A rating by its name, what else it is called, and its class.
struct Rating {
    name: &'static str,
    other: Option<&'static str>,
    class: usize,
}

const fn rating(name: &'static str, other: Option<&'static str>, class: usize) -> Rating {
    Rating { name, other, class }
}

/// In the order of the numbers of LIAR2.
const RATINGS: [Rating; 6] = [
    rating("pants-on-fire", Some("pants-fire"), 2),
    rating("false", None, 2),
    rating("mostly-false", Some("barely-true"), 2),
    rating("half-true", None, 1),
    rating("mostly-true", None, 0),
    rating("true", None, 0),
];

/// A name in lower case, with a dash for each run of blanks, dashes and underscores.
fn canonical(name: &str) -> String {
    let words = name.split(|c: char| c.is_whitespace() || matches!(c, '-' | '_' | '\u{2010}'..='\u{2015}'));
    let words: Vec<String> = words.filter(|word| !word.is_empty()).map(str::to_lowercase).collect();
    words.join("-")
}

/// The place of a rating in `RATINGS`, by any of its names.
fn named(name: &str) -> Option<usize> {
    let name = canonical(name);
    RATINGS.iter().position(|rating| rating.name == name || rating.other == Some(&name))
}

/// The class of a rating's name.
///
/// # Errors
/// Another word, with the nearest name.
pub fn class_named(name: &str) -> Result<usize> {
    named(name).map(|rating| RATINGS[rating].class).ok_or_else(|| unknown(name))
}

/// The class that the text of an answer names: the name of a class or of any rating, in upper or lower case, with
/// whatever blanks, quotes and punctuation around it. Anything more is no answer: a text that names two ratings, or
/// says in a sentence that something is not true, names no class.
pub fn class_of_answer(answer: &str) -> Option<usize> {
    named(answer.trim_matches(|c: char| !c.is_alphanumeric())).map(|rating| RATINGS[rating].class)
}

/// The names of a rating.
pub fn names(rating: usize) -> impl Iterator<Item = &'static str> + Clone {
    let Rating { name, other, .. } = RATINGS[rating];
    [Some(name), other].into_iter().flatten()
}

fn unknown(name: &str) -> anyhow::Error {
    let names = (0..RATINGS.len()).flat_map(names);
    let hint = nearest(&canonical(name), names.clone()).map(|near| format!("did you mean \"{near}\"?"));
    let hint = hint.unwrap_or_else(|| format!("expected {}", names.collect::<Vec<_>>().join(", ")));
    anyhow!("there is no rating {:?}; {hint}", name.trim())
}

/// What the numbers 0 to 5 mean: ratings by their places in `RATINGS`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order([usize; 6]);

impl Order {
    /// From 0 = pants-on-fire to 5 = true.
    pub const LIAR2: Order = Order([0, 1, 2, 3, 4, 5]);
    /// That of LIAR where its labels are numbers, as in the Hub's copy: 0 is false, 5 is pants-on-fire.
    pub const LIAR: Order = Order([1, 3, 4, 5, 2, 0]);

    /// The order of a list of names.
    ///
    /// # Errors
    /// A list that does not name each of the ratings once.
    pub fn of(names: &[String]) -> Result<Self> {
        let mut order = [usize::MAX; 6];
        for (i, name) in names.iter().enumerate() {
            let rating = named(name).ok_or_else(|| unknown(name))?;
            ensure!(!order.contains(&rating), "{} is there twice", RATINGS[rating].name);
            if let Some(place) = order.get_mut(i) {
                *place = rating;
            }
        }
        if let Some(missing) = RATINGS.iter().enumerate().find(|(place, _)| !order.contains(place)) {
            bail!("{} is missing", missing.1.name);
        }
        Ok(Self(order))
    }

    /// The other way round: what 0 means, 5 means.
    pub fn reversed(self) -> Self {
        let mut order = self.0;
        order.reverse();
        Self(order)
    }

    /// What else the numbers of a file may mean; its reverse first.
    pub fn others(self) -> impl DoubleEndedIterator<Item = Self> {
        let known = [self.reversed(), Self::LIAR2, Self::LIAR, Self::LIAR2.reversed(), Self::LIAR.reversed()];
        known.into_iter().filter(move |other| *other != self)
    }

    /// The rating of a number, if it is from 0 to 5.
    pub fn rating(self, number: i64) -> Option<usize> {
        self.0.get(usize::try_from(number).ok()?).copied()
    }

    /// The class of a number.
    ///
    /// # Errors
    /// A number that is not from 0 to 5.
    pub fn class(self, number: i64) -> Result<usize> {
        let rating = self.rating(number).ok_or_else(|| anyhow!("{number} is not a number from 0 to 5"))?;
        Ok(RATINGS[rating].class)
    }

    /// What a number from 0 to 5 is called.
    pub fn name(self, number: i64) -> &'static str {
        self.rating(number).map_or("", |rating| RATINGS[rating].name)
    }

    /// As a recipe has it.
    pub fn written(self) -> String {
        let names: Vec<String> = self.0.iter().map(|place| format!("\"{}\"", RATINGS[*place].name)).collect();
        format!("task.label_order = [{}]", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_ratings_are_three_classes() {
        for (name, class) in [
            ("true", 0),
            ("TRUE", 0),
            ("mostly-true", 0),
            ("Mostly True", 0),
            ("half_true", 1),
            (" half  true ", 1),
            ("false", 2),
            ("False", 2),
            ("mostly false", 2),
            ("barely-true", 2),
            ("Pants on Fire", 2),
            ("pants-fire", 2),
            ("half\u{2011}true", 1),
        ] {
            assert_eq!(class_named(name).unwrap(), class, "{name}");
        }
        for (name, message) in [
            ("mostly-ture", "there is no rating \"mostly-ture\"; did you mean \"mostly-true\"?"),
            ("Barely tru", "did you mean \"barely-true\"?"),
            ("pants_on_fier", "did you mean \"pants-on-fire\"?"),
            ("7", "expected pants-on-fire, pants-fire, false, mostly-false, barely-true, half-true, mostly-true, true"),
        ] {
            let error = class_named(name).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn an_answer_is_one_name_and_no_more() {
        for (answer, class) in [
            ("true", Some(0)),
            (" \n**Half-True**.", Some(1)),
            ("\"half true\"", Some(1)),
            ("`False`!", Some(2)),
            ("(pants on fire)", Some(2)),
            ("mostly true", Some(0)),
            ("Barely-true", Some(2)),
            ("“FALSE”", Some(2)),
            ("true or false", None),
            ("true, false", None),
            ("true false", None),
            ("half-true/false", None),
            ("not true", None),
            ("untrue", None),
            ("The claim is false.", None),
            ("truefalse", None),
            ("0", None),
            ("", None),
            ("...", None),
        ] {
            assert_eq!(class_of_answer(answer), class, "{answer}");
        }
    }

    #[test]
    fn an_order_names_each_rating_once() {
        let order = |names: &[&str]| Order::of(&names.iter().map(|name| (*name).to_string()).collect::<Vec<_>>());
        let liar2 = ["pants on fire", "false", "barely-true", "half-true", "mostly-true", "true"];
        assert_eq!(order(&liar2).unwrap(), Order::LIAR2);
        assert_eq!((0..6).map(|n| Order::LIAR2.class(n).unwrap()).collect::<Vec<_>>(), [2, 2, 2, 1, 0, 0]);
        assert_eq!((0..6).map(|n| Order::LIAR2.reversed().class(n).unwrap()).collect::<Vec<_>>(), [0, 0, 1, 2, 2, 2]);
        let hub = ["false", "half-true", "mostly-true", "true", "barely-true", "pants-fire"];
        assert_eq!(order(&hub).unwrap(), Order::LIAR);
        assert_eq!((0..6).map(|n| Order::LIAR.class(n).unwrap()).collect::<Vec<_>>(), [2, 1, 0, 0, 2, 2]);
        assert_eq!(
            (Order::LIAR.name(4), names(2).collect::<Vec<_>>()),
            ("mostly-false", vec!["mostly-false", "barely-true"])
        );
        assert!(Order::LIAR2.class(6).is_err() && Order::LIAR2.class(-1).is_err());
        for (names, message) in [
            (&liar2[..5], "true is missing"),
            (&["true"; 6][..], "true is there twice"),
            (&[&liar2[..], &["true"]].concat(), "true is there twice"),
            (&["pants on fire", "fals"], "did you mean \"false\"?"),
        ] {
            let error = order(names).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
