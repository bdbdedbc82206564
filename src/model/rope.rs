//! Rotary position embeddings (arXiv:2104.09864) in the half-split layout of Hugging Face checkpoints.
//!
//! Angles are computed in each pass from D/2 frequencies, always in float32: bfloat16 cannot represent positions above
//! 256 exactly. Only the cosines and sines are converted to the compute kind.

use super::config::ModelConfig;
use super::config_file::Llama3Scaling;
use crate::torch::{fuses, is_fused, split};
use std::f64::consts::PI;
use tch::{Device, Kind, Tensor};

/// The rotary frequencies of a model.
pub struct Rope {
    /// Radians per position, [D/2], float32.
    frequencies: Tensor,
}

impl Rope {
    pub fn shallow_clone(&self) -> Self {
        Self { frequencies: self.frequencies.shallow_clone() }
    }

    pub fn new(config: &ModelConfig, device: Device) -> Self {
        let frequencies: Vec<f32> = frequencies(config).into_iter().map(|f| f as f32).collect();
        Self { frequencies: Tensor::from_slice(&frequencies).to_device(device) }
    }

    /// With these frequencies.
    #[cfg(test)]
    pub fn of(frequencies: &[f32]) -> Self {
        Self { frequencies: Tensor::from_slice(frequencies) }
    }

    /// The rotation of tokens at `positions` [B, T], or [1, T] if all rows have the same; in the compute `kind`.
    pub fn rotation(&self, positions: &Tensor, kind: Kind) -> Rotation {
        let angles = positions.to_kind(Kind::Float).unsqueeze(-1) * &self.frequencies; // [B, T, D/2]
        if fuses(angles.device(), kind) {
            return Rotation { cos: angles.cos(), sin: angles.sin() };
        }
        let angles = Tensor::cat(&[&angles, &angles], -1).unsqueeze(1); // [B, 1, T, D]
        Rotation { cos: angles.cos().to_kind(kind), sin: angles.sin().to_kind(kind) }
    }
}

/// Cosines and sines of the tokens of one pass: on a CPU [B, T, D/2] each in float32, elsewhere [B, 1, T, D].
pub struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// Heads apart and rotated, each pair (x[i], x[i + D/2]) by its angle: [B, heads, T, D] for queries or keys `x`
    /// [B, T, heads * D].
    pub fn split(&self, x: &Tensor, heads: i64) -> Tensor {
        self.split_scaled(x, heads, 1.0)
    }

    /// The same, times `scale`.
    pub fn split_scaled(&self, x: &Tensor, heads: i64, scale: f64) -> Tensor {
        if is_fused(x) {
            return split(x, heads, Some(self.halves()), scale);
        }
        let x = apart(x, heads);
        let halves = x.chunk(2, -1);
        let turned = Tensor::cat(&[halves[1].neg(), halves[0].shallow_clone()], -1);
        let rotated = x * &self.cos + turned * &self.sin;
        if scale == 1.0 { rotated } else { rotated * scale }
    }

    /// The same for a single row with the tokens of `rows` sequences, one after another; on a CPU.
    pub fn in_a_row(&self, rows: i64) -> Self {
        let [cos, sin] = self.halves().map(|x| {
            let (_, t, pairs) = x.size3().expect("angles are [B, T, D/2]");
            x.expand([rows, t, pairs], false).reshape([1, rows * t, pairs])
        });
        Self { cos, sin }
    }

    /// Cosines and sines of each pair, [B, T, D/2] float32; on a CPU.
    pub fn halves(&self) -> [&Tensor; 2] {
        [&self.cos, &self.sin]
    }

    pub fn shallow_clone(&self) -> Self {
        Self { cos: self.cos.shallow_clone(), sin: self.sin.shallow_clone() }
    }
}

/// Heads apart: [B, heads, T, D] for `x` [B, T, heads * D].
pub fn apart(x: &Tensor, heads: i64) -> Tensor {
    let (b, t, _) = x.size3().expect("projections are [B, T, heads * D]");
    if is_fused(x) { split(x, heads, None, 1.0) } else { x.view([b, t, heads, -1]).transpose(1, 2) }
}

/// Radians per position for each pair, D/2 of them.
fn frequencies(config: &ModelConfig) -> Vec<f64> {
    let d = config.head_dim;
    (0..d / 2)
        .map(|i| {
            let frequency = config.rope_theta.powf(-((2 * i) as f64) / d as f64);
            config.rope_scaling.map_or(frequency, |scaling| stretched(frequency, scaling))
        })
        .collect()
}

/// Llama 3.1's scaling of one frequency, by how many turns it makes in the original context.
fn stretched(frequency: f64, s: Llama3Scaling) -> f64 {
    let turns = s.original_max_position_embeddings * frequency / (2.0 * PI);
    if turns < s.low_freq_factor {
        frequency / s.factor
    } else if turns > s.high_freq_factor {
        frequency
    } else {
        let smooth = (turns - s.low_freq_factor) / (s.high_freq_factor - s.low_freq_factor);
        frequency * ((1.0 - smooth) / s.factor + smooth)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{on_device, test_device, to_host};

    /// A decoding step must rotate by exactly the angles that the prefill and the update use.
    #[test]
    fn a_position_has_the_same_rotation_however_many_are_computed_at_once() {
        let angle = |i: i64| 1e6f64.powf(-((2 * i) as f64) / 64.0) as f32;
        let rope = Rope { frequencies: on_device(&(0..32).map(angle).collect::<Vec<_>>(), test_device()) };
        let bits = |first: i64, last: i64| -> Vec<u32> {
            let positions = Tensor::arange_start(first, last, (Kind::Int64, test_device())).unsqueeze(0);
            let Rotation { cos, sin } = rope.rotation(&positions, Kind::Float);
            // [T, D/2, 2], the position first
            let both = Tensor::stack(&[cos, sin], -1).squeeze_dim(0);
            to_host(&both).into_iter().map(f32::to_bits).collect()
        };
        let whole = bits(0, 700);
        let one_by_one: Vec<u32> = (0..700).flat_map(|position| bits(position, position + 1)).collect();
        assert_eq!(whole, one_by_one);
        assert_eq!(whole[..bits(0, 333).len()], bits(0, 333));
    }
}
