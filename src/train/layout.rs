//! How the sequences of a micro-batch become token ids: padded rows, or one row without padding in which a prompt is
//! read once for all responses to it.
//!
//! With S samples per prompt of P tokens and responses of R, a row has P + S R tokens where padded sequences have
//! S (P + R). The last token of a response predicts nothing and is left out of a row.

use crate::model::Tokens;
use crate::torch::{Branch, on_device, padded};
use std::ops::Range;
use std::sync::Arc;
use tch::Device;

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

/// The ways to lay out a micro-batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// [B, T], each sequence padded on the right. On a GPU few large operations are better than many small ones.
    Padded,
    /// [1, T].
    Row,
}

impl Layout {
    /// The faster one on a device.
    pub fn of(device: Device) -> Self {
        if device == Device::Cpu { Self::Row } else { Self::Padded }
    }

    /// Sequences that belong together: in a row, neighbours with the same prompt.
    pub fn groups(self, sequences: &[&Sequence], chosen: impl Iterator<Item = usize>) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for i in chosen {
            let same = |&last: &usize| self == Self::Row && sequences[last].prompt == sequences[i].prompt;
            match groups.last_mut().filter(|group| group.last().is_some_and(same)) {
                Some(group) => group.push(i),
                None => groups.push(vec![i]),
            }
        }
        groups
    }

    /// Tokens of a micro-batch of these sequences, padding included.
    pub fn tokens(self, sequences: &[&Sequence]) -> usize {
        match self {
            Self::Padded => sequences.len() * sequences.iter().map(|s| s.tokens()).max().unwrap_or(0),
            Self::Row => {
                let mut last: Option<&Sequence> = None;
                let own = sequences.iter().map(|s| {
                    let known = last.replace(s).is_some_and(|last| last.prompt == s.prompt);
                    fed(s).len() + if known { 0 } else { s.prompt.len() }
                });
                own.sum()
            }
        }
    }

    /// The sequences as tensors; those that read the response tokens' predictions, in order.
    pub fn lay(self, sequences: &[&Sequence], device: Device) -> Tokens {
        let tensor = |values: &[i64]| on_device(values, device);
        match self {
            Self::Padded => {
                let ids: Vec<Vec<i64>> = sequences.iter().map(|s| [&*s.prompt, &s.response].concat()).collect();
                let width = ids.iter().map(Vec::len).max().unwrap_or(0);
                let read = sequences.iter().enumerate().flat_map(|(row, s)| {
                    let first = row * width + s.prompt.len() - 1;
                    (first..first + s.response.len()).map(|at| at as i64)
                });
                Tokens::padded(padded(&ids, device), tensor(&read.collect::<Vec<i64>>()))
            }
            Self::Row => {
                let mut row = Row::default();
                let same = |a: &&Sequence, b: &&Sequence| a.prompt == b.prompt;
                sequences.chunk_by(same).for_each(|group| row.add(group));
                Tokens { ids: tensor(&row.ids).unsqueeze(0), branches: row.branches, read: tensor(&row.read) }
            }
        }
    }
}

/// The tokens of a response that a row has.
fn fed(sequence: &Sequence) -> &[i64] {
    sequence.response.split_last().map_or(&[], |(_, before)| before)
}

/// A row that is being filled.
#[derive(Default)]
struct Row {
    ids: Vec<i64>,
    branches: Vec<Branch>,
    read: Vec<i64>,
}

impl Row {
    /// Adds tokens as a branch, unless there are none.
    fn branch<'a>(&mut self, prefix: Range<i64>, ids: impl Iterator<Item = &'a i64>) -> Range<i64> {
        let first = self.ids.len() as i64;
        self.ids.extend(ids);
        let own = first..self.ids.len() as i64;
        if !own.is_empty() {
            self.branches.push(Branch { prefix, own: own.clone() });
        }
        own
    }

    /// Adds sequences that have the same prompt.
    fn add(&mut self, group: &[&Sequence]) {
        let Some(first) = group.first() else { return };
        if let [only] = group {
            let own = self.branch(0..0, only.prompt.iter().chain(fed(only)));
            let first = own.start + only.prompt.len() as i64 - 1;
            self.read.extend(first..first + only.response.len() as i64);
            return;
        }
        let prompt = self.branch(0..0, first.prompt.iter());
        for sequence in group.iter().filter(|s| !s.response.is_empty()) {
            let own = self.branch(prompt.clone(), fed(sequence).iter());
            self.read.push(prompt.end - 1);
            self.read.extend(own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::ids_to_host;

    fn sequence(prompt: &[i64], response: &[i64]) -> Sequence {
        Sequence { prompt: prompt.into(), response: response.into() }
    }

    /// Two prompts with several responses, of which one is empty and one a single token; and one with a single one.
    #[test]
    fn every_prediction_is_read_where_its_prefix_ends() {
        let all = [
            sequence(&[1, 2, 3], &[4, 5]),
            sequence(&[1, 2, 3], &[]),
            sequence(&[1, 2, 3], &[6]),
            sequence(&[7, 8], &[9, 10, 11]),
            sequence(&[12], &[13, 14]),
            sequence(&[12], &[15, 16]),
        ];
        let all: Vec<&Sequence> = all.iter().collect();
        for layout in [Layout::Padded, Layout::Row] {
            let tokens = layout.lay(&all, Device::Cpu);
            let ids = ids_to_host(&tokens.ids);
            assert_eq!(ids.len(), layout.tokens(&all));
            let width = tokens.ids.size()[1] as usize;
            // What a position sees: the beginning of its row, or its prefix and the beginning of its branch.
            let seen = |at: usize| -> Vec<i64> {
                let range = |range: Range<i64>| ids[range.start as usize..range.end as usize].to_vec();
                match tokens.branches.iter().find(|branch| branch.own.contains(&(at as i64))) {
                    None => ids[at / width * width..=at].to_vec(),
                    Some(Branch { prefix, own }) => [range(prefix.clone()), range(own.start..at as i64 + 1)].concat(),
                }
            };
            let found: Vec<Vec<i64>> = ids_to_host(&tokens.read).into_iter().map(|at| seen(at as usize)).collect();
            let expected: Vec<Vec<i64>> = all
                .iter()
                .flat_map(|s| (0..s.response.len()).map(|n| [&s.prompt[..], &s.response[..n]].concat()))
                .collect();
            assert_eq!(found, expected, "{layout:?}");
        }
        assert_eq!((Layout::Padded.tokens(&all), Layout::Row.tokens(&all)), (30, 3 + 1 + 2 + 2 + 1 + 2));
        let groups = Layout::Row.groups(&all, 0..6);
        assert_eq!(groups, [vec![0, 1, 2], vec![3], vec![4, 5]]);
        assert_eq!(Layout::Padded.groups(&all, 1..3), [[1], [2]]);
    }
}
