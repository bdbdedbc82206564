//! Ranks as threads of one process, for tests.

use super::comm::Comm;
use anyhow::Result;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use tch::Tensor;

/// One of several threads.
pub struct Thread {
    rank: usize,
    shared: Arc<Shared>,
}

struct Shared {
    /// What each rank adds.
    parts: Mutex<Vec<Option<Tensor>>>,
    barrier: Barrier,
}

impl Thread {
    /// A group of `size` ranks.
    pub fn group(size: usize) -> Vec<Self> {
        let parts = Mutex::new((0..size).map(|_| None).collect());
        let shared = Arc::new(Shared { parts, barrier: Barrier::new(size) });
        (0..size).map(|rank| Self { rank, shared: Arc::clone(&shared) }).collect()
    }
}

impl Comm for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn sum(&self, tensor: &mut Tensor) -> Result<()> {
        let parts = || self.shared.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts()[self.rank] = Some(tensor.detach().copy());
        self.shared.barrier.wait();
        // In the order of the ranks, for all the same.
        let all: Vec<Tensor> = parts().iter().flatten().map(Tensor::shallow_clone).collect();
        let sum = all.iter().skip(1).fold(all[0].copy(), |sum, part| sum + part);
        tch::no_grad(|| tensor.copy_(&sum));
        self.shared.barrier.wait();
        Ok(())
    }

    fn abort(&self, code: u8) -> ! {
        panic!("rank {} ends all with code {code}", self.rank)
    }
}
