//! The machine's ceiling: the fastest matrix product of the kind that a model's layers are made of.

use crate::model::ModelConfig;
use crate::torch::to_host;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// How long each shape is measured.
const TIME: Duration = Duration::from_millis(400);
/// Rows of the products: more than any micro-batch needs to fill the machine.
const ROWS: i64 = 4096;

/// Operations per second of the best of three products: the up and the down projection of a layer on `ROWS` tokens, and
/// a square one.
pub fn products(config: &ModelConfig, kind: Kind, device: Device) -> f64 {
    let (hidden, inner) = (config.hidden_size, config.intermediate_size);
    let shapes = [[ROWS, hidden, inner], [ROWS, inner, hidden], [ROWS / 2, ROWS / 2, ROWS / 2]];
    tch::no_grad(|| shapes.map(|shape| rate(shape, kind, device)).into_iter().fold(0.0, f64::max))
}

/// Operations per second of a product [m, k] x [k, n], the best of several.
fn rate([m, k, n]: [i64; 3], kind: Kind, device: Device) -> f64 {
    let (a, b) = (Tensor::rand([m, k], (Kind::Float, device)), Tensor::rand([n, k], (Kind::Float, device)));
    let (a, b) = (a.to_kind(kind), b.to_kind(kind));
    let start = Instant::now();
    let mut best = f64::INFINITY;
    while start.elapsed() < TIME || best.is_infinite() {
        let one = Instant::now();
        // A GPU is done when a number of the result is on the host.
        to_host(&a.linear(&b, None::<&Tensor>).select(0, 0).narrow(0, 0, 1));
        best = best.min(one.elapsed().as_secs_f64());
    }
    2.0 * (m * k * n) as f64 / best
}
