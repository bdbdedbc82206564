//! The decoder of Qwen2, Qwen3 and Llama: mlp -> layer -> decoder; attention has its own file.
//!
//! Every pass runs the same loop over the layers. Passes differ in the positions of their tokens, in what these attend
//! to (`Attend`), and in what is done to the residual stream between layers (`Tap`).
//!
//! Shapes: B batch, T time, H hidden, I intermediate.

use super::attention::{Attend, Attention, Branches, Causal};
use super::config::ModelConfig;
use super::nn::{Linear, RmsNorm};
use super::rope::{Rope, Rotation};
use super::tap::Tap;
use super::weights::{Scope, Weights};
use crate::torch::{Branch, Flash, is_fused, recompute, swiglu};
use tch::{Kind, Tensor};

/// Sequences as a pass reads them.
pub struct Tokens {
    /// [B, T], each row a sequence that is padded on the right; or [1, T], a row of branches.
    pub ids: Tensor,
    /// Those of the row, none if sequences are padded.
    pub branches: Vec<Branch>,
    /// Which of the B * T positions are read, [n]; those of a prefix perhaps several times.
    pub read: Tensor,
}

impl Tokens {
    /// Padded sequences.
    pub fn padded(ids: Tensor, read: Tensor) -> Self {
        Self { ids, branches: vec![], read }
    }
}

/// SwiGLU (arXiv:2002.05202).
struct Mlp {
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
}

impl Mlp {
    fn new(at: Scope) -> Self {
        Self {
            gate_proj: Linear::new(at.pp("gate_proj")),
            up_proj: Linear::new(at.pp("up_proj")),
            down_proj: Linear::new(at.pp("down_proj")),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let (gate, up) = (self.gate_proj.forward(x), self.up_proj.forward(x)); // [B, T, I]
        let inner = if is_fused(x) { swiglu(&gate, &up) } else { gate.silu() * up };
        self.down_proj.forward(&inner) // [B, T, H]
    }

    /// A shallow copy with each map as `of` makes it.
    fn with(&self, of: fn(&Linear) -> Linear) -> Self {
        Self { gate_proj: of(&self.gate_proj), up_proj: of(&self.up_proj), down_proj: of(&self.down_proj) }
    }
}

struct Layer {
    input_layernorm: RmsNorm,
    self_attn: Attention,
    post_attention_layernorm: RmsNorm,
    mlp: Mlp,
}

impl Layer {
    fn new(config: &ModelConfig, layer: usize, at: Scope) -> Self {
        Self {
            input_layernorm: RmsNorm::new(config, at.pp("input_layernorm")),
            self_attn: Attention::new(config, layer, at.pp("self_attn")),
            post_attention_layernorm: RmsNorm::new(config, at.pp("post_attention_layernorm")),
            mlp: Mlp::new(at.pp("mlp")),
        }
    }

    fn forward(&self, x: &Tensor, rotation: &Rotation, attend: &dyn Attend) -> Tensor {
        let mixed = self.self_attn.forward(&self.input_layernorm.forward(x), rotation, attend);
        let (x, normed) = self.post_attention_layernorm.after(x, &mixed);
        x + self.mlp.forward(&normed)
    }

    /// `forward`, of which only `x` is kept for the backward pass. That may run in another thread, so it owns a shallow
    /// copy of the layer.
    fn recomputed(&self, x: &Tensor, rotation: &Rotation, attend: Box<dyn Attend + Send>) -> Tensor {
        let (layer, rotation) = (self.with(Linear::shallow_clone), rotation.shallow_clone());
        recompute(x, move |x| layer.forward(x, &rotation, &*attend))
    }

