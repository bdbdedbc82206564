//! The model that PPO starts from: the recipe's, after its warm start if there is one. It is an artefact of its own,
//! the run's `start` folder, with a record of how it came about.

use crate::checkpoint::{
    Checkpoint, RECORD, RunFolder, ensure_whole, is_complete, is_of_room, link_folder, load_parts, save_model,
    save_parts, write_file, write_folder, write_text,
};
use crate::dist::{Offer, offer};
use crate::env::Environment;
use crate::hash::hash_of_files;
use crate::metrics::Metrics;
use crate::model::Policy;
use crate::plan::{Disk, Plan};
use crate::rng::{self, Purpose};
use crate::rollout::{Engine, Response, Sampling, Stop};
use crate::traces::{self, Prepared, Stats};
use crate::train::batch::Sequence;
use crate::train::learner::Learner;
use crate::train::pulse::{Phase, Pulse};
use crate::train::sft::{Done, Rows, WarmStart};
use crate::{OrBadInput, Stopped, bad, json, terminal};
use anyhow::{Result, ensure};
use serde_json::{Value, json as object};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a run waits for a disk that has no room for its start.
const PATIENCE: Duration = Duration::from_secs(3600);
/// Between two looks at what is free, and at whether the run is to stop. The first try comes as soon.
const LOOK: Duration = Duration::from_secs(3);
/// Between two tries, each of which may fill the disk for others: twice as long as before, up to this.
const PAUSE: Duration = Duration::from_secs(30);

/// What a warm start has to work with.
pub struct WarmUp<'a> {
    pub plan: &'a Plan,
    pub env: &'a Environment,
    pub folder: &'a RunFolder,
    pub pulse: &'a Pulse<'a>,
    /// What an interrupted warm start has kept.
    pub done: Done,
}

