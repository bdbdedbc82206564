//! What a step costs: operations, memory traffic and exchanged bytes, and how long they would take on a named machine,
//! for one process and for several. Computed from shapes and a machine's rates; nothing is measured, unless the machine
//! is `here`.
//!
//! Decided: rates are peaks times a share that programs like this one reach, all of them named where they are printed.
//! A stage takes the sum of its pieces (`work`): products at their rate or as long as their weights take to be read,
//! then element-wise work at the rate of memory, and no less than its kernels take to be started. What is exchanged
//! waits for the update and the update for it: nothing overlaps. All processes do as much as the busiest one.
//!
//! Not counted: evaluation, checkpoints, hooks, grading, padding, and what the host does between stages.

mod here;
mod machine;
mod show;
mod work;

pub use machine::Machine;
pub use show::{cost_json, cost_report};

use super::Plan;
use work::{Piece, Stage, stages};

/// How long sequences are, in tokens.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    pub prompt: f64,
    /// Of a response, on average.
    pub response: f64,
    /// Of the longest response, for which the others of a batch wait.
    pub longest: f64,
}

/// What a step costs with so many processes.
#[derive(Clone, Debug)]
pub struct Step {
    pub processes: usize,
    pub stages: Vec<Cost>,
}

/// What a stage costs each process, of which the busiest counts.
#[derive(Clone, Debug)]
pub struct Cost {
    /// As metrics call its time.
    pub stage: &'static str,
    /// Operations of matrix products, each multiplication and each addition.
    pub operations: f64,
    /// Bytes read and written in memory.
    pub traffic: f64,
    /// Bytes of gradients that are summed and of weights that are shared.
    pub exchanged: f64,
    /// Seconds without the exchange.
    pub work: f64,
    /// Seconds of the exchange between devices.
    pub exchange: f64,
    /// The same over MPI, through the hosts' memory, as the program does it today.
    pub over_mpi: f64,
}

impl Step {
    /// A PPO step of a plan; nothing if it has none.
    pub fn of(plan: &Plan, machine: &Machine, lengths: Lengths, processes: usize) -> Option<Self> {
        let ppo = plan.recipe.ppo.as_ref()?;
        let rate = machine.products(plan.recipe.machine.precision);
        let cost = |stage: Stage| stage.cost(machine, rate, processes);
        Some(Self { processes, stages: stages(plan, ppo, lengths, processes).into_iter().map(cost).collect() })
    }

    fn sum(&self, of: impl Fn(&Cost) -> f64) -> f64 {
        self.stages.iter().map(of).sum()
    }

    /// Seconds, with the exchange between devices.
    pub fn seconds(&self) -> f64 {
        self.sum(|cost| cost.work + cost.exchange)
    }

    /// Seconds, with the exchange over MPI.
    pub fn seconds_over_mpi(&self) -> f64 {
        self.sum(|cost| cost.work + cost.over_mpi)
    }
}

impl Stage {
    /// `rate`: operations of products per second.
    fn cost(self, machine: &Machine, rate: f64, processes: usize) -> Cost {
        let seconds = |piece: &Piece| {
            let products = (piece.operations / rate).max(piece.weights / machine.traffic());
            let running = products + piece.traffic / machine.traffic();
            let starting = piece.kernels * machine.launch_us * 1e-6;
            // The processor starts kernels while a GPU runs those before.
            piece.times * if machine.gpu { running.max(starting) } else { running + starting }
        };
        let sum = |of: fn(&Piece) -> f64| self.pieces.iter().map(|piece| piece.times * of(piece)).sum::<f64>();
        // Of each tensor a process has its part already.
        let exchanged = (self.summed + self.shared) * (processes - 1) as f64 / processes as f64;
        let through_host = if machine.gpu { exchanged / machine.host_link() } else { 0.0 };
        Cost {
            stage: self.name,
            operations: sum(|piece| piece.operations),
            traffic: sum(|piece| piece.traffic + piece.weights),
            exchanged,
            work: self.pieces.iter().map(seconds).sum::<f64>()
                + self.copied / machine.host_link()
                + self.on_host / machine.host_traffic(),
            exchange: exchanged / machine.link(processes),
            over_mpi: exchanged / machine.mpi(processes) + through_host,
        }
    }
}

#[cfg(test)]
mod tests;
