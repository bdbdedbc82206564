//! Random streams that are derived, never stored.
//!
//! Each random choice of a run has an address: the run's seed, its purpose, a step and an index within the step. The
//! address is the key of a ChaCha8 stream, so that a resumed run, another batch size or another order of work draws the
//! same numbers, and there is no generator state to save.

use rand::SeedableRng;
pub use rand::rngs::ChaCha8Rng;

/// What a stream is drawn for. The numbers are part of a run's reproducibility: they are never reused or changed (6
/// is unused).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Generated problems; the step is the split.
    Problems = 1,
    /// Traces written by the solver.
    Traces = 2,
    /// Which problems a step takes.
    DataOrder = 3,
    /// Tokens of a training rollout.
    Rollout = 4,
    /// Tokens of a sampled evaluation.
    Evaluation = 5,
    /// The order of rows or mini-batches within a step.
    Shuffle = 7,
    /// Which seeds and problems a comparison of runs draws; the step is the resample.
    Resample = 8,
    /// Random directions to steer along; the index is which.
    Directions = 9,
}

/// The stream at an address. Equal addresses give equal streams, all others independent ones: the four numbers are the
/// 256-bit key, little-endian.
pub fn stream(seed: u64, purpose: Purpose, step: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0; 32];
    for (bytes, part) in key.chunks_exact_mut(8).zip([seed, purpose as u64, step, index]) {
        bytes.copy_from_slice(&part.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn a_stream_depends_on_every_part_of_its_address() {
        let first = |seed, purpose, step, index| stream(seed, purpose, step, index).next_u64();
        let base = first(1, Purpose::Rollout, 2, 3);
        assert_eq!(base, first(1, Purpose::Rollout, 2, 3));
        for other in [
            first(2, Purpose::Rollout, 2, 3),
            first(1, Purpose::Traces, 2, 3),
            first(1, Purpose::Rollout, 3, 3),
            first(1, Purpose::Rollout, 2, 4),
            first(1, Purpose::Rollout, 3, 2),
        ] {
            assert_ne!(base, other);
        }
    }
}
