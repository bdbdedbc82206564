//! Folders of sparse autoencoders, in the two layouts that are published: that of sae_lens (`cfg.json`, tensors
//! `W_enc`, `W_dec`), which we write too, and that of Llama Scope (tensors `encoder.weight`, `decoder.weight`).
//!
//! Decided: weights are float32 here whatever they are stored as; where a layout ranks features by activation times the
//! norm of the decoder's row, the norms are multiplied into the encoder, so that rows have norm 1 and activations are
//! in units of it; what cannot be read as the folder says is refused rather than read in another way.

use super::autoencoder::{Activation, Sae, Scaling};
use crate::checkpoint::{read_tensors, save_tensors, write_text};
use crate::{OrBadInput, bad, json, not_fetched};
use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Where the weights of a folder may be, the first first.
const WEIGHTS: [&str; 4] =
    ["sae_weights.safetensors", "checkpoints/pruned.safetensors", "checkpoints/final.safetensors", "sae.safetensors"];
/// Where a folder says what its weights mean.
const CONFIGS: [&str; 3] = ["cfg.json", "config.json", "hyperparams.json"];

/// The version of sae_lens whose layout we write; without one it would look for settings where version 5 has them.
const LAYOUT: &str = "6.0.0";

/// What an autoencoder reads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Hook {
    /// The decoder layer, from 0, after which it reads the residual stream; none if the folder does not say.
    pub layer: Option<usize>,
    /// The model it was trained on, as the folder calls it.
    pub model: Option<String>,
}

impl Hook {
    /// A hook's name in the words of TransformerLens: `blocks.15.hook_resid_post`.
    fn parse(name: &str) -> Result<usize, String> {
        let parts: Vec<&str> = name.split('.').collect();
        let ["blocks", layer, place] = parts.as_slice() else {
            return Err(format!("the hook `{name}`, expected one like `blocks.15.hook_resid_post`"));
        };
        let layer: usize = layer.parse().map_err(|_| format!("the hook `{name}`, whose layer is not a number"))?;
        match (*place, layer) {
            ("hook_resid_post", layer) => Ok(layer),
            ("hook_resid_pre", layer @ 1..) => Ok(layer - 1),
            _ => Err(format!("the hook `{name}`, but only the residual stream after a layer can be read here")),
        }
    }
}

/// The settings of either layout. Of sae_lens what is absent has that library's default; of Llama Scope, whose library
/// writes all of them but has changed its defaults, it is what the docs say of a folder without settings.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Config {
    // sae_lens
    architecture: Option<String>,
    activation_fn: Option<String>,
    activation_fn_str: Option<String>,
    activation_fn_kwargs: Map<String, Value>,
    k: Option<i64>,
    apply_b_dec_to_input: Option<bool>,
    normalize_activations: Option<Value>,
    rescale_acts_by_decoder_norm: bool,
    #[serde(alias = "hook_point")]
    hook_name: Option<String>,
    model_name: Option<String>,
    metadata: Option<Metadata>,
    // Llama Scope
    act_fn: Option<String>,
    top_k: Option<i64>,
    norm_activation: Option<String>,
    sparsity_include_decoder_norm: bool,
    apply_decoder_bias_to_pre_encoder: bool,
    hook_point_in: Option<String>,
    hook_point_out: Option<String>,
    jump_relu_threshold: Option<f64>,
}

/// Where newer versions of sae_lens say what is read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    hook_name: Option<String>,
    model_name: Option<String>,
}

/// Tensors of a file, each to be taken once.
struct Tensors<'a> {
    file: &'a Path,
    all: HashMap<String, Tensor>,
}

impl Tensors<'_> {
    fn optional(&mut self, name: &str, shape: &[i64]) -> Result<Option<Tensor>> {
        let Some(tensor) = self.all.remove(name) else { return Ok(None) };
        if tensor.size() != shape {
            let (file, found) = (self.file.display(), tensor.size());
            return Err(bad!("{file}: tensor {name} has the shape {found:?}, expected {shape:?}"));
        }
        Ok(Some(tensor.to_kind(Kind::Float)))
    }

    fn take(&mut self, name: &str, shape: &[i64]) -> Result<Tensor> {
        let file = self.file;
        self.optional(name, shape)?.ok_or_else(|| bad!("{}: the tensor {name} is missing", file.display()))
    }

    /// The shape of a matrix.
    fn matrix(&self, name: &str) -> Result<(i64, i64)> {
        let found = self.all.get(name).map(Tensor::size);
        match found.as_deref() {
            Some(&[rows, columns]) if rows > 0 && columns > 0 => Ok((rows, columns)),
            Some(other) => {
                Err(bad!("{}: tensor {name} has the shape {other:?}, expected a matrix", self.file.display()))
            }
            None => Err(bad!("{}: the tensor {name} is missing", self.file.display())),
        }
    }
}

