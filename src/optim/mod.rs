//! AdamW over one flat buffer, with float32 master weights and moments whatever the compute precision.
//!
//! In float32 the model's own buffer is the master. In bfloat16 the gradients of the micro-batches add up in float32
//! (`accumulate` after each backward pass), and every step ends by rounding the master into the model. Gradients take
//! memory only from `begin` to `step`.
//!
//! Ranks divide it (ZeRO stage 1, arXiv:1910.02054): each has master and moments of its own part of the buffer, sums
//! the gradients of that part, steps there, and gets the other parts' new weights. If they divide gradients too (stage
//! 2), each adds up those of its part alone, which all exchange after every backward pass.
//!
//! Master and moments, 12 bytes per weight, may stay on the host while the model is on a GPU. The step is then done on
//! the host, piece by piece (`offload`): gradients are copied there and new weights back.

mod offload;
#[cfg(test)]
mod tests;

use crate::dist::{Comm, Held, Part};
use crate::model::Weights;
use crate::torch::{self, AdamWStep, to_host};
use anyhow::{Context, Result};
use offload::in_pieces;
use tch::{Device, Kind, Tensor};

/// Weights that an offloaded step takes at a time: 64 MiB of float32.
const AT_ONCE: i64 = 1 << 24;

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
    /// Whether the ranks exchange the gradient of every micro-batch, and keep the sum of their own part alone.
    divides: bool,
}

/// The gradient accumulated so far.
struct Gradient {
    /// What backward passes add to, [P] in the compute kind.
    open: Tensor,
    /// Sum of the micro-batches' gradients, [P] float32, if the compute kind is another; if it is divided, [L], of all
    /// ranks.
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
            divides: false,
        }
    }

    /// The same, with gradients divided too, if there are several ranks and the compute kind is not float32, whose
    /// gradients need no sum of their own.
    pub fn dividing_gradients(self, comm: &dyn Comm) -> Self {
        Self { divides: comm.size() > 1 && self.weights.flat().kind() != Kind::Float, ..self }
    }

    /// Whether all ranks must call `accumulate` together, also those that have nothing to add.
    pub fn divides_gradients(&self) -> bool {
        self.divides
    }

    /// Allocates a zero gradient for the next step; called before its first backward pass. Between steps there are no
    /// gradients, so that rollouts and another model's updates can use their memory.
    pub fn begin(&mut self) -> Result<()> {
        let open = self.weights.open_gradient()?;
        let zeros = if self.divides { self.part.cut(&open) } else { open.shallow_clone() };
        let sum = (open.kind() != Kind::Float).then(|| zeros.totype(Kind::Float));
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
    ///
    /// # Errors
    /// Those of `Comm::sum`.
    pub fn accumulate(&mut self, comm: &dyn Comm) -> Result<()> {
        let Some(Gradient { open, sum: Some(sum) }) = &mut self.gradient else { return Ok(()) };
        tch::no_grad(|| {
            if self.divides {
                comm.add_parts(open, sum)?;
            } else {
                *sum += &*open;
            }
            let _ = open.zero_();
            Ok(())
        })
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
            let mut grad = match self.divides {
                true => all,
                false => {
                    comm.sum_parts(&mut all)?;
                    self.part.cut(&all)
                }
            };
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
            let ours = self.part.cut(&flat);
            in_pieces((&ours, &grad), home, self.at_once.max(1), |first, mut gradient| {
                let own = |x: &Tensor| x.narrow(0, first, gradient.size()[0]);
                let mut learnt = own(self.master.as_ref().unwrap_or(&ours));
                let (mut exp_avg, mut exp_avg_sq) = (own(&self.exp_avg), own(&self.exp_avg_sq));
                let (count, skip) = (&mut self.step, &mut skip);
                torch::fused_adamw(&mut learnt, &mut gradient, &mut exp_avg, &mut exp_avg_sq, count, skip, hyper)?;
                Ok(self.master.is_some().then_some(learnt))
            })?;
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
    pub fn state(&self) -> Vec<Held> {
        let own = |name: &str, own: &Tensor| (name.to_string(), own.shallow_clone(), Some(self.part));
        let mut state = vec![
            own("exp_avg", &self.exp_avg),
            own("exp_avg_sq", &self.exp_avg_sq),
            ("step".to_string(), self.step.shallow_clone(), None),
        ];
        state.extend(self.master.as_ref().map(|master| own("master", master)));
        state
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
