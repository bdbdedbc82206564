//! AdamW over one flat buffer, with float32 master weights and moments whatever the compute precision.
//!
//! In float32 the model's own buffer is the master. In bfloat16 the gradients of the micro-batches add up in float32
//! (`accumulate` after each backward pass), and every step ends by rounding the master into the model. Gradients take
//! memory only from `begin` to `step`.
//!
//! Master and moments, 12 bytes per weight, may stay on the host while the model is on a GPU. The step is then done on
//! the host, part by part: gradients are copied there and new weights back, and the device never holds more than one
//! part besides the model.

use crate::dist::Comm;
use crate::model::Weights;
use crate::torch::{self, AdamWStep, to_host};
use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

/// Weights that an offloaded step takes at a time: 256 MiB of float32.
const PART: i64 = 1 << 26;

/// The optimizer of one model.
pub struct AdamW {
    /// The model's, shared with it.
    weights: Weights,
    /// From `begin` to `step`.
    gradient: Option<Gradient>,
    /// The weights that are optimised, [P] float32, if the model's own are of another kind or elsewhere.
    master: Option<Tensor>,
    /// First and second moment, [P] float32.
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    /// Number of steps taken, a float32 scalar.
    step: Tensor,
    /// Weights taken at a time.
    part: i64,
}

/// The gradient accumulated so far.
struct Gradient {
    /// What backward passes add to, [P] in the compute kind.
    open: Tensor,
    /// Sum of the micro-batches' gradients, [P] float32, if the compute kind is another.
    sum: Option<Tensor>,
}

impl AdamW {
    /// An optimizer with zero moments for `weights`, which must be trainable.
    pub fn new(weights: &Weights) -> Self {
        Self::at(weights, weights.flat().device(), weights.flat().size()[0])
    }

    /// `new`, with master weights and moments on the host.
    pub fn offloaded(weights: &Weights) -> Self {
        Self::at(weights, Device::Cpu, PART)
    }

    fn at(weights: &Weights, home: Device, part: i64) -> Self {
        let flat = weights.flat();
        let zeros = || Tensor::zeros(flat.size(), (Kind::Float, home));
        let elsewhere = flat.kind() != Kind::Float || home != flat.device();
        Self {
            master: elsewhere.then(|| flat.to_device(home).to_kind(Kind::Float)),
            exp_avg: zeros(),
            exp_avg_sq: zeros(),
            step: Tensor::zeros([0i64; 0], (Kind::Float, home)),
            weights: weights.shallow_clone(),
            gradient: None,
            part,
        }
    }

    /// Allocates a zero gradient for the next step; called before its first backward pass. Between steps there are no
    /// gradients, so that rollouts and another model's updates can use their memory.
    pub fn begin(&mut self) -> Result<()> {
        let open = self.weights.open_gradient()?;
        let sum = (open.kind() != Kind::Float).then(|| open.totype(Kind::Float));
        self.gradient = Some(Gradient { open, sum });
        Ok(())
    }

    /// Makes the gradient zero again, for another try.
    pub fn forget(&mut self) {
        if let Some(Gradient { open, sum }) = &mut self.gradient {
            tch::no_grad(|| std::iter::once(open).chain(sum).for_each(|part| drop(part.zero_())));
        }
    }

    /// Adds one micro-batch's gradient; called after each backward pass.
    pub fn accumulate(&mut self) {
        if let Some(Gradient { open, sum: Some(sum) }) = &mut self.gradient {
            tch::no_grad(|| {
                *sum += &*open;
                let _ = open.zero_();
            });
        }
    }

    /// Adds up the accumulated gradients of all ranks.
    ///
    /// # Errors
    /// Those of `Comm::sum`.
    pub fn sum_gradient(&mut self, comm: &dyn Comm) -> Result<()> {
        let Some(Gradient { open, sum }) = &mut self.gradient else { return Ok(()) };
        comm.sum(sum.as_mut().unwrap_or(open))
    }

