//! What the traces of a warm start are like: figures to look at before training, hashes that show what two arms share.

use super::trace::Trace;
use crate::hash::hash_of_texts;
use crate::recipe::Reward;
use crate::task::{Split, Task, grade, layout};
use crate::text::opens_think;
use crate::text::persona::Dialogue;
use crate::train::batch::Sequence;
use serde::Serialize;
use std::collections::BTreeMap;

/// The fewest, the mean and the most of a count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub fewest: usize,
    pub mean: f64,
    pub most: usize,
}

impl Spread {
    /// Of these counts; zeros if there are none.
    pub fn of(counts: impl Iterator<Item = usize> + Clone) -> Self {
        let number = counts.clone().count().max(1);
        Self {
            fewest: counts.clone().min().unwrap_or(0),
            mean: counts.clone().sum::<usize>() as f64 / number as f64,
            most: counts.max().unwrap_or(0),
        }
    }
}

/// Figures of the training rows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Stats {
    pub rows: usize,
    pub validation_rows: usize,
    /// Training rows of the file that were left out, because their layout is broken.
    pub unreadable: usize,
    /// Rows cut off at `sft.context`.
    pub cut: usize,
    /// As blanks divide them, of the responses.
    pub words: Spread,
    /// Under the recipe's tokenizer.
    pub prompt_tokens: Spread,
    /// Under the recipe's tokenizer, with the end token, after rows were cut.
    pub response_tokens: Spread,
    /// How many tokens rows that were made as long as their partners are off, either way.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off_partner: Option<Spread>,
    /// Number of personas -> number of rows; rows in the persona layout alone.
    pub personas: BTreeMap<usize, usize>,
    /// Utterances of the rows in the persona layout.
    pub turns: Spread,
    /// Rows in which the recipe's reward finds an answer.
    pub answered: usize,
    /// Rows that earn the recipe's format reward.
    pub formatted: usize,
    /// Rows whose answer the task judges right; none if the rows are not the task's.
    pub right: Option<usize>,
    /// SHA-256 of the problems and their answers in order: equal if two arms have the same ones.
    pub problems_sha256: String,
    /// SHA-256 of the prompts and responses in order.
    pub traces_sha256: String,
}

impl Stats {
    /// Of training traces and the rows that they became; what these cannot show is 0.
    pub fn of(traces: &[Trace], sequences: &[Sequence], task: &dyn Task, reward: &Reward) -> Self {
        let mut stats = Self {
            rows: traces.len(),
            validation_rows: 0,
            unreadable: 0,
            cut: 0,
            words: Spread::of(traces.iter().map(|trace| trace.response.split_whitespace().count())),
            prompt_tokens: Spread::of(sequences.iter().map(|row| row.prompt.len())),
            response_tokens: Spread::of(sequences.iter().map(|row| row.response.len())),
            off_partner: off_partner(traces, sequences),
            personas: BTreeMap::new(),
            turns: Spread::default(),
            answered: 0,
            formatted: 0,
            right: traces.iter().any(|trace| trace.index.is_some()).then_some(0),
            problems_sha256: hash_of_texts(traces.iter().map(|trace| trace.problem.as_str())),
            traces_sha256: hash_of_texts(
                traces.iter().flat_map(|trace| [trace.prompt.as_str(), trace.response.as_str()]),
            ),
        };
        let mut turns = Vec::new();
        for trace in traces {
            if let Ok(dialogue) = Dialogue::parse(&trace.response) {
                *stats.personas.entry(dialogue.cast.len()).or_default() += 1;
                turns.push(dialogue.turns.len());
            }
            let opened = opens_think(&trace.prompt);
            let layout = layout::read(&trace.response, reward, opened);
            stats.answered += usize::from(layout.answer.is_ok());
            stats.formatted += usize::from(layout.format);
            if let (Some(index), Some(right)) = (trace.index, &mut stats.right) {
                let grade = grade(task, (Split::Train, index), &trace.response, reward, opened);
                *right += usize::from(grade.accuracy == 1.0);
            }
        }
        stats.turns = Spread::of(turns.iter().copied());
        stats
    }

    /// The share of all rows, those left out included, in which the reward finds an answer, 0 to 1.
    pub fn answered_share(&self) -> f64 {
        self.answered as f64 / (self.rows + self.unreadable).max(1) as f64
    }

    /// What the recipe's reward makes of the rows, in one line.
    pub fn verdict(&self) -> String {
        let all = self.rows + self.unreadable;
        let share = |count: usize| format!("{count} ({:.0} %)", 100.0 * count as f64 / all.max(1) as f64);
        let right = self.right.map_or(String::new(), |count| format!(", and {} are right", share(count)));
        format!(
            "of {all} warm-start rows {} can be read; the reward finds an answer in {} and gives the format reward to \
             {}{right}",
            share(self.rows),
            share(self.answered),
            share(self.formatted)
        )
    }

    /// Rows of a table: what, and how much.
    pub fn table(&self) -> Vec<Vec<String>> {
        let spread = |s: &Spread| format!("{:.1} on average, {} to {}", s.mean, s.fewest, s.most);
        let personas = self.personas.iter().map(|(count, rows)| format!("{count} in {rows} rows"));
        let personas: Vec<String> = personas.collect();
        let mut table = vec![
            vec!["rows".into(), format!("{} for training, {} for validation", self.rows, self.validation_rows)],
            vec!["left out".into(), format!("{} training rows whose layout is broken", self.unreadable)],
            vec!["words".into(), spread(&self.words)],
            vec!["prompt tokens".into(), spread(&self.prompt_tokens)],
            vec!["response tokens".into(), spread(&self.response_tokens)],
            vec!["cut off".into(), self.cut.to_string()],
        ];
        table.extend(self.off_partner.map(|off| vec!["off their partners".into(), format!("{} tokens", spread(&off))]));
        if !personas.is_empty() {
            table.push(vec!["personas".into(), personas.join(", ")]);
            table.push(vec!["utterances".into(), spread(&self.turns)]);
        }
        table.push(vec!["with an answer".into(), self.answered.to_string()]);
        table.push(vec!["format reward".into(), self.formatted.to_string()]);
        table.extend(self.right.map(|count| vec!["right".into(), count.to_string()]));
        table.push(vec!["problems".into(), format!("sha256 {}", self.problems_sha256)]);
        table.push(vec!["traces".into(), format!("sha256 {}", self.traces_sha256)]);
        table
    }
}

/// How far the responses, without their end tokens, are from the lengths they should have; none if they need not.
fn off_partner(traces: &[Trace], sequences: &[Sequence]) -> Option<Spread> {
    let off = traces.iter().zip(sequences);
    let off: Vec<usize> =
        off.filter_map(|(t, s)| Some(t.wanted?.abs_diff(s.response.len().saturating_sub(1)))).collect();
    (!off.is_empty()).then(|| Spread::of(off.into_iter()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_has_the_mean_of_all() {
        let spread = Spread::of([3, 1, 8].into_iter());
        assert_eq!(spread, Spread { fewest: 1, mean: 4.0, most: 8 });
        assert_eq!(Spread::of(std::iter::empty()), Spread::default());
    }
}
