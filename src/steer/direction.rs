//! Directions in the residual stream, and where they come from.

use crate::checkpoint::save_tensors;
use crate::model::named_tensor;
use crate::rng::{Purpose, stream};
use crate::torch::to_host;
use crate::{OrBadInput, bad};
use anyhow::Result;
use rand::RngExt;
use std::path::Path;
use tch::Tensor;

/// The tensor that `Direction::save` writes.
const TENSOR: &str = "direction";

/// A direction, as long as its source has it: strengths in raw units are multiples of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Direction {
    /// Where it comes from, in words.
    pub name: String,
    /// [H]
    pub vector: Vec<f32>,
    /// The largest activation of the feature that it belongs to, where that is known.
    pub max_activation: Option<f64>,
}

impl Direction {
    /// A vector [H] such as the decoder row of a feature, with the largest activation of the feature if that is known.
    ///
    /// # Errors
    /// Bad input: numbers that are not finite or all 0; an activation that is not a number above 0.
    pub fn from_vector(name: impl Into<String>, vector: Vec<f32>, max_activation: Option<f64>) -> Result<Self> {
        let name = name.into();
        let own = Self { name, vector, max_activation };
        let name = &own.name;
        if let Some(at) = own.vector.iter().position(|x| !x.is_finite()) {
            return Err(bad!("{name}: number {at} is {}, expected finite ones", own.vector[at]));
        }
        if own.norm() == 0.0 {
            return Err(bad!("{name}: all its numbers are 0, which is no direction"));
        }
        if let Some(most) = max_activation.filter(|most| !(most.is_finite() && *most > 0.0)) {
            return Err(bad!("{name}: its largest activation is {most}, expected a number above 0"));
        }
        Ok(own)
    }

    /// A named tensor, [H] or [1, H], of a safetensors file.
    ///
    /// # Errors
    /// Bad input: no such tensor, or one of another shape; those of `from_vector`.
    pub fn from_file(path: &Path, tensor: &str) -> Result<Self> {
        let found = named_tensor(path, tensor).bad_input()?;
        let shape = found.size();
        let name = format!("{tensor} of {}", path.display());
        match shape[..] {
            [_] | [1, _] => Self::from_vector(name, to_host(&found), None),
            _ => Err(bad!("{name} has the shape {shape:?}, expected [H] or [1, H]: one direction")),
        }
    }

    /// A direction of equal chances, as long as `norm`: the `index`-th of a seed.
    pub fn random(width: usize, norm: f64, seed: u64, index: u64) -> Self {
        let mut rng = stream(seed, Purpose::Directions, 0, index);
        // Normal numbers have no preferred direction (Muller 1959); two uniform ones make one (Box and Muller 1958).
        let mut normal = || {
            let (radius, angle): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
            (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
        };
        let drawn: Vec<f64> = (0..width).map(|_| normal()).collect();
        let factor = norm / drawn.iter().map(|x| x * x).sum::<f64>().sqrt();
        let vector = drawn.iter().map(|x| (factor * x) as f32).collect();
        Self { name: format!("random direction {index} of seed {seed}"), vector, max_activation: None }
    }

    /// The same, as long as `norm`; nothing is known of its activation then.
    pub fn of_norm(self, norm: f64) -> Self {
        let factor = norm / self.norm();
        let vector = self.vector.iter().map(|x| (factor * f64::from(*x)) as f32).collect();
        Self { vector, max_activation: None, ..self }
    }

    /// Its length.
    pub fn norm(&self) -> f64 {
        self.dot(self).sqrt()
    }

    /// The cosine of the angle to another direction of the same size.
    pub fn cosine(&self, other: &Self) -> f64 {
        self.dot(other) / (self.norm() * other.norm())
    }

    fn dot(&self, other: &Self) -> f64 {
        self.vector.iter().zip(&other.vector).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    /// Writes it as the tensor `direction` of a safetensors file.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, path: &Path) -> Result<()> {
        save_tensors(path, &[(TENSOR, Tensor::from_slice(&self.vector))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_directions_have_the_norm_and_nothing_else_in_common() {
        let draw = |seed, index| Direction::random(400, 2.5, seed, index);
        let all = [draw(1, 0), draw(1, 1), draw(2, 0)];
        for (i, direction) in all.iter().enumerate() {
            assert!((direction.norm() - 2.5).abs() < 1e-5, "{}", direction.norm());
            for other in &all[..i] {
                // The standard deviation of a cosine is 1 / sqrt(400).
                assert!(direction.cosine(other).abs() < 0.2, "{}", direction.cosine(other));
            }
        }
        assert_eq!(draw(1, 1), all[1]);
        let mean = all[0].vector.iter().sum::<f32>() / 400.0;
        assert!(mean.abs() < 5.0 * 2.5 / 400.0, "{mean}");
    }

    #[test]
    fn a_file_gives_back_what_was_saved() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("d.safetensors");
        let own = Direction::from_vector("feature 7", vec![1.0, -2.0, 2.0], Some(4.0)).unwrap();
        own.save(&path).unwrap();
        let read = Direction::from_file(&path, "direction").unwrap();
        assert_eq!((read.vector, read.max_activation), (own.vector.clone(), None));
        assert_eq!((own.norm(), own.cosine(&own)), (3.0, 1.0));

        let refused = |path: &Path, tensor: &str| Direction::from_file(path, tensor).unwrap_err().to_string();
        let error = refused(&path, "directions");
        assert!(error.contains("it has no tensor `directions`; did you mean `direction`?"), "{error}");
        let error = refused(&dir.path().join("none.safetensors"), "d");
        assert!(error.ends_with("none.safetensors is not a file"), "{error}");
        save_tensors(&path, &[("rows", Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu)))]).unwrap();
        let error = refused(&path, "rows");
        assert!(error.ends_with("has the shape [2, 3], expected [H] or [1, H]: one direction"), "{error}");
        for (vector, most, message) in [
            (vec![1.0, f32::NAN], None, "d: number 1 is NaN, expected finite ones"),
            (vec![0.0, 0.0], None, "d: all its numbers are 0, which is no direction"),
            (vec![1.0], Some(0.0), "d: its largest activation is 0, expected a number above 0"),
        ] {
            assert_eq!(Direction::from_vector("d", vector, most).unwrap_err().to_string(), message);
        }
    }
}
