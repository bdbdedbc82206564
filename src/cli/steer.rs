//! `ppo-train steer`

use super::common::{decoding, print, print_json, recipe_of, self_contained, split, whole_model_of};
use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use ppo_train::bad;
use ppo_train::env::{Environment, Prompt};
use ppo_train::files::write_file;
use ppo_train::judge::{Judge, Judgement, Lexical};
use ppo_train::model::Policy;
use ppo_train::plan::{self, Plan};
use ppo_train::recipe::Decoding;
use ppo_train::rollout::check_layer;
use ppo_train::sae::{FeatureFigures, Hook, Residuals, Sae, Scaling, Text, matched, read, read_figures};
use ppo_train::steer::{
    Answers, Condition, Direction, Report, Scale, Setting, Unit, Values, described, difference_of_means, markdown,
    mean_norm, passages,
};
use ppo_train::task::{Split, in_words};
use ppo_train::terminal::{Progress, figure};
use ppo_train::torch::{self, to_host};
use ppo_train::train::rollouts::Rollout;
use serde_json::json;
use std::path::PathBuf;
use tch::Device;

/// Add a direction to a model's residual stream while it answers held-out problems, and measure what that changes.
///
/// After a layer h' = h + s d at every token of a response. The strengths s answer the same problems with the same
/// random numbers; the figures are held against strength 0. docs/steering.md says what they mean.
///
/// Example: ppo-train steer checkpoints/quickstart/step_000044 --layer 2 --between dialogues.jsonl monologues.jsonl
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Steer {
    /// A checkpoint: the folder of a step in a run folder; with --recipe any model folder.
    checkpoint: PathBuf,
    /// The layer after which the direction is added, from 0 (default: the one that the autoencoder of --sae reads).
    #[arg(long, required_unless_present = "sae")]
    layer: Option<usize>,
    #[command(flatten)]
    source: Source,
    /// The feature of --sae whose decoder row is the direction.
    #[arg(long, value_name = "N")]
    feature: Option<i64>,
    /// What `sae features --figures` wrote about all features of --sae: it has the largest activations, and --controls
    /// are then features that are active as often.
    #[arg(long, value_name = "FILE")]
    figures: Option<PathBuf>,
    /// The tensor of --file (default: direction).
    #[arg(long, value_name = "NAME")]
    tensor: Option<String>,
    /// The largest activation of the direction's feature, for --unit activation.
    #[arg(long, value_name = "NUMBER")]
    max_activation: Option<f64>,
    /// Strengths; 0, to which the others are held, is always one of them (default: -10,-5,0,5,10; with --unit norm
    /// -1,-0.5,0,0.5,1).
    #[arg(long, value_name = "S,S", value_delimiter = ',', allow_hyphen_values = true)]
    strengths: Option<Vec<f64>>,
    /// What a strength is a multiple of: the direction as it is, its feature's largest activation, or the mean norm of
    /// the residual stream over the prompts.
    #[arg(long, default_value = "raw", value_parser = unit())]
    unit: Unit,
    /// Steer the tokens of prompts too, but for the tokenizer's begin token.
    #[arg(long)]
    prompt: bool,
    /// Steer the begin token too.
    #[arg(long, requires = "prompt")]
    begin: bool,
    /// Hold the figures against so many random directions, or with --figures other features, of the same norm, at the
    /// same strengths.
    #[arg(long, value_name = "K", default_value_t = 0,
        value_parser = RangedU64ValueParser::<usize>::new().range(..=10_000))]
    controls: usize,
    /// Seed of the controls, and of --random.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// The split of the problems.
    #[arg(long, default_value = "validation", value_parser = split())]
    split: Split,
    /// Number of problems, from the first one on (0: all).
    #[arg(long, default_value_t = 0)]
    problems: usize,
    /// The most probable token each time, or a sample at temperature 1.
    #[arg(long, default_value = "greedy", value_parser = decoding())]
    decoding: Decoding,
    /// Take task, prompts and rewards from this recipe instead of the run's.
    #[arg(long, value_name = "RECIPE")]
    recipe: Option<PathBuf>,
    /// Override a key of the recipe; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Write every answer and what is known of it as a line of JSON, for `judge --traces`, `analyze` and --between.
    #[arg(long, value_name = "FILE")]
    traces: Option<PathBuf>,
    /// Write the direction as a safetensors file, for --file.
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Print JSON: all figures of all conditions.
    #[arg(long)]
    json: bool,
}

