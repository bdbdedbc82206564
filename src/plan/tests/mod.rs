//! A model folder and recipes to test plans with; a file for messages, one for figures.

mod figures;
mod messages;

use super::*;
use crate::recipe::*;
use std::fs;
use tempfile::TempDir;

/// A valid recipe. Its model folder is `{model}`.
const GOOD: &str = r#"name = "trial"
seed = 3

[model]
path = "{model}"
random_weights = true

[task]
kind = "countdown"
train = 1000
validation = 100

[sft]
data.kind = "solver"
train = 200
batch = 20
context = 64

[ppo]
steps = 10
mini_batch = 32
kl_coef = 0.001

[rollout]
prompts_per_step = 16
samples_per_prompt = 4
max_prompt_tokens = 24
max_response_tokens = 40

[evaluation]
problems = 50
"#;

const CONFIG: &str = r#"{"architectures": ["Qwen2ForCausalLM"], "vocab_size": 512, "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 128, "tie_word_embeddings": true}"#;

/// A folder with a model and recipes.
pub(super) struct Bench(pub TempDir);

impl Bench {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        fs::create_dir(dir.path().join("tiny-model")).unwrap();
        fs::write(dir.path().join("tiny-model/config.json"), CONFIG).unwrap();
        fs::write(dir.path().join("tiny-model/tokenizer.json"), "{}").unwrap();
        Self(dir)
    }

    pub fn good(&self) -> String {
        GOOD.replace("{model}", &self.path("tiny-model"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    pub fn load(&self, text: impl AsRef<[u8]>, sets: &[&str]) -> Result<Plan, String> {
        let file = self.0.path().join("r.toml");
        fs::write(&file, text).unwrap();
        let sets: Vec<String> = sets.iter().map(ToString::to_string).collect();
        load(&file, &sets, None).map_err(|e| {
            assert!(e.is::<crate::BadInput>());
            e.to_string()
        })
    }

    fn fails(&self, text: impl AsRef<[u8]>, sets: &[&str]) -> String {
        self.load(text, sets).err().unwrap()
    }
}
