//! `ppo-train dialogues`

use super::common::{precision, print, print_json};
use anyhow::{Context, Result, anyhow, ensure};
use clap::Args;
use clap::builder::{PossibleValuesParser, RangedU64ValueParser, TypedValueParser};
use ppo_train::endpoint::{Budget, Cache, Limits, Refusal, Settings, USUAL_KEY, body_over};
use ppo_train::plan::use_device;
use ppo_train::recipe::Machine;
use ppo_train::rollout::Manner;
use ppo_train::run::signals;
use ppo_train::teacher::{self, Job, Kind, Prompts, Source, Teacher, Wanted};
use ppo_train::terminal::{self, counted};
use ppo_train::{OrBadInput, Stopped, bad};
use serde_json::{Map, Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use tch::Kind as Precision;

/// Let a teacher solve problems as dialogues and as monologues, and keep what both got right: the data of a warm start.
///
/// The teacher is a server (--url, --model), a local model (--teacher), or without either our solver of Countdown.
///
/// Example: ppo-train dialogues problems.jsonl --out data/primed --url http://localhost:8000/v1 --model big-model
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Dialogues {
    /// Problems: .jsonl, .json or .parquet with `task` and `answer`, or Countdown's `target` and `nums`.
    problems: PathBuf,
    /// The folder to write: dialogue_{train,val}.jsonl, monologue_{train,val}.jsonl, report.md, report.json.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Pairs to keep for training.
    #[arg(long, default_value_t = 500, value_parser = RangedU64ValueParser::<usize>::new().range(..=1_000_000_000))]
    rows: usize,
    /// Pairs to keep for validation.
    #[arg(long, default_value_t = 100, value_parser = RangedU64ValueParser::<usize>::new().range(..=1_000_000_000))]
    validation: usize,
    /// Ask about the first so many problems at most (default: all, until enough pairs are kept).
    #[arg(long, value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    limit: Option<usize>,
    /// Numbers of personas, which the problems take in turns.
    #[arg(long, value_delimiter = ',', default_values_t = [2, 3, 4])]
    personas: Vec<usize>,
    /// How answers are compared (auto: the row's `kind`, else the form of its answer).
    #[arg(long, default_value = "auto", value_parser = kind())]
    grade: Grade,
    /// How often each arm may try a problem.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100))]
    attempts: u64,
    /// A template of one's own for dialogues (variables: task, form, personas).
    #[arg(long, value_name = "FILE")]
    dialogue_prompt: Option<PathBuf>,
    /// A template of one's own for monologues (variables: task, form).
    #[arg(long, value_name = "FILE")]
    monologue_prompt: Option<PathBuf>,
    /// The folder of answers, which are never asked for twice, and of what was spent on them (default: OUT/answers).
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    server: ServerArgs,
    /// A Hugging Face model folder as the teacher.
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    teacher: Option<PathBuf>,
    /// The precision of the local model.
    #[arg(long, default_value = "float32", value_parser = precision())]
    precision: Precision,
    /// Problems that the local model solves at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=4096))]
    batch: u64,
}

#[derive(Args)]
struct SamplingArgs {
    /// Sampling temperature (0: always the most probable token).
    #[arg(long, default_value_t = 0.7)]
    temperature: f64,
    /// Longest reply in tokens.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    max_tokens: u64,
    /// Seed of the samples; a server gets it only if it is given.
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Args)]
#[command(next_help_heading = "Server")]
struct ServerArgs {
    /// The server's OpenAI-compatible URL, such as https://example.org/v1.
    #[arg(long, requires = "model")]
    url: Option<String>,
    /// The model's name there.
    #[arg(long, requires = "url")]
    model: Option<String>,
    /// The environment variable that holds the key. If the default is not set, no key is sent; any other must be set.
    #[arg(long, value_name = "NAME", default_value = USUAL_KEY)]
    key_env: String,
    /// More keys of each request, as a JSON object; null takes one out.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    body: String,
    /// Requests at a time.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=256))]
    concurrency: u16,
    /// Longest time for a request in seconds.
    #[arg(long, default_value_t = 300.0)]
    timeout: f64,
    /// How often a request is sent again if it fails in a way that may pass.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=100))]
    retries: u32,
    /// Seconds before it is sent again, doubled each time up to 60; `Retry-After` may ask for more.
    #[arg(long, default_value_t = 1.0)]
    backoff: f64,
    /// Most requests to the teacher, retries included, by all runs with the same folder of answers; of a local model,
    /// replies.
    #[arg(long, value_name = "REQUESTS")]
    request_budget: Option<u64>,
    /// Tokens of all runs with the same folder of answers, prompts and replies together, after which no further request
    /// is sent; those under way then, up to --concurrency, are finished. Where a server does not count them, they are
    /// estimated: one for every four bytes.
    #[arg(long, value_name = "TOKENS")]
    token_budget: Option<u64>,
}

