//! How much memory a plan needs, part by part: an upper bound computed from shapes; nothing is measured.
//!
//! In the formulas: P parameters, L layers, H hidden size, N query heads, K key-value heads, D head dimension,
//! I intermediate size, V vocabulary, and w bytes per number in the compute precision (bfloat16 2, float32 4).
//!
//! - weights: P w. A critic has P minus the untied head V H, plus H + 1 for its scalar head. A head on the actor's
//!   decoder (`ppo.critic = "shared"`), a few kilobytes, is not counted.
//! - gradients: P w, and in bfloat16 4 P more, since micro-batches add up in float32 (with `memory.divide_gradients`
//!   divided by the processes); only during the model's update.
//! - largest gradient: that of the embedding, V H w, before it is added to the others; twice that if the head is tied.
//! - optimizer: two float32 moments, 8 P, and in bfloat16 4 P master weights (float32 weights are their own master).
//!   `memory.offload_optimizer` moves them to the host, with master weights in float32 too;
//!   `memory.offload_reference` moves the reference, which is then on the device only while it scores. On a CPU, host
//!   and device are the same memory.
//! - KV cache: 2 L K D w for each of rows x (max_prompt_tokens + max_response_tokens). Rows are the sequences decoded
//!   at a time, in rollouts or in an evaluation, whichever has more.
//! - packed weights, on a CPU in bfloat16: P w, the actor's once more while it decodes.
//! - decoding work, whichever is more: one layer of the prefill, (4 H + 3 N D + 4 I) w per prompt token (nothing is
//!   kept for a gradient), and its keys and values, for at most 16,384 tokens at a time; or a decoding step.
//! - decoding step, of each row whichever is more: its logits, V in float32 five times (scores, scaled, log-softmax,
//!   probabilities, their sum); or one layer as in the prefill, with the scores of attention over all slots of the
//!   cache and their softmax, 2 N w per slot.
//! - graphs of kernels, on a GPU with `machine.graphs`: a decoding step once more, since what a graph makes is in
//!   memory of its own. Each graph leaves it to the next, and no other phase gets it.
//! - activations: what autograd keeps of a micro-batch without recomputation. Per token and layer: the inputs and
//!   outputs of the two norms 4 H w; queries, keys and values as the fused attention kernel reads them (keys and values
//!   repeated for all heads) and its output 4 N D w, with its log-sum-exp 4 N; in the MLP the gate, its silu, the up
//!   projection and their product 4 I w; the norms' deviations 8. On a CPU attention over at most 512 tokens uses
//!   products, which keep (2 N D + 2 K D) w and each head's weights N T w instead, and no silu is kept, 3 I w. On top,
//!   once, the last norm's input and output 2 H w.
//!   With `memory.gradient_checkpointing` each layer keeps its input H w, and one layer at a time all of the above.
//! - logits: response tokens of a micro-batch x V, five float32 copies (scores, divided by the temperature, log-softmax
//!   and its exponential, which are kept, and their product, or in the backward pass their gradients), and in
//!   bfloat16 the scores before they become float32; on a CPU the scores alone, w, whose gradient takes their place. If
//!   tokens x V exceeds 2^25, it is done in parts of that size.
//! - hooks beside training, if they are on the run's device: another copy of the weights, the KV cache of the sequences
//!   that a hook decodes at a time, a decoding step of theirs, and graphs; or, if that is more, a local judge's model
//!   with the same of its own, since it is loaded when the policy is gone, but without graphs, since a grammar looks at
//!   every token. A judge is taken to read at most 1,500 tokens of questions and twice the tokens of the prompt and the
//!   response, which its own tokenizer cuts otherwise.
//! - scoring work: one layer's share of a micro-batch, (4 H + 3 N D + 4 I) w per token, and its logits.
//!
//! Of several processes each holds all models, its part of the optimizers' states (P divided by the processes, rounded
//! up to 64) and its share of the sequences: every n-th prompt of a step, every n-th sequence of a mini-batch. Hooks
//! beside training are the first process's. What they exchange passes through a few pieces of at most 64 MiB.
//!
//! On a CPU the program itself is counted, with the gaps that tensors leave in its heap: a share that the program keeps
//! to, by returning free memory between micro-batches (`torch::trim`).
//!
//! A micro-batch is assumed to be full and to hold only response tokens, which is nearly true with short prompts. Not
//! counted: batches of token ids; on a GPU the CUDA context, kernel workspaces, fragmentation, and the keys and values
//! of a prompt that a row without padding repeats for each response, 2 K D w and as much for their gradients.

