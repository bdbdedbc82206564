//! The decoder of Qwen2, Qwen3 and Llama: mlp -> layer -> decoder; attention has its own file.
//!
//! Every pass runs the same loop over the layers. Passes differ in the positions of their tokens, in what these attend
//! to (`Attend`), and in what is done to the residual stream between layers (`Tap`).
//!
//! Shapes: B batch, T time, H hidden, I intermediate.

use super::attention::{Attend, Attention, Causal, Packed};
use super::config::ModelConfig;
use super::nn::{Linear, RmsNorm};
use super::rope::{Rope, Rotation};
use super::weights::{Scope, Weights};
use crate::torch::recompute;
use tch::{Kind, Tensor};

/// Access to the residual stream: steering vectors, sparse autoencoders, probes.
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
        let inner = self.gate_proj.forward(x).silu() * self.up_proj.forward(x); // [B, T, I]
        self.down_proj.forward(&inner) // [B, T, H]
    }

    fn shallow_clone(&self) -> Self {
        Self {
            gate_proj: self.gate_proj.shallow_clone(),
            up_proj: self.up_proj.shallow_clone(),
            down_proj: self.down_proj.shallow_clone(),
        }
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
        let x = x + self.self_attn.forward(&self.input_layernorm.forward(x), rotation, attend);
        &x + self.mlp.forward(&self.post_attention_layernorm.forward(&x))
    }

    /// `forward`, of which only `x` is kept for the backward pass. That may run in another thread, so it owns a shallow
    /// copy of the layer.
    fn recomputed(&self, x: &Tensor, rotation: &Rotation, attend: Box<dyn Attend + Send>) -> Tensor {
        let (layer, rotation) = (self.shallow_clone(), rotation.shallow_clone());
        recompute(x, move |x| layer.forward(x, &rotation, &*attend))
    }

    fn shallow_clone(&self) -> Self {
        Self {
            input_layernorm: self.input_layernorm.shallow_clone(),
            self_attn: self.self_attn.shallow_clone(),
            post_attention_layernorm: self.post_attention_layernorm.shallow_clone(),
            mlp: self.mlp.shallow_clone(),
        }
    }
}

/// The decoder without its head.
pub struct Decoder {
    embed_tokens: Tensor,
    layers: Vec<Layer>,
    norm: RmsNorm,
    rope: Rope,
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
            gradient_checkpointing: false,
        }
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

    /// `forward` for a row [1, T] of sequences of these lengths, one after another: each as if it were alone.
    pub fn forward_packed(&self, ids: &Tensor, lengths: &[i64]) -> Tensor {
        let x = self.embed(ids);
        let packed = Packed::new(&x, lengths);
        self.run(x, &Packed::positions(lengths, ids.device()), &packed, &mut ())
    }

    /// `forward` at the positions `read` [N] among the B*T: [N, H].
    pub fn forward_at(&self, ids: &Tensor, read: &Tensor) -> Tensor {
        self.forward(ids).flatten(0, 1).index_select(0, read)
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
    fn run(&self, mut x: Tensor, positions: &Tensor, attend: &dyn Attend, tap: &mut dyn Tap) -> Tensor {
        let rotation = self.rope.rotation(positions, x.kind());
        for (i, layer) in self.layers.iter().enumerate() {
            x = match self.gradient_checkpointing.then(|| attend.for_recompute()).flatten() {
                Some(copy) => layer.recomputed(&x, &rotation, copy),
                None => layer.forward(&x, &rotation, attend),
            };
            x = tap.after_layer(i, x);
        }
        self.norm.forward(&x)
    }
}

/// The positions [1, T] of sequences read from their start, for ids [B, T].
fn from_zero(ids: &Tensor) -> Tensor {
    Tensor::arange(ids.size()[1], (Kind::Int64, ids.device())).unsqueeze(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Head;
    use crate::torch::{on_device, test_device, to_host};

    /// Sequences of 5, 3 and 1 tokens in a row: the states and gradients of each are those it has alone.
    #[test]
    fn packed_sequences_do_not_see_each_other() {
        let (config, mut weights) = tiny();
        weights.require_grad();
        let sequences = [vec![3i64, 1, 4, 1, 5], vec![9, 2, 6], vec![5]];
        let lengths: Vec<i64> = sequences.iter().map(|ids| ids.len() as i64).collect();
        let row = on_device(&sequences.concat(), test_device()).unsqueeze(0);
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
            let alone = sequences.iter().map(|ids| decoder.forward(&on_device(ids, test_device()).unsqueeze(0)));
            let (states, gradient) = outcome(Tensor::cat(&alone.collect::<Vec<_>>(), 1));
            let (packed_states, packed_gradient) = outcome(decoder.forward_packed(&row, &lengths));
            let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(distance(&states, &packed_states) < 1e-6, "{}", distance(&states, &packed_states));
            let largest = gradient.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
            assert!(largest > 1.0 && distance(&gradient, &packed_gradient) < 1e-6 * largest, "{largest}");
            // Another first sequence changes nothing in the others, to the last bit.
            let other = on_device(&[7i64, 7, 7, 7, 7, 9, 2, 6, 5], test_device()).unsqueeze(0);
            let rest = |ids: &Tensor| to_host(&decoder.forward_packed(ids, &lengths).detach().narrow(1, 5, 4));
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

    /// Adds a vector [H] after one layer.
    struct Steer {
        layer: usize,
        vector: Tensor,
    }

    impl Tap for Steer {
        fn after_layer(&mut self, layer: usize, x: Tensor) -> Tensor {
            if layer == self.layer { x + &self.vector } else { x }
        }
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

        // After the last layer only the norm sees the vector; after another one, so do the layers that follow.
        let vector = Tensor::arange(8, (Kind::Float, test_device())) * 0.25 - 1.0;
        let steered = |layer| decoder.forward_tapped(&ids(), &mut Steer { layer, vector: vector.shallow_clone() });
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
        let steer = || Steer { layer: 1, vector: on_device(&[0.5f32; 8], test_device()) };
        assert!(gradient(true, &mut ()) == gradient(false, &mut ()));
        assert!(gradient(true, &mut steer()) == gradient(false, &mut steer()));
        assert!(gradient(true, &mut steer()) != gradient(true, &mut ()));
    }
}
