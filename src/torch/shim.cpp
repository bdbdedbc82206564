// What libtorch has but tch does not expose. Each function returns null, or a message that the caller frees with
// ppo_free. Tensors come as pointers to at::Tensor, which is what tch holds.

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>
#include <torch/headeronly/version.h>

#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>

namespace {
template <typename F> char *guarded(F &&body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception &error) {
    return strdup(error.what());
  }
}

// A function of one tensor on the Rust side. It returns a new tensor that we own, or null and a message that we free.
struct Body : torch::CustomClassHolder {
  using Call = at::Tensor *(*)(void *state, at::Tensor *x, char **message);
  using Drop = void (*)(void *state);

  void *state;
  Call call;
  Drop drop;

  Body(void *state, Call call, Drop drop) : state(state), call(call), drop(drop) {}
  Body(const Body &) = delete;
  ~Body() override { drop(state); }

  at::Tensor operator()(at::Tensor x) const {
    char *message = nullptr;
    std::unique_ptr<at::Tensor> y(call(state, &x, &message));
    std::unique_ptr<char, decltype(&std::free)> owned(message, std::free);
    if (!y) throw std::runtime_error(message ? message : "a recomputed part of the model failed");
    return *y;
  }
};

// Keeps only its input for the backward pass, which computes the body again and backpropagates through it at once.
struct Recompute : torch::autograd::Function<Recompute> {
  static at::Tensor forward(torch::autograd::AutogradContext *context, const at::Tensor &x,
                            const c10::intrusive_ptr<Body> &body) {
    context->save_for_backward({x});
    context->saved_data["body"] = c10::IValue::make_capsule(body);
    return (*body)(x);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 torch::autograd::variable_list grads) {
    auto capsule = context->saved_data["body"].toCapsule();
    auto x = context->get_saved_variables()[0].detach().requires_grad_();
    at::Tensor y;
    {
      at::AutoGradMode enable(true);
      y = (*static_cast<Body *>(capsule.get()))(x);
    }
    torch::autograd::backward({y}, {grads[0]});
    return {x.grad(), at::Tensor()};
  }
};
} // namespace

extern "C" {

const char *ppo_version() { return TORCH_VERSION; }

void ppo_free(char *message) { std::free(message); }

// Makes `grad` (same shape, type and device) the place where backward accumulates the gradient of the leaf `tensor`.
char *ppo_set_grad(at::Tensor *tensor, at::Tensor *grad) {
  return guarded([&] { tensor->mutable_grad() = *grad; });
}

// A separate random generator, in the state of the default one after manual_seed(seed).
char *ppo_generator(uint64_t seed, at::Generator **out) {
  return guarded([&] { *out = new at::Generator(at::detail::createCPUGenerator(seed)); });
}

void ppo_generator_free(at::Generator *generator) { delete generator; }

// Fills a tensor on the CPU with normally distributed numbers.
char *ppo_normal(at::Tensor *tensor, double mean, double deviation, at::Generator *generator) {
  return guarded([&] { tensor->normal_(mean, deviation, *generator); });
}

// One AdamW step (decoupled weight decay) over flat float32 buffers, in one pass over memory; no step if `skip` is 1.
char *ppo_fused_adamw(at::Tensor *weights, at::Tensor *grad, at::Tensor *exp_avg, at::Tensor *exp_avg_sq,
                      at::Tensor *step, at::Tensor *skip, double lr, double beta1, double beta2, double weight_decay,
                      double eps) {
  return guarded([&] {
    at::_fused_adamw_({*weights}, {*grad}, {*exp_avg}, {*exp_avg_sq}, {}, {*step}, lr, beta1, beta2, weight_decay, eps,
                      /*amsgrad=*/false, /*maximize=*/false, /*grad_scale=*/{}, /*found_inf=*/*skip);
  });
}

// `call(state, x)`, of which only x is kept for the backward pass; `drop(state)` when it is no longer needed, whatever
// happens. The result is a new tensor in `out`.
char *ppo_recompute(at::Tensor *x, void *state, Body::Call call, Body::Drop drop, at::Tensor **out) {
  return guarded([&] {
    auto body = c10::make_intrusive<Body>(state, call, drop);
    *out = new at::Tensor(Recompute::apply(*x, body));
  });
}
}
