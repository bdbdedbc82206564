//! Any response is graded under every rule set: the reward stays between 0 and 1, and a right one has the numbers.
#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

#[path = "../../src/recipe/raw/mod.rs"]
mod recipe;

#[path = "../../src/task"]
mod task {
    pub mod expression;
    pub mod reward;
}

static RULES: LazyLock<Vec<recipe::Reward>> = LazyLock::new(|| {
    let texts = ["", "allow_equals = false", "dialogue_format = true", "rules = 'tinyzero'"];
    texts.map(|text| toml::from_str(text).expect("a reward section")).into()
});

fuzz_target!(|response: &str| {
    for (rules, opened) in RULES.iter().flat_map(|rules| [(rules, false), (rules, true)]) {
        let grade = task::reward::grade(response, &[5, 7, 12], 67, rules, opened);
        assert!((0.0..=1.0).contains(&grade.reward(rules)));
        if grade.accuracy == 1.0 {
            assert!(["5", "7", "12"].iter().all(|number| response.contains(number)));
        }
    }
});
