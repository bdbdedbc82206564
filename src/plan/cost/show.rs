//! The cost of a step as text and as JSON, over numbers of processes.

use super::machine::Machine;
use super::step::{Cost, Step};
use super::work::Lengths;
use crate::plan::fit::SHARE;
use crate::plan::{Plan, estimate, peak};
use crate::terminal::table_within;
use serde_json::{Value, json};
use std::fmt::Write;

/// The numbers of processes that are compared.
const PROCESSES: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

const WIDTH: usize = 100;

/// What a step costs with each number of processes.
struct Costs {
    steps: Vec<Step>,
    /// Bytes of memory that each process needs.
    memory: Vec<u64>,
}

impl Costs {
    fn of(plan: &Plan, machine: &Machine, lengths: Lengths) -> Self {
        let steps: Vec<Step> = PROCESSES.iter().filter_map(|n| Step::of(plan, machine, lengths, *n)).collect();
        let memory = steps.iter().map(|step| peak(&estimate(plan, step.processes)).1).collect();
        Self { steps, memory }
    }

    /// What part of the time would be left if work were divided without loss.
    fn efficiency(&self, at: usize) -> f64 {
        let (one, step) = (&self.steps[0], &self.steps[at]);
        one.seconds() / (step.seconds() * step.processes as f64 / one.processes as f64)
    }
}

/// The table of step times, and what it assumes; text of at most 100 columns.
pub fn cost_report(plan: &Plan, machine: &Machine, lengths: Lengths) -> String {
    let costs = Costs::of(plan, machine, lengths);
    let Some(one) = costs.steps.first() else { return "cost: there is no PPO step\n".into() };
    let Lengths { prompt, response, longest } = lengths;
    let mut out = format!(
        "a step on {}, computed: prompts of {prompt:.0} tokens, \
         responses of {response:.0} (the longest {longest:.0})\n",
        machine.name
    );
    let (operations, traffic) = (one.sum(|cost| cost.operations), one.sum(|cost| cost.traffic));
    let eight = costs.steps.iter().find(|step| step.processes == 8);
    let exchanged = eight.map_or(0.0, |step| step.sum(|cost| cost.exchanged));
    let _ = writeln!(
        out,
        "  {}FLOP of products, {}B of memory traffic; exchanged by each of 8 processes: {}B",
        scaled(operations),
        scaled(traffic),
        scaled(exchanged)
    );
    let row = |(at, step): (usize, &Step)| {
        // A sum of nothing is -0.
        let of = |name: &str| {
            let own = step.stages.iter().filter(|cost| cost.stage == name).map(|cost| cost.work);
            seconds(own.sum::<f64>() + 0.0)
        };
        let scoring = step.stages.iter().filter(|cost| ["old_log_prob", "ref", "values"].contains(&cost.stage));
        let memory = costs.memory[at];
        vec![
            step.processes.to_string(),
            format!("{:.1}", memory as f64 / f64::from(1 << 30)),
            if memory > room(machine) { "no".into() } else { "yes".into() },
            of("gen"),
            seconds(scoring.map(|cost| cost.work).sum()),
            of("update_critic"),
            of("update_actor"),
            seconds(step.sum(|cost| cost.exchange)),
            seconds(step.seconds()),
            format!("{:.0} %", 100.0 * costs.efficiency(at)),
            seconds(step.seconds_over_mpi()),
        ]
    };
    let rows: Vec<_> = costs.steps.iter().enumerate().map(row).collect();
    let what = if machine.gpu { "GPUs" } else { "machines" };
    let head =
        [what, "GiB each", "fits", "gen", "scores", "critic", "actor", "exchange", "step, s", "efficiency", "over MPI"];
    out += &table_within(WIDTH, &head, &rows);
    out.push('\n');
    for line in assumptions(plan, machine) {
        let _ = writeln!(out, "  {line}");
    }
    out
}

/// Bytes that a process may use of its device's memory.
fn room(machine: &Machine) -> u64 {
    (machine.memory_gb * 1e9 * SHARE) as u64
}

/// Three digits and a prefix: `1.23 T`.
fn scaled(value: f64) -> String {
    let units = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")];
    let (unit, prefix) = units.into_iter().find(|(unit, _)| value >= *unit).unwrap_or((1.0, ""));
    let digits = 2usize.saturating_sub((value / unit).max(1.0).log10() as usize);
    format!("{:.digits$} {prefix}", value / unit)
}

fn seconds(value: f64) -> String {
    let digits = if value < 0.995 { 2 } else { usize::from(value < 99.5) };
    format!("{value:.digits$}")
}

/// What the figures rest on, a line each.
fn assumptions(plan: &Plan, machine: &Machine) -> Vec<String> {
    let precision = plan.recipe.machine.precision;
    let percent = |share: f64| format!("{:.0} %", share * 100.0);
    let network = match machine.per_node {
        1 => String::new(),
        several => format!("{} GB/s between the {several} GPUs of a machine, ", machine.link_gb_s),
    };
    vec![
        format!(
            "products {}FLOP/s ({} of the peak), memory {}B/s ({}), {:.1} us to start a kernel",
            scaled(machine.products(precision)),
            percent(machine.products_share),
            scaled(machine.traffic()),
            percent(machine.memory_share),
            machine.launch_us
        ),
        format!(
            "exchange: {network}{} Gb/s between them, {} of it; no overlap",
            machine.network_gbit_s,
            percent(machine.link_share)
        ),
        format!("over MPI, as the program exchanges today: through the host, {} GB/s and process", machine.mpi_gb_s),
        "all do as much as the busiest; not counted: evaluation, checkpoints, hooks, grading, padding".into(),
    ]
}

/// The same figures for programs: seconds, bytes, operations.
pub fn cost_json(plan: &Plan, machine: &Machine, lengths: Lengths) -> Value {
    let costs = Costs::of(plan, machine, lengths);
    let Lengths { prompt, response, longest } = lengths;
    let stage = |cost: &Cost| {
        json!({
            "stage": cost.stage,
            "operations": cost.operations,
            "traffic_bytes": cost.traffic,
            "exchanged_bytes": cost.exchanged,
            "work_seconds": cost.work,
            "exchange_seconds": cost.exchange,
            "mpi_seconds": cost.over_mpi,
        })
    };
    let step = |(at, step): (usize, &Step)| {
        json!({
            "processes": step.processes,
            "memory_bytes": costs.memory[at],
            "fits": costs.memory[at] <= room(machine),
            "seconds": step.seconds(),
            "seconds_over_mpi": step.seconds_over_mpi(),
            "efficiency": costs.efficiency(at),
            "stages": step.stages.iter().map(stage).collect::<Vec<_>>(),
        })
    };
    json!({
        "machine": machine,
        "tokens": { "prompt": prompt, "response": response, "longest": longest },
        "steps": costs.steps.iter().enumerate().map(step).collect::<Vec<_>>(),
    })
}
