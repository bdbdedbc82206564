//! How a run proceeds: rollouts, evaluation, checkpoints, logs, the machine.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;

/// How responses are sampled.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rollout {
    /// Prompts per PPO step.
    #[serde_inline_default(128)]
    #[schemars(range(min = 1))]
    pub prompts_per_step: usize,
    /// Responses per prompt.
    #[serde_inline_default(4)]
    #[schemars(range(min = 1))]
    pub samples_per_prompt: usize,
    /// Longest prompt in tokens; a longer one is refused before the run starts.
    #[serde_inline_default(1024)]
    #[schemars(range(min = 1))]
    pub max_prompt_tokens: usize,
    /// Longest response in tokens; a longer one is cut off.
    #[serde_inline_default(1024)]
    #[schemars(range(min = 1))]
    pub max_response_tokens: usize,
    /// Sampling temperature: divides the logits.
    #[serde_inline_default(1.0)]
    #[schemars(range(min = 0.001, max = 100.0))]
    pub temperature: f64,
    /// Sample from the smallest set of tokens with this total probability (1: all).
    #[serde_inline_default(1.0)]
    #[schemars(range(max = 1.0), extend("exclusiveMinimum" = 0.0))]
    pub top_p: f64,
    /// Sample from this many of the most probable tokens (0: all).
    #[serde(default)]
    pub top_k: usize,
    /// Strings that end a response, besides the end tokens of model and tokenizer; what follows one is cut off.
    #[serde(default)]
    pub stop: Vec<String>,
    /// Sequences decoded at a time (0: all of a step); one that has ended makes room for another. Affects memory and
    /// speed, never a response.
    #[serde(default)]
    pub batch: usize,
}

/// When and how the actor is evaluated on the validation split.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluation {
    /// Steps between evaluations (0: only before the first step and after the last).
    #[serde_inline_default(10)]
    pub every: usize,
    /// Problems per evaluation (0: the whole validation split).
    #[serde(default)]
    pub problems: usize,
    /// Evaluate greedily, by sampling at temperature 1, or both.
    #[serde_inline_default(vec![Decoding::Greedy])]
    pub decoding: Vec<Decoding>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decoding {
    Greedy,
    Sampled,
}

impl Decoding {
    pub const ALL: [Self; 2] = [Self::Greedy, Self::Sampled];

    /// Its name in a recipe.
    pub fn name(self) -> &'static str {
        match self {
            Self::Greedy => "greedy",
            Self::Sampled => "sampled",
        }
    }
}

/// Which checkpoints are written and kept.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Checkpoints {
    /// Steps between checkpoints (0: only after the last step).
    #[serde_inline_default(50)]
    pub every: usize,
    /// How many of the newest checkpoints are kept.
    #[serde_inline_default(2)]
    #[schemars(range(min = 1))]
    pub keep_last: usize,
    /// Steps between checkpoints that are kept for good, and written even where `every` would not (0: none).
    #[serde(default)]
    pub keep_every: usize,
    /// Whether the checkpoint with the best validation accuracy is kept as well.
    #[serde_inline_default(true)]
    pub keep_best: bool,
}

impl Checkpoints {
    /// Whether the checkpoint of a step is one of those that are kept for good.
    pub fn is_permanent(&self, step: usize) -> bool {
        self.keep_every > 0 && step > 0 && step.is_multiple_of(self.keep_every)
    }
}

/// Where a run's metrics are written.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Logging {
    /// Whether to write event files for TensorBoard.
    #[serde_inline_default(true)]
    pub tensorboard: bool,
    /// Whether to write `metrics.jsonl`, one record per line, and `evaluations.jsonl`, one evaluation per line.
    #[serde_inline_default(true)]
    pub jsonl: bool,
}

/// The hardware that the run uses.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// `cpu`, `cuda`, `cuda:N`, or `auto`: the first GPU, or the CPU if there is none.
    #[serde_inline_default("auto".into())]
    pub device: String,
    /// Precision of weights and activations.
    #[serde(default)]
    pub precision: Precision,
    /// Whether products of float32 on a GPU may round their factors to TF32, which is faster.
    #[serde(default)]
    pub tf32: bool,
    /// Which fused kernel may be used for attention over whole sequences. In rows without padding (`ppo.packing`) a GPU
    /// uses FlashAttention with `auto` and `flash`.
    #[serde(default)]
    pub attention: Attention,
    /// Whether what draws a token on a GPU is recorded as a graph of kernels, which is then started as a whole.
    #[serde_inline_default(true)]
    pub graphs: bool,
    /// 10^12 operations per second of the device's products at their best, of which MFU is a share (default: the data
    /// sheet's for an A100, H100 SXM or H200 SXM, otherwise measured after the first step).
    #[schemars(range(min = 0.001, max = 1e6))]
    pub peak_tflops: Option<f64>,
    /// CPU threads per operation (0: one per core).
    #[serde(default)]
    #[schemars(range(max = 4096))]
    pub threads: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// Weights and activations in float32.
    Float32,
    /// Weights and activations in bfloat16; master weights, optimizer, log-probs and losses in float32.
    #[default]
    Bfloat16,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Attention {
    /// The one that libtorch prefers.
    #[default]
    Auto,
    /// FlashAttention where it can do the work, else none.
    Flash,
    /// The memory-efficient kernel of a GPU where it can do the work, else none.
    MemoryEfficient,
    /// The kernel of cuDNN where it can do the work, else none.
    Cudnn,
    /// None: plain products.
    Plain,
}

/// Options that save memory on the device and cost time; they change no result.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Memory {
    /// On a CPU, return the memory of large tensors to the system whenever they are freed.
    #[serde(default)]
    pub return_freed: bool,
    /// Keep only each layer's input during updates, and recompute the layer in the backward pass.
    #[serde(default)]
    pub gradient_checkpointing: bool,
    /// Keep the reference on the host, and copy it to the device only while it scores.
    #[serde(default)]
    pub offload_reference: bool,
    /// Keep the optimizer's moments and float32 master weights on the host, and do its steps there.
    #[serde(default)]
    pub offload_optimizer: bool,
    /// Of several processes, each keeps the float32 sum of its own part of a gradient alone, and they exchange the
    /// gradients of every micro-batch rather than their sum (bfloat16; in float32 there is nothing to save).
    #[serde(default)]
    pub divide_gradients: bool,
}
