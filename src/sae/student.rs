//! An autoencoder while it is trained, over scaled inputs: its losses, and its step.

use super::autoencoder::{Activation, Sae, Scaling, top};
use super::settings::{Settings, Shape};
use crate::torch::{AdamWStep, Generator, fused_adamw, set_grad};
use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// Weight of the auxiliary loss (arXiv:2406.04093, appendix A.2).
const AUXILIARY: f64 = 1.0 / 32.0;
/// Width of the kernel that estimates the thresholds' gradient, where pre-activations are about 1 in size.
const BANDWIDTH: f64 = 0.1;

/// A tensor that is trained, with its moments.
struct Parameter {
    value: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: Tensor,
}

impl Parameter {
    fn new(value: Tensor) -> Result<Self> {
        let mut value = value.contiguous().set_requires_grad(true);
        let mut grad = value.zeros_like();
        set_grad(&mut value, &mut grad)?;
        let (exp_avg, exp_avg_sq) = (grad.zeros_like(), grad.zeros_like());
        let step = Tensor::zeros([0i64; 0], (Kind::Float, value.device()));
        Ok(Self { value, grad, exp_avg, exp_avg_sq, step })
    }

    fn step(&mut self, hyper: AdamWStep, none: &mut Tensor) -> Result<()> {
        let flat = |tensor: &Tensor| tensor.detach().view(-1);
        self.step += 1;
        let (mut weights, mut grad) = (flat(&self.value), flat(&self.grad));
        let (mut exp_avg, mut exp_avg_sq) = (flat(&self.exp_avg), flat(&self.exp_avg_sq));
        fused_adamw(&mut weights, &mut grad, &mut exp_avg, &mut exp_avg_sq, &mut self.step, none, hyper)?;
        let _ = self.grad.zero_();
        Ok(())
    }
}

/// The autoencoder while it is trained, over scaled inputs.
pub struct Student {
    shape: Shape,
    k: i64,
    encoder: Parameter,
    encoder_bias: Parameter,
    decoder: Parameter,
    decoder_bias: Parameter,
    /// [F], of JumpReLU.
    thresholds: Option<Parameter>,
    /// Tokens since each feature was active, [F] float32.
    idle: Tensor,
    /// The features that have died, [F] bool, and how many there are.
    dead: (Tensor, i64),
}

impl Student {
    /// Begun from `x`, scaled tokens [n, H].
    pub fn new(settings: &Settings, x: &Tensor) -> Result<Self> {
        let (hidden, device) = (x.size()[1], x.device());
        let mut rows = Tensor::zeros([settings.features, hidden], (Kind::Float, Device::Cpu));
        Generator::seeded(settings.seed)?.normal(&mut rows, 1.0)?;
        let rows = unit(&rows).to_device(device);
        let mean = x.mean_dim([0i64].as_slice(), false, Kind::Float);
        let zeros = |size: i64| Tensor::zeros([size], (Kind::Float, device));
        let thresholds = match settings.shape {
            Shape::TopK => None,
            Shape::JumpRelu => {
                // Where k features of a token are active from the start.
                let some = x.narrow(0, 0, x.size()[0].min(settings.batch)) - &mean;
                let (kept, _) = some.matmul(&rows.transpose(0, 1)).topk(settings.k, -1, true, true);
                let least = kept.select(1, -1).mean(Kind::Float).clamp_min(BANDWIDTH);
                Some(Parameter::new(zeros(settings.features) + least)?)
            }
        };
        Ok(Self {
            shape: settings.shape,
            k: settings.k,
            encoder: Parameter::new(rows.copy())?,
            encoder_bias: Parameter::new(zeros(settings.features))?,
            decoder: Parameter::new(rows)?,
            decoder_bias: Parameter::new(mean)?,
            thresholds,
            idle: zeros(settings.features),
            dead: (zeros(settings.features).to_kind(Kind::Bool), 0),
        })
    }

    /// One pass over scaled tokens `x` [N, H]: the loss, the share of variance that is not explained, and L0, scalars.
    pub fn pass(&mut self, x: &Tensor) -> [Tensor; 3] {
        let before = (x - &self.decoder_bias.value).linear(&self.encoder.value, Some(&self.encoder_bias.value));
        let (active, sparsity) = match &self.thresholds {
            None => (top(&before, self.k), None),
            Some(thresholds) => {
                let (active, l0) = jump(&before, &thresholds.value.relu());
                (active, Some((l0.mean(Kind::Float) / self.k as f64 - 1.0).square()))
            }
        };
        let is_active = active.detach().gt(0.0);
        let idle = tch::no_grad(|| (&self.idle + x.size()[0] as f64) * is_active.any_dim(0, false).logical_not());
        self.idle = idle;
        let l0 = is_active.sum(Kind::Float) / x.size()[0] as f64;
        let error = x - (active.matmul(&self.decoder.value) + &self.decoder_bias.value);
        let spread = (x - x.mean_dim([0i64].as_slice(), true, Kind::Float)).square().sum(Kind::Float);
        let lost = error.square().sum(Kind::Float) / spread.clamp_min(1e-12);
        let revival = (self.dead.1 > 0).then(|| self.revival(&before, &error.detach()) * AUXILIARY);
        let loss = [sparsity, revival].into_iter().flatten().fold(lost.shallow_clone(), |loss, more| loss + more);
        [loss, lost.detach(), l0]
    }

