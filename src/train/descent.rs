//! One optimizer step on some sequences, in micro-batches that fit.
//!
//! One mechanism, `descend`, serves actor, critic and warm start: they differ in the loss of a micro-batch.

use super::batch::{Batch, MicroBatch};
use super::not_finite::{NotFinite, culprit};
use crate::dist::{Comm, Elsewhere, largest, lowest, said_by_first};
use crate::optim::AdamW;
use crate::torch::{AdamWStep, catching, make_room, on_device, to_host, trim};
use anyhow::Result;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// An optimizer and the step it takes.
pub struct OptimizerStep<'a> {
    pub optimizer: &'a mut AdamW,
    /// Largest norm of the gradient (0: any).
    pub max_norm: f64,
    pub hyper: AdamWStep,
}

/// One step of each optimizer on the sequences `mini` of a batch: along the gradient of the sum over micro-batches of
/// `loss`, which gets the weight of each of their tokens, [n], and adds its figures to `sums`. Returns the norms of the
/// gradients before clipping.
///
/// # Errors
/// `NotFinite`: a loss or a gradient, for which the weights stay unchanged; or the new weights. Memory that runs out
/// for single sequences, and `Stopped` if the batch is told so between its micro-batches; the weights stay unchanged.
/// `Elsewhere` if it is another rank that knows where a gradient comes from.
pub fn descend(
    batch: &Batch,
    mini: Range<usize>,
    token_weights: fn(&[usize]) -> Vec<f32>,
    steps: &mut [OptimizerStep],
    sums: &mut Sums,
    mut loss: impl FnMut(&MicroBatch, &Tensor, &mut Sums) -> Tensor,
) -> Result<Vec<f64>> {
    let first = batch.first_slot(mini.start) as i64;
    let weights = on_device(&token_weights(&batch.lengths(mini.clone())), batch.device);
    let mut loss =
        |micro: &MicroBatch, sums: &mut Sums| loss(micro, &weights.index_select(0, &(&micro.slots - first)), sums);
    gather(batch, &mini, steps, sums, &mut loss)?;
    // Zero, or not finite if the loss is not.
    let mut total = sums.loss.shallow_clone();
    batch.comm.sum(&mut total)?;
    let guard = total * 0.0;
    let mut norms = Vec::with_capacity(steps.len());
    for at in 0..steps.len() {
        let OptimizerStep { optimizer, max_norm, hyper } = &mut steps[at];
        let figures = to_host(&Tensor::stack(&optimizer.step(batch.comm, *max_norm, *hyper, &guard)?, 0));
        let [norm, sum] = [figures[0], figures[1]].map(f64::from);
        if !norm.is_finite() {
            let broken = sums.broken();
            let mut optimizers: Vec<&mut AdamW> = steps.iter_mut().map(|step| &mut *step.optimizer).collect();
            let found = culprit(batch, mini, &mut optimizers, (norm, &broken), |micro| loss(micro, sums))?;
            let speaker = lowest(batch.comm, !found.sequences.is_empty())?.unwrap_or(0);
            return Err(if speaker == batch.comm.rank() { found.into() } else { Elsewhere.into() });
        }
        if !sum.is_finite() {
            let found = NotFinite::weights(&optimizer.broken_weights(), hyper.lr, norm);
            return Err(said_by_first(batch.comm, found.into()));
        }
        norms.push(norm);
    }
    Ok(norms)
}

