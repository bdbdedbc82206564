//! An optimizer step on the host, piece by piece: while the host works on one piece, the gradient of the next is
//! fetched from the device and the new weights of the one before are sent there.
//!
//! Decided: two gradients and two pieces of weights are under way at most, in pinned memory, which a GPU reads and
//! writes by itself. The host waits once per piece, for all that the device was asked to do.

use crate::torch::{fetch, send, wait_for};
use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// Calls `step` for pieces of at most `at_once` weights: with the first of a piece and their gradient, float32 at
/// `home`. It returns their new values if they have to be sent to `weights`, [L], whose gradient is `gradient`, [L]
/// float32.
///
/// # Errors
/// Those of `step`.
pub fn in_pieces(
    (weights, gradient): (&Tensor, &Tensor),
    home: Device,
    at_once: i64,
    mut step: impl FnMut(i64, Tensor) -> Result<Option<Tensor>>,
) -> Result<()> {
    let (device, total) = (weights.device(), weights.size()[0]);
    let piece = |all: &Tensor, first: i64| all.narrow(0, first, at_once.min(total - first));
    let fetched = |first: i64| (first < total).then(|| fetch(&piece(gradient, first), home, Kind::Float));
    let wait = || {
        if device != home {
            wait_for(device);
        }
    };
    let mut next = fetched(0);
    let mut done: Option<(i64, Tensor)> = None;
    let mut first = 0;
    while let Some(gradient) = next {
        wait();
        next = fetched(first + at_once);
        if let Some((first, new)) = done.take() {
            send(&new, &piece(weights, first));
        }
        done = step(first, gradient)?.map(|new| (first, new.to_kind(weights.kind())));
        first += at_once;
    }
    if let Some((first, new)) = done {
        send(&new, &piece(weights, first));
    }
    wait();
    Ok(())
}
