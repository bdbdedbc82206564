//! Whether a plan fits a machine, and what would make it fit.

use super::Plan;
use super::memory::{estimate, peak};
use crate::recipe::Recipe;

/// The share of a device that a plan may count on; a CUDA context, kernels' workspaces and gaps in the allocator (on a
/// CPU other programs) take the rest.
const SHARE: f64 = 0.9;

/// What a plan is to run on.
#[derive(Clone, Copy, Debug)]
pub struct Devices {
    /// Each holds all models and an equal share of the sequences.
    pub count: usize,
    /// Bytes of each device, where they are known.
    pub memory: Option<u64>,
}

impl Devices {
    /// One device; of a CPU the memory is that of this machine.
    pub fn of(plan: &Plan) -> Self {
        let memory = (plan.recipe.machine.device == "cpu").then(installed).flatten();
        Self { count: 1, memory }
    }
}

/// Bytes of memory that Linux counts.
fn installed() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kib = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.trim().strip_suffix(" kB")?;
    Some(kib.trim().parse::<u64>().ok()? * 1024)
}

/// How a plan fits.
#[derive(Clone, Debug)]
pub struct Fit {
    /// Bytes the plan may count on, on each device.
    pub room: u64,
    /// Bytes it needs there at most.
    pub peak: u64,
    /// Where it does not fit: changes of the recipe, each on top of those before, with the peak they lead to. None of
    /// them changes what is learnt, except for the critic's.
    pub changes: Vec<(String, u64)>,
}

impl Fit {
    /// Whether it fits as it is.
    pub fn fits(&self) -> bool {
        self.peak <= self.room
    }

    /// The peak after all changes.
    pub fn reached(&self) -> u64 {
        self.changes.last().map_or(self.peak, |(_, peak)| *peak)
    }
}

/// How a plan fits a machine whose memory is known.
pub fn fit(plan: &Plan, devices: Devices) -> Option<Fit> {
    let room = (devices.memory? as f64 * SHARE) as u64;
    let needed = |plan: &Plan| peak(&estimate(plan, devices.count)).1;
    let mut fit = Fit { room, peak: needed(plan), changes: vec![] };
    let mut plan = plan.clone();
    // The first change that lowers the peak, again and again: what did nothing before may do something now.
    while fit.reached() > room {
        let lower = |change: &Change| {
            let mut changed = plan.clone();
            let text = change(&mut changed)?;
            let peak = needed(&changed);
            (peak < fit.reached()).then_some((changed, text, peak))
        };
        let Some((changed, text, peak)) = CHANGES.iter().find_map(lower) else { break };
        // Of a number that is halved again the last value counts.
        let key = |text: &str| text.split(' ').next().map(str::to_string);
        fit.changes.retain(|(earlier, _)| key(earlier) != key(&text));
        fit.changes.push((text, peak));
        plan = changed;
    }
    Some(fit)
}

/// Changes a plan where it can still be changed in this way, and tells how.
type Change = fn(&mut Plan) -> Option<String>;

const CHANGES: [Change; 7] = [
    |plan| switch(&mut plan.recipe.memory.gradient_checkpointing, "memory.gradient_checkpointing"),
    |plan| switch(&mut plan.recipe.memory.offload_optimizer, "memory.offload_optimizer"),
    |plan| switch(&mut plan.recipe.memory.offload_reference, "memory.offload_reference"),
    |plan| {
        let samples = plan.recipe.rollout.samples_per_prompt;
        let rows = match plan.recipe.rollout.batch {
            0 => plan.sequences_per_step().max(plan.evaluation_problems()),
            batch => batch,
        };
        let half = rows / 2 / samples * samples;
        (half > 0).then(|| {
            plan.recipe.rollout.batch = half;
            format!("rollout.batch = {half}")
        })
    },
    |plan| {
        let (longest, most) = (plan.max_sequence_tokens(), plan.max_tokens_per_step());
        halve(&mut plan.recipe.ppo.as_mut()?.micro_batch_tokens, longest, most, "ppo.micro_batch_tokens")
    },
    |plan| {
        let sft = plan.recipe.sft.as_mut()?;
        halve(&mut sft.micro_batch_tokens, sft.context, sft.batch * sft.context, "sft.micro_batch_tokens")
    },
    share_the_trunk,
];

fn switch(key: &mut bool, name: &str) -> Option<String> {
    (!std::mem::replace(key, true)).then(|| format!("{name} = true"))
}

/// Halves a number that has no effect above `most`.
fn halve(key: &mut usize, least: usize, most: usize, name: &str) -> Option<String> {
    let half = (*key).min(most) / 2;
    (half >= least).then(|| {
        *key = half;
        format!("{name} = {half}")
    })
}

fn share_the_trunk(Plan { recipe: Recipe { ppo, .. }, .. }: &mut Plan) -> Option<String> {
    let ppo = ppo.as_mut().filter(|ppo| ppo.critic_is_separate())?;
    ppo.critic = crate::recipe::CriticModel::Shared;
    ppo.critic_mini_batch = None;
    Some("ppo.critic = \"shared\"".into())
}