/// Reads an autoencoder, a folder or a safetensors file beside its settings, onto a device.
///
/// # Errors
/// Bad input: neither; tensors that are missing, of another shape or not finite; settings that cannot be followed.
pub fn read(path: &Path, device: Device) -> Result<(Sae, Hook)> {
    let file = weights(path)?;
    if let Some(instead) = not_fetched(&file) {
        return Err(bad!("{instead}"));
    }
    let beside = file.parent().unwrap_or(path);
    let above = beside.parent().filter(|_| beside.ends_with("checkpoints"));
    let folders: Vec<&Path> = [Some(path), Some(beside), above].into_iter().flatten().collect();
    let said = folders.iter().flat_map(|dir| CONFIGS.map(|name| dir.join(name))).find(|config| config.is_file());
    let config: Config = said.as_ref().map_or(Ok(Config::default()), |file| json::read(file)).bad_input()?;
    let tensors = Tensors { file: &file, all: read_tensors(&file).bad_input()? };
    let (lens, scope) = (tensors.all.contains_key("W_enc"), tensors.all.contains_key("encoder.weight"));
    let reading = Reading { config: &config, said: said.as_deref().unwrap_or(&file), tensors };
    let sae = match (lens, scope) {
        (true, _) => reading.lens(),
        (false, true) => reading.scope(),
        (false, false) => Err(bad!(
            "{}: expected the tensor `W_enc` (the layout of sae_lens) or `encoder.weight` (that of Llama Scope)",
            file.display()
        )),
    }?;
    for (name, tensor) in parts(&sae) {
        if !bool::try_from(tensor.isfinite().all()).unwrap_or(false) {
            return Err(bad!("{}: what is read as {name} has numbers that are not finite", file.display()));
        }
    }
    let names = config.metadata.as_ref();
    let hook = config.hook_name.as_ref().or(names.and_then(|names| names.hook_name.as_ref()));
    let layer = hook.or(config.hook_point_in.as_ref()).map(|name| Hook::parse(name)).transpose();
    let layer = layer.map_err(|why| bad!("{} names {why}", said.as_deref().unwrap_or(&file).display()))?;
    let model = config.model_name.clone().or_else(|| names.and_then(|names| names.model_name.clone()));
    Ok((sae.to(device), Hook { layer, model }))
}

/// The file of weights that a path names.
fn weights(path: &Path) -> Result<PathBuf> {
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    let known = WEIGHTS.map(|name| path.join(name));
    let is_there = |file: &&PathBuf| file.is_file() || file.is_symlink();
    known.iter().find(is_there).cloned().ok_or_else(|| {
        let shown = path.display();
        match path.is_dir() {
            true => bad!("{shown} has no weights of a sparse autoencoder: expected {}", WEIGHTS[..3].join(" or ")),
            false => bad!("{shown} is not there: expected the folder of a sparse autoencoder, or its safetensors file"),
        }
    })
}

/// A folder that is being read.
struct Reading<'a> {
    config: &'a Config,
    /// The file whose settings are followed.
    said: &'a Path,
    tensors: Tensors<'a>,
}

