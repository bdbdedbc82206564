//! A run: its folder, its state between steps, and what happens around the loop.
//!
//! `RUN/` holds `recipe.toml`, `start/` (the model PPO starts from, which is also its reference), `step_NNNNNN/`
//! checkpoints, `events/` and `metrics.jsonl`, and at the end `curve.svg`.

use super::evaluate::Evaluation;
use super::learner::{Learner, Models, device, longest, starting_weights, weights_of};
use super::text::Text;
use super::{ppo, sft};
use crate::analysis::{self, Series};
use crate::checkpoint::{
    Lock, is_complete, latest, prune, save_critic, save_model, save_tensors, step_dir, sweep, write_file, write_folder,
};
use crate::metrics::{Metrics, Record, Stage, console};
use crate::model::Policy;
use crate::recipe::identity::{Difference, MAY_CHANGE, differences};
use crate::recipe::{self, Decoding, Plan, Ppo};
use crate::{BadInput, Stopped};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;
use tch::Device;

/// What a resumed run has to know besides weights and optimizers; `state.json`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct State {
    /// PPO steps done.
    pub step: usize,
    pub kl_coefficient: f64,
    pub best: Option<Best>,
}

/// The best evaluation so far, by accuracy of the recipe's first way of decoding.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub struct Best {
    pub step: usize,
    pub accuracy: f64,
}

/// A run in progress.
pub struct Run {
    pub dir: PathBuf,
    pub state: State,
    pub metrics: Metrics,
    /// Seconds that the newest checkpoint took, until a record has told them.
    pub saving: Option<f64>,
    stop: Arc<AtomicBool>,
}

/// Runs a plan from its start, or from its folder's newest checkpoint, to the end.
///
/// # Errors
/// `BadInput` for what the user can mend, `Stopped` on a signal once a checkpoint is written.
pub fn run(plan: &Plan, resume: bool) -> Result<()> {
    let device = device(&plan.recipe.device.device)?;
    if plan.recipe.device.threads > 0 {
        tch::set_num_threads(plan.recipe.device.threads as i32);
    }
    let text = Text::new(plan)?;
    text.preflight(&plan.recipe.reward)?;
    let _lock = lock_folder(&plan.out)?;
    let checkpoint = open_folder(plan, resume)?;
    let mut run = Run::open(plan, checkpoint.as_ref().map(|(_, dir)| dir.as_path()))?;
    let start = run.warm_start(plan, &text, device)?;
    let Some(ppo) = &plan.recipe.ppo else {
        console::print(&format!("the trained model lies in {}", run.dir.join("start").display()));
        return Ok(());
    };
    let mut models = Models::new(plan, ppo, start);
    if let Some((_, dir)) = &checkpoint {
        models.restore(dir).with_context(|| format!("cannot resume from {}", dir.display()))?;
        models.kl.coefficient = run.state.kl_coefficient;
    }
    ppo::train(plan, ppo, &text, &mut models, &mut run)?;
    run.finish(plan, text.task.name())
}

/// Makes the run folder this process's own, until the lock is dropped.
fn lock_folder(out: &Path) -> Result<Option<Lock>> {
    fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    let lock = Lock::take(out)?;
    if lock.is_none() {
        let out = out.display();
        console::warn(&format!("warning: the file system of {out} has no locks: let only one process train there"));
    }
    Ok(lock)
}

/// Prepares the run folder for this plan; returns the checkpoint it goes on from.
fn open_folder(plan: &Plan, resume: bool) -> Result<Option<(usize, PathBuf)>> {
    let checkpoint = latest(&plan.out)?;
    // A start that failed at once has left nothing worth keeping.
    let records = fs::metadata(plan.out.join("metrics.jsonl")).is_ok_and(|file| file.len() > 0);
    let begun = records || checkpoint.is_some() || is_complete(&plan.out.join("start"));
    if begun && !resume {
        return Err(BadInput(format!(
            "{} already holds a run: continue it with --resume, or choose another folder with --out DIR",
            plan.out.display()
        ))
        .into());
    }
    if begun {
        let newest = checkpoint.as_ref().map_or(plan.out.as_path(), |(_, dir)| dir);
        same_experiment(plan, &newest.join("recipe.toml"))?;
    }
    sweep(&plan.out)?;
    write_file(&plan.out.join("recipe.toml"), &plan.text)?;
    Ok(checkpoint)
}

