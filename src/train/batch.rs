//! Sequences of uneven length as micro-batches: padded only within one, and never more than they must be.
//!
//! Per-token quantities of the response tokens lie flat (see `algo`); a micro-batch names the slots its tokens have
//! there, so that anything flat is picked with `slots` and put back with it.

use crate::model::padded;
use std::ops::Range;
use tch::{Device, Tensor};

/// One prompt and what was, or should be, answered; token ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sequence {
    pub prompt: Vec<i64>,
    pub response: Vec<i64>,
}

impl Sequence {
    pub fn len(&self) -> usize {
        self.prompt.len() + self.response.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Where each sequence's response tokens lie among all of them.
pub fn slots(sequences: &[Sequence]) -> Vec<Range<usize>> {
    let mut end = 0;
    let next = |s: &Sequence| {
        end += s.response.len();
        end - s.response.len()..end
    };
    sequences.iter().map(next).collect()
}

/// Some sequences as tensors: B rows of T tokens, N response tokens in all.
pub struct MicroBatch {
    /// [B, T], padded on the right.
    pub ids: Tensor,
    /// Which of the B*T positions predict a response token, [N].
    pub read: Tensor,
    /// The response tokens, [N].
    pub targets: Tensor,
    /// Their places in the step's flat quantities, [N].
    pub slots: Tensor,
}

/// Splits the `chosen` sequences into micro-batches of at most `max_tokens` tokens, padding included; a longer sequence
/// has one to itself. Sequences of like length share one.
pub fn micro_batches(
    sequences: &[Sequence],
    slots: &[Range<usize>],
    chosen: Range<usize>,
    max_tokens: usize,
    device: Device,
) -> Vec<MicroBatch> {
    let mut order: Vec<usize> = chosen.collect();
    order.sort_by_key(|&i| std::cmp::Reverse(sequences[i].len()));
    let mut rest = order.as_slice();
    let mut batches = Vec::new();
    while let Some(&longest) = rest.first() {
        let rows = (max_tokens / sequences[longest].len().max(1)).clamp(1, rest.len());
        let (rows, after) = rest.split_at(rows);
        batches.push(micro_batch(sequences, slots, rows, device));
        rest = after;
    }
    batches
}

fn micro_batch(sequences: &[Sequence], slots: &[Range<usize>], rows: &[usize], device: Device) -> MicroBatch {
    let ids: Vec<Vec<i64>> =
        rows.iter().map(|&i| [sequences[i].prompt.as_slice(), &sequences[i].response].concat()).collect();
    let width = ids.iter().map(Vec::len).max().unwrap_or(0);
    let (mut read, mut targets, mut places) = (Vec::new(), Vec::new(), Vec::new());
    for (row, &i) in rows.iter().enumerate() {
        let Sequence { prompt, response } = &sequences[i];
        let first = row * width + prompt.len() - 1;
        read.extend((first..first + response.len()).map(|at| at as i64));
        targets.extend_from_slice(response);
        places.extend(slots[i].clone().map(|at| at as i64));
    }
    let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(device);
    MicroBatch { ids: padded(&ids, device), read: tensor(&read), targets: tensor(&targets), slots: tensor(&places) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::ids_to_host;

    #[test]
    fn every_response_token_is_read_once_where_it_is_predicted() {
        let sequence = |prompt: &[i64], response: &[i64]| Sequence { prompt: prompt.into(), response: response.into() };
        let all = [
            sequence(&[1, 2, 3], &[4, 5]),
            sequence(&[6], &[7]),
            sequence(&[8, 9], &[10, 11, 12, 13]),
            sequence(&[14], &[]),
        ];
        let slots = slots(&all);
        assert_eq!(slots, [0..2, 2..3, 3..7, 7..7]);
        let batches = micro_batches(&all, &slots, 0..4, 12, Device::Cpu);
        assert_eq!(batches.len(), 2);
        let mut seen = vec![0; 7];
        for batch in &batches {
            let (rows, width) = batch.ids.size2().unwrap();
            assert!(rows * width <= 12);
            let ids = ids_to_host(&batch.ids);
            let (read, targets) = (ids_to_host(&batch.read), ids_to_host(&batch.targets));
            for ((at, target), slot) in read.iter().zip(&targets).zip(ids_to_host(&batch.slots)) {
                // The token after the position that is read is the target, and the flat slot holds the same token.
                assert_eq!(ids[*at as usize + 1], *target);
                seen[slot as usize] = *target;
            }
        }
        assert_eq!(seen, [4, 5, 7, 10, 11, 12, 13]);
    }
}