use super::Plan;
use crate::dist;
use crate::model::{ModelConfig, PRODUCTS_TOKENS, VOCABULARY_PART};
use crate::recipe::{Judge, Precision};
use crate::rollout::PREFILL_TOKENS;
use crate::task::settings;
use crate::torch::{Held, named_device};
use Phase::{ActorUpdate, CriticUpdate, Rollout, Scoring, WarmStart};

/// A phase of a run, with its own memory use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    WarmStart,
    Rollout,
    Scoring,
    ActorUpdate,
    CriticUpdate,
}

impl Phase {
    pub const ALL: [Phase; 5] = [WarmStart, Rollout, Scoring, ActorUpdate, CriticUpdate];

    pub fn name(self) -> &'static str {
        match self {
            WarmStart => "warm start",
            Rollout => "rollout",
            Scoring => "scoring",
            ActorUpdate => "actor update",
            CriticUpdate => "critic update",
        }
    }
}

/// Bytes that are held in some phases. A name occurs twice if its size differs between phases.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    pub name: &'static str,
    pub bytes: u64,
    /// When it is on the device; empty for what stays on the host.
    pub phases: &'static [Phase],
}

/// All of PPO.
const STEP: &[Phase] = &[Rollout, Scoring, ActorUpdate, CriticUpdate];

/// The parts of a plan in each of so many processes; the formulas are at the top of this file.
pub fn estimate(plan: &Plan, processes: usize) -> Vec<Part> {
    let mut parts = tensors(plan, processes);
    if plan.on_cpu() {
        add_program(&mut parts, gaps(plan));
    }
    parts
}

