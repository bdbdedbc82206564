//! Rows of a warm start, in every layout; the second row is the partner of the first.

use ppo_train::recipe::FileData;
use ppo_train::rows::lines;
use ppo_train::text::Tokenizer;
use ppo_train::traces::{Tasks, trace_of};
use serde_json::Value;
use std::path::Path;
use std::sync::LazyLock;

/// From the root of the repository, where tests and `scripts/fuzz` run.
const TOKENIZER: &str = "checkpoints/countdown-base";

static DATA: LazyLock<[FileData; 2]> = LazyLock::new(|| {
    ["", "merge_utterances = true\nanswer_tags = true\nmatch_lengths = true"]
        .map(|keys| toml::from_str(&format!("path = 'a.jsonl'\n{keys}")).expect("a section of a recipe"))
});
static LOADED: LazyLock<Tokenizer> =
    LazyLock::new(|| Tokenizer::from_dir(Path::new(TOKENIZER)).expect("the tokenizer of the repository"));
static TASKS: LazyLock<[Tasks<'static>; 2]> = LazyLock::new(|| {
    DATA.each_ref().map(|data| Tasks::new(data, &LOADED, Path::new(TOKENIZER)).expect("a built-in template"))
});

pub fn run(data: &[u8]) {
    let rows: Vec<_> = lines(data, Path::new("a.jsonl")).take(2).filter_map(Result::ok).collect();
    let Some((_, first)) = rows.first() else { return };
    let partner = rows.get(1).map(|(_, row)| row);
    let chat = |messages: &Value| Ok(messages.to_string());
    for tasks in TASKS.iter() {
        match trace_of(first, partner, &chat, tasks) {
            Err(error) => super::refused(format!("{error:#}"), data.len()),
            Ok(trace) => assert!(!trace.prompt.trim().is_empty() && !trace.response.trim().is_empty()),
        }
    }
}
