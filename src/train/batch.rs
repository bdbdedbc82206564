//! Sequences of uneven length as micro-batches: padded only within one, and no more than necessary.
//!
//! Per-token quantities of the response tokens are flat (see `algo`); a micro-batch knows the slots of its tokens
//! there, and reads and writes flat quantities with `slots`.

use super::pulse::Pulse;
use crate::dist::{Comm, share, share_of};
use crate::terminal;
use crate::torch::{Fault, catching, padded, trim};
use anyhow::Result;
use std::cell::Cell;
use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// A prompt and its response, generated or to be learnt; token ids. The samples of a prompt share it.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    pub prompt: Arc<[i64]>,
    pub response: Vec<i64>,
}

impl Sequence {
    /// Tokens of both.
    pub fn tokens(&self) -> usize {
        self.prompt.len() + self.response.len()
    }
}

/// The sequences of a step, the same on every rank, and how the work on them is divided.
pub struct Batch<'a> {
    pub sequences: &'a [&'a Sequence],
    /// The place of each sequence's response tokens among all of them, N.
    slots: Vec<Range<usize>>,
    /// Tokens of a micro-batch, padding included: fewer than at first once memory has run out.
    micro_tokens: Cell<usize>,
    /// Whether the sequences of a micro-batch stand in one row.
    packed: bool,
    pub device: Device,
    pub comm: &'a dyn Comm,
    /// What is asked between micro-batches whether work goes on.
    pulse: Option<&'a Pulse<'a>>,
}

/// Some sequences as tensors: B rows of T tokens, n response tokens in all.
pub struct MicroBatch {
    /// [B, T], padded on the right; or [1, T], if packed.
    pub ids: Tensor,
    /// The lengths of the sequences in the row, if packed; else none.
    pub packed: Vec<i64>,
    /// Which of the B*T positions predict a response token, [n].
    pub read: Tensor,
    /// The response tokens, [n].
    pub targets: Tensor,
    /// Their places in the step's flat quantities, [n].
    pub slots: Tensor,
    /// Which sequences of the batch they are, B.
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
        Self { sequences, slots, micro_tokens: Cell::new(micro_tokens), packed: false, device, comm, pulse: None }
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

    /// The same, with the sequences of a micro-batch one after another in a single row, if `packed`.
    pub fn packed(self, packed: bool) -> Self {
        Self { packed, ..self }
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
        let mut order: Vec<usize> = chosen.collect();
        order.sort_by_key(|&i| Reverse(self.sequences[i].tokens()));
        let own = share(self.comm, &order);
        let mut rest = own.as_slice();
        let mut batches = Vec::new();
        while let Some(&longest) = rest.first() {
            let longest = self.sequences[longest].tokens();
            let mut tokens = 0;
            let fits = |&&i: &&usize| {
                tokens += if self.packed { self.sequences[i].tokens() } else { longest };
                tokens <= self.micro_tokens.get()
            };
            let rows = rest.iter().take_while(fits).count().max(1);
            let (rows, after) = rest.split_at(rows);
            batches.push(rows.to_vec());
            rest = after;
        }
        batches
    }

    /// Tokens of all sequences that each rank scores.
    pub fn tokens_of_ranks(&self) -> Vec<f64> {
        let mut tokens: Vec<usize> = self.sequences.iter().map(|s| s.tokens()).collect();
        tokens.sort_unstable_by_key(|count| Reverse(*count));
        let size = self.comm.size();
        (0..size).map(|rank| share_of(rank, size, &tokens).sum::<usize>() as f64).collect()
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
        let tokens = |rows: &Vec<usize>| {
            let each = rows.iter().map(|&i| self.sequences[i].tokens());
            if self.packed { each.sum() } else { rows.len() * each.max().unwrap_or(0) }
        };
        let cut = self.cut(chosen);
        let largest = cut.iter().filter(|rows| rows.len() > 1).map(tokens).max();
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
        let sequences = || rows.iter().map(|&i| self.sequences[i]);
        let ids: Vec<Vec<i64>> = sequences().map(|s| [&*s.prompt, &s.response].concat()).collect();
        let width = ids.iter().map(Vec::len).max().unwrap_or(0);
        let (mut read, mut targets, mut slots) = (Vec::new(), Vec::new(), Vec::new());
        let mut start = 0;
        for (s, &i) in sequences().zip(rows) {
            let first = start + s.prompt.len() - 1;
            start += if self.packed { s.tokens() } else { width };
            read.extend((first..first + s.response.len()).map(|at| at as i64));
            targets.extend_from_slice(&s.response);
            slots.extend(self.slots[i].clone().map(|at| at as i64));
        }
        let tensor = |values: &[i64]| Tensor::from_slice(values).to_device(self.device);
        let lengths = ids.iter().map(|ids| ids.len() as i64).collect();
        let (ids, packed) = match self.packed {
            true => (padded(&[ids.concat()], self.device), lengths),
            false => (padded(&ids, self.device), vec![]),
        };
        let [read, targets, slots] = [&read, &targets, &slots].map(|values| tensor(values));
        MicroBatch { ids, packed, read, targets, slots, rows: rows.to_vec() }
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
    use crate::torch::{ids_to_host, to_host};

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
    fn every_response_token_is_read_once_where_it_is_predicted() {
        let all = sequences();
        let all: Vec<&Sequence> = all.iter().collect();
        for (packed, batches) in [(false, 2), (true, 2)] {
            let batch = Batch::new(&all, 12, Device::Cpu, &Solo).packed(packed);
            assert_eq!(batch.slots, [0..2, 2..3, 3..7, 7..7]);
            let micro: Vec<MicroBatch> = batch.micro_batches(0..4).collect();
            assert_eq!(micro.len(), batches);
            let mut seen = vec![0; 7];
            for batch in &micro {
                let (rows, width) = batch.ids.size2().unwrap();
                assert!(rows * width <= 12);
                assert_eq!(batch.packed.iter().sum::<i64>(), if packed { width } else { 0 });
                let ids = ids_to_host(&batch.ids);
                let (read, targets) = (ids_to_host(&batch.read), ids_to_host(&batch.targets));
                for ((at, target), slot) in read.iter().zip(&targets).zip(ids_to_host(&batch.slots)) {
                    // The token after the position that is read is the target, and the flat slot holds the same token.
                    assert_eq!(ids[*at as usize + 1], *target);
                    seen[slot as usize] = *target;
                }
            }
            assert_eq!(seen, [4, 5, 7, 10, 11, 12, 13]);
            let [scores] = batch.score(|micro| [micro.targets.to_kind(Kind::Float) * 2]).unwrap();
            assert_eq!(to_host(&scores), [8.0, 10.0, 14.0, 20.0, 22.0, 24.0, 26.0]);
        }
        // 6 and 5 tokens fill a row of 11, which padding would make 12; the next two are 2 and 1.
        let lengths = |batch: &MicroBatch| batch.packed.clone();
        let packed = Batch::new(&all, 12, Device::Cpu, &Solo).packed(true);
        let packed = packed.micro_batches(0..4).map(|batch| lengths(&batch));
        assert_eq!(packed.collect::<Vec<_>>(), [vec![6, 5], vec![2, 1]]);
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
            let batch = Batch::new(&all, 12, Device::Cpu, &comm);
            let [scores] = batch.score(|micro| [micro.targets.to_kind(Kind::Float)]).unwrap();
            to_host(&scores)
        };
        assert_eq!(share(0), [0.0, 0.0, 7.0, 10.0, 11.0, 12.0, 13.0]);
        assert_eq!(share(1), [4.0, 5.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