/// Gathers the gradients of a mini-batch in the optimizers, micro-batch by micro-batch. If memory runs out, they are
/// computed anew in smaller ones: the losses weigh every token in advance, so that the sum stays the same but for
/// rounding.
///
/// # Errors
/// Memory that runs out for single sequences; `Stopped`, after which the optimizers hold no gradient.
fn gather(
    batch: &Batch,
    mini: &Range<usize>,
    steps: &mut [OptimizerStep],
    sums: &mut Sums,
    loss: &mut impl FnMut(&MicroBatch, &mut Sums) -> Tensor,
) -> Result<()> {
    make_room();
    for step in &mut *steps {
        step.optimizer.begin()?;
    }
    let mut learn = |micro: MicroBatch, sums: &mut Sums| {
        let loss = loss(&micro, sums);
        sums.loss = &sums.loss + loss.detach();
        loss.backward();
    };
    let together = steps.iter().any(|step| step.optimizer.divides_gradients());
    let pass = if together { pass_together } else { pass_alone };
    while let Err(error) = pass(batch, mini, steps, sums, &mut learn) {
        if !error.is::<Again>() {
            batch.shrink(mini.clone(), error)?;
        }
        sums.clear();
        for step in &mut *steps {
            step.optimizer.forget();
        }
    }
    if let Err(stopped) = batch.check() {
        steps.iter_mut().try_for_each(|step| step.optimizer.abandon())?;
        return Err(stopped);
    }
    Ok(())
}

/// What is done with a micro-batch.
type Learn<'a> = dyn FnMut(MicroBatch, &mut Sums) + 'a;

/// A pass over this rank's micro-batches.
fn pass_alone(
    batch: &Batch,
    mini: &Range<usize>,
    steps: &mut [OptimizerStep],
    sums: &mut Sums,
    learn: &mut Learn,
) -> Result<()> {
    catching(|| {
        for micro in batch.micro_batches(mini.clone()).take_while(|_| batch.goes_on()) {
            learn(micro, sums);
            steps.iter_mut().try_for_each(|step| step.optimizer.accumulate(batch.comm))?;
            trim();
        }
        Ok(())
    })
}

/// A pass in which the ranks exchange gradients after each of their micro-batches; one that has no more adds nothing.
///
/// # Errors
/// `Again` if it is another rank that has failed.
fn pass_together(
    batch: &Batch,
    mini: &Range<usize>,
    steps: &mut [OptimizerStep],
    sums: &mut Sums,
    learn: &mut Learn,
) -> Result<()> {
    let mut micros = batch.micro_batches(mini.clone());
    for _ in 0..largest(batch.comm, batch.micro_batch_count(mini.clone()))? {
        let learnt = catching(|| {
            micros.next().into_iter().for_each(|micro| learn(micro, sums));
            Ok(())
        });
        if batch.comm.any(learnt.is_err())? {
            return learnt.and(Err(Again.into()));
        }
        if batch.comm.any(!batch.goes_on())? {
            break;
        }
        steps.iter_mut().try_for_each(|step| step.optimizer.accumulate(batch.comm))?;
        trim();
    }
    Ok(())
}

/// Memory has run out on another rank, which tries again.
#[derive(Debug)]
struct Again;

impl fmt::Display for Again {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("another process tries again")
    }
}

impl std::error::Error for Again {}

/// Named figures of one update.
pub type Scalars = BTreeMap<Cow<'static, str>, f64>;

/// Sums of named scalars over the micro-batches of an update, on the device until they are read.
pub struct Sums {
    named: BTreeMap<&'static str, Tensor>,
    /// The loss as a whole.
    loss: Tensor,
}

impl Sums {
    /// Zeros. All ranks name the same, also one whose share of a mini-batch is empty.
    pub fn of(names: &[&'static str], device: Device) -> Self {
        let zero = || Tensor::zeros([0i64; 0], (Kind::Float, device));
        Self { named: names.iter().map(|name| (*name, zero())).collect(), loss: zero() }
    }

    /// Zeros again.
    fn clear(&mut self) {
        self.named.values_mut().chain([&mut self.loss]).for_each(|sum| *sum = sum.zeros_like());
    }

    /// # Panics
    /// On a name that `of` was not given: a mistake of ours.
    pub fn add(&mut self, name: &str, value: &Tensor) {
        let sum = self.named.get_mut(name).unwrap_or_else(|| panic!("no sum {name}"));
        *sum = &*sum + value.detach();
    }

    /// The names of those that are not finite.
    fn broken(&self) -> Vec<&'static str> {
        let broken = |sum: &Tensor| !sum.double_value(&[]).is_finite();
        self.named.iter().filter(|(_, sum)| broken(sum)).map(|(name, _)| *name).collect()
    }

