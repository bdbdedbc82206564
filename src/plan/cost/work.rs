//! The work of each stage of a step, for the busiest of several processes: pure counts from shapes.
//!
//! In the formulas: H hidden size, N query heads, K key-value heads, D head dimension, I intermediate size, V
//! vocabulary, w bytes per number in the compute precision.
//!
//! - products, forward: as `model::Products` counts them. Backward: twice that. With
//!   `memory.gradient_checkpointing` the layers' forward pass is done once more, and so is the head's where the
//!   vocabulary is done in parts.
//! - weights: what the products of a micro-batch, of a prefill or of a decoding step read once.
//! - element-wise numbers per token and layer, read or written, as the code's operations do: norms 4 H, residual
//!   stream 6 H, rotation 10 (N + K) D, repeated keys and values 2 (N + K) D, attention's inputs and output 6 N D,
//!   the MLP 5 I. Backward: twice that.
//! - the vocabulary, bytes per response token: scores to float32, divided by the temperature, log-softmax, and in an
//!   update the entropy; backward twice that.
//! - decoding: every step of a batch reads the layers, the head and the rows' keys and values so far, and makes one
//!   step's log-probs, probabilities and their running sum. Rows that have ended make room for others, and leave when
//!   there are none, so that of a step decoded at once there are mean / longest on average.
//! - an optimizer step: per weight of the process's own part, gradient, master weight and two moments read, the
//!   latter three written, float32; the norm reads the gradient once; the new weights are written and read. In
//!   bfloat16 the gradient of every micro-batch is added to a float32 sum. With `memory.offload_optimizer` the part's
//!   step is done on the host, and gradient and new weights are copied.
//! - exchanged per optimizer step: the gradient in float32, summed; the weights, shared.

use crate::dist::Part;
use crate::model::{Products, VOCABULARY_PART};
use crate::plan::Plan;
use crate::recipe::{Ppo, Precision};
use crate::rollout::PREFILL_TOKENS;
use crate::torch::Flash;

/// How long sequences are, in tokens.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    pub prompt: f64,
    /// Of a response, on average.
    pub response: f64,
    /// Of the longest response, for which the others wait.
    pub longest: f64,
}

/// Kernels of a layer's forward pass, and of drawing a token: what is started one after another.
const LAYER_KERNELS: f64 = 36.0;
const DRAW_KERNELS: f64 = 20.0;

/// Work that is done `times` over, one after another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Piece {
    pub times: f64,
    /// Operations of matrix products.
    pub operations: f64,
    /// Bytes that these read once at least.
    pub weights: f64,
    /// Bytes read and written by everything else.
    pub traffic: f64,
    pub kernels: f64,
}

/// A stage of a step.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    pub name: &'static str,
    pub pieces: Vec<Piece>,
    /// Bytes of gradients of which the processes need the sum, each of its part.
    pub summed: f64,
    /// Bytes of weights of which each process has a part, and needs the others'.
    pub shared: f64,
    /// Bytes copied between a device and its host.
    pub copied: f64,
    /// Bytes read and written in the host's memory.
    pub on_host: f64,
}

/// A model's sizes.
struct Shape {
    products: Products,
    h: f64,
    v: f64,
    i: f64,
    q: f64,
    kv: f64,
    layers: f64,
    w: f64,
    /// Weights of the layers.
    decoder: f64,
    /// Weights in all, and those of a critic.
    all: f64,
    critic: f64,
}

impl Shape {
    fn of(plan: &Plan) -> Self {
        let c = &plan.config;
        let (h, v, all) = (c.hidden_size as f64, c.vocab_size as f64, c.parameters() as f64);
        let head = if c.tie_word_embeddings { 0.0 } else { v * h };
        Self {
            products: Products::of(c),
            h,
            v,
            i: c.intermediate_size as f64,
            q: (c.num_attention_heads * c.head_dim) as f64,
            kv: (c.num_key_value_heads * c.head_dim) as f64,
            layers: c.num_hidden_layers as f64,
            w: if plan.recipe.machine.precision == Precision::Bfloat16 { 2.0 } else { 4.0 },
            decoder: all - v * h - head,
            all,
            critic: all - head + h + 1.0,
        }
    }

