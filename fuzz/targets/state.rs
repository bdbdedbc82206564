//! `state.json` of a checkpoint and of a warm start: what is read and possible is written out and read as the same.

use ppo_train::json;
use ppo_train::train::hook::State;
use ppo_train::train::sft::Done;
use serde_json::to_string;

pub fn run(data: &[u8]) {
    super::text(data, |text| {
        let checked = json::parse::<State>(text).and_then(|state| state.check(state.step).map(|()| state));
        match checked {
            Err(error) => super::refused(format!("{error:#}"), text.len()),
            Ok(state) => {
                let written = to_string(&state).expect("a state as JSON");
                let again: State = json::parse(&written).expect("what we write");
                again.check(state.step).expect("what was possible");
                assert_eq!(to_string(&again).expect("a state as JSON"), written);
            }
        }
        match json::parse::<Done>(text) {
            Err(error) => super::refused(format!("{error:#}"), text.len()),
            Ok(done) => {
                let again: Done = json::parse(&to_string(&done).expect("JSON")).expect("what we write");
                assert_eq!((again.steps, again.unrecorded), (done.steps, done.unrecorded));
            }
        }
    });
}