/// The parts that are tensors.
fn tensors(plan: &Plan, processes: usize) -> Vec<Part> {
    // Bytes are counted in f64: exact for any real memory, and no product overflows.
    let (recipe, config) = (&plan.recipe, &plan.config);
    let half = recipe.machine.precision == Precision::Bfloat16;
    let w = if half { 2.0 } else { 4.0 };
    let parameters = config.parameters() as f64;
    let (h, v, i) = (config.hidden_size as f64, config.vocab_size as f64, config.intermediate_size as f64);
    let (n, layers) = (config.num_attention_heads as f64, config.num_hidden_layers as f64);
    let q = n * config.head_dim as f64;
    let kv = (config.num_key_value_heads * config.head_dim) as f64;
    let memory = &recipe.memory;
    let summed = if memory.divide_gradients { 4.0 / processes as f64 } else { 4.0 };
    let gradient = if half { w + summed } else { w };
    // On a CPU there is nothing to offload to.
    let host = !plan.on_cpu();
    let offloaded = memory.offload_optimizer && host;
    // Moments, and master weights, of the first process's part, which is the largest.
    let optimizer = |parameters: f64| {
        let part = dist::Part::of(0, processes, parameters as i64);
        part.len as f64 * if half || offloaded { 12.0 } else { 8.0 }
    };
    let share = |sequences: usize| sequences.div_ceil(processes);
    let longest = plan.max_sequence_tokens() as f64;
    // Our own operations on a CPU keep less than libtorch's.
    let attention = match () {
        () if host || longest > PRODUCTS_TOKENS as f64 => 4.0 * q * w + 4.0 * n,
        () => (2.0 * q + 2.0 * kv) * w + n * longest * w,
    };
    let inner = if host { 4.0 * i } else { 3.0 * i };
    let activations = |tokens: f64| {
        let layer = (4.0 * h + inner) * w + attention + 8.0;
        let kept = if memory.gradient_checkpointing { layers * h * w + layer } else { layers * layer };
        tokens * (kept + 2.0 * h * w)
    };
    let each = match (host, half) {
        (false, _) => w,
        (true, true) => 20.0 + w,
        (true, false) => 20.0,
    };
    let logits = |tokens: f64| (tokens * v).min((VOCABULARY_PART as f64).max(v)) * each;
    let scoring = |tokens: f64| tokens * (4.0 * h + 3.0 * q + 4.0 * i) * w;

    let mut parts = Vec::new();
    let mut part = |name, bytes: f64, phases| parts.push(Part { name, bytes: bytes as u64, phases });
    let always = match (recipe.own_warm_start(), &recipe.ppo) {
        (None, _) => STEP,
        (Some(_), None) => &[WarmStart],
        (Some(_), Some(_)) => &Phase::ALL,
    };
    part("actor weights", parameters * w, always);
    let learning: &[Phase] = match (recipe.own_warm_start(), &recipe.ppo) {
        (None, _) => &[ActorUpdate],
        (Some(_), None) => &[WarmStart],
        (Some(_), Some(_)) => &[WarmStart, ActorUpdate],
    };
    part("actor gradients", parameters * gradient, learning);
    part("largest gradient", v * h * w * if config.tie_word_embeddings { 2.0 } else { 1.0 }, learning);
    part("actor optimizer", optimizer(parameters), if offloaded { &[] } else { always });
    if let Some(sft) = recipe.own_warm_start() {
        let tokens = sft.micro_batch_tokens.min(share(sft.batch) * sft.context) as f64;
        part("activations", activations(tokens), &[WarmStart]);
        part("logits", logits(tokens), &[WarmStart]);
    }
    let Some(ppo) = &recipe.ppo else { return parts };
    if ppo.critic_is_separate() {
        let critic = parameters - if config.tie_word_embeddings { 0.0 } else { v * h } + h + 1.0;
        part("critic weights", critic * w, STEP);
        part("critic gradients", critic * gradient, &[CriticUpdate]);
        part("largest gradient", v * h * w, &[CriticUpdate]);
        part("critic optimizer", optimizer(critic), if offloaded { &[] } else { STEP });
    }
    if ppo.needs_reference() {
        let resting = memory.offload_reference && host;
        part("reference weights", parameters * w, if resting { &[Scoring] } else { STEP });
        if resting {
            part("reference, resting", parameters * w, &[]);
        }
    }

    let (samples, batch) = (recipe.rollout.samples_per_prompt, recipe.rollout.batch);
    let sequences = share(recipe.rollout.prompts_per_step) * samples;
    let problems = share(plan.evaluation_problems());
    let (rows, evaluated) = match batch {
        0 => (sequences, problems),
        _ => (sequences.min(batch / samples * samples), problems.min(batch)),
    };
    let prompts = (rows / samples).max(evaluated) as f64;
    let decoded = Decoded { rows: rows.max(evaluated), tokens: plan.max_sequence_tokens() };
    // Packed for decoding, if the CPU multiplies bfloat16.
    if !host && half {
        part("packed weights", parameters * w, &[Rollout]);
    }
    part("KV cache", cache(config, w, decoded), &[Rollout]);
    let width = recipe.rollout.max_prompt_tokens as f64;
    let prefill = (prompts * width).min((PREFILL_TOKENS as f64).max(width))
        * ((4.0 * h + 3.0 * q + 4.0 * i) + layers * 2.0 * kv)
        * w;
    part("decoding work", prefill.max(decoding_step(config, w, decoded)), &[Rollout]);
    let graphs = |decoded| if host && recipe.machine.graphs { decoding_step(config, w, decoded) } else { 0.0 };
    if graphs(decoded) > 0.0 {
        part("graphs of kernels", graphs(decoded), STEP);
    }

    let policy = hooks(plan).map_or(0.0, |hooks| decoding(plan, config, w, hooks) + graphs(hooks));
    let local = |judge: &Judge| local_judge(plan, judge);
    // The judge of personas is loaded when the policy is gone, that of `distinct` beside it.
    let persona = recipe.hooks.persona.as_ref().map_or(0.0, |hook| local(&hook.judge));
    let distinct = recipe.hooks.distinct.as_ref().map_or(0.0, |hook| policy + local(&hook.judge));
    let beside = policy.max(persona).max(distinct);
    if beside > 0.0 {
        part(HOOKS, beside, STEP);
    }

    let response = recipe.rollout.max_response_tokens;
    let micro = |sequences: usize| ppo.micro_batch_tokens.min(share(sequences) * plan.max_sequence_tokens());
    part("scoring work", scoring(micro(plan.sequences_per_step()) as f64), &[Scoring]);
    part("logits", logits(micro(plan.sequences_per_step()) as f64), &[Scoring]);
    part("activations", activations(micro(ppo.mini_batch) as f64), &[ActorUpdate]);
    part("logits", logits(micro(ppo.mini_batch).min(share(ppo.mini_batch) * response) as f64), &[ActorUpdate]);
    if ppo.critic_is_separate() {
        part("activations", activations(micro(ppo.critic_sequences()) as f64), &[CriticUpdate]);
    }
    parts
}