impl Reading<'_> {
    /// The layout of sae_lens: matrices are [input, output].
    fn lens(mut self) -> Result<Sae> {
        let (h, f) = self.tensors.matrix("W_enc")?;
        let encoder = self.tensors.take("W_enc", &[h, f])?.transpose(0, 1).contiguous();
        let decoder = self.tensors.take("W_dec", &[f, h])?;
        let encoder_bias = self.tensors.take("b_enc", &[f])?;
        let decoder_bias = self.tensors.take("b_dec", &[h])?;
        let config = self.config;
        let kind = config.activation_fn.as_ref().or(config.activation_fn_str.as_ref());
        // Older versions say "standard" and name the function apart.
        let top_k = kind.is_some_and(|kind| kind == "topk");
        let activation = match config.architecture.as_deref() {
            Some("topk") => Activation::TopK(self.k(config.k)?),
            None | Some("standard") if top_k => {
                Activation::TopK(self.k(config.activation_fn_kwargs.get("k").and_then(Value::as_i64).or(config.k))?)
            }
            Some("jumprelu") => Activation::JumpRelu(self.thresholds(f)?),
            None if self.tensors.all.contains_key("threshold") => Activation::JumpRelu(self.thresholds(f)?),
            None | Some("standard") => Activation::Relu,
            Some(other) => return Err(self.unknown("architecture", other, "standard, topk or jumprelu")),
        };
        // Oldest versions have a switch.
        let scaling = match config.normalize_activations.as_ref() {
            Some(Value::Bool(true)) => "expected_average_only_in".to_string(),
            None | Some(Value::Bool(false) | Value::Null) => "none".to_string(),
            Some(Value::String(named)) => named.clone(),
            Some(other) => other.to_string(),
        };
        let scaling = match scaling.as_str() {
            "none" => Scaling::By(1.0),
            "constant_norm_rescale" => Scaling::Norm,
            "layer_norm" => Scaling::Standard,
            other @ "expected_average_only_in" => {
                let said = self.said.display();
                return Err(bad!(
                    "{said}: normalize_activations = {other:?}, whose factor is in no file: fold it into the weights \
                     (fold_activation_norm_scaling_factor of sae_lens) and save them again"
                ));
            }
            other => {
                return Err(self.unknown("normalize_activations", other, "none, constant_norm_rescale or layer_norm"));
            }
        };
        let centred = config.apply_b_dec_to_input.unwrap_or(true);
        let sae = Sae { encoder, encoder_bias, decoder, decoder_bias, activation, scaling, centred };
        Ok(if config.rescale_acts_by_decoder_norm { sae.with_unit_rows() } else { sae })
    }

    /// The thresholds of sae_lens, those below 0 being 0.
    fn thresholds(&mut self, f: i64) -> Result<Tensor> {
        if let Some(logarithms) = self.tensors.optional("log_threshold", &[f])? {
            return Ok(logarithms.exp());
        }
        Ok(self.tensors.take("threshold", &[f])?.relu())
    }

    /// The layout of Llama Scope: matrices are [output, input].
    fn scope(mut self) -> Result<Sae> {
        let (f, h) = self.tensors.matrix("encoder.weight")?;
        let encoder = self.tensors.take("encoder.weight", &[f, h])?;
        let encoder_bias = self.tensors.take("encoder.bias", &[f])?;
        let decoder = self.tensors.take("decoder.weight", &[h, f])?.transpose(0, 1).contiguous();
        let decoder_bias = self.tensors.optional("decoder.bias", &[h])?;
        let decoder_bias = decoder_bias.unwrap_or_else(|| Tensor::zeros([h], (Kind::Float, Device::Cpu)));
        if self.tensors.all.keys().any(|name| name.starts_with("encoder_glu.")) {
            return Err(bad!("{}: gated encoders (encoder_glu) cannot be read", self.tensors.file.display()));
        }
        let config = self.config;
        let logarithms = self.tensors.optional("log_jumprelu_threshold", &[f])?;
        let activation = match (config.act_fn.as_deref(), logarithms) {
            (None | Some("jumprelu"), Some(logarithms)) => Activation::JumpRelu(logarithms.exp()),
            (Some("jumprelu"), None) => match config.jump_relu_threshold {
                Some(value) => Activation::JumpRelu(encoder_bias.full_like(value)),
                None => self.tensors.take("log_jumprelu_threshold", &[f]).map(Activation::JumpRelu)?,
            },
            (Some("topk"), _) => Activation::TopK(self.k(config.top_k)?),
            (None | Some("relu"), _) => Activation::Relu,
            (Some(other), _) => return Err(self.unknown("act_fn", other, "jumprelu, topk or relu")),
        };
        let scaling = match config.norm_activation.as_deref() {
            None | Some("dataset-wise") => Scaling::By(self.factor(h)?.unwrap_or(1.0)),
            Some("inference") => Scaling::By(1.0),
            Some("token-wise") => Scaling::Norm,
            Some(other) => {
                return Err(self.unknown("norm_activation", other, "dataset-wise, inference or token-wise"));
            }
        };
        let centred = config.apply_decoder_bias_to_pre_encoder;
        let sae = Sae { encoder, encoder_bias, decoder, decoder_bias, activation, scaling, centred };
        Ok(if config.sparsity_include_decoder_norm { sae.with_unit_rows() } else { sae })
    }

    /// What the input is multiplied by: the root of H over the mean norm in the data; none if the file has no norm.
    fn factor(&mut self, h: i64) -> Result<Option<f64>> {
        const NORM: &str = "dataset_average_activation_norm.";
        let mut norms: Vec<(String, f64)> = vec![];
        let names: Vec<String> = self.tensors.all.keys().filter(|name| name.starts_with(NORM)).cloned().collect();
        for name in names {
            let value = self.tensors.all.remove(&name).filter(|tensor| tensor.numel() == 1);
            let value = value.map(|tensor| tensor.double_value(&[])).filter(|norm| norm.is_finite() && *norm > 0.0);
            let Some(value) = value else {
                return Err(bad!("{}: {name} is not a positive number", self.tensors.file.display()));
            };
            norms.push((name[NORM.len()..].to_string(), value));
        }
        let of =
            |hook: &Option<String>| norms.iter().find(|(name, _)| Some(name) == hook.as_ref()).map(|(_, norm)| *norm);
        let all_equal = norms.windows(2).all(|pair| pair[0].1 == pair[1].1);
        let read = of(&self.config.hook_point_in).or(norms.first().filter(|_| all_equal).map(|(_, norm)| *norm));
        let written = of(&self.config.hook_point_out).or(read);
        match (read, norms.is_empty()) {
            (None, true) => Ok(None),
            (Some(norm), _) if written == Some(norm) => Ok(Some((h as f64).sqrt() / norm)),
            _ => Err(bad!(
                "{}: {} with different norms, expected what is read to be what is written (a transcoder is not a \
                 sparse autoencoder)",
                self.tensors.file.display(),
                norms.iter().map(|(name, _)| format!("{NORM}{name}")).collect::<Vec<_>>().join(", ")
            )),
        }
    }

    fn k(&self, k: Option<i64>) -> Result<i64> {
        k.filter(|k| *k > 0).ok_or_else(|| bad!("{}: TopK without k, a positive integer", self.said.display()))
    }

    fn unknown(&self, key: &str, value: &str, expected: &str) -> anyhow::Error {
        bad!("{}: {key} = {value:?}, expected {expected}", self.said.display())
    }
}