    /// One step on the accumulated gradient, clipped to a global norm of `max_norm` (0: not clipped), which is freed.
    /// Returns the norm before clipping and the sum of the new weights, float32 scalars; if the norm is not finite, the
    /// weights stay as they are. `guard`, a scalar, is added to the norm: 0, or a number that is not finite.
    pub fn step(&mut self, max_norm: f64, hyper: AdamWStep, guard: &Tensor) -> Result<[Tensor; 2]> {
        let gradient = self.gradient.take().context("a step without a gradient")?;
        self.weights.close_gradient()?;
        tch::no_grad(|| {
            let mut grad = gradient.sum.unwrap_or(gradient.open);
            let norm = grad.norm() + guard;
            if max_norm > 0.0 {
                let coefficient = ((&norm + 1e-6).reciprocal() * max_norm).clamp_max(1.0);
                let _ = grad.g_mul_(&coefficient);
            }
            // The kernel divides by 1 - beta^step, so the count comes first (as in torch.optim).
            let _ = self.step.g_add_scalar_(1);
            let (flat, home) = (self.weights.flat(), self.step.device());
            let mut skip = norm.isfinite().logical_not().to_kind(Kind::Float).to_device(home);
            let total = flat.size()[0];
            for first in (0..total).step_by(self.part.max(1) as usize) {
                let own = |x: &Tensor| x.narrow(0, first, self.part.min(total - first));
                let mut down = own(&grad).to_device(home);
                let mut learnt = own(self.master.as_ref().unwrap_or(flat));
                let (mut exp_avg, mut exp_avg_sq) = (own(&self.exp_avg), own(&self.exp_avg_sq));
                let (count, skip) = (&mut self.step, &mut skip);
                torch::fused_adamw(&mut learnt, &mut down, &mut exp_avg, &mut exp_avg_sq, count, skip, hyper)?;
                if self.master.is_some() {
                    own(flat).copy_(&learnt);
                }
            }
            // A sum needs no second buffer, and one value that is not finite makes it so.
            Ok([norm, flat.sum(flat.kind()).to_kind(Kind::Float)])
        })
    }

    /// Gives up the gradient since `begin`.
    ///
    /// # Errors
    /// Those of libtorch.
    pub fn abandon(&mut self) -> Result<()> {
        self.gradient = None;
        self.weights.close_gradient()
    }

    /// The tensors whose gradient since the last `accumulate` is not finite.
    pub fn broken_gradients(&self) -> Vec<String> {
        broken(self.weights.entries().iter().map(|(name, tensor)| (name, tensor.grad())))
    }

    /// The tensors whose weights are not finite.
    pub fn broken_weights(&self) -> Vec<String> {
        broken(self.weights.entries().iter().map(|(name, tensor)| (name, tensor.detach())))
    }

    /// Everything a resumed run needs, by name: moments, step count, and the master weights if there are any.
    pub fn state(&self) -> Vec<(&'static str, Tensor)> {
        let mut state = vec![
            ("exp_avg", self.exp_avg.shallow_clone()),
            ("exp_avg_sq", self.exp_avg_sq.shallow_clone()),
            ("step", self.step.shallow_clone()),
        ];
        state.extend(self.master.as_ref().map(|master| ("master", master.shallow_clone())));
        state
    }
}

