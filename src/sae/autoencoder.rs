//! The autoencoder itself: what its weights make of the residual stream.

use tch::{Kind, Tensor};

/// What becomes of the pre-activations, [N, F].
#[derive(Debug)]
pub enum Activation {
    /// max(0, z).
    Relu,
    /// z where it is above its feature's threshold, [F], and 0 elsewhere (arXiv:2407.14435, equation 2).
    JumpRelu(Tensor),
    /// The k largest of a token, if they are positive, and 0 elsewhere (arXiv:2406.04093, equation 2).
    TopK(i64),
}

/// What is done to the residual stream before it is encoded, and undone after it is decoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scaling {
    /// Times a number, 1 for most.
    By(f64),
    /// Each token to a norm of the root of H.
    Norm,
    /// Each token to mean 0 and standard deviation 1.
    Standard,
}

/// A sparse autoencoder: f = activation(E (s(x) - b) + e), x' = s^-1(D^T f + d), where b is d or 0.
pub struct Sae {
    /// E, [F, H].
    pub encoder: Tensor,
    /// e, [F].
    pub encoder_bias: Tensor,
    /// D, [F, H]: a row is the direction that a feature writes.
    pub decoder: Tensor,
    /// d, [H].
    pub decoder_bias: Tensor,
    pub activation: Activation,
    pub scaling: Scaling,
    /// Whether d is taken from what is encoded.
    pub centred: bool,
}

impl Sae {
    /// F.
    pub fn features(&self) -> i64 {
        self.encoder.size()[0]
    }

    /// H.
    pub fn hidden(&self) -> i64 {
        self.encoder.size()[1]
    }

    /// The activations [N, F] of residual stream `x` [N, H] of any kind; float32, none negative.
    pub fn encode(&self, x: &Tensor) -> Tensor {
        self.activate(&self.before(&self.scaled(x).0))
    }

    /// What activations [N, F] say the residual stream is, [N, H], where `like` [N, H] is what they were encoded from:
    /// scalings by token are undone as they were done.
    pub fn decode(&self, activations: &Tensor, like: &Tensor) -> Tensor {
        let (_, back, shift) = self.scaled(like);
        (activations.matmul(&self.decoder) + &self.decoder_bias) * back + shift
    }

    /// Scaled `x`, and what undoes that: scaled * back + shift.
    fn scaled(&self, x: &Tensor) -> (Tensor, Tensor, Tensor) {
        let x = x.to_kind(Kind::Float);
        let zero = || Tensor::zeros([1], (Kind::Float, x.device()));
        match self.scaling {
            Scaling::By(factor) => (&x * factor, zero() + 1.0 / factor, zero()),
            Scaling::Norm => {
                let back = x.norm_scalaropt_dim(2.0, [-1i64], true).clamp_min(1e-12) / (self.hidden() as f64).sqrt();
                (&x / &back, back, zero())
            }
            Scaling::Standard => {
                let mean = x.mean_dim([-1i64].as_slice(), true, Kind::Float);
                let centred = &x - &mean;
                let deviation = centred.std_dim([-1i64].as_slice(), true, true);
                (centred / (&deviation + 1e-5), deviation, mean)
            }
        }
    }

    /// Pre-activations [N, F] of scaled tokens.
    fn before(&self, scaled: &Tensor) -> Tensor {
        let x = if self.centred { scaled - &self.decoder_bias } else { scaled.shallow_clone() };
        x.linear(&self.encoder, Some(&self.encoder_bias))
    }

    fn activate(&self, before: &Tensor) -> Tensor {
        match &self.activation {
            Activation::Relu => before.relu(),
            Activation::JumpRelu(threshold) => before.relu() * before.gt_tensor(threshold).to_kind(Kind::Float),
            Activation::TopK(k) => top(before, *k),
        }
    }

    /// A feature's direction in the residual stream, [H]: what one unit of its activation adds, before scalings by
    /// token.
    pub fn direction(&self, feature: i64) -> Tensor {
        let row = self.decoder.get(feature);
        match self.scaling {
            Scaling::By(factor) => row / factor,
            Scaling::Norm | Scaling::Standard => row,
        }
    }
}

