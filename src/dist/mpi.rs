//! Ranks of MPI, the processes of one `mpirun` or `srun`. Built with `--features mpi`.
//!
//! Tensors of a GPU go through the host. Errors of MPI end all ranks (MPI_ERRORS_ARE_FATAL, the standard's default):
//! without one of them there is no sum.

use super::Comm;
use crate::bad;
use crate::torch::numbers_mut;
use anyhow::{Context, Result};
use mpi::Threading;
use mpi::collective::SystemOperation;
use mpi::datatype::Equivalence;
use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};
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
        if host.data_ptr() != tensor.data_ptr() {
            tch::no_grad(|| tensor.copy_(&host));
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
