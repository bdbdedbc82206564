//! `config.json` and `generation_config.json` as they are in the file. `null` is as good as absent.

use anyhow::{Result, anyhow, bail, ensure};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt;

/// What a config says it is.
#[derive(Deserialize)]
pub struct Named {
    pub architectures: Option<Vec<String>>,
    pub model_type: Option<String>,
}

/// The keys of `config.json` that are read.
#[derive(Deserialize)]
pub struct ConfigFile {
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub num_key_value_heads: Option<i64>,
    pub head_dim: Option<i64>,
    pub hidden_act: Option<String>,
    pub rms_norm_eps: Option<f64>,
    pub rope_theta: Option<f64>,
    pub rope_scaling: Option<Rope>,
    pub rope_parameters: Option<Rope>,
    pub tie_word_embeddings: Option<bool>,
    pub attention_bias: Option<bool>,
    pub mlp_bias: Option<bool>,
    pub use_sliding_window: Option<bool>,
    pub max_position_embeddings: Option<i64>,
    pub initializer_range: Option<f64>,
    pub quantization_config: Option<Value>,
    #[serde(default)]
    pub eos_token_id: Ids,
}

/// The keys of `generation_config.json` that are read.
#[derive(Deserialize)]
pub struct GenerationFile {
    #[serde(default)]
    pub eos_token_id: Ids,
}

/// Parses a JSON file that holds an object; errors name the key.
pub fn parse<T: DeserializeOwned>(text: &str) -> Result<T> {
    let text = text.trim_start_matches('\u{feff}');
    // serde would also take a list for the keys in their order.
    ensure!(!text.trim_start().starts_with('['), "expected a JSON object");
    let mut json = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let odd = ["NaN", "Infinity"].into_iter().find(|word| text.contains(word));
        let hint = odd.map_or(String::new(), |word| format!(" (JSON has no {word})"));
        let (path, cause) = (error.path().to_string(), plain(&error.inner().to_string()) + &hint);
        if path == "." { anyhow!(cause) } else { anyhow!("`{path}`: {cause}") }
    })?;
    json.end()?;
    Ok(value)
}

/// serde's message with words for the types of Rust.
fn plain(message: &str) -> String {
    [("expected f64", "expected a number"), ("expected i64", "expected an integer")]
        .iter()
        .fold(message.to_string(), |message, (from, to)| message.replace(from, to))
}

impl ConfigFile {
    /// Base frequency and scaling. A file may have both forms, transformers 4's and 5's, if they say the same.
    pub fn rope(&self) -> Result<(f64, Option<Llama3Scaling>)> {
        let of = |table: &Rope| table.read(self.rope_theta);
        match (&self.rope_parameters, &self.rope_scaling) {
            (None, None) => Ok((self.rope_theta.unwrap_or(Rope::THETA), None)),
            (Some(table), None) | (None, Some(table)) => of(table),
            (Some(new), Some(old)) => {
                let (new, old) = (of(new)?, of(old)?);
                ensure!(
                    new == old,
                    "`rope_parameters` and `rope_scaling` disagree (transformers 5 takes the second): keep one of them"
                );
                Ok(new)
            }
        }
    }
}

/// Rope scaling of Llama 3.1 and later: long wavelengths are stretched by `factor`, short ones kept, those between
/// interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Llama3Scaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: f64,
}

#[derive(Deserialize)]
pub struct Rope {
    rope_type: Option<String>,
    r#type: Option<String>,
    rope_theta: Option<f64>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

impl Rope {
    /// transformers' default base frequency.
    const THETA: f64 = 10_000.0;

    fn read(&self, outside: Option<f64>) -> Result<(f64, Option<Llama3Scaling>)> {
        let theta = self.rope_theta.or(outside).unwrap_or(Self::THETA);
        match self.rope_type.as_deref().or(self.r#type.as_deref()) {
            None if self.rest.contains_key("factor") => {
                bail!("a rope table with `factor`, but without `rope_type`: expected default or llama3")
            }
            None | Some("default") => Ok((theta, None)),
            Some("llama3") => {
                let scaling = serde_json::from_value(Value::Object(self.rest.clone()));
                scaling
                    .map(|scaling| (theta, Some(scaling)))
                    .map_err(|error| anyhow!("the rope scaling of type llama3: {}", plain(&error.to_string())))
            }
            Some(other) => bail!("rope type `{other}` is not supported: expected default or llama3"),
        }
    }
}

/// An id, a list of ids, or nothing: each file may have any of them.
#[derive(Default)]
pub struct Ids(pub Vec<i64>);

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Ids;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("an id, a list of ids, or null")
            }

            fn visit_unit<E>(self) -> Result<Ids, E> {
                Ok(Ids(vec![]))
            }

            fn visit_i64<E>(self, id: i64) -> Result<Ids, E> {
                Ok(Ids(vec![id]))
            }

            fn visit_u64<E>(self, id: u64) -> Result<Ids, E> {
                // Beyond every vocabulary in either case.
                Ok(Ids(vec![i64::try_from(id).unwrap_or(i64::MAX)]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Ids, A::Error> {
                let mut ids = Vec::new();
                while let Some(id) = list.next_element()? {
                    ids.push(id);
                }
                Ok(Ids(ids))
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}