    /// A shallow copy with each map as `of` makes it.
    fn with(&self, of: fn(&Linear) -> Linear) -> Self {
        Self {
            input_layernorm: self.input_layernorm.shallow_clone(),
            self_attn: self.self_attn.with(of),
            post_attention_layernorm: self.post_attention_layernorm.shallow_clone(),
            mlp: self.mlp.with(of),
        }
    }
}

/// The decoder without its head.
pub struct Decoder {
    embed_tokens: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    rope: Rope,
    head_dim: i64,
    /// Keep only each layer's input for the backward pass, which computes the layer again.
    pub gradient_checkpointing: bool,
}

impl Decoder {
    /// The decoder over `weights`, which it shares.
    ///
    /// # Panics
    /// If `weights` are of another architecture than `config`: a bug of ours.
    pub fn new(config: &ModelConfig, weights: &Weights) -> Self {
        let at = weights.pp("model");
        let layers = 0..config.num_hidden_layers as usize;
        Self {
            embed_tokens: at.pp("embed_tokens").get("weight"),
            layers: layers.map(|i| Layer::new(config, i, at.pp("layers").pp(i))).collect(),
            norm: RmsNorm::new(config, at.pp("norm")),
            rope: Rope::new(config, weights.flat().device()),
            head_dim: config.head_dim,
            gradient_checkpointing: false,
        }
    }

    /// The decoder for decoding, its weights packed as they are now.
    pub fn packed(&self) -> Self {
        Self {
            embed_tokens: self.embed_tokens.shallow_clone(),
            layers: self.layers.iter().map(|layer| layer.with(Linear::packed)).collect(),
            norm: self.norm.shallow_clone(),
            rope: self.rope.shallow_clone(),
            head_dim: self.head_dim,
            gradient_checkpointing: false,
        }
    }

    /// Whether sequences in one row are the faster way on a GPU: where one call attends for all of them.
    pub fn prefers_rows(&self) -> bool {
        Flash::takes(&self.embed_tokens, self.head_dim)
    }

    /// Hidden states after the last norm, [B, T, H], of whole sequences: token ids [B, T], padded on the right.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        self.forward_tapped(ids, &mut ())
    }

    /// `forward` with a tap.
    pub fn forward_tapped(&self, ids: &Tensor, tap: &mut dyn Tap) -> Tensor {
        let x = self.embed(ids);
        // One choice of kernel for all layers, and the same when a layer is computed again.
        let causal = Causal::new(&x);
        self.run(x, &from_zero(ids), &causal, tap)
    }

    /// The residual stream [B, T, H] after `layer` (from 0, and of this model) of whole sequences: token ids [B, T],
    /// padded on the right. The layers above it are not run.
    pub fn residual(&self, ids: &Tensor, layer: usize) -> Tensor {
        let x = self.embed(ids);
        let causal = Causal::new(&x);
        self.through(&self.layers[..=layer], x, &from_zero(ids), &causal, &mut ())
    }

    /// `forward` for a row [1, T] that consists of these branches.
    pub fn forward_branches(&self, ids: &Tensor, all: &[Branch]) -> Tensor {
        let x = self.embed(ids);
        let branches = Branches::new(&x, all, self.head_dim);
        self.run(x, &Branches::positions(all, ids.device()), &branches, &mut ())
    }

    /// `forward` at the positions that are read, [n, H].
    pub fn forward_at(&self, tokens: &Tokens) -> Tensor {
        let hidden = match tokens.branches.as_slice() {
            [] => self.forward(&tokens.ids),
            branches => self.forward_branches(&tokens.ids, branches),
        };
        hidden.flatten(0, 1).index_select(0, &tokens.read)
    }

    /// `forward` for prompts, [B, T, H]: `cache` attends causally and keeps their keys and values for `step`.
    pub fn prefill(&self, ids: &Tensor, cache: &dyn Attend, tap: &mut dyn Tap) -> Tensor {
        self.run(self.embed(ids), &from_zero(ids), cache, tap)
    }

    /// Hidden states after the last norm, [B, H], of one more token per row: ids [B] at `positions` [B].
    pub fn step(&self, ids: &Tensor, positions: &Tensor, cache: &dyn Attend, tap: &mut dyn Tap) -> Tensor {
        let x = self.embed(&ids.unsqueeze(1)); // [B, 1, H]
        self.run(x, &positions.unsqueeze(1), cache, tap).squeeze_dim(1)
    }

