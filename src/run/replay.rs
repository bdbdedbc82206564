//! One step of a run, repeated from the checkpoint before it and compared with what the run recorded: every figure but
//! those that measure the machine, the texts, the evaluation if there was one, and the weights if the step has a
//! checkpoint. Nothing is written.
//!
//! Decided: the loop itself does the step, from the state of the checkpoint, with logs that only remember and a single
//! hook that ends it. So what is repeated is what runs, and not a second version of it.

use super::history::{self, Program};
use super::use_machine;
use crate::bad;
use crate::checkpoint::{Checkpoint, RunFolder, ensure_whole, load_tensors};
use crate::dist::{Comm, Solo};
use crate::env::Environment;
use crate::hooks;
use crate::json;
use crate::metrics::{Metrics, Record, Sink, Stage, evaluations, jsonl, measures_machine};
use crate::model::Policy;
use crate::plan::{self, Plan};
use crate::recipe::Ppo;
use crate::terminal;
use crate::torch::{Machine, bytes, catching};
use crate::train::hook::{Hook, Moment, State};
use crate::train::learner::Models;
use crate::train::ppo;
use crate::train::pulse::Pulse;
use crate::train::stop::Stop;
use crate::train::trainer::Trainer;
use anyhow::{Context, Result};
use serde::Serialize;
use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use tch::{Device, Tensor};

/// What became of a step that was repeated.
#[derive(Clone, Debug, Serialize)]
pub struct Replay {
    pub run: String,
    pub step: usize,
    /// Figures that were compared, and texts.
    pub figures: usize,
    pub texts: usize,
    /// Evaluations that were compared problem by problem.
    pub evaluations: usize,
    /// Whether weights and optimizer were compared too: the step has a checkpoint.
    pub weights: bool,
    pub differences: Vec<Difference>,
    /// How this machine or program differs from the one that did the step.
    pub elsewhere: Vec<String>,
}

/// Something that was not the same again.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    pub name: String,
    pub recorded: String,
    pub repeated: String,
}

impl Replay {
    /// The table of the differences.
    pub fn table(&self) -> String {
        let row = |d: &Difference| vec![d.name.clone(), d.recorded.clone(), d.repeated.clone()];
        let rows: Vec<_> = self.differences.iter().map(row).collect();
        terminal::table(&["", "recorded", "repeated"], &rows)
    }

    /// What was compared, in words.
    pub fn compared(&self) -> String {
        let counted = terminal::counted;
        let mut all = vec![counted(self.figures, "figure"), counted(self.texts, "text")];
        all.extend((self.evaluations > 0).then(|| counted(self.evaluations, "evaluation")));
        all.extend(self.weights.then(|| "the weights and the optimizer after it".to_string()));
        all.join(", ")
    }
}

/// Repeats a step of the run in a folder. `sets`: overrides of its recipe, for what does not change a result.
///
/// # Errors
/// Bad input: no such step, no record of it, or no checkpoint before it. Those of a step.
pub fn replay(folder: &RunFolder, step: usize, sets: &[String]) -> Result<Replay> {
    let shown = folder.path().display();
    if !folder.recipe().is_file() {
        return Err(bad!("{shown} is not the folder of a run: there is no recipe.toml in it"));
    }
    let before = step.checked_sub(1).ok_or_else(|| bad!("steps count from 1: step 0 is the start"))?;
    let recorded = recorded(folder, step)?;
    let Some(checkpoint) = folder.complete(before) else {
        return Err(without(folder, step, recorded.last));
    };
    let plan = plan::load(&history::recipe_of_step(folder, step)?, sets, Some(folder.path()))?;
    let ppo = plan.recipe.ppo.as_ref().with_context(|| format!("{shown} has no PPO"))?;
    ensure_whole(&folder.start(), &[])?;
    if before > 0 {
        ensure_whole(checkpoint.path(), &[])?;
    }
    use_machine(&plan)?;
    let elsewhere = history::of_step(folder, step as u64).map_or(vec![], |sitting| {
        let mut found = sitting.machine.differences(&Machine::here(&plan.recipe.machine.device));
        found.extend((sitting.processes > 1).then(|| format!("processes 1 (was {})", sitting.processes)));
        found.extend((sitting.program.sha256 != Program::this().sha256).then(|| "another build of ppo-train".into()));
        found
    });
    let work = || repeat(&plan, ppo, folder, (&checkpoint, step), &recorded);
    let (differences, weights) = catching(work).map_err(|error| plan::with_relief(&plan, error))?;
    let [figures, texts, evaluations] = recorded.counts();
    let run = shown.to_string();
    Ok(Replay { run, step, figures, texts, evaluations, weights, differences, elsewhere })
}

