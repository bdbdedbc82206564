//! `ppo-train submit`

use super::common::{RecipeArgs, print, print_json};
use super::plan::{Looked, look};
use anyhow::{Context, Result, anyhow};
use clap::Args;
use clap::builder::RangedU64ValueParser;
use ppo_train::cluster::{Job, Site, manifest, outside, script, shell};
use ppo_train::files::{program_path, write_file};
use ppo_train::plan::{Disk, Plan};
use ppo_train::run::{Seeds, check_seeds};
use ppo_train::terminal::{self, counted};
use ppo_train::{bad, instead_of_file};
use serde_json::json;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, Stdio};

/// Submit a recipe to Slurm: an array job with a task per seed. A task that is preempted or reaches its time limit
/// saves its work, is queued again and goes on.
///
/// Everything is checked first, as `plan` does. The job is OUT.sbatch, its recipe OUT.toml, merged and written out, and
/// each task's log OUT-SEED.log, beside the run folders OUT-SEED.
///
/// Example: ppo-train submit recipes/quickstart.toml --seeds 1..5 --site site.toml --dry-run
#[derive(Args)]
#[command(verbatim_doc_comment)]
pub struct Submit {
    #[command(flatten)]
    recipe: RecipeArgs,
    /// The seeds: 1..5 (both included) or 1,4,7.
    #[arg(long, value_name = "SEEDS")]
    seeds: Seeds,
    /// How jobs are asked for here: a TOML file, see docs/site.md.
    #[arg(long, value_name = "FILE")]
    site: Option<PathBuf>,
    /// Processes of each run, started by srun; the program must be built with MPI.
    #[arg(long, value_name = "COUNT", value_parser = RangedU64ValueParser::<u64>::new().range(1..=100_000))]
    processes: Option<u64>,
    /// Write OUT.yaml, an indexed Job for Kubernetes with a pod per seed, instead of submitting to Slurm.
    #[arg(long)]
    kubernetes: bool,
    /// Print the job; write and submit nothing.
    #[arg(long)]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// What is written and submitted.
struct Written {
    path: PathBuf,
    text: String,
    /// The array job's number, once it is submitted.
    number: Option<String>,
}

impl Submit {
    pub fn run(self) -> Result<()> {
        let plan = self.recipe.load()?;
        let site = self.site.as_deref().map(Site::read).transpose()?.unwrap_or_default();
        self.check(&plan, &site)?;
        let job = self.job(&plan, &site)?;
        let (path, text) = match self.kubernetes {
            true => (job.beside("yaml"), manifest(&job, &site)?),
            false => (job.beside("sbatch"), script(&job, &site)?),
        };
        let mut written = Written { path, text, number: None };
        if !self.dry_run {
            written.number = self.write(&job, &written)?;
        }
        self.report(&plan, &job, &written)
    }

