//! Whether a plan fits a machine, and what would make it fit.

use super::Plan;
use super::memory::{Phase, estimate, peak, peak_on_node};
use crate::dist::{local, processes};
use crate::recipe::CriticModel;
use crate::torch::{Fault, device_capacity};
use anyhow::anyhow;
use std::fmt;

/// The share of a device's memory that a plan may use; the CUDA context, kernel workspaces and fragmentation (on a CPU,
/// other programs) take the rest.
pub(super) const SHARE: f64 = 0.9;

/// The processes that a plan would run in, and the memory that they would have.
#[derive(Clone, Copy, Debug)]
pub struct Devices {
    /// Processes, each with a GPU of its own or a share of a CPU.
    pub processes: usize,
    /// The machines that they are on, as many on each.
    pub nodes: usize,
    /// Bytes of memory of each GPU; if the device is a CPU, of each machine. If known.
    pub memory: Option<u64>,
}

impl Devices {
    /// One process, with this machine's memory or, if it is there, with that of its GPU.
    pub fn of(plan: &Plan) -> Self {
        let gpu = || plan.device().ok().and_then(device_capacity);
        let memory = if plan.on_cpu() { Some(installed()) } else { gpu() };
        Self { processes: 1, nodes: 1, memory }
    }

    /// The processes that this one was started with.
    fn launched(plan: &Plan) -> Self {
        let (processes, local) = (processes().unwrap_or(1), local().size);
        Self { processes, nodes: processes.div_ceil(local), ..Self::of(plan) }
    }

    /// Processes on a machine.
    pub fn per_node(self) -> usize {
        self.processes.div_ceil(self.nodes)
    }

    /// The phase in which a plan needs the most of `memory`, and the bytes.
    pub fn peak(self, plan: &Plan) -> (Phase, u64) {
        let parts = estimate(plan, self.processes);
        if plan.on_cpu() { peak_on_node(&parts, self.per_node()) } else { peak(&parts) }
    }
}

/// Bytes of memory of this machine.
fn installed() -> u64 {
    let info = rustix::system::sysinfo();
    (info.totalram as u64).saturating_mul(info.mem_unit.into())
}

/// A change of a recipe that lowers a plan's peak.
#[derive(Clone, Debug)]
pub struct Change {
    pub key: &'static str,
    /// As the recipe would write it.
    pub value: String,
    /// The peak in bytes after this change and those before it.
    pub peak: u64,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(&format!("{} = {}", self.key, self.value))
    }
}

/// How well a plan fits.
#[derive(Clone, Debug)]
pub struct Fit {
    /// Bytes the plan may use on each GPU, or each machine.
    pub room: u64,
    /// Bytes it needs there, at most.
    pub peak: u64,
    /// If it does not fit: recipe changes, each on top of those before. None of them changes what is learnt,
    /// except the critic's.
    pub changes: Vec<Change>,
}

impl Fit {
    /// Whether it fits as it is.
    pub fn fits(&self) -> bool {
        self.peak <= self.room
    }

    /// The peak after all changes.
    pub fn reached(&self) -> u64 {
        self.changes.last().map_or(self.peak, |change| change.peak)
    }
}

/// How a plan fits a machine whose memory is known.
pub fn fit(plan: &Plan, devices: Devices) -> Option<Fit> {
    let room = (devices.memory? as f64 * SHARE) as u64;
    let needed = |plan: &Plan| devices.peak(plan).1;
    let mut fit = Fit { room, peak: needed(plan), changes: vec![] };
    let mut plan = plan.clone();
    // Takes the first change that lowers the peak, again and again: one that did nothing before may help now.
    while fit.reached() > room {
        let lower = |(key, change): &(&'static str, Alter)| {
            let mut changed = plan.clone();
            let value = change(&mut changed)?;
            let peak = needed(&changed);
            (peak < fit.reached()).then_some((changed, Change { key, value, peak }))
        };
        let Some((changed, change)) = ALTERATIONS.iter().find_map(lower) else { break };
        // If a number is halved again, its last value replaces the earlier one.
        fit.changes.retain(|earlier| earlier.key != change.key);
        fit.changes.push(change);
        plan = changed;
    }
    Some(fit)
}

