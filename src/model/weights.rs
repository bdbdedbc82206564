//! The weights of one model: named views into one flat buffer, in the order of the checkpoint's layers.
//!
//! One buffer makes the optimizer one kernel, the gradient norm one reduction, and later the exchange between processes
//! one message. Every tensor starts at a multiple of 64 elements; the gaps are zero, have zero gradient, and stay zero.

use super::config::ModelConfig;
use crate::torch::{self, Generator};
use anyhow::{Context, Result, ensure};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

const ALIGN: i64 = 64;

/// What sits on top of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// `lm_head` to the vocabulary, or the tied embedding.
    Language,
    /// `score`, a linear map with bias to one number: the critic.
    Value,
    /// `score` alone: it reads a decoder whose weights are another model's.
    ValueOnly,
}

/// Named tensors over one flat buffer.
pub struct Weights {
    entries: Vec<(String, Tensor)>,
    /// All weights, [P] in the compute kind.
    flat: Tensor,
}

impl Weights {
    /// Zero weights for `config`, in its checkpoint's names.
    pub fn zeros(config: &ModelConfig, head: Head, kind: Kind, device: Device) -> Self {
        let shapes = shapes(config, head);
        let aligned = |shape: &[i64]| (shape.iter().product::<i64>() + ALIGN - 1) / ALIGN * ALIGN;
        let total = shapes.iter().map(|(_, shape)| aligned(shape)).sum::<i64>();
        let flat = Tensor::zeros([total], (kind, device));
        let mut at = 0;
        let entries = shapes
            .into_iter()
            .map(|(name, shape)| {
                let view = view(&flat, at, &shape);
                at += aligned(&shape);
                (name, view)
            })
            .collect();
        Self { entries, flat }
    }

    /// Random weights as transformers draws them: normal with `initializer_range`, norms one, biases and the value head
    /// zero (a critic that starts at zero adds no noise to the first advantages).
    pub fn random(config: &ModelConfig, head: Head, kind: Kind, device: Device, seed: u64) -> Result<Self> {
        let mut weights = Self::zeros(config, head, kind, device);
        let mut generator = Generator::seeded(seed)?;
        tch::no_grad(|| {
            for (name, tensor) in &mut weights.entries {
                if name.contains("norm") {
                    let _ = tensor.fill_(1.0);
                } else if !name.ends_with(".bias") && !name.starts_with("score.") {
                    let mut drawn = Tensor::empty(tensor.size(), (Kind::Float, Device::Cpu));
                    generator.normal(&mut drawn, config.initializer_range)?;
                    tensor.copy_(&drawn);
                }
            }
            Ok(weights)
        })
    }

    /// The weights of a Hugging Face folder; see `fill`.
    pub fn load(dir: &Path, config: &ModelConfig, head: Head, kind: Kind, device: Device) -> Result<Self> {
        let weights = Self::zeros(config, head, kind, device);
        weights.fill(dir, config)?;
        Ok(weights)
    }

    /// Reads a Hugging Face folder into these weights, one tensor at a time from the mapped files, whatever their
    /// precision.
    ///
    /// # Errors
    /// One message with every tensor that is missing, surplus, or of another shape or an unusable type.
    pub fn fill(&self, dir: &Path, config: &ModelConfig) -> Result<()> {
        let mut missing: Vec<&str> = self.entries.iter().map(|(name, _)| name.as_str()).collect();
        let mut wrong = Vec::new();
        for path in shard_files(dir)? {
            let map = torch::map(&path)?;
            let tensors = SafeTensors::deserialize(&map).with_context(|| format!("{} is damaged", path.display()))?;
            for (name, data) in tensors.iter() {
                let Some((_, target)) = self.entries.iter().find(|(n, _)| n == name) else {
                    // Some folders hold the tied head once more.
                    if !(config.tie_word_embeddings && name == "lm_head.weight") {
                        wrong.push(format!("{name}: not a tensor of this architecture"));
                    }
                    continue;
                };
                missing.retain(|m| *m != name);
                let shape: Vec<i64> = data.shape().iter().map(|&d| d as i64).collect();
                if shape != target.size() {
                    wrong.push(format!("{name}: shape {shape:?}, expected {:?}", target.size()));
                    continue;
                }
                match torch::kind_of(data.dtype()).filter(|k| *k != Kind::Int64) {
                    None => wrong.push(format!("{name}: type {:?}, expected F32, BF16 or F16", data.dtype())),
                    Some(kind) => {
                        let stored = Tensor::from_data_size(data.data(), &shape, kind);
                        tch::no_grad(|| target.shallow_clone().copy_(&stored));
                    }
                }
            }
        }
        wrong.extend(missing.into_iter().map(|name| format!("{name}: missing")));
        ensure!(
            wrong.is_empty(),
            "the weights in {} do not fit its config.json:\n  {}",
            dir.display(),
            wrong.join("\n  ")
        );
        Ok(())
    }

    /// The same weights in buffers of their own, frozen, on `device`.
    pub fn duplicate(&self, config: &ModelConfig, head: Head, device: Device) -> Self {
        let mut copy = Self::zeros(config, head, self.flat.kind(), device);
        tch::no_grad(|| copy.flat.copy_(&self.flat));
        copy
    }