    /// How badly the dead features, the most nearly active of them, explain the `error` [N, H] of the others; 1 if not
    /// at all.
    fn revival(&self, before: &Tensor, error: &Tensor) -> Tensor {
        let most = (error.size()[1] / 2).max(1).min(self.dead.1);
        let dead = before.masked_fill(&self.dead.0.logical_not(), f64::NEG_INFINITY);
        let explained = top(&dead, most).matmul(&self.decoder.value);
        (error - explained).square().sum(Kind::Float) / error.square().sum(Kind::Float).clamp_min(1e-12)
    }

    /// Steps all parameters; the decoder's rows keep their norm.
    pub fn step(&mut self, lr: f64) -> Result<()> {
        let hyper = AdamWStep { lr, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 };
        tch::no_grad(|| {
            let mut none = Tensor::zeros([0i64; 0], (Kind::Float, self.idle.device()));
            let rows = self.decoder.value.detach();
            let along = (&self.decoder.grad * &rows).sum_dim_intlist([1i64].as_slice(), true, Kind::Float);
            self.decoder.grad -= along * &rows;
            let all = [&mut self.encoder, &mut self.encoder_bias, &mut self.decoder, &mut self.decoder_bias];
            for parameter in all.into_iter().chain(&mut self.thresholds) {
                parameter.step(hyper, &mut none)?;
            }
            let unit = unit(&self.decoder.value.detach());
            self.decoder.value.detach().copy_(&unit);
            Ok(())
        })
    }

    /// Looks at which features have died; returns their share.
    pub fn bury(&mut self, after: f64) -> f64 {
        let dead = self.idle.ge(after);
        let count = dead.sum(Kind::Int64).int64_value(&[]);
        self.dead = (dead, count);
        count as f64 / self.idle.size()[0] as f64
    }

    pub fn sae(&self, factor: f64) -> Sae {
        let of = |parameter: &Parameter| parameter.value.detach();
        Sae {
            encoder: of(&self.encoder),
            encoder_bias: of(&self.encoder_bias),
            decoder: of(&self.decoder),
            decoder_bias: of(&self.decoder_bias),
            activation: match (self.shape, &self.thresholds) {
                (Shape::JumpRelu, Some(thresholds)) => Activation::JumpRelu(of(thresholds).relu()),
                _ => Activation::TopK(self.k),
            },
            scaling: Scaling::By(factor),
            centred: true,
        }
    }
}

/// Rows of norm 1.
pub(super) fn unit(rows: &Tensor) -> Tensor {
    rows / rows.norm_scalaropt_dim(2.0, [1i64], true).clamp_min(1e-12)
}

/// JumpReLU of pre-activations [N, F] and how many are active, [N], with the gradients that the thresholds [F] would
/// have over a rectangle of `BANDWIDTH` around them (arXiv:2407.14435, equations 11 and 12).
pub(super) fn jump(before: &Tensor, thresholds: &Tensor) -> (Tensor, Tensor) {
    let known = thresholds.detach();
    let above = before.detach().gt_tensor(&known).to_kind(Kind::Float);
    let near = ((before.detach() - &known).abs().lt(BANDWIDTH / 2.0)).to_kind(Kind::Float) / BANDWIDTH;
    // Zero, with the gradient -1 with respect to the thresholds.
    let pull = &known - thresholds;
    let active = before * &above + &pull * (&known * &near);
    let l0 = (above + pull * near).sum_dim_intlist([1i64].as_slice(), false, Kind::Float);
    (active, l0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{on_device, test_device, to_host};

    /// Against the published formulas in plain loops: what thresholds get from a sum of activations and from L0.
    #[test]
    fn thresholds_have_the_gradients_of_the_rectangle() {
        let before = on_device(&[0.52f32, 0.46, 0.3, 1.0], test_device()).view([4, 1]);
        let thresholds = on_device(&[0.5f32], test_device()).set_requires_grad(true);
        let gradient = |of: fn((Tensor, Tensor)) -> Tensor| {
            let mut thresholds = thresholds.copy().detach().set_requires_grad(true);
            of(jump(&before, &thresholds)).sum(Kind::Float).backward();
            let gradient = to_host(&thresholds.grad())[0];
            thresholds.zero_grad();
            gradient
        };
        let (active, l0) = jump(&before, &thresholds);
        assert_eq!(to_host(&active), [0.52, 0.0, 0.0, 1.0]);
        assert_eq!(to_host(&l0), [1.0, 0.0, 0.0, 1.0]);
        // Two of the four are within half a bandwidth.
        assert!((gradient(|(active, _)| active) - -(2.0 * 0.5 / BANDWIDTH as f32)).abs() < 1e-4);
        assert!((gradient(|(_, l0)| l0) - -(2.0 / BANDWIDTH as f32)).abs() < 1e-4);
    }
}