/// Where the direction comes from.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct Source {
    /// The mean residual stream over the responses of a file A minus that of B: rows (.jsonl, .json, .parquet) with
    /// `response` or `text`, and the `prompt` before it if there is one.
    #[arg(long, num_args = 2, value_names = ["A", "B"])]
    between: Option<Vec<PathBuf>>,
    /// A feature of a sparse autoencoder: its folder, in the layout of sae_lens or of Llama Scope (docs/sae.md).
    #[arg(long, value_name = "DIR", requires = "feature")]
    sae: Option<PathBuf>,
    /// A tensor of a safetensors file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A random direction of norm 1.
    #[arg(long)]
    random: bool,
}

impl Steer {
    pub fn run(self) -> Result<()> {
        // The parser cannot require one of several that exclude each other.
        let unused = [
            (self.tensor.is_some() && self.source.file.is_none(), "--tensor", "--file FILE"),
            (self.figures.is_some() && self.source.sae.is_none(), "--figures", "--sae DIR"),
            (self.feature.is_some() && self.source.sae.is_none(), "--feature", "--sae DIR"),
        ];
        if let Some((_, what, of)) = unused.into_iter().find(|(is_unused, ..)| *is_unused) {
            return Err(bad!("{what} belongs to {of}, which is not given"));
        }
        let model = whole_model_of(&self.checkpoint, &["recipe.toml"])?;
        let recipe = self.recipe.clone().map_or_else(|| recipe_of(&self.checkpoint), Ok)?;
        let plan = plan::load(&recipe, &[self_contained(&model), self.sets.clone()].concat(), None)?;
        let feature = self.feature(plan.config.hidden_size)?;
        let Some(layer) = self.layer.or(feature.as_ref().and_then(|feature| feature.hook.layer)) else {
            return Err(bad!("the autoencoder does not say which layer it reads: name it with --layer"));
        };
        check_layer(&plan.config, layer)?;
        let strengths = self.strengths()?;
        let env = Environment::of(&plan)?;
        let measured = torch::catching(|| {
            let policy = Policy::new(&plan.config, plan.weights(&model, plan::use_device(&plan.recipe.machine)?)?);
            let residuals = Residuals { policy: &policy, layer };
            self.measure(&residuals, &plan, &env, feature.as_ref(), &strengths)
        });
        let (report, traces) = measured.map_err(|error| plan::with_relief(&plan, error))?;
        if self.json { print_json(&serde_json::to_value(&report)?) } else { print(markdown(&report).trim_end()) }?;
        self.traces.as_ref().map_or(Ok(()), |path| write_file(path, traces))
    }

    /// In ascending order, 0 among them.
    fn strengths(&self) -> Result<Vec<f64>> {
        let mut all = self.strengths.clone().unwrap_or_else(|| self.unit.strengths().to_vec());
        if let Some(other) = all.iter().find(|strength| !strength.is_finite()) {
            return Err(bad!("--strengths: {other} is not a strength, expected finite numbers"));
        }
        // -0 is 0.
        all.iter_mut().for_each(|strength| *strength += 0.0);
        all.push(0.0);
        all.sort_by(f64::total_cmp);
        all.dedup();
        Ok(all)
    }

