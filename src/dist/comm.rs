//! `Comm`, and the group of a single process.

use super::part::Part;
use crate::torch::ids_to_host;
use anyhow::{Error, Result};
use std::fmt;
use tch::{Device, Kind, Tensor};

/// A group of ranks, numbered from 0. All of them make the same calls in the same order.
pub trait Comm {
    fn rank(&self) -> usize;

    fn size(&self) -> usize;

    /// Replaces `tensor` by the sum of the tensors of all ranks, which have equal shapes and kinds. All ranks get the
    /// same bits.
    ///
    /// # Errors
    /// A rank that does not answer.
    fn sum(&self, tensor: &mut Tensor) -> Result<()>;

    /// `sum` for a flat tensor of which each rank wants its own part only (`Part::of`): the rest is of no use then.
    ///
    /// # Errors
    /// Those of `sum`.
    fn sum_parts(&self, tensor: &mut Tensor) -> Result<()> {
        self.sum(tensor)
    }

    /// Adds to `own`, float32, this rank's part of the sum of all ranks' flat tensors.
    ///
    /// # Errors
    /// Those of `sum`.
    fn add_parts(&self, tensor: &Tensor, own: &mut Tensor) -> Result<()> {
        let mut all = tensor.to_dtype(Kind::Float, false, true);
        self.sum(&mut all)?;
        *own += Part::of(self.rank(), self.size(), all.size()[0]).cut(&all);
        Ok(())
    }

    /// Fills a flat tensor, of which each rank has its own part, with the parts of the others.
    ///
    /// # Errors
    /// Those of `sum`.
    fn share_parts(&self, tensor: &mut Tensor) -> Result<()> {
        for rank in (0..self.size()).filter(|rank| *rank != self.rank()) {
            let _ = Part::of(rank, self.size(), tensor.size()[0]).cut(tensor).zero_();
        }
        self.sum(tensor)
    }

    /// Ends the processes of all ranks, at once.
    fn abort(&self, code: u8) -> !;

    /// Whether this is the rank that writes files and talks.
    fn is_first(&self) -> bool {
        self.rank() == 0
    }

    /// Whether any rank says yes.
    ///
    /// # Errors
    /// Those of `sum`.
    fn any(&self, yes: bool) -> Result<bool> {
        let mut votes = Tensor::full([1], i64::from(yes), (Kind::Int64, Device::Cpu));
        self.sum(&mut votes)?;
        Ok(votes.int64_value(&[0]) > 0)
    }

    /// Waits until all ranks are here.
    ///
    /// # Errors
    /// Those of `sum`.
    fn wait(&self) -> Result<()> {
        self.any(false).map(drop)
    }
}

/// A rank's share of `items`: every `size`-th. If the items are sorted by cost, the shares cost about the same.
pub fn share<T: Copy>(comm: &dyn Comm, items: &[T]) -> Vec<T> {
    share_of(comm.rank(), comm.size(), items).copied().collect()
}

/// A tensor as it is exchanged: contiguous on the host, of a kind that is added up. The tensor itself, if it is so.
pub(super) fn exchanged(tensor: &Tensor) -> Tensor {
    let kind = match tensor.kind() {
        kind @ (Kind::Float | Kind::Double | Kind::Int64) => kind,
        _ => Kind::Float,
    };
    tensor.detach().to_device(Device::Cpu).to_kind(kind).contiguous()
}

/// Copies what was computed or exchanged to where it belongs, unless it is there.
pub(super) fn put_back(whole: &Tensor, tensor: &mut Tensor) {
    if whole.data_ptr() != tensor.data_ptr() {
        tch::no_grad(|| tensor.copy_(whole));
    }
}

/// The share of any rank of so many.
pub fn share_of<T>(rank: usize, size: usize, items: &[T]) -> impl Iterator<Item = &T> {
    items.iter().skip(rank).step_by(size)
}

/// The lowest rank that says yes, if any does.
///
/// # Errors
/// Those of `Comm::sum`.
pub fn lowest(comm: &dyn Comm, yes: bool) -> Result<Option<usize>> {
    let mut votes = vec![0i64; comm.size()];
    votes[comm.rank()] = yes.into();
    let mut votes = Tensor::from_slice(&votes);
    comm.sum(&mut votes)?;
    Ok(ids_to_host(&votes).into_iter().position(|vote| vote > 0))
}

/// The largest of the ranks' numbers, none of which is negative.
///
/// # Errors
/// Those of `Comm::sum`.
pub fn largest(comm: &dyn Comm, number: usize) -> Result<usize> {
    let mut all = vec![0i64; comm.size()];
    all[comm.rank()] = number as i64;
    let mut all = Tensor::from_slice(&all);
    comm.sum(&mut all)?;
    Ok(ids_to_host(&all).into_iter().max().unwrap_or(0) as usize)
}

/// Whether all ranks have the same numbers.
///
/// # Errors
/// Those of `Comm::sum`.
pub fn agree(comm: &dyn Comm, numbers: &[i64]) -> Result<bool> {
    // Several that differ may have the same sum as several that agree, but not the same sum of squares too.
    let squares = numbers.iter().map(|number| number * number);
    let own: Vec<i64> = numbers.iter().copied().chain(squares).collect();
    let mut sums = Tensor::from_slice(&own);
    comm.sum(&mut sums)?;
    let size = comm.size() as i64;
    let differs = ids_to_host(&sums).into_iter().zip(&own).any(|(sum, own)| sum != own * size);
    Ok(!comm.any(differs)?)
}

/// An error that all ranks have: the first says it.
pub fn said_by_first(comm: &dyn Comm, error: Error) -> Error {
    if comm.is_first() { error } else { Elsewhere.into() }
}

/// Another rank has failed, and says why.
#[derive(Debug)]
pub struct Elsewhere;

impl fmt::Display for Elsewhere {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("another process of the run has failed, and says why")
    }
}

impl std::error::Error for Elsewhere {}

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

    fn share_parts(&self, _: &mut Tensor) -> Result<()> {
        Ok(())
    }

    fn abort(&self, code: u8) -> ! {
        std::process::exit(code.into())
    }
}