/// Sequences that are decoded at a time, and their greatest length.
#[derive(Clone, Copy)]
struct Decoded {
    rows: usize,
    tokens: usize,
}

/// Bytes of the KV cache.
fn cache(config: &ModelConfig, w: f64, decoded: Decoded) -> f64 {
    let kv = (config.num_key_value_heads * config.head_dim) as f64;
    decoded.rows as f64 * decoded.tokens as f64 * config.num_hidden_layers as f64 * 2.0 * kv * w
}

/// Bytes that a decoding step makes at once.
fn decoding_step(config: &ModelConfig, w: f64, decoded: Decoded) -> f64 {
    let (h, v, i) = (config.hidden_size as f64, config.vocab_size as f64, config.intermediate_size as f64);
    let n = config.num_attention_heads as f64;
    let layer = 4.0 * h + 3.0 * n * config.head_dim as f64 + 4.0 * i + 2.0 * n * decoded.tokens as f64;
    decoded.rows as f64 * (20.0 * v).max(layer * w)
}

/// Bytes of a model that only decodes: weights, on a CPU in bfloat16 twice, KV cache, a decoding step.
fn decoding(plan: &Plan, config: &ModelConfig, w: f64, decoded: Decoded) -> f64 {
    let copies = if plan.on_cpu() && w < 4.0 { 2.0 } else { 1.0 };
    config.parameters() as f64 * w * copies + cache(config, w, decoded) + decoding_step(config, w, decoded)
}

/// Whether hooks are on the run's device.
fn are_here(plan: &Plan) -> bool {
    let recipe = &plan.recipe;
    named_device(&recipe.hooks_machine().device) == named_device(&recipe.machine.device)
}

/// What the policy decodes in hooks; nothing if there are none, or they are on another device.
fn hooks(plan: &Plan) -> Option<Decoded> {
    let (hooks, rollout) = (&plan.recipe.hooks, &plan.recipe.rollout);
    let together = |all: usize| if hooks.batch == 0 { all } else { all.min(hooks.batch) };
    let persona = hooks.persona.iter().map(|hook| (together(hook.traces), plan.max_sequence_tokens()));
    let transfer = hooks.transfer.iter().map(|hook| {
        let all = if hook.problems == 0 { settings(&hook.task).sizes()[2] } else { hook.problems };
        let prompt = hook.max_prompt_tokens.unwrap_or(rollout.max_prompt_tokens);
        (together(all), prompt + hook.max_response_tokens.unwrap_or(rollout.max_response_tokens))
    });
    let distinct = hooks.distinct.iter().map(|hook| (together(hook.traces), plan.max_sequence_tokens()));
    let all = persona.chain(transfer).chain(distinct).filter(|_| are_here(plan));
    let most = all.reduce(|(rows, tokens), (more, longer)| (rows.max(more), tokens.max(longer)));
    most.map(|(rows, tokens)| Decoded { rows, tokens })
}

/// Tokens of a judge's instructions and of its longest question, with some to spare.
const QUESTIONS: usize = 1500;