/// Refuses to continue a run by another recipe, and tells what changes where it may.
fn same_experiment(plan: &Plan, before: &Path) -> Result<()> {
    let (allowed, refused): (Vec<_>, Vec<_>) =
        differences(&recipe::stored(before)?, &plan.recipe).into_iter().partition(Difference::is_allowed);
    let list = |all: &[Difference]| all.iter().map(|difference| format!("\n  {difference}")).collect::<String>();
    if !refused.is_empty() {
        let (out, keys) = (plan.out.display(), list(&refused));
        return Err(BadInput(format!(
            "{out} holds a run of another recipe, which --resume cannot continue with:{keys}\n\
             set these keys back, or start a run of its own with --out DIR (what may change: {})",
            MAY_CHANGE.join(", ")
        ))
        .into());
    }
    if !allowed.is_empty() {
        console::warn(&format!("the run goes on with a changed recipe:{}", list(&allowed)));
    }
    Ok(())
}

impl Run {
    fn open(plan: &Plan, checkpoint: Option<&Path>) -> Result<Self> {
        let state = match checkpoint {
            None => State { kl_coefficient: plan.recipe.ppo.as_ref().map_or(0.0, |p| p.kl_coef), ..State::default() },
            Some(dir) => {
                let path = dir.join("state.json");
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                serde_json::from_str(&text).with_context(|| format!("in {}", path.display()))?
            }
        };
        let warm = is_complete(&plan.out.join("start"));
        let resumed = match checkpoint {
            Some(_) => Some((Stage::Ppo, state.step as u64)),
            None => warm.then(|| (Stage::Sft, plan.recipe.sft.as_ref().map_or(0, |sft| sft.steps() as u64))),
        };
        let metrics = Metrics::open(&plan.out, &plan.recipe.logging, resumed)?;
        Ok(Self { dir: plan.out.clone(), state, metrics, saving: None, stop: watch_signals()? })
    }

    /// The policy PPO starts from: the recipe's model after its warm start, which is done once a run.
    fn warm_start(&mut self, plan: &Plan, text: &Text, device: Device) -> Result<Policy> {
        let start = self.dir.join("start");
        let longest = longest(plan);
        if is_complete(&start) {
            return Ok(Policy::new(&plan.config, weights_of(plan, &start, device)?, longest));
        }
        let weights = starting_weights(plan, device)?;
        let policy = match &plan.recipe.sft {
            None => Policy::new(&plan.config, weights, longest),
            Some(recipe) => {
                let rows = sft::rows(plan, recipe, text)?;
                if rows.cut > 0 {
                    let (cut, context) = (rows.cut, recipe.context);
                    console::warn(&format!(
                        "warning: {cut} rows of the warm start were cut at sft.context = {context}"
                    ));
                }
                let mut learner = Learner::policy(plan, weights);
                sft::train(plan, recipe, &rows, &mut learner, self)?;
                learner.model
            }
        };
        write_folder(&start, |dir| save_model(dir, &policy.weights, &plan.recipe.model.path, &plan.tokenizer_dir))?;
        Ok(policy)
    }

    /// # Errors
    /// `Stopped` when a signal asked for it and nothing is left to save.
    pub fn check_stop(&self) -> Result<()> {
        if self.stop.load(Ordering::Relaxed) { Err(Stopped.into()) } else { Ok(()) }
    }

    /// After each PPO step: evaluation, checkpoint, stop, as they fall due.
    pub fn after_step(&mut self, plan: &Plan, ppo: &Ppo, text: &Text, models: &Models) -> Result<()> {
        let step = self.state.step;
        let due = |every: usize| step == ppo.steps || step.is_multiple_of(every);
        if due(plan.recipe.evaluation.every) {
            ppo::evaluations(plan, text, models, self)?;
        }
        // Asked once, after the evaluation: whoever is told `Stopped` has a checkpoint of this very step.
        let stopping = self.check_stop();
        if due(plan.recipe.checkpoints.every) || stopping.is_err() {
            self.save(plan, models)?;
        }
        stopping
    }

    /// Writes the step's checkpoint, then removes those that are not kept.
    fn save(&mut self, plan: &Plan, models: &Models) -> Result<()> {
        let started = Instant::now();
        self.state.kl_coefficient = models.kl.coefficient;
        write_folder(&step_dir(&self.dir, self.state.step), |dir| {
            let source = &plan.recipe.model.path;
            save_model(&dir.join("model"), &models.actor.model.weights, source, &plan.tokenizer_dir)?;
            if let Some(critic) = &models.critic {
                save_critic(&dir.join("critic"), critic.weights(), source)?;
            }
            save_tensors(&dir.join("optimizer.safetensors"), &models.optimizer_state())?;
            fs::write(dir.join("recipe.toml"), &plan.text)?;
            fs::write(dir.join("state.json"), serde_json::to_string_pretty(&self.state)?)?;
            Ok(())
        })?;
        self.saving = Some(started.elapsed().as_secs_f64());
        let best = self.state.best.filter(|_| plan.recipe.checkpoints.keep_best).map(|best| best.step);
        prune(&self.dir, plan.recipe.checkpoints.keep_last, best)
    }

