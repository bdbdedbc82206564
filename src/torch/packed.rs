//! Products with weights that are packed once for many products of few rows, as decoding does them.
//!
//! Measured beside other work (AMD EPYC with AVX512-BF16, a thread, SmolLM2's shapes, all layers after one another as a
//! decoding step does them; docs/speed.md): in bfloat16 1.4 to 2.0 times as fast at 1 to 32 rows, 1.2 times at 64 and
//! 128, and 1.3 to 2.9 times with the head; in float32 no faster. The numbers were the same to the last bit there;
//! elsewhere sums may be done in another order.

use super::fused::{made, raw};
use super::{checked, cpu_multiplies_bfloat16};
use std::ffi::c_char;
use std::ptr::null_mut;
use tch::{Device, Kind, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn ppo_pack(weight: *mut C_tensor, rows: i64, out: *mut *mut C_tensor) -> *mut c_char;
    fn ppo_multiply_packed(
        x: *mut C_tensor,
        packed: *mut C_tensor,
        bias: *mut C_tensor,
        out: *mut *mut C_tensor,
    ) -> *mut c_char;
}

/// Rows that weights are packed for; more are multiplied too.
const ROWS: i64 = 32;

/// A weight [out, in] as oneDNN packs it: a copy, which does not follow the weight's changes.
pub struct Packed(Tensor);

impl Packed {
    /// Whether products with weights like this one are faster once it is packed: bfloat16 on a CPU that multiplies it.
    pub fn helps(weight: &Tensor) -> bool {
        weight.device() == Device::Cpu && weight.kind() == Kind::BFloat16 && cpu_multiplies_bfloat16()
    }

    /// The weight packed, if that helps. None also if there is no memory for it.
    pub fn of(weight: &Tensor) -> Option<Self> {
        if !Self::helps(weight) {
            return None;
        }
        let mut out = null_mut();
        // SAFETY: the weight lives during the call, which writes a pointer to a new tensor, or null.
        checked(unsafe { ppo_pack(raw(weight), ROWS, &mut out) }).ok()?;
        // SAFETY: a new tensor of the shim's, which is ours.
        (!out.is_null()).then(|| Self(unsafe { Tensor::from_ptr(out) }))
    }

    /// [.., out] for `x` [.., in], plus `bias` [out]. No gradient.
    ///
    /// # Panics
    /// If it fails, like libtorch's own functions in `tch`.
    pub fn multiply(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let bias = bias.map_or(null_mut(), raw);
        // SAFETY: pointers are to tensors that live during the call; a bias may be null.
        let [y] = made(|[y]| unsafe { ppo_multiply_packed(raw(x), raw(&self.0), bias, y) });
        y
    }

    pub fn shallow_clone(&self) -> Self {
        Self(self.0.shallow_clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::torch::to_host;

    /// Within half a unit of bfloat16's last place of a sum in float64, as the plain product is.
    #[test]
    fn packed_weights_multiply_as_plain_ones_do() {
        let drawn = |shape: &[i64], first: f64| {
            let count: i64 = shape.iter().product();
            (Tensor::arange(count, (Kind::Double, Device::Cpu)) * 0.7 + first).sin().view(shape).to_kind(Kind::BFloat16)
        };
        for (inner, outer) in [(576, 192), (100, 70), (8, 1)] {
            let (weight, bias) = (drawn(&[outer, inner], 0.1), drawn(&[outer], 0.2));
            let Some(packed) = Packed::of(&weight) else {
                assert!(!cpu_multiplies_bfloat16(), "a CPU that multiplies bfloat16 packs it");
                return;
            };
            for (rows, bias) in [(1, Some(&bias)), (5, None), (33, Some(&bias)), (130, None)] {
                let x = drawn(&[rows, 1, inner], 0.3);
                let found = packed.shallow_clone().multiply(&x, bias);
                assert_eq!(found.size(), [rows, 1, outer]);
                let exact = x
                    .to_kind(Kind::Double)
                    .linear(&weight.to_kind(Kind::Double), bias.map(|bias| bias.to_kind(Kind::Double)).as_ref());
                let largest = exact.abs().max().double_value(&[]);
                for (found, exact) in to_host(&found).into_iter().zip(to_host(&exact)) {
                    // Rounded twice: the sum, and with its bias.
                    let most = exact.abs() * 2f32.powi(-8) + largest as f32 * 2f32.powi(-9);
                    assert!((found - exact).abs() <= most, "{found} {exact}");
                }
            }
        }
        assert!(Packed::of(&drawn(&[4, 4], 0.0).to_kind(Kind::Float)).is_none(), "float32 gains nothing");
    }
}
