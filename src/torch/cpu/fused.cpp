// The loops of kernels.h as operations on tensors of the CPU, with their backward passes, divided among libtorch's
// threads. All tensors are float or bfloat16, and what a loop reads is made contiguous first.

#include "../guarded.h"
#include "kernels.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {
const ppo::Kernels &loops = ppo::kernels();

bool is_half(const Tensor &x) { return x.scalar_type() == at::kBFloat16; }
const float *floats(const Tensor &x) { return x.defined() ? x.const_data_ptr<float>() : nullptr; }
const void *data(const Tensor &x) { return x.defined() ? x.const_data_ptr() : nullptr; }
Tensor plain(const Tensor &x) { return x.defined() ? x.contiguous() : x; }
using Maybe = std::optional<Tensor>;
Tensor plain(const Maybe &x) { return x ? x->contiguous() : Tensor(); }
Tensor new_floats(at::IntArrayRef size) { return at::empty(size, at::kFloat); }

// `body(range)` for parts of `count` rows that are worth a thread, given the numbers in a row.
template <typename F> void parallel(int64_t count, int64_t row, F &&body) {
  int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(row, 1));
  at::parallel_for(0, count, grain, [&](int64_t first, int64_t last) { body(ppo::Range{first, last}); });
}

// x (+ add) -> its sum and its RMS norm (arXiv:1910.07467).
struct Norm : torch::autograd::Function<Norm> {
  static variable_list forward(AutogradContext *context, const Tensor &x0, const Maybe &add0, const Tensor &weight,
                               double eps) {
    Tensor x = plain(x0), add = plain(add0);
    int64_t h = x.size(-1), rows = x.numel() / h;
    Tensor y = at::empty_like(x), sum = add.defined() ? at::empty_like(x) : x, rstd = new_floats({rows});
    parallel(rows, h, [&](ppo::Range range) {
      void *to = add.defined() ? sum.mutable_data_ptr() : nullptr;
      loops.norm(is_half(x), range, h, data(x), data(add), data(weight), float(eps), to, y.mutable_data_ptr(),
                 rstd.mutable_data_ptr<float>());
    });
    context->save_for_backward({sum, weight, rstd});
    context->saved_data["add"] = add.defined();
    if (!add.defined()) return {y};
    return {y, sum};
  }

  static variable_list backward(AutogradContext *context, variable_list gradients) {
    RECORD_FUNCTION("ppo::norm_backward", std::vector<c10::IValue>());
    auto saved = context->get_saved_variables();
    bool adds = context->saved_data["add"].toBool();
    Tensor sum = saved[0], weight = saved[1], rstd = saved[2];
    Tensor d_y = plain(gradients[0]), d_sum = adds ? plain(gradients[1]) : Tensor();
    int64_t h = sum.size(-1), rows = sum.numel() / h;
    if (!d_y.defined()) return {d_sum, adds ? d_sum : Tensor(), Tensor(), Tensor()};
    // One partial sum per part of the rows, whose number depends on that of the threads alone.
    int64_t parts = std::max<int64_t>(1, std::min<int64_t>(at::get_num_threads(), rows));
    int64_t each = (rows + parts - 1) / parts;
    Tensor d_x = at::empty_like(sum), d_weight = at::zeros({parts, h}, at::kFloat);
    at::parallel_for(0, parts, 1, [&](int64_t first, int64_t last) {
      for (int64_t part = first; part < last; part++) {
        ppo::Range range{part * each, std::min((part + 1) * each, rows)};
        loops.norm_backward(is_half(sum), range, h, data(d_y), data(d_sum), data(sum), data(weight), floats(rstd),
                            d_x.mutable_data_ptr(), d_weight.mutable_data_ptr<float>() + part * h);
      }
    });
    return {d_x, adds ? d_x : Tensor(), d_weight.sum(0).to(weight.scalar_type()), Tensor()};
  }
};

// silu(gate) * up (arXiv:2002.05202).
struct Swiglu : torch::autograd::Function<Swiglu> {
  static Tensor forward(AutogradContext *context, const Tensor &gate0, const Tensor &up0) {
    Tensor gate = plain(gate0), up = plain(up0), y = at::empty_like(gate);
    parallel(gate.numel(), 1, [&](ppo::Range range) {
      loops.swiglu(is_half(gate), range, data(gate), data(up), y.mutable_data_ptr());
    });
    context->save_for_backward({gate, up});
    return y;
  }

