// Loops over rows of numbers on a CPU, which libtorch has only as several operations with a pass over memory each.
//
// kernels.cpp is compiled once for each set of instructions; `table` chooses by what libtorch itself uses, so that
// ATEN_CPU_CAPABILITY holds for both. Numbers are stored as float or bfloat16 (`half`) and computed in float. Each
// function does the rows first..last of its tensors, which are contiguous; callers divide rows among threads.

#pragma once
#include <cstdint>

namespace ppo {

struct Range {
  int64_t first, last;
};

struct Kernels {
  // y = s / rms(s) * weight for rows of h numbers, s = x + add; without `add`, s is x and `sum` is not written.
  void (*norm)(bool half, Range rows, int64_t h, const void *x, const void *add, const void *weight, float eps,
               void *sum, void *y, float *rstd);
  // The gradient of s: that of y through the norm, plus that of s itself if there is one; adds to d_weight [h].
  void (*norm_backward)(bool half, Range rows, int64_t h, const void *d_y, const void *d_sum, const void *s,
                        const void *weight, const float *rstd, void *d_s, float *d_weight);
  // silu(gate) * up, number by number; and its gradients.
  void (*swiglu)(bool half, Range numbers, const void *gate, const void *up, void *y);
  void (*swiglu_backward)(bool half, Range numbers, const void *d_y, const void *gate, const void *up, void *d_gate,
                          void *d_up);
  // Heads apart, rotated and scaled: tokens x [b * t, heads * d] become y [b, heads, t, d]. cos and sin [positions,
  // d / 2] are of each token, or of each of t if `shared`; null: no rotation. Backwards: x from y, turned back.
  void (*split)(bool half, bool backward, Range tokens, int64_t t, int64_t heads, int64_t d, const void *from,
                const float *cos, const float *sin, bool shared, float scale, void *to);
  // Softmax over the first of `s` scores, in place: row r sees s - t + r % t + 1 of them, the rest become 0.
  void (*causal_softmax)(bool half, Range rows, int64_t t, int64_t s, void *scores);
  // Its gradient, in place of that of the weights.
  void (*causal_softmax_backward)(bool half, Range rows, int64_t t, int64_t s, const void *weights, void *gradient);
  // Of rows of `v` logits times `scale`: log-prob of the target, entropy, log of the sum of exponentials.
  void (*vocabulary)(bool half, Range rows, int64_t v, const void *logits, const int64_t *targets, float scale,
                     float *log_prob, float *entropy, float *log_sum);
  // The gradient of the logits, in their place; either of the two gradients may be null.
  void (*vocabulary_backward)(bool half, Range rows, int64_t v, void *logits, const int64_t *targets, float scale,
                              const float *entropy, const float *log_sum, const float *d_log_prob,
                              const float *d_entropy);
  // Draws from the first `limit` of rows of `v` logits times `scale`: the token at which the cumulative distribution
  // passes `uniform`, or the most probable one if that is null; with its log-prob among all.
  void (*sample)(bool half, Range rows, int64_t v, int64_t limit, const void *logits, float scale,
                 const float *uniform, int64_t *token, float *log_prob);
  // One token of each row attends. Its queries [n * d] and keys [k * d] are turned by the cos and sin [d / 2] of the
  // row, its keys and values are put in slot `slot` of its caches, [k, d, slots] and [k, slots, d], which are number
  // `place` of all, and the queries attend to the slots up to there. Work is divided by pairs: row * k + key head.
  void (*attend_one)(bool half, Range pairs, int64_t n, int64_t k, int64_t d, int64_t slots, const int64_t *place,
                     const int64_t *slot, const void *q, const void *new_k, const void *new_v, const float *cos,
                     const float *sin, void *keys, void *values, void *y);
};

const Kernels &kernels();
} // namespace ppo
