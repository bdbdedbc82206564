//! The script of an array job for Slurm: slurm.sh.jinja, filled in.
//!
//! Decided: bash stays and waits for the program, so that it can queue the task again. The first signal reaches the
//! program as USR1, whichever it was: on preemption Slurm sends TERM to every process of a job, and a second TERM would
//! end the program at once. A task that Slurm is ending is not queued again by the script, unless its time was over: it
//! may have been cancelled. The indexes of the array are the seeds.

use super::quote::{pattern, sbatch, shell, text};
use super::{Job, Site};
use crate::{BadInput, bad};
use anyhow::{Context, Result};
use minijinja::{Environment, context};

/// The largest index of an array, unless a cluster is set up otherwise (MaxArraySize).
const MOST: u64 = 1000;

/// The script, for `sbatch`. It names `job.beside("toml")` as the recipe.
///
/// # Errors
/// Bad input: a path or a seed that Slurm cannot use.
pub fn script(job: &Job, site: &Site) -> Result<String> {
    let seeds = &job.seeds;
    if let Some(seed) = seeds.iter().find(|seed| **seed > MOST) {
        return Err(bad!("the seed {seed} cannot be the index of a task: Slurm takes seeds from 0 to {MOST}"));
    }
    let (nodes, processes) = (site.slurm.nodes, job.processes);
    if nodes > processes {
        return Err(bad!(
            "a run on {nodes} nodes has at least as many processes, and not {processes}: expected --processes COUNT"
        ));
    }
    let recipe = job.beside("toml");
    let (recipe, out, folder) = (text(&recipe, "the recipe")?, text(&job.out, "the run folder")?, &job.folder);
    let folder = shell(text(folder, "the working folder")?);
    let program = site.program.as_deref().unwrap_or(&job.program);
    let words = site.slurm.container.iter().map(String::as_str).chain([program, recipe]);
    let command: Vec<String> = launcher(job, site).into_iter().chain(words.map(shell)).collect();
    let script = Environment::new().render_str(
        include_str!("slurm.sh.jinja"),
        context! {
            options => options(job, site, out)?.join("\n"),
            restarts => site.restarts,
            folder => folder,
            before => site.before.iter().map(|line| format!("{line}\n")).collect::<String>(),
            command => command.join(" "),
            out => shell(out),
        },
    );
    // Jinja drops the line feed at a template's end.
    Ok(script.context("the script")? + "\n")
}

/// What starts several processes.
fn launcher(job: &Job, site: &Site) -> Vec<String> {
    if job.processes == 1 {
        return vec![];
    }
    let cpus = site.cpus.map(|cpus| format!("--cpus-per-task={cpus}"));
    let own = [format!("--ntasks={}", job.processes), "--kill-on-bad-exit=1".into()].into_iter().chain(cpus);
    ["srun".into()].into_iter().chain(own).chain(site.slurm.srun.iter().map(|option| shell(option))).collect()
}

/// The lines `#SBATCH`.
fn options(job: &Job, site: &Site, out: &str) -> Result<Vec<String>, BadInput> {
    let slurm = &site.slurm;
    let at_once = site.at_once.map_or(String::new(), |most| format!("%{most}"));
    let always = [
        ("job-name", job.name.replace(|c: char| c.is_control(), "_")),
        ("array", format!("{}{at_once}", ranges(&job.seeds))),
        ("output", format!("{}-%a.log", pattern(out)?)),
        ("open-mode", "append".into()),
        ("signal", format!("B:USR1@{}", site.grace)),
        ("nodes", slurm.nodes.to_string()),
        ("ntasks", job.processes.to_string()),
    ];
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    let wanted = [
        ("gpus-per-node", number(Some(site.gpus).filter(|gpus| *gpus > 0))),
        ("cpus-per-task", number(site.cpus)),
        ("mem", site.memory.map(|memory| format!("{memory}G"))),
        ("time", slurm.time.clone()),
        ("partition", slurm.partition.clone()),
        ("account", slurm.account.clone()),
        ("qos", slurm.qos.clone()),
        ("constraint", slurm.constraint.clone()),
        ("mail-user", slurm.mail.clone()),
        ("mail-type", slurm.mail.as_ref().map(|_| "END,FAIL".into())),
    ];
    let wanted = wanted.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let lines = always.into_iter().chain(wanted).map(|(name, value)| sbatch(name, &value));
    let plain = ["--requeue"].into_iter().chain(slurm.options.iter().map(String::as_str));
    Ok(lines.chain(plain.map(|option| format!("#SBATCH {option}"))).collect())
}

/// Seeds as an array's indexes: `1-5,8`.
fn ranges(seeds: &[u64]) -> String {
    let mut runs: Vec<[u64; 2]> = vec![];
    for seed in seeds {
        match runs.last_mut() {
            Some([_, last]) if *last + 1 == *seed => *last = *seed,
            _ => runs.push([*seed, *seed]),
        }
    }
    let shown = |[first, last]: &[u64; 2]| if first == last { first.to_string() } else { format!("{first}-{last}") };
    runs.iter().map(shown).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_ranges() {
        assert_eq!(ranges(&[1, 2, 3, 4, 5]), "1-5");
        assert_eq!(ranges(&[1, 4, 5, 7, 2]), "1,4-5,7,2");
        assert_eq!(ranges(&[0]), "0");
    }
}
