//! Whether numeric ratings are in the order that the recipe says, judged by the speakers: LIAR and LIAR2 give with each
//! claim how many of its speaker's claims got each rating. A speaker's claims are alike, so that under the right order
//! a claim's rating is one that its speaker has often.
//!
//! It is evidence, not proof, and so a warning; it is all there is where a file states its ratings by numbers alone.

use super::label::{Order, names};
use crate::rows::field;
use serde_json::{Map, Value};

/// Rows with histories below which they are not judged.
const LEAST_ROWS: usize = 100;

/// How much better another order must fit, in nats per row.
const LEAST_GAIN: f64 = 0.1;

/// How often a speaker got each rating, by its place; `None` for a rating that the file has no column for.
pub type History = [Option<f64>; 6];

/// The columns of a rating's counts.
fn columns(rating: usize) -> impl Iterator<Item = String> {
    names(rating).map(|name| format!("{}_counts", name.replace('-', "_")))
}

/// The columns of all counts.
pub fn all_columns() -> Vec<String> {
    (0..6).flat_map(columns).collect()
}

/// The history in a row.
pub fn history(row: &Map<String, Value>) -> History {
    let count = |value: &Value| match value {
        Value::String(text) => text.trim().parse().ok(),
        number => number.as_f64(),
    };
    let of = |rating| columns(rating).find_map(|column| count(field(row, &column)?));
    let counts: [Option<f64>; 6] = std::array::from_fn(of);
    counts.map(|count| count.filter(|count| *count >= 0.0 && count.is_finite()))
}

/// The order that fits the numbers of `rows` clearly better than the recipe's, if there is one. The measure is the mean
/// logarithm of the ratio of two counts, each plus 1: that of the rating under the other order, and under the recipe's.
/// A sum over all ratings would cancel out.
pub fn better_order(rows: &[(i64, History)], order: Order) -> Option<Order> {
    let gain = |other: Order| {
        let ratios = rows.iter().filter_map(|(number, history)| {
            let count = |order: Order| history[order.rating(*number)?];
            Some(((count(other)? + 1.0) / (count(order)? + 1.0)).ln())
        });
        let (rows, sum) = ratios.fold((0, 0.0), |(rows, sum), ratio| (rows + 1, sum + ratio));
        (rows >= LEAST_ROWS).then(|| sum / rows as f64).filter(|gain| *gain > LEAST_GAIN)
    };
    let gains = order.others().rev().filter_map(|other| Some((other, gain(other)?)));
    gains.max_by(|a, b| a.1.total_cmp(&b.1)).map(|(other, _)| other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Speakers of one rating each, more or less.
    fn rows(order: Order, count: usize, missing: Option<usize>) -> Vec<(i64, History)> {
        let row = |i: usize| {
            let number = (i % 6) as i64;
            let rating = order.rating(number).unwrap();
            let count =
                |of: usize| Some(if of == rating { 9.0 } else { (i % 7) as f64 }).filter(|_| missing != Some(of));
            (number, std::array::from_fn(count))
        };
        (0..count).map(row).collect()
    }

    #[test]
    fn another_order_shows_in_the_histories() {
        let orders = [Order::LIAR2, Order::LIAR, Order::LIAR2.reversed(), Order::LIAR.reversed()];
        for real in orders {
            for said in orders {
                // LIAR counts no claims that were rated true.
                for missing in [None, Some(5)] {
                    let found = better_order(&rows(real, 300, missing), said);
                    assert_eq!(found, (real != said).then_some(real), "{real:?} as {said:?}");
                }
            }
        }
        assert_eq!(better_order(&rows(Order::LIAR, 90, None), Order::LIAR2), None, "too few rows");
        let none = [(0, [None; 6]); 200];
        assert_eq!(better_order(&none, Order::LIAR2), None, "no histories");
    }

    #[test]
    fn counts_are_found_under_both_names() {
        let row = json!({
            "pants_on_fire_counts": "3", "false_counts": 2.0, "barely_true_counts": 1, "half_true_counts": "",
            "mostly_true_counts": null, "true_counts": -1});
        let history = history(row.as_object().unwrap());
        assert_eq!(history, [Some(3.0), Some(2.0), Some(1.0), None, None, None]);
        let columns = all_columns();
        assert!(["mostly_false_counts", "pants_fire_counts"].iter().all(|name| columns.iter().any(|c| c == name)));
    }
}
