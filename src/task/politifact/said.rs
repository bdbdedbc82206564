//! What a row says of its claim's rating, by name or number, perhaps more than once; and whether the numbers of a file
//! are in the order that the recipe says.
//!
//! Decided: where a file says it twice, the two must agree. Two orders of the numbers are in use and each of them has
//! its reverse; with the wrong one a run would learn the opposite, and nothing else would show it.

use super::label::{CLASSES, Order, class_named};
use crate::json::Object;
use crate::rows::{field, integer, place};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::path::Path;

/// A row's rating: its number, the class of its name, or both, each with the field that has it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Said {
    pub number: Option<(&'static str, i64)>,
    pub class: Option<(&'static str, usize)>,
}

impl Said {
    /// What a row says.
    ///
    /// # Errors
    /// Nothing, a word that is no rating, a number that is not from 0 to 5, or two different ones.
    pub fn of(row: &Map<String, Value>) -> Result<Self> {
        const TRUTH: &str = "reward_model.ground_truth";
        let mut said = Self::default();
        for name in ["label", "label_name", "label_text", "rating", "verdict", "raw_label"] {
            said.add(name, field(row, name))?;
        }
        said.add("extra_info.raw_label", inner(row, "extra_info", "raw_label"))?;
        match inner(row, "reward_model", "ground_truth") {
            Some(Value::Object(truth)) => said.add("reward_model.ground_truth.verdict", field(truth, "verdict"))?,
            Some(Value::String(text)) if text.trim_start().starts_with('{') => {
                let Object(truth) = serde_json::from_str(text).with_context(|| format!("field `{TRUTH}`"))?;
                said.add("reward_model.ground_truth.verdict", field(&truth, "verdict"))?;
            }
            other => said.add(TRUTH, other)?,
        }
        ensure!(
            said != Self::default(),
            "no rating: expected `label`, `verdict`, `reward_model.ground_truth.verdict` or `extra_info.raw_label`"
        );
        Ok(said)
    }

    fn add(&mut self, name: &'static str, value: Option<&Value>) -> Result<()> {
        let Some(value) = value else { return Ok(()) };
        let number = match value {
            Value::String(text) if text.trim().is_empty() => return Ok(()),
            // pandas writes 3.0 where other rows of the column are empty.
            Value::String(text) => text.trim().parse::<f64>().ok().map(|number| integer(&number.into())),
            number => Some(integer(number)),
        };
        match number.transpose().with_context(|| format!("field `{name}`"))? {
            Some(number) => {
                Order::LIAR2.class(number).with_context(|| format!("field `{name}`"))?;
                let (known, other) = *self.number.get_or_insert((name, number));
                ensure!(other == number, "`{known}` is {other}, but `{name}` is {number}");
            }
            None => {
                let text = value.as_str().unwrap_or_default();
                let class = class_named(text).with_context(|| format!("field `{name}`"))?;
                let (known, other) = *self.class.get_or_insert((name, class));
                ensure!(other == class, "`{known}` means {}, but `{name}` {}", CLASSES[other], CLASSES[class]);
            }
        }
        Ok(())
    }

    /// The class, by name if the row has one.
    ///
    /// # Errors
    /// None for a row of `of`.
    pub fn class(&self, order: Order) -> Result<usize> {
        match (self.class, self.number) {
            (Some((_, class)), _) => Ok(class),
            (None, Some((_, number))) => order.class(number),
            (None, None) => bail!("no rating"),
        }
    }

    /// Whether name and number mean the same; `None` if the row does not have both.
    fn agrees(&self, order: Order) -> Option<bool> {
        let ((_, number), (_, class)) = (self.number?, self.class?);
        Some(order.class(number).ok()? == class)
    }
}

/// A field within a field that is an object.
fn inner<'a>(row: &'a Map<String, Value>, outer: &str, name: &str) -> Option<&'a Value> {
    field(row.get(outer)?.as_object()?, name)
}

