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
use ppo_train::steer::{
    Answers, Condition, Direction, Passage, Report, Scale, Setting, Unit, Values, described, difference_of_means,
    markdown, mean_norm, passages,
};
use ppo_train::task::{Split, in_words};
use ppo_train::terminal::{Progress, figure};
use ppo_train::torch;
use ppo_train::train::rollouts::Rollout;
use serde_json::json;
use std::path::PathBuf;

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
    /// The layer after which the direction is added, from 0.
    #[arg(long)]
    layer: usize,
    #[command(flatten)]
    source: Source,
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
    /// Hold the figures against so many random directions of the same norm, at the same strengths.
    #[arg(long, value_name = "K", default_value_t = 0,
        value_parser = RangedU64ValueParser::<usize>::new().range(..=10_000))]
    controls: usize,
    /// Seed of random directions.
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
    /// A tensor of a safetensors file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// A random direction of norm 1.
    #[arg(long)]
    random: bool,
}

impl Steer {
    pub fn run(self) -> Result<()> {
        // The parser does not ask for --file where another source is given.
        if self.tensor.is_some() && self.source.file.is_none() {
            return Err(bad!("--tensor names a tensor of --file FILE, which is not given"));
        }
        let model = whole_model_of(&self.checkpoint, &["recipe.toml"])?;
        let recipe = self.recipe.clone().map_or_else(|| recipe_of(&self.checkpoint), Ok)?;
        let plan = plan::load(&recipe, &[self_contained(&model), self.sets.clone()].concat(), None)?;
        check_layer(&plan.config, self.layer)?;
        let strengths = self.strengths()?;
        let env = Environment::of(&plan)?;
        let measured = torch::catching(|| {
            let policy = Policy::new(&plan.config, plan.weights(&model, plan.device()?)?);
            self.measure(&policy, &plan, &env, &strengths)
        });
        let (report, traces) = measured.map_err(|error| plan::with_relief(&plan, error))?;
        if let Some(path) = &self.traces {
            write_file(path, traces)?;
        }
        if self.json { print_json(&serde_json::to_value(&report)?) } else { print(markdown(&report).trim_end()) }
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
    fn measure(&self, policy: &Policy, plan: &Plan, env: &Environment, strengths: &[f64]) -> Result<(Report, String)> {
        let all = env.task.len(self.split);
        let count = if self.problems == 0 { all } else { self.problems.min(all) };
        if count == 0 {
            return Err(bad!("the {} split has no problems", self.split.name()));
        }
        let prompts = (0..count).map(|index| env.prompt(self.split, index)).collect::<Result<Vec<_>>>()?;
        let direction = self.direction(policy, env)?;
        if let Some(path) = &self.save {
            direction.save(path)?;
        }
        let read = |prompt: &Prompt| Passage { ids: prompt.ids.to_vec(), from: 0 };
        let residual_norm = mean_norm(policy, self.layer, &prompts.iter().map(read).collect::<Vec<_>>());
        let scale = Scale::new(self.unit, &direction, residual_norm)?;
        let begin = env.tokenizer.begin().len();
        let (prompt_from, tokens) = match (self.prompt, self.begin || begin == 0) {
            (false, _) => (None, "the tokens of responses"),
            (true, false) => (Some(begin), "the tokens of prompts, but for the begin token, and of responses"),
            (true, true) => (Some(0), "all tokens of prompts and responses"),
        };
        let setting = Setting { policy, plan, env, decoding: self.decoding, layer: self.layer, prompt_from };
        let mut report = Report {
            direction: described(&direction),
            layer: self.layer,
            tokens,
            scale,
            task: env.task.name().into(),
            split: self.split.name(),
            decoding: self.decoding.name(),
            problems: count,
            conditions: vec![],
            controls: None,
            notes: self.notes(),
        };

        let norm = direction.norm();
        let random = |index: usize| Direction::random(direction.vector.len(), norm, self.seed, index as u64);
        // Of --random the direction itself is the first.
        let first = usize::from(self.source.random);
        let directions: Vec<Direction> =
            [direction.clone()].into_iter().chain((first..first + self.controls).map(random)).collect();
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
        report.fill(&strengths.iter().copied().zip(values).collect::<Vec<_>>(), &controls, self.seed);
        Ok((report, traces))
    }

    fn direction(&self, policy: &Policy, env: &Environment) -> Result<Direction> {
        let Source { between, file, .. } = &self.source;
        let found = match (between.as_deref(), file) {
            (Some([first, second]), _) => {
                let most = policy.config.max_position_embeddings as usize;
                let read = |path: &PathBuf| passages(path, &env.tokenizer, most);
                let name = format!("difference of means, {} minus {}", first.display(), second.display());
                difference_of_means(policy, self.layer, &read(first)?, &read(second)?, name)?
            }
            (_, Some(file)) => Direction::from_file(file, self.tensor.as_deref().unwrap_or("direction"))?,
            _ => Direction::random(policy.config.hidden_size as usize, 1.0, self.seed, 0),
        };
        Direction::from_vector(found.name, found.vector, self.max_activation)
    }

    fn notes(&self) -> Vec<String> {
        let blind = Lexical.cannot_see();
        let first = "the first token of a response follows from the prompt's last one, which is not steered";
        let first = (!self.prompt).then(|| first.to_string());
        first.into_iter().chain(blind.map(String::from)).collect()
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