    /// The layers' forward pass over sequences, in so many micro-batches.
    fn forward(&self, Tokens { all, pairs }: Tokens, batches: f64) -> Piece {
        let numbers = 10.0 * self.h + 18.0 * self.q + 12.0 * self.kv + 5.0 * self.i;
        Piece {
            times: batches,
            operations: (self.products.token * all + self.products.pair * pairs) / batches,
            weights: self.decoder * self.w,
            traffic: all * self.layers * numbers * self.w / batches,
            kernels: self.layers * LAYER_KERNELS,
        }
    }

    /// The head for so many response tokens: their log-probs, and entropies too.
    fn head(&self, tokens: f64, entropies: bool, batches: f64) -> Piece {
        let copied = if self.w < 4.0 { 2.0 * self.w + 4.0 } else { 4.0 };
        let bytes = copied + 16.0 + if entropies { 24.0 } else { 0.0 };
        Piece {
            times: batches,
            operations: self.products.head * tokens / batches,
            weights: self.v * self.h * self.w,
            traffic: tokens * self.v * bytes / batches,
            kernels: DRAW_KERNELS,
        }
    }
}

impl Piece {
    /// As much as so many of it.
    fn by(self, passes: f64) -> Self {
        let Self { times, operations, weights, traffic, kernels } = self;
        Self {
            times,
            operations: passes * operations,
            weights: passes * weights,
            traffic: passes * traffic,
            kernels: passes * kernels,
        }
    }

    fn repeated(self, times: f64) -> Self {
        Self { times: self.times * times, ..self }
    }
}

/// Tokens of some sequences, and the pairs of which one attends to the other or to itself.
#[derive(Clone, Copy)]
struct Tokens {
    all: f64,
    pairs: f64,
}

impl Tokens {
    fn of(sequences: f64, length: f64) -> Self {
        Self { all: sequences * length, pairs: sequences * length * (length + 1.0) / 2.0 }
    }

    /// Prompts and responses, `together` of which read their prompt once.
    fn read(sequences: f64, Lengths { prompt, response, .. }: Lengths, together: f64) -> Self {
        let (prompts, responses) = (Self::of(sequences / together, prompt), Self::of(sequences, response));
        Self {
            all: prompts.all + responses.all,
            pairs: prompts.pairs + responses.pairs + sequences * response * prompt,
        }
    }
}

/// The stages of a PPO step in the order of the loop.
pub fn stages(plan: &Plan, ppo: &Ppo, lengths: Lengths, processes: usize) -> Vec<Stage> {
    let shape = &Shape::of(plan);
    let share = |count: usize| count.div_ceil(processes) as f64;
    let on_host = !plan.on_cpu();
    // In one row, as `train::layout` has them.
    let flash = shape.w < 4.0 && plan.kernels().flash && Flash::has(plan.config.head_dim);
    let packed = !on_host || ppo.packing || flash;
    let together = if packed { plan.recipe.rollout.samples_per_prompt as f64 } else { 1.0 };
    let read = |sequences: f64| Tokens::read(sequences, lengths, together);
    let micro_batches = |read: Tokens| (read.all / ppo.micro_batch_tokens as f64).ceil().max(1.0);
    let scored = share(plan.sequences_per_step());
    let batches = micro_batches(read(scored));
    let forward = shape.forward(read(scored), batches);
    let head = shape.head(scored * lengths.response, false, batches);
    let mut all = vec![rollout(plan, shape, lengths, processes)];
    let scoring = |name, pieces: &[Piece]| Stage { name, pieces: pieces.to_vec(), ..Stage::default() };
    all.push(scoring("old_log_prob", &[forward, head]));
    if ppo.needs_reference() {
        let copied = if plan.recipe.memory.offload_reference && on_host { shape.all * shape.w } else { 0.0 };
        all.push(Stage { copied, ..scoring("ref", &[forward, head]) });
    }
    if ppo.critic_is_separate() {
        all.push(scoring("values", &[forward]));
    }
    let recompute = plan.recipe.memory.gradient_checkpointing;
    let update = |name, updates: usize, size: usize, parameters: f64, learns_words: bool| {
        let (sequences, updates) = (share(size), updates as f64);
        let batches = micro_batches(read(sequences));
        let layers = shape.forward(read(sequences), batches).by(if recompute { 4.0 } else { 3.0 });
        let learnt = sequences * lengths.response;
        let parts = learnt / batches * shape.v > VOCABULARY_PART as f64;
        let head = shape.head(learnt, true, batches).by(if parts { 4.0 } else { 3.0 });
        let mut stage = optimizer(plan, shape, parameters, batches, processes);
        stage.name = name;
        stage.pieces.push(layers);
        stage.pieces.extend(learns_words.then_some(head));
        stage.pieces.iter_mut().for_each(|piece| *piece = piece.repeated(updates));
        for bytes in [&mut stage.summed, &mut stage.shared, &mut stage.copied, &mut stage.on_host] {
            *bytes *= updates;
        }
        stage
    };
    if ppo.critic_is_separate() {
        all.push(update("update_critic", plan.critic_updates(ppo), ppo.critic_sequences(), shape.critic, false));
    }
    all.push(update("update_actor", plan.actor_updates(ppo), ppo.mini_batch, shape.all, true));
    all
}

