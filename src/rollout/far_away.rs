//! Drawing tokens where the host is far away: what changes from token to token is in tensors of the device, so that a
//! token needs nothing of the host, and on a GPU one graph of kernels draws each.
//!
//! Decided: a graph attends to the slots up to the next multiple of `SLOTS`, of which those to come are masked, and is
//! recorded anew for the next multiple, and when rows leave; not when they get other responses. At first, and after
//! rows have left, a token is drawn without a graph, so that libraries have what they need. If recording fails, tokens
//! are drawn one kernel after another.
//!
//! Shapes: B rows, H hidden.

use super::batch::Batch;
use super::progress::{Drawing, Progress};
use super::sampler::Sampling;
use crate::model::Policy;
use crate::terminal;
use crate::torch::{Graph, on_device};
use std::ops::Range;
use tch::{Kind, Tensor};

/// Tokens of each row that are drawn before the host looks at them.
const INTERVAL: usize = 8;

/// Slots of the cache by which what a graph attends to grows.
const SLOTS: i64 = 128;

/// Rows whose tokens are drawn several at a time.
pub struct FarAway<'a> {
    policy: &'a Policy,
    sampling: &'a Sampling,
    /// Ids from here on are never drawn.
    vocabulary: i64,
    batch: Batch<'a>,
    /// How many tokens of each row have been drawn since the host looked, [1].
    count: Tensor,
    /// These tokens and their log-probs, [INTERVAL, B] each.
    tokens: Tensor,
    log_probs: Tensor,
    recorded: Recorded,
    /// A graph that is not started any more, whose memory the next one uses.
    before: Option<Graph>,
}

/// Whether there is a graph.
enum Recorded {
    /// None yet; whether the next token may be recorded.
    Not { ready: bool },
    /// One that attends to so many slots.
    Graph(Graph, i64),
    /// Nor will there be any.
    Never,
}

impl<'a> FarAway<'a> {
    /// For tokens that `policy` draws in the manner of `sampling` among the first ids of its vocabulary.
    pub fn new((policy, sampling, vocabulary): (&'a Policy, &'a Sampling, i64), batch: Batch<'a>) -> Self {
        let (device, size) = (policy.device(), [INTERVAL as i64, batch.rows.len() as i64]);
        let possible = Graph::is_possible(device);
        Self {
            policy,
            sampling,
            vocabulary,
            batch,
            count: on_device(&[0i64], device),
            tokens: Tensor::zeros(size, (Kind::Int64, device)),
            log_probs: Tensor::zeros(size, (Kind::Float, device)),
            recorded: if possible { Recorded::Not { ready: false } } else { Recorded::Never },
            before: Graph::left(),
        }
    }

    /// Goes on as `next`; a graph that there was is left for the next one.
    fn put_by(&mut self, next: Recorded) {
        if let Recorded::Graph(graph, _) = std::mem::replace(&mut self.recorded, next) {
            self.before = Some(graph);
        }
    }

    fn draw_one(&mut self) {
        let (needed, all) = self.batch.slots();
        let extent = (((needed - 1) / SLOTS + 1) * SLOTS).min(all);
        match &self.recorded {
            Recorded::Never => self.pass(needed),
            Recorded::Not { ready: false } => {
                self.pass(extent);
                self.recorded = Recorded::Not { ready: true };
            }
            Recorded::Graph(graph, reach) if *reach >= extent => graph.replay(),
            _ => self.record(needed, extent),
        }
        self.batch.count();
    }

    /// Draws a token by a graph that is recorded for it, or without one.
    fn record(&mut self, needed: i64, extent: i64) {
        self.put_by(Recorded::Never);
        let (device, before) = (self.policy.device(), self.before.take());
        match Graph::record(device, before.as_ref(), || self.pass(extent)) {
            Ok(graph) => {
                graph.replay();
                self.recorded = Recorded::Graph(graph, extent);
            }
            Err(error) => {
                terminal::warn(&format!("note: tokens are drawn without a graph of kernels: {error:#}"));
                self.pass(needed);
            }
        }
    }

    /// One token of each row. Nothing here depends on the host but the `extent` that the cache attends to.
    fn pass(&mut self, extent: i64) {
        let logits = self.policy.logits(&self.batch.hidden);
        let (tokens, log_probs) = self.sampling.pick(&logits, self.vocabulary, &self.batch.uniforms());
        let _ = self.tokens.index_copy_(0, &self.count, &tokens.unsqueeze(0));
        let _ = self.log_probs.index_copy_(0, &self.count, &log_probs.unsqueeze(0));
        self.count += 1;
        self.batch.read(self.policy, &tokens, extent);
    }
}

impl Drawing for FarAway<'_> {
    fn rows(&self) -> &[usize] {
        &self.batch.rows
    }

    fn draw(&mut self, progress: &mut Progress) -> (Tensor, Tensor) {
        let count = progress.most_left(&self.batch.rows).min(INTERVAL);
        let _ = self.count.zero_();
        (0..count).for_each(|_| self.draw_one());
        let drawn = |all: &Tensor| all.narrow(0, 0, count as i64);
        (drawn(&self.tokens), drawn(&self.log_probs))
    }

    fn keep(&mut self, live: &[i64]) {
        let index = on_device(live, self.policy.device());
        self.batch.keep(live, &index);
        let fewer = |all: &Tensor| all.index_select(1, &index);
        (self.tokens, self.log_probs) = (fewer(&self.tokens), fewer(&self.log_probs));
        if !matches!(self.recorded, Recorded::Never) {
            self.put_by(Recorded::Not { ready: false });
        }
    }

    fn replace(&mut self, rows: &[usize], prompts: Range<usize>) -> bool {
        self.batch.replace(rows, prompts)
    }
}

impl Drop for FarAway<'_> {
    fn drop(&mut self) {
        self.put_by(Recorded::Never);
        if let Some(graph) = self.before.take() {
            graph.leave();
        }
    }
}
