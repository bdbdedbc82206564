//! The shape of a model, read from a Hugging Face `config.json`.
//!
//! Three families share one decoder: `Qwen2ForCausalLM` (bias on q, k and v), `Qwen3ForCausalLM` (no bias, a norm on
//! each head of q and k) and `LlamaForCausalLM` (no bias, rope scaling of type `llama3`). transformers 5 writes
//! `rope_parameters` instead of `rope_theta` and `rope_scaling`; both forms are read.

use super::config_file::{ConfigFile, GenerationFile, Llama3Scaling, Named};
use crate::json;
use crate::text::{EndTokens, Tokenizer};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use std::path::Path;

/// What the folder of an adapter has instead of `config.json`.
pub const ADAPTER: &str = "adapter_config.json";

/// What the decoder needs to know about a checkpoint, checked.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    pub family: Family,
    pub vocab_size: i64,
    pub hidden_size: i64,
    pub intermediate_size: i64,
    pub num_hidden_layers: i64,
    pub num_attention_heads: i64,
    pub num_key_value_heads: i64,
    pub head_dim: i64,
    pub rms_norm_eps: f64,
    pub rope_theta: f64,
    pub rope_scaling: Option<Llama3Scaling>,
    pub tie_word_embeddings: bool,
    /// Bias on the q, k and v projections.
    pub attention_bias: bool,
    /// Context length in tokens.
    pub max_position_embeddings: i64,
    /// Standard deviation of random weights.
    pub initializer_range: f64,
    /// Ids that end a sequence, as `config.json` says.
    pub eos_token_ids: Vec<i64>,
    /// The same as `generation_config.json` says.
    pub generation_eos_token_ids: Vec<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Qwen2,
    Qwen3,
    Llama,
}

impl Family {
    /// Each with its name in `architectures` and its `model_type`.
    const ALL: [(&'static str, &'static str, Family); 3] = [
        ("Qwen2ForCausalLM", "qwen2", Family::Qwen2),
        ("Qwen3ForCausalLM", "qwen3", Family::Qwen3),
        ("LlamaForCausalLM", "llama", Family::Llama),
    ];

    /// By the first architecture, or if none is named by the model type, as transformers' AutoModelForCausalLM.
    fn named(named: &Named) -> Result<Self> {
        let known = || Self::ALL.map(|(name, ..)| name).join(", ");
        let architecture = named.architectures.iter().flatten().next();
        let found = |(name, model_type, _): &&(&str, &str, Self)| match architecture {
            Some(architecture) => architecture == name,
            None => named.model_type.as_deref() == Some(model_type),
        };
        match (Self::ALL.iter().find(found), architecture, &named.model_type) {
            (Some((.., family)), ..) => Ok(*family),
            (None, Some(name), _) => bail!("architecture `{name}` is not supported: expected one of {}", known()),
            (None, None, Some(name)) => {
                bail!(
                    "model_type `{name}` is not supported, and there is no `architectures`: expected one of {}",
                    known()
                )
            }
            (None, None, None) => bail!("neither `architectures` nor `model_type`: expected one of {}", known()),
        }
    }

    /// What transformers 5 takes for keys that a file leaves out, if it differs between families.
    fn defaults(self) -> Defaults {
        match self {
            Self::Qwen2 => Defaults { max_position_embeddings: 32_768, head_dim: None },
            Self::Qwen3 => Defaults { max_position_embeddings: 32_768, head_dim: Some(128) },
            Self::Llama => Defaults { max_position_embeddings: 2048, head_dim: None },
        }
    }
}

struct Defaults {
    max_position_embeddings: i64,
    head_dim: Option<i64>,
}