    /// Adds up the ranks and reads all sums at once.
    pub fn read(self, comm: &dyn Comm) -> Result<Scalars> {
        let mut values = Tensor::stack(&self.named.values().collect::<Vec<_>>(), 0);
        comm.sum(&mut values)?;
        Ok(self.named.into_keys().map(Cow::from).zip(to_host(&values).into_iter().map(f64::from)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::algo::aggregate::token_mean;
    use crate::dist::threads::Thread;
    use crate::model::{Head, ModelConfig, Policy, Weights};
    use crate::train::batch::Sequence;
    use std::path::Path;

    /// The weights after one step in bfloat16, the norm, and each rank's micro-batches' tokens in the end, for three
    /// ranks with six, five and five sequences. Rank 1 runs out of memory after its first micro-batch, for any of
    /// more tokens than `room`.
    fn stepped(divides: bool, room: usize) -> Vec<(Vec<f32>, f64, usize)> {
        let rank = |comm: Thread| {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/qwen2_tiny");
            let config = ModelConfig::from_dir(&dir).unwrap();
            let weights = Weights::load(&dir, &config, Head::Language, Kind::BFloat16, Device::Cpu).unwrap();
            let policy = Policy::trainable(&config, weights);
            let mut optimizer = AdamW::new(&policy.weights, &comm);
            if divides {
                optimizer = optimizer.dividing_gradients(&comm);
            }
            let sequence = |i: i64| Sequence { prompt: (1..4 + i % 3).collect(), response: (5..9 + i % 4).collect() };
            let all: Vec<Sequence> = (0..16).map(sequence).collect();
            let all: Vec<&Sequence> = all.iter().collect();
            let batch = Batch::new(&all, 20, Device::Cpu, &comm);
            let hyper = AdamWStep { lr: 1e-2, betas: [0.9, 0.999], eps: 1e-8, weight_decay: 0.0 };
            let mut steps = [OptimizerStep { optimizer: &mut optimizer, max_norm: 1.0, hyper }];
            let (mut sums, mut calls) = (Sums::of(&["loss"], Device::Cpu), 0);
            let norms =
                descend(&batch, 0..16, token_mean, &mut steps, &mut sums, |micro: &MicroBatch, weights, sums| {
                    calls += 1;
                    if comm.rank() == 1 && calls > 1 && micro.tokens.ids.numel() > room {
                        // More memory than any machine has.
                        let _ = Tensor::zeros([1i64 << 60], (Kind::Float, Device::Cpu));
                    }
                    let log_probs = policy.log_probs(&policy.hidden(&micro.tokens), &micro.targets, 1.0);
                    let loss = -(log_probs * weights).sum(Kind::Float);
                    sums.add("loss", &loss);
                    loss
                });
            (to_host(policy.weights.flat()), norms.unwrap()[0], batch.micro_tokens())
        };
        std::thread::scope(|scope| {
            let ranks: Vec<_> = Thread::group(3).into_iter().map(|comm| scope.spawn(move || rank(comm))).collect();
            ranks.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    #[test]
    fn divided_gradients_are_the_same_gradients_also_if_memory_runs_out_on_one_rank() {
        let plain = stepped(false, usize::MAX);
        let divided = stepped(true, usize::MAX);
        let again = stepped(true, 12);
        for ranks in [&plain, &divided, &again] {
            assert!(ranks.iter().all(|(weights, norm, _)| (weights, norm) == (&ranks[0].0, &ranks[0].1)));
            assert!((ranks[0].1 - plain[0].1).abs() < 1e-2 * plain[0].1, "{} {}", ranks[0].1, plain[0].1);
        }
        let tokens: Vec<usize> = again.iter().map(|rank| rank.2).collect();
        assert!(tokens[0] == 20 && tokens[1] < 20 && tokens[2] == 20, "{tokens:?}");
    }
}
