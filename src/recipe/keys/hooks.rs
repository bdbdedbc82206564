//! What else is done at checkpoints: hooks that read what the model writes, and judge it.

use super::{Decoding, Precision, Task};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_inline_default::serde_inline_default;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What else is done between steps. The hooks below run in a process of their own beside training, from a checkpoint
/// that is written for them; if one fails, the run goes on.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hooks {
    /// Rollouts shown with their rewards at each evaluation (0: none).
    #[serde_inline_default(4)]
    pub samples: usize,
    /// Device on which hooks load a checkpoint (default: machine.device). On a GPU they share its memory with training.
    pub device: Option<String>,
    /// CPU threads of a hook (0: one per core).
    #[serde_inline_default(1)]
    #[schemars(range(max = 4096))]
    pub threads: usize,
    /// Sequences that a hook decodes at a time (0: all); affects memory and speed, never a response.
    #[serde_inline_default(32)]
    pub batch: usize,
    /// How often a hook that fails is tried in a run.
    #[serde_inline_default(3)]
    #[schemars(range(min = 1, max = 100))]
    pub attempts: usize,
    /// Seconds from a failure to the next try.
    #[serde_inline_default(30.0)]
    #[schemars(range(min = 0.0, max = 86400.0))]
    pub pause: f64,
    /// Seconds after which a try of a hook has failed; commands have their own.
    #[serde_inline_default(7200)]
    #[schemars(range(min = 1))]
    pub timeout: u64,
    pub persona: Option<Persona>,
    pub transfer: Option<Transfer>,
    pub distinct: Option<Distinct>,
    /// Commands of your own, by name: the results of `[hooks.external.NAME]` are shown as `hooks/NAME/*`.
    #[serde(default)]
    pub external: BTreeMap<String, External>,
    /// A toy: count the steps (tests/toy).
    #[cfg(test)]
    #[serde(default)]
    pub count_steps: bool,
}

impl Hooks {
    /// The judges that hooks ask, each with the key that names it.
    pub fn judges(&self) -> impl Iterator<Item = (&'static str, &Judge)> {
        let persona = self.persona.iter().map(|hook| ("hooks.persona.judge", &hook.judge));
        persona.chain(self.distinct.iter().map(|hook| ("hooks.distinct.judge", &hook.judge)))
    }

    /// Whether any hook runs beside training.
    pub fn are_beside(&self) -> bool {
        let ours = self.persona.is_some() || self.transfer.is_some() || self.distinct.is_some();
        ours || !self.external.is_empty()
    }
}

/// Whether personas emerge: a judge reads responses to validation problems.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Persona {
    /// Steps from one judgement to the next (0: only before the first step and after the last).
    #[serde(default)]
    pub every: usize,
    /// Further steps to judge after.
    #[serde(default)]
    pub steps: Vec<usize>,
    /// Responses to judge: to the first so many problems of the validation split, one each, sampled at temperature 1.
    #[serde_inline_default(64)]
    #[schemars(range(min = 1))]
    pub traces: usize,
    /// Share of the traces that may be left without a judgement; if there are more, or all are, the hook has failed.
    #[serde_inline_default(0.5)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_missing: f64,
    /// Who judges (default: the lexical judge).
    #[serde(default)]
    pub judge: Judge,
}

/// Who reads the traces.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Judge {
    /// Rules about words and tags. It needs nothing, and cannot see roles, personality and expertise.
    #[default]
    Lexical,
    /// A model behind an OpenAI-compatible endpoint. Its answers are kept in `hooks/answers` of the run folder.
    Endpoint(EndpointJudge),
    /// A local model, whose replies are held to the JSON that is asked for.
    Local(LocalJudge),
}

