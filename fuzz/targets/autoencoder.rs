//! The settings of a sparse autoencoder that somebody else wrote: they are followed, or refused.

use ppo_train::sae;
use tch::{Device, Kind, Tensor};

/// Tensors in either layout, beside which the settings are.
const WEIGHTS: [&[u8]; 3] = [
    include_bytes!("../../tests/golden/sae/standard/sae_weights.safetensors"),
    include_bytes!("../../tests/golden/sae/jumprelu/sae_weights.safetensors"),
    include_bytes!("../../tests/golden/sae/scope/sae_weights.safetensors"),
];

pub fn run(data: &[u8]) {
    for weights in WEIGHTS {
        let dir = tempfile::tempdir().expect("a folder for temporary files");
        std::fs::write(dir.path().join("sae_weights.safetensors"), weights).expect("room for a file");
        std::fs::write(dir.path().join("cfg.json"), data).expect("room for a file");
        match sae::read(dir.path(), Device::Cpu) {
            Err(error) => super::refused(format!("{error:#}"), data.len()),
            Ok((sae, hook)) => {
                let x = Tensor::arange(2 * sae.hidden(), (Kind::Float, Device::Cpu)).view([2, sae.hidden()]).sin();
                let active = sae.encode(&x);
                assert_eq!(active.size(), [2, sae.features()]);
                assert_eq!(sae.decode(&active, &x).size(), x.size());
                // What has been read can be written, and is read again as it was.
                let copy = dir.path().join("copy");
                sae::write(&copy, &sae, &hook).expect("a folder for what was read");
                let (again, its) = sae::read(&copy, Device::Cpu).expect("what was written");
                assert_eq!(its, hook);
                let far = (again.encode(&x) - active).abs().max().double_value(&[]);
                assert!(far.is_nan() || far < 1e-3, "{far}");
            }
        }
    }
}
