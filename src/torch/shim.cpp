// What libtorch has but tch does not expose. Each function returns null, or a message that the caller frees with
// ppo_free. Tensors come as pointers to at::Tensor, which is what tch holds.

#include "guarded.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Version.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/custom_class.h>
#include <torch/headeronly/version.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>

namespace {
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

// The time of each operation of libtorch, without that of the operations it calls. There is one for all profiles, and
// it is never freed: an operation that another thread began before the end of a profile reports to it afterwards.
struct Profile {
  struct Spent {
    int64_t calls = 0;
    double seconds = 0;
  };
  struct Open : at::ObserverContext {
    std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
    double inner = 0;
    Open *outer;
  };

  std::mutex mutex;
  std::map<std::string, Spent> spent;
  at::CallbackHandle handle = 0;

  static inline thread_local Open *innermost = nullptr;

  static Profile &only() {
    static auto *profile = new Profile();
    return *profile;
  }

  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction &) {
    auto open = std::make_unique<Open>();
    open->outer = innermost;
    innermost = open.get();
    return open;
  }

  static void end(const at::RecordFunction &function, at::ObserverContext *context) {
    auto *open = static_cast<Open *>(context);
    double took = std::chrono::duration<double>(std::chrono::steady_clock::now() - open->start).count();
    innermost = open->outer;
    if (innermost) innermost->inner += took;
    std::lock_guard<std::mutex> lock(only().mutex);
    Spent &own = only().spent[function.name()];
    own.calls++;
    own.seconds += took - open->inner;
  }
};
} // namespace

extern "C" {

// From here to ppo_profile_end, operations are timed, in all threads.
void ppo_profile_begin() {
  Profile &profile = Profile::only();
  {
    std::lock_guard<std::mutex> lock(profile.mutex);
    profile.spent.clear();
  }
  auto callback = at::RecordFunctionCallback(Profile::begin, Profile::end)
                      .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION});
  profile.handle = at::addGlobalCallback(callback);
}

// Calls `take(state, name, calls, seconds)` for each.
void ppo_profile_end(void *state, void (*take)(void *, const char *, int64_t, double)) {
  Profile &profile = Profile::only();
  at::removeCallback(profile.handle);
  std::lock_guard<std::mutex> lock(profile.mutex);
  for (const auto &[name, spent] : profile.spent) take(state, name.c_str(), spent.calls, spent.seconds);
}

const char *ppo_version() { return TORCH_VERSION; }

// The instructions that libtorch's kernels use on this CPU; the caller frees it.
char *ppo_capability() { return strdup(at::get_cpu_capability().c_str()); }

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
