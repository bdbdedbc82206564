//! Access to the residual stream between the layers: for steering vectors, sparse autoencoders, probes.
//!
//! Every pass has a tap (`Decoder::run`), most of them `()`, which costs one call per layer. Who only reads whole
//! sequences up to some layer has `Decoder::residual`, which leaves out the layers above.
//!
//! Shapes: B batch, T time, H hidden.

use tch::Tensor;

/// What reads or replaces the residual stream.
pub trait Tap {
    /// Receives the residual stream `x` [B, T, H] after `layer` (from 0) and returns what continues in its place, to
    /// the next layer or, after the last one, to the final norm.
    fn after_layer(&mut self, layer: usize, x: Tensor) -> Tensor;
}

/// No tap.
impl Tap for () {
    fn after_layer(&mut self, _: usize, x: Tensor) -> Tensor {
        x
    }
}

/// A tap, if there is one.
impl<T: Tap> Tap for Option<T> {
    fn after_layer(&mut self, layer: usize, x: Tensor) -> Tensor {
        match self {
            Some(tap) => tap.after_layer(layer, x),
            None => x,
        }
    }
}

/// Adds a vector of its own to each row after one layer, h' = h + s d.
pub struct Steer {
    /// After which layer, from 0.
    pub layer: usize,
    /// The vectors s d, [B, 1, H], or [1, 1, H] for all rows, in the stream's kind and on its device.
    pub added: Tensor,
    /// The first token of a pass to which they are added.
    pub from: i64,
}

impl Steer {
    /// The same for the rows of these indices [B'].
    pub fn pick(&self, rows: &Tensor) -> Self {
        Self { added: self.added.index_select(0, rows), ..*self }
    }

    /// The same for `rows` rows from the row `first` on, and for tokens from `from` on.
    pub fn part(&self, first: i64, rows: i64, from: i64) -> Self {
        Self { added: self.added.narrow(0, first, rows), from, ..*self }
    }
}

impl Tap for Steer {
    fn after_layer(&mut self, layer: usize, x: Tensor) -> Tensor {
        if layer != self.layer {
            return x;
        }
        let (from, tokens) = (self.from, x.size()[1]);
        match from {
            0 => x + &self.added,
            _ if from >= tokens => x,
            _ => Tensor::cat(&[x.narrow(1, 0, from), x.narrow(1, from, tokens - from) + &self.added], 1),
        }
    }
}
