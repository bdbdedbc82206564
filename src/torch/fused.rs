//! Operations of a layer that `cpu/` does in one pass over memory each, with their backward passes: for float32 and
//! bfloat16 on a CPU. Everything is computed in float32 and rounded once, whatever the kind.
//!
//! Shapes: B batch, T time, H hidden, N query heads, K key-value heads, D head dimension, V vocabulary.

use super::{Fault, checked};
use std::ffi::c_char;
use std::ops::Range;
use std::panic::resume_unwind;
use std::ptr::null_mut;
use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

type Raw = *mut C_tensor;

unsafe extern "C" {
    fn ppo_norm(x: Raw, add: Raw, weight: Raw, eps: f64, y: *mut Raw, sum: *mut Raw) -> *mut c_char;
    fn ppo_swiglu(gate: Raw, up: Raw, y: *mut Raw) -> *mut c_char;
    fn ppo_split(x: Raw, heads: i64, cos: Raw, sin: Raw, scale: f64, y: *mut Raw) -> *mut c_char;
    fn ppo_attend(q: Raw, k: Raw, v: Raw, branches: *const [i64; 4], count: i64, y: *mut Raw) -> *mut c_char;
    fn ppo_vocabulary(
        hidden: Raw,
        head: Raw,
        targets: Raw,
        scale: f64,
        log_prob: *mut Raw,
        entropy: *mut Raw,
    ) -> *mut c_char;
    fn ppo_sample(
        logits: Raw,
        limit: i64,
        scale: f64,
        uniform: Raw,
        token: *mut Raw,
        log_prob: *mut Raw,
    ) -> *mut c_char;
    fn ppo_attend_one(
        q: Raw,
        k: Raw,
        v: Raw,
        cos: Raw,
        sin: Raw,
        keys: Raw,
        values: Raw,
        place: Raw,
        slot: Raw,
        y: *mut Raw,
    ) -> *mut c_char;
}

/// Whether the operations of this module can take `x`.
pub fn is_fused(x: &Tensor) -> bool {
    fuses(x.device(), x.kind())
}

/// Whether they can take tensors of a kind on a device.
pub fn fuses(device: Device, kind: Kind) -> bool {
    device == Device::Cpu && matches!(kind, Kind::Float | Kind::BFloat16)
}

/// The pointer that the shim reads, which it does not keep.
pub(super) fn raw(x: &Tensor) -> Raw {
    x.as_ptr().cast_mut()
}

/// What `call` fills in.
///
/// # Panics
/// If it fails, like libtorch's own functions in `tch`.
pub(super) fn made<const COUNT: usize>(call: impl FnOnce([*mut Raw; COUNT]) -> *mut c_char) -> [Tensor; COUNT] {
    let mut out: [Raw; COUNT] = [null_mut(); COUNT];
    let base = out.as_mut_ptr();
    // SAFETY: each index is within `out`.
    let places = std::array::from_fn(|i| unsafe { base.add(i) });
    checked(call(places)).unwrap_or_else(|fault: Fault| resume_unwind(Box::new(fault)));
    // SAFETY: the shim has filled all places with new tensors, which are ours.
    out.map(|tensor| unsafe { Tensor::from_ptr(tensor) })
}

/// `x` [.., H] divided by its root mean square, times `weight` [H] (arXiv:1910.07467).
pub fn norm(x: &Tensor, weight: &Tensor, eps: f64) -> Tensor {
    // SAFETY: in all functions here, pointers are to tensors that live during the call, or null where that is allowed.
    let [y] = made(|[y]| unsafe { ppo_norm(raw(x), null_mut(), raw(weight), eps, y, null_mut()) });
    y
}

/// `x + add` [.., H], and the same as `norm` returns it.
pub fn add_norm(x: &Tensor, add: &Tensor, weight: &Tensor, eps: f64) -> (Tensor, Tensor) {
    let [y, sum] = made(|[y, sum]| unsafe { ppo_norm(raw(x), raw(add), raw(weight), eps, y, sum) });
    (sum, y)
}

