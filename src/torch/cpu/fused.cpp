// The loops of kernels.h as operations on tensors of the CPU, with their backward passes, divided among libtorch's
// threads. All tensors are float or bfloat16, and what a loop reads is made contiguous first.

#include "../guarded.h"
#include "kernels.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/record_function.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <utility>
#include <vector>

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

// A range of tokens in a row that attend causally to each other, after all of a prefix elsewhere in the row.
struct Branch {
  int64_t prefix, prefix_length, first, length;
};

// Causal attention of a row of branches, by products: scaled queries [n, t, d], keys and values [k, t, d] become
// [t, n * d]. The n / k heads of a group are rows of one product. Branches that share a prefix are neighbours, and the
// prefix is the branch before them.
struct Attend : torch::autograd::Function<Attend> {
  // Runs of branches that touch the same keys, each of which one thread may do.
  static std::vector<std::pair<size_t, size_t>> groups(const std::vector<Branch> &branches) {
    std::vector<std::pair<size_t, size_t>> all;
    for (size_t i = 0; i < branches.size(); i++) {
      if (i > 0 && branches[i].prefix_length > 0) all.back().second = i + 1;
      else all.emplace_back(i, i + 1);
    }
    return all;
  }

  template <typename F> static void each_group(const std::vector<std::pair<size_t, size_t>> &all, F &&body) {
    // Many small products run best side by side; a few large ones divide themselves.
    bool beside = int64_t(all.size()) >= 4 * at::get_num_threads();
    auto some = [&](int64_t first, int64_t last) {
      at::NoGradGuard no_grad;
      for (int64_t group = first; group < last; group++)
        for (size_t i = all[group].first; i < all[group].second; i++) body(i);
    };
    if (beside) at::parallel_for(0, int64_t(all.size()), 1, some);
    else some(0, int64_t(all.size()));
  }

  // The heads of a branch as rows: [k, n / k * length, d] of [n, t, d].
  static Tensor rows(const Tensor &x, int64_t k, const Branch &at) {
    return x.narrow(1, at.first, at.length).reshape({k, -1, x.size(2)});
  }

  // What a branch sees of keys or values [k, t, d]: [k, prefix + length, d].
  static Tensor seen(const Tensor &x, const Branch &at) {
    Tensor own = x.narrow(1, at.first, at.length);
    return at.prefix_length ? at::cat({x.narrow(1, at.prefix, at.prefix_length), own}, 1) : own;
  }

  static Tensor forward(AutogradContext *context, const Tensor &q0, const Tensor &k0, const Tensor &v0,
                        const std::vector<Branch> &branches) {
    Tensor q = plain(q0).detach(), k = plain(k0).detach(), v = plain(v0).detach();
    int64_t n = q.size(0), t = q.size(1), d = q.size(2), heads = k.size(0), group = n / heads;
    Tensor y = at::empty({t, n * d}, q.options());
    std::vector<Tensor> weights(branches.size());
    each_group(groups(branches), [&](size_t i) {
      const Branch &at = branches[i];
      int64_t s = at.prefix_length + at.length, count = heads * group * at.length;
      Tensor own = at::bmm(rows(q, heads, at), seen(k, at).transpose(1, 2)); // [k, group * length, s]
      parallel(count, s, [&](ppo::Range range) {
        loops.causal_softmax(is_half(own), range, at.length, s, own.mutable_data_ptr());
      });
      Tensor mixed = at::bmm(own, seen(v, at));
      y.narrow(0, at.first, at.length).view({at.length, n, d}).copy_(mixed.view({n, at.length, d}).transpose(0, 1));
      weights[i] = own;
    });
    context->save_for_backward({q, k, v});
    context->saved_data["weights"] = weights;
    std::vector<int64_t> flat;
    for (const Branch &at : branches) flat.insert(flat.end(), {at.prefix, at.prefix_length, at.first, at.length});
    context->saved_data["branches"] = flat;
    return y;
  }