/// Bytes of a local judge. A folder that cannot be read is nothing here: whoever loads it will say so.
fn local_judge(plan: &Plan, judge: &Judge) -> f64 {
    let Judge::Local(judge) = judge else { return 0.0 };
    let Ok(config) = ModelConfig::from_dir(&judge.path) else { return 0.0 };
    if !are_here(plan) {
        return 0.0;
    }
    let context = usize::try_from(config.max_position_embeddings).unwrap_or(usize::MAX);
    let tokens = (QUESTIONS + 2 * plan.max_sequence_tokens() + judge.max_tokens).min(context);
    let w = if judge.precision == Precision::Bfloat16 { 2.0 } else { 4.0 };
    decoding(plan, &config, w, Decoded { rows: judge.batch, tokens })
}

/// Bytes that each process of a run on a CPU may hold before it returns free memory: between micro-batches with half
/// of the gaps that the plan counts, the other half being for those that a single micro-batch leaves; and before an
/// update so much that all that it makes still fits.
pub fn held(plan: &Plan, processes: usize) -> Held {
    let mut parts = tensors(plan, processes);
    parts.retain(|part| part.name != HOOKS);
    let most = peak(&parts).1;
    let all = |gaps: f64| PROGRAM + (most as f64 * (1.0 + gaps)) as u64;
    let resting = parts.iter().filter(|part| STEP.iter().all(|phase| part.phases.contains(phase)));
    let made = most - resting.map(|part| part.bytes).sum::<u64>();
    Held { within: all(gaps(plan) / 2.0), before: all(gaps(plan)) - made }
}

/// The gaps between tensors in a CPU's heap, as a share of the tensors.
fn gaps(plan: &Plan) -> f64 {
    if plan.recipe.memory.return_freed { GAPS_RETURNED } else { GAPS }
}

/// On a CPU, the program itself and the gaps that tensors leave in its heap, a share of them.
fn add_program(parts: &mut Vec<Part>, gaps: f64) {
    const EACH: [&[Phase]; 5] = [&[WarmStart], &[Rollout], &[Scoring], &[ActorUpdate], &[CriticUpdate]];
    let sums = EACH.map(|phase| (phase, total(parts, phase[0])));
    for (phases, sum) in sums.into_iter().filter(|(_, sum)| *sum > 0) {
        parts.push(Part { name: PROGRAM_AND_GAPS, bytes: PROGRAM + (sum as f64 * gaps) as u64, phases });
    }
}

/// The part that only a CPU has.
pub const PROGRAM_AND_GAPS: &str = "program and gaps";

/// The part that other processes take.
const HOOKS: &str = "hooks beside training";

/// Bytes of the program with libtorch, on a CPU.
const PROGRAM: u64 = 300 << 20;
/// What the gaps between tensors in the heap may add to them, as a share. Measured on SmolLM2 (see README) it was 0.16
/// to 0.55, and 0.01 to 0.07 with `memory.return_freed`.
const GAPS: f64 = 0.6;
const GAPS_RETURNED: f64 = 0.1;

/// Bytes that stay on the host.
pub fn on_host(parts: &[Part]) -> u64 {
    parts.iter().filter(|part| part.phases.is_empty()).fold(0, |sum: u64, part| sum.saturating_add(part.bytes))
}

/// Bytes held in a phase.
pub fn total(parts: &[Part], phase: Phase) -> u64 {
    parts.iter().filter(|part| part.phases.contains(&phase)).fold(0, |sum: u64, part| sum.saturating_add(part.bytes))
}

/// The phase that needs the most, and its bytes.
pub fn peak(parts: &[Part]) -> (Phase, u64) {
    most(|phase| total(parts, phase))
}

/// The phase in which so many processes on one machine need the most memory of it, if they run on its CPU, and the
/// bytes. Only one of them has hooks.
pub fn peak_on_node(parts: &[Part], processes: usize) -> (Phase, u64) {
    let (hooks, own): (Vec<Part>, Vec<Part>) = parts.iter().cloned().partition(|part| part.name == HOOKS);
    let all = |phase| total(&own, phase).saturating_mul(processes as u64).saturating_add(total(&hooks, phase));
    most(|phase| if total(&own, phase) > 0 { all(phase) } else { 0 })
}

/// The phase of which something is the most.
fn most(of: impl Fn(Phase) -> u64) -> (Phase, u64) {
    let all = Phase::ALL.map(|phase| (phase, of(phase)));
    all.into_iter().max_by_key(|(_, bytes)| *bytes).unwrap_or((Rollout, 0))
}
