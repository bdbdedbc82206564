//! The two kinds of maps in a layer, as a checkpoint stores them.

use super::config::ModelConfig;
use super::weights::Scope;
use crate::torch::{Packed, add_norm, is_fused, norm};
use tch::Tensor;

/// A linear map, with a bias if the checkpoint has one.
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
    /// The weight once more, if the map is for decoding alone.
    packed: Option<Packed>,
}

impl Linear {
    pub fn new(at: Scope) -> Self {
        Self { weight: at.get("weight"), bias: at.find("bias"), packed: None }
    }

    /// [.., out] for `x` [.., in].
    pub fn forward(&self, x: &Tensor) -> Tensor {
        match &self.packed {
            Some(packed) => packed.multiply(x, self.bias.as_ref()),
            None => x.linear(&self.weight, self.bias.as_ref()),
        }
    }

    /// The weight [out, in], if that is all there is.
    pub fn plain_weight(&self) -> Option<&Tensor> {
        self.bias.is_none().then_some(&self.weight)
    }

    pub fn shallow_clone(&self) -> Self {
        let packed = self.packed.as_ref().map(Packed::shallow_clone);
        Self { weight: self.weight.shallow_clone(), bias: self.bias.as_ref().map(Tensor::shallow_clone), packed }
    }

    /// The map for decoding, its weight packed where that is faster; as it is now, without a gradient.
    pub fn packed(&self) -> Self {
        Self { packed: Packed::of(&self.weight), ..self.shallow_clone() }
    }
}

/// Division by the root mean square over the last dimension, then one factor per channel (arXiv:1910.07467).
pub struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    pub fn new(config: &ModelConfig, at: Scope) -> Self {
        Self { weight: at.get("weight"), eps: config.rms_norm_eps }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        match is_fused(x) {
            true => norm(x, &self.weight, self.eps),
            false => x.rms_norm(self.weight.size(), Some(&self.weight), self.eps),
        }
    }

    /// `x + add`, and what `forward` makes of that.
    pub fn after(&self, x: &Tensor, add: &Tensor) -> (Tensor, Tensor) {
        if is_fused(x) {
            return add_norm(x, add, &self.weight, self.eps);
        }
        let sum = x + add;
        let normed = self.forward(&sum);
        (sum, normed)
    }

    pub fn shallow_clone(&self) -> Self {
        Self { weight: self.weight.shallow_clone(), eps: self.eps }
    }
}
