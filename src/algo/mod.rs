//! The algorithms as pure functions, each tested against a naive second implementation.
//!
//! Per-token quantities of a step are flat: the response tokens of all sequences one after another, without padding or
//! mask. `lengths` says where each sequence ends. What belongs to a step is in host memory (`f32` slices: a pass over
//! them costs nothing compared with a forward pass); what needs a gradient is a tensor.

pub mod advantage;
pub mod aggregate;
pub mod kl;
pub mod loss;
pub mod schedule;
