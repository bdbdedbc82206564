//! `config.json` and `generation_config.json` as they are in the file. `null` is as good as absent.

use crate::json;
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde_json::{Map, Value};
use std::fmt::{self, Display};

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
    pub rope_scaling: Option<Map<String, Value>>,
    pub rope_parameters: Option<Map<String, Value>>,
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

impl ConfigFile {
    /// Base frequency and scaling. A file may have both forms, transformers 4's and 5's, if they say the same.
    pub fn rope(&self) -> Result<(f64, Option<Llama3Scaling>)> {
        let tables = [("rope_parameters", &self.rope_parameters), ("rope_scaling", &self.rope_scaling)];
        let read = |(name, table): (&str, &Option<Map<String, Value>>)| {
            let table = table.as_ref().filter(|table| !table.is_empty())?;
            Some(read_rope(table, self.rope_theta).with_context(|| format!("`{name}`")))
        };
        let (theta, scaling) = match tables.map(read) {
            [None, None] => (self.rope_theta.unwrap_or(ROPE_THETA), None),
            [Some(table), None] | [None, Some(table)] => table?,
            [Some(new), Some(old)] => {
                let (new, old) = (new?, old?);
                ensure!(
                    new == old,
                    "`rope_parameters` and `rope_scaling` disagree (transformers 5 takes the second): keep one of them"
                );
                new
            }
        };
        ensure!(theta > 0.0, "rope_theta = {theta}: expected a number above 0");
        Ok((theta, scaling))
    }
}

/// transformers' default base frequency.
const ROPE_THETA: f64 = 10_000.0;

/// What only a table with scaling has.
const SCALING: [&str; 4] = ["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"];

/// Rope scaling of Llama 3.1 and later: long wavelengths are stretched by `factor`, short ones kept, those between
/// interpolated.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
pub struct Llama3Scaling {
    pub factor: f64,
    pub low_freq_factor: f64,
    pub high_freq_factor: f64,
    pub original_max_position_embeddings: f64,
}

impl Llama3Scaling {
    fn check(&self) -> Result<()> {
        let (low, high) = (self.low_freq_factor, self.high_freq_factor);
        ensure!(self.factor >= 1.0, "`factor` is {}, expected at least 1", self.factor);
        ensure!(
            0.0 < low && low < high,
            "`low_freq_factor` is {low} and `high_freq_factor` is {high}, expected 0 < low < high"
        );
        let original = self.original_max_position_embeddings;
        ensure!(original > 0.0, "`original_max_position_embeddings` is {original}, expected a number above 0");
        Ok(())
    }
}

/// The keys of a rope table that are read, besides the scaling.
#[derive(Deserialize)]
struct Rope {
    rope_type: Option<String>,
    r#type: Option<String>,
    rope_theta: Option<f64>,
}

/// Base frequency and scaling of a rope table; `outside`: the base frequency beside it.
fn read_rope(table: &Map<String, Value>, outside: Option<f64>) -> Result<(f64, Option<Llama3Scaling>)> {
    if let Some((key, _)) = table.iter().find(|(_, value)| value.is_object()) {
        bail!("it has a table `{key}`: expected one table for all layers");
    }
    let rope: Rope = json::typed(table.clone())?;
    let theta = one_of(("`rope_theta`", rope.rope_theta), ("`rope_theta` outside of the table", outside))?;
    let kind = one_of(("`rope_type`", rope.rope_type), ("`type`", rope.r#type))?;
    let scaling = match kind.as_deref() {
        None | Some("default") => {
            let odd = SCALING.into_iter().find(|key| table.get(*key).is_some_and(|value| !value.is_null()));
            let kind = if kind.is_none() { "without `rope_type`" } else { "of type default" };
            ensure!(odd.is_none(), "a table {kind} has no `{}`: is it of type llama3?", odd.unwrap_or_default());
            None
        }
        Some("llama3") => {
            let scaling: Llama3Scaling = json::typed(table.clone())?;
            scaling.check()?;
            Some(scaling)
        }
        Some(other) => bail!("rope type `{other}` is not supported: expected default or llama3"),
    };
    Ok((theta.unwrap_or(ROPE_THETA), scaling))
}

/// The value that two places have, or one of them; each with its name.
fn one_of<T: PartialEq + Display>(one: (&str, Option<T>), other: (&str, Option<T>)) -> Result<Option<T>> {
    if let ((name, Some(value)), (twin, Some(different))) = (&one, &other) {
        ensure!(value == different, "{name} is {value}, but {twin} is {different}");
    }
    Ok(one.1.or(other.1))
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

#[cfg(test)]
mod tests {
    use super::*;

    fn rope(rest: &str) -> Result<(f64, Option<Llama3Scaling>)> {
        let keys = r#""vocab_size": 64, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 6"#;
        json::parse::<ConfigFile>(&format!("{{{keys}, {rest}}}"))?.rope()
    }

    #[test]
    fn a_rope_table_says_one_thing_or_is_refused() {
        let llama3 = |change: &str, to: &str| {
            let keys = r#""rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192"#;
            assert!(keys.contains(change));
            format!("{{{}}}", keys.replacen(change, to, 1))
        };
        let table = String::from;
        for (table, part) in [
            (table(r#"{"rope_theta": 5e5}"#), "`rope_theta` is 500000, but `rope_theta` outside of the table is 10000"),
            (table(r#"{"rope_type": "default", "type": "llama3"}"#), "`rope_type` is default, but `type` is llama3"),
            (table(r#"{"factor": 8.0}"#), "a table without `rope_type` has no `factor`"),
            (table(r#"{"rope_type": "default", "low_freq_factor": 1}"#), "of type default has no `low_freq_factor`"),
            (table(r#"{"full_attention": {"rope_type": "default"}}"#), "it has a table `full_attention`"),
            (table(r#"{"rope_type": 3}"#), "`rope_type`: invalid type: integer `3`, expected a string"),
            (llama3("32.0", "0.5"), "`factor` is 0.5, expected at least 1"),
            (llama3("\"factor\": 32.0,", ""), "missing field `factor`"),
            (llama3("32.0", "\"32\""), "`factor`: invalid type: string \"32\", expected a number"),
            (llama3("1.0", "0.0"), "`low_freq_factor` is 0 and"),
            (llama3("4.0", "1.0"), "`high_freq_factor` is 1, expected 0 < low < high"),
            (llama3("8192", "0"), "`original_max_position_embeddings` is 0, expected a number above 0"),
        ] {
            for name in ["rope_scaling", "rope_parameters"] {
                let message = format!("{:#}", rope(&format!(r#""rope_theta": 1e4, "{name}": {table}"#)).unwrap_err());
                assert!(message.starts_with(&format!("`{name}`: ")) && message.contains(part), "{message}");
            }
        }
        let plain = rope(r#""rope_theta": 5e5"#).unwrap();
        for same in [
            r#""rope_theta": 5e5, "rope_scaling": {}"#,
            r#""rope_theta": 5e5, "rope_parameters": {}, "rope_scaling": {"type": "default", "factor": null}"#,
            r#""rope_theta": 5e5, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default", "type": "default"}"#,
        ] {
            assert_eq!(rope(same).unwrap(), plain, "{same}");
        }
    }
}
