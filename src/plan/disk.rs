//! How much a run writes to its folder, from shapes alone, and how much is free there.

use super::Plan;
use crate::recipe::Precision;
use crate::terminal::size;
use std::path::Path;

/// Steps whose checkpoints may wait for hooks to judge them; then training waits.
pub const WAITING: usize = 3;
/// Steps whose checkpoints stay because a hook has failed on them for good; older ones go.
pub const FAILED: usize = 3;

/// Bytes in the run folder. Logs and metrics, some megabytes, are not counted.
#[derive(Clone, Copy, Debug)]
pub struct Disk {
    /// The model that PPO starts from.
    pub start: u64,
    /// One checkpoint: actor, critic, optimizers.
    pub checkpoint: u64,
    /// Checkpoints that are there at the same time, the one being written included (0: none is written).
    pub checkpoints: u64,
    /// Free on the file system of the run folder, if the system says so.
    pub free: Option<u64>,
}

impl Disk {
    pub fn of(plan: &Plan) -> Self {
        let (recipe, config) = (&plan.recipe, &plan.config);
        let half = recipe.machine.precision == Precision::Bfloat16;
        let width: u64 = if half { 2 } else { 4 };
        // Two moments, and master weights if the model's own are not float32.
        let state: u64 = if half { 12 } else { 8 };
        let actor = config.parameters();
        let head = if config.tie_word_embeddings { 0 } else { config.vocab_size * config.hidden_size };
        let critic = actor - head as u64 + config.hidden_size as u64 + 1;
        let trained = match &recipe.ppo {
            None => 0,
            Some(ppo) if ppo.critic_is_separate() => actor + critic,
            Some(_) => actor,
        };
        let kept = &recipe.checkpoints;
        let waiting = if recipe.hooks.are_beside() { (WAITING + FAILED) as u64 } else { 0 };
        let steps = recipe.ppo.as_ref().map_or(0, |ppo| ppo.steps);
        let permanent = steps.checked_div(kept.keep_every).unwrap_or(0) as u64;
        let most = kept.keep_last as u64 + u64::from(kept.keep_best) + 1 + waiting + permanent;
        Self {
            start: actor * width,
            checkpoint: trained * (width + state),
            checkpoints: if trained == 0 { 0 } else { most },
            free: free(&plan.out),
        }
    }

    /// Bytes at most.
    pub fn total(&self) -> u64 {
        self.start + self.checkpoint * self.checkpoints
    }

    /// Says so if there is less room than `what` takes, which is so many bytes.
    pub fn shortage(&self, what: &str, bytes: u64) -> Option<String> {
        let free = self.free.filter(|free| *free < bytes)?;
        Some(format!("{what} takes {}, and {} are free", size(bytes), size(free)))
    }
}

/// Bytes that a user may still write near a path that need not exist yet.
fn free(path: &Path) -> Option<u64> {
    let existing = std::path::absolute(path).ok()?.ancestors().find(|path| path.exists())?.to_path_buf();
    let system = rustix::fs::statvfs(existing).ok()?;
    Some(system.f_bavail.saturating_mul(system.f_frsize))
}