/// The tensors of an autoencoder, by what they are.
fn parts(sae: &Sae) -> Vec<(&'static str, &Tensor)> {
    let thresholds = match &sae.activation {
        Activation::JumpRelu(thresholds) => Some(("thresholds", thresholds)),
        Activation::Relu | Activation::TopK(_) => None,
    };
    let weights = [
        ("the encoder", &sae.encoder),
        ("its bias", &sae.encoder_bias),
        ("the decoder", &sae.decoder),
        ("the decoder's bias", &sae.decoder_bias),
    ];
    weights.into_iter().chain(thresholds).collect()
}

impl Sae {
    /// The same, on a device.
    fn to(self, device: Device) -> Self {
        let moved = |tensor: Tensor| tensor.to_device(device);
        Self {
            encoder: moved(self.encoder),
            encoder_bias: moved(self.encoder_bias),
            decoder: moved(self.decoder),
            decoder_bias: moved(self.decoder_bias),
            activation: match self.activation {
                Activation::JumpRelu(thresholds) => Activation::JumpRelu(moved(thresholds)),
                other => other,
            },
            ..self
        }
    }

    /// The same function with rows of norm 1 in the decoder and activations in units of the norms they had. Features
    /// are kept by those units.
    fn with_unit_rows(self) -> Self {
        let norms = self.decoder.norm_scalaropt_dim(2.0, [1i64], true).clamp_min(1e-12); // [F, 1]
        Self {
            encoder: self.encoder * &norms,
            encoder_bias: self.encoder_bias * norms.squeeze_dim(1),
            decoder: self.decoder / norms,
            ..self
        }
    }
}