    /// The report, and the lines of the answers if they are wanted.
    fn measure(
        &self,
        residuals: &Residuals,
        plan: &Plan,
        env: &Environment,
        feature: Option<&Feature>,
        strengths: &[f64],
    ) -> Result<(Report, String)> {
        let &Residuals { policy, layer } = residuals;
        let all = env.task.len(self.split);
        let count = if self.problems == 0 { all } else { self.problems.min(all) };
        if count == 0 {
            return Err(bad!("the {} split has no problems", self.split.name()));
        }
        let prompts = (0..count).map(|index| env.prompt(self.split, index)).collect::<Result<Vec<_>>>()?;
        let direction = self.direction(residuals, env, feature)?;
        if let Some(path) = &self.save {
            direction.save(path)?;
        }
        let text = |prompt: &Prompt| Text { ids: prompt.ids.to_vec(), ..Text::default() };
        let residual_norm = mean_norm(residuals, &prompts.iter().map(text).collect::<Vec<_>>())?;
        let scale = Scale::new(self.unit, &direction, residual_norm)?;
        let begin = env.tokenizer.begin().len();
        let (prompt_from, tokens) = match (self.prompt, self.begin || begin == 0) {
            (false, _) => (None, "the tokens of responses"),
            (true, false) => (Some(begin), "the tokens of prompts, but for the begin token, and of responses"),
            (true, true) => (Some(0), "all tokens of prompts and responses"),
        };
        let setting = Setting { policy, plan, env, decoding: self.decoding, layer, prompt_from };
        let mut report = Report {
            direction: described(&direction),
            layer,
            tokens,
            scale,
            task: env.task.name().into(),
            split: self.split.name(),
            decoding: self.decoding.name(),
            problems: count,
            conditions: vec![],
            controls: None,
            notes: self.notes(layer, feature),
        };

        let (of, controls) = self.controls(&direction, feature)?;
        let directions: Vec<Direction> = [direction].into_iter().chain(controls).collect();
        let condition =
            |direction: usize, strength: f64| Condition { direction, strength, factor: strength * scale.factor };
        let steered = || strengths.iter().filter(|strength| **strength != 0.0);
        let conditions: Vec<Condition> = strengths
            .iter()
            .map(|strength| condition(0, *strength))
            .chain((1..directions.len()).flat_map(|which| steered().map(move |strength| condition(which, *strength))))
            .collect();
        let mut progress = Progress::new(conditions.len() as u64, "condition");
        let (mut values, mut traces) = (vec![], String::new());
        setting.answer(&prompts, &directions, &conditions, |answers| {
            let own = Values::of(&answers);
            let accuracy = own.values.first().map_or(0.0, |all| all.iter().sum::<f64>() / count as f64);
            progress.count(vec![format!("accuracy {}", figure(accuracy))]);
            if self.traces.is_some() {
                traces.extend(lines(&answers, &prompts, env, &directions, &report));
            }
            values.push(own);
            Ok(())
        })?;
        let rest = values.split_off(strengths.len());
        let controls: Vec<Vec<Values>> = rest.chunks(steered().count().max(1)).map(<[Values]>::to_vec).collect();
        report.fill(&strengths.iter().copied().zip(values).collect::<Vec<_>>(), (of, &controls), self.seed);
        Ok((report, traces))
    }

    /// The feature that is steered along, if it is one, of an autoencoder over `hidden` numbers.
    fn feature(&self, hidden: i64) -> Result<Option<Feature>> {
        let (Some(folder), Some(number)) = (&self.source.sae, self.feature) else { return Ok(None) };
        let (sae, hook) = read(folder, Device::Cpu)?;
        let (shown, count) = (folder.display(), sae.features());
        if sae.hidden() != hidden {
            let own = sae.hidden();
            return Err(bad!("{shown} reads a residual stream of {own} numbers, but that of the model has {hidden}"));
        }
        if !(0..count).contains(&number) {
            return Err(bad!("--feature {number}: {shown} has {count} features, from 0 to {}", count - 1));
        }
        if !matches!(sae.scaling, Scaling::By(_)) && self.unit == Unit::Activation {
            return Err(bad!(
                "{shown} scales each token by itself, so that what an activation adds differs from token to token: use \
                 --unit raw or norm"
            ));
        }
        let figures = self.figures.as_ref().map(|file| read_figures(file, count)).transpose()?;
        Ok(Some(Feature { name: format!("feature {number} of {shown}"), number, sae, hook, figures }))
    }

    fn direction(&self, residuals: &Residuals, env: &Environment, feature: Option<&Feature>) -> Result<Direction> {
        let Source { between, file, .. } = &self.source;
        let config = &residuals.policy.config;
        let found = match (between.as_deref(), file, feature) {
            (Some([first, second]), ..) => {
                let most = config.max_position_embeddings as usize;
                let read = |path: &PathBuf| passages(path, &env.tokenizer, most);
                let name = format!("difference of means, {} minus {}", first.display(), second.display());
                difference_of_means(residuals, &read(first)?, &read(second)?, name)?
            }
            (_, Some(file), _) => Direction::from_file(file, self.tensor.as_deref().unwrap_or("direction"))?,
            (.., Some(feature)) => feature.direction(feature.number)?,
            _ => Direction::random(config.hidden_size as usize, 1.0, self.seed, 0),
        };
        Direction::from_vector(found.name, found.vector, self.max_activation.or(found.max_activation))
    }