impl ModelConfig {
    /// Reads `DIR/config.json`, and the end-of-sequence ids of `DIR/generation_config.json` if it exists.
    ///
    /// # Errors
    /// A missing file, a key of the wrong type, an architecture or rope type that is not supported, or shapes that
    /// are impossible (such as heads that do not divide), each with the file's path and the key.
    pub fn from_dir(dir: &Path) -> Result<Self> {
        let path = dir.join("config.json");
        let is_there = |path: &Path| path.symlink_metadata().is_ok();
        let shown = dir.display();
        ensure!(
            is_there(&path) || !is_there(&dir.join(ADAPTER)),
            "{shown} is an adapter, not a whole model: merge it into its model first"
        );
        ensure!(is_there(&path), "no model folder at {shown}: there is no config.json");
        let mut config = Self::of(json::read(&path)?).with_context(|| format!("in {}", path.display()))?;
        let generation = dir.join("generation_config.json");
        if is_there(&generation) {
            config.generation_eos_token_ids = json::read::<GenerationFile>(&generation)?.eos_token_id.0;
        }
        Ok(config)
    }

    /// Parses the text of a `config.json`.
    pub fn from_json(text: &str) -> Result<Self> {
        Self::of(json::parse(text)?)
    }

    fn of(keys: Map<String, Value>) -> Result<Self> {
        // First, since other architectures have other keys.
        let family = Family::named(&json::typed(keys.clone())?)?;
        let raw: ConfigFile = json::typed(keys)?;
        let hidden_act = raw.hidden_act.as_deref().unwrap_or("silu");
        ensure!(hidden_act == "silu", "hidden_act `{hidden_act}` is not supported: expected silu");
        ensure!(raw.mlp_bias != Some(true), "mlp_bias = true is not supported");
        ensure!(raw.use_sliding_window != Some(true), "use_sliding_window = true is not supported");
        ensure!(
            raw.quantization_config.is_none(),
            "quantization_config: weights that are quantised when they are loaded cannot be trained; take the key out"
        );
        let (rope_theta, rope_scaling) = raw.rope()?;
        let heads = raw.num_attention_heads;
        let defaults = family.defaults();
        let config = Self {
            family,
            vocab_size: raw.vocab_size,
            hidden_size: raw.hidden_size,
            intermediate_size: raw.intermediate_size,
            num_hidden_layers: raw.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: raw.num_key_value_heads.unwrap_or(heads),
            head_dim: raw.head_dim.or(defaults.head_dim).unwrap_or_else(|| raw.hidden_size / heads.max(1)),
            rms_norm_eps: raw.rms_norm_eps.unwrap_or(1e-6),
            rope_theta,
            rope_scaling,
            tie_word_embeddings: raw.tie_word_embeddings.unwrap_or(false),
            attention_bias: match family {
                Family::Qwen2 => true,
                Family::Qwen3 | Family::Llama => raw.attention_bias.unwrap_or(false),
            },
            max_position_embeddings: raw.max_position_embeddings.unwrap_or(defaults.max_position_embeddings),
            initializer_range: raw.initializer_range.unwrap_or(0.02),
            eos_token_ids: raw.eos_token_id.0,
            generation_eos_token_ids: vec![],
        };
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<()> {
        // Wide bounds within which no product of shapes overflows.
        for (name, value, most) in [
            ("vocab_size", self.vocab_size, 1 << 24),
            ("hidden_size", self.hidden_size, 1 << 16),
            ("intermediate_size", self.intermediate_size, 1 << 20),
            ("num_hidden_layers", self.num_hidden_layers, 1 << 10),
            ("num_attention_heads", self.num_attention_heads, 1 << 10),
            ("num_key_value_heads", self.num_key_value_heads, 1 << 10),
            ("head_dim", self.head_dim, 1 << 12),
            ("max_position_embeddings", self.max_position_embeddings, 1 << 24),
        ] {
            ensure!((1..=most).contains(&value), "{name} = {value}: expected a number from 1 to {most}");
        }
        for (name, value, least, most) in [
            ("rms_norm_eps", self.rms_norm_eps, 0.0, 1.0),
            ("rope_theta", self.rope_theta, 1.0, 1e15),
            ("initializer_range", self.initializer_range, 0.0, 10.0),
        ] {
            let shown = if (1e-6..1e6).contains(&value.abs()) { format!("{value}") } else { format!("{value:e}") };
            ensure!((least..=most).contains(&value), "{name} = {shown}: expected a number from {least} to {most:e}");
        }
        let (heads, groups) = (self.num_attention_heads, self.num_key_value_heads);
        ensure!(heads % groups == 0, "num_key_value_heads = {groups} does not divide num_attention_heads = {heads}");
        ensure!(self.head_dim % 2 == 0, "head_dim = {} is odd: rotary embeddings rotate pairs", self.head_dim);
        Ok(())
    }

    /// The tokens that end this model's texts.
    pub fn end_tokens(&self, tokenizer: &Tokenizer) -> EndTokens {
        EndTokens::unite(&self.eos_token_ids, &self.generation_eos_token_ids, tokenizer, self.vocab_size)
    }

    /// Whether each query and key head is normalised (`q_norm`, `k_norm`).
    pub fn head_norms(&self) -> bool {
        self.family == Family::Qwen3
    }

    /// Whether the attention's output projection has a bias, like the other three (Qwen2's never has).
    pub fn output_bias(&self) -> bool {
        self.attention_bias && self.family != Family::Qwen2
    }

    /// Number of weights of the language model (a tied head is counted once).
    pub fn parameters(&self) -> u64 {
        let (h, m, d) = (self.hidden_size, self.intermediate_size, self.head_dim);
        let (q, kv) = (self.num_attention_heads * d, self.num_key_value_heads * d);
        let bias = if self.attention_bias { q + 2 * kv } else { 0 } + if self.output_bias() { h } else { 0 };
        let norms = 2 * h + if self.head_norms() { 2 * d } else { 0 };
        let layer = h * (q + 2 * kv) + bias + q * h + 3 * h * m + norms;
        let head = if self.tie_word_embeddings { 0 } else { self.vocab_size * h };
        (self.vocab_size * h + head + self.num_hidden_layers * layer + h) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LLAMA: &str = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 64, "hidden_size": 48,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 6, "num_key_value_heads": 2,
        "rms_norm_eps": 1e-5, "max_position_embeddings": 128, "eos_token_id": [1, 2]"#;

    fn parse(rest: &str) -> Result<ModelConfig> {
        ModelConfig::from_json(&format!("{LLAMA}, {rest}}}"))
    }

    #[test]
    fn both_forms_of_rope_are_equal() {
        let scaling = r#""rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192"#;
        let old = parse(&format!(r#""rope_theta": 5e5, "rope_scaling": {{{scaling}}}"#)).unwrap();
        let new = parse(&format!(r#""rope_parameters": {{"rope_theta": 5e5, {scaling}}}"#)).unwrap();
        assert_eq!(old, new);
        assert_eq!((old.head_dim, old.eos_token_ids.len()), (8, 2));
        assert_eq!(old.rope_scaling.unwrap().factor, 32.0);
        assert_eq!(parse(r#""rope_theta": 1e4, "rope_scaling": null"#).unwrap().rope_scaling, None);
    }

    /// Sizes as published, and the number of weights that transformers counts for each.
    #[test]
    fn the_published_shapes_have_their_published_sizes() {
        for (family, vocabulary, hidden, intermediate, layers, heads, kv, rest, weights) in [
            ("Qwen2", 151_936, 896, 4864, 24, 14, 2, r#""tie_word_embeddings": true"#, 494_032_768),
            ("Qwen2", 151_936, 1536, 8960, 28, 12, 2, r#""tie_word_embeddings": true"#, 1_543_714_304),
            ("Qwen2", 151_936, 2048, 11_008, 36, 16, 2, r#""tie_word_embeddings": true"#, 3_085_938_688),
            ("Qwen2", 152_064, 3584, 18_944, 28, 28, 4, r#""tie_word_embeddings": false"#, 7_615_616_512),
            ("Qwen3", 151_936, 1024, 3072, 28, 16, 8, r#""head_dim": 128, "tie_word_embeddings": true"#, 596_049_920),
            ("Llama", 128_256, 2048, 8192, 16, 32, 8, r#""head_dim": 64, "tie_word_embeddings": true"#, 1_235_814_400),
            ("Llama", 128_256, 3072, 8192, 28, 24, 8, r#""head_dim": 128, "tie_word_embeddings": true"#, 3_212_749_824),
            ("Llama", 49_152, 576, 1536, 30, 9, 3, r#""tie_word_embeddings": true"#, 134_515_008_u64),
        ] {
            let config = ModelConfig::from_json(&format!(
                r#"{{"architectures": ["{family}ForCausalLM"], "vocab_size": {vocabulary}, "hidden_size": {hidden},
                "intermediate_size": {intermediate}, "num_hidden_layers": {layers}, "num_attention_heads": {heads},
                "num_key_value_heads": {kv}, "rms_norm_eps": 1e-6, "max_position_embeddings": 32768,
                "rope_theta": 1e6, "eos_token_id": 1, {rest}}}"#
            ));
            assert_eq!(config.unwrap().parameters(), weights, "{family}, {hidden}");
        }
    }

    /// The defaults of transformers 5.23's Qwen2Config, Qwen3Config and LlamaConfig.
    #[test]
    fn absent_keys_and_nulls_mean_what_they_mean_in_transformers() {
        let keys = r#""vocab_size": 64, "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 6"#;
        let nulls = [
            "num_key_value_heads",
            "head_dim",
            "rms_norm_eps",
            "max_position_embeddings",
            "rope_theta",
            "rope_scaling",
            "rope_parameters",
            "initializer_range",
            "tie_word_embeddings",
            "attention_bias",
            "mlp_bias",
            "hidden_act",
            "use_sliding_window",
            "eos_token_id",
        ];
        let nulls: String = nulls.map(|key| format!(", \"{key}\": null")).concat();
        for (family, context, head_dim) in [("Qwen2", 32_768, 8), ("Qwen3", 32_768, 128), ("Llama", 2048, 8)] {
            let config = |rest: &str| {
                let text = format!("{{\"architectures\": [\"{family}ForCausalLM\"], {keys}{rest}}}");
                ModelConfig::from_json(&text).unwrap()
            };
            let plain = config("");
            assert_eq!((plain.max_position_embeddings, plain.head_dim), (context, head_dim), "{family}");
            assert_eq!((plain.rope_theta, plain.rms_norm_eps, plain.num_key_value_heads), (10_000.0, 1e-6, 6));
            assert_eq!((plain.initializer_range, plain.tie_word_embeddings), (0.02, false));
            assert_eq!(config(&nulls), plain);
        }
    }

    #[test]
    fn unsupported_models_are_reported() {
        for (rest, part) in [
            (r#""rope_theta": 1e4, "rope_scaling": {"rope_type": "yarn"}"#, "rope type `yarn`"),
            (r#""rope_theta": 1e4, "num_hidden_layers": 0"#, "the key `num_hidden_layers` is there twice"),
            (r#""rope_theta": 1e4, "hidden_act": "gelu""#, "hidden_act `gelu`"),
            (r#""rope_theta": 1e4, "head_dim": 7"#, "head_dim = 7 is odd"),
            (r#""rope_theta": "1e4""#, "`rope_theta`: invalid type: string \"1e4\", expected a number"),
            (r#""head_dim": "8""#, "`head_dim`: invalid type: string \"8\", expected an integer"),
            (r#""head_dim": NaN"#, "expected value at line 3 column"),
            (r#""rope_theta": 0"#, "rope_theta = 0: expected a number above 0"),
            (r#""quantization_config": {"load_in_4bit": true}"#, "quantization_config: weights that"),
            (r#""rope_scaling": 8.0"#, "`rope_scaling`: invalid type: floating point `8.0`, expected a map"),
            (
                r#""rope_parameters": {"rope_type": "default"}, "rope_scaling": {"type": "linear", "factor": 2.0}"#,
                "rope type `linear`",
            ),
            (
                r#""rope_parameters": {"rope_theta": 5e5}, "rope_scaling": {"rope_type": "default"}"#,
                "`rope_parameters` and `rope_scaling` disagree",
            ),
        ] {
            let message = format!("{:#}", parse(rest).unwrap_err());
            assert!(message.contains(part), "{message}");
        }
        for (text, part) in [
            (r#"{"architectures": ["GPT2LMHeadModel"], "n_embd": 8}"#, "architecture `GPT2LMHeadModel` is not"),
            (r#"{"model_type": "gpt2", "n_embd": 8}"#, "model_type `gpt2` is not supported"),
            (r#"{"architectures": []}"#, "neither `architectures` nor `model_type`"),
            ("[]", "expected a JSON object"),
            ("", "EOF while parsing"),
        ] {
            let error = ModelConfig::from_json(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    /// A file that was not fetched, or not written completely, is named with its path.
    #[test]
    fn the_files_of_a_folder_are_named_in_messages() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).unwrap();
        let error = || format!("{:#}", ModelConfig::from_dir(dir).unwrap_err());
        let good = format!("{LLAMA}}}");
        assert!(error().contains("there is no config.json"));
        write(ADAPTER, "{}");
        assert!(error().contains("is an adapter, not a whole model: merge it into its model first"));
        for name in ["config.json", "generation_config.json"] {
            for (text, part) in [
                ("version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
                ("{", "EOF while parsing"),
                ("[]", "expected a JSON object"),
            ] {
                write(name, text);
                assert!(error().contains(name) && error().contains(part), "{}", error());
            }
            std::fs::remove_file(dir.join(name)).unwrap();
            std::os::unix::fs::symlink("blob", dir.join(name)).unwrap();
            assert!(error().contains(&format!("{name} is a link to blob, which is not there")), "{}", error());
            std::fs::remove_file(dir.join(name)).unwrap();
            write(name, &good);
        }
        assert_eq!(ModelConfig::from_dir(dir).unwrap().generation_eos_token_ids, [1, 2]);
        write("config.json", &format!("{LLAMA}, \"head_dim\": 7}}"));
        assert!(error().contains("config.json: head_dim = 7 is odd"), "{}", error());
    }

    /// transformers picks the class by `model_type` where `architectures` is left out.
    #[test]
    fn the_family_is_the_architecture_or_the_model_type() {
        let keys = LLAMA.strip_prefix(r#"{"architectures": ["LlamaForCausalLM"]"#).unwrap();
        let named = parse(r#""rope_theta": 1e4"#).unwrap();
        for start in [r#""model_type": "llama""#, r#""architectures": null, "model_type": "llama""#] {
            let text = format!(r#"{{{start}{keys}, "rope_theta": 1e4}}"#);
            assert_eq!(ModelConfig::from_json(&text).unwrap(), named);
        }
    }

    #[test]
    fn end_tokens_are_an_id_or_a_list() {
        let without = LLAMA.strip_suffix(r#", "eos_token_id": [1, 2]"#).unwrap();
        let ends = |value: &str| ModelConfig::from_json(&format!(r#"{without}, "eos_token_id": {value}}}"#));
        for (value, expected) in [("7", vec![7]), ("[1, 2]", vec![1, 2]), ("null", vec![])] {
            assert_eq!(ends(value).unwrap().eos_token_ids, expected);
        }
        for value in ["\"2\"", "{}", "[\"2\"]", "2.5"] {
            let error = ends(value).unwrap_err().to_string();
            assert!(error.contains("`eos_token_id") && error.contains("expected an"), "{error}");
        }
    }
}
