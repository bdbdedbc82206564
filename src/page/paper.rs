//! What in a recipe differs from the paper's experiment (arXiv:2601.10825, supplementary tables 6 and 8), which are the
//! defaults of the keys.

use crate::model::{Family, ModelConfig};
use crate::recipe::identity::{Difference, differences as between};
use crate::recipe::{Recipe, SftData, Task};
use crate::terminal::figure;

/// Sections and keys that say where and how a run is done and shown, not what it is, and names of files and folders.
const NO_MATTER: [&str; 14] = [
    "name",
    "seed",
    "model.path",
    "model.tokenizer",
    "sft.data",
    "sft.seed",
    "sft.from",
    "sft.micro_batch_tokens",
    "ppo.micro_batch_tokens",
    "checkpoints",
    "hooks",
    "logging",
    "machine",
    "memory",
];

/// The paper's models: hidden size, intermediate size, layers, query heads, key-value heads.
const MODELS: [(Family, [i64; 5]); 2] =
    [(Family::Qwen2, [2048, 11_008, 36, 16, 2]), (Family::Llama, [3072, 8192, 28, 24, 8])];
const NAMES: &str = "Qwen2.5-3B or Llama-3.2-3B";

/// The keys in which a recipe departs from the paper's values, in alphabetical order. `config`: of its model, which is
/// known by its size wherever its folder is.
pub fn differences(recipe: &Recipe, config: Option<&ModelConfig>) -> Vec<Difference> {
    let Some(paper) = paper(recipe) else { return vec![] };
    let mut all = between(&paper, recipe);
    all.retain(|difference| !difference.is_in(&NO_MATTER));
    all.extend(model(recipe, config));
    all.extend(rows(recipe));
    all.sort_by(|a, b| a.key.cmp(&b.key));
    all
}

/// Another model than the paper's, or one of which nothing is known.
fn model(recipe: &Recipe, config: Option<&ModelConfig>) -> Option<Difference> {
    let about = match config {
        Some(config) if is_of_paper(config) => return None,
        Some(config) => format!(
            "{} million parameters, {} layers of {}",
            figure(config.parameters() as f64 / 1e6),
            config.num_hidden_layers,
            config.hidden_size
        ),
        None => "its size is not known, for its config.json is not there".into(),
    };
    let now = Some(format!("{}: {about}", recipe.model.path.display()));
    Some(Difference { key: "model.path".into(), before: Some(NAMES.into()), now })
}

fn is_of_paper(config: &ModelConfig) -> bool {
    let shape = [
        config.hidden_size,
        config.intermediate_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.num_key_value_heads,
    ];
    MODELS.iter().any(|(family, known)| *family == config.family && *known == shape)
}

/// Rows of a warm start that nobody wrote: the paper's are a model's. Which file they are in does not matter.
fn rows(recipe: &Recipe) -> Option<Difference> {
    let solver = matches!(recipe.sft.as_ref()?.data, Some(SftData::Solver(_)));
    let before = Some("\"file\": rows that Qwen2.5-32B-Instruct wrote".into());
    solver.then(|| Difference { key: "sft.data.kind".into(), before, now: Some("\"solver\"".into()) })
}

/// The recipe with the default of every key that has one. Whether there is a warm start decides the arm.
fn paper(recipe: &Recipe) -> Option<Recipe> {
    let mut paper: Recipe =
        toml::from_str("name = \"paper\"\n[model]\npath = \"\"\n[task]\nkind = \"countdown\"\n[ppo]\n[sft]\n").ok()?;
    paper.sft = paper.sft.filter(|_| recipe.sft.is_some());
    paper.ppo = paper.ppo.filter(|_| recipe.ppo.is_some());
    // Another task has nothing to be compared with.
    if !matches!(recipe.task, Task::Countdown(_)) {
        paper.task = recipe.task.clone();
    }
    Some(paper)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe;
    use std::path::Path;

    fn keys(name: &str, config: Option<&ModelConfig>) -> Vec<String> {
        let recipe = recipe::stored(&Path::new("recipes").join(name)).unwrap();
        differences(&recipe, config).into_iter().map(|difference| difference.key).collect()
    }

    #[test]
    fn departures_from_the_paper_are_named() {
        let quickstart = keys("quickstart.toml", None);
        for key in ["ppo.actor_lr", "task.max_number", "rollout.max_response_tokens", "sft.lr", "sft.data.kind"] {
            assert!(quickstart.iter().any(|known| known == key), "{key}: {quickstart:?}");
        }
        assert!(!quickstart.iter().any(|key| key.starts_with("machine") || key == "reward.accuracy"), "{quickstart:?}");
        assert!(quickstart.is_sorted(), "{quickstart:?}");
        let baseline = keys("baseline.toml", None);
        assert!(baseline.len() < 9 && !baseline.contains(&"sft.data.kind".to_string()), "{baseline:?}");
    }

    #[test]
    fn models_are_known_by_their_size() {
        let config = |text: &str| ModelConfig::from_json(text).unwrap();
        let qwen = std::fs::read_to_string("scripts/shapes/qwen2.5-3b.json").unwrap();
        let llama = r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 128256, "hidden_size": 3072,
            "intermediate_size": 8192, "num_hidden_layers": 28, "num_attention_heads": 24, "num_key_value_heads": 8,
            "head_dim": 128, "rms_norm_eps": 1e-5, "max_position_embeddings": 128, "eos_token_id": 1}"#;
        let of = |config: Option<&ModelConfig>| {
            let recipe = recipe::stored(Path::new("recipes/quickstart.toml")).unwrap();
            let all = differences(&recipe, config).into_iter();
            all.filter(|difference| difference.key == "model.path").collect::<Vec<_>>()
        };
        assert_eq!([qwen.as_str(), llama].map(|text| of(Some(&config(text))).len()), [0, 0]);
        // The first is smaller, the second's layers are the paper's in another number.
        for (text, said) in [
            (llama.replace("3072", "1536"), "28 layers of 1536"),
            (qwen.replace("\"num_hidden_layers\": 36", "\"num_hidden_layers\": 24"), "24 layers of 2048"),
        ] {
            let found = of(Some(&config(&text)));
            assert_eq!(found[0].before.as_deref(), Some(NAMES));
            let now = found[0].now.as_deref().unwrap();
            assert!(now.contains(said) && now.contains("million parameters"), "{now}");
        }
        assert!(of(None)[0].now.as_deref().unwrap().contains("its size is not known"));
    }
}
