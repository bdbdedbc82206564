//! Between text and the model: the tokenizer, and the prompt templates; and the tags and layouts of responses.
//!
//! Whatever a user can get wrong here (a missing file, a template that names an unknown variable) is `BadInput`.

mod ends;
mod jinja;
pub mod persona;
mod prompt;
pub mod tags;
mod tokenizer;

pub use ends::{EndTokens, Ends};
pub use prompt::{BUILT_IN, PromptTemplate, chat, chat_messages, opens_think};
pub use tokenizer::Tokenizer;

use crate::{bad, lfs_pointer};
use anyhow::Result;
use serde::Deserialize;
use std::path::Path;

/// What we read of a folder's `tokenizer_config.json`. The file and every key in it may be absent.
#[derive(Default, Deserialize)]
struct TokenizerConfig {
    #[serde(default)]
    bos_token: Option<SpecialToken>,
    #[serde(default)]
    eos_token: Option<SpecialToken>,
    #[serde(default)]
    chat_template: Option<ChatTemplate>,
}

/// A token's text; older files wrap it in a table of flags.
#[derive(Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Table { content: String },
}

/// One template, or several by name, of which `default` is for plain chat.
#[derive(Deserialize)]
#[serde(untagged)]
enum ChatTemplate {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

impl TokenizerConfig {
    fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("tokenizer_config.json");
        if let Some(pointer) = lfs_pointer(&path) {
            return Err(bad!("{pointer}"));
        }
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                let json = &mut serde_json::Deserializer::from_str(text.trim_start_matches('\u{feff}'));
                serde_path_to_error::deserialize(json)
                    .map_err(|error| bad!("in {}, key `{}`: {}", path.display(), error.path(), error.inner()))
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(bad!("{} cannot be read: {error}", path.display())),
        }
    }

    /// The text of `<|begin_of_text|>` or the like, if the family has one.
    fn bos(&self) -> Option<&str> {
        self.bos_token.as_ref().map(SpecialToken::text)
    }

    fn eos(&self) -> Option<&str> {
        self.eos_token.as_ref().map(SpecialToken::text)
    }
}

impl SpecialToken {
    fn text(&self) -> &str {
        match self {
            Self::Text(text) | Self::Table { content: text } => text,
        }
    }
}

impl ChatTemplate {
    fn source(self) -> Option<String> {
        match self {
            Self::One(template) => Some(template),
            Self::Named(all) => all.into_iter().find(|one| one.name == "default").map(|one| one.template),
        }
    }
}
