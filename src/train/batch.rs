//! Sequences of uneven length as micro-batches, laid out as `layout` says.
//!
//! Per-token quantities of the response tokens are flat (see `algo`); a micro-batch knows the slots of its tokens
//! there, and reads and writes flat quantities with `slots`.

use super::layout::Layout;
pub use super::layout::Sequence;
use super::pulse::Pulse;
use crate::dist::{Comm, share_of};
use crate::model::{Decoder, Tokens};
use crate::terminal;
use crate::torch::{Fault, catching, on_device, trim};
use anyhow::Result;
use std::cell::Cell;
use std::cmp::Reverse;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Whether sequences stand in a single row: if that is `wanted`, or the faster way for the decoders of all ranks, which
/// must lay them out alike to divide them alike.
///
/// # Errors
/// Those of `Comm::sum`.
pub fn in_rows(wanted: bool, decoder: &Decoder, comm: &dyn Comm) -> Result<bool> {
    Ok(wanted || !comm.any(!decoder.prefers_rows())?)
}

/// The sequences of a step, the same on every rank, and how the work on them is divided.
pub struct Batch<'a> {
    pub sequences: &'a [&'a Sequence],
    /// The place of each sequence's response tokens among all of them, N.
    slots: Vec<Range<usize>>,
    /// Tokens of a micro-batch, padding included: fewer than at first once memory has run out.
    micro_tokens: Cell<usize>,
    layout: Layout,
    pub device: Device,
    pub comm: &'a dyn Comm,
    /// What is asked between micro-batches whether work goes on.
    pulse: Option<&'a Pulse<'a>>,
}

/// Some sequences as tensors, with n response tokens in all.
pub struct MicroBatch {
    /// The positions that are read predict the response tokens, [n].
    pub tokens: Tokens,
    /// The response tokens, [n].
    pub targets: Tensor,
    /// Their places in the step's flat quantities, [n].
    pub slots: Tensor,
    /// Which sequences of the batch they are.
    pub rows: Vec<usize>,
}

