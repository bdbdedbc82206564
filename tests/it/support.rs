//! What several tests need.

use ppo_train::torch::{kind_of, to_host};
use safetensors::SafeTensors;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tch::Tensor;

/// A file of tests/golden.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// All tensors of a golden file.
pub fn tensors(name: &str) -> HashMap<String, Tensor> {
    let bytes = std::fs::read(golden(name)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |data: safetensors::tensor::TensorView| {
        let shape: Vec<i64> = data.shape().iter().map(|d| *d as i64).collect();
        Tensor::from_data_size(data.data(), &shape, kind_of(data.dtype()).unwrap())
    };
    file.iter().map(|(name, data)| (name.to_string(), tensor(data))).collect()
}

/// Asserts that the largest difference is at most `bound` of the expected tensor's largest magnitude.
pub fn assert_close(what: &str, got: &Tensor, expected: &Tensor, bound: f64) {
    assert_eq!(got.size(), expected.size(), "{what}");
    let (got, expected) = (to_host(got), to_host(expected));
    let scale = expected.iter().fold(1e-12f64, |m, e| m.max(f64::from(e.abs())));
    let worst = got.iter().zip(&expected).map(|(g, e)| f64::from((g - e).abs())).fold(0.0, f64::max);
    assert!(
        worst.is_finite() && worst <= bound * scale,
        "{what}: off by {worst:.3e}, largest {scale:.3e}, bound {bound:.0e}"
    );
}
