//! The rows that are decoded together: their places in the cache, and the random numbers they will draw. A row whose
//! response has ended goes on until another response takes its place or it is dropped.

use super::cache::KvCache;
use super::steering::Steering;
use crate::model::{Policy, Steer};
use crate::torch::{on_device, padded, trim};
use rand::RngExt;
use rand::rngs::ChaCha8Rng;
use std::iter::repeat_n;
use std::ops::Range;
use tch::Tensor;

/// Prompt tokens, padding included, per prefill: bounds its working memory.
pub const PREFILL_TOKENS: usize = 16_384;

/// What is to be generated.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub policy: &'a Policy,
    /// None of them empty.
    pub prompts: &'a [&'a [i64]],
    /// Responses to each of them; they are numbered prompt by prompt.
    pub samples: usize,
    /// Longest response in tokens.
    pub max_tokens: usize,
    /// The random stream of a response.
    pub stream: &'a dyn Fn(usize) -> ChaCha8Rng,
    pub steering: Option<&'a Steering>,
    /// Asked between prefills.
    pub goes_on: &'a dyn Fn() -> bool,
}

/// The rows being decoded.
pub struct Batch<'a> {
    request: Request<'a>,
    /// Which response each row extends.
    pub rows: Vec<usize>,
    /// The hidden states that predict each row's next token, [B, H].
    pub hidden: Tensor,
    places: Places,
    /// One random number in [0, 1) for each token of a row's response, [B, max].
    uniforms: Tensor,
    cache: KvCache,
    /// What is added to each row.
    steer: Option<Steer>,
    /// The farthest that each row may have come, and its last place, as the host knows them.
    reached: Vec<(i64, i64)>,
}

/// Places in the rows' sequences, [B] each.
struct Places {
    next: Tensor,
    /// Those of the first token of the response and of the last there can be.
    first: Tensor,
    last: Tensor,
}

/// Rows whose prompts have been read.
struct Begun {
    hidden: Tensor,
    places: Places,
    uniforms: Tensor,
    steer: Option<Steer>,
    reached: Vec<(i64, i64)>,
}

impl<'a> Batch<'a> {
    /// Reads the first prompts; returns the rows of their responses, or nothing if it shall not go on.
    pub fn start(request: Request<'a>, prompts: usize) -> Option<Self> {
        let longest = request.prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let rows: Vec<usize> = (0..prompts * request.samples).collect();
        let cache = KvCache::new(request.policy, rows.len() as i64, (longest + request.max_tokens) as i64);
        let Begun { hidden, places, uniforms, steer, reached } = request.begin(0..prompts, &cache, &rows)?;
        Some(Self { request, rows, hidden, places, uniforms, cache, steer, reached })
    }

    /// Reads further prompts, whose responses take the place of the rows of these indices. Where these tensors are,
    /// those of the rows stay. Returns whether it went on to the end.
    pub fn replace(&mut self, rows: &[usize], prompts: Range<usize>) -> bool {
        let first = prompts.start * self.request.samples;
        let Some(begun) = self.request.begin(prompts, &self.cache, rows) else { return false };
        let index = on_device(&rows.iter().map(|&row| row as i64).collect::<Vec<_>>(), self.hidden.device());
        let put = |all: &mut Tensor, new: &Tensor| drop(all.index_copy_(0, &index, new));
        put(&mut self.hidden, &begun.hidden);
        put(&mut self.places.next, &begun.places.next);
        put(&mut self.places.first, &begun.places.first);
        put(&mut self.places.last, &begun.places.last);
        put(&mut self.uniforms, &begun.uniforms);
        if let (Some(all), Some(new)) = (&mut self.steer, &begun.steer) {
            put(&mut all.added, &new.added);
        }
        for (i, (&row, reached)) in rows.iter().zip(begun.reached).enumerate() {
            (self.rows[row], self.reached[row]) = (first + i, reached);
        }
        trim();
        true
    }

    /// The random numbers of the rows' next tokens, [B].
    pub fn uniforms(&self) -> Tensor {
        let drawn = &self.places.next - &self.places.first;
        self.uniforms.gather(1, &drawn.unsqueeze(1), false).squeeze_dim(1)
    }

    /// Slots of the cache that the rows' next tokens need, and slots in all.
    pub fn slots(&self) -> (i64, i64) {
        let reached = self.reached.iter().map(|(next, _)| next + 1).max().unwrap_or(0);
        (reached, self.cache.slots())
    }