/// An error with what would help, if what a plan lacked was memory.
pub fn with_relief(plan: &Plan, error: anyhow::Error) -> anyhow::Error {
    if Fault::memory(&error).is_none() { error } else { anyhow!("{error:#}\n{}", relief(plan)) }
}

/// The keys that lower a plan's peak. If it should have fitted, other programs or a limit have taken their share, and a
/// quarter less may do.
fn relief(plan: &Plan) -> String {
    let devices = Devices::launched(plan);
    let (phase, bytes) = devices.peak(plan);
    let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let quarter_less = (bytes as f64 * 0.75 / SHARE) as u64;
    let memory = devices.memory.unwrap_or(quarter_less).min(quarter_less);
    let whose = match devices.per_node() {
        several if several > 1 && plan.on_cpu() => format!(" for the {several} processes on a machine"),
        _ => String::new(),
    };
    let most = gib(bytes);
    let mut said = format!("the plan counts on at most {most:.2} GiB{whose}, in the phase \"{}\"", phase.name());
    match fit(plan, Devices { memory: Some(memory), ..devices }) {
        Some(fit) if !fit.changes.is_empty() => {
            said += "; in this order, these changes of the recipe lower it:";
            for change in &fit.changes {
                said += &format!("\n    {change:<40}{:>8.2} GiB", gib(change.peak));
            }
            if devices.memory.is_some_and(|memory| fit.reached() > memory) {
                said += "\n    still too much for this machine: use a smaller model or more memory";
            }
        }
        _ => said += ", which no key of the recipe lowers: use a smaller model or more memory",
    }
    said
}

/// Alters a plan if it can still be altered in this way, and returns the key's new value.
type Alter = fn(&mut Plan) -> Option<String>;

const ALTERATIONS: [(&str, Alter); 9] = [
    ("memory.return_freed", |plan| switch_on(&mut plan.recipe.memory.return_freed)),
    ("memory.gradient_checkpointing", |plan| switch_on(&mut plan.recipe.memory.gradient_checkpointing)),
    ("memory.offload_optimizer", |plan| switch_on(&mut plan.recipe.memory.offload_optimizer)),
    ("memory.divide_gradients", |plan| switch_on(&mut plan.recipe.memory.divide_gradients)),
    ("memory.offload_reference", |plan| switch_on(&mut plan.recipe.memory.offload_reference)),
    ("ppo.micro_batch_tokens", |plan| {
        let (longest, most) = (plan.max_sequence_tokens(), plan.max_tokens_per_step());
        halve(&mut plan.recipe.ppo.as_mut()?.micro_batch_tokens, longest, most)
    }),
    ("sft.micro_batch_tokens", |plan| {
        let sft = plan.recipe.sft.as_mut().filter(|sft| sft.from.is_none())?;
        halve(&mut sft.micro_batch_tokens, sft.context, sft.batch * sft.context)
    }),
    // The last of the sizes: in updates fewer rows save no more than their graphs.
    ("rollout.batch", |plan| {
        let samples = plan.recipe.rollout.samples_per_prompt;
        let rows = match plan.recipe.rollout.batch {
            0 => plan.sequences_per_step().max(plan.evaluation_problems()),
            batch => batch,
        };
        let half = rows / 2 / samples * samples;
        plan.recipe.rollout.batch = half;
        (half > 0).then(|| half.to_string())
    }),
    ("ppo.critic", |plan| {
        let ppo = plan.recipe.ppo.as_mut().filter(|ppo| ppo.critic_is_separate())?;
        ppo.critic = CriticModel::Shared;
        // A shared critic learns in the actor's mini-batches.
        let own = ppo.critic_mini_batch.take().map(|_| " with ppo.critic_mini_batch = \"unset\"");
        Some(format!("\"shared\"{}", own.unwrap_or_default()))
    }),
];

fn switch_on(key: &mut bool) -> Option<String> {
    if *key {
        return None;
    }
    *key = true;
    Some("true".into())
}

/// Halves a number that has no effect above `most`.
fn halve(key: &mut usize, least: usize, most: usize) -> Option<String> {
    *key = (*key).min(most) / 2;
    (*key >= least).then(|| key.to_string())
}
