//! A trace of personas or of one voice: what is read and written out is read as the same.

use ppo_train::text::persona::{Block, Dialogue, Monologue, merge_utterances};

pub fn run(data: &[u8]) {
    super::text(data, |text| {
        match Dialogue::parse(text) {
            Err(remark) => super::refused(remark, text.len()),
            Ok(dialogue) => {
                let written = dialogue.write();
                let again = Dialogue::parse(&written).expect("what we write");
                let parts =
                    |dialogue: &Dialogue| [&dialogue.cast, &dialogue.turns, &dialogue.ending].map(|all| texts(all));
                assert_eq!(parts(&again), parts(&dialogue));
                assert_eq!(again.answer(), dialogue.answer());
                assert!(again.notes.len() <= dialogue.notes.len());
                assert!(merge_utterances(&dialogue, true).contains(dialogue.conclusion()));
            }
        }
        match Monologue::parse(text) {
            Err(remark) => super::refused(remark, text.len()),
            Ok(monologue) => {
                let written = monologue.write();
                let again = Monologue::parse(&written).expect("what we write");
                assert_eq!((again.thought.text, again.answer), (monologue.thought.text, monologue.answer));
                assert_eq!((again.tagged, again.notes.len()), (monologue.tagged, 0));
            }
        }
    });
}

/// Blocks without their places.
fn texts(blocks: &[Block]) -> Vec<(String, String)> {
    blocks.iter().map(|block| (block.tag.to_string(), block.text.to_string())).collect()
}
