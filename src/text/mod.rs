//! Between text and the model: the tokenizer, and the prompt templates; and the tags and layouts of responses.
//!
//! Whatever a user can get wrong here (a missing file, a template that names an unknown variable) is `BadInput`.

mod ends;
mod jinja;
pub mod persona;
mod prompt;
pub mod tags;
mod tokenizer;
mod visible;

pub use ends::{EndTokens, Ends};
pub use prompt::{BUILT_IN, PromptTemplate, chat, chat_messages, opens_think, source_of};
pub use tokenizer::Tokenizer;
pub use visible::visible;

use crate::{OrBadInput, json};
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
#[serde(untagged, expecting = "expected a token's text, or a table with its `content`")]
enum SpecialToken {
    Text(String),
    Table { content: String },
}

/// One template, or several by name, of which `default` is for plain chat.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a template, or a list of tables with `name` and `template`")]
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
        match path.symlink_metadata() {
            Ok(_) => json::read(&path).bad_input(),
            Err(_) => Ok(Self::default()),
        }
    }

    /// The text of `<|begin_of_text|>` or the like, if the family has one.
    fn bos(&self) -> Option<&str> {
        Self::named(&self.bos_token)
    }

    fn eos(&self) -> Option<&str> {
        Self::named(&self.eos_token)
    }

    /// An empty name is none.
    fn named(token: &Option<SpecialToken>) -> Option<&str> {
        token.as_ref().map(SpecialToken::text).filter(|text| !text.is_empty())
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
