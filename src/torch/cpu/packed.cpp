// Products with weights that are packed once, in the order in which oneDNN reads them: what torch.compile calls for
// inference on a CPU. Called through the dispatcher, since libtorch has no headers of these operations.

#include "../guarded.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/grad_mode.h>

using at::Tensor;

namespace {
constexpr const char *PACK = "mkldnn::_reorder_linear_weight", *MULTIPLY = "mkldnn::_linear_pointwise";

using Found = std::optional<c10::OperatorHandle>;

Found find(const char *name) {
  return c10::Dispatcher::singleton().findSchema({name, ""});
}

Tensor call(const c10::OperatorHandle &operation, torch::jit::Stack stack) {
  at::AutoDispatchBelowAutograd below;
  operation.callBoxed(stack);
  return std::move(stack.at(0)).toTensor();
}
} // namespace

extern "C" {
// `weight` [out, in] packed for about so many rows; nothing if this libtorch cannot.
char *ppo_pack(Tensor *weight, int64_t rows, Tensor **out) {
  return guarded([&] {
    static const Found pack = find(PACK);
    *out = pack && find(MULTIPLY) ? new Tensor(call(*pack, {weight->detach(), rows})) : nullptr;
  });
}

// [.., out] for `x` [.., in] and a packed weight; `bias` may be null.
char *ppo_multiply_packed(Tensor *x, Tensor *packed, Tensor *bias, Tensor **out) {
  return guarded([&] {
    static const Found multiply = find(MULTIPLY);
    static const c10::List<std::optional<at::Scalar>> none;
    c10::IValue add = bias ? c10::IValue(*bias) : c10::IValue();
    *out = new Tensor(call(multiply.value(), {*x, *packed, add, "none", none, ""}));
  });
}
}
