//! Each rank writes the responses to its own share of the prompts; here all of them get all.

use crate::dist::Comm;
use crate::rollout::Response;
use crate::torch::{ids_to_host, to_host};
use anyhow::Result;
use tch::Tensor;

/// The responses of all ranks in the order of their `places`, of which there are `total`. This rank has written those
/// at `own`.
///
/// # Errors
/// Those of `Comm::sum`.
pub fn exchange(comm: &dyn Comm, own: &[usize], written: Vec<Response>, total: usize) -> Result<Vec<Response>> {
    if comm.size() == 1 {
        return Ok(written);
    }
    // Their lengths, and whether they ended by themselves: [total, 2], of which each rank fills its own rows.
    let mut heads = vec![0i64; 2 * total];
    for (place, response) in own.iter().zip(&written) {
        heads[2 * place] = response.ids.len() as i64;
        heads[2 * place + 1] = response.terminated.into();
    }
    let heads = summed(comm, Tensor::from_slice(&heads))?;
    let heads: Vec<[i64; 2]> = ids_to_host(&heads).chunks(2).map(|head| [head[0], head[1]]).collect();
    let mut end = 0;
    let slot = |[length, _]: &[i64; 2]| {
        end += *length as usize;
        end - *length as usize..end
    };
    let slots: Vec<_> = heads.iter().map(slot).collect();
    // All tokens one after another, [N], and their log-probs.
    let (mut ids, mut log_probs) = (vec![0i64; end], vec![0f32; end]);
    for (place, response) in own.iter().zip(&written) {
        ids[slots[*place].clone()].copy_from_slice(&response.ids);
        log_probs[slots[*place].clone()].copy_from_slice(&response.log_probs);
    }
    let ids = ids_to_host(&summed(comm, Tensor::from_slice(&ids))?);
    let log_probs = to_host(&summed(comm, Tensor::from_slice(&log_probs))?);
    let response = |([_, terminated], slot): ([i64; 2], std::ops::Range<usize>)| Response {
        ids: ids[slot.clone()].to_vec(),
        log_probs: log_probs[slot].to_vec(),
        terminated: terminated == 1,
    };
    Ok(heads.into_iter().zip(slots).map(response).collect())
}

fn summed(comm: &dyn Comm, mut tensor: Tensor) -> Result<Tensor> {
    comm.sum(&mut tensor)?;
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::share;
    use crate::dist::threads::Thread;

    #[test]
    fn every_rank_gets_every_response() {
        let response = |i: usize| Response {
            ids: (0..i as i64 % 4).map(|token| token + 10 * i as i64).collect(),
            log_probs: (0..i % 4).map(|token| -0.1 * (token + i) as f32).collect(),
            terminated: i.is_multiple_of(3),
        };
        let all: Vec<Response> = (0..7).map(response).collect();
        std::thread::scope(|scope| {
            for comm in Thread::group(3) {
                let all = &all;
                scope.spawn(move || {
                    let own = share(&comm, &(0..7).collect::<Vec<_>>());
                    let written = own.iter().map(|i| all[*i].clone()).collect();
                    assert_eq!(&exchange(&comm, &own, written, 7).unwrap(), all);
                });
            }
        });
    }
}
