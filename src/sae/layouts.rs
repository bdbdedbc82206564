//! What the tensors and settings of a published autoencoder mean: in the layout of sae_lens (`W_enc`, `W_dec`), and in
//! that of Llama Scope (`encoder.weight`, `decoder.weight`).
//!
//! Decided: weights are float32 here whatever they are stored as; where a layout ranks features by activation times the
//! norm of the decoder's row, the norms are multiplied into the encoder, so that rows have norm 1 and activations are
//! in units of it; what cannot be read as the folder says is refused rather than read in another way.

use super::autoencoder::{Activation, Sae, Scaling};
use crate::bad;
use anyhow::Result;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// The settings of either layout. Of sae_lens what is absent has that library's default; of Llama Scope, whose library
/// writes all of them but has changed its defaults, it is what the docs say of a folder without settings.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Config {
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
    pub hook_name: Option<String>,
    pub model_name: Option<String>,
    pub metadata: Option<Metadata>,
    // Llama Scope
    act_fn: Option<String>,
    top_k: Option<i64>,
    norm_activation: Option<String>,
    sparsity_include_decoder_norm: bool,
    apply_decoder_bias_to_pre_encoder: bool,
    pub hook_point_in: Option<String>,
    hook_point_out: Option<String>,
    jump_relu_threshold: Option<f64>,
}

/// Where newer versions of sae_lens say what is read.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Metadata {
    pub hook_name: Option<String>,
    pub model_name: Option<String>,
}

/// Tensors of a file, each to be taken once.
pub(super) struct Tensors<'a> {
    pub file: &'a Path,
    pub all: HashMap<String, Tensor>,
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

/// A folder that is being read.
pub(super) struct Reading<'a> {
    pub config: &'a Config,
    /// The file whose settings are followed.
    pub said: &'a Path,
    pub tensors: Tensors<'a>,
}

impl Reading<'_> {
    /// The layout of sae_lens: matrices are [input, output].
    pub fn lens(mut self) -> Result<Sae> {
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
    pub fn scope(mut self) -> Result<Sae> {
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

impl Sae {
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