    /// Reads one token per row, [B], where the cache has as many slots as are needed among its first `extent`. What
    /// this changes are tensors of the device; the host counts by `count`.
    pub fn read(&mut self, policy: &Policy, tokens: &Tensor, extent: i64) {
        let Places { next, last, .. } = &mut self.places;
        self.cache.open(next, extent);
        self.hidden.copy_(&policy.decoder.step(tokens, next, &self.cache, &mut self.steer));
        // A row that has come to its end goes on there.
        *next += 1;
        let _ = next.clamp_max_tensor_(last);
    }

    /// Counts a token per row that has been read.
    pub fn count(&mut self) {
        self.reached.iter_mut().for_each(|(next, last)| *next = (*next + 1).min(*last));
    }

    /// Drops all rows except those of the indices `live`, which are on the device too, [B'].
    pub fn keep(&mut self, live: &[i64], index: &Tensor) {
        let pick = |x: &Tensor| x.index_select(0, index);
        self.rows = live.iter().map(|&i| self.rows[i as usize]).collect();
        self.reached = live.iter().map(|&i| self.reached[i as usize]).collect();
        let Places { next, first, last } = &self.places;
        self.places = Places { next: pick(next), first: pick(first), last: pick(last) };
        (self.hidden, self.uniforms) = (pick(&self.hidden), pick(&self.uniforms));
        self.cache.keep(index);
        self.steer = self.steer.as_ref().map(|steer| steer.pick(index));
        trim();
    }
}

impl Request<'_> {
    /// Reads prompts into these rows of a cache, which are those of their responses; nothing if it shall not go on.
    fn begin(&self, prompts: Range<usize>, cache: &KvCache, rows: &[usize]) -> Option<Begun> {
        let (policy, samples, max) = (self.policy, self.samples, self.max_tokens);
        let device = policy.device();
        let numbers = prompts.start * samples..prompts.end * samples;
        let steer = self.steering.map(|steering| steering.rows(numbers.clone(), policy));
        let steered_from = self.steering.and_then(Steering::prompt_from);
        // Responses share what their prompt's tokens became, unless these are steered: each then has its own.
        let (copies, samples) = if steered_from.is_some() { (samples, 1) } else { (1, samples) };
        let prompts: Vec<&[i64]> = self.prompts[prompts].iter().flat_map(|prompt| repeat_n(*prompt, copies)).collect();
        let places = on_device(&rows.iter().map(|&row| row as i64).collect::<Vec<_>>(), device);
        let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0).max(1);
        let together = (PREFILL_TOKENS / longest).max(1);
        let parts: Option<Vec<Tensor>> = prompts
            .chunks(together)
            .enumerate()
            .map(|(i, prompts)| {
                if i > 0 && !(self.goes_on)() {
                    return None;
                }
                let (first, count) = ((i * together) as i64, prompts.len() as i64);
                let steer = steer.as_ref().zip(steered_from);
                let mut steer = steer.map(|(steer, from)| steer.part(first, count, from as i64));
                let per_prompt = samples as i64;
                let prefill = cache.prefill(&places.narrow(0, first * per_prompt, count * per_prompt));
                let hidden = policy.decoder.prefill(&padded(prompts, device), &prefill, &mut steer); // [b, t, H]
                let width = hidden.size()[1];
                let last: Vec<i64> =
                    prompts.iter().zip(0..).map(|(prompt, row)| row * width + prompt.len() as i64 - 1).collect();
                Some(hidden.flatten(0, 1).index_select(0, &on_device(&last, device))) // [b, H]
            })
            .collect();
        let hidden = Tensor::cat(&parts?, 0).repeat_interleave_self_int(samples as i64, 0, None); // [B, H]

        let lengths = prompts.iter().flat_map(|prompt| repeat_n(prompt.len() as i64, samples));
        let reached: Vec<(i64, i64)> = lengths.map(|length| (length, length + max as i64 - 1)).collect();
        let (first, last): (Vec<i64>, Vec<i64>) = reached.iter().copied().unzip();
        let first = on_device(&first, device);
        let places = Places { next: first.copy(), first, last: on_device(&last, device) };
        let mut uniforms = Vec::with_capacity(rows.len() * max);
        for number in numbers {
            let mut rng = (self.stream)(number);
            uniforms.extend((0..max).map(|_| rng.random::<f32>()));
        }
        let uniforms = on_device(&uniforms, device).view([rows.len() as i64, max as i64]);
        Some(Begun { hidden, places, uniforms, steer, reached })
    }
}
