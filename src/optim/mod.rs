//! AdamW over one flat buffer, with float32 master weights and moments whatever the compute precision.
//!
//! In float32 the model's own buffer is the master. In bfloat16 the gradients of the micro-batches add up in float32
//! (`accumulate` after each backward pass), and every step ends by rounding the master into the model. Gradients take
//! memory only from `begin` to `step`.
//!
//! Ranks divide it (ZeRO stage 1, arXiv:1910.02054): each has master and moments of its own part of the buffer, sums
//! the gradients of that part, steps there, and gets the other parts' new weights.
//!
//! Master and moments, 12 bytes per weight, may stay on the host while the model is on a GPU. The step is then done on
//! the host, part by part: gradients are copied there and new weights back, and the device never holds more than one
//! part besides the model.

use crate::dist::{Comm, Part, gathered};
use crate::model::Weights;
use crate::torch::{self, AdamWStep, to_host};
use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

/// Weights that an offloaded step takes at a time: 256 MiB of float32.
const AT_ONCE: i64 = 1 << 26;

/// The optimizer of one model.
pub struct AdamW {
    /// The model's, shared with it.
    weights: Weights,
    /// From `begin` to `step`.
    gradient: Option<Gradient>,
    /// Which of the weights are this rank's, L of P.
    part: Part,
    /// The weights that are optimised, [L] float32, if the model's own are of another kind or elsewhere.
    master: Option<Tensor>,
    /// First and second moment, [L] float32.
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    /// Number of steps taken, a float32 scalar.
    step: Tensor,
    /// Weights taken at a time.
    at_once: i64,
}

/// The gradient accumulated so far.
struct Gradient {
    /// What backward passes add to, [P] in the compute kind.
    open: Tensor,
    /// Sum of the micro-batches' gradients, [P] float32, if the compute kind is another.
    sum: Option<Tensor>,
}

impl AdamW {
    /// An optimizer with zero moments for `weights`, which must be trainable; this rank's part of it.
    pub fn new(weights: &Weights, comm: &dyn Comm) -> Self {
        Self::at(weights, comm, weights.flat().device(), weights.flat().size()[0])
    }

    /// `new`, with master weights and moments on the host.
    pub fn offloaded(weights: &Weights, comm: &dyn Comm) -> Self {
        Self::at(weights, comm, Device::Cpu, AT_ONCE)
    }

