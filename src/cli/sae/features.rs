//! `ppo-train sae features`

use super::super::common::{print, print_json};
use super::shared::{Pair, Texts, called, can_be_written};
use anyhow::{Context, Result};
use clap::Args;
use ppo_train::files::replace_file;
use ppo_train::sae::{Diversity, Lists, Moments, diversity};
use ppo_train::stats::{Bootstrap, Figure, Grid, RESAMPLES};
use ppo_train::terminal::{Progress, figure, interval, table};
use ppo_train::torch::to_host;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use tch::Kind;

/// Count which features of a sparse autoencoder traces activate: coverage, entropy, and how often each is active.
///
/// Coverage grows with length: docs/sae.md shows how `analyze` compares files of traces at equal length.
///
/// Example: ppo-train sae features saes/layer7 MODEL dialogues.jsonl monologues.jsonl --out features.jsonl
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Features {
    #[command(flatten)]
    pair: Pair,
    #[command(flatten)]
    texts: Texts,
    /// Count by lists: a .json file of named lists of features, or a text file with a feature in each line (default:
    /// all features together).
    #[arg(long, value_name = "FILE")]
    lists: Option<PathBuf>,
    /// Write a row for each trace to this .jsonl file, for `ppo-train analyze`.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Write a row for each feature to this .jsonl file: frequency, mean where it is active, largest activation.
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
    /// Print JSON: means with 95 % intervals.
    #[arg(long)]
    json: bool,
}

/// The figures of a trace, by name.
const FIGURES: [&str; 4] = ["coverage", "entropy", "entropy_by_strength", "active_per_token"];

fn values(one: &Diversity) -> [f64; 4] {
    [one.coverage as f64, one.entropy, one.entropy_by_strength, one.active_per_token]
}

/// The traces of a file.
struct Counted {
    name: String,
    /// Of each trace its row in the file, and its tokens.
    traces: Vec<(usize, usize)>,
    /// By trace and list.
    all: Vec<Vec<Diversity>>,
}

impl Features {
    pub fn run(self) -> Result<()> {
        [&self.out, &self.figures].into_iter().flatten().try_for_each(|file| can_be_written(file))?;
        let (sae, hook, reader) = self.pair.open()?;
        let lists = match &self.lists {
            Some(file) => Lists::read(file, sae.features())?,
            None => Lists::all(sae.features()),
        };
        let residuals = reader.after(hook.layer.context("no layer")?)?;
        let names = called(&self.texts.files).into_iter().zip(&self.texts.files);
        let files = names.map(|(name, file)| Ok((name, reader.texts(file, &self.texts)?)));
        let files: Vec<_> = files.collect::<Result<_>>()?;
        let mut moments = Moments::new(sae.features(), reader.policy.device());
        let mut progress = Progress::new(files.iter().map(|(_, texts)| texts.len() as u64).sum(), "trace");
        let mut counted = vec![];
        for (name, texts) in &files {
            let mut all = vec![];
            residuals.encoded(&sae, &texts.iter().collect::<Vec<_>>(), |text, active| {
                let over = [0i64].as_slice();
                let counts = to_host(&active.gt(0.0).sum_dim_intlist(over, false, Kind::Float));
                let sums = to_host(&active.sum_dim_intlist(over, false, Kind::Float));
                all.push(lists.0.iter().map(|(_, list)| diversity(list, &counts, &sums, text.len())).collect());
                moments.add(&active);
                progress.count(vec![]);
                Ok(())
            })?;
            counted.push(Counted {
                name: name.clone(),
                traces: texts.iter().map(|text| (text.row, text.len())).collect(),
                all,
            });
        }
        drop(progress);
        if let Some(out) = &self.out {
            write_rows(out, counted.iter().flat_map(|file| file.rows(&lists)))?;
        }
        if let Some(out) = &self.figures {
            let rows = moments.figures().into_iter().map(serde_json::to_value);
            write_rows(out, rows.collect::<Result<Vec<_>, _>>()?)?;
        }
        let means: Vec<Vec<Vec<Figure>>> = counted.iter().map(|file| file.means(&lists)).collect();
        if self.json {
            let files = Self::files(&counted, &means, &lists);
            let (sae, features) = (&self.pair.sae, sae.features());
            return print_json(&json!({ "sae": sae, "features": features, "layer": hook.layer, "files": files }));
        }
        print(shown(&counted, &means, &lists))
    }

    fn files(files: &[Counted], means: &[Vec<Vec<Figure>>], lists: &Lists) -> Vec<Value> {
        let file = |(file, means): (&Counted, &Vec<Vec<Figure>>)| {
            let lists = lists.0.iter().zip(means);
            let list = |((name, list), means): (&(String, Vec<i64>), _)| {
                let features = list.len();
                json!({ "list": name, "features": features, "figures": means })
            };
            let lists: Vec<Value> = lists.map(list).collect();
            let tokens: usize = file.traces.iter().map(|(_, tokens)| tokens).sum();
            json!({ "name": file.name, "traces": file.all.len(), "tokens": tokens, "lists": lists })
        };
        files.iter().zip(means).map(file).collect()
    }
}

impl Counted {
    /// A row for each trace.
    fn rows(&self, lists: &Lists) -> Vec<Value> {
        let row = |((number, tokens), of): (&(usize, usize), &Vec<Diversity>)| {
            let mut row = Map::new();
            row.insert("file".into(), self.name.clone().into());
            row.insert("row".into(), (*number).into());
            row.insert("tokens".into(), (*tokens).into());
            for (at, name) in FIGURES.iter().enumerate() {
                let own = lists.0.iter().zip(of).map(|((list, _), one)| (list.clone(), values(one)[at].into()));
                row.insert((*name).into(), Value::Object(own.collect()));
            }
            Value::Object(row)
        };
        self.traces.iter().zip(&self.all).map(row).collect()
    }

    /// Means over the traces with their intervals, by list.
    fn means(&self, lists: &Lists) -> Vec<Vec<Figure>> {
        let bootstrap = Bootstrap::new(RESAMPLES, self.all.len());
        let mean = |list: usize, at: usize| {
            let own = self.all.iter().map(|trace| values(&trace[list])[at]).collect();
            let grid = Grid::new(vec![own])?;
            let (value, interval) = (grid.mean(), bootstrap.mean(&grid));
            Some(Figure { interval, n: Some(self.all.len()), ..Figure::plain(FIGURES[at], value) })
        };
        (0..lists.0.len()).map(|list| (0..FIGURES.len()).filter_map(|at| mean(list, at)).collect()).collect()
    }
}

fn shown(files: &[Counted], means: &[Vec<Vec<Figure>>], lists: &Lists) -> String {
    let mut rows = vec![];
    for (file, means) in files.iter().zip(means) {
        for ((list, _), means) in lists.0.iter().zip(means) {
            let own = means.iter().map(|mean| {
                let ends = mean.interval.map_or(String::new(), interval);
                let name = mean.name.replace('_', " ");
                vec![file.name.clone(), list.clone(), name, figure(mean.value), ends, file.all.len().to_string()]
            });
            rows.extend(own);
        }
    }
    table(&["file", "features", "figure", "mean", "95 % interval", "traces"], &rows)
}

/// Writes rows as a .jsonl file, whole or not at all.
fn write_rows(file: &Path, rows: impl IntoIterator<Item = Value>) -> Result<()> {
    let text: String = rows.into_iter().map(|row| format!("{row}\n")).collect();
    replace_file(file, text).with_context(|| format!("cannot write {}", file.display()))
}
