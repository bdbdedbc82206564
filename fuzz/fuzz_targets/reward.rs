//! Any response is graded under every rule set; a right answer contains the numbers.
#![no_main]
#![allow(dead_code)]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

#[path = "../../src/recipe/keys/mod.rs"]
mod recipe;

#[path = "../../src/text"]
mod text {
    pub mod tags;
}

#[path = "../../src/task"]
mod task {
    pub mod countdown {
        pub mod expression;
        pub mod judge;
        pub mod problem;
    }
    pub mod layout;

    pub struct Verdict {
        pub right: bool,
        pub reason: String,
    }
}

use task::countdown::{judge::judge, problem::Problem};
use task::layout;

static RULES: LazyLock<Vec<recipe::Reward>> = LazyLock::new(|| {
    let texts = ["", "dialogue_format = true", "rules = 'tinyzero'"];
    texts.map(|text| toml::from_str(text).expect("a reward section")).into()
});

fuzz_target!(|response: &str| {
    for (rules, yes) in RULES.iter().flat_map(|rules| [(rules, false), (rules, true)]) {
        // Whether the prompt opened a think block, and whether an answer may be an equation.
        let (opened, allow_equals) = (yes, yes);
        let layout = layout::read(response, rules, opened);
        let Ok(answer) = layout.answer else { continue };
        let verdict = judge(answer, &Problem { nums: vec![5, 7, 12], target: 67 }, rules.rules, allow_equals);
        assert!(!verdict.reason.is_empty());
        if verdict.right {
            assert!(["5", "7", "12"].iter().all(|number| response.contains(number)));
        }
    }
});