/// None: by the row.
type Grade = Option<Kind>;

fn kind() -> impl TypedValueParser<Value = Grade> {
    let names = ["auto"].into_iter().chain(Kind::ALL.map(Kind::name));
    PossibleValuesParser::new(names).map(|name| Kind::ALL.into_iter().find(|kind| kind.name() == name))
}

impl Dialogues {
    pub fn run(self) -> Result<()> {
        self.check()?;
        let problems = teacher::read(&self.problems, self.limit.unwrap_or(usize::MAX), self.grade)?;
        let prompts = Prompts::new(self.dialogue_prompt.as_deref(), self.monologue_prompt.as_deref())?;
        let stop = signals::watch()?.0;
        let answers = self.cache.clone().unwrap_or_else(|| self.out.join("answers"));
        let budget = Arc::new(Budget::of(&answers, self.limits())?);
        if problems.repeated > 0 {
            let rows = counted(problems.repeated, "row");
            terminal::warn(&format!("note: left out {rows} with the task and the answer of an earlier one"));
        }
        let (teacher, address) = self.teacher(&problems.all, &budget, &stop)?;
        let identity = teacher.identity();
        let wanted = Wanted { rows: self.rows, validation: self.validation };
        let outcome = teacher::run(Job {
            problems: problems.all.clone(),
            teacher,
            cache: Cache::at(&answers)?,
            budget: Arc::clone(&budget),
            prompts,
            personas: self.personas.clone(),
            attempts: self.attempts,
            wanted: wanted.total(),
            threads: if self.server.url.is_some() { self.server.concurrency.into() } else { 1 },
            stop,
        });
        let spent = match outcome.ended.clone() {
            None | Some(Refusal::Request(_)) => None,
            Some(Refusal::Budget(why)) => Some(anyhow!(why)),
            Some(Refusal::Stopped) => return Err(Stopped("the same command goes on").into()),
            Some(Refusal::Unusable(why)) => return Err(bad!("{why}")),
            Some(Refusal::Gone(why)) => return Err(anyhow!("{why}\nthe same command goes on where this one ended")),
        };
        let file = self.problems.display().to_string();
        let source = Source { file, teacher: identity, address, spent: budget.spent(), in_all: budget.in_all() };
        let report = teacher::write(&self.out, &problems, &outcome, wanted, &source)?;
        let shown = self.show(&report, wanted);
        spent.map_or(shown, Err)
    }

    fn limits(&self) -> Limits {
        let ServerArgs { request_budget, token_budget, .. } = self.server;
        Limits { requests: request_budget, tokens: token_budget, names: ["--request-budget", "--token-budget"] }
    }

