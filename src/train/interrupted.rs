//! A step that was stopped in its update, after some of its mini-batches: what it needs to go on there.
//!
//! Decided: the weights have moved, so that the step can neither be dropped nor begun again, and its mini-batches may
//! take minutes. What the update learns from is small beside the weights: tokens and estimates are kept, and grades,
//! advantages and returns follow from them again, bit for bit.

use super::clock::Clock;
use super::descent::Scalars;
use super::estimates::Estimates;
use super::rollouts::Rollout;
use crate::checkpoint::{read_tensors, save_tensors, write_text};
use crate::json;
use crate::rollout::Response;
use crate::torch::{ids_to_host, to_host};
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// What a step has come to before its update was stopped.
pub struct Interrupted {
    pub responses: Vec<Response>,
    pub estimates: Estimates,
    pub so_far: SoFar,
}

/// How far the update has come.
#[derive(Default, Deserialize, Serialize)]
pub struct SoFar {
    /// The figures of the mini-batches that are done.
    pub learnt: Learnt,
    /// The seconds so far.
    pub clock: Clock,
}

/// The figures of the mini-batches that critic and actor have learnt from, in order.
#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Learnt {
    pub critic: Vec<Scalars>,
    pub actor: Vec<Scalars>,
}

impl Learnt {
    /// Whether any weight has moved.
    pub fn has_begun(&self) -> bool {
        !(self.critic.is_empty() && self.actor.is_empty())
    }
}

const TENSORS: &str = "step.safetensors";
const SO_FAR: &str = "step.json";

impl Interrupted {
    pub fn new(rollouts: Vec<Rollout>, estimates: Estimates, so_far: SoFar) -> Self {
        let response = |rollout: Rollout| Response {
            ids: rollout.sequence.response,
            log_probs: rollout.log_probs,
            terminated: rollout.terminated,
        };
        Self { responses: rollouts.into_iter().map(response).collect(), estimates, so_far }
    }

    /// Writes it into the folder of a checkpoint.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn save(&self, dir: &Path) -> Result<()> {
        let each = |of: fn(&Response) -> i64| Tensor::from_slice(&self.responses.iter().map(of).collect::<Vec<_>>());
        let ids: Vec<i64> = self.responses.iter().flat_map(|response| response.ids.iter().copied()).collect();
        let sampler: Vec<f32> = self.responses.iter().flat_map(|response| response.log_probs.iter().copied()).collect();
        let Estimates { old, reference, values } = &self.estimates;
        let mut tensors = vec![
            ("lengths", each(|response| response.ids.len() as i64)),
            ("terminated", each(|response| i64::from(response.terminated))),
            ("ids", Tensor::from_slice(&ids)),
            ("sampler", Tensor::from_slice(&sampler)),
            ("old", old.shallow_clone()),
        ];
        tensors.extend(reference.iter().map(|reference| ("reference", reference.shallow_clone())));
        tensors.extend(values.iter().map(|values| ("values", values.shallow_clone())));
        save_tensors(&dir.join(TENSORS), &tensors)?;
        write_text(&dir.join(SO_FAR), &serde_json::to_string_pretty(&self.so_far)?)
    }

    /// Reads what `save` wrote; the estimates are put on `device`.
    ///
    /// # Errors
    /// Files that are not what `save` writes.
    pub fn load(dir: &Path, device: Device) -> Result<Self> {
        let path = dir.join(TENSORS);
        let read = || -> Result<Self> {
            let tensors = read_tensors(&path)?;
            let lengths = of_kind(&tensors, "lengths", Kind::Int64)?;
            let terminated = ids_to_host(of_kind(&tensors, "terminated", Kind::Int64)?);
            let ids = ids_to_host(of_kind(&tensors, "ids", Kind::Int64)?);
            let sampler = to_host(of_kind(&tensors, "sampler", Kind::Float)?);
            let lengths: Vec<usize> =
                ids_to_host(lengths).into_iter().map(usize::try_from).collect::<Result<_, _>>()?;
            let tokens = lengths.iter().try_fold(0usize, |sum, length| sum.checked_add(*length));
            ensure!(
                tokens == Some(ids.len()) && ids.len() == sampler.len() && lengths.len() == terminated.len(),
                "its lengths do not fit"
            );
            let (mut ids, mut sampler) = (ids.into_iter(), sampler.into_iter());
            let response = |(length, terminated): (usize, i64)| Response {
                ids: ids.by_ref().take(length).collect(),
                log_probs: sampler.by_ref().take(length).collect(),
                terminated: terminated != 0,
            };
            let responses = lengths.into_iter().zip(terminated).map(response).collect();
            let estimate = |name: &str| -> Result<Tensor> {
                let own = of_kind(&tensors, name, Kind::Float)?;
                ensure!(own.numel() == tokens.unwrap_or(0), "{name} has {} numbers", own.numel());
                Ok(own.to_device(device))
            };
            let optional = |name: &str| tensors.contains_key(name).then(|| estimate(name)).transpose();
            let estimates =
                Estimates { old: estimate("old")?, reference: optional("reference")?, values: optional("values")? };
            Ok(Self { responses, estimates, so_far: json::read(&dir.join(SO_FAR))? })
        };
        read().with_context(|| format!("{} cannot be used", path.display()))
    }
}

/// A flat tensor of a kind.
fn of_kind<'a>(tensors: &'a HashMap<String, Tensor>, name: &str, kind: Kind) -> Result<&'a Tensor> {
    let tensor = tensors.get(name).with_context(|| format!("it has no tensor {name}"))?;
    ensure!(tensor.kind() == kind && tensor.dim() == 1, "its tensor {name} is not a row of {kind:?}");
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::test_device;

    #[test]
    fn what_is_kept_is_read_back_to_the_bit() {
        let dir = tempfile::tempdir().unwrap();
        let response = |ids: &[i64], terminated| Response {
            ids: ids.to_vec(),
            log_probs: ids.iter().map(|id| -1.0 / *id as f32).collect(),
            terminated,
        };
        let estimates = || Estimates {
            old: Tensor::from_slice(&[-0.1f32, -0.2, -0.3]),
            reference: None,
            values: Some(Tensor::from_slice(&[0.1f32, 1.0 / 3.0, -0.0])),
        };
        let figures = Scalars::from([("critic/vf_loss".into(), 1.0 / 3.0)]);
        let mut so_far = SoFar::default();
        so_far.learnt.critic.push(figures.clone());
        let responses = vec![response(&[3, 4], true), response(&[], false), response(&[7], true)];
        let written = Interrupted { responses, estimates: estimates(), so_far };
        written.save(dir.path()).unwrap();
        let read = Interrupted::load(dir.path(), test_device()).unwrap();
        assert_eq!(read.responses, written.responses);
        assert!(read.estimates.reference.is_none());
        assert_eq!(to_host(&read.estimates.old), to_host(&estimates().old));
        assert_eq!(to_host(&read.estimates.values.unwrap()), to_host(&estimates().values.unwrap()));
        assert_eq!(read.so_far.learnt.critic, [figures]);
        assert!(read.so_far.learnt.has_begun() && !Learnt::default().has_begun());

        // Files of another step.
        save_tensors(&dir.path().join(TENSORS), &[("lengths", Tensor::from_slice(&[5i64]))]).unwrap();
        let error = format!("{:#}", Interrupted::load(dir.path(), test_device()).map(drop).unwrap_err());
        assert!(error.contains("step.safetensors cannot be used: it has no tensor terminated"), "{error}");
    }
}
