//! The seams, used: a task and a hook that the rest of the crate does not know (tests/toy).

use super::launch;
use crate::plan;
use crate::train::hook::State;
use std::fs;
use std::path::Path;

#[test]
fn a_second_task_and_a_hook_take_part_in_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("toy");
    let plan = plan::load(Path::new("tests/toy/recipe.toml"), &[], Some(&out)).unwrap();
    assert!(plan::report(&plan, plan::Devices::of(&plan)).contains("larger, 16 training, 16 validation"));
    launch(&plan, false).unwrap();

    let state: State = serde_json::from_str(&fs::read_to_string(out.join("step_000002/state.json")).unwrap()).unwrap();
    assert_eq!(state.step, 2);
    assert_eq!(fs::read_to_string(out.join("steps")).unwrap(), "2");
    let metrics = fs::read_to_string(out.join("metrics.jsonl")).unwrap();
    assert!(metrics.contains("val/larger/accuracy") && metrics.contains("actor/pg_loss"));
}