    /// [B, T, H] for token ids [B, T].
    fn embed(&self, ids: &Tensor) -> Tensor {
        Tensor::embedding(&self.embed_tokens, ids, -1, false, false)
    }

    /// The layers and the last norm over embeddings `x` [B, T, H] of tokens at `positions` [B, T] or [1, T].
    fn run(&self, x: Tensor, positions: &Tensor, attend: &dyn Attend, tap: &mut dyn Tap) -> Tensor {
        self.norm.forward(&self.through(&self.layers, x, positions, attend, tap))
    }

    /// The first `layers` over `x`, without the last norm.
    fn through(
        &self,
        layers: &[Layer],
        mut x: Tensor,
        positions: &Tensor,
        attend: &dyn Attend,
        tap: &mut dyn Tap,
    ) -> Tensor {
        let rotation = self.rope.rotation(positions, x.kind());
        for (i, layer) in layers.iter().enumerate() {
            x = match self.gradient_checkpointing.then(|| attend.for_recompute()).flatten() {
                Some(copy) => layer.recomputed(&x, &rotation, copy),
                None => layer.forward(&x, &rotation, attend),
            };
            x = tap.after_layer(i, x);
        }
        x
    }
}

/// The positions [1, T] of sequences read from their start, for ids [B, T].
fn from_zero(ids: &Tensor) -> Tensor {
    Tensor::arange(ids.size()[1], (Kind::Int64, ids.device())).unsqueeze(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Head, Steer};
    use crate::torch::{on_device, test_device, to_host};

    /// A prompt of 3 tokens with two responses, and sequences of 3 and 1 tokens, in a row: the states and gradients of
    /// each are those it has alone.
    #[test]
    fn sequences_in_a_row_do_not_see_each_other() {
        let (config, mut weights) = tiny();
        weights.require_grad();
        let (prompt, responses) = (vec![3i64, 1, 4], [vec![1i64, 5], vec![7]]);
        let others = [vec![9i64, 2, 6], vec![5]];
        let row =
            on_device(&[&prompt[..], &responses[0], &responses[1], &others[0], &others[1]].concat(), test_device());
        let row = row.unsqueeze(0);
        let branch = |prefix, own| Branch { prefix, own };
        let branches =
            [branch(0..0, 0..3), branch(0..3, 3..5), branch(0..3, 5..6), branch(0..0, 6..9), branch(0..0, 9..10)];
        let alone = |decoder: &Decoder| {
            let of = |ids: &[i64]| decoder.forward(&on_device(ids, test_device()).unsqueeze(0));
            let whole = responses
                .iter()
                .map(|response| of(&[&prompt[..], response].concat()).narrow(1, 3, response.len() as i64));
            let all: Vec<_> = [of(&prompt)].into_iter().chain(whole).chain(others.iter().map(|ids| of(ids))).collect();
            Tensor::cat(&all, 1)
        };
        for gradient_checkpointing in [false, true] {
            let mut decoder = Decoder::new(&config, &weights);
            decoder.gradient_checkpointing = gradient_checkpointing;
            let outcome = |states: Tensor| {
                let gradient = weights.open_gradient().unwrap();
                // A different weight for each number, so that no mistake cancels out.
                let scale = Tensor::arange(states.numel() as i64, (Kind::Float, test_device())).view_as(&states).sin();
                (&states * scale).sum(Kind::Float).backward();
                weights.close_gradient().unwrap();
                (to_host(&states.detach()), to_host(&gradient))
            };
            let (states, gradient) = outcome(alone(&decoder));
            let (row_states, row_gradient) = outcome(decoder.forward_branches(&row, &branches));
            let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(distance(&states, &row_states) < 5e-6, "{}", distance(&states, &row_states));
            let largest = gradient.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            assert!(largest > 1.0 && distance(&gradient, &row_gradient) < 5e-6 * largest, "{largest}");
            // Another prompt changes nothing in the sequences that do not begin with it, to the last bit.
            let other = on_device(&[7i64, 7, 7, 7, 7, 7, 9, 2, 6, 5], test_device()).unsqueeze(0);
            let rest = |ids: &Tensor| to_host(&decoder.forward_branches(ids, &branches).detach().narrow(1, 6, 4));
            assert_eq!(rest(&row), rest(&other));
        }
    }

    fn tiny() -> (ModelConfig, Weights) {
        let config = ModelConfig::from_json(
            r#"{"architectures": ["Qwen3ForCausalLM"], "vocab_size": 16, "hidden_size": 8, "intermediate_size": 12,
                "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4,
                "rms_norm_eps": 1e-6, "rope_theta": 1e4, "max_position_embeddings": 32, "initializer_range": 0.5}"#,
        )
        .unwrap();
        let weights = Weights::random(&config, Head::Language, Kind::Float, test_device(), 5).unwrap();
        (config, weights)
    }

    fn ids() -> Tensor {
        on_device(&[3i64, 1, 4, 1, 5, 9, 2, 6, 5, 3], test_device()).view([2, 5])
    }

    /// Keeps the residual stream after every layer.
    #[derive(Default)]
    struct Record(Vec<Tensor>);

    impl Tap for Record {
        fn after_layer(&mut self, layer: usize, x: Tensor) -> Tensor {
            assert_eq!(layer, self.0.len());
            self.0.push(x.shallow_clone());
            x
        }
    }

    /// Adds a vector [H] to all tokens after one layer.
    fn steer(layer: usize, vector: &Tensor) -> Steer {
        Steer { layer, added: vector.view([1, 1, 8]), from: 0 }
    }

    #[test]
    fn a_tap_sees_and_replaces_the_residual_stream() {
        let (config, weights) = tiny();
        let decoder = Decoder::new(&config, &weights);
        let mut record = Record::default();
        let hidden = decoder.forward_tapped(&ids(), &mut record);
        let [first, middle, last] = record.0.as_slice() else { panic!("one record per layer") };
        assert_eq!(first.size(), [2, 5, 8]);
        assert_eq!(hidden, decoder.forward(&ids()));
        assert_eq!(hidden, decoder.norm.forward(last));
        record.0.iter().enumerate().for_each(|(layer, x)| assert_eq!(*x, decoder.residual(&ids(), layer)));

        // After the last layer only the norm sees the vector; after another one, so do the layers that follow.
        let vector = Tensor::arange(8, (Kind::Float, test_device())) * 0.25 - 1.0;
        let steered = |layer| decoder.forward_tapped(&ids(), &mut steer(layer, &vector));
        assert_eq!(steered(2), decoder.norm.forward(&(last + &vector)));
        let rotation = decoder.rope.rotation(&from_zero(&ids()), Kind::Float);
        let last = decoder.layers[2].forward(&(middle + &vector), &rotation, &Causal::new(middle));
        assert_eq!(steered(1), decoder.norm.forward(&last));
    }

    /// To the last bit, with a tap between the layers too.
    #[test]
    fn recomputed_layers_have_the_same_gradients() {
        let (config, start) = tiny();
        let gradient = |checkpointing: bool, tap: &mut dyn Tap| {
            let mut weights = start.copy_to(test_device());
            weights.require_grad();
            let mut decoder = Decoder::new(&config, &weights);
            decoder.gradient_checkpointing = checkpointing;
            let gradient = weights.open_gradient().unwrap();
            decoder.forward_tapped(&ids(), tap).sin().sum(Kind::Float).backward();
            to_host(&gradient)
        };
        let steer = || steer(1, &on_device(&[0.5f32; 8], test_device()));
        assert!(gradient(true, &mut ()) == gradient(false, &mut ()));
        assert!(gradient(true, &mut steer()) == gradient(false, &mut steer()));
        assert!(gradient(true, &mut steer()) != gradient(true, &mut ()));
    }
}