  static variable_list backward(AutogradContext *context, variable_list gradients) {
    RECORD_FUNCTION("ppo::attend_backward", std::vector<c10::IValue>());
    auto saved = context->get_saved_variables();
    Tensor q = saved[0], k = saved[1], v = saved[2], d_y = plain(gradients[0]);
    auto weights = context->saved_data["weights"].toTensorVector();
    auto flat = context->saved_data["branches"].toIntVector();
    std::vector<Branch> branches;
    for (size_t i = 0; i < flat.size(); i += 4) branches.push_back({flat[i], flat[i + 1], flat[i + 2], flat[i + 3]});
    int64_t n = q.size(0), d = q.size(2), heads = k.size(0), group = n / heads;
    Tensor d_q = at::empty_like(q), d_k = at::zeros(k.sizes(), at::kFloat), d_v = at::zeros(v.sizes(), at::kFloat);
    each_group(groups(branches), [&](size_t i) {
      const Branch &at = branches[i];
      int64_t s = at.prefix_length + at.length, count = heads * group * at.length;
      auto add = [&](const Tensor &all, const Tensor &own) { // [k, t, d] += [k, s, d]
        if (at.prefix_length) all.narrow(1, at.prefix, at.prefix_length).add_(own.narrow(1, 0, at.prefix_length));
        all.narrow(1, at.first, at.length).add_(own.narrow(1, at.prefix_length, at.length));
      };
      Tensor d_mixed = d_y.narrow(0, at.first, at.length).view({at.length, n, d}).transpose(0, 1);
      d_mixed = d_mixed.reshape({heads, group * at.length, d});
      add(d_v, at::bmm(weights[i].transpose(1, 2), d_mixed));
      Tensor d_scores = at::bmm(d_mixed, seen(v, at).transpose(1, 2));
      parallel(count, s, [&](ppo::Range range) {
        loops.causal_softmax_backward(is_half(d_scores), range, at.length, s, data(weights[i]),
                                      d_scores.mutable_data_ptr());
      });
      Tensor own = at::bmm(d_scores, seen(k, at));
      d_q.narrow(1, at.first, at.length).copy_(own.view({n, at.length, d}));
      add(d_k, at::bmm(d_scores.transpose(1, 2), rows(q, heads, at)));
    });
    context->saved_data["weights"] = std::vector<Tensor>();
    return {d_q, d_k.to(k.scalar_type()), d_v.to(v.scalar_type()), Tensor()};
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

char *ppo_attend(Tensor *q, Tensor *k, Tensor *v, const int64_t *branches, int64_t count, Tensor **y) {
  return guarded([&] {
    RECORD_FUNCTION("ppo::attend", std::vector<c10::IValue>());
    std::vector<Branch> all;
    for (int64_t i = 0; i < count; i++) {
      const int64_t *at = branches + 4 * i;
      int64_t t = q->size(1);
      TORCH_CHECK(at[0] >= 0 && at[1] >= 0 && at[0] + at[1] <= t && at[2] >= 0 && at[3] > 0 && at[2] + at[3] <= t,
                  "a branch is outside of its row");
      all.push_back({at[0], at[1], at[2], at[3]});
    }
    *y = owned(Attend::apply(*q, *k, *v, all));
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
                     Tensor *place0, Tensor *slot0, Tensor **y) {
  return guarded([&] {
    RECORD_FUNCTION("ppo::attend_one", std::vector<c10::IValue>());
    Tensor q = plain(*q0), k = plain(*k0), v = plain(*v0), cos = plain(*cos0), sin = plain(*sin0);
    Tensor place = plain(*place0), slot = plain(*slot0);
    TORCH_CHECK(keys->is_contiguous() && values->is_contiguous(), "the cache has gaps");
    int64_t rows = q.size(0), heads = values->size(1), slots = values->size(2), d = values->size(3), n = q.size(-1) / d;
    for (int64_t row = 0; row < rows; row++) {
      int64_t at = slot.const_data_ptr<int64_t>()[row];
      TORCH_CHECK(0 <= at && at < slots, "a row of the cache has no slot ", at);
    }
    Tensor mixed = at::empty_like(q);
    parallel(rows * heads, n / heads * slots * d / 4, [&](ppo::Range range) {
      loops.attend_one(is_half(q), range, n, heads, d, slots, place.const_data_ptr<int64_t>(),
                       slot.const_data_ptr<int64_t>(), data(q), data(k), data(v), floats(cos), floats(sin),
                       keys->mutable_data_ptr(), values->mutable_data_ptr(),
                       mixed.mutable_data_ptr());
    });
    *y = owned(mixed);
  });
}
}
