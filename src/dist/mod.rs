//! What the processes of a run exchange. Each of them, a rank, holds the rollouts of the whole step and works on its
//! share of them; what they compute adds up.
//!
//! Decided: one operation, the sum, carries everything (a rank that has nothing to add adds zeros), so that another
//! means of communication is one function.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// A group of ranks, numbered from 0. All of them make the same calls in the same order.
pub trait Comm {
    fn rank(&self) -> usize;

    fn size(&self) -> usize;

    /// Replaces `tensor` by the sum of the tensors of all ranks, which have equal shapes and kinds.
    ///
    /// # Errors
    /// A rank that does not answer.
    fn sum(&self, tensor: &mut Tensor) -> Result<()>;

    /// Whether any rank says yes.
    ///
    /// # Errors
    /// Those of `sum`.
    fn any(&self, yes: bool) -> Result<bool> {
        let mut votes = Tensor::full([1], i64::from(yes), (Kind::Int64, Device::Cpu));
        self.sum(&mut votes)?;
        Ok(votes.int64_value(&[0]) > 0)
    }
}

/// A rank's share of `items`: every `size`-th. If the items are sorted by cost, the shares cost about the same.
pub fn share<T: Copy>(comm: &dyn Comm, items: &[T]) -> Vec<T> {
    items.iter().skip(comm.rank()).step_by(comm.size()).copied().collect()
}

/// A single process.
pub struct Solo;

impl Comm for Solo {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(&self, _: &mut Tensor) -> Result<()> {
        Ok(())
    }
}