  static variable_list backward(AutogradContext *context, variable_list gradients) {
    RECORD_FUNCTION("ppo::swiglu_backward", std::vector<c10::IValue>());
    auto saved = context->get_saved_variables();
    Tensor gate = saved[0], up = saved[1], d_y = plain(gradients[0]);
    Tensor d_gate = at::empty_like(gate), d_up = at::empty_like(up);
    parallel(gate.numel(), 1, [&](ppo::Range range) {
      loops.swiglu_backward(is_half(gate), range, data(d_y), data(gate), data(up), d_gate.mutable_data_ptr(),
                            d_up.mutable_data_ptr());
    });
    return {d_gate, d_up};
  }
};

// [b, t, heads * d] -> [b, heads, t, d], each pair (x[i], x[i + d / 2]) turned by its angle (arXiv:2104.09864), and
// scaled. cos and sin: [b or 1, t, d / 2] float, or undefined.
struct Split : torch::autograd::Function<Split> {
  static Tensor run(bool backward, const Tensor &from, int64_t b, int64_t t, int64_t heads, int64_t d,
                    const Tensor &cos, const Tensor &sin, double scale) {
    Tensor to = backward ? at::empty({b, t, heads * d}, from.options()) : at::empty({b, heads, t, d}, from.options());
    bool shared = cos.defined() && cos.size(0) == 1;
    parallel(b * t, heads * d, [&](ppo::Range range) {
      loops.split(is_half(from), backward, range, t, heads, d, data(from), floats(cos), floats(sin), shared,
                  float(scale), to.mutable_data_ptr());
    });
    return to;
  }

  static Tensor forward(AutogradContext *context, const Tensor &x0, int64_t heads, const Maybe &cos0,
                        const Maybe &sin0, double scale) {
    Tensor x = plain(x0), cos = plain(cos0), sin = plain(sin0);
    int64_t b = x.size(0), t = x.size(1), d = x.size(2) / heads;
    context->saved_data["shape"] = std::vector<int64_t>{b, t, heads, d};
    context->saved_data["scale"] = scale;
    context->save_for_backward({cos, sin});
    return run(false, x, b, t, heads, d, cos, sin, scale);
  }

