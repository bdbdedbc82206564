//! What is odd about the rows of a warm start, though they can be used.

use super::stats::{Spread, Stats};
use super::tokens::Changes;
use super::trace::Trace;
use crate::recipe::Sft;
use crate::terminal::{self, counted};
use crate::train::batch::Sequence;
use crate::train::sft::Rows;
use std::collections::HashSet;

/// Of the mean length of their partners, how far rows that are to be as long may be off on average: a tenth.
const OFF: f64 = 0.1;

/// Says which rows cannot be read.
pub fn warn_of_unreadable(unreadable: &[String]) {
    const SHOWN: usize = 5;
    for message in unreadable.iter().take(SHOWN) {
        terminal::warn(&format!("warning: left out: {message}"));
    }
    if unreadable.len() > SHOWN {
        terminal::warn(&format!("warning: and {} more rows that cannot be read", unreadable.len() - SHOWN));
    }
}

/// What is odd about the rows. `traces`: those that the training rows were made of.
pub fn notes(rows: &Rows, traces: &[Trace], sft: &Sft, changes: &Changes, stats: &Stats) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = |count: usize, text: &dyn Fn(String) -> String| {
        notes.extend((count > 0).then(|| text(counted(count, "row"))));
    };
    if let Some(files) = sft.files() {
        let (twice, shared) = doubles(rows);
        let [train, validation] = [rows.train.len(), rows.validation.len()];
        note(twice, &|rows| format!("note: the training rows of the warm start repeat {rows} (of {train})"));
        note(shared, &|rows| {
            format!("warning: the validation of the warm start shares {rows} (of {validation}) with its training")
        });
        let unread = usize::from(files.validation.is_some() && sft.validation == 0);
        note(unread, &|_| "note: sft.data.validation is not read, since sft.validation = 0".into());
    }
    note(changes.cut, &|rows| format!("warning: {rows} of the warm start cut at sft.context = {}", sft.context));
    note(changes.ends, &|rows| {
        format!("note: {rows} of the warm start with more end tokens or white space after the end token: left out")
    });
    note(changes.past_stop, &|rows| {
        format!("note: {rows} of the warm start with text after a string of rollout.stop, which no rollout would have")
    });
    note(stats.silent, &|rows| {
        format!("note: {rows} of the warm start (of {}) in which somebody of the cast never speaks", stats.rows)
    });
    notes.extend(far_from_partners(traces, stats));
    notes
}

/// That rows which are to be as long as their partners are not, if they are far off on average.
fn far_from_partners(traces: &[Trace], stats: &Stats) -> Option<String> {
    let (off, wanted) = (stats.off_partner?, Spread::of(traces.iter().filter_map(|trace| trace.wanted)));
    let why = if stats.cast.is_empty() { "" } else { "; a dialogue is never made longer, but a monologue would be" };
    (off.mean > OFF * wanted.mean).then(|| {
        format!(
            "warning: match_lengths leaves the rows of the warm start {:.1} tokens off their partners on average ({} \
             to {}), which have {:.1}{why}",
            off.mean, off.fewest, off.most, wanted.mean
        )
    })
}

/// How many training rows repeat others, and how many validation rows are training rows too.
fn doubles(rows: &Rows) -> (usize, usize) {
    fn ids(row: &Sequence) -> (&[i64], &[i64]) {
        (&row.prompt, &row.response)
    }
    let known: HashSet<_> = rows.train.iter().map(ids).collect();
    let shared = rows.validation.iter().filter(|row| known.contains(&ids(row))).count();
    (rows.train.len() - known.len(), shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_are_far_from_their_partners_are_warned_of() {
        let traces = [40, 60].map(|wanted| Trace { wanted: Some(wanted), ..Trace::default() });
        let off = |mean: f64| {
            let off_partner = Some(Spread { fewest: 0, mean, most: 9 });
            far_from_partners(&traces, &Stats { off_partner, ..Stats::default() })
        };
        assert_eq!(off(5.0), None);
        let said = off(5.1).unwrap();
        assert!(said.ends_with(" 5.1 tokens off their partners on average (0 to 9), which have 50.0"), "{said}");
        assert_eq!(far_from_partners(&traces, &Stats::default()), None);
    }
}