/// Writes an autoencoder as a folder of sae_lens, which must not exist yet; absent or whole.
///
/// # Errors
/// Those of the file system.
pub fn write(dir: &Path, sae: &Sae, hook: &Hook) -> Result<()> {
    let (architecture, thresholds) = match &sae.activation {
        Activation::Relu => ("standard", None),
        Activation::JumpRelu(thresholds) => ("jumprelu", Some(thresholds)),
        Activation::TopK(_) => ("topk", None),
    };
    // A factor that all tokens share is part of the weights: E (c x - d) + e, and (D^T f + d) / c.
    let (factor, scaling) = match sae.scaling {
        Scaling::By(factor) => (factor, "none"),
        Scaling::Norm => (1.0, "constant_norm_rescale"),
        Scaling::Standard => (1.0, "layer_norm"),
    };
    let mut config = json!({
        "architecture": architecture,
        "d_in": sae.hidden(),
        "d_sae": sae.features(),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": sae.centred,
        "normalize_activations": scaling,
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": LAYOUT,
            "model_name": hook.model,
            "hook_name": hook.layer.map(|layer| format!("blocks.{layer}.hook_resid_post")),
        },
    });
    if let Activation::TopK(k) = sae.activation {
        config["k"] = k.into();
    }
    let mut tensors = vec![
        ("W_enc", sae.encoder.transpose(0, 1) * factor),
        ("W_dec", &sae.decoder / factor),
        ("b_enc", sae.encoder_bias.shallow_clone()),
        ("b_dec", &sae.decoder_bias / factor),
    ];
    tensors.extend(thresholds.map(|thresholds| ("threshold", thresholds.shallow_clone())));
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let unfinished = tempfile::Builder::new().prefix(".sae-").tempdir_in(parent);
    let unfinished = unfinished.with_context(|| format!("cannot make a folder in {}", parent.display()))?;
    // Others may read it, as they may what is not made under another name first.
    std::fs::set_permissions(unfinished.path(), std::fs::Permissions::from_mode(0o755))?;
    save_tensors(&unfinished.path().join(WEIGHTS[0]), &tensors)?;
    write_text(&unfinished.path().join(CONFIGS[0]), &serde_json::to_string_pretty(&config)?)?;
    std::fs::rename(unfinished.path(), dir).with_context(|| format!("cannot make {}", dir.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{on_device, test_device, to_host};

    const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/sae");

    fn golden(name: &str) -> PathBuf {
        Path::new(GOLDEN).join(name)
    }

    fn numbers(value: &Value) -> Vec<f32> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap() as f32).collect()
    }

    fn assert_close(found: &Tensor, expected: &[f32], what: &str) {
        let found = to_host(found);
        assert_eq!(found.len(), expected.len(), "{what}");
        let far = found.iter().zip(expected).position(|(a, b)| (a - b).abs() > 2e-5 * b.abs().max(1.0));
        assert_eq!(far, None, "{what}: {found:?}, expected {expected:?}");
    }

    /// The copy of a golden folder with its settings, or else its tensors, changed.
    fn changed(
        name: &str,
        config: impl Fn(&mut Value),
        tensors: impl Fn(&mut HashMap<String, Tensor>),
    ) -> Result<(Sae, Hook), String> {
        let dir = tempfile::tempdir().unwrap();
        let mut settings: Value = json::read(&golden(name).join("cfg.json")).map(Value::Object).unwrap_or(json!({}));
        config(&mut settings);
        std::fs::write(dir.path().join("cfg.json"), settings.to_string()).unwrap();
        let mut all = read_tensors(&golden(name).join(WEIGHTS[0])).unwrap();
        tensors(&mut all);
        save_tensors(&dir.path().join(WEIGHTS[0]), &all.into_iter().collect::<Vec<_>>()).unwrap();
        read(dir.path(), test_device()).map_err(|error| format!("{error:#}"))
    }

    /// Every layout and setting against the library that writes it, and again after we have written it.
    #[test]
    fn published_layouts_are_read_as_their_libraries_do() {
        let expected: Value = json::read(&golden("expected.json")).map(Value::Object).unwrap();
        let x = on_device(&numbers(&expected["x"]), test_device()).view([5, 6]);
        let expected = expected.as_object().unwrap();
        assert_eq!(expected.len(), 9);
        for (name, values) in expected.iter().filter(|(name, _)| *name != "x") {
            let (sae, hook) = read(&golden(name), test_device()).unwrap();
            let known = name != "scope";
            assert_eq!(hook.layer, known.then_some(3), "{name}");
            let check = |sae: &Sae, what: &str| {
                let active = sae.encode(&x);
                assert_close(&active, &numbers(&values["active"]), what);
                assert_close(&sae.decode(&active, &x), &numbers(&values["decoded"]), what);
            };
            check(&sae, name);
            let dir = tempfile::tempdir().unwrap();
            let copy = dir.path().join("new/folder");
            write(&copy, &sae, &hook).unwrap();
            let (again, its) = read(&copy, test_device()).unwrap();
            check(&again, &format!("{name}, written"));
            assert_eq!(its, hook);
            // The file alone has all but the hook and, of TopK, k.
            assert_eq!(std::fs::read_dir(copy.parent().unwrap()).unwrap().count(), 1);
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_the_reason() {
        let set = |key: &'static str, value: Value| move |config: &mut Value| config[key] = value.clone();
        let keep = |_: &mut HashMap<String, Tensor>| ();
        let leave = |_: &mut Value| ();
        let refused = [
            changed("standard", set("architecture", json!("gated")), keep),
            changed("topk", set("k", json!(0)), keep),
            changed("standard", set("normalize_activations", json!("expected_average_only_in")), keep),
            changed("standard", set("normalize_activations", json!("mean")), keep),
            changed("standard", set("metadata", json!({"hook_name": "blocks.3.hook_mlp_out"})), keep),
            changed("standard", set("metadata", json!({"hook_name": "blocks.0.hook_resid_pre"})), keep),
            changed("standard", set("apply_b_dec_to_input", json!("yes")), keep),
            changed("standard", leave, |all| drop(all.remove("b_enc"))),
            changed("standard", leave, |all| drop(all.insert("b_dec".into(), Tensor::from(1.0f32)))),
            changed("standard", leave, |all| drop(all.get_mut("b_enc").unwrap().fill_(f64::NAN))),
            changed("standard", leave, |all| drop(all.remove("W_enc"))),
            changed("jumprelu", leave, |all| drop(all.remove("threshold"))),
            changed("scope", set("norm_activation", json!("batch-wise")), keep),
            changed("scope", leave, |all| {
                all.insert("dataset_average_activation_norm.out".into(), Tensor::from(2.0f32));
            }),
            changed("scope", leave, |all| drop(all.insert("encoder_glu.weight".into(), Tensor::from(2.0f32)))),
        ];
        let parts = [
            "architecture = \"gated\", expected standard, topk or jumprelu",
            "TopK without k, a positive integer",
            "whose factor is in no file",
            "expected none, constant_norm_rescale or layer_norm",
            "only the residual stream after a layer",
            "only the residual stream after a layer",
            "`apply_b_dec_to_input`: invalid type: string",
            "the tensor b_enc is missing",
            "tensor b_dec has the shape [], expected [6]",
            "its bias has numbers that are not finite",
            "expected the tensor `W_enc` (the layout of sae_lens) or `encoder.weight`",
            "the tensor threshold is missing",
            "expected dataset-wise, inference or token-wise",
            "a transcoder is not a sparse autoencoder",
            "gated encoders",
        ];
        for (result, part) in refused.into_iter().zip(parts) {
            let error = result.err().unwrap();
            assert!(error.contains(part), "{error}, expected {part}");
        }
        let missing = read(Path::new("nowhere"), test_device()).err().unwrap().to_string();
        assert!(missing.contains("nowhere is not there"), "{missing}");
        let other = read(Path::new(env!("CARGO_MANIFEST_DIR")), test_device()).err().unwrap().to_string();
        assert!(other.contains("has no weights of a sparse autoencoder"), "{other}");
        let (sae, hook) =
            changed("standard", set("metadata", json!({"hook_name": "blocks.4.hook_resid_pre"})), keep).unwrap();
        assert_eq!((sae.features(), hook.layer), (10, Some(3)));
    }
}