/// silu(gate) * up (arXiv:2002.05202).
pub fn swiglu(gate: &Tensor, up: &Tensor) -> Tensor {
    let [y] = made(|[y]| unsafe { ppo_swiglu(raw(gate), raw(up), y) });
    y
}

/// Heads apart: [B, heads, T, D] for `x` [B, T, heads * D], scaled, and rotated by the cosines and sines [B or 1, T,
/// D/2] (float32) if there are any.
pub fn split(x: &Tensor, heads: i64, rotation: Option<[&Tensor; 2]>, scale: f64) -> Tensor {
    let [cos, sin] = rotation.map_or([null_mut(); 2], |both| both.map(raw));
    let [y] = made(|[y]| unsafe { ppo_split(raw(x), heads, cos, sin, scale, y) });
    y
}

/// A range of tokens in a row that attend causally to each other, after all of a prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Branch {
    /// Empty, or the tokens of the branch before this one or of its prefix.
    pub prefix: Range<i64>,
    pub own: Range<i64>,
}

/// Causal attention by products over a row of branches, [T, N * D]: scaled `queries` [N, T, D] over `keys` and `values`
/// [K, T, D]. Keeps for the backward pass the weights of each branch, [N, own, prefix + own].
pub fn attend(queries: &Tensor, keys: &Tensor, values: &Tensor, branches: &[Branch]) -> Tensor {
    let length = |range: &Range<i64>| range.end - range.start;
    let flat = |b: &Branch| [b.prefix.start, length(&b.prefix), b.own.start, length(&b.own)];
    let flat: Vec<[i64; 4]> = branches.iter().map(flat).collect();
    let (list, count) = (flat.as_ptr(), flat.len() as i64);
    let [y] = made(|[y]| unsafe { ppo_attend(raw(queries), raw(keys), raw(values), list, count, y) });
    y
}

/// Log-probs of `targets` [N] and entropies, [N] float32 each, in nats, of the distributions softmax(scale * logits)
/// with the logits of `hidden` [N, H] under `head` [V, H].
pub fn vocabulary(hidden: &Tensor, head: &Tensor, targets: &Tensor, scale: f64) -> (Tensor, Tensor) {
    let [log_probs, entropies] = made(|[log_prob, entropy]| unsafe {
        ppo_vocabulary(raw(hidden), raw(head), raw(targets), scale, log_prob, entropy)
    });
    (log_probs, entropies)
}

/// One token per row of `logits` [B, V] among its first `limit`, and its log-prob in softmax(scale * logits), [B] each:
/// where the cumulative distribution passes `uniform` [B] in [0, 1), or the most probable one.
pub fn sample(logits: &Tensor, limit: i64, scale: f64, uniform: Option<&Tensor>) -> (Tensor, Tensor) {
    let uniform = uniform.map_or(null_mut(), raw);
    let [token, log_prob] =
        made(|[token, log_prob]| unsafe { ppo_sample(raw(logits), limit, scale, uniform, token, log_prob) });
    (token, log_prob)
}

/// Projections of one new token per row, [B, 1, heads * D] each.
pub struct NewToken<'a> {
    pub queries: &'a Tensor,
    pub keys: &'a Tensor,
    pub values: &'a Tensor,
    /// Cosines and sines of its position, [B, 1, D/2] float32.
    pub rotation: [&'a Tensor; 2],
}

