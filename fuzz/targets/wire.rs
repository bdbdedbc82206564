//! What a server answers: a reply, embeddings for each text, or a fault in one line; and always a number of tokens.

use ppo_train::endpoint::{Fault, reply_of, usage_of, vectors_of};

pub fn run(data: &[u8]) {
    super::text(data, |text| {
        if let Err(fault) = reply_of(text) {
            one_line(&fault);
        }
        match vectors_of(text, 2) {
            Err(fault) => one_line(&fault),
            Ok(vectors) => {
                assert_eq!(vectors.len(), 2);
                assert!(vectors.iter().flatten().all(|number| number.is_finite()));
            }
        }
        let spent = usage_of("/chat/completions", "asked", text);
        assert!(spent.prompt_tokens > 0 && (spent.completion_tokens > 0 || text.is_empty()));
    });
}

fn one_line(fault: &Fault) {
    let (Fault::Passing(what, _) | Fault::Refused(what) | Fault::Fatal(what)) = fault;
    super::refused(what, 0);
    assert!(!what.contains(['\n', '\u{1b}']), "{what:?}");
}