    /// What the direction is held against, as long as it is, and what that is called.
    fn controls(&self, direction: &Direction, feature: Option<&Feature>) -> Result<(&'static str, Vec<Direction>)> {
        let norm = direction.norm();
        if let Some((feature, figures)) = feature.and_then(|own| Some((own, own.figures.as_ref()?))) {
            let others = matched(figures, feature.number, self.controls, self.seed);
            if self.controls > 0 && figures[feature.number as usize].frequency == 0.0 {
                return Err(bad!(
                    "{} is active nowhere, by --figures, so that none can be matched with it",
                    feature.name
                ));
            }
            if others.len() < self.controls {
                let (wanted, found) = (self.controls, others.len());
                return Err(bad!("--controls {wanted}: only {found} other features can be matched with this one"));
            }
            let scaled = |other: i64| Ok(feature.direction(other)?.of_norm(norm));
            return Ok((
                "other features that are active about as often",
                others.into_iter().map(scaled).collect::<Result<_>>()?,
            ));
        }
        // Of --random the direction itself is the first.
        let first = usize::from(self.source.random);
        let random = |index: usize| Direction::random(direction.vector.len(), norm, self.seed, index as u64);
        Ok(("random directions", (first..first + self.controls).map(random).collect()))
    }

    fn notes(&self, layer: usize, feature: Option<&Feature>) -> Vec<String> {
        let first = "the first token of a response follows from the prompt's last one, which is not steered";
        let first = (!self.prompt).then(|| first.to_string());
        let read = feature.and_then(|feature| feature.hook.layer).filter(|read| *read != layer);
        let other =
            read.map(|read| format!("the autoencoder reads the residual stream after layer {read}, not {layer}"));
        let blind = Lexical.cannot_see().map(String::from);
        [first, other, blind].into_iter().flatten().collect()
    }
}

/// A feature of an autoencoder.
struct Feature {
    name: String,
    number: i64,
    sae: Sae,
    hook: Hook,
    /// Of all features.
    figures: Option<Vec<FeatureFigures>>,
}

impl Feature {
    /// The decoder's row of one of the features.
    fn direction(&self, number: i64) -> Result<Direction> {
        let own = self.figures.as_ref().map(|all| all[number as usize].max).filter(|most| *most > 0.0);
        let name = if number == self.number { self.name.clone() } else { format!("feature {number}") };
        Direction::from_vector(name, to_host(&self.sae.direction(number)), own)
    }
}

/// The answers under a condition, a line each, with the fields of judged traces.
fn lines(
    answers: &Answers,
    prompts: &[Prompt],
    env: &Environment,
    directions: &[Direction],
    report: &Report,
) -> Vec<String> {
    let Condition { direction, strength, .. } = answers.condition;
    let all = prompts.iter().zip(&answers.rollouts).zip(&answers.judgements);
    let line = |((prompt, rollout), judgement): ((&Prompt, &Rollout), &Judgement)| {
        let line = json!({
            "index": prompt.index,
            "problem": in_words(&env.task.variables(prompt.split, prompt.index)),
            "prompt": prompt.text,
            "text": rollout.text,
            "tokens": rollout.sequence.response.len(),
            "terminated": rollout.terminated,
            "reward": rollout.grade.reward,
            "accuracy": rollout.grade.accuracy,
            "format": rollout.grade.format,
            "verdict": rollout.grade.reason,
            "direction": directions[direction].name,
            "control": direction > 0,
            "layer": report.layer,
            "strength": strength,
            "unit": report.scale.unit.name(),
            "share_of_stream": report.scale.share(strength),
            "judgement": judgement,
        });
        format!("{line}\n")
    };
    all.map(line).collect()
}

/// Parses the name of a unit.
fn unit() -> impl TypedValueParser<Value = Unit> {
    PossibleValuesParser::new(Unit::ALL.map(Unit::name))
        .try_map(|name| Unit::ALL.into_iter().find(|unit| unit.name() == name).ok_or("not a unit"))
}
