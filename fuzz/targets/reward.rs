//! Any response is graded under every rule set; a right answer contains the numbers.

use ppo_train::recipe::Reward;
use ppo_train::task::countdown::{Problem, judge};
use ppo_train::task::layout;
use std::sync::LazyLock;

static RULES: LazyLock<Vec<Reward>> = LazyLock::new(|| {
    let texts = ["", "dialogue_format = true", "rules = 'tinyzero'"];
    texts.map(|text| toml::from_str(text).expect("a reward section")).into()
});
static PROBLEM: LazyLock<Problem> = LazyLock::new(|| Problem { nums: vec![5, 7, 12], target: 67 });

pub fn run(data: &[u8]) {
    super::text(data, |response| {
        for (rules, yes) in RULES.iter().flat_map(|rules| [(rules, false), (rules, true)]) {
            // Whether the prompt opened a think block, and whether an answer may be an equation.
            let (opened, allow_equals) = (yes, yes);
            let layout = layout::read(response, rules, opened);
            let Ok(answer) = layout.answer else { continue };
            assert!(response.contains(answer));
            let verdict = judge(answer, &PROBLEM, rules.rules, allow_equals);
            super::refused(&verdict.reason, 0);
            if verdict.right {
                assert!(["5", "7", "12"].iter().all(|number| answer.contains(number)));
            }
        }
    });
}