    /// Shows and writes down an evaluation.
    pub fn evaluated(&mut self, plan: &Plan, evaluations: &[Evaluation], mut record: Record) {
        let step = self.state.step;
        if let Some(evaluation) = evaluations.first() {
            if self.state.best.is_none_or(|best| evaluation.accuracy >= best.accuracy) {
                self.state.best = Some(Best { step, accuracy: evaluation.accuracy });
            }
            let samples = sample_table(evaluation, plan.recipe.hooks.samples);
            console::print(&samples);
            record.text("samples", samples);
        }
        for e in evaluations {
            let (decoding, accuracy) = (e.decoding.name(), 100.0 * e.accuracy);
            console::print(&format!(
                "evaluation at step {step}, {decoding}: accuracy {accuracy:.1} %, reward {:.3}, {:.1} tokens",
                e.reward, e.length
            ));
        }
        self.metrics.write(&record);
    }

    /// The table of before and after, the curve, and where everything lies.
    fn finish(&mut self, plan: &Plan, task: &str) -> Result<()> {
        self.metrics.flush();
        if plan.recipe.logging.jsonl {
            let records = analysis::read_jsonl(&self.dir.join("metrics.jsonl"))?;
            console::print(&before_and_after(&records, task));
            let curve = self.dir.join("curve.svg");
            draw_curve(&records, &curve, &plan.recipe.name)?;
            console::print(&format!("curve         {}", curve.display()));
        }
        console::print(&format!("TensorBoard   scripts/tensorboard {}", self.dir.display()));
        console::print(&format!("model         {}", step_dir(&self.dir, self.state.step).join("model").display()));
        Ok(())
    }
}

/// A flag that is set by the signals which ask a run to stop: those of people, schedulers and closing terminals.
fn watch_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2] {
        if is_ignored(signal) {
            continue;
        }
        if signal != SIGHUP {
            // A second signal of a kind ends the process at once. A closing terminal may send two of its own.
            let again = Arc::new(AtomicBool::new(false));
            signal_hook::flag::register_conditional_shutdown(signal, 1, Arc::clone(&again))?;
            signal_hook::flag::register(signal, again)?;
        }
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    Ok(stop)
}

/// Whether whoever started the program wants it to ignore a signal, as `nohup` does.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (signal - 1) & 1 == 1
}

/// The first and the last evaluation of a run, for each way of decoding.
fn before_and_after(records: &[Record], task: &str) -> String {
    let evaluations: Vec<&Record> = records.iter().filter(|record| record.stage == Stage::Evaluation).collect();
    let row = |decoding: Decoding, record: &Record| -> Option<Vec<String>> {
        let figure = |name: &str| record.get(&format!("{}/{name}", decoding.metrics(task)));
        Some(vec![
            decoding.name().to_string(),
            record.step.to_string(),
            format!("{:.1} %", 100.0 * figure("accuracy")?),
            format!("{:.1} %", 100.0 * figure("format")?),
            format!("{:.3}", figure("reward")?),
            format!("{:.1}", figure("response_length")?),
        ])
    };
    let ends: Vec<&Record> = evaluations.first().into_iter().chain(evaluations.last()).copied().collect();
    let rows: Vec<_> = [Decoding::Sampled, Decoding::Greedy]
        .iter()
        .flat_map(|decoding| ends.iter().filter_map(|record| row(*decoding, record)).collect::<Vec<_>>())
        .collect();
    console::table(&["decoding", "step", "accuracy", "format", "reward", "tokens"], &rows)
}

/// The first `count` problems of an evaluation with what was answered and earned.
fn sample_table(evaluation: &Evaluation, count: usize) -> String {
    let rollouts = &evaluation.rollouts;
    let row = |i: usize| {
        let reward = format!("{:.2}", rollouts.scores[i]);
        let verdict = rollouts.grades[i].verdict.to_string();
        vec![evaluation.prompts[i].text.clone(), rollouts.texts[i].clone(), reward, verdict]
    };
    let rows: Vec<_> = (0..count.min(evaluation.prompts.len())).map(row).collect();
    console::table(&["problem", "response", "reward", "verdict"], &rows)
}

/// Draws the validation accuracies and the training accuracy over the steps of a run.
fn draw_curve(records: &[Record], picture: &Path, name: &str) -> Result<()> {
    let curves = |stage: Stage| {
        let last = records.iter().rev().find(|record| record.stage == stage);
        let names = last.into_iter().flat_map(Record::scalars).filter(|(name, _)| name.ends_with("/accuracy"));
        names.map(move |(name, _)| Series { points: analysis::points(records, stage, name), name: name.to_string() })
    };
    let series: Vec<Series> = curves(Stage::Evaluation).chain(curves(Stage::Ppo)).collect();
    analysis::learning_curve(picture, name, &series, "PPO step", "accuracy, %")
}
