//! Parts of a tensor, put together on the first rank.

use super::comm::Comm;
use super::part::Part;
use anyhow::Result;
use tch::{Device, Tensor};

/// Numbers that are gathered at a time.
const AT_ONCE: i64 = 1 << 24;

/// The tensor [total] that the ranks' own parts make, on the host; for the first rank alone, since it takes memory.
///
/// # Errors
/// Those of `Comm::sum`.
pub fn gathered(comm: &dyn Comm, own: &Tensor, part: Part) -> Result<Option<Tensor>> {
    if comm.size() == 1 {
        return Ok(Some(own.shallow_clone()));
    }
    let zeros = |len| Tensor::zeros([len], (own.kind(), Device::Cpu));
    let all = comm.is_first().then(|| zeros(part.total));
    for start in (0..part.total).step_by(AT_ONCE as usize) {
        let len = AT_ONCE.min(part.total - start);
        let mut piece = zeros(len);
        let (first, end) = (start.max(part.first), (start + len).min(part.first + part.len));
        if first < end {
            piece.narrow(0, first - start, end - first).copy_(&own.narrow(0, first - part.first, end - first));
        }
        comm.sum(&mut piece)?;
        if let Some(all) = &all {
            all.narrow(0, start, len).copy_(&piece);
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::comm::Solo;
    use crate::dist::threads::Thread;
    use crate::torch::to_host;
    use tch::Kind;

    #[test]
    fn ranks_share_and_gather_their_parts() {
        for total in [1000, 100] {
            let all = Tensor::arange(total, (Kind::Float, Device::Cpu)) + 1.0;
            std::thread::scope(|scope| {
                for comm in Thread::group(3) {
                    let all = to_host(&all);
                    scope.spawn(move || {
                        let part = Part::of(comm.rank(), 3, total);
                        let whole = Tensor::from_slice(&all);
                        let own = part.cut(&whole).copy();
                        let found = gathered(&comm, &own, part).unwrap();
                        assert_eq!(found.map(|all| to_host(&all)), comm.is_first().then(|| all.clone()));
                        let mut shared = Tensor::full([total], -5.0, (Kind::BFloat16, Device::Cpu));
                        part.cut(&shared).copy_(&own);
                        comm.share_parts(&mut shared).unwrap();
                        assert_eq!(to_host(&shared), to_host(&whole.to_kind(Kind::BFloat16)));
                    });
                }
            });
            let whole = gathered(&Solo, &all, Part::of(0, 1, total)).unwrap().unwrap();
            assert_eq!(to_host(&whole), to_host(&all));
        }
    }
}
