//! The rules that count behaviours: segments are parts of the text, for whatever a model wrote.

use ppo_train::judge::{lexical, words};

pub fn run(data: &[u8]) {
    super::text(data, |text| {
        let judgement = lexical::judgement(text);
        assert_eq!(judgement.check(text), Ok(()));
        assert_eq!(lexical::judgement(text), judgement);
        let _ = words(text);
    });
}
