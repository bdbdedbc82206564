//! The weights of one model: named tensors over one flat buffer, in the order of the checkpoint's layers.
//!
//! One buffer makes the optimizer one kernel, the gradient norm one reduction, and later the exchange between processes
//! one message. Every tensor starts at a multiple of 64 elements; the gaps are zero, have zero gradient, and stay zero.
//!
//! The model, its optimizer and the code that restores a checkpoint share these tensors (`Tensor::shallow_clone`). The
//! methods that overwrite them in place therefore take `&self`; each says so.

use super::config::ModelConfig;
use super::stored::{EMBEDDING, HEAD, Stored};
use crate::terminal;
use crate::torch::{self, Generator, to_host};
use anyhow::{Result, bail, ensure};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use tch::{Device, Kind, Tensor};

const ALIGN: i64 = 64;

/// What sits on top of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// `lm_head` to the vocabulary, or the tied embedding.
    Language,
    /// `score`, a linear map with bias to one number: the critic.
    Value,
    /// Only `score`: it reads the decoder of another model.
    ValueOnly,
}

/// Named tensors over one flat buffer.
pub struct Weights {
    /// In the checkpoint's order.
    entries: Vec<(String, Tensor)>,
    /// The place of each name in `entries`.
    index: BTreeMap<String, usize>,
    /// All weights, [P] in the compute kind.
    flat: Tensor,
}

impl Weights {
    /// Zero weights for `config`, named as in its checkpoint.
    pub fn zeros(config: &ModelConfig, head: Head, kind: Kind, device: Device) -> Self {
        let shapes = shapes(config, head);
        let total = shapes.iter().map(|(_, shape)| aligned(shape)).sum::<i64>();
        Self::over(Tensor::zeros([total], (kind, device)), shapes)
    }

    /// Tensors of these names and shapes over `flat`.
    fn over(flat: Tensor, shapes: Vec<(String, Vec<i64>)>) -> Self {
        let (names, shapes): (Vec<String>, Vec<Vec<i64>>) = shapes.into_iter().unzip();
        let index = names.iter().cloned().zip(0..).collect();
        let entries = names.into_iter().zip(views(&flat, shapes)).collect();
        Self { entries, index, flat }
    }

    /// Random weights as transformers draws them: normal with `initializer_range`, norms one, biases and the value head
    /// zero (a critic that starts at zero adds no noise to the first advantages).
    ///
    /// Not from `rng`'s derived streams: libtorch draws them, one tensor after another, from a separate generator. They
    /// depend only on the shapes and `seed`, not on `kind` or `device` beyond rounding.
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

    /// Overwrites these weights in place with those of a Hugging Face folder, one tensor at a time from the mapped
    /// files, converted from whatever precision they have.
    ///
    /// # Errors
    /// Those of `Stored::find`; a tied head that is not the embedding; weights that are not finite. Surplus tensors are
    /// ignored with a note, as transformers does.
    pub fn fill(&self, dir: &Path, config: &ModelConfig) -> Result<()> {
        let wanted = self.entries.iter().map(|(name, tensor)| (name.clone(), tensor.size()));
        let stored = Stored::find(dir, wanted, config.tie_word_embeddings)?;
        stored.notes.iter().for_each(|note| terminal::warn(note));
        stored.read(|place, tensor| {
            tch::no_grad(|| self.entries[place].1.shallow_clone().copy_(tensor));
            Ok(())
        })?;
        // A sum needs no second buffer, and one value that is not finite makes it so.
        let sums: Vec<Tensor> = self.entries.iter().map(|(_, tensor)| tensor.detach().sum(Kind::Float)).collect();
        let sums = to_host(&Tensor::stack(&sums, 0));
        if let Some(((name, _), _)) = self.entries.iter().zip(sums).find(|(_, sum)| !sum.is_finite()) {
            let precision = if self.flat.kind() == Kind::Float { "float32" } else { "bfloat16" };
            bail!("{name} in {} has values that are not finite (as {precision})", dir.display());
        }
        self.find(EMBEDDING).map_or(Ok(()), |embedding| stored.read_tied_head(|head| same_head(head, &embedding, dir)))
    }

