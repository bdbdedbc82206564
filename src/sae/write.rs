//! Writing an autoencoder as a folder of sae_lens.

use super::autoencoder::{Activation, Sae, Scaling};
use super::files::{CONFIG, Hook, WEIGHTS};
use crate::checkpoint::{place, save_tensors, write_text};
use anyhow::{Result, ensure};
use serde_json::json;
use std::path::Path;

/// The version of sae_lens whose layout we write; without one it would look for settings where version 5 has them.
const LAYOUT: &str = "6.0.0";

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
    ensure!(!dir.exists(), "{} is there already", dir.display());
    place(dir, |unfinished| {
        save_tensors(&unfinished.join(WEIGHTS), &tensors)?;
        write_text(&unfinished.join(CONFIG), &serde_json::to_string_pretty(&config)?)
    })
}
