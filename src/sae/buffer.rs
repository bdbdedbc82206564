//! The residual stream of texts, made as it is needed and shuffled in a buffer of a few batches.

use super::stream::{Residuals, Text};
use crate::rng::ChaCha8Rng;
use crate::torch::on_device;
use rand::seq::SliceRandom;
use tch::{Kind, Tensor};

/// The shuffled residual stream of texts, without end.
pub struct Buffer<'a> {
    residuals: &'a Residuals<'a>,
    texts: Vec<&'a Text>,
    /// The next text.
    next: usize,
    rng: ChaCha8Rng,
    /// Tokens that are left, [n, H] float32.
    left: Tensor,
    /// How many it should hold.
    rows: i64,
}

impl<'a> Buffer<'a> {
    /// A buffer of `rows` tokens, filled.
    pub fn new(residuals: &'a Residuals<'a>, texts: &[&'a Text], rows: i64, rng: ChaCha8Rng) -> Self {
        let policy = residuals.policy;
        let left = Tensor::zeros([0, policy.config.hidden_size], (Kind::Float, policy.device()));
        let mut buffer = Self { residuals, texts: texts.to_vec(), next: 0, rng, left, rows };
        buffer.fill();
        buffer
    }

    /// The tokens it holds, [n, H] float32.
    pub fn left(&self) -> &Tensor {
        &self.left
    }

    /// The next `batch` tokens, [batch, H].
    pub fn take(&mut self, batch: i64) -> Tensor {
        if self.left.size()[0] < batch {
            self.fill();
        }
        let left = self.left.size()[0];
        let taken = self.left.narrow(0, 0, batch).copy();
        self.left = self.left.narrow(0, batch, left - batch);
        taken
    }

    /// Reads texts until there are `rows` tokens, and shuffles what is there.
    fn fill(&mut self) {
        let mut parts = vec![self.left.copy()];
        let mut rows = self.left.size()[0];
        while rows < self.rows {
            let mut now = vec![];
            while now.len() < 16 {
                if self.next == 0 {
                    self.texts.shuffle(&mut self.rng);
                }
                now.push(self.texts[self.next]);
                self.next = (self.next + 1) % self.texts.len();
            }
            let read = self.residuals.each(&now, |_, stream| {
                rows += stream.size()[0];
                parts.push(stream.to_kind(Kind::Float));
                Ok(())
            });
            debug_assert!(read.is_ok());
        }
        let mut order: Vec<i64> = (0..rows).collect();
        order.shuffle(&mut self.rng);
        let all = Tensor::cat(&parts, 0);
        self.left = all.index_select(0, &on_device(&order, all.device()));
    }
}
