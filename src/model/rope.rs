//! Rotary position embeddings (arXiv:2104.09864) in the half-split layout of Hugging Face checkpoints.

use super::config::{Llama3Scaling, ModelConfig};
use std::f64::consts::PI;
use tch::{Device, Kind, Tensor};

/// Cosines and sines for every position, [T, D], float32 values in the compute kind.
pub struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// Tables for positions 0..`positions`.
    pub fn new(config: &ModelConfig, positions: i64, kind: Kind, device: Device) -> Self {
        let frequencies: Vec<f32> = frequencies(config).into_iter().map(|f| f as f32).collect();
        let frequencies = Tensor::from_slice(&frequencies); // [D/2]
        let angles = Tensor::arange(positions, (Kind::Float, Device::Cpu)).outer(&frequencies); // [T, D/2]
        let angles = Tensor::cat(&[&angles, &angles], 1); // [T, D]
        let place = |t: Tensor| t.to_device(device).to_kind(kind);
        Self { cos: place(angles.cos()), sin: place(angles.sin()) }
    }

    /// Tables of positions 0..`length`, [T, D] each.
    pub fn prefix(&self, length: i64) -> (Tensor, Tensor) {
        (self.cos.narrow(0, 0, length), self.sin.narrow(0, 0, length))
    }

    /// Tables of one position a row, [B, 1, 1, D] each, for `positions` [B].
    pub fn rows(&self, positions: &Tensor) -> (Tensor, Tensor) {
        let pick = |t: &Tensor| t.index_select(0, positions).unsqueeze(1).unsqueeze(1);
        (pick(&self.cos), pick(&self.sin))
    }
}

/// Turns the pairs (x[i], x[i + D/2]) by their angles; `x` is [.., D], the tables broadcast to it.
pub fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Tensor {
    let halves = x.chunk(2, -1);
    let turned = Tensor::cat(&[halves[1].neg(), halves[0].shallow_clone()], -1);
    x * cos + turned * sin
}

/// Radians a position for each pair, D/2 of them.
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
