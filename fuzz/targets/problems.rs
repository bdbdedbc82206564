//! Rows of Countdown's problems, as JSONL or as a list: within the game's bounds, and written out the same.

use ppo_train::rows::{Row, lines, list};
use ppo_train::task::countdown::{MAX_NUMBER, MAX_NUMBERS, problem_of};
use serde_json::json;
use std::path::Path;

pub fn run(data: &[u8]) {
    let refused = |error: anyhow::Error| super::refused(format!("{error:#}"), data.len());
    let check = |row: anyhow::Result<Row>| match row.and_then(|(_, row)| problem_of(&row)) {
        Err(error) => refused(error),
        Ok(problem) => {
            assert!((1..=MAX_NUMBERS).contains(&problem.nums.len()));
            assert!(problem.nums.iter().chain([&problem.target]).all(|number| (0..=MAX_NUMBER).contains(number)));
            let nested =
                json!({"ground_truth": json!({"target": problem.target, "numbers": problem.nums}).to_string()});
            let row = json!({"target": problem.target, "nums": problem.nums, "reward_model": nested});
            assert_eq!(row.as_object().map(|row| problem_of(row).expect("what we write")), Some(problem));
        }
    };
    lines(data, Path::new("a.jsonl")).for_each(check);
    super::text(data, |text| match list(text) {
        Err(error) => refused(error),
        Ok(rows) => rows.for_each(check),
    });
}