/// Checks that the numbers of a file's rows, each with its place in the file, mean what their names say.
///
/// # Errors
/// An order that fits most rows instead of the recipe's, above all its reverse; else the first row that contradicts
/// itself.
pub fn check_order(path: &Path, rows: &[(usize, Said)], order: Order) -> Result<()> {
    let both = rows.iter().filter(|(_, said)| said.agrees(order).is_some()).count();
    let wrong = |said: &Said| said.agrees(order) == Some(false);
    let Some((line, Said { number: Some((field, number)), class: Some((verdict, class)) })) =
        rows.iter().find(|(_, said)| wrong(said))
    else {
        return Ok(());
    };
    let fits = |other: &Order| rows.iter().filter(|(_, said)| wrong(said) && said.agrees(*other) == Some(true)).count();
    // Of several that fit equally many, the reverse, which comes first.
    let best = order.others().rev().map(|other| (other, fits(&other))).max_by_key(|(_, count)| *count);
    if let Some((other, count)) = best.filter(|(_, count)| 2 * count > both) {
        let reversed = other == order.reversed();
        let how = if reversed { "run the other way" } else { "are in another order" };
        bail!(
            "{}: the numbers of `{field}` {how}: {count} of {both} rows agree with their `{verdict}` only if 0 means \
             {} \
             and 5 means {}; set {}",
            path.display(),
            other.name(0),
            other.name(5),
            other.written()
        );
    }
    bail!(
        "{}: `{field}` is {number}, which means {}, but `{verdict}` means {}",
        place(path, *line),
        order.name(*number),
        CLASSES[*class]
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(row: Value) -> Result<Said, String> {
        Said::of(row.as_object().unwrap()).map_err(|error| format!("{error:#}"))
    }

    #[test]
    fn a_rating_is_read_wherever_it_is() {
        let number = |field, number| Said { number: Some((field, number)), class: None };
        let class = |field, class| Said { number: None, class: Some((field, class)) };
        const VERDICT: &str = "reward_model.ground_truth.verdict";
        for (row, expected) in [
            (json!({"label": 5}), number("label", 5)),
            (json!({"label": 3.0}), number("label", 3)),
            (json!({"label": "3"}), number("label", 3)),
            (json!({"label": "3.0", "verdict": null}), number("label", 3)),
            (json!({"label": "Mostly True", "raw_label": ""}), class("label", 0)),
            (json!({"reward_model": {"ground_truth": "half-true"}}), class("reward_model.ground_truth", 1)),
            (json!({"reward_model": {"ground_truth": {"verdict": "false"}}}), class(VERDICT, 2)),
            (json!({"reward_model": {"ground_truth": "{\"verdict\": \"false\"}"}}), class(VERDICT, 2)),
            (
                json!({"reward_model": {"style": "rule"}, "extra_info": {"raw_label": 2}}),
                number("extra_info.raw_label", 2),
            ),
            (
                json!({"reward_model": {"ground_truth": {"verdict": "true"}}, "extra_info": {"raw_label": 4}}),
                Said { number: Some(("extra_info.raw_label", 4)), class: Some((VERDICT, 0)) },
            ),
        ] {
            assert_eq!(said(row.clone()).unwrap(), expected, "{row}");
        }
        for (row, message) in [
            (json!({"labels": 5}), "no rating: expected `label`, `verdict`"),
            (json!({"label": " "}), "no rating"),
            (json!({"label": 6}), "field `label`: 6 is not a number from 0 to 5"),
            (json!({"label": "1.5"}), "field `label`: 1.5 is not an integer"),
            (json!({"label": true}), "field `label`: true is not an integer"),
            (json!({"label": "mostly-ture"}), "field `label`: there is no rating \"mostly-ture\"; did you mean"),
            (json!({"label": 1, "raw_label": 2}), "`label` is 1, but `raw_label` is 2"),
            (json!({"label": "true", "label_name": "barely-true"}), "`label` means true, but `label_name` false"),
            (json!({"reward_model": {"ground_truth": "{\"verdict\": 1, \"verdict\": 1}"}}), "`verdict` is there twice"),
        ] {
            let error = said(row.clone()).unwrap_err();
            assert!(error.contains(message), "{row}: {error}");
        }
    }

    #[test]
    fn numbers_in_another_order_are_told_from_a_row_that_contradicts_itself() {
        let rows = |order: Order, wrong: usize| -> Vec<(usize, Said)> {
            let row = |i: usize| {
                let number = (i % 6) as i64;
                let class = order.class(if i < wrong { 5 - number } else { number }).unwrap();
                (i + 1, Said { number: Some(("label", number)), class: Some(("verdict", class)) })
            };
            (0..60).map(row).collect()
        };
        let check = |rows: &[(usize, Said)], order: Order| {
            check_order(Path::new("a.csv"), rows, order).map_err(|error| error.to_string())
        };
        check(&rows(Order::LIAR2, 0), Order::LIAR2).unwrap();
        check(&rows(Order::LIAR, 0), Order::LIAR).unwrap();
        check(&[(1, Said { number: Some(("label", 1)), class: None })], Order::LIAR2).unwrap();
        assert_eq!(
            check(&rows(Order::LIAR2.reversed(), 0), Order::LIAR2).unwrap_err(),
            "a.csv: the numbers of `label` run the other way: 60 of 60 rows agree with their `verdict` only if 0 means \
             true and 5 means pants-on-fire; set task.label_order = [\"true\", \"mostly-true\", \"half-true\", \
             \"mostly-false\", \"false\", \"pants-on-fire\"]"
        );
        let most = check(&rows(Order::LIAR2.reversed(), 7), Order::LIAR2).unwrap_err();
        assert!(most.contains("run the other way: 53 of 60 rows"), "{most}");
        let hub = check(&rows(Order::LIAR, 0), Order::LIAR2.reversed()).unwrap_err();
        assert!(hub.contains("are in another order: ") && hub.contains("0 means false"), "{hub}");
        let one = check(&rows(Order::LIAR2, 3), Order::LIAR2).unwrap_err();
        assert_eq!(one, "a.csv, row 1: `label` is 0, which means pants-on-fire, but `verdict` means true");
    }
}
