//! Attention of a row of branches on a GPU by FlashAttention (arXiv:2307.08691): sequences of any lengths in one call,
//! without padding, and without repeating keys for the query heads that share them.
//!
//! Decided: the keys of a prefix are gathered once for each branch that begins with it, since the kernel wants those
//! of a sequence side by side; its queries are the last of their sequence, which is where it aligns them.
//!
//! Shapes: T tokens of the row, S keys of all branches, N query heads, K key-value heads, D head dimension.

use super::fault::{Fault, catching};
use super::fused::{Branch, made, raw};
use super::gpu::on_device;
use std::ffi::c_char;
use std::sync::OnceLock;
use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn ppo_flash_is_allowed() -> bool;
    fn ppo_flash(
        q: *mut C_tensor,
        k: *mut C_tensor,
        v: *mut C_tensor,
        starts_q: *mut C_tensor,
        starts_k: *mut C_tensor,
        longest_q: i64,
        longest_k: i64,
        y: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// The largest head dimension that the kernel has.
const LARGEST_HEAD: i64 = 256;

/// Where the branches of a row have their queries and keys.
#[derive(Clone, Debug, PartialEq)]
struct Places {
    /// The token of the row that each key is of, [S]; none if they are the row's own in their order.
    keys: Option<Vec<i64>>,
    /// Where each branch begins among the queries and among the keys, and where the last ends.
    starts: [Vec<i32>; 2],
    /// Most queries and most keys of a branch.
    longest: [i64; 2],
}

impl Places {
    /// The branches, one after another, are the row.
    fn of(branches: &[Branch]) -> Self {
        let alone = branches.iter().all(|branch| branch.prefix.is_empty());
        let keys = branches.iter().flat_map(|branch| branch.prefix.clone().chain(branch.own.clone())).collect();
        let own = |branch: &Branch| branch.own.end - branch.own.start;
        let all = |branch: &Branch| own(branch) + branch.prefix.end - branch.prefix.start;
        let starts = |length: &dyn Fn(&Branch) -> i64| {
            let mut end = 0;
            let ends = branches.iter().map(|branch| {
                end += length(branch) as i32;
                end
            });
            [0].into_iter().chain(ends).collect()
        };
        let longest = |length: &dyn Fn(&Branch) -> i64| branches.iter().map(length).max().unwrap_or(0);
        Self {
            keys: (!alone).then_some(keys),
            starts: [starts(&own), starts(&all)],
            longest: [longest(&own), longest(&all)],
        }
    }
}

/// The branches of a row as the kernel wants to know them.
pub struct Flash {
    keys: Option<Tensor>,
    /// [branches + 1] int32 each.
    starts: [Tensor; 2],
    longest: [i64; 2],
}

impl Flash {
    /// Whether the kernel has heads of `d` numbers.
    pub fn has(d: i64) -> bool {
        d % 8 == 0 && d <= LARGEST_HEAD
    }

    /// Whether the kernel takes rows `x` with heads of `d` numbers, on this GPU, and may be used.
    pub fn takes(x: &Tensor, d: i64) -> bool {
        let fits = matches!(x.device(), Device::Cuda(_)) && x.kind() == Kind::BFloat16;
        // SAFETY: it reads a setting of libtorch's.
        fits && Self::has(d) && unsafe { ppo_flash_is_allowed() } && works(x.device())
    }

    /// For the branches that a row consists of.
    pub fn new(branches: &[Branch], device: Device) -> Self {
        let Places { keys, starts, longest } = Places::of(branches);
        let keys = keys.map(|keys| on_device(&keys, device));
        Self { keys, starts: starts.map(|starts| on_device(&starts, device)), longest }
    }

    /// Causal attention of each branch after its prefix: [T, N, D] for `queries` [T, N, D], not scaled, and `keys` and
    /// `values` [T, K, D].
    ///
    /// # Panics
    /// If it fails, like libtorch's own functions in `tch`.
    pub fn attend(&self, queries: &Tensor, keys: &Tensor, values: &Tensor) -> Tensor {
        let of = |x: &Tensor| self.keys.as_ref().map_or_else(|| x.contiguous(), |keys| x.index_select(0, keys));
        let (queries, keys, values) = (queries.contiguous(), of(keys), of(values));
        let ([starts_q, starts_k], [longest_q, longest_k]) = (self.starts.each_ref().map(raw), self.longest);
        let qkv = [&queries, &keys, &values].map(raw);
        // SAFETY: pointers are to tensors that live during the call.
        let [y] = made(|[y]| unsafe { ppo_flash(qkv[0], qkv[1], qkv[2], starts_q, starts_k, longest_q, longest_k, y) });
        y
    }
}

/// Whether a GPU has the kernel, which older ones than Ampere do not: tried once.
fn works(device: Device) -> bool {
    static WORKS: OnceLock<bool> = OnceLock::new();
    if let Some(works) = WORKS.get() {
        return *works;
    }
    let tried = catching(|| {
        let x = Tensor::ones([1, 1, 8], (Kind::BFloat16, device));
        let flash = Flash::new(&[Branch { prefix: 0..0, own: 0..1 }], device);
        Ok(tch::no_grad(|| flash.attend(&x, &x, &x)))
    });
    match tried {
        // That says nothing of the kernel.
        Err(error) if Fault::memory(&error).is_some() => false,
        tried => *WORKS.get_or_init(|| tried.is_ok()),
    }
}

impl Clone for Flash {
    fn clone(&self) -> Self {
        let starts = self.starts.each_ref().map(Tensor::shallow_clone);
        Self { keys: self.keys.as_ref().map(Tensor::shallow_clone), starts, longest: self.longest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::{attend, test_device, to_host};

    /// A sequence alone, and a prompt with two responses.
    fn branches() -> [Branch; 4] {
        let branch = |prefix, own| Branch { prefix, own };
        [branch(0..0, 0..3), branch(0..0, 3..5), branch(3..5, 5..9), branch(3..5, 9..10)]
    }

    /// Queries [10, 4, 8], keys and values [10, 2, 8].
    fn drawn(kind: Kind, device: Device) -> [Tensor; 3] {
        let draw = |heads: i64, first: f64| {
            let numbers = (Tensor::arange(10 * heads * 8, (Kind::Float, Device::Cpu)) * 0.7 + first).sin() * 2.0;
            numbers.view([10, heads, 8]).to_kind(Kind::BFloat16).to_kind(kind).to_device(device)
        };
        [draw(4, 0.1), draw(2, 0.2), draw(2, 0.3)]
    }

    /// By products, of which other tests know that they are right: [10, 4 * 8].
    fn expected(branches: &[Branch]) -> Tensor {
        let [q, k, v] = drawn(Kind::Float, Device::Cpu).map(|x| x.transpose(0, 1).contiguous());
        attend(&(q * 8f64.powf(-0.5)), &k, &v, branches)
    }

    /// What the kernel does with places, one branch and head after another.
    #[test]
    fn places_are_those_of_the_branches() {
        let branches = branches();
        let Places { keys, starts, longest } = Places::of(&branches);
        assert_eq!(keys.as_deref(), Some(&[0, 1, 2, 3, 4, 3, 4, 5, 6, 7, 8, 3, 4, 9][..]));
        assert_eq!(starts, [vec![0, 3, 5, 9, 10], vec![0, 3, 5, 11, 14]]);
        assert_eq!(longest, [4, 6]);
        assert_eq!(Places::of(&branches[..2]).keys, None);
        let [q, k, v] = drawn(Kind::Float, Device::Cpu);
        let keys = Tensor::from_slice(&keys.unwrap());
        let [k, v] = [k, v].map(|x| x.index_select(0, &keys).repeat_interleave_self_int(2, 1, None)); // [S, 4, 8]
        let part = |x: &Tensor, starts: &[i32], i: usize| {
            x.narrow(0, starts[i].into(), (starts[i + 1] - starts[i]).into()).transpose(0, 1)
        };
        let own = (0..branches.len()).map(|i| {
            let (q, k, v) = (part(&q, &starts[0], i), part(&k, &starts[1], i), part(&v, &starts[1], i));
            let (t, s) = (q.size()[1], k.size()[1]);
            // The last query sees all keys.
            let future = Tensor::full([t, s], f64::NEG_INFINITY, (Kind::Float, Device::Cpu)).triu(s - t + 1);
            let weights = (q.matmul(&k.transpose(1, 2)) * 8f64.powf(-0.5) + future).softmax(-1, None);
            weights.matmul(&v).transpose(0, 1).flatten(1, 2)
        });
        let found = Tensor::cat(&own.collect::<Vec<_>>(), 0);
        let worst = (found - expected(&branches)).abs().max().double_value(&[]);
        assert!(worst < 1e-5, "{worst}");
    }

    /// On a GPU; elsewhere there is no such kernel.
    #[test]
    fn the_kernel_attends_as_products_do() {
        let branches = branches();
        let [q, k, v] = drawn(Kind::BFloat16, test_device()).map(|x| x.set_requires_grad(true));
        if !Flash::takes(&q, 8) {
            return assert_eq!(test_device(), Device::Cpu);
        }
        let flash = Flash::new(&branches, q.device());
        let found = flash.attend(&q, &k, &v).flatten(1, 2);
        let (found_host, expected) = (to_host(&found.detach()), to_host(&expected(&branches)));
        let worst = found_host.iter().zip(&expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max);
        assert!(worst < 2e-2, "{worst}");
        // The gradient of the sum of all values is 1 for each query head and token that sees a value in full.
        found.sum(Kind::Float).backward();
        let total = v.grad().sum(Kind::Float).double_value(&[]);
        assert!((total - f64::from(10 * 4 * 8)).abs() < 3.0, "{total}");
        assert!(q.grad().isfinite().all().int64_value(&[]) == 1 && k.grad().isfinite().all().int64_value(&[]) == 1);
    }
}
