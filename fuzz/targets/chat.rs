//! The chat template of a model's folder, in either of its files, renders a conversation or is refused.

use ppo_train::BadInput;
use serde_json::json;

pub fn run(data: &[u8]) {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let name = if data.starts_with(b"{\"") { "tokenizer_config.json" } else { "chat_template.jinja" };
    std::fs::write(dir.path().join(name), data).expect("room for a file");
    let messages = json!([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "3 + 4 = ?"}]);
    if let Err(error) = ppo_train::text::chat_messages(dir.path(), &messages) {
        assert!(error.is::<BadInput>());
        super::refused(format!("{error:#}"), data.len());
    }
}
