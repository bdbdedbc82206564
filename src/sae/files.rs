//! Folders of sparse autoencoders: where weights and settings are, and what they were trained on.

use super::autoencoder::{Activation, Sae};
use super::layouts::{Config, Reading, Tensors};
use crate::checkpoint::read_tensors;
use crate::{OrBadInput, bad, json, not_fetched};
use anyhow::Result;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// The files of sae_lens.
pub(super) const WEIGHTS: &str = "sae_weights.safetensors";
pub(super) const CONFIG: &str = "cfg.json";

/// Where the weights of a folder may be, the first first.
const ALL_WEIGHTS: [&str; 4] =
    [WEIGHTS, "checkpoints/pruned.safetensors", "checkpoints/final.safetensors", "sae.safetensors"];
/// Where a folder says what its weights mean.
const CONFIGS: [&str; 3] = [CONFIG, "config.json", "hyperparams.json"];

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
    let known = ALL_WEIGHTS.map(|name| path.join(name));
    let is_there = |file: &&PathBuf| file.is_file() || file.is_symlink();
    known.iter().find(is_there).cloned().ok_or_else(|| {
        let shown = path.display();
        match path.is_dir() {
            true => bad!("{shown} has no weights of a sparse autoencoder: expected {}", ALL_WEIGHTS[..3].join(" or ")),
            false => bad!("{shown} is not there: expected the folder of a sparse autoencoder, or its safetensors file"),
        }
    })
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::save_tensors;
    use crate::sae::write;
    use crate::torch::{on_device, test_device, to_host};
    use serde_json::{Value, json};
    use std::collections::HashMap;

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
        let mut all = read_tensors(&golden(name).join(WEIGHTS)).unwrap();
        tensors(&mut all);
        save_tensors(&dir.path().join(WEIGHTS), &all.into_iter().collect::<Vec<_>>()).unwrap();
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
