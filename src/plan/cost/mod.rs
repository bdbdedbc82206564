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
mod peak;
mod show;
mod step;
#[cfg(test)]
mod tests;
mod work;

pub use machine::Machine;
pub use peak::measured_peak;
pub use show::{cost_json, cost_report};
pub use work::Lengths;