impl WarmUp<'_> {
    /// The policy PPO starts from; trained once per run, or where an interrupted run stopped.
    ///
    /// # Errors
    /// Bad input: weights or rows that cannot be used. `Stopped` on a signal, once what has been learnt is kept.
    pub fn policy(&self, metrics: &mut Metrics) -> Result<Policy> {
        let (plan, start) = (self.plan, self.folder.start());
        let device = plan.device()?;
        let comm = self.pulse.comm();
        if comm.any(comm.is_first() && is_complete(&start))? {
            return Ok(Policy::new(&plan.config, plan.weights(&start, device)?));
        }
        if let Some(from) = plan.recipe.sft.as_ref().and_then(|sft| sft.from.as_ref()) {
            ensure_start(from)?;
            let policy = Policy::new(&plan.config, plan.weights(from, device)?);
            if self.pulse.comm().is_first() {
                link_folder(from, &start)?;
            }
            return Ok(policy);
        }
        let weights = plan.starting_weights(device)?;
        let (policy, stats) = match &plan.recipe.sft {
            None => (Policy::new(&plan.config, weights), None),
            Some(sft) => {
                let prepared = traces::prepare(plan, sft, self.env)?;
                prepared.check(plan, sft)?;
                let Prepared { rows, stats } = prepared;
                terminal::print(&stats.verdict());
                self.check_rows(&stats)?;
                if self.pulse.comm().is_first() {
                    write_file(&self.folder.traces(), format!("{}\n", serde_json::to_string_pretty(&stats)?))?;
                }
                let mut learner = Learner::policy(plan, weights, self.pulse.comm());
                self.restore(&mut learner)?;
                let seed = plan.recipe.warm_start_seed();
                let keep = |done: &Done, learner: &Learner<Policy>| self.keep(done, learner);
                let (comm, pulse, done) = (self.pulse.comm(), self.pulse, self.done.clone());
                pulse.check()?;
                pulse.enter(Phase::WarmStart);
                let text = |row: &Sequence| self.env.decode(&row.response).unwrap_or_default();
                let (rows, folder) = (&rows, self.folder);
                let warm_start = WarmStart { sft, seed, rows, comm, pulse, done, folder, text: &text, keep: &keep };
                warm_start.train(&mut learner, metrics)?;
                let shown = self.samples(&learner.model, rows)?;
                if comm.any(pulse.is_stopping())? {
                    self.keep(&Done { steps: sft.steps(), ..Done::default() }, &learner)?;
                    return Err(Stopped::RUN.into());
                }
                terminal::print(&shown);
                (learner.model, Some(stats))
            }
        };
        metrics.flush();
        self.pulse.enter(Phase::Saving);
        self.save(&policy, stats.as_ref())?;
        let kept = self.folder.unfinished_start();
        if comm.is_first() && kept.path().exists() {
            fs::remove_dir_all(kept.path())?;
        }
        Ok(policy)
    }

    /// Writes the run's start; called by all ranks, of which the first one writes. Without room on the disk the run
    /// waits for some: there is no other copy of what a warm start has learnt.
    fn save(&self, policy: &Policy, stats: Option<&Stats>) -> Result<()> {
        const CANNOT: &str = "the model that PPO starts from cannot be saved";
        let (plan, start, begun) = (self.plan, self.folder.start(), Instant::now());
        let fill = |dir: &Path| {
            save_model(dir, &policy.weights, &plan.recipe.model.path, &plan.tokenizer_dir)?;
            let record = serde_json::to_string_pretty(&self.record(dir, stats)?)?;
            write_text(&dir.join(RECORD), &format!("{record}\n"))
        };
        // When the last try was, and how long it is until the next.
        let mut tried: Option<(Instant, Duration)> = None;
        let saved = self.pulse.wait_while(LOOK, || {
            let is_patient = begun.elapsed() < PATIENCE;
            let too_soon = tried.is_some_and(|(last, pause)| last.elapsed() < pause);
            if is_patient && (too_soon || tried.is_some() && has_no_room(plan)) {
                return Ok(true);
            }
            match write_folder(&start, fill) {
                Ok(()) => {
                    if tried.is_some() {
                        terminal::warn(&format!("{} is saved now, and the run goes on", start.display()));
                    }
                    Ok(false)
                }
                Err(error) if is_patient && is_of_room(&error) => {
                    if tried.is_none() {
                        let (shown, minutes) = (start.display(), PATIENCE.as_secs() / 60);
                        terminal::warn(&format!(
                            "warning: {shown} is not saved, and the run waits for room, up to {minutes} minutes: \
                             {error:#}"
                        ));
                    }
                    let pause = tried.map_or(LOOK, |(_, pause)| (2 * pause).min(PAUSE));
                    tried = Some((Instant::now(), pause));
                    Ok(true)
                }
                Err(error) => Err(error.context(CANNOT)),
            }
        })?;
        let lost = if stats.is_some() { ", and its warm start is lost" } else { "" };
        ensure!(saved, "{CANNOT} before the run stops: there was no room on the disk{lost}");
        Ok(())
    }

    /// Refuses to go on with other rows than those of an interrupted warm start.
    fn check_rows(&self, stats: &Stats) -> Result<()> {
        let (kept, traces) = (self.folder.unfinished_start(), self.folder.traces());
        if !is_complete(kept.path()) || !traces.exists() {
            return Ok(());
        }
        let before: Value = json::read(&traces)?;
        if before["traces_sha256"] == *stats.traces_sha256 {
            return Ok(());
        }
        let shown = kept.path().display();
        Err(bad!("the rows of the warm start have changed since it was interrupted; remove {shown} to begin it anew"))
    }

    /// Goes back to what an interrupted warm start has kept.
    fn restore(&self, learner: &mut Learner<Policy>) -> Result<()> {
        let kept = self.folder.unfinished_start();
        if !is_complete(kept.path()) {
            return Ok(());
        }
        learner.model.weights.fill(&kept.model(), &self.plan.config)?;
        load_parts(&kept.optimizer(), learner.optimizer.state())
    }

    /// Keeps what has been learnt; called by all ranks.
    fn keep(&self, done: &Done, learner: &Learner<Policy>) -> Result<()> {
        let plan = self.plan;
        let fill = |dir: &Path, state: &mut Offer| {
            let kept = Checkpoint::at(dir);
            save_model(&kept.model(), &learner.model.weights, &plan.recipe.model.path, &plan.tokenizer_dir)?;
            save_parts(&kept.optimizer(), state)?;
            write_text(&kept.recipe(), &plan.text)?;
            write_text(&kept.state(), &serde_json::to_string(done)?)
        };
        let kept = self.folder.unfinished_start();
        let write = |state: &mut Offer| write_folder(kept.path(), |dir| fill(dir, state));
        offer(self.pulse.comm(), &learner.optimizer.state(), write)
    }

    /// What the model answers to the first rows, greedily, beside what was expected; validation rows if there are any.
    fn samples(&self, policy: &Policy, rows: &Rows) -> Result<String> {
        const SHOWN: usize = 3;
        let (env, config) = (self.env, &self.plan.config);
        let rows = if rows.validation.is_empty() { &rows.train } else { &rows.validation };
        let rows = &rows[..rows.len().min(SHOWN)];
        let prompts: Vec<&[i64]> = rows.iter().map(|row| &*row.prompt).collect();
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let room = (config.max_position_embeddings as usize).saturating_sub(longest);
        let engine = Engine {
            policy,
            sampling: Sampling::greedy(),
            stop: Stop {
                ends: &|_, ids| env.ends_at(ids),
                max_tokens: self.plan.recipe.rollout.max_response_tokens.min(room),
            },
            vocabulary: env.tokenizer.vocab_size().min(config.vocab_size),
            batch: 0,
            goes_on: &|| self.pulse.goes_on(),
            steering: None,
        };
        let stream = |row: usize, _| rng::stream(self.plan.recipe.seed, Purpose::Evaluation, 0, row as u64);
        let responses = tch::no_grad(|| engine.generate(&prompts, 1, stream, |_| ()));
        let row = |(row, response): (&Sequence, &Response)| -> Result<Vec<String>> {
            Ok(vec![env.tokenizer.decode(&row.prompt)?, env.decode(&response.ids)?, env.decode(&row.response)?])
        };
        let table: Vec<_> = rows.iter().zip(&responses).map(row).collect::<Result<_>>()?;
        Ok(terminal::table_within(terminal::width(), &["prompt", "answered", "expected"], &table))
    }

    /// How the model in `dir` came about: the keys of its warm start, hashes of its rows and of its weights.
    fn record(&self, dir: &Path, stats: Option<&Stats>) -> Result<Value> {
        let recipe = &self.plan.recipe;
        let hash = |of: fn(&Stats) -> &String| stats.map(|stats| of(stats).clone());
        Ok(object!({
            "model": recipe.model,
            "sft": recipe.sft,
            "seed": recipe.warm_start_seed(),
            "problems_sha256": hash(|stats| &stats.problems_sha256),
            "traces_sha256": hash(|stats| &stats.traces_sha256),
            "weights_sha256": weights_sha256(dir)?,
        }))
    }
}

/// Refuses a start whose files are not those that were saved. An exported one has no checksums, but its record has the
/// hash of its weights.
///
/// # Errors
/// Bad input: what is damaged or not complete; weights of another model than the record's.
fn ensure_start(from: &Path) -> Result<()> {
    ensure_whole(from, &[])?;
    if is_complete(from) {
        return Ok(());
    }
    let record: Value = json::read(&from.join(RECORD)).bad_input()?;
    if record["weights_sha256"] == weights_sha256(from)? {
        return Ok(());
    }
    Err(bad!("{} has other weights than those of the warm start in its {RECORD}", from.display()))
}

/// Whether the disk is known to have less room than the model that PPO starts from takes.
fn has_no_room(plan: &Plan) -> bool {
    let disk = Disk::of(plan);
    disk.shortage("the start", disk.start).is_some()
}

/// SHA-256 of the safetensors files in a folder, one after another in the order of their names.
pub fn weights_sha256(dir: &Path) -> Result<String> {
    let mut paths = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    paths.sort();
    Ok(hash_of_files(paths)?)
}