    /// What the parser does not check.
    fn check(&self) -> Result<()> {
        if self.personas.is_empty() || self.personas.iter().any(|count| !(2..=4).contains(count)) {
            return Err(bad!("--personas: expected numbers from 2 to 4, such as 2,3,4"));
        }
        let temperature = self.sampling.temperature;
        if !(0.0..=10.0).contains(&temperature) || (temperature > 0.0 && temperature < 0.001) {
            return Err(bad!("--temperature {temperature:?}: expected 0, or a number from 0.001 to 10"));
        }
        for (name, seconds) in [("timeout", self.server.timeout), ("backoff", self.server.backoff)] {
            if !(0.001..=86_400.0).contains(&seconds) {
                return Err(bad!("--{name} {seconds}: expected 0.001 to 86400 seconds"));
            }
        }
        let budgets = [("request", self.server.request_budget), ("token", self.server.token_budget)];
        if let (Some((what, _)), None, None) =
            (budgets.iter().find(|(_, most)| most.is_some()), &self.server.url, &self.teacher)
        {
            return Err(bad!(
                "--{what}-budget bounds what a teacher costs, and our solver sends no requests: --limit says how many \
                 problems it gets"
            ));
        }
        if self.rows == 0 && self.validation == 0 {
            return Err(bad!("--rows and --validation are both 0: there would be nothing to keep"));
        }
        Ok(())
    }

    /// The teacher, and its address if it has one.
    fn teacher(
        &self,
        problems: &[Arc<teacher::Problem>],
        budget: &Arc<Budget>,
        stop: &Arc<AtomicBool>,
    ) -> Result<(Box<dyn Teacher>, Option<String>)> {
        if let (Some(url), Some(model)) = (&self.server.url, &self.server.model) {
            let settings = self.settings(url, model)?;
            let key = settings.key()?;
            let server = teacher::Server::new(settings, key, Arc::clone(budget), Arc::clone(stop))?;
            let address = server.address();
            return Ok((Box::new(server), Some(address)));
        }
        let seed = self.sampling.seed.unwrap_or(0);
        if let Some(dir) = &self.teacher {
            let manner = Manner {
                temperature: self.sampling.temperature,
                max_tokens: self.sampling.max_tokens as usize,
                seed,
                batch: self.batch as usize,
                precision: self.precision,
                device: Some(use_device(&Machine::default())?),
            };
            let local = teacher::Local::open(dir, manner, Arc::clone(budget), Arc::clone(stop))?;
            return Ok((Box::new(local), None));
        }
        Ok((Box::new(teacher::Solver::new(problems, seed)?), None))
    }

    fn settings(&self, url: &str, model: &str) -> Result<Settings> {
        let more = serde_json::from_str::<Map<String, Value>>(&self.server.body);
        let more = more.context("--body: expected a JSON object").bad_input()?;
        let SamplingArgs { temperature, max_tokens, seed } = self.sampling;
        let defaults = Map::from_iter([
            ("temperature".to_string(), json!(temperature)),
            ("max_tokens".into(), json!(max_tokens)),
            ("seed".into(), json!(seed)),
        ]);
        Ok(Settings {
            key_env: self.server.key_env.clone(),
            body: body_over(defaults, more),
            concurrency: self.server.concurrency.into(),
            timeout: Duration::from_secs_f64(self.server.timeout),
            retries: self.server.retries,
            backoff: Duration::from_secs_f64(self.server.backoff),
            ..Settings::new(url, model)
        })
    }

    fn show(&self, report: &Value, wanted: Wanted) -> Result<()> {
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        let (train, validation) = (number(&report["kept"]["train"]), number(&report["kept"]["validation"]));
        let kept = train + validation;
        if kept < wanted.total() as u64 {
            let asked = number(&report["problems"]["asked"]);
            let total = wanted.total();
            terminal::warn(&format!("note: {kept} of {total} pairs were found in {asked} problems"));
        }
        let page = self.out.join("report.md");
        if self.json {
            print_json(report)?;
        } else if kept > 0 {
            print(format_args!("{train} pairs for training, {validation} for validation; {}", page.display()))?;
        }
        ensure!(kept > 0, "no pair was found; {} says why", page.display());
        Ok(())
    }
}