/// A model behind an OpenAI-compatible endpoint.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EndpointJudge {
    /// The endpoint's URL, such as https://example.org/v1.
    pub url: String,
    /// The model's name there.
    pub model: String,
    /// The environment variable that holds the key. If the default is not set, no key is sent; any other must be set.
    #[serde_inline_default("OPENAI_API_KEY".into())]
    pub key_env: String,
    /// More keys of each request, as a JSON object; null takes one out. A `response_format` of `"json_schema"` becomes
    /// the schema of each question.
    #[serde_inline_default("{}".into())]
    pub body: String,
    /// Requests at a time.
    #[serde_inline_default(8)]
    #[schemars(range(min = 1, max = 256))]
    pub concurrency: usize,
    /// Longest time for a request in seconds.
    #[serde_inline_default(300.0)]
    #[schemars(range(min = 0.001, max = 86400.0))]
    pub timeout: f64,
    /// How often a request is sent again if it fails in a way that may pass.
    #[serde_inline_default(5)]
    #[schemars(range(max = 100))]
    pub retries: u32,
    /// Seconds before it is sent again, doubled each time up to 60.
    #[serde_inline_default(1.0)]
    #[schemars(range(min = 0.001, max = 86400.0))]
    pub backoff: f64,
    /// Most requests of all hooks at all checkpoints of a run, retries included (default: no limit).
    pub max_requests: Option<u64>,
    /// Tokens of these requests, prompts and replies together, after which nothing is asked; requests under way then,
    /// up to `concurrency`, are finished (default: no limit).
    pub max_tokens: Option<u64>,
    /// A folder of prompts of your own, named as those in src/judge/prompts; what it does not have is ours.
    pub prompts: Option<PathBuf>,
    /// The model of the endpoint's embeddings, for the diversity of expertise (default: none is measured).
    pub embeddings: Option<String>,
}

/// A local model as the judge.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LocalJudge {
    /// A Hugging Face folder.
    pub path: PathBuf,
    /// Precision of its weights and activations.
    #[serde(default)]
    pub precision: Precision,
    /// Longest reply in tokens.
    #[serde_inline_default(1024)]
    #[schemars(range(min = 1))]
    pub max_tokens: usize,
    /// Replies at a time.
    #[serde_inline_default(8)]
    #[schemars(range(min = 1))]
    pub batch: usize,
    /// A folder of prompts of your own, named as those in src/judge/prompts; what it does not have is ours.
    pub prompts: Option<PathBuf>,
    /// Whether its hidden states measure the diversity of expertise.
    #[serde_inline_default(true)]
    pub embeddings: bool,
}

/// Whether the skill transfers: an evaluation on the test split of another task, which the run does not train on.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Steps from one evaluation to the next (0: only before the first step and after the last).
    #[serde(default)]
    pub every: usize,
    /// Further steps to evaluate after.
    #[serde(default)]
    pub steps: Vec<usize>,
    /// Problems: the first so many of the test split (0: all).
    #[serde_inline_default(256)]
    pub problems: usize,
    /// Answer greedily or by sampling at temperature 1.
    #[serde_inline_default(Decoding::Greedy)]
    pub decoding: Decoding,
    /// Longest prompt in tokens (default: rollout.max_prompt_tokens).
    #[schemars(range(min = 1))]
    pub max_prompt_tokens: Option<usize>,
    /// Longest response in tokens (default: rollout.max_response_tokens).
    #[schemars(range(min = 1))]
    pub max_response_tokens: Option<usize>,
    /// The other task.
    pub task: Task,
}

/// Whether personas are distinct inside: the residual stream over what a judge attributes to each voice of a trace,
/// against segments whose voices are permuted.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Distinct {
    /// Steps from one look to the next (0: only before the first step and after the last).
    #[serde(default)]
    pub every: usize,
    /// Further steps to look at.
    #[serde(default)]
    pub steps: Vec<usize>,
    /// Responses to look at: to the first so many problems of the validation split, one each, sampled at temperature 1.
    #[serde_inline_default(64)]
    #[schemars(range(min = 1))]
    pub traces: usize,
    /// The decoder layer, from 0, after which the residual stream is read (default: the one in the middle).
    pub layer: Option<usize>,
    /// Permutations of each test.
    #[serde_inline_default(999)]
    #[schemars(range(min = 19, max = 100000))]
    pub permutations: usize,
    /// Who says which part is whose (default: the lexical judge, which reads tags).
    #[serde(default)]
    pub judge: Judge,
}

/// A command of your own. It gets the checkpoint's folder as its last argument (and in `PPO_TRAIN_CHECKPOINT`, with
/// `PPO_TRAIN_MODEL`, `PPO_TRAIN_RUN` and `PPO_TRAIN_STEP`), and prints a JSON object of numbers.
#[serde_inline_default]
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// The program and its arguments; started without a shell, in the folder that training was started in.
    pub command: Vec<String>,
    /// Steps from one call to the next (0: only before the first step and after the last).
    #[serde(default)]
    pub every: usize,
    /// Further steps to call it after.
    #[serde(default)]
    pub steps: Vec<usize>,
    /// Seconds after which it has failed.
    #[serde_inline_default(3600)]
    #[schemars(range(min = 1))]
    pub timeout: u64,
}