    /// Whether the weights of a Hugging Face folder have the names, shapes and types that `fill` needs, and what it
    /// would ignore; only the heads of its files are read.
    ///
    /// # Errors
    /// Those of `Stored::find`.
    pub fn check(dir: &Path, config: &ModelConfig, head: Head) -> Result<Vec<String>> {
        Ok(Stored::find(dir, shapes(config, head), config.tie_word_embeddings)?.notes)
    }

    /// Overwrites in place every tensor that `other` has too, by name.
    pub fn copy_from(&self, other: &Weights) {
        tch::no_grad(|| {
            for (name, target) in &self.entries {
                if let Some(source) = other.find(name) {
                    target.shallow_clone().copy_(&source);
                }
            }
        });
    }

    /// A frozen copy in a new buffer on `device`, even if these weights are already on that device.
    pub fn copy_to(&self, device: Device) -> Self {
        let flat = self.flat.to_device_(device, self.flat.kind(), false, true);
        Self::over(flat, self.entries.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect())
    }

    /// The same tensors under another owner.
    pub fn shallow_clone(&self) -> Self {
        let entries = self.entries.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone())).collect();
        Self { entries, index: self.index.clone(), flat: self.flat.shallow_clone() }
    }

    /// Makes every weight a leaf that gets a gradient. What `get` and `shallow_clone` returned before stays frozen.
    pub fn require_grad(&mut self) {
        for (_, tensor) in &mut self.entries {
            *tensor = tensor.detach().set_requires_grad(true);
        }
    }

    /// Gives every weight a zero gradient in one flat buffer, [P] in the compute kind, to which backward passes add
    /// until `close_gradient`.
    pub fn open_gradient(&self) -> Result<Tensor> {
        let flat = self.flat.zeros_like();
        let gradients = views(&flat, self.entries.iter().map(|(_, tensor)| tensor.size()));
        for ((_, tensor), mut gradient) in self.entries.iter().zip(gradients) {
            torch::set_grad(&mut tensor.shallow_clone(), &mut gradient)?;
        }
        Ok(flat)
    }

    /// Leaves the weights without gradients; the buffer is freed with its last owner.
    pub fn close_gradient(&self) -> Result<()> {
        self.entries.iter().try_for_each(|(_, tensor)| torch::set_grad(&mut tensor.shallow_clone(), &mut Tensor::new()))
    }

    /// The part of the names that starts with `prefix` and a dot.
    pub fn pp(&self, prefix: &str) -> Scope<'_> {
        Scope { weights: self, prefix: prefix.to_string() }
    }

    fn find(&self, name: &str) -> Option<Tensor> {
        self.index.get(name).map(|&place| self.entries[place].1.shallow_clone())
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

/// A head that is stored, although it is tied, must be the embedding.
fn same_head(head: &Tensor, embedding: &Tensor, dir: &Path) -> Result<()> {
    ensure!(
        head.to_device(embedding.device()).to_kind(embedding.kind()) == *embedding,
        "{} says tie_word_embeddings = true, but {HEAD} is not {EMBEDDING}: transformers would use that head; set it \
         to false to do the same",
        dir.join("config.json").display()
    );
    Ok(())
}

/// A place in a checkpoint, such as `model.layers.0.self_attn`.
pub struct Scope<'a> {
    weights: &'a Weights,
    prefix: String,
}

impl Scope<'_> {
    /// One place further down (`pp` as in candle's `VarBuilder`: push a prefix).
    pub fn pp(&self, name: impl Display) -> Self {
        Self { weights: self.weights, prefix: format!("{}.{name}", self.prefix) }
    }

    /// The tensor of this name here, if the architecture has one.
    pub fn find(&self, name: &str) -> Option<Tensor> {
        self.weights.find(&format!("{}.{name}", self.prefix))
    }

    /// The tensor of this name here.
    ///
    /// # Panics
    /// If the architecture has none: a bug of ours.
    pub fn get(&self, name: &str) -> Tensor {
        self.find(name).unwrap_or_else(|| panic!("no weight {}.{name}", self.prefix))
    }
}

