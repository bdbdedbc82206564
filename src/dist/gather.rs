//! Parts of tensors, put together on the first rank piece by piece, so that no rank ever holds the whole.

use super::comm::Comm;
use super::part::Part;
use anyhow::Result;
use tch::{Device, Tensor};

/// Numbers that are gathered at a time.
const AT_ONCE: i64 = 1 << 24;

/// A tensor by its name, of which this rank has a part, or the whole, which is then the same on all ranks.
pub type Held = (String, Tensor, Option<Part>);

/// Tensors of which every rank has parts, for the first rank to take.
pub struct Offer<'a> {
    comm: &'a dyn Comm,
    parts: &'a [Held],
    taken: bool,
}

/// Lets the first rank do some `work`, in which it may take what the `parts` of all ranks make, once. All ranks call
/// this together; the others only give.
///
/// # Errors
/// Those of `work`, on the first rank alone; those of `Comm::sum`.
pub fn offer(comm: &dyn Comm, parts: &[Held], work: impl FnOnce(&mut Offer) -> Result<()>) -> Result<()> {
    let mut offer = Offer { comm, parts, taken: false };
    if !comm.is_first() {
        return offer.take(|_| Ok(()));
    }
    let done = work(&mut offer);
    if !offer.taken {
        // The others wait for what is asked of them.
        comm.any(true)?;
    }
    done
}

impl Offer<'_> {
    /// Names and kinds of the tensors, and their parts.
    pub fn parts(&self) -> &[Held] {
        self.parts
    }

    /// Calls `take` with the tensors, one after another, in pieces on the host; it ends with the first error.
    ///
    /// # Errors
    /// Those of `take` and of `Comm::sum`.
    pub fn take(&mut self, mut take: impl FnMut(&Tensor) -> Result<()>) -> Result<()> {
        let comm = self.comm;
        self.taken = true;
        let mut done = Ok(());
        for (_, own, part) in self.parts {
            let total = part.map_or(own.numel() as i64, |part| part.total);
            for start in (0..total).step_by(AT_ONCE as usize) {
                if comm.any(done.is_err())? {
                    return done;
                }
                let len = AT_ONCE.min(total - start);
                let piece = match part {
                    Some(part) if comm.size() > 1 => piece(comm, own, *part, (start, len))?,
                    _ => own.view(-1).narrow(0, start, len).to_device(Device::Cpu),
                };
                if comm.is_first() {
                    done = take(&piece);
                }
            }
        }
        done
    }
}

/// `len` numbers from `start` on, of which each rank adds those of its part.
fn piece(comm: &dyn Comm, own: &Tensor, part: Part, (start, len): (i64, i64)) -> Result<Tensor> {
    let mut piece = Tensor::zeros([len], (own.kind(), Device::Cpu));
    let (first, end) = (start.max(part.first), (start + len).min(part.first + part.len));
    if first < end {
        piece.narrow(0, first - start, end - first).copy_(&own.narrow(0, first - part.first, end - first));
    }
    comm.sum(&mut piece)?;
    Ok(piece)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::comm::Solo;
    use crate::dist::threads::Thread;
    use crate::torch::to_host;
    use anyhow::bail;
    use tch::Kind;

    /// What the first rank is handed of a tensor that is divided, and of one that is not.
    fn collected(comm: &dyn Comm, all: &Tensor) -> Vec<f32> {
        let part = Part::of(comm.rank(), comm.size(), all.numel() as i64);
        let divided = ("divided".to_string(), part.cut(all).copy(), Some(part));
        let parts = [divided, ("same".to_string(), Tensor::from(3f32), None)];
        let mut found = vec![];
        let mut keep = |piece: &Tensor| {
            found.extend(to_host(piece));
            Ok(())
        };
        offer(comm, &parts, |offer| offer.take(&mut keep)).unwrap();
        found
    }

    #[test]
    fn ranks_share_and_gather_their_parts() {
        // The longest one takes several pieces.
        for total in [1000, 100, AT_ONCE + 1000] {
            let all = (Tensor::arange(total, (Kind::Int64, Device::Cpu)).remainder(1009) + 1).to_kind(Kind::Float);
            let whole: Vec<f32> = to_host(&all).into_iter().chain([3.0]).collect();
            assert_eq!(collected(&Solo, &all), whole);
            std::thread::scope(|scope| {
                for comm in Thread::group(3) {
                    let (all, whole) = (all.copy(), &whole);
                    scope.spawn(move || {
                        let found = collected(&comm, &all);
                        assert_eq!(found, if comm.is_first() { whole.clone() } else { vec![] });
                        let part = Part::of(comm.rank(), 3, total);
                        let mut shared = Tensor::full([total], -5.0, (Kind::BFloat16, Device::Cpu));
                        part.cut(&shared).copy_(&part.cut(&all));
                        comm.share_parts(&mut shared).unwrap();
                        assert_eq!(to_host(&shared), to_host(&all.to_kind(Kind::BFloat16)));
                    });
                }
            });
        }
    }

    #[test]
    fn a_first_rank_that_cannot_take_more_ends_it_for_all() {
        std::thread::scope(|scope| {
            for comm in Thread::group(2) {
                scope.spawn(move || {
                    let part = Part::of(comm.rank(), 2, 100);
                    let own = Tensor::ones([part.len], (Kind::Float, Device::Cpu));
                    let parts = ["a", "b"].map(|name| (name.to_string(), own.shallow_clone(), Some(part)));
                    let mut taken = 0;
                    let full = |_: &Tensor| {
                        taken += 1;
                        bail!("the disk is full")
                    };
                    let ended = offer(&comm, &parts, |offer| offer.take(full));
                    assert_eq!((ended.is_err(), taken), (comm.is_first(), usize::from(comm.is_first())));
                    let ended = offer(&comm, &parts, |_| bail!("no folder"));
                    assert_eq!(ended.is_err(), comm.is_first());
                    // All are at the same place again.
                    assert!(!comm.any(false).unwrap());
                });
            }
        });
    }
}
