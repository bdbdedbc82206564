//! How often and how strongly each feature is active in many texts: what controls are matched on, and what strengths in
//! multiples of a feature's largest activation are relative to.

use crate::torch::{ids_to_host, to_host};
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

/// Sums over tokens, by feature.
pub struct Moments {
    tokens: i64,
    /// Tokens at which it is active, [F] int64.
    counts: Tensor,
    /// Summed activation, [F] float64.
    sums: Tensor,
    /// Largest activation, [F] float32.
    most: Tensor,
}

/// What is known of a feature.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub struct FeatureFigures {
    pub feature: i64,
    /// Share of tokens at which it is active.
    pub frequency: f64,
    /// Mean activation where it is active; 0 if it never is.
    pub mean: f64,
    /// Largest activation.
    pub max: f64,
}

impl Moments {
    /// No tokens yet.
    pub fn new(features: i64, device: Device) -> Self {
        let zeros = |kind| Tensor::zeros([features], (kind, device));
        Self { tokens: 0, counts: zeros(Kind::Int64), sums: zeros(Kind::Double), most: zeros(Kind::Float) }
    }

    /// Counts activations [N, F].
    pub fn add(&mut self, activations: &Tensor) {
        let over = [0i64].as_slice();
        self.tokens += activations.size()[0];
        self.counts += activations.gt(0).sum_dim_intlist(over, false, Kind::Int64);
        self.sums += activations.sum_dim_intlist(over, false, Kind::Double);
        self.most = self.most.fmax(&activations.amax(over, false));
    }

    pub fn tokens(&self) -> i64 {
        self.tokens
    }

    /// By feature.
    pub fn figures(&self) -> Vec<FeatureFigures> {
        let (counts, sums, most) = (ids_to_host(&self.counts), to_host(&self.sums), to_host(&self.most));
        let all = counts.into_iter().zip(sums).zip(most).zip(0..);
        all.map(|(((count, sum), max), feature)| FeatureFigures {
            feature,
            frequency: count as f64 / self.tokens.max(1) as f64,
            mean: f64::from(sum) / count.max(1) as f64,
            max: f64::from(max),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{on_device, test_device};

    #[test]
    fn figures_are_of_all_tokens_together() {
        let mut moments = Moments::new(2, test_device());
        moments.add(&on_device(&[1.0f32, 0.0, 3.0, 0.0], test_device()).view([2, 2]));
        moments.add(&on_device(&[0.0f32, 0.5], test_device()).view([1, 2]));
        let third = 1.0 / 3.0;
        let first = FeatureFigures { feature: 0, frequency: 2.0 * third, mean: 2.0, max: 3.0 };
        let second = FeatureFigures { feature: 1, frequency: third, mean: 0.5, max: 0.5 };
        assert_eq!((moments.tokens(), moments.figures()), (3, vec![first, second]));
    }
}
