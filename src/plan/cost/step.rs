//! How long the stages of a step take with a machine's rates.

use super::machine::Machine;
use super::work::{Lengths, Piece, Stage, stages};
use crate::plan::Plan;

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

    pub(super) fn sum(&self, of: impl Fn(&Cost) -> f64) -> f64 {
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
