//! `ppo-train analyze`

use super::common::{print, print_json};
use anyhow::Result;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use ppo_train::bad;
use ppo_train::judge::{COGNITIVE, CONVERSATIONAL, ROLES};
use ppo_train::regression::{Correction, Family, Filter, Named, Request, Source, Study, markdown};
use ppo_train::stats::RESAMPLES;
use ppo_train::stats::fit::Count;
use std::path::{Path, PathBuf};

/// Lists in our own files whose elements have names.
const NAMED: [Named; 3] =
    [("judgement.conversational", &CONVERSATIONAL), ("judgement.cognitive", &COGNITIVE), ("judgement.roles", &ROLES)];

/// Regressions over tables: linear and Poisson models with fixed effects and clustered errors, and mediation.
///
/// A table is a .jsonl, .json, .csv, .tsv or .parquet file; several are read one after another. Fields of nested
/// objects are named with dots, and lists are laid out. docs/analyze.md says what formulas and figures mean.
///
/// Example: ppo-train analyze traces.jsonl --model 'correct ~ questions + log(tokens) | problem' --cluster task
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Analyze {
    /// Tables; the column `table` is what they are called here.
    #[arg(required = true, value_name = "[NAME=]FILE")]
    tables: Vec<String>,
    /// A model; may be repeated. Terms: a, log(a), C(a, base="x"), a:b, a*b; fixed effects behind |.
    #[arg(long = "model", value_name = "FORMULA", required_unless_present = "mediations")]
    models: Vec<String>,
    /// What the outcome is: of all models, or given once for each (default: linear).
    #[arg(long = "family", value_parser = family())]
    families: Vec<Family>,
    /// A mediation, 'x -> m -> y' or 'x -> m1 + m2 -> y ~ controls | fixed effects'; may be repeated.
    #[arg(long = "mediate", id = "mediations", value_name = "PATH")]
    mediations: Vec<String>,
    /// Cluster errors by one column or two; `a:b` are the two together.
    #[arg(long, value_name = "COLUMN[,COLUMN]", value_delimiter = ',')]
    cluster: Vec<String>,
    /// Errors without clusters (default: hc1).
    #[arg(long, conflicts_with = "cluster")]
    errors: Option<ErrorsKind>,
    /// Whether fixed effects that are nested in the clusters count in the factor n / (n - k) of errors.
    #[arg(long, value_enum, default_value_t = Degrees::Nested)]
    degrees: Degrees,
    /// Only rows whose column has one of these values; may be repeated.
    #[arg(long = "where", id = "filters", value_name = "COLUMN=VALUE[,VALUE]", value_parser = filter)]
    filters: Vec<Filter>,
    /// Correct p values over all models together: Holm's, or Benjamini and Hochberg's.
    #[arg(long, value_parser = correction())]
    correct: Option<Correction>,
    /// Only these terms are tests that are corrected (default: all but the constants); may be repeated.
    #[arg(long = "test", value_name = "TERM", requires = "correct")]
    tests: Vec<String>,
    /// Resamples of a mediation's bootstrap.
    #[arg(long, default_value_t = RESAMPLES, value_parser = RangedU64ValueParser::<usize>::new().range(100..=100_000))]
    resamples: usize,
    /// Print JSON with every figure in full precision, instead of Markdown.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum ErrorsKind {
    /// Of one variance.
    Classical,
    /// Robust to unequal variances.
    Hc1,
}

#[derive(Clone, Copy, ValueEnum)]
enum Degrees {
    /// Those nested in the clusters do not count.
    Nested,
    /// All count, as dummies do.
    All,
}

impl Analyze {
    pub fn run(self) -> Result<()> {
        let request = Request {
            sources: self.tables.iter().map(|text| source(text)).collect::<Result<_>>()?,
            filters: self.filters,
            models: self.models,
            families: self.families,
            mediations: self.mediations,
            clusters: self.cluster,
            robust: !matches!(self.errors, Some(ErrorsKind::Classical)),
            count: if matches!(self.degrees, Degrees::Nested) { Count::Nested } else { Count::All },
            resamples: self.resamples,
            correction: self.correct,
            tests: self.tests,
        };
        let study = Study::of(&request, &NAMED)?;
        if self.json { print_json(&serde_json::to_value(&study)?) } else { print(markdown(&study).trim_end()) }
    }
}

/// A file, or a name and a file.
fn source(text: &str) -> Result<Source> {
    let path = PathBuf::from(text);
    match text.split_once('=') {
        Some((name, file)) if !path.exists() => {
            if name.is_empty() || file.is_empty() {
                return Err(bad!("{text}: expected FILE or NAME=FILE"));
            }
            Ok(Source { name: name.into(), path: Path::new(file).into() })
        }
        _ => Ok(Source { name: text.into(), path }),
    }
}

fn filter(text: &str) -> Result<Filter, String> {
    let (column, values) = text.split_once('=').ok_or("expected COLUMN=VALUE, or COLUMN=VALUE,VALUE")?;
    Ok(Filter { column: column.trim().into(), values: values.split(',').map(String::from).collect() })
}

fn family() -> impl TypedValueParser<Value = Family> {
    PossibleValuesParser::new(["linear", "poisson"])
        .map(|name| if name == "linear" { Family::Linear } else { Family::Poisson })
}

fn correction() -> impl TypedValueParser<Value = Correction> {
    PossibleValuesParser::new(["holm", "bh"]).map(|name| if name == "holm" { Correction::Holm } else { Correction::Bh })
}
