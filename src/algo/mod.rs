//! The algorithms as pure functions, each tested against a naive second implementation.
//!
//! Per-token quantities of a step lie flat: the response tokens of all sequences one after another, no padding, no
//! mask. `lengths` says where each sequence ends. What belongs to a step is host memory (`f32` slices, a pass over them
//! costs nothing beside a forward pass); what needs a gradient is a tensor.

pub mod advantage;
pub mod aggregate;
pub mod kl;
pub mod loss;
pub mod schedule;
