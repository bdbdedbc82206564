//! `spent.jsonl` of a folder of answers: lines that say nothing are named, the others are written and read as the same.

use ppo_train::endpoint::spent_in;

pub fn run(data: &[u8]) {
    super::text(data, |text| {
        let (spent, unread) = spent_in(text);
        assert!(unread.iter().all(|number| (1..=text.lines().count()).contains(number)));
        let written = serde_json::to_string(&spent).expect("a line of JSON");
        assert_eq!(spent_in(&written), (spent, vec![]));
        assert!(spent.tokens() >= spent.prompt_tokens.max(spent.completion_tokens));
    });
}
