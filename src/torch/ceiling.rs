//! How fast a device multiplies matrices, measured.

use super::wait_for;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// Seconds of the fastest of several times that `work` is done within `time`, and at least twice; the first one, which
/// sets things up, does not count.
pub fn shortest(device: Device, time: Duration, mut work: impl FnMut()) -> f64 {
    let mut timed = || {
        let begun = Instant::now();
        tch::no_grad(&mut work);
        wait_for(device);
        begun.elapsed().as_secs_f64()
    };
    timed();
    let begun = Instant::now();
    let mut best = timed();
    while begun.elapsed() < time {
        best = best.min(timed());
    }
    best
}

/// Operations per second of the fastest of several products [m, k] x [k, n], each of which is measured for so long; a
/// multiplication and an addition are two.
pub fn products(shapes: &[[i64; 3]], kind: Kind, device: Device, time: Duration) -> f64 {
    let rate = |[m, k, n]: [i64; 3]| {
        // Numbers that are neither zero nor tiny: processors treat some of those apart.
        let [a, b] = [[m, k], [n, k]].map(|size| Tensor::full(size, 0.5, (kind, device)));
        2.0 * (m * k * n) as f64 / shortest(device, time, || drop(a.linear(&b, None::<&Tensor>)))
    };
    shapes.iter().map(|shape| rate(*shape)).fold(0.0, f64::max)
}
