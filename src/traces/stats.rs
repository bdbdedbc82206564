//! What the traces of a warm start are like: figures to look at before training, hashes that show what two arms share.

use super::tokens::Row;
use super::trace::Trace;
use crate::env::Environment;
use crate::hash::hash_of_texts;
use crate::recipe::{Reward, Rules};
use crate::task::{Split, grade, layout};
use crate::text::opens_think;
use crate::text::persona::Dialogue;
use crate::text::tags::marks;
use anyhow::Result;
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

/// Figures of the training rows, of what is left of them at `sft.context`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Stats {
    pub rows: usize,
    pub validation_rows: usize,
    /// Rows of the file that were left out, because their layout is broken.
    pub unreadable: usize,
    /// Rows cut off at `sft.context`.
    pub cut: usize,
    /// Of the responses, as blanks and tags divide them, without the tags.
    pub words: Spread,
    /// Under the recipe's tokenizer.
    pub prompt_tokens: Spread,
    /// Under the recipe's tokenizer, with the end token.
    pub response_tokens: Spread,
    /// How many tokens rows that were made as long as their partners are off, either way; both are whole here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub off_partner: Option<Spread>,
    /// Number of personas who speak -> number of rows; rows in the persona layout alone.
    pub personas: BTreeMap<usize, usize>,
    /// The same of the personas in the cast.
    pub cast: BTreeMap<usize, usize>,
    /// Rows in which somebody of the cast never speaks.
    pub silent: usize,
    /// Utterances of the rows in the persona layout.
    pub turns: Spread,
    /// Rows in which the recipe's reward finds an answer.
    pub answered: usize,
    /// What would help the others.
    pub unanswered: Unanswered,
    /// Rows that earn the recipe's format reward.
    pub formatted: usize,
    /// Rows whose answer the task judges right; none if the rows are not the task's.
    pub right: Option<usize>,
    /// SHA-256 of the problems and their answers in order: equal if two arms have the same ones.
    pub problems_sha256: String,
    /// SHA-256 of the prompts and responses in order, before they were cut.
    pub traces_sha256: String,
}

/// Rows in which the reward finds no answer, by what would give them one. For a row that may be both keys of a layout,
/// or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Unanswered {
    /// A larger `sft.context`: the whole response has an answer.
    pub context: usize,
    /// `sft.data.answer_tags = true`.
    pub answer_tags: usize,
    /// `reward.dialogue_format = true`.
    pub dialogue_format: usize,
}

impl Unanswered {
    /// Counts a row. `opened`: whether its prompt ends inside an open `<think>`.
    fn count(&mut self, trace: &Trace, row: &Row, reward: &Reward, opened: bool) {
        let has_answer = |reward: &Reward| layout::read(&trace.response, reward, opened).answer.is_ok();
        if row.is_cut() && has_answer(reward) {
            self.context += 1;
            return;
        }
        // TinyZero's rules read the last line alone, and the tags of a dialogue's conclusion have lines of their own.
        let in_a_line = || reward.rules == Rules::Strict || Dialogue::parse(&trace.response).is_err();
        self.answer_tags += usize::from(trace.taggable && in_a_line());
        self.dialogue_format += usize::from(has_answer(&Reward { dialogue_format: true, ..reward.clone() }));
    }
}

impl Stats {
    /// Of training traces and the rows that they became; what these cannot show is 0.
    ///
    /// # Errors
    /// A row that cannot be decoded.
    pub fn of(traces: &[Trace], rows: &[Row], env: &Environment, reward: &Reward) -> Result<Self> {
        let mut stats = Self {
            rows: rows.len(),
            cut: rows.iter().filter(|row| row.is_cut()).count(),
            prompt_tokens: Spread::of(rows.iter().map(|row| row.tokens.prompt.len())),
            response_tokens: Spread::of(rows.iter().map(|row| row.tokens.response.len())),
            off_partner: off_partner(traces, rows),
            right: traces.iter().any(|trace| trace.index.is_some()).then_some(0),
            problems_sha256: hash_of_texts(traces.iter().map(|trace| trace.problem.as_str())),
            traces_sha256: hash_of_texts(
                traces.iter().flat_map(|trace| [trace.prompt.as_str(), trace.response.as_str()]),
            ),
            ..Self::default()
        };
        let (mut words, mut turns) = (Vec::new(), Vec::new());
        for (trace, row) in traces.iter().zip(rows) {
            // As the reward would see it if it were a rollout's.
            let text = env.decode(&row.tokens.response)?;
            words.push(words_of(&text));
            if let Ok(dialogue) = Dialogue::parse(&text) {
                let cast = dialogue.cast.len();
                let speakers = (1..=cast).filter(|number| dialogue.speaks(*number)).count();
                *stats.personas.entry(speakers).or_default() += 1;
                *stats.cast.entry(cast).or_default() += 1;
                stats.silent += usize::from(speakers < cast);
                turns.push(dialogue.turns.len());
            }
            let opened = opens_think(&trace.prompt);
            let layout = layout::read(&text, reward, opened);
            match layout.answer {
                Ok(_) => stats.answered += 1,
                Err(_) => stats.unanswered.count(trace, row, reward, opened),
            }
            stats.formatted += usize::from(layout.format);
            if let (Some(index), Some(right)) = (trace.index, &mut stats.right) {
                let grade = grade(env.task.as_ref(), (Split::Train, index), &text, reward, opened);
                *right += usize::from(grade.accuracy == 1.0);
            }
        }
        stats.words = Spread::of(words.into_iter());
        stats.turns = Spread::of(turns.into_iter());
        Ok(stats)
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
        let counts = |of: &BTreeMap<usize, usize>| -> String {
            let counts: Vec<String> = of.iter().map(|(count, rows)| format!("{count} in {rows} rows")).collect();
            counts.join(", ")
        };
        let mut table = vec![
            vec!["rows".into(), format!("{} for training, {} for validation", self.rows, self.validation_rows)],
            vec!["left out".into(), format!("{} training rows whose layout is broken", self.unreadable)],
            vec!["words".into(), spread(&self.words)],
            vec!["prompt tokens".into(), spread(&self.prompt_tokens)],
            vec!["response tokens".into(), spread(&self.response_tokens)],
            vec!["cut off".into(), format!("{} training rows", self.cut)],
        ];
        table.extend(self.off_partner.map(|off| vec!["off their partners".into(), format!("{} tokens", spread(&off))]));
        if !self.personas.is_empty() {
            table.push(vec!["personas who speak".into(), counts(&self.personas)]);
            table.extend((self.silent > 0).then(|| vec!["of a cast of".into(), counts(&self.cast)]));
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

/// How far the whole responses, without their end tokens, are from the lengths they should have; none if they need not.
fn off_partner(traces: &[Trace], rows: &[Row]) -> Option<Spread> {
    let off = traces.iter().zip(rows).filter_map(|(trace, row)| Some(trace.wanted?.abs_diff(row.whole)));
    off.clone().next().map(|_| Spread::of(off))
}

/// The words of a text, as blanks and tags divide them, without the tags.
fn words_of(text: &str) -> usize {
    let words = |part: &str| part.split_whitespace().count();
    let (mut before, mut end) = (0, 0);
    for mark in marks(text) {
        before += words(&text[end..mark.start]);
        end = mark.end;
    }
    before + words(&text[end..])
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

    #[test]
    fn tags_are_no_words() {
        let text = "<conversation>\n<think1>so <b> it</think1><think2>is</think2>\n</conversation>\n<answer>7</answer>";
        assert_eq!((words_of(text), words_of("a <think"), words_of("")), (5, 2, 0));
    }
}