  static variable_list backward(AutogradContext *context, variable_list gradients) {
    RECORD_FUNCTION("ppo::split_backward", std::vector<c10::IValue>());
    auto saved = context->get_saved_variables();
    auto shape = context->saved_data["shape"].toIntVector();
    double scale = context->saved_data["scale"].toDouble();
    Tensor d_x = run(true, plain(gradients[0]), shape[0], shape[1], shape[2], shape[3], saved[0], saved[1], scale);
    return {d_x, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

// Causal attention of scaled queries [b, n, t, d] to keys and values [b, k, s, d], whose last t are of the same tokens;
// the n / k heads of a group are rows of one product. Returns [b, t, n * d].
struct Attend : torch::autograd::Function<Attend> {
  static Tensor merge(const Tensor &heads, int64_t b, int64_t n, int64_t t, int64_t d) {
    Tensor none;
    return Split::run(true, heads, b, t, n, d, none, none, 1.0);
  }

  static Tensor forward(AutogradContext *context, const Tensor &q0, const Tensor &k0, const Tensor &v0) {
    Tensor q = plain(q0), k = plain(k0), v = plain(v0);
    int64_t b = q.size(0), n = q.size(1), t = q.size(2), d = q.size(3), heads = k.size(1), s = k.size(2);
    int64_t batch = b * heads, rows = n / heads * t;
    Tensor queries = q.view({batch, rows, d}), keys = k.view({batch, s, d}), values = v.view({batch, s, d});
    Tensor weights = at::bmm(queries, keys.transpose(1, 2)); // [batch, rows, s]
    parallel(batch * rows, s, [&](ppo::Range range) {
      loops.causal_softmax(is_half(weights), range, t, s, weights.mutable_data_ptr());
    });
    Tensor mixed = at::bmm(weights, values);
    context->save_for_backward({queries, keys, values, weights});
    context->saved_data["shape"] = std::vector<int64_t>{b, n, t, d, heads, s};
    return merge(mixed, b, n, t, d);
  }

  static variable_list backward(AutogradContext *context, variable_list gradients) {
    RECORD_FUNCTION("ppo::attend_backward", std::vector<c10::IValue>());
    auto saved = context->get_saved_variables();
    auto shape = context->saved_data["shape"].toIntVector();
    int64_t b = shape[0], n = shape[1], t = shape[2], d = shape[3], heads = shape[4], s = shape[5];
    int64_t batch = b * heads, rows = n / heads * t;
    Tensor queries = saved[0], keys = saved[1], values = saved[2], weights = saved[3], none;
    Tensor d_mixed = Split::run(false, plain(gradients[0]), b, t, n, d, none, none, 1.0).view({batch, rows, d});
    Tensor d_values = at::bmm(weights.transpose(1, 2), d_mixed);
    Tensor d_scores = at::bmm(d_mixed, values.transpose(1, 2));
    parallel(batch * rows, s, [&](ppo::Range range) {
      loops.causal_softmax_backward(is_half(weights), range, t, s, data(weights), d_scores.mutable_data_ptr());
    });
    Tensor d_queries = at::bmm(d_scores, keys), d_keys = at::bmm(d_scores.transpose(1, 2), queries);
    return {d_queries.view({b, n, t, d}), d_keys.view({b, heads, s, d}), d_values.view({b, heads, s, d})};
  }
};

// Log-probs of targets [n], and entropies, of hidden states [n, h] under a vocabulary head [v, h] at a temperature.
// Logits are kept in the compute kind, and their gradient takes their place.
struct Vocabulary : torch::autograd::Function<Vocabulary> {
  static variable_list forward(AutogradContext *context, const Tensor &hidden, const Tensor &head,
                               const Tensor &targets0, double scale) {
    Tensor logits = at::mm(hidden, head.t()), targets = plain(targets0);
    int64_t n = logits.size(0), v = logits.size(1);
    Tensor log_prob = new_floats({n}), entropy = new_floats({n}), log_sum = new_floats({n});
    parallel(n, v, [&](ppo::Range range) {
      loops.vocabulary(is_half(logits), range, v, data(logits), targets.const_data_ptr<int64_t>(), float(scale),
                       log_prob.mutable_data_ptr<float>(), entropy.mutable_data_ptr<float>(),
                       log_sum.mutable_data_ptr<float>());
    });
    context->save_for_backward({hidden, head, targets});
    // Only this function ever sees them, so that they may be overwritten.
    context->saved_data["logits"] = logits;
    context->saved_data["entropy"] = entropy.detach();
    context->saved_data["log_sum"] = log_sum;
    context->saved_data["scale"] = scale;
    return {log_prob, entropy};
  }

  static variable_list backward(AutogradContext *context, variable_list gradients) {
    RECORD_FUNCTION("ppo::vocabulary_backward", std::vector<c10::IValue>());
    auto saved = context->get_saved_variables();
    Tensor hidden = saved[0], head = saved[1], targets = saved[2];
    Tensor logits = context->saved_data["logits"].toTensor();
    TORCH_CHECK(logits.defined(), "the backward pass of a vocabulary head can be done once");
    context->saved_data["logits"] = Tensor();
    Tensor entropy = context->saved_data["entropy"].toTensor(), log_sum = context->saved_data["log_sum"].toTensor();
    Tensor d_log_prob = plain(gradients[0]), d_entropy = plain(gradients[1]);
    int64_t n = logits.size(0), v = logits.size(1);
    float scale = float(context->saved_data["scale"].toDouble());
    parallel(n, v, [&](ppo::Range range) {
      loops.vocabulary_backward(is_half(logits), range, v, logits.mutable_data_ptr(),
                                targets.const_data_ptr<int64_t>(), scale, floats(entropy), floats(log_sum),
                                floats(d_log_prob), floats(d_entropy));
    });
    return {at::mm(logits, head), at::mm(logits.t(), hidden), Tensor(), Tensor()};
  }
};

Maybe given(Tensor *x) { return x ? Maybe(*x) : Maybe(); }
Tensor *owned(Tensor x) { return new Tensor(std::move(x)); }
} // namespace

extern "C" {

char *ppo_norm(Tensor *x, Tensor *add, Tensor *weight, double eps, Tensor **y, Tensor **sum) {
  return guarded([&] {
    RECORD_FUNCTION("ppo::norm", std::vector<c10::IValue>());
    auto all = Norm::apply(*x, given(add), *weight, eps);
    *y = owned(all[0]);
    if (add) *sum = owned(all[1]);
  });
}

char *ppo_swiglu(Tensor *gate, Tensor *up, Tensor **y) {
  return guarded([&] {
    RECORD_FUNCTION("ppo::swiglu", std::vector<c10::IValue>());
    *y = owned(Swiglu::apply(*gate, *up));
  });
}

char *ppo_split(Tensor *x, int64_t heads, Tensor *cos, Tensor *sin, double scale, Tensor **y) {
  return guarded([&] {
    RECORD_FUNCTION("ppo::split", std::vector<c10::IValue>());
    *y = owned(Split::apply(*x, heads, given(cos), given(sin), scale));
  });
}

char *ppo_attend(Tensor *q, Tensor *k, Tensor *v, Tensor **y) {
  return guarded([&] {
    RECORD_FUNCTION("ppo::attend", std::vector<c10::IValue>());
    *y = owned(Attend::apply(*q, *k, *v));
  });
}

char *ppo_vocabulary(Tensor *hidden, Tensor *head, Tensor *targets, double scale, Tensor **log_prob,
                     Tensor **entropy) {
  return guarded([&] {
    RECORD_FUNCTION("ppo::vocabulary", std::vector<c10::IValue>());
    auto both = Vocabulary::apply(*hidden, *head, *targets, scale);
    *log_prob = owned(both[0]);
    *entropy = owned(both[1]);
  });
}

char *ppo_sample(Tensor *logits0, int64_t limit, double scale, Tensor *uniform0, Tensor **token, Tensor **log_prob) {
  return guarded([&] {
    RECORD_FUNCTION("ppo::sample", std::vector<c10::IValue>());
    Tensor logits = plain(*logits0), uniform = plain(given(uniform0));
    int64_t rows = logits.size(0), v = logits.size(1);
    Tensor tokens = at::empty({rows}, at::kLong), log_probs = new_floats({rows});
    parallel(rows, v, [&](ppo::Range range) {
      loops.sample(is_half(logits), range, v, limit, data(logits), float(scale), floats(uniform),
                   tokens.mutable_data_ptr<int64_t>(), log_probs.mutable_data_ptr<float>());
    });
    *token = owned(tokens);
    *log_prob = owned(log_probs);
  });
}

char *ppo_attend_one(Tensor *q0, Tensor *k0, Tensor *v0, Tensor *cos0, Tensor *sin0, Tensor *keys, Tensor *values,
                     Tensor *place0, Tensor *start0, int64_t slot, Tensor **y) {
  return guarded([&] {
    RECORD_FUNCTION("ppo::attend_one", std::vector<c10::IValue>());
    Tensor q = plain(*q0), k = plain(*k0), v = plain(*v0), cos = plain(*cos0), sin = plain(*sin0);
    Tensor place = plain(*place0), start = plain(*start0);
    TORCH_CHECK(keys->is_contiguous() && values->is_contiguous(), "the cache has gaps");
    int64_t rows = q.size(0), heads = keys->size(1), slots = keys->size(2), d = keys->size(3), n = q.size(-1) / d;
    Tensor mixed = at::empty_like(q);
    parallel(rows * heads, n / heads * (slot + 1) * d / 4, [&](ppo::Range range) {
      loops.attend_one(is_half(q), range, n, heads, d, slots, slot, place.const_data_ptr<int64_t>(),
                       start.const_data_ptr<int64_t>(), data(q), data(k), data(v), floats(cos), floats(sin),
                       keys->mutable_data_ptr(), values->mutable_data_ptr(),
                       mixed.mutable_data_ptr());
    });
    *y = owned(mixed);
  });
}
}
