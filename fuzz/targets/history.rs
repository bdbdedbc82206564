//! `history.jsonl` of a run: lines that are ours are written and read as the same, and compared with each other.

use ppo_train::run::sittings;

pub fn run(data: &[u8]) {
    super::text(data, |text| {
        let all = sittings(text);
        assert!(all.len() <= text.lines().count());
        for (one, next) in all.iter().zip(all.iter().skip(1).chain(all.first())) {
            let written = serde_json::to_string(one).expect("a line of JSON");
            let again = sittings(&written).pop().expect("what we write");
            assert_eq!(serde_json::to_string(&again).expect("a line of JSON"), written);
            assert_eq!(again.differences(one), Vec::<String>::new());
            one.differences(next).iter().for_each(|difference| super::refused(difference, text.len()));
        }
    });
}