/// Rotates queries and keys, puts keys and values in slot `slot` [B] of the rows `place` [B] of the caches
/// [R, K, D, slots] and [R, K, slots, D], and attends to the slots of each row up to there: [B, 1, N * D].
pub fn attend_one(new: &NewToken, keys: &Tensor, values: &Tensor, place: &Tensor, slot: &Tensor) -> Tensor {
    let NewToken { queries, keys: k, values: v, rotation: [cos, sin] } = new;
    let [y] = made(|[y]| unsafe {
        let (q, k, v, cos, sin) = (raw(queries), raw(k), raw(v), raw(cos), raw(sin));
        ppo_attend_one(q, k, v, cos, sin, raw(keys), raw(values), raw(place), raw(slot), y)
    });
    y
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::to_host;

    const KINDS: [Kind; 2] = [Kind::Float, Kind::BFloat16];

    /// Numbers between -2 and 2 that repeat nowhere.
    fn drawn(shape: &[i64], first: f64, kind: Kind) -> Tensor {
        let count: i64 = shape.iter().product();
        let numbers = (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 0.7 + first).sin() * 2.0;
        numbers.view(shape).to_kind(kind)
    }

    /// The results and the gradients of the inputs, of a sum that weighs each result differently.
    fn outcome(inputs: &[Tensor], work: impl Fn(&[Tensor]) -> Vec<Tensor>) -> Vec<Vec<f32>> {
        let leaves: Vec<Tensor> = inputs.iter().map(|x| x.detach().copy().set_requires_grad(true)).collect();
        let results = work(&leaves);
        let weighed = results.iter().map(|x| {
            let weights = drawn(&x.size(), 0.3, Kind::Float);
            (x.to_kind(Kind::Float) * weights).sum(Kind::Float)
        });
        weighed.reduce(|a, b| a + b).unwrap().backward();
        results.iter().map(to_host).chain(leaves.iter().map(|leaf| to_host(&leaf.grad()))).collect()
    }

    /// Compares what an operation makes of inputs of each kind with what plain tensor operations make of the same
    /// numbers in float64.
    fn compare(inputs: &[Tensor], fused: impl Fn(&[Tensor]) -> Vec<Tensor>, naive: impl Fn(&[Tensor]) -> Vec<Tensor>) {
        for kind in KINDS {
            let inputs: Vec<Tensor> = inputs.iter().map(|x| x.to_kind(kind)).collect();
            let exact: Vec<Tensor> = inputs.iter().map(|x| x.to_kind(Kind::Double)).collect();
            // Of bfloat16 the numbers that go in and come out are rounded to 8 bits, and some on the way.
            let tolerance = if kind == Kind::Float { 5e-6 } else { 5e-2 };
            for (at, (found, expected)) in outcome(&inputs, &fused).iter().zip(outcome(&exact, &naive)).enumerate() {
                assert_eq!(found.len(), expected.len());
                let most = expected.iter().fold(1.0f32, |most, x| most.max(x.abs()));
                let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(worst <= tolerance * most, "{kind:?}, number {at}: {worst} of {most}");
            }
        }
    }

    fn plain_norm(x: &Tensor, weight: &Tensor) -> Tensor {
        let squares = (x * x).mean_dim([-1i64].as_slice(), true, x.kind());
        x / (squares + 1e-5).sqrt() * weight
    }

    #[test]
    fn norms_are_the_published_ones() {
        let inputs = [drawn(&[3, 5, 40], 0.1, Kind::Double), drawn(&[40], 0.2, Kind::Double)];
        compare(&inputs, |x| vec![norm(&x[0], &x[1], 1e-5)], |x| vec![plain_norm(&x[0], &x[1])]);
        let inputs = [&inputs[..], &[drawn(&[3, 5, 40], 0.9, Kind::Double)]].concat_tensors();
        compare(
            &inputs,
            |x| {
                let (sum, normed) = add_norm(&x[0], &x[2], &x[1], 1e-5);
                vec![sum, normed]
            },
            |x| {
                let sum = &x[0] + &x[2];
                let normed = plain_norm(&sum, &x[1]);
                vec![sum, normed]
            },
        );
    }

    trait Concat {
        fn concat_tensors(&self) -> Vec<Tensor>;
    }

    impl Concat for [&[Tensor]; 2] {
        fn concat_tensors(&self) -> Vec<Tensor> {
            self.iter().flat_map(|list| list.iter().map(Tensor::shallow_clone)).collect()
        }
    }

    #[test]
    fn swiglu_is_silu_times_up() {
        let inputs = [drawn(&[7, 33], 0.1, Kind::Double) * 4.0, drawn(&[7, 33], 0.2, Kind::Double)];
        compare(&inputs, |x| vec![swiglu(&x[0], &x[1])], |x| vec![x[0].silu() * &x[1]]);
    }

    #[test]
    fn heads_are_split_and_turned() {
        let (b, t, heads, d) = (2, 5, 3, 8);
        let angles = drawn(&[b, t, d / 2], 0.4, Kind::Float);
        let (cos, sin) = (angles.cos(), angles.sin());
        for shared in [false, true] {
            let rows = if shared { 1 } else { b };
            let [cos, sin] = [&cos, &sin].map(|x| x.narrow(0, 0, rows).contiguous());
            let naive = |x: &[Tensor]| {
                let apart = x[0].view([b, t, heads, d]).transpose(1, 2);
                let [cos, sin] = [&cos, &sin].map(|x| x.unsqueeze(1).to_kind(Kind::Double));
                let halves = apart.chunk(2, -1);
                let (a, z) = (&halves[0], &halves[1]);
                vec![Tensor::cat(&[a * &cos - z * &sin, z * &cos + a * &sin], -1) * 0.5]
            };
            let input = [drawn(&[b, t, heads * d], 0.1, Kind::Double)];
            compare(&input, |x| vec![split(&x[0], heads, Some([&cos, &sin]), 0.5)], naive);
        }
        let input = [drawn(&[b, t, heads * d], 0.1, Kind::Double)];
        let apart = |x: &[Tensor]| vec![x[0].view([b, t, heads, d]).transpose(1, 2)];
        compare(&input, |x| vec![split(&x[0], heads, None, 1.0)], apart);
    }

    /// With two query heads per key head: a prompt of 3 tokens with two branches of 2 and 1, and a sequence of 4.
    #[test]
    fn branches_attend_to_their_prefix_and_themselves() {
        let (k, g, t, d) = (2, 2, 10, 8);
        let branch = |prefix, own| Branch { prefix, own };
        let branches = [branch(0..0, 0..3), branch(0..3, 3..5), branch(0..3, 5..6), branch(0..0, 6..10)];
        let draw = |heads, first| drawn(&[heads, t, d], first, Kind::Double);
        let inputs = [draw(k * g, 0.1), draw(k, 0.2), draw(k, 0.3)];
        // Who sees whom, token by token.
        let sees = |query: i64, key: i64| {
            branches
                .iter()
                .any(|b| b.own.contains(&query) && (b.prefix.contains(&key) || (b.own.contains(&key) && key <= query)))
        };
        let mask = (0..t * t).map(|i| if sees(i / t, i % t) { 0.0 } else { f64::NEG_INFINITY });
        let mask = Tensor::from_slice(&mask.collect::<Vec<f64>>()).view([t, t]);
        let naive = |x: &[Tensor]| {
            let repeat = |x: &Tensor| x.repeat_interleave_self_int(g, 0, None);
            let weights = (x[0].matmul(&repeat(&x[1]).transpose(1, 2)) + &mask).softmax(-1, None);
            vec![weights.matmul(&repeat(&x[2])).transpose(0, 1).flatten(1, 2)]
        };
        compare(&inputs, |x| vec![attend(&x[0], &x[1], &x[2], &branches)], naive);
        // So many of them that threads share them.
        let many: Vec<Branch> = (0..t).map(|at| branch(0..0, at..at + 1)).collect();
        let alone = |x: &[Tensor]| vec![x[2].repeat_interleave_self_int(g, 0, None).transpose(0, 1).flatten(1, 2)];
        let found = attend(
            &inputs[0].to_kind(Kind::Float),
            &inputs[1].to_kind(Kind::Float),
            &inputs[2].to_kind(Kind::Float),
            &many,
        );
        assert_eq!(to_host(&found), to_host(&alone(&inputs)[0]));
    }

    #[test]
    fn log_probs_and_entropies_are_of_the_scaled_logits() {
        let (n, h, v) = (6, 8, 50);
        let inputs = [drawn(&[n, h], 0.1, Kind::Double), drawn(&[v, h], 0.2, Kind::Double)];
        let targets = Tensor::from_slice(&[0i64, 49, 7, 7, 12, 31]);
        let naive = |x: &[Tensor]| {
            // The fused operation rounds its logits to the compute kind.
            let all = (x[0].matmul(&x[1].transpose(0, 1)) / 0.8).log_softmax(-1, Kind::Double);
            let chosen = all.gather(-1, &targets.unsqueeze(-1), false).squeeze_dim(-1);
            vec![chosen, -(all.exp() * &all).sum_dim_intlist(-1, false, Kind::Double)]
        };
        let fused = |x: &[Tensor]| {
            let (log_probs, entropies) = vocabulary(&x[0], &x[1], &targets, 1.0 / 0.8);
            vec![log_probs, entropies]
        };
        compare(&inputs, fused, naive);
        // Where only one of the two is used.
        compare(&inputs, |x| vec![fused(x).swap_remove(0)], |x| vec![naive(x).swap_remove(0)]);
        compare(&inputs, |x| vec![fused(x).swap_remove(1)], |x| vec![naive(x).swap_remove(1)]);
    }

    /// Tokens are drawn in proportion, in blocks as beyond them, and never past the limit.
    #[test]
    fn draws_pass_through_the_cumulative_distribution() {
        let (v, limit) = (2_000, 1_500);
        for kind in KINDS {
            let logits = drawn(&[1, v], 0.5, kind);
            let probs = to_host(&logits.to_kind(Kind::Double).softmax(-1, Kind::Double)); // [V]
            let allowed: f64 = probs[..limit].iter().map(|p| f64::from(*p)).sum();
            let draws = 200;
            let uniforms: Vec<f32> = (0..draws).map(|i| (i as f32 + 0.5) / draws as f32).collect();
            let rows = logits.repeat([draws, 1]);
            let (tokens, log_probs) = sample(&rows, limit as i64, 1.0, Some(&Tensor::from_slice(&uniforms)));
            let tokens = crate::torch::ids_to_host(&tokens);
            for ((token, log_prob), uniform) in tokens.iter().zip(to_host(&log_probs)).zip(&uniforms) {
                let before: f64 = probs[..*token as usize].iter().map(|p| f64::from(*p)).sum();
                let (share, own) = (f64::from(*uniform) * allowed, f64::from(probs[*token as usize]));
                assert!(before - 1e-5 <= share && share <= before + own + 1e-5, "{token} for {uniform}");
                assert!((f64::from(log_prob) - own.ln()).abs() < 1e-4);
            }
            let (best, _) = sample(&logits, limit as i64, 1.0, None);
            assert_eq!(best, logits.narrow(1, 0, limit as i64).argmax(-1, false));
        }
        // All mass on one token, and a uniform number that rounds to 1.
        let one = Tensor::from_slice(&[-200f32, -200.0, 50.0, -200.0]).unsqueeze(0);
        let (token, _) = sample(&one, 4, 1.0, Some(&Tensor::from_slice(&[0.999_999_94f32])));
        assert_eq!(token.int64_value(&[0]), 2);
        // What is not a number yields a token all the same.
        let (token, log_prob) = sample(&(one * f64::NAN), 4, 1.0, Some(&Tensor::from_slice(&[0.5f32])));
        assert!((0..4).contains(&token.int64_value(&[0])) && log_prob.double_value(&[0]).is_nan());
    }

    #[test]
    fn what_cannot_be_computed_is_a_fault() {
        let error = crate::torch::catching(|| {
            Ok(vocabulary(&drawn(&[2, 3], 0.0, Kind::Float), &drawn(&[5, 4], 0.0, Kind::Float), &Tensor::from(0), 1.0))
        });
        assert!(error.is_err());
    }
}
