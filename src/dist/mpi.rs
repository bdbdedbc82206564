//! Ranks of MPI, the processes of one `mpirun` or `srun`. Built with `--features mpi`.
//!
//! Tensors of a GPU go through the host. Errors of MPI end all ranks (MPI_ERRORS_ARE_FATAL, the standard's default):
//! without one of them there is no sum.

use super::comm::Comm;
use super::part::Part;
use crate::bad;
use crate::torch::{bytes_mut, numbers_mut};
use anyhow::{Context, Result};
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::Equivalence;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives, Root};
use tch::kind::Element;
use tch::{Device, Kind, Tensor};

/// Numbers that are summed at a time: the copy that is sent stays small beside a model.
const PART: usize = 1 << 22;

/// The world of MPI.
pub struct Mpi {
    world: SimpleCommunicator,
    /// Leaves MPI when it is dropped.
    _universe: Universe,
}

impl Mpi {
    /// Joins the other processes; the launcher says that there are `size` in all.
    ///
    /// # Errors
    /// Bad input: MPI knows another number, so that this build's MPI is not the launcher's.
    pub fn join(size: usize) -> Result<Self> {
        // One thread makes all calls.
        let (universe, _) = mpi::initialize_with_threading(Threading::Funneled).context("MPI cannot be started")?;
        let world = universe.world();
        let found = world.size() as usize;
        if found != size {
            return Err(bad!(
                "the launcher has started {size} processes, but MPI knows of {found}: start them with the mpirun of \
                 the MPI that this program was built with, or with srun --mpi=pmix"
            ));
        }
        Ok(Self { world, _universe: universe })
    }

    fn sum_of<T: Element + Equivalence>(&self, tensor: &mut Tensor) {
        for part in numbers_mut::<T>(tensor).chunks_mut(PART) {
            let own = part.to_vec();
            self.world.all_reduce_into(&own[..], part, SystemOperation::sum());
        }
    }
}

impl Comm for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn sum(&self, tensor: &mut Tensor) -> Result<()> {
        let kind = match tensor.kind() {
            kind @ (Kind::Float | Kind::Double | Kind::Int64) => kind,
            _ => Kind::Float,
        };
        // The tensor itself, if it is plain memory.
        let mut host = tensor.detach().to_device(Device::Cpu).to_kind(kind).contiguous();
        match kind {
            Kind::Double => self.sum_of::<f64>(&mut host),
            Kind::Int64 => self.sum_of::<i64>(&mut host),
            _ => self.sum_of::<f32>(&mut host),
        }
        put_back(&host, tensor);
        Ok(())
    }

    fn sum_parts(&self, tensor: &mut Tensor) -> Result<()> {
        let mut host = tensor.detach().to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        let numbers = numbers_mut::<f32>(&mut host);
        for rank in 0..self.size() {
            let root = self.world.process_at_rank(rank as i32);
            for part in own(numbers, rank, self.size()).chunks_mut(PART) {
                let sent = part.to_vec();
                match rank == self.rank() {
                    true => root.reduce_into_root(&sent[..], part, SystemOperation::sum()),
                    false => root.reduce_into(&sent[..], SystemOperation::sum()),
                }
            }
        }
        put_back(&host, tensor);
        Ok(())
    }

    fn share_parts(&self, tensor: &mut Tensor) -> Result<()> {
        let mut host = tensor.detach().to_device(Device::Cpu).contiguous();
        let (total, width) = (host.numel() as i64, host.kind().elt_size_in_bytes());
        let bytes = bytes_mut(&mut host);
        for rank in 0..self.size() {
            let Part { first, len, .. } = Part::of(rank, self.size(), total);
            let part = &mut bytes[first as usize * width..][..len as usize * width];
            let root = self.world.process_at_rank(rank as i32);
            part.chunks_mut(4 * PART).for_each(|part| root.broadcast_into(part));
        }
        put_back(&host, tensor);
        Ok(())
    }

    fn abort(&self, code: u8) -> ! {
        self.world.abort(code.into())
    }
}

/// A rank's part of some numbers.
fn own(numbers: &mut [f32], rank: usize, size: usize) -> &mut [f32] {
    let Part { first, len, .. } = Part::of(rank, size, numbers.len() as i64);
    &mut numbers[first as usize..][..len as usize]
}

/// Copies what was computed on the host to where it belongs, unless it is there.
fn put_back(host: &Tensor, tensor: &mut Tensor) {
    if host.data_ptr() != tensor.data_ptr() {
        tch::no_grad(|| tensor.copy_(host));
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // Leaving MPI waits for the others, who may wait for what this rank will never send.
        if std::thread::panicking() {
            self.world.abort(101);
        }
    }
}
