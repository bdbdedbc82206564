//! Exports of whole runs, loaded by transformers as they are: every tensor in its place, the precision that config.json
//! declares, and for the same tokens the same outputs as the checkpoint.

use crate::support::{assert_close, golden};
use ppo_train::checkpoint;
use ppo_train::model::{Critic, Head, ModelConfig, Policy, Tokens, ValueHead, Weights};
use ppo_train::text::Tokenizer;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use tch::{Device, Kind, Tensor};

/// The repository, which holds recipes and scripts.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Sequences that the models are run on, and tokens in each.
const ASKED: [i64; 2] = [2, 80];
const TEXT: &str = "Numbers: 3 5 7\nTarget: 22\n";

/// What a program prints; it must succeed.
fn output<'a>(program: &str, args: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let output = Command::new(program).args(args).current_dir(ROOT).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn ppo_train<'a>(args: impl IntoIterator<Item = &'a str>) {
    output(env!("CARGO_BIN_EXE_ppo-train"), args);
}

fn shown(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A short run into `out`, from random weights, and its last checkpoint.
fn train(out: &Path, sets: &[&str]) -> PathBuf {
    // The only reward of these rollouts is the KL, so it takes large steps to move the value head away from zero.
    let short = ["ppo.steps=3", "ppo.kl_coef=1.0", "ppo.actor_lr=1e-3", "ppo.critic_lr=1e-2", "sft.train=16"];
    let quiet = ["evaluation.every=0", "evaluation.problems=1", "evaluation.decoding=['greedy']"];
    let sets = short.iter().chain(&quiet).chain(sets).flat_map(|set| ["--set", set]);
    ppo_train(["recipes/smoke.toml", "--out", shown(out)].into_iter().chain(sets));
    checkpoint::RunFolder::new(out).latest().unwrap().unwrap().path().to_path_buf()
}

/// A folder with the shape of a golden model, but the vocabulary of checkpoints/countdown-base.
fn tiny(name: &str, dir: &Path) -> PathBuf {
    let folder = dir.join(name);
    let text = std::fs::read_to_string(golden(name).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (name, value) in [("vocab_size", json!(544)), ("eos_token_id", json!(543)), ("bos_token_id", Value::Null)] {
        config[name] = value;
    }
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    folder
}

/// The actor's logits [B, T, V] and the critic's values [B, T, 1] for `ids` [B, T], by the checkpoint's own weights.
fn answers(checkpoint: &Path, ids: &Tensor, shared: bool) -> [Tensor; 2] {
    let [model, critic] = ["model", "critic"].map(|name| checkpoint.join(name));
    let config = ModelConfig::from_dir(&model).unwrap();
    let load = |dir: &Path, head| Weights::load(dir, &config, head, Kind::Float, Device::Cpu).unwrap();
    let [rows, width] = ASKED;
    let policy = Policy::new(&config, load(&model, Head::Language));
    let hidden = policy.decoder.forward(ids);
    let values = if shared {
        ValueHead::trainable(load(&critic, Head::ValueOnly)).values(&hidden.flatten(0, 1))
    } else {
        let all = Tensor::arange(rows * width, (Kind::Int64, Device::Cpu));
        Critic::trainable(&config, load(&critic, Head::Value)).values(&Tokens::padded(ids.shallow_clone(), all))
    };
    [policy.logits(&hidden), values.view([rows, width, 1])]
}

fn tensor(nested: &Value, shape: &[i64]) -> Tensor {
    fn gather(value: &Value, numbers: &mut Vec<f64>) {
        match value.as_array() {
            Some(values) => values.iter().for_each(|value| gather(value, numbers)),
            None => numbers.push(value.as_f64().unwrap()),
        }
    }
    let mut numbers = vec![];
    gather(nested, &mut numbers);
    Tensor::from_slice(&numbers).view(shape).to_kind(Kind::Float)
}

#[test]
fn transformers_agrees_with_the_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let [llama, qwen2] =
        ["llama_tiny", "qwen2_tiny"].map(|name| format!("model.path='{}'", shown(&tiny(name, dir.path()))));
    let tokenizer = "model.tokenizer='checkpoints/countdown-base'";
    let ids: Vec<Vec<i64>> = (0..ASKED[0]).map(|b| (0..ASKED[1]).map(|t| (t * 37 + b * 91) % 544).collect()).collect();

    let runs = [
        ("quickstart", "Llama", "float32", &[][..]),
        ("llama", "Llama", "float32", &[llama.as_str(), tokenizer]),
        ("qwen2", "Qwen2", "float32", &[qwen2.as_str(), tokenizer]),
        ("shared", "Llama", "float32", &["ppo.critic='shared'"]),
        ("bfloat16", "Llama", "bfloat16", &["machine.precision='bfloat16'"]),
    ];
    let checkpoints = runs.map(|(name, _, _, sets)| train(&dir.path().join(name), sets));
    let mut folders = vec![];
    for ((name, ..), checkpoint) in runs.iter().zip(&checkpoints) {
        let [actor, critic] = ["actor", "critic"].map(|what| dir.path().join(format!("{name}-{what}")));
        ppo_train(["export", shown(checkpoint), shown(&actor)]);
        ppo_train(["export", shown(checkpoint), shown(&critic), "--critic"]);
        folders.extend([actor, critic]);
    }
    let questions = json!({"ids": ids, "text": TEXT}).to_string();
    let reader = ["tests/it/read_export.py", &questions];
    let found = output("scripts/transformers", reader.into_iter().chain(folders.iter().map(|folder| shown(folder))));
    let found: Vec<Value> = serde_json::from_slice(&found).unwrap();
    assert_eq!(found.len(), folders.len());

    let ids = Tensor::from_slice2(&ids);
    for (((name, family, precision, _), checkpoint), found) in runs.iter().zip(&checkpoints).zip(found.chunks(2)) {
        let expected = answers(checkpoint, &ids, *name == "shared");
        let spread = expected[1].std(false).double_value(&[]);
        assert!(spread > 1e-3, "{name}: the critic has learnt nothing that could be compared: {spread:.1e}");
        for ((what, found), expected) in ["CausalLM", "TokenClassification"].into_iter().zip(found).zip(&expected) {
            let class = format!("{family}For{what}");
            assert_eq!(found["trouble"], json!({}), "{name} {what}");
            assert_eq!(found["class"], json!([class, class]), "{name} {what}");
            let dtypes = json!({"config": precision, "files": [precision], "model": precision});
            assert_eq!(found["dtypes"], dtypes, "{name} {what}");
            // Both compute in float32, whatever precision the weights were trained and stored in.
            let logits = tensor(&found["logits"], &expected.size());
            assert_close(&format!("{name} {what}"), &logits, expected, 1e-5);
        }
        let tokenizer = Tokenizer::from_dir(&checkpoint.join("model")).unwrap();
        // For a model of type qwen2, transformers 5 splits text as Qwen's tokenizer does, whatever tokenizer.json says;
        // no model that this repository makes is of that type.
        if *family != "Qwen2" {
            assert_eq!(found[0]["text"], json!(tokenizer.encode_prompt(TEXT).unwrap()), "{name}");
        }
        assert_eq!(json!([found[0]["eos"]]), json!(tokenizer.eos()), "{name}");
    }
}