/// Prefill and decoding.
fn rollout(plan: &Plan, shape: &Shape, lengths: Lengths, processes: usize) -> Stage {
    let rollout = &plan.recipe.rollout;
    let samples = rollout.samples_per_prompt;
    let prompts = rollout.prompts_per_step.div_ceil(processes);
    let all = (prompts * samples) as f64;
    let together = if rollout.batch == 0 { prompts } else { (rollout.batch / samples).clamp(1, prompts) } * samples;
    // A response takes the place of another that has ended, an eighth of them at a time.
    let steps = lengths.longest.max(all * lengths.response / together as f64);
    let rows = all * lengths.response / steps;
    let prefills = 1.0 + 8.0 * (all / together as f64 - 1.0);
    let read = Tokens::of(prompts as f64, lengths.prompt);
    let prefill = shape.forward(read, (read.all / PREFILL_TOKENS as f64).ceil().max(prefills));
    let context = lengths.prompt + lengths.response / 2.0;
    let cached = rows * context * shape.layers * 2.0 * shape.kv * shape.w;
    let head = shape.head(rows, false, 1.0);
    // Each row's new token attends to what is cached.
    let layers = shape.forward(Tokens { all: rows, pairs: rows * context }, 1.0);
    let step = Piece {
        times: steps,
        operations: layers.operations + head.operations,
        weights: layers.weights + head.weights,
        // Probabilities, and their running sum.
        traffic: layers.traffic + cached + head.traffic + rows * shape.v * 16.0,
        kernels: layers.kernels + head.kernels,
    };
    Stage { name: "gen", pieces: vec![prefill, step], ..Stage::default() }
}

/// An optimizer's step, and the gradients of so many micro-batches.
fn optimizer(plan: &Plan, shape: &Shape, parameters: f64, batches: f64, processes: usize) -> Stage {
    let own = Part::of(0, processes, parameters as i64).len as f64;
    let w = shape.w;
    let half = w < 4.0;
    // Added to the sum and made zero again.
    let added = if half { 2.0 * w + 8.0 } else { 0.0 };
    let opened = if half { w + 4.0 } else { w };
    let offloaded = plan.recipe.memory.offload_optimizer && !plan.on_cpu();
    let step = own * (28.0 + w);
    let gathered = Piece { times: batches, traffic: parameters * added, ..Piece::default() };
    let stepped = parameters * (opened + w) + own * 4.0 + if offloaded { 0.0 } else { step };
    Stage {
        pieces: vec![gathered, Piece { times: 1.0, traffic: stepped, ..Piece::default() }],
        summed: parameters * 4.0,
        shared: parameters * w,
        copied: if offloaded { own * (4.0 + w) } else { 0.0 },
        on_host: if offloaded { step } else { 0.0 },
        ..Stage::default()
    }
}
