//! What the processes of a run exchange. Each of them, a rank, holds the rollouts of the whole step and works on its
//! share of them; what they compute adds up.
//!
//! Decided: one operation, the sum, carries everything (a rank that has nothing to add adds zeros), so that another
//! means of communication is one function. A rank that fails ends all of them: there is no step without its share.

mod comm;
mod gather;
mod launcher;
mod meet;
#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod part;
mod tcp;
#[cfg(test)]
pub mod threads;

pub use comm::{Comm, Elsewhere, Solo, agree, largest, lowest, said_by_first, share, share_of};
pub use gather::{Held, Offer, offer};
pub use launcher::{Local, apart, is_first, local, processes};
pub use part::Part;

use anyhow::Result;

/// The ranks that this process was started with: those of `mpirun` or `srun`, those that meet over TCP, or none but
/// itself.
///
/// # Errors
/// Bad input: there are others, and this build cannot talk to them.
pub fn join() -> Result<Box<dyn Comm>> {
    let comm: Box<dyn Comm> = match (launcher::processes(), launcher::meeting()?) {
        (None, None) => return Ok(Box::new(Solo)),
        #[cfg(feature = "mpi")]
        (Some(size), _) => Box::new(mpi::Mpi::join(size)?),
        #[cfg(not(feature = "mpi"))]
        (Some(size), None) => {
            return Err(crate::bad!(
                "this is one of {size} processes, which would all do the same: this build has no MPI to divide the \
                 work with (docs/clusters.md: build with --features mpi, or let them meet over TCP)"
            ));
        }
        (_, Some(meeting)) => Box::new(tcp::Tcp::join(&meeting)?),
    };
    #[cfg(feature = "nccl")]
    return Ok(Box::new(nccl::Nccl::over(comm)));
    #[cfg(not(feature = "nccl"))]
    Ok(comm)
}
