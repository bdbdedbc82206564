//! Lines of `metrics.jsonl` and `evaluations.jsonl`: a record that is read is written as it is read.

use ppo_train::metrics::{evaluations, jsonl};

pub fn run(data: &[u8]) {
    super::text(data, |text| {
        match jsonl::parse(text) {
            Err(error) => super::refused(format!("{error:#}"), text.len()),
            Ok(record) => {
                let line = jsonl::line(&record);
                let written = std::str::from_utf8(&line).expect("a line of JSON");
                let again = jsonl::parse(written).expect("what we write");
                // NaN is not equal to itself; its line is.
                assert_eq!(jsonl::line(&again), line);
            }
        }
        match evaluations::parse(text) {
            Err(error) => super::refused(format!("{error:#}"), text.len()),
            Ok((_, outcomes)) => {
                for name in ["accuracy", "format", "reward", "response_length", "clip_ratio"] {
                    assert_eq!(outcomes.figure(name).map(|all| all.len()), Some(outcomes.len()), "{name}");
                }
            }
        }
    });
}