    fn at(weights: &Weights, comm: &dyn Comm, home: Device, at_once: i64) -> Self {
        let flat = weights.flat();
        let part = Part::of(comm.rank(), comm.size(), flat.size()[0]);
        let zeros = || Tensor::zeros([part.len], (Kind::Float, home));
        let elsewhere = flat.kind() != Kind::Float || home != flat.device();
        Self {
            part,
            master: elsewhere.then(|| part.cut(&flat.detach()).to_device(home).to_kind(Kind::Float)),
            exp_avg: zeros(),
            exp_avg_sq: zeros(),
            step: Tensor::zeros([0i64; 0], (Kind::Float, home)),
            weights: weights.shallow_clone(),
            gradient: None,
            at_once,
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

    /// One step on the accumulated gradient of all ranks, clipped to a global norm of `max_norm` (0: not clipped),
    /// which is freed. Returns the norm before clipping and the sum of the new weights, float32 scalars; if the norm is
    /// not finite, the weights stay as they are. `guard`, a scalar, is added to the norm: 0, or not a finite number.
    ///
    /// # Errors
    /// Those of `Comm::sum`.
    pub fn step(&mut self, comm: &dyn Comm, max_norm: f64, hyper: AdamWStep, guard: &Tensor) -> Result<[Tensor; 2]> {
        let gradient = self.gradient.take().context("a step without a gradient")?;
        self.weights.close_gradient()?;
        tch::no_grad(|| {
            let mut all = gradient.sum.unwrap_or(gradient.open);
            comm.sum_parts(&mut all)?;
            let mut grad = self.part.cut(&all);
            let mut squares = sum_of_squares(&grad);
            comm.sum(&mut squares)?;
            let norm = squares.sqrt().to_kind(Kind::Float) + guard;
            if max_norm > 0.0 {
                let coefficient = ((&norm + 1e-6).reciprocal() * max_norm).clamp_max(1.0);
                let _ = grad.g_mul_(&coefficient);
            }
            // The kernel divides by 1 - beta^step, so the count comes first (as in torch.optim).
            let _ = self.step.g_add_scalar_(1);
            let (flat, home) = (self.weights.flat(), self.step.device());
            let mut skip = norm.isfinite().logical_not().to_kind(Kind::Float).to_device(home);
            let flat = flat.detach();
            let (ours, total) = (self.part.cut(&flat), self.part.len);
            for first in (0..total).step_by(self.at_once.max(1) as usize) {
                let own = |x: &Tensor| x.narrow(0, first, self.at_once.min(total - first));
                let mut down = own(&grad).to_device(home);
                let mut learnt = own(self.master.as_ref().unwrap_or(&ours));
                let (mut exp_avg, mut exp_avg_sq) = (own(&self.exp_avg), own(&self.exp_avg_sq));
                let (count, skip) = (&mut self.step, &mut skip);
                torch::fused_adamw(&mut learnt, &mut down, &mut exp_avg, &mut exp_avg_sq, count, skip, hyper)?;
                if self.master.is_some() {
                    own(&ours).copy_(&learnt);
                }
            }
            comm.share_parts(&mut flat.shallow_clone())?;
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

    /// Everything a resumed run needs, by name: moments, step count, and the master weights if there are any; of all
    /// but the count this rank's part, [L] of [P].
    pub fn state(&self) -> Vec<(&'static str, Tensor, Option<Part>)> {
        let part = Some(self.part);
        let mut state = vec![
            ("exp_avg", self.exp_avg.shallow_clone(), part),
            ("exp_avg_sq", self.exp_avg_sq.shallow_clone(), part),
            ("step", self.step.shallow_clone(), None),
        ];
        state.extend(self.master.as_ref().map(|master| ("master", master.shallow_clone(), part)));
        state
    }

    /// `state` of all ranks, whole, on the host; called by all of them, for the first alone.
    ///
    /// # Errors
    /// Those of `Comm::sum`.
    pub fn whole_state(&self, comm: &dyn Comm) -> Result<Vec<(&'static str, Tensor)>> {
        let mut whole = Vec::new();
        for (name, own, part) in self.state() {
            let all = part.map_or(Ok(Some(own.shallow_clone())), |part| gathered(comm, &own, part))?;
            whole.extend(all.map(|all| (name, all)));
        }
        Ok(whole)
    }
}

/// The sum of the squares of a flat gradient, a float64 scalar. Float32 would be off by 1e-4 for a million numbers; so
/// it adds up 64 of them at a time, which is what ranks' parts and tensors are multiples of.
fn sum_of_squares(grad: &Tensor) -> Tensor {
    const ROW: i64 = 64;
    let whole = grad.numel() as i64 / ROW * ROW;
    let rows = grad.narrow(0, 0, whole).view([-1, ROW]);
    let rows = rows.norm_scalaropt_dim(2, [1i64], false).square().sum(Kind::Double);
    rows + grad.narrow(0, whole, grad.numel() as i64 - whole).square().sum(Kind::Double)
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
    use crate::dist::Solo;
    use crate::dist::threads::Thread;
    use crate::model::{Head, ModelConfig};
    use crate::torch::test_device;

    impl AdamW {
        /// As if a backward pass had produced this gradient.
        fn put(&self, gradient: &Tensor) {
            self.gradient.as_ref().unwrap().open.shallow_clone().copy_(gradient);
        }
    }

    /// Steps; returns the norm.
    fn descend(optimizer: &mut AdamW, max_norm: f64, hyper: AdamWStep) -> f64 {
        let [norm, _] = optimizer.step(&Solo, max_norm, hyper, &Tensor::from(0f32)).unwrap();
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
        let mut weights = Weights::random(&config(), Head::Language, Kind::Float, test_device(), 3).unwrap();
        weights.require_grad();
        let mut optimizer = AdamW::new(&weights, &Solo);
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
                let mut weights = Weights::random(&config(), Head::Language, kind, test_device(), 3).unwrap();
                weights.require_grad();
                let mut optimizer = AdamW::new(&weights, &Solo);
                optimizer.at_once = part.unwrap_or(optimizer.at_once);
                for step in 0..3 {
                    let grad = Tensor::arange(weights.flat().size()[0], (Kind::Float, test_device())) * 0.1 + step;
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
        let mut weights = Weights::random(&config(), Head::Language, Kind::BFloat16, test_device(), 3).unwrap();
        weights.require_grad();
        let mut optimizer = AdamW::new(&weights, &Solo);
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
            let mut weights = Weights::random(&config(), Head::Language, kind, test_device(), 3).unwrap();
            weights.require_grad();
            let mut optimizer = AdamW::new(&weights, &Solo);
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
            let [norm, sum] = optimizer.step(&Solo, 1.0, HYPER, &Tensor::from(f32::NAN)).unwrap();
            assert!(norm.double_value(&[]).is_nan() && sum.double_value(&[]).is_finite());
            assert_eq!(to_host(weights.flat()), before);
            assert!(optimizer.state().iter().all(|(_, state, _)| to_host(state).iter().all(|x| x.is_finite())));
        }
    }

    /// Two and three ranks with a third and a half of the gradient each; parts that do not divide the buffer evenly.
    #[test]
    fn ranks_with_a_part_each_take_the_same_step() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let stepped = |comm: &dyn Comm| {
                let mut weights = Weights::random(&config(), Head::Language, kind, test_device(), 3).unwrap();
                weights.require_grad();
                let mut optimizer = AdamW::new(&weights, comm);
                let total = weights.flat().size()[0];
                let mut norms = vec![];
                for step in 0..3 {
                    let grad = (Tensor::arange(total, (Kind::Float, test_device())) * 0.1 + step).sin();
                    optimizer.begin().unwrap();
                    optimizer.put(&(grad / comm.size() as f64));
                    optimizer.accumulate();
                    let [norm, _] = optimizer.step(comm, 1.0, HYPER, &Tensor::from(0f32)).unwrap();
                    norms.push(norm.double_value(&[]));
                }
                let whole = optimizer.whole_state(comm).unwrap();
                assert_eq!(whole.len(), if comm.is_first() { optimizer.state().len() } else { 1 });
                let held = optimizer.exp_avg.numel() as i64;
                (to_host(weights.flat()), norms, whole.iter().map(|(_, all)| to_host(all)).collect::<Vec<_>>(), held)
            };
            let (weights, norms, state, total) = stepped(&Solo);
            for size in [2, 3] {
                let held = std::thread::scope(|scope| {
                    let ranks: Vec<_> = Thread::group(size)
                        .into_iter()
                        .map(|comm| scope.spawn(move || (comm.is_first(), stepped(&comm))))
                        .collect();
                    ranks.into_iter().map(|rank| rank.join().unwrap()).collect::<Vec<_>>()
                });
                let near =
                    |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-2);
                assert_eq!(held.iter().map(|(_, rank)| rank.3).sum::<i64>(), total);
                for (first, (own, own_norms, own_state, _)) in &held {
                    assert_eq!(own, &held[0].1.0, "all ranks have the same weights");
                    assert!(near(own, &weights));
                    assert!(own_norms.iter().zip(&norms).all(|(a, b)| (a - b).abs() < 1e-2 * b));
                    assert!(!first || own_state.iter().zip(&state).all(|(a, b)| near(a, b)));
                }
            }
        }
    }
}