/// Elements that a tensor takes up in a flat buffer.
fn aligned(shape: &[i64]) -> i64 {
    (shape.iter().product::<i64>() + ALIGN - 1) / ALIGN * ALIGN
}

/// Tensors of these shapes over `flat`, one after another.
fn views(flat: &Tensor, shapes: impl IntoIterator<Item = Vec<i64>>) -> Vec<Tensor> {
    let flat = flat.detach();
    let mut start = 0;
    let view = |shape: Vec<i64>| {
        // Detached, so that autograd treats each as a separate tensor.
        let view = flat.narrow(0, start, shape.iter().product()).view(shape.as_slice()).detach();
        start += aligned(&shape);
        view
    };
    shapes.into_iter().map(view).collect()
}

/// Names and shapes of all weights, in the checkpoint's order.
fn shapes(c: &ModelConfig, head: Head) -> Vec<(String, Vec<i64>)> {
    let (h, q, kv) = (c.hidden_size, c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim);
    let score = [("score.weight".to_string(), vec![1, h]), ("score.bias".to_string(), vec![1])];
    if head == Head::ValueOnly {
        return score.into();
    }
    let mut all = vec![(EMBEDDING.to_string(), vec![c.vocab_size, h])];
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
        if c.output_bias() {
            layer("self_attn.o_proj.bias", &[h]);
        }
        layer("post_attention_layernorm.weight", &[h]);
        layer("mlp.gate_proj.weight", &[c.intermediate_size, h]);
        layer("mlp.up_proj.weight", &[c.intermediate_size, h]);
        layer("mlp.down_proj.weight", &[h, c.intermediate_size]);
    }
    all.push(("model.norm.weight".to_string(), vec![h]));
    match head {
        Head::Language if c.tie_word_embeddings => {}
        Head::Language => all.push((HEAD.to_string(), vec![c.vocab_size, h])),
        Head::Value | Head::ValueOnly => all.extend(score),
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::save_tensors;
    use crate::torch::test_device;

    fn config() -> ModelConfig {
        ModelConfig::from_json(
            r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 4, "hidden_size": 4, "intermediate_size": 4,
                "num_hidden_layers": 1, "num_attention_heads": 1, "tie_word_embeddings": true,
                "attention_bias": true}"#,
        )
        .unwrap()
    }

    /// What a folder with these tensors is read as; `rename` gives each its name in the file.
    fn read(dir: &Path, rename: impl Fn(&str) -> Option<String>, surplus: &[&str]) -> Result<Vec<f32>, String> {
        let ones = surplus.iter().map(|name| (name.to_string(), Tensor::ones([2], (Kind::Float, Device::Cpu))));
        read_with(dir, rename, ones.collect())
    }

    fn read_with(
        dir: &Path,
        rename: impl Fn(&str) -> Option<String>,
        more: Vec<(String, Tensor)>,
    ) -> Result<Vec<f32>, String> {
        let (cpu, kind) = (test_device(), Kind::Float);
        let weights = Weights::random(&config(), Head::Language, kind, cpu, 1).unwrap();
        let entries = weights.entries().iter();
        let mut tensors: Vec<(String, Tensor)> =
            entries.filter_map(|(name, tensor)| Some((rename(name)?, tensor.shallow_clone()))).collect();
        tensors.extend(more);
        save_tensors(&dir.join("model.safetensors"), &tensors).unwrap();
        let read = Weights::load(dir, &config(), Head::Language, kind, cpu);
        read.map(|read| to_host(read.flat())).map_err(|error| format!("{error:#}"))
    }

    /// A tied head may be stored too, if it is the embedding; transformers 5 would use another one.
    #[test]
    fn a_tied_head_is_the_embedding() {
        let dir = tempfile::tempdir().unwrap();
        let same = |name: &str| Some(name.to_string());
        let embedding = Weights::random(&config(), Head::Language, Kind::Float, test_device(), 1).unwrap();
        let embedding = embedding.find(EMBEDDING).unwrap();
        let whole = read(dir.path(), same, &[]).unwrap();
        let head = |tensor: &Tensor| vec![(HEAD.to_string(), tensor.shallow_clone())];
        assert_eq!(read_with(dir.path(), same, head(&embedding)).unwrap(), whole);
        // Shapes and types are in the heads of the files.
        for (other, part, in_heads) in [
            (&embedding + 1.0, "lm_head.weight is not model.embed_tokens.weight: transformers would use that", false),
            (embedding.narrow(0, 0, 2).copy(), "lm_head.weight in", true),
            (embedding.to_kind(Kind::Int64), "type I64, expected F32, BF16, F16 or F64", true),
        ] {
            let error = read_with(dir.path(), same, head(&other)).unwrap_err();
            assert!(error.contains(part), "{error}");
            assert_eq!(Weights::check(dir.path(), &config(), Head::Language).is_err(), in_heads, "{error}");
        }
        let odd = vec![(EMBEDDING.to_string(), &embedding * f64::NAN), (HEAD.to_string(), embedding.shallow_clone())];
        let error = read_with(dir.path(), |name| (name != EMBEDDING).then(|| name.to_string()), odd).unwrap_err();
        assert!(error.contains("not finite (as float32)"), "{error}");
    }

    #[test]
    fn a_file_of_weights_has_each_once_and_finite() {
        let dir = tempfile::tempdir().unwrap();
        let same = |name: &str| Some(name.to_string());
        let norm = |value: f64| Tensor::full([4], value, (Kind::Float, Device::Cpu));
        let error = read_with(dir.path(), same, vec![("norm.weight".into(), norm(1.0))]).unwrap_err();
        assert!(error.contains("model.norm.weight: in the files twice"), "{error}");
        for odd in [f64::NAN, f64::INFINITY] {
            let rename = |name: &str| (name != "model.norm.weight").then(|| name.to_string());
            let error = read_with(dir.path(), rename, vec![("model.norm.weight".into(), norm(odd))]).unwrap_err();
            assert!(error.contains("model.norm.weight") && error.contains("not finite"), "{error}");
        }
        let whole = read(dir.path(), same, &[]).unwrap();
        let double = |name: &str| (name != "model.norm.weight").then(|| name.to_string());
        let norm = vec![("model.norm.weight".to_string(), norm(1.0).to_kind(Kind::Double))];
        assert_eq!(read_with(dir.path(), double, norm).unwrap(), whole);
    }

    #[test]
    fn folders_are_read_as_transformers_reads_them() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let same = |name: &str| Some(name.to_string());
        let whole = read(dir, same, &[]).unwrap();
        assert!(whole.iter().any(|x| *x != 0.0));
        // Surplus tensors, a base model's names, and an index beside a whole file, whose shards are not there.
        let surplus = ["model.layers.0.self_attn.rotary_emb.inv_freq", "visual.weight"];
        assert_eq!(read(dir, same, &surplus).unwrap(), whole);
        assert_eq!(read(dir, |name| name.strip_prefix("model.").map(str::to_string), &[]).unwrap(), whole);
        let stale = r#"{"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}"#;
        std::fs::write(dir.join("model.safetensors.index.json"), stale).unwrap();
        assert_eq!(read(dir, same, &[]).unwrap(), whole);

        let within = |name: &str| Some(name.replacen("model.", "model.language_model.", 1));
        for (error, prefix, part) in [
            (read(dir, |name| Some(format!("_orig_mod.{name}")), &[]), "_orig_mod.", "torch.compile adds"),
            (read(dir, |name| Some(format!("module.{name}")), &[]), "module.", "data parallelism `module.`"),
            (read(dir, |name| Some(format!("language_model.{name}")), &[]), "language_model.", "a vision-language"),
            (read(dir, within, &["visual.weight"]), "model.language_model.", "a vision-language model"),
        ] {
            let error = error.unwrap_err();
            assert!(error.contains(&format!("begin with `{prefix}`")) && error.contains(part), "{error}");
            assert_eq!(error.lines().count(), 1, "{error}");
        }
        let error = read(dir, |name| (name != "model.norm.weight").then(|| name.to_string()), &[]).unwrap_err();
        assert!(error.contains("model.norm.weight: missing") && error.lines().count() == 2, "{error}");
    }
}