    /// Takes over the tensors that another model has under the same names.
    pub fn take(&self, other: &Weights) {
        tch::no_grad(|| {
            for (name, target) in &self.entries {
                if let Some((_, source)) = other.entries.iter().find(|(n, _)| n == name) {
                    target.shallow_clone().copy_(&source.detach());
                }
            }
        });
    }

    /// Makes every weight a leaf that gets a gradient.
    pub fn train(&mut self) {
        for (_, tensor) in &mut self.entries {
            *tensor = tensor.detach().set_requires_grad(true);
        }
    }

    /// Zero gradients in one flat buffer, [P] in the compute kind, which backward passes add to until
    /// `close_gradient`.
    pub fn open_gradient(&self) -> Result<Tensor> {
        let flat = self.flat.zeros_like();
        let base = self.flat.data_ptr() as usize;
        let width = self.flat.kind().elt_size_in_bytes();
        for (_, tensor) in &self.entries {
            let at = ((tensor.data_ptr() as usize - base) / width) as i64;
            torch::set_grad(&mut tensor.shallow_clone(), &mut view(&flat, at, &tensor.size()))?;
        }
        Ok(flat)
    }

    /// Leaves the weights without gradients; the buffer goes with whoever holds it.
    pub fn close_gradient(&self) -> Result<()> {
        self.entries.iter().try_for_each(|(_, tensor)| torch::set_grad(&mut tensor.shallow_clone(), &mut Tensor::new()))
    }

    /// These same weights, held once more.
    pub fn share(&self) -> Self {
        let entries = self.entries.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        Self { entries, flat: self.flat.shallow_clone() }
    }

    /// The tensor of a name.
    ///
    /// # Panics
    /// On a name the architecture does not have: a mistake of ours.
    pub fn get(&self, name: &str) -> Tensor {
        let (_, tensor) = self.entries.iter().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no weight {name}"));
        tensor.shallow_clone()
    }

    /// Names and tensors in the checkpoint's order.
    pub fn entries(&self) -> &[(String, Tensor)] {
        &self.entries
    }

    /// All weights, [P].
    pub fn flat(&self) -> &Tensor {
        &self.flat
    }
}

fn view(flat: &Tensor, at: i64, shape: &[i64]) -> Tensor {
    flat.detach().narrow(0, at, shape.iter().product::<i64>()).view(shape).detach()
}

/// The safetensors files of a folder: one, or the shards that its index names.
fn shard_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let index = dir.join("model.safetensors.index.json");
    if !index.exists() {
        return Ok(vec![dir.join("model.safetensors")]);
    }
    let text = std::fs::read_to_string(&index)?;
    let json: serde_json::Value = serde_json::from_str(&text).with_context(|| format!("in {}", index.display()))?;
    let map = json["weight_map"].as_object().with_context(|| format!("{} has no weight_map", index.display()))?;
    let mut names: Vec<&str> = map.values().filter_map(|v| v.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    for name in &names {
        ensure!(
            Path::new(name).file_name().is_some_and(|n| n == *name),
            "{} names a shard outside its folder: {name}",
            index.display()
        );
    }
    Ok(names.into_iter().map(|name| dir.join(name)).collect())
}

/// Names and shapes of all weights, in the checkpoint's order.
fn shapes(c: &ModelConfig, head: Head) -> Vec<(String, Vec<i64>)> {
    let (h, q, kv) = (c.hidden_size, c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
    let score = [("score.weight".to_string(), vec![1, h]), ("score.bias".to_string(), vec![1])];
    if head == Head::ValueOnly {
        return score.into();
    }
    let mut all = vec![("model.embed_tokens.weight".to_string(), vec![c.vocab_size, h])];
    for i in 0..c.num_hidden_layers {
        let mut layer = |name: &str, shape: &[i64]| all.push((format!("model.layers.{i}.{name}"), shape.to_vec()));
        layer("input_layernorm.weight", &[h]);
        for (name, width) in [("q_proj", q), ("k_proj", kv), ("v_proj", kv)] {
            layer(&format!("self_attn.{name}.weight"), &[width, h]);
            if c.attention_bias {
                layer(&format!("self_attn.{name}.bias"), &[width]);
            }
        }
        if c.head_norms() {
            layer("self_attn.q_norm.weight", &[c.head_dim]);
            layer("self_attn.k_norm.weight", &[c.head_dim]);
        }
        layer("self_attn.o_proj.weight", &[h, q]);
        layer("post_attention_layernorm.weight", &[h]);
        layer("mlp.gate_proj.weight", &[c.intermediate_size, h]);
        layer("mlp.up_proj.weight", &[c.intermediate_size, h]);
        layer("mlp.down_proj.weight", &[h, c.intermediate_size]);
    }
    all.push(("model.norm.weight".to_string(), vec![h]));
    match head {
        Head::Language if c.tie_word_embeddings => {}
        Head::Language => all.push(("lm_head.weight".to_string(), vec![c.vocab_size, h])),
        Head::Value | Head::ValueOnly => all.extend(score),
    }
    all
}