    /// Writes the files, and submits the job to Slurm; returns its number.
    fn write(&self, job: &Job, written: &Written) -> Result<Option<String>> {
        let recipe = job.beside("toml");
        for path in [&written.path, &recipe] {
            if let Some(other) = instead_of_file(path) {
                return Err(bad!("{} is {other}, not a file: choose another place with --out", path.display()));
            }
        }
        let folder = written.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let create = || fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()));
        if self.kubernetes {
            create()?;
            write_file(&written.path, &written.text)?;
            return Ok(None);
        }
        has_sbatch()?;
        create()?;
        write_file(&recipe, &job.recipe)?;
        write_file(&written.path, &written.text)?;
        submit(&written.path).map(Some)
    }

    /// Refuses what would end the runs at their start, as far as it can be seen from here.
    fn check(&self, plan: &Plan, site: &Site) -> Result<()> {
        let Looked { lack, prepared, .. } = look(plan)?;
        if let (Some(prepared), Some(sft)) = (&prepared, &plan.recipe.sft) {
            prepared.check(plan, sft)?;
        }
        lack.warnings.iter().for_each(|warning| terminal::warn(&format!("warning: {warning}")));
        for missing in plan.missing_weights().into_iter().chain(lack.errors) {
            // Pods have a volume of their own, and secrets.
            match self.kubernetes {
                true => terminal::warn(&format!("note: {missing}")),
                false => return Err(bad!("{missing}")),
            }
        }
        if self.kubernetes {
            // Whether the image has it is not known here.
            outside(&plan.recipe, site).iter().for_each(|what| terminal::warn(&format!("warning: {what}")));
            return Ok(());
        }
        check_seeds(plan, &self.seeds)?;
        let (disk, seeds) = (Disk::of(plan), self.seeds.0.len());
        if let Some(shortage) = disk.shortage(&counted(seeds, "run"), disk.total().saturating_mul(seeds as u64)) {
            terminal::warn(&format!("warning: {shortage} in {}", plan.out.display()));
        }
        Ok(())
    }

    fn job(&self, plan: &Plan, site: &Site) -> Result<Job> {
        let processes = self.processes.unwrap_or(if self.kubernetes { 1 } else { site.slurm.processes });
        let is_own = site.program.is_none() && site.slurm.container.is_empty();
        if processes > 1 && is_own && !cfg!(feature = "mpi") {
            return Err(bad!(
                "{processes} processes would all do the same: this build has no MPI to divide the work with \
                 (docs/clusters.md: build with --features mpi, or name another program in the site file)"
            ));
        }
        let program = program_path().context("the program's own path is not known")?;
        let program = program.to_str().ok_or_else(|| bad!("{} is not UTF-8", program.display()))?.to_string();
        let out = if self.kubernetes { plan.out.clone() } else { absolute(&plan.out)? };
        if out.file_name().is_none() {
            return Err(bad!("{} has no name of its own: expected a folder such as runs/NAME", out.display()));
        }
        Ok(Job {
            name: plan.recipe.name.clone(),
            recipe: plan.text.clone(),
            seeds: self.seeds.0.clone(),
            out,
            folder: std::env::current_dir().context("the working folder is not known")?,
            program,
            processes,
        })
    }

    /// Prints the job, and how to follow it.
    fn report(&self, plan: &Plan, job: &Job, written: &Written) -> Result<()> {
        let Written { path, text, number } = written;
        let shown = |paths: Vec<PathBuf>| paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
        let runs = shown(job.seeds.iter().map(|seed| job.run(*seed)).collect());
        let path = path.display().to_string();
        if self.json {
            let logs = if self.kubernetes { vec![] } else { job.seeds.iter().map(|seed| job.log(*seed)).collect() };
            let file = (!self.dry_run).then_some(path);
            return print_json(
                &json!({ "file": file, "text": text, "job": number, "runs": runs, "logs": shown(logs) }),
            );
        }
        print(text.trim_end())?;
        let (path, out) = (shell(&path), shell(&plan.out.display().to_string()));
        let mut lines = vec![];
        if let Some(number) = number {
            let tasks = counted(job.seeds.len(), "task");
            lines.push(("job", format!("{number}, {tasks}")));
            lines.push(("script", path));
            lines.push(("logs", format!("{out}-*.log")));
            lines.push(("queue", format!("squeue --jobs={number}")));
            lines.push(("cancel", format!("scancel {number}")));
            lines.push(("runs", format!("ppo-train status {out}")));
            let runs = runs.iter().map(|run| shell(run)).collect::<Vec<_>>();
            lines.push(("TensorBoard", format!("scripts/tensorboard {}", runs.join(" "))));
        } else if !self.dry_run {
            lines.push(("submit", format!("kubectl apply -f {path}")));
        }
        lines.iter().try_for_each(|(what, line)| print(format_args!("{what:<14}{line}")))
    }
}

/// Refuses a machine without Slurm before anything is written.
fn has_sbatch() -> Result<()> {
    let asked = Command::new("sbatch").arg("--version").stdin(Stdio::null()).output();
    match asked {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(bad!("there is no sbatch on this machine: submit where Slurm is, or see the job with --dry-run"))
        }
        other => other.map(drop).context("sbatch cannot be started"),
    }
}

/// Submits a script; returns the job's number.
fn submit(script: &Path) -> Result<String> {
    let submitted = Command::new("sbatch").arg("--parsable").arg(script).stdin(Stdio::null()).output();
    let submitted = submitted.context("sbatch cannot be started")?;
    let said = String::from_utf8_lossy(&submitted.stderr).trim().to_string();
    if !submitted.status.success() {
        return Err(anyhow!("sbatch refused {}: {said}", script.display()));
    }
    if !said.is_empty() {
        terminal::warn(&said);
    }
    // NUMBER, or NUMBER;CLUSTER.
    let answer = String::from_utf8_lossy(&submitted.stdout);
    Ok(answer.trim().split(';').next().unwrap_or_default().to_string())
}
