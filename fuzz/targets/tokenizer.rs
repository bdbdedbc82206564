//! A `tokenizer.json`, which the crate `tokenizers` reads: what it makes of a text are tokens that it knows.

use ppo_train::BadInput;
use ppo_train::text::Tokenizer;

/// Letters, digits, blanks, parts of a character, and what may be a special token.
const TEXTS: [&str; 4] = ["a", "ab  12\n", "\u{e9}\u{4f60}", "<|endoftext|></s>"];

pub fn run(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    std::fs::write(dir.path().join("tokenizer.json"), data).expect("room for a file");
    let tokenizer = match Tokenizer::from_dir(dir.path()) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            assert!(error.is::<BadInput>());
            return super::refused(format!("{error:#}"), data.len());
        }
    };
    for text in TEXTS {
        for ids in [tokenizer.encode(text), tokenizer.encode_plain(text), tokenizer.encode_prompt(text)] {
            match ids {
                Err(error) => super::refused(format!("{error:#}"), data.len()),
                Ok(ids) => {
                    assert!(ids.iter().all(|id| (0..tokenizer.vocab_size()).contains(id)), "{ids:?}");
                    let _ = tokenizer.decode(&ids);
                }
            }
        }
    }
    let _ = tokenizer.pieces();
}