/// The records of a step: that of the loop, that of the evaluation after it if there was one, and the lines of
/// evaluations.jsonl.
struct Recorded {
    /// The last step that is recorded.
    last: u64,
    records: Vec<Record>,
    outcomes: Vec<String>,
}

impl Recorded {
    fn counts(&self) -> [usize; 3] {
        let figures = self.records.iter().flat_map(Record::scalars).filter(|(name, _)| !measures_machine(name)).count();
        let texts = self.records.iter().flat_map(Record::texts).count();
        [figures, texts, self.outcomes.len()]
    }
}

fn recorded(folder: &RunFolder, step: usize) -> Result<Recorded> {
    let path = folder.metrics();
    let mut records = jsonl::read(&path, terminal::warn)?;
    let last = records.iter().filter(|record| record.stage == Stage::Ppo).map(|record| record.step).max();
    let of_loop = [Stage::Ppo, Stage::Evaluation];
    records.retain(|record| record.step == step as u64 && of_loop.contains(&record.stage));
    if !records.iter().any(|record| record.stage == Stage::Ppo) {
        return Err(bad!("{} has no record of step {step}", path.display()));
    }
    // Without this file, or without the evaluation in it, there is nothing to compare.
    let all = evaluations::read(&folder.evaluations(), |_| ()).unwrap_or_default();
    let of_step = all.into_iter().filter(|(own, _)| *own == step as u64);
    let last = last.unwrap_or(0);
    Ok(Recorded { last, records, outcomes: of_step.map(|(_, outcomes)| outcomes.json()).collect() })
}

/// The message that there is no checkpoint to repeat a step from; `last`: the last step that is recorded.
fn without(folder: &RunFolder, step: usize, last: u64) -> anyhow::Error {
    let (shown, before) = (folder.path().display(), step - 1);
    let missing = if before == 0 { "start".to_string() } else { format!("checkpoint of step {before}") };
    let steps = hooks::saved(folder).into_iter().map(|saved| saved + 1).filter(|step| *step as u64 <= last);
    let steps: Vec<String> = steps.map(|step| step.to_string()).collect();
    match steps.len() {
        0 => bad!("{shown} has no {missing}, from which step {step} would be repeated, nor any other"),
        _ => bad!(
            "{shown} has no {missing}, from which step {step} would be repeated; what can be repeated: {} \
             (checkpoints.keep_last and keep_every keep more)",
            steps.join(", ")
        ),
    }
}

/// Does the step; returns what differs, and whether the weights were compared.
fn repeat(
    plan: &Plan,
    ppo: &Ppo,
    folder: &RunFolder,
    (checkpoint, step): (&Checkpoint, usize),
    recorded: &Recorded,
) -> Result<(Vec<Difference>, bool)> {
    let env = &Environment::of(plan)?;
    let start = Policy::new(&plan.config, plan.weights(&folder.start(), plan.device()?)?);
    let mut models = Models::new(plan, ppo, start, &Solo);
    let mut state = State::first(plan);
    if step > 1 {
        models.restore(checkpoint)?;
        state = json::read(&checkpoint.state())?;
        state.check(step - 1)?;
    }
    let (comm, pulse): (&dyn Comm, _) = (&Solo, &Pulse::new(&Stop::default(), &Solo));
    let (interrupted, micro_tokens, saving) = (None, ppo.micro_batch_tokens, None);
    let peak = None;
    let mut trainer =
        Trainer { plan, ppo, env, comm, models, state, interrupted, folder, pulse, micro_tokens, peak, saving };
    let kept = Kept::default();
    let mut metrics = Metrics::to(Box::new(kept.clone()));
    let evaluated = recorded.records.iter().any(|record| record.stage == Stage::Evaluation);
    let mut hooks: Vec<Box<dyn Hook>> = vec![Box::new(UpTo { step, evaluated })];
    match ppo::train(&mut trainer, &mut metrics, &mut hooks) {
        Err(error) if error.is::<Done>() => {}
        other => other?,
    }
    let repeated = kept.0.take();
    let mut differences = Vec::new();
    for record in &recorded.records {
        let again = repeated.iter().find(|other| other.stage == record.stage).context("the step left no record")?;
        compare(record, again, &mut differences);
    }
    let again: Vec<String> = repeated.iter().flat_map(Record::outcomes).map(|outcomes| outcomes.json()).collect();
    for (at, outcomes) in recorded.outcomes.iter().enumerate() {
        let other = again.get(at).map_or("", String::as_str);
        if outcomes != other {
            let name = format!("evaluations.jsonl, {}", at + 1);
            let (recorded, repeated) = around_difference(outcomes, other);
            differences.push(Difference { name, recorded, repeated });
        }
    }
    let weights = folder.complete(step);
    if let Some(after) = &weights {
        compare_weights(plan, &trainer, after, &mut differences)?;
    }
    Ok((differences, weights.is_some()))
}