/// The names of the tensors that are not finite.
fn broken<'a>(named: impl Iterator<Item = (&'a String, Tensor)>) -> Vec<String> {
    let (names, sums): (Vec<_>, Vec<_>) = named.map(|(name, tensor)| (name, tensor.sum(Kind::Float))).unzip();
    let sums = to_host(&Tensor::stack(&sums, 0));
    names.into_iter().zip(sums).filter(|(_, sum)| !sum.is_finite()).map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Head, ModelConfig};
    use tch::Device;

    impl AdamW {
        /// As if a backward pass had produced this gradient.
        fn put(&self, gradient: &Tensor) {
            self.gradient.as_ref().unwrap().open.shallow_clone().copy_(gradient);
        }
    }

    /// Steps; returns the norm.
    fn descend(optimizer: &mut AdamW, max_norm: f64, hyper: AdamWStep) -> f64 {
        let [norm, _] = optimizer.step(max_norm, hyper, &Tensor::from(0f32)).unwrap();
        norm.double_value(&[])
    }

    /// A model small enough to step by hand.
    fn config() -> ModelConfig {
        ModelConfig::from_json(
            r#"{"architectures": ["LlamaForCausalLM"], "vocab_size": 4, "hidden_size": 4, "intermediate_size": 4,
                "num_hidden_layers": 1, "num_attention_heads": 1, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
                "max_position_embeddings": 8}"#,
        )
        .unwrap()
    }

    const HYPER: AdamWStep = AdamWStep { lr: 0.1, betas: [0.9, 0.99], eps: 1e-8, weight_decay: 0.1 };

    #[test]
    fn steps_equal_the_published_algorithm() {
        let mut weights = Weights::random(&config(), Head::Language, Kind::Float, Device::Cpu, 3).unwrap();
        weights.require_grad();
        let mut optimizer = AdamW::new(&weights);
        let mut naive: Vec<f64> = to_host(weights.flat()).into_iter().map(f64::from).collect();
        let (mut m, mut v) = (vec![0.0; naive.len()], vec![0.0; naive.len()]);
        for t in 1..=5 {
            let grad: Vec<f32> = (0..naive.len()).map(|i| ((i * 7 + t * 3) % 11) as f32 / 5.0 - 1.0).collect();
            optimizer.begin().unwrap();
            optimizer.put(&Tensor::from_slice(&grad));
            let norm = grad.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            let reported = descend(&mut optimizer, 1.0, HYPER);
            assert!((reported - norm).abs() < 1e-3 * norm);
            for i in 0..naive.len() {
                let g = f64::from(grad[i]) / (norm + 1e-6);
                m[i] = 0.9 * m[i] + 0.1 * g;
                v[i] = 0.99 * v[i] + 0.01 * g * g;
                let (mhat, vhat) = (m[i] / (1.0 - 0.9f64.powi(t as i32)), v[i] / (1.0 - 0.99f64.powi(t as i32)));
                naive[i] -= 0.1 * (mhat / (vhat.sqrt() + 1e-8) + 0.1 * naive[i]);
            }
        }
        for (got, expected) in to_host(weights.flat()).iter().zip(&naive) {
            assert!((f64::from(*got) - expected).abs() < 2e-5, "{got} {expected}");
        }
        assert!(weights.entries().iter().all(|(_, tensor)| !tensor.grad().defined()));
    }

    /// Parts that hold several tensors, the last one shorter. Their length is a multiple of a vector register's: the
    /// kernel may round elements that do not fill a register differently.
    #[test]
    fn a_step_in_parts_is_the_same_step() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let stepped = |part: Option<i64>| {
                let mut weights = Weights::random(&config(), Head::Language, kind, Device::Cpu, 3).unwrap();
                weights.require_grad();
                let mut optimizer = AdamW::new(&weights);
                optimizer.part = part.unwrap_or(optimizer.part);
                for step in 0..3 {
                    let grad = Tensor::arange(weights.flat().size()[0], (Kind::Float, Device::Cpu)) * 0.1 + step;
                    optimizer.begin().unwrap();
                    optimizer.put(&grad.sin());
                    optimizer.accumulate();
                    descend(&mut optimizer, 1.0, HYPER);
                }
                to_host(weights.flat())
            };
            assert_eq!(stepped(None), stepped(Some(96)));
        }
    }

    #[test]
    fn bfloat16_keeps_what_its_weights_cannot_hold() {
        let mut weights = Weights::random(&config(), Head::Language, Kind::BFloat16, Device::Cpu, 3).unwrap();
        weights.require_grad();
        let mut optimizer = AdamW::new(&weights);
        let before = to_host(weights.flat());
        let hyper = AdamWStep { lr: 1e-5, weight_decay: 0.0, ..HYPER };
        // One such step is lost in bfloat16's eight bits; a thousand of them must not be.
        for _ in 0..1000 {
            optimizer.begin().unwrap();
            optimizer.put(&Tensor::from(1.0f32));
            optimizer.accumulate();
            descend(&mut optimizer, 0.0, hyper);
        }
        let moved = to_host(weights.flat()).iter().zip(&before).map(|(a, b)| f64::from(b - a)).sum::<f64>()
            / before.len() as f64;
        assert!((moved - 0.01).abs() < 0.002, "{moved}");
    }

    #[test]
    fn a_gradient_that_is_not_finite_moves_nothing() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let mut weights = Weights::random(&config(), Head::Language, kind, Device::Cpu, 3).unwrap();
            weights.require_grad();
            let mut optimizer = AdamW::new(&weights);
            let before = to_host(weights.flat());
            for poison in [f32::NAN, f32::INFINITY] {
                optimizer.begin().unwrap();
                optimizer.put(&Tensor::from(poison));
                assert_eq!(optimizer.broken_gradients().len(), weights.entries().len());
                optimizer.accumulate();
                assert!(!descend(&mut optimizer, 1.0, HYPER).is_finite());
            }
            // A gradient of a loss that is not finite.
            optimizer.begin().unwrap();
            optimizer.put(&Tensor::from(1f32));
            assert!(optimizer.broken_gradients().is_empty());
            optimizer.accumulate();
            let [norm, sum] = optimizer.step(1.0, HYPER, &Tensor::from(f32::NAN)).unwrap();
            assert!(norm.double_value(&[]).is_nan() && sum.double_value(&[]).is_finite());
            assert_eq!(to_host(weights.flat()), before);
            assert!(optimizer.state().iter().all(|(_, state)| to_host(state).iter().all(|x| x.is_finite())));
        }
    }
}
