//! `heartbeat.json` of a run: what is read is written and read as the same.

use ppo_train::json;
use ppo_train::run::Heartbeat;

pub fn run(data: &[u8]) {
    super::text(data, |text| match json::parse::<Heartbeat>(text) {
        Err(error) => super::refused(format!("{error:#}"), text.len()),
        Ok(beat) => {
            let written = serde_json::to_string(&beat).expect("a sign of life as JSON");
            assert_eq!(json::parse::<Heartbeat>(&written).expect("what we write"), beat);
            assert!(beat.ended.is_none() || !beat.may_live(true));
        }
    });
}
