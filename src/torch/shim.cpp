// What libtorch has and tch does not expose. Each function returns null, or a message that the caller frees with
// ppo_free. Tensors come as pointers to at::Tensor, which is what tch holds.

#include <ATen/core/Tensor.h>
#include <ATen/ops/_fused_adamw.h>

#include <cstdlib>
#include <cstring>
#include <exception>

namespace {
template <typename F> char *guarded(F &&body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception &error) {
    return strdup(error.what());
  }
}
} // namespace

extern "C" {

void ppo_free(char *message) { std::free(message); }

// Makes `grad` (same shape, type and device) the place where backward accumulates the gradient of the leaf `tensor`.
char *ppo_set_grad(at::Tensor *tensor, at::Tensor *grad) {
  return guarded([&] { tensor->mutable_grad() = *grad; });
}

// One AdamW step (decoupled weight decay) over flat float32 buffers, in one pass over memory.
char *ppo_fused_adamw(at::Tensor *weights, at::Tensor *grad, at::Tensor *exp_avg, at::Tensor *exp_avg_sq,
                      at::Tensor *step, double lr, double beta1, double beta2, double weight_decay, double eps) {
  return guarded([&] {
    at::_fused_adamw_({*weights}, {*grad}, {*exp_avg}, {*exp_avg_sq}, {}, {*step}, lr, beta1, beta2, weight_decay, eps,
                      /*amsgrad=*/false, /*maximize=*/false);
  });
}
}
