//! `ppo-train compare`

use super::common::{decoding, print, print_json};
use anyhow::Result;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use ppo_train::analysis::{
    Allowed, Arm, Arms, Comparison, Metric, Reference, Run, Settings, csv, markdown, picture, png, text,
};
use ppo_train::checkpoint::write_file;
use ppo_train::hooks::compared;
use ppo_train::recipe::Decoding;
use ppo_train::stats::RESAMPLES;
use ppo_train::{OrBadInput, bad};
use std::path::{Path, PathBuf};

/// Compare runs, grouped into arms: curves with bands, differences on the same problems, exact tests.
///
/// Runs with one recipe and different seeds are an arm; arms may differ in the rows of their warm start. Runs that
/// differ in anything else, in a key or in the content of a file, are refused, unless --allow or --any says otherwise.
/// docs/compare.md says what each figure means.
///
/// Example: ppo-train compare checkpoints/quickstart-{1,2,3} --svg curves.svg --markdown comparison.md
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Compare {
    /// Run folders.
    #[arg(required_unless_present = "arms")]
    runs: Vec<PathBuf>,
    /// Put runs into an arm of this name, instead of by their recipes; may be repeated.
    #[arg(long = "arm", id = "arms", value_name = "NAME=DIR,DIR")]
    arms: Vec<String>,
    /// Compare runs that differ in this key or section of their recipes, or in a content below it; may be repeated.
    #[arg(long, value_name = "KEY")]
    allow: Vec<String>,
    /// Compare the runs whatever they differ in.
    #[arg(long)]
    any: bool,
    /// A scalar from metrics.jsonl, or a figure of the evaluations: accuracy, format, reward, response_length,
    /// clip_ratio (default: accuracy); or a hook's figure, such as hooks/persona/perspectives/mean.
    #[arg(long)]
    metric: Option<String>,
    /// The decoding mode of the evaluations (default: the recipe's first).
    #[arg(long, value_parser = decoding())]
    decoding: Option<Decoding>,
    /// Steps of the tables (default: 40, 70, 150 and 250, as far as all runs have them, else some that they have).
    #[arg(long, value_delimiter = ',', value_name = "STEP,..")]
    steps: Option<Vec<u64>>,
    /// Values whose first step is looked for (default: 0.25 and 0.5 for shares and rewards).
    #[arg(long = "threshold", value_delimiter = ',', value_name = "VALUE,..")]
    #[arg(allow_negative_numbers = true, value_parser = finite)]
    thresholds: Option<Vec<f64>>,
    /// Resamples of the bootstrap.
    #[arg(long, default_value_t = RESAMPLES, value_parser = RangedU64ValueParser::<usize>::new().range(100..=100_000))]
    resamples: usize,
    /// Lay published curves under ours: a JSON file with `steps` and `curves`.
    #[arg(long, value_name = "FILE")]
    reference: Option<PathBuf>,
    /// Write the curves as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Write the curves as PNG.
    #[arg(long, value_name = "FILE")]
    png: Option<PathBuf>,
    /// Write the tables as Markdown.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    /// Write every figure as CSV.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Print JSON with every figure, instead of tables.
    #[arg(long)]
    json: bool,
}

impl Compare {
    pub fn run(self) -> Result<()> {
        let comparison = self.compare()?;
        self.write(&comparison)?;
        if self.json { print_json(&serde_json::to_value(&comparison)?) } else { print(text(&comparison)) }
    }

    fn compare(&self) -> Result<Comparison> {
        let reference = self.reference.as_deref().map(Reference::read).transpose()?;
        let mut folders = Vec::new();
        let mut forced = Vec::new();
        for arm in &self.arms {
            let (name, list) = split_arm(arm)?;
            forced.push(Arm { name, runs: (folders.len()..folders.len() + list.len()).collect() });
            folders.extend(list);
        }
        folders.extend(self.runs.iter().cloned());
        let mut runs = Run::read_all(&folders)?;
        let allowed = Allowed { keys: self.allow.clone(), any: self.any };
        let arms = Arms::of(&runs, forced, &allowed)?;
        let (metric, notes) = match self.metric.as_deref() {
            Some(name) if compared::is_of_hook(name) => compared::choose(&mut runs, name, self.decoding, &allowed)?,
            name => (Metric::choose(&runs[0], name, self.decoding)?, vec![]),
        };
        let settings =
            Settings { steps: self.steps.clone(), thresholds: self.thresholds.clone(), resamples: self.resamples };
        let mut comparison = Comparison::of(&runs, arms, &metric, &settings)?;
        comparison.notes.extend(notes);
        comparison.notes.extend(reference.as_ref().and_then(|reference| reference.warning(metric.figure())));
        comparison.reference = reference;
        Ok(comparison)
    }

    /// Writes the files that are asked for.
    fn write(&self, comparison: &Comparison) -> Result<()> {
        if self.svg.is_some() || self.png.is_some() {
            let svg = picture(comparison)?;
            if let Some(path) = &self.svg {
                write_file(path, &svg).bad_input()?;
            }
            if let Some(path) = &self.png {
                write_file(path, png(&svg)?).bad_input()?;
            }
        }
        if let Some(path) = &self.markdown {
            let picture = self.svg.as_deref().or(self.png.as_deref()).and_then(|picture| beside(path, picture));
            write_file(path, markdown(comparison, picture.as_deref())).bad_input()?;
        }
        self.csv.as_ref().map_or(Ok(()), |path| write_file(path, csv(comparison)).bad_input())
    }
}

/// `NAME=DIR,DIR` in its parts.
fn split_arm(arm: &str) -> Result<(String, Vec<PathBuf>)> {
    let (name, list) = arm.split_once('=').unwrap_or((arm, ""));
    if name.is_empty() || list.split(',').any(str::is_empty) {
        return Err(bad!("--arm {arm}: expected NAME=DIR or NAME=DIR,DIR"));
    }
    Ok((name.into(), list.split(',').map(PathBuf::from).collect()))
}

/// The name of a picture that is in the same folder as a page.
fn beside(page: &Path, picture: &Path) -> Option<String> {
    (page.parent() == picture.parent()).then(|| picture.file_name()?.to_str().map(String::from)).flatten()
}

fn finite(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|value: &f64| value.is_finite()).ok_or_else(|| "expected a number".into())
}