impl<'a> Batch<'a> {
    /// Micro-batches will hold at most `micro_tokens` tokens, padding included, on `device`.
    pub fn new(sequences: &'a [&'a Sequence], micro_tokens: usize, device: Device, comm: &'a dyn Comm) -> Self {
        let mut end = 0;
        let slot = |s: &&Sequence| {
            end += s.response.len();
            end - s.response.len()..end
        };
        let slots = sequences.iter().map(slot).collect();
        let (micro_tokens, layout) = (Cell::new(micro_tokens), Layout::of(device));
        Self { sequences, slots, micro_tokens, layout, device, comm, pulse: None }
    }

    /// The same, asked between micro-batches whether work goes on.
    pub fn under(self, pulse: &'a Pulse<'a>) -> Self {
        Self { pulse: Some(pulse), ..self }
    }

    /// Whether work goes on, for this rank.
    pub fn goes_on(&self) -> bool {
        self.pulse.is_none_or(Pulse::goes_on)
    }

    /// # Errors
    /// `Stopped` if work does not go on for some rank.
    pub fn check(&self) -> Result<()> {
        self.pulse.map_or(Ok(()), Pulse::check)
    }

    /// The same, with the sequences of a micro-batch in a single row also where that is not the faster way.
    pub fn packed(self, packed: bool) -> Self {
        Self { layout: if packed { Layout::Row } else { self.layout }, ..self }
    }

    /// Lengths of the responses of some sequences.
    pub fn lengths(&self, chosen: Range<usize>) -> Vec<usize> {
        self.slots[chosen].iter().map(Range::len).collect()
    }

    /// The slot of the first response token of a sequence.
    pub fn first_slot(&self, sequence: usize) -> usize {
        self.slots[sequence].start
    }

    /// Consecutive ranges of at most `size` sequences.
    pub fn minis(&self, size: usize) -> impl Iterator<Item = Range<usize>> + Clone {
        let total = self.sequences.len();
        (0..total).step_by(size).map(move |first| first..(first + size).min(total))
    }

    /// This rank's share of the `chosen` sequences in micro-batches, those of similar length together. A sequence
    /// longer than a micro-batch gets its own.
    pub fn micro_batches(&self, chosen: Range<usize>) -> impl Iterator<Item = MicroBatch> {
        self.cut(chosen).into_iter().map(|rows| self.micro_batch(&rows))
    }

    /// How many these are.
    pub fn micro_batch_count(&self, chosen: Range<usize>) -> usize {
        self.cut(chosen).len()
    }

    /// The sequences of each micro-batch.
    fn cut(&self, chosen: Range<usize>) -> Vec<Vec<usize>> {
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut current: Vec<usize> = Vec::new();
        let groups = self.groups(chosen);
        for &i in share_of(self.comm.rank(), self.comm.size(), &groups).flatten() {
            current.push(i);
            if current.len() > 1 && self.tokens(&current) > self.micro_tokens.get() {
                current.pop();
                batches.push(std::mem::replace(&mut current, vec![i]));
            }
        }
        batches.extend(Some(current).filter(|rest| !rest.is_empty()));
        batches
    }

    /// The sequences that a rank gets together, those with the most tokens first.
    fn groups(&self, chosen: Range<usize>) -> Vec<Vec<usize>> {
        let mut groups = self.layout.groups(self.sequences, chosen);
        groups.sort_by_key(|group| Reverse(self.tokens(group)));
        groups
    }

    /// Tokens of a micro-batch of these sequences.
    fn tokens(&self, rows: &[usize]) -> usize {
        self.layout.tokens(&rows.iter().map(|&i| self.sequences[i]).collect::<Vec<_>>())
    }

    /// Tokens of all sequences that each rank scores.
    pub fn tokens_of_ranks(&self) -> Vec<f64> {
        let (groups, size) = (self.groups(0..self.sequences.len()), self.comm.size());
        let tokens = |rank| share_of(rank, size, &groups).flatten().map(|&i| self.sequences[i].tokens()).sum::<usize>();
        (0..size).map(|rank| tokens(rank) as f64).collect()
    }

    /// The tokens of a micro-batch by now.
    pub fn micro_tokens(&self) -> usize {
        self.micro_tokens.get()
    }

    /// Halves the micro-batches if memory ran out for those of the `chosen` sequences, so that what is asked of them
    /// can be tried once more. Each rank does so for itself, since what it holds differs.
    ///
    /// # Errors
    /// The `error` itself: it is another one, or each micro-batch is a single sequence.
    pub fn shrink(&self, chosen: Range<usize>, error: anyhow::Error) -> Result<()> {
        let cut = self.cut(chosen);
        let largest = cut.iter().filter(|rows| rows.len() > 1).map(|rows| self.tokens(rows)).max();
        let (Some(_), Some(largest)) = (Fault::memory(&error), largest) else { return Err(error) };
        self.micro_tokens.set(largest / 2);
        let rank = if self.comm.size() > 1 { format!(" on rank {}", self.comm.rank()) } else { String::new() };
        terminal::say(&format!(
            "warning: {error}, for a micro-batch of {largest} tokens{rank}: it is done again, and micro-batches have \
             at most {} tokens from here on",
            largest / 2
        ));
        Ok(())
    }

    /// A micro-batch of one sequence.
    pub fn alone(&self, sequence: usize) -> MicroBatch {
        self.micro_batch(&[sequence])
    }

    fn micro_batch(&self, rows: &[usize]) -> MicroBatch {
        let sequences: Vec<&Sequence> = rows.iter().map(|&i| self.sequences[i]).collect();
        let targets: Vec<i64> = sequences.iter().flat_map(|s| s.response.iter().copied()).collect();
        let slots: Vec<i64> = rows.iter().flat_map(|&i| self.slots[i].clone().map(|at| at as i64)).collect();
        let [targets, slots] = [targets, slots].map(|values| on_device(&values, self.device));
        MicroBatch { tokens: self.layout.lay(&sequences, self.device), targets, slots, rows: rows.to_vec() }
    }

    /// K numbers for each response token, [N] float32 each in flat order: what `read` returns, [n] each, for the
    /// micro-batches of all sequences. No gradient is kept.
    ///
    /// # Errors
    /// `Stopped` if it is told so between micro-batches; memory that runs out for single sequences.
    pub fn score<const K: usize>(&self, read: impl Fn(&MicroBatch) -> [Tensor; K]) -> Result<[Tensor; K]> {
        let tokens = self.slots.last().map_or(0, |last| last.end) as i64;
        tch::no_grad(|| {
            let mut flat = std::array::from_fn(|_| Tensor::zeros([tokens], (Kind::Float, self.device)));
            let all = 0..self.sequences.len();
            let mut fill = || {
                for batch in self.micro_batches(all.clone()) {
                    if !self.goes_on() {
                        break;
                    }
                    for (flat, own) in flat.iter_mut().zip(read(&batch)) {
                        let _ = flat.index_copy_(0, &batch.slots, &own);
                    }
                    trim();
                }
                Ok(())
            };
            while let Err(error) = catching(&mut fill) {
                self.shrink(all.clone(), error)?;
            }
            self.check()?;
            flat.iter_mut().try_for_each(|flat| self.comm.sum(flat))?;
            Ok(flat)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::Solo;
    use crate::torch::{ids_to_host, test_device, to_host};

    fn sequences() -> Vec<Sequence> {
        let sequence = |prompt: &[i64], response: &[i64]| Sequence { prompt: prompt.into(), response: response.into() };
        vec![
            sequence(&[1, 2, 3], &[4, 5]),
            sequence(&[6], &[7]),
            sequence(&[8, 9], &[10, 11, 12, 13]),
            sequence(&[14], &[]),
        ]
    }

    #[test]
    fn every_response_token_is_scored_once() {
        let all = sequences();
        let all: Vec<&Sequence> = all.iter().collect();
        // Padded: 5 + 3, then 2 + 1 tokens, the longest first; in a row 5 + 4, then 1 + 1.
        for (layout, tokens) in [(Layout::Padded, [12, 4]), (Layout::Row, [9, 2])] {
            let batch = Batch { layout, ..Batch::new(&all, tokens[0], test_device(), &Solo) };
            assert_eq!(batch.slots, [0..2, 2..3, 3..7, 7..7]);
            let micro: Vec<MicroBatch> = batch.micro_batches(0..4).collect();
            assert_eq!(micro.iter().map(|m| m.tokens.ids.numel()).collect::<Vec<_>>(), tokens);
            let mut seen = vec![0; 7];
            for batch in &micro {
                assert_eq!(batch.tokens.read.size(), batch.targets.size());
                for (target, slot) in ids_to_host(&batch.targets).into_iter().zip(ids_to_host(&batch.slots)) {
                    seen[slot as usize] = target;
                }
            }
            assert_eq!(seen, [4, 5, 7, 10, 11, 12, 13]);
            let [scores] = batch.score(|micro| [micro.targets.to_kind(Kind::Float) * 2]).unwrap();
            assert_eq!(to_host(&scores), [8.0, 10.0, 14.0, 20.0, 22.0, 24.0, 26.0]);
        }
    }

    /// One of two ranks, whose sums are only its own.
    struct Half(usize);

    impl Comm for Half {
        fn rank(&self) -> usize {
            self.0
        }

        fn size(&self) -> usize {
            2
        }

        fn sum(&self, _: &mut Tensor) -> Result<()> {
            Ok(())
        }

        fn abort(&self, code: u8) -> ! {
            panic!("code {code}")
        }
    }

    #[test]
    fn the_shares_of_two_ranks_add_up() {
        let all = sequences();
        let all: Vec<&Sequence> = all.iter().collect();
        let share = |rank| {
            let comm = Half(rank);
            let batch = Batch::new(&all, 12, test_device(), &comm);
            let [scores] = batch.score(|micro| [micro.targets.to_kind(Kind::Float)]).unwrap();
            to_host(&scores)
        };
        assert_eq!(share(0), [0.0, 0.0, 7.0, 10.0, 11.0, 12.0, 13.0]);
        assert_eq!(share(1), [4.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