/// `before` [N, F] with all but the k largest of each row, and all that are negative, at 0.
pub(super) fn top(before: &Tensor, k: i64) -> Tensor {
    let (values, places) = before.topk(k.min(before.size()[1]), -1, true, false);
    before.zeros_like().scatter(-1, &places, &values.relu())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{on_device, test_device, to_host};

    /// Two features over three dimensions, by hand.
    fn sae(activation: Activation, scaling: Scaling, centred: bool) -> Sae {
        let of = |values: &[f32], shape: &[i64]| on_device(values, test_device()).view(shape);
        Sae {
            encoder: of(&[1.0, 0.0, 2.0, -1.0, 1.0, 0.5], &[2, 3]),
            encoder_bias: of(&[0.5, -0.25], &[2]),
            decoder: of(&[0.0, 1.0, 0.0, 2.0, 0.0, -1.0], &[2, 3]),
            decoder_bias: of(&[0.5, 0.0, 1.0], &[3]),
            activation,
            scaling,
            centred,
        }
    }

    fn x() -> Tensor {
        on_device(&[1.0f32, 2.0, 0.25, -1.0, 0.5, 3.0], test_device()).view([2, 3])
    }

    /// What the equations give, in plain loops.
    fn naive(sae: &Sae, x: &[f64], keep: impl Fn(&[f64]) -> Vec<f64>) -> (Vec<f64>, Vec<f64>) {
        let host = |tensor: &Tensor| to_host(tensor).into_iter().map(f64::from).collect::<Vec<_>>();
        let (encoder, decoder, d) = (host(&sae.encoder), host(&sae.decoder), host(&sae.decoder_bias));
        let n = x.len() as f64;
        let mean = x.iter().sum::<f64>() / n;
        let (factor, back, shift) = match sae.scaling {
            Scaling::By(factor) => (factor, 1.0 / factor, 0.0),
            Scaling::Norm => {
                let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
                (n.sqrt() / norm, norm / n.sqrt(), 0.0)
            }
            Scaling::Standard => {
                let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0);
                (1.0 / (variance.sqrt() + 1e-5), variance.sqrt(), mean)
            }
        };
        let centre = |i: usize| if sae.centred { d[i] } else { 0.0 };
        let before: Vec<f64> = host(&sae.encoder_bias)
            .iter()
            .enumerate()
            .map(|(f, e)| {
                e + x
                    .iter()
                    .enumerate()
                    .map(|(i, x)| encoder[3 * f + i] * ((x - shift) * factor - centre(i)))
                    .sum::<f64>()
            })
            .collect();
        let active = keep(&before);
        let back = (0..3).map(|i| {
            let sum: f64 = active.iter().enumerate().map(|(f, a)| a * decoder[3 * f + i]).sum();
            (sum + d[i]) * back + shift
        });
        (active.clone(), back.collect())
    }

    #[test]
    fn activations_and_what_they_decode_to_are_those_of_the_equations() {
        let relu = |z: f64, _: f64, _: f64| z.max(0.0);
        let jump = |z: f64, threshold: f64, _: f64| if z > threshold { z.max(0.0) } else { 0.0 };
        let top = |z: f64, _: f64, most: f64| if z == most { z.max(0.0) } else { 0.0 };
        type Keep = fn(f64, f64, f64) -> f64;
        let kinds: [(fn() -> Activation, Keep); 3] = [
            (|| Activation::Relu, relu),
            (|| Activation::JumpRelu(on_device(&[0.75f32, 2.0], test_device())), jump),
            (|| Activation::TopK(1), top),
        ];
        for (activation, keep) in kinds {
            for scaling in [Scaling::By(1.0), Scaling::By(0.4), Scaling::Norm, Scaling::Standard] {
                for centred in [false, true] {
                    let sae = sae(activation(), scaling, centred);
                    let active = sae.encode(&x());
                    let back = to_host(&sae.decode(&active, &x()));
                    let active = to_host(&active);
                    for (row, x) in [[1.0, 2.0, 0.25], [-1.0, 0.5, 3.0]].iter().enumerate() {
                        let (own, decoded) = naive(&sae, x, |z| {
                            let most = z.iter().copied().fold(f64::MIN, f64::max);
                            z.iter().zip([0.75, 2.0]).map(|(z, threshold)| keep(*z, threshold, most)).collect()
                        });
                        let close =
                            |a: &[f32], b: &[f64]| a.iter().zip(b).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5);
                        assert!(close(&active[2 * row..], &own), "{scaling:?} {active:?} {own:?}");
                        assert!(close(&back[3 * row..], &decoded), "{scaling:?} {back:?} {decoded:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_direction_is_what_one_unit_adds() {
        let sae = sae(Activation::Relu, Scaling::By(0.4), false);
        let some = on_device(&[1.0f32, 3.0, 2.0, 3.0], test_device()).view([2, 2]);
        let back = sae.decode(&some, &x());
        assert!((back.get(1) - back.get(0)).allclose(&sae.direction(0), 1e-5, 1e-6, false));
    }
}
