//! How fast a device multiplies matrices, measured.

use super::wait_for;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// Times as long as a measurement should take, after which it is over whatever it is.
const PATIENCE: u32 = 5;

/// Seconds of the fastest of several times that `work` is done within `time`, and at least twice; the first one, which
/// sets things up, does not count, unless it takes so long that there is no second.
pub fn shortest(device: Device, time: Duration, mut work: impl FnMut()) -> f64 {
    let mut timed = || {
        let begun = Instant::now();
        tch::no_grad(&mut work);
        wait_for(device);
        begun.elapsed().as_secs_f64()
    };
    let first = timed();
    if first > (time * PATIENCE).as_secs_f64() {
        return first;
    }
    let begun = Instant::now();
    let mut best = timed();
    while begun.elapsed() < time {
        best = best.min(timed());
    }
    best
}

/// Operations per second of the fastest of several products [m, k] x [k, n], each of which is measured for so long; a
/// multiplication and an addition are two. On a slow machine those that come after much more time are left out.
pub fn products(shapes: &[[i64; 3]], kind: Kind, device: Device, time: Duration) -> f64 {
    let rate = |[m, k, n]: [i64; 3]| {
        // Numbers that are neither zero nor tiny: processors treat some of those apart.
        let [a, b] = [[m, k], [n, k]].map(|size| Tensor::full(size, 0.5, (kind, device)));
        2.0 * (m * k * n) as f64 / shortest(device, time, || drop(a.linear(&b, None::<&Tensor>)))
    };
    let begun = Instant::now();
    let most = time * PATIENCE * shapes.len() as u32;
    let in_time = |i: &usize| *i == 0 || begun.elapsed() < most;
    (0..shapes.len()).take_while(in_time).map(|i| rate(shapes[i])).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_work_is_done_once() {
        let mut done = 0;
        let slow = Duration::from_millis(20);
        let seconds = shortest(Device::Cpu, Duration::from_millis(1), || {
            done += 1;
            std::thread::sleep(slow);
        });
        assert!(done == 1 && seconds >= slow.as_secs_f64(), "{done} {seconds}");
        let mut done = 0;
        shortest(Device::Cpu, Duration::from_secs(1), || {
            done += 1;
            std::thread::sleep(Duration::from_millis(400));
        });
        assert!(done >= 2, "{done}");
        // Of several products at least one is measured.
        assert!(products(&[[2, 3, 4]; 3], Kind::Float, Device::Cpu, Duration::ZERO) > 0.0);
    }
}
