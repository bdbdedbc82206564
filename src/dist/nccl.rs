//! Tensors of GPUs are exchanged by NCCL, from GPU to GPU; everything else by the ranks' other means (MPI or TCP).
//! Built with `--features nccl`.
//!
//! Written and compiled; not run, for want of GPUs.

use super::comm::{Comm, put_back};
use super::part::Part;
use crate::torch::nccl::{Group, ID, new_id};
use crate::torch::{ids_to_host, nccl};
use anyhow::Result;
use std::cell::OnceCell;
use tch::{Device, Kind, Tensor};

/// Ranks with a GPU each.
pub struct Nccl {
    /// How the ranks know of each other, and exchange what is on the host.
    others: Box<dyn Comm>,
    /// From the first tensor of a GPU on.
    group: OnceCell<Group>,
}

impl Nccl {
    pub fn over(others: Box<dyn Comm>) -> Self {
        Self { others, group: OnceCell::new() }
    }

    /// NCCL's group of all ranks; called by all of them for the first time together.
    fn group(&self, device: Device) -> Result<&Group> {
        if let Some(group) = self.group.get() {
            return Ok(group);
        }
        let id = shared(&*self.others, new_id)?;
        let group = Group::join(&id, self.rank(), self.size(), device)?;
        Ok(self.group.get_or_init(|| group))
    }

    /// The parts of a flat tensor that belong to each rank.
    fn parts(&self, tensor: &Tensor) -> Vec<Tensor> {
        let (size, total) = (self.size(), tensor.numel() as i64);
        (0..size).map(|rank| Part::of(rank, size, total).cut(tensor)).collect()
    }
}

/// What the first rank makes, for all ranks.
///
/// # Errors
/// Those of `make`, on the first rank, which then ends the others; those of `Comm::sum`.
fn shared(comm: &dyn Comm, make: impl Fn() -> Result<[u8; ID]>) -> Result<[u8; ID]> {
    let own = if comm.is_first() { make()? } else { [0; ID] };
    let mut numbers = Tensor::from_slice(&own.map(i64::from));
    comm.sum(&mut numbers)?;
    let mut all = [0; ID];
    all.iter_mut().zip(ids_to_host(&numbers)).for_each(|(byte, number)| *byte = number as u8);
    Ok(all)
}

impl Comm for Nccl {
    fn rank(&self) -> usize {
        self.others.rank()
    }

    fn size(&self) -> usize {
        self.others.size()
    }

    fn sum(&self, tensor: &mut Tensor) -> Result<()> {
        if !tensor.device().is_cuda() {
            return self.others.sum(tensor);
        }
        // Halves are too coarse for sums; of other kinds NCCL sums what MPI does.
        let kind = match tensor.kind() {
            kind @ (Kind::Float | Kind::Double | Kind::Int64) => kind,
            _ => Kind::Float,
        };
        let mut whole = tensor.detach().to_kind(kind).contiguous();
        self.group(tensor.device())?.sum(&mut whole)?;
        put_back(&whole, tensor);
        Ok(())
    }

    fn sum_parts(&self, tensor: &mut Tensor) -> Result<()> {
        if !tensor.device().is_cuda() {
            return self.others.sum_parts(tensor);
        }
        let whole = tensor.detach().to_kind(Kind::Float).contiguous();
        self.group(tensor.device())?.sum_parts(&mut self.parts(&whole))?;
        put_back(&whole, tensor);
        Ok(())
    }

    fn share_parts(&self, tensor: &mut Tensor) -> Result<()> {
        if !tensor.device().is_cuda() || !nccl::carries(tensor.kind()) {
            return self.others.share_parts(tensor);
        }
        let whole = tensor.detach().contiguous();
        self.group(tensor.device())?.share_parts(&mut self.parts(&whole))?;
        put_back(&whole, tensor);
        Ok(())
    }

    fn abort(&self, code: u8) -> ! {
        self.others.abort(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::comm::Solo;
    use crate::dist::threads::Thread;
    use crate::torch::to_host;

    #[test]
    fn the_first_ranks_id_is_everybodys() {
        std::thread::scope(|scope| {
            for comm in Thread::group(3) {
                scope.spawn(move || {
                    let id = std::array::from_fn(|i| (7 * i + 200) as u8);
                    let made = || if comm.is_first() { Ok(id) } else { panic!("only the first makes one") };
                    assert_eq!(shared(&comm, made).unwrap(), id);
                });
            }
        });
    }

    #[test]
    fn tensors_of_the_host_take_the_other_way() {
        std::thread::scope(|scope| {
            for comm in Thread::group(2) {
                scope.spawn(move || {
                    let comm = Nccl::over(Box::new(comm));
                    let mut tensor = Tensor::from_slice(&[comm.rank() as f32 + 1.0; 130]);
                    comm.sum(&mut tensor).unwrap();
                    assert_eq!(to_host(&tensor), [3.0; 130]);
                    comm.share_parts(&mut tensor).unwrap();
                    comm.sum_parts(&mut tensor).unwrap();
                    assert!(comm.any(comm.rank() == 1).unwrap() && comm.group.get().is_none());
                });
            }
        });
    }

    #[test]
    fn parts_share_the_memory_of_the_whole() {
        let comm = Nccl::over(Box::new(Solo));
        let whole = Tensor::zeros([100], (Kind::Float, Device::Cpu));
        let parts = comm.parts(&whole);
        assert_eq!(parts.iter().map(Tensor::numel).sum::<usize>(), 100);
        let _ = parts[0].shallow_clone().fill_(1.0);
        assert_eq!(to_host(&whole), [1.0; 100]);
    }
}
