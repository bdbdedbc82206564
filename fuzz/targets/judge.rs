//! A judge's reply to each of its questions is an answer that is possible, or none; and so is a line of judged traces.

use ppo_train::grammar::find;
use ppo_train::judge::{Judgement, Question, Reading, Trace};
use std::sync::LazyLock;

static TRACE: LazyLock<Trace> = LazyLock::new(|| Trace {
    problem: "3 + 4?".into(),
    text: "<think1>\nIs it 8? No.\n</think1>\n<think2>Then 7.</think2>\n7".into(),
});

pub fn run(data: &[u8]) {
    super::text(data, |text| {
        let mut reading = Reading::new(&TRACE);
        for question in Question::ALL.into_iter().chain([Question::Segments]) {
            match find(text, &reading.accepts(question)) {
                Ok(reply) => reading.take(question, &reply).expect("what is accepted"),
                Err(why) => {
                    super::refused(&why, text.len());
                    reading.miss(question, why);
                }
            }
        }
        if let Ok(judgement) = reading.judgement() {
            assert_eq!(judgement.check(&TRACE.text), Ok(()));
        }
        if let Ok(judgement) = serde_json::from_str::<Judgement>(text)
            && judgement.check(&TRACE.text).is_ok()
        {
            let segments = judgement.segments.iter();
            assert!(segments.map(|part| TRACE.text[part.start..part.end].len()).sum::<usize>() <= TRACE.text.len());
        }
    });
}
