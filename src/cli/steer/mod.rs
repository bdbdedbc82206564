//! `ppo-train steer`: its arguments, and the study that they ask for.

mod judging;
mod source;

use super::common::{decoding, print, print_json, recipe_of, self_contained, split, whole_model_of};
use anyhow::Result;
use clap::Args;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use judging::{Judging, SECTION, lines};
use ppo_train::bad;
use ppo_train::env::{Environment, Prompt};
use ppo_train::files::write_file;
use ppo_train::model::Policy;
use ppo_train::plan::{self, Plan};
use ppo_train::recipe::Decoding;
use ppo_train::rollout::check_layer;
use ppo_train::run::signals;
use ppo_train::sae::{Residuals, Text};
use ppo_train::stats::mean;
use ppo_train::steer::{Condition, Direction, Report, Scale, Setting, Unit, Values, described, markdown, mean_norm};
use ppo_train::task::Split;
use ppo_train::terminal::{Progress, figure};
use ppo_train::torch;
use ppo_train::train::stop::Stop;
use source::{Feature, Source};
use std::path::PathBuf;

/// Add a direction to a model's residual stream while it answers held-out problems, and measure what that changes.
///
/// After a layer h' = h + s d at every token of a response. The strengths s answer the same problems with the same
/// random numbers; the figures are held against strength 0. Behaviours are those that the judge of the recipe's
/// [hooks.persona] sees (default: the lexical judge). docs/steering.md says what the figures mean.
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
    /// Override a key of the recipe, such as hooks.persona.judge.kind; may be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Keep what a judge behind an endpoint answers in this folder, so that nothing is asked twice (default: for this
    /// time only).
    #[arg(long, value_name = "DIR")]
    answers: Option<PathBuf>,
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

impl Steer {
    pub fn run(self) -> Result<()> {
        self.source.check()?;
        let model = whole_model_of(&self.checkpoint, &["recipe.toml"])?;
        let recipe = self.recipe.clone().map_or_else(|| recipe_of(&self.checkpoint), Ok)?;
        let sets = [self_contained(&model), vec![SECTION.to_string()], self.sets.clone()].concat();
        let plan = plan::load(&recipe, &sets, None)?;
        let feature = self.source.feature(plan.config.hidden_size, self.unit)?;
        let Some(layer) = self.layer.or(feature.as_ref().and_then(|feature| feature.hook.layer)) else {
            return Err(bad!("the autoencoder does not say which layer it reads: name it with --layer"));
        };
        check_layer(&plan.config, layer)?;
        let strengths = self.strengths()?;
        let env = Environment::of(&plan)?;
        let stop = signals::watch()?;
        let measured = torch::catching(|| {
            let mut judging = Judging::open(&plan.recipe, self.answers.as_deref(), &stop)?;
            let policy = Policy::new(&plan.config, plan.weights(&model, plan::use_device(&plan.recipe.machine)?)?);
            let residuals = Residuals { policy: &policy, layer };
            self.measure(&residuals, (&plan, &env), feature.as_ref(), &strengths, (&mut judging, &stop))
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
        (plan, env): (&Plan, &Environment),
        feature: Option<&Feature>,
        strengths: &[f64],
        (judging, stop): (&mut Judging, &Stop),
    ) -> Result<(Report, String)> {
        let &Residuals { policy, layer } = residuals;
        let all = env.task.len(self.split);
        let count = if self.problems == 0 { all } else { self.problems.min(all) };
        if count == 0 {
            return Err(bad!("the {} split has no problems", self.split.name()));
        }
        let prompts = (0..count).map(|index| env.prompt(self.split, index)).collect::<Result<Vec<_>>>()?;
        let direction = self.source.direction(residuals, env, feature, self.seed)?;
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
        let goes_on = || !stop.is_wanted();
        let setting = Setting { policy, plan, env, decoding: self.decoding, layer, prompt_from, goes_on: &goes_on };
        let mut report = Report {
            direction: described(&direction),
            layer,
            tokens,
            scale,
            task: env.task.name().into(),
            split: self.split.name(),
            decoding: self.decoding.name(),
            problems: count,
            judged_by: judging.name.clone(),
            judge: judging.identity(),
            conditions: vec![],
            controls: None,
            notes: self.notes(layer, feature),
        };

        let (of, controls) = self.source.controls(&direction, feature, (self.controls, self.seed))?;
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
        setting.answer(&prompts, &directions, &conditions, |group| {
            let judged = judging.read(env, &prompts, &group)?;
            for (answers, judged) in group.iter().zip(judged.chunks(count)) {
                let judgements: Vec<_> = judged.iter().map(|one| one.judgement.as_ref()).collect();
                values.push(Values::of(&answers.rollouts, &judgements));
                if self.traces.is_some() {
                    traces += &lines(answers, judged, &prompts, &directions, &report)?;
                }
                let right: Vec<f64> = judged.iter().filter_map(|one| one.accuracy).collect();
                progress.count(vec![format!("accuracy {}", figure(mean(&right)))]);
            }
            Ok(())
        })?;
        report.notes.extend(judging.notes()?);
        let rest = values.split_off(strengths.len());
        let controls: Vec<Vec<Values>> = rest.chunks(steered().count().max(1)).map(<[Values]>::to_vec).collect();
        report.fill(&strengths.iter().copied().zip(values).collect::<Vec<_>>(), (of, &controls), self.seed);
        Ok((report, traces))
    }

    fn notes(&self, layer: usize, feature: Option<&Feature>) -> Vec<String> {
        let first = "the first token of a response follows from the prompt's last one, which is not steered";
        let first = (!self.prompt).then(|| first.to_string());
        let read = feature.and_then(|feature| feature.hook.layer).filter(|read| *read != layer);
        let other =
            read.map(|read| format!("the autoencoder reads the residual stream after layer {read}, not {layer}"));
        [first, other].into_iter().flatten().collect()
    }
}

/// Parses the name of a unit.
fn unit() -> impl TypedValueParser<Value = Unit> {
    PossibleValuesParser::new(Unit::ALL.map(Unit::name))
        .try_map(|name| Unit::ALL.into_iter().find(|unit| unit.name() == name).ok_or("not a unit"))
}
