//! How well the lexical judge tells dialogues from monologues of the same problems.
//!
//! cargo run --release --example judge_pairs -- DIALOGUES.json MONOLOGUES.json
//!
//! The files are paired as `ppo-train dialogues` writes them, with a column `dialogue` or `monologue`. Printed are the
//! areas under the ROC curves, as they are and at matched length (in words), with the tags and without them; how
//! many voices were found, against what the parser of the layout says; and what the judge finds in our solver's
//! monologues, which are lists of tries and no conversation.

#![allow(clippy::print_stdout)] // an example has something to show

use anyhow::{Context, Result, ensure};
use ppo_train::judge::{Auc, Judged, Judgement, lexical, separate, words};
use ppo_train::recipe::TraceStyle;
use ppo_train::rng::{Purpose, stream};
use ppo_train::rows;
use ppo_train::task::countdown::{MAX_VALUE, Problem, SolverOptions, solver_trace};
use ppo_train::text::persona::Dialogue;
use std::path::Path;

const RESAMPLES: usize = 1000;

struct Trace {
    text: String,
    words: usize,
    judgement: Judgement,
}

impl Trace {
    fn new(text: String) -> Self {
        Self { words: words(&text).all as usize, judgement: lexical::judgement(&text), text }
    }

    fn view(&self) -> Judged<'_> {
        Judged { text: &self.text, tokens: self.words, judgement: Some(&self.judgement), embeddings: None }
    }

    /// What is said, line by line, without tags.
    fn utterances(&self) -> String {
        let said = self.judgement.segments.iter().map(|segment| &self.text[segment.start..segment.end]);
        said.collect::<Vec<_>>().join("\n")
    }

    fn voices(&self) -> usize {
        self.judgement.perspectives.as_ref().map_or(0, Vec::len)
    }

    fn behaviours(&self) -> u32 {
        let counts = [self.judgement.conversational, self.judgement.cognitive];
        counts.into_iter().flatten().flatten().sum()
    }
}

fn main() -> Result<()> {
    let files: Vec<String> = std::env::args().skip(1).collect();
    ensure!(files.len() == 2, "expected two files: dialogues and monologues");
    let tagged = traces(&files[0], "dialogue")?;
    let monologues = traces(&files[1], "monologue")?;
    let plain: Vec<Trace> = tagged.iter().map(|trace| Trace::new(trace.utterances())).collect();

    println!("| behaviour | dialogues | monologues | AUC | at matched length | AUC without tags | at matched length |");
    println!("|---|---|---|---|---|---|---|");
    let with = separate(&views(&tagged), &views(&monologues), RESAMPLES);
    let without = separate(&views(&plain), &views(&monologues), RESAMPLES);
    for (with, without) in with.iter().zip(&without) {
        let [first, second] = with.prevalence.map(|share| format!("{:.0} %", 100.0 * share));
        println!("| {} | {first} | {second} | {} | {} |", with.name, cells(with), cells(without));
    }

    let parsed: Vec<_> = tagged.iter().filter_map(|t| Some((Dialogue::parse(&t.text).ok()?, t.voices()))).collect();
    let speaking = |dialogue: &Dialogue| (1..=dialogue.cast.len()).filter(|number| dialogue.speaks(*number)).count();
    let exact = parsed.iter().filter(|(dialogue, voices)| speaking(dialogue) == *voices).count();
    println!("\nvoices: as parsed in {exact} of the {} dialogues that the parser reads;", parsed.len());
    let opened = |text: &str| (1..100).filter(|n| text.contains(&format!("<think{n}>"))).count();
    let found = tagged.iter().filter(|trace| opened(&trace.text) == trace.voices()).count();
    let single = monologues.iter().filter(|trace| trace.voices() == 1).count();
    println!("as many as different <thinkN> in {found} of all {}; one in {single} monologues", tagged.len());

    let tries: Vec<Trace> = (0..300).map(|index| Trace::new(list_of_tries(index))).collect();
    let behaviours: u32 = tries.iter().map(Trace::behaviours).sum();
    println!("enumeration: {behaviours} behaviours in {} lists of tries", tries.len());
    Ok(())
}

fn traces(file: &str, column: &str) -> Result<Vec<Trace>> {
    let trace = |row: Result<rows::Row>| {
        let (number, row) = row?;
        let text = row.get(column).and_then(|text| text.as_str());
        let text = text.with_context(|| format!("{file}, row {number}: no text in the column `{column}`"))?;
        Ok(Trace::new(text.to_string()))
    };
    rows::read(Path::new(file), &[column])?.map(trace).collect()
}

fn views(traces: &[Trace]) -> Vec<Judged<'_>> {
    traces.iter().map(Trace::view).collect()
}

fn cells(auc: &Auc) -> String {
    let cell = |value: f64, low: Option<f64>, high: Option<f64>| match low.zip(high) {
        Some((low, high)) => format!("{value:.3} ({low:.3} to {high:.3})"),
        None => format!("{value:.3}"),
    };
    let matched = auc.matched.map(|value| cell(value, auc.matched_low, auc.matched_high));
    format!("{} | {}", cell(auc.auc, auc.low, auc.high), matched.unwrap_or_else(|| "no common length".into()))
}

/// A monologue of our solver.
fn list_of_tries(index: u64) -> String {
    let options = SolverOptions { tries: [2, 12], insight: 0.2, more: 0, max_value: MAX_VALUE };
    let problem = Problem { nums: vec![5, 7, 12, 3], target: 67 };
    solver_trace(&problem, TraceStyle::Monologue, &options, &mut stream(0, Purpose::Traces, 0, index))
}
