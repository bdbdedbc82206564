//! Answers on disk, a file each, so that nothing is asked twice: `HASH.json`, written whole or not at all, holds the
//! request and the reply. A file that cannot be used is asked for again.

use super::interface::{Reply, Request};
use crate::checkpoint::write_file;
use crate::hash::hash;
use crate::terminal;
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The folder of answers.
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Makes the folder if there is none.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn at(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(Self { folder: folder.to_path_buf() })
    }

    fn file(&self, identity: &Value) -> PathBuf {
        self.folder.join(format!("{}.json", hash(identity.to_string().as_bytes())))
    }

    /// The reply that this teacher gave to the request earlier.
    pub fn get(&self, teacher: &Value, request: &Request) -> Option<Reply> {
        let identity = request.identity(teacher);
        let file = self.file(&identity);
        let text = std::fs::read_to_string(&file).ok()?;
        let entry = serde_json::from_str::<Value>(&text).ok().filter(|entry| entry["request"] == identity);
        let reply = entry.as_ref().and_then(|entry| reply_of(&entry["reply"]));
        if reply.is_none() {
            terminal::warn(&format!("warning: {} is not an answer to its request, asking again", file.display()));
        }
        reply
    }

    /// Keeps a reply.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, teacher: &Value, request: &Request, reply: &Reply) -> Result<()> {
        let identity = request.identity(teacher);
        let entry = json!({
            "request": identity,
            "reply": {
                "text": reply.text,
                "cut": reply.cut,
                "prompt_tokens": reply.prompt_tokens,
                "completion_tokens": reply.completion_tokens,
            },
        });
        write_file(&self.file(&identity), format!("{entry:#}\n"))
    }
}

fn reply_of(reply: &Value) -> Option<Reply> {
    Some(Reply {
        text: reply["text"].as_str()?.to_string(),
        cut: reply["cut"].as_bool()?,
        prompt_tokens: reply["prompt_tokens"].as_u64()?,
        completion_tokens: reply["completion_tokens"].as_u64()?,
    })
}
