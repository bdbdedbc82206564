//! Ranks of MPI, the processes of one `mpirun` or `srun`. Built with `--features mpi`.
//!
//! Tensors of a GPU go through the host. Errors of MPI end all ranks (MPI_ERRORS_ARE_FATAL, the standard's default):
//! without one of them there is no sum.

use super::comm::{Comm, exchanged, put_back};
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

/// A piece of a flat tensor, sharing its memory, which is of a rank's part and starts there.
struct Piece {
    rank: usize,
    start: i64,
    shared: Tensor,
}

impl Mpi {
    /// A flat tensor in pieces that are sent at a time.
    fn pieces(&self, tensor: &Tensor) -> Vec<Piece> {
        let (flat, size) = (tensor.detach(), self.size());
        let of = |rank: usize| {
            let own = Part::of(rank, size, flat.numel() as i64).cut(&flat);
            let total = own.numel() as i64;
            let piece = |start| Piece { rank, start, shared: own.narrow(0, start, (PART as i64).min(total - start)) };
            (0..total).step_by(PART).map(piece).collect::<Vec<_>>()
        };
        (0..size).flat_map(of).collect()
    }

    /// Replaces a piece on the host by the sum of all ranks' on the rank whose part it is of; returns whether it is
    /// this one.
    fn reduce(&self, rank: usize, host: &mut Tensor) -> bool {
        let (root, numbers) = (self.world.process_at_rank(rank as i32), numbers_mut::<f32>(host));
        let sent = numbers.to_vec();
        let own = rank == self.rank();
        match own {
            true => root.reduce_into_root(&sent[..], numbers, SystemOperation::sum()),
            false => root.reduce_into(&sent[..], SystemOperation::sum()),
        }
        own
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
        let mut host = exchanged(tensor);
        match host.kind() {
            Kind::Double => self.sum_of::<f64>(&mut host),
            Kind::Int64 => self.sum_of::<i64>(&mut host),
            _ => self.sum_of::<f32>(&mut host),
        }
        put_back(&host, tensor);
        Ok(())
    }

    fn sum_parts(&self, tensor: &mut Tensor) -> Result<()> {
        for Piece { rank, mut shared, .. } in self.pieces(tensor) {
            let mut host = shared.to_device(Device::Cpu).to_kind(Kind::Float);
            if self.reduce(rank, &mut host) {
                put_back(&host, &mut shared);
            }
        }
        Ok(())
    }

    fn add_parts(&self, tensor: &Tensor, own: &mut Tensor) -> Result<()> {
        for Piece { rank, start, shared } in self.pieces(tensor) {
            let mut host = shared.to_device_(Device::Cpu, Kind::Float, false, true);
            if self.reduce(rank, &mut host) {
                let mut part = own.narrow(0, start, host.size()[0]);
                part += host.to_device(own.device());
            }
        }
        Ok(())
    }

    fn share_parts(&self, tensor: &mut Tensor) -> Result<()> {
        for Piece { rank, mut shared, .. } in self.pieces(tensor) {
            let mut host = shared.to_device(Device::Cpu);
            self.world.process_at_rank(rank as i32).broadcast_into(bytes_mut(&mut host));
            if rank != self.rank() {
                put_back(&host, &mut shared);
            }
        }
        Ok(())
    }

    fn abort(&self, code: u8) -> ! {
        self.world.abort(code.into())
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