/// Compares the figures and the texts of two records of the same step.
fn compare(recorded: &Record, repeated: &Record, found: &mut Vec<Difference>) {
    let mut differs = |name: &str, recorded: Option<String>, repeated: Option<String>| {
        let shown = |value: Option<String>| value.unwrap_or_else(|| "absent".into());
        found.push(Difference { name: name.into(), recorded: shown(recorded), repeated: shown(repeated) });
    };
    // Rust writes as many digits as tell a number from all others.
    let shown = |value: f64| format!("{value:?}");
    let names = recorded.scalars().map(|(name, _)| name);
    let surplus = repeated.scalars().map(|(name, _)| name).filter(|name| recorded.get(name).is_none());
    for name in names.chain(surplus).filter(|name| !measures_machine(name)) {
        let (was, is) = (recorded.get(name), repeated.get(name));
        if was.map(shown) != is.map(shown) {
            differs(name, was.map(shown), is.map(shown));
        }
    }
    let text = |record: &'_ Record, tag: &str| {
        let found = record.texts().find(|(own, _)| *own == tag);
        found.map(|(_, text)| text.to_string())
    };
    for (tag, was) in recorded.texts() {
        let is = text(repeated, tag).unwrap_or_default();
        if was != is {
            let (was, is) = around_difference(was, &is);
            differs(&format!("text {tag}"), Some(was), Some(is));
        }
    }
}

/// Where two texts begin to differ, some characters of each.
fn around_difference(one: &str, other: &str) -> (String, String) {
    const SHOWN: usize = 40;
    let same = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| {
        let rest: String = text.chars().skip(same.saturating_sub(SHOWN / 4)).take(SHOWN).collect();
        format!("at {same}: {rest:?}")
    };
    (part(one), part(other))
}

/// Compares the models and optimizers of a trainer with those of a checkpoint, bit by bit.
fn compare_weights(plan: &Plan, trainer: &Trainer, after: &Checkpoint, found: &mut Vec<Difference>) -> Result<()> {
    let mut differs = |name: &str, own: &Tensor, saved: &Tensor| {
        let [own, saved] = [own, saved].map(|tensor| tensor.detach().to_device(Device::Cpu).contiguous());
        if bytes(&own) != bytes(&saved) {
            let width = own.kind().elt_size_in_bytes().max(1);
            let pairs = bytes(&own).chunks(width).zip(bytes(&saved).chunks(width));
            let (count, all) = (pairs.filter(|(a, b)| a != b).count(), own.numel());
            let recorded = after.path().display().to_string();
            found.push(Difference {
                name: name.into(),
                recorded,
                repeated: format!("{count} of {all} numbers differ"),
            });
        }
    };
    let actor = &trainer.models.actor.model.weights;
    let saved = actor.copy_to(Device::Cpu);
    saved.fill(&after.model(), &plan.config)?;
    differs("actor", actor.flat(), saved.flat());
    if let Some(critic) = &trainer.models.critic {
        let saved = critic.weights().copy_to(Device::Cpu);
        saved.fill(&after.critic(), &plan.config)?;
        differs("critic", critic.weights().flat(), saved.flat());
    }
    // All of it: a single process repeats a step.
    let state = trainer.models.optimizer_state();
    let on_host = |tensor: &Tensor| tensor.zeros_like().to_device(Device::Cpu);
    let saved: Vec<_> = state.iter().map(|(name, tensor, _)| (name.clone(), on_host(tensor))).collect();
    load_tensors(&after.optimizer(), &saved)?;
    for ((name, own, _), (_, saved)) in state.iter().zip(&saved) {
        differs(&format!("optimizer {name}"), own, saved);
    }
    let (saved, own) = (json::read::<State>(&after.state())?.kl_coefficient, trainer.state.kl_coefficient);
    if saved.to_bits() != own.to_bits() {
        let [recorded, repeated] = [saved, own].map(|value| format!("{value:?}"));
        found.push(Difference { name: "kl_coefficient after it".into(), recorded, repeated });
    }
    Ok(())
}

/// Logs that remember.
#[derive(Clone, Default)]
struct Kept(Rc<RefCell<Vec<Record>>>);

impl Sink for Kept {
    fn write(&mut self, record: &Record) {
        self.0.borrow_mut().push(record.clone());
    }

    fn flush(&mut self) {}
}

/// Ends the loop after a step, once it is evaluated if it was.
struct UpTo {
    step: usize,
    evaluated: bool,
}

impl Hook for UpTo {
    fn after_step(&mut self, moment: &mut Moment) -> Result<()> {
        if moment.state.step < self.step {
            return Ok(());
        }
        if self.evaluated {
            hooks::evaluate(moment)?;
        }
        Err(Done.into())
    }
}

/// The step is done.
#[derive(Debug)]
struct Done;

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("the step is done")
    }
}

impl std::error::Error for Done {}
