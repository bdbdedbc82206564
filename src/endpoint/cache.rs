//! Answers on disk, a file each, so that nothing is asked twice: `HASH.json`, written whole or not at all, holds the
//! request and the reply. A file that cannot be used is asked for again.

use crate::files::write_file;
use crate::hash::hash;
use crate::{WHOLE, read_text, terminal};
use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// The folder of answers.
#[derive(Clone)]
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

    fn file(&self, request: &Value) -> PathBuf {
        self.folder.join(format!("{}.json", hash(request.to_string().as_bytes())))
    }

    /// The reply that was given to this request earlier.
    pub fn get<T: DeserializeOwned>(&self, request: &Value) -> Option<T> {
        let file = self.file(request);
        let text = read_text(&file, WHOLE).ok()?;
        let entry = serde_json::from_str::<Value>(&text).ok().filter(|entry| entry["request"] == *request);
        let reply = entry.and_then(|mut entry| serde_json::from_value(entry["reply"].take()).ok());
        if reply.is_none() {
            terminal::warn(&format!("warning: {} is not an answer to its request, asking again", file.display()));
        }
        reply
    }

    /// Keeps a reply.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn put(&self, request: &Value, reply: &impl Serialize) -> Result<()> {
        let entry = json!({ "request": request, "reply": serde_json::to_value(reply)? });
        write_file(&self.file(request), format!("{entry:#}\n"))
    }
}
