// The loops of kernels.h. No call leaves this file, so that the compiler makes vector code of all of them.

#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>
#include <vector>

#ifndef PPO_TABLE
#error PPO_TABLE names the table of this set of instructions
#endif

namespace {
using ppo::Range;

struct Half {
  uint16_t bits;
};

inline float get(const float *p) { return *p; }
inline float get(const Half *p) {
  uint32_t bits = uint32_t(p->bits) << 16;
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}
inline void put(float *p, float x) { *p = x; }
// Rounded to the nearest, ties to even.
inline void put(Half *p, float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  p->bits = uint16_t(x == x ? rounded : 0x7fc0);
}

// e^x within 2 units in the last place; 0 below -87, and what is not a number stays so.
inline float exponential(float x) {
  float clamped = x < -87.3f ? -87.3f : (x > 88.0f ? 88.0f : x);
  float n = clamped * 1.44269504f + 12582912.0f; // rounds to a whole number
  int32_t bits;
  std::memcpy(&bits, &n, 4);
  n -= 12582912.0f;
  float r = clamped - n * 0.693359375f;
  r += n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  float y = p * r * r + r + 1.0f;
  int32_t power = (bits + 127) << 23; // the low bits of the sum are n
  float scale;
  std::memcpy(&scale, &power, 4);
  y *= scale;
  y = x < -87.3f ? 0.0f : y;
  y = x > 88.7f ? std::numeric_limits<float>::infinity() : y;
  y = x == x ? y : x;
  return y;
}

// Which of float and bfloat16 a body works on.
template <typename F> inline void by_kind(bool half, F &&body) {
  if (half) body(Half{}); else body(float{});
}
#define AS(T, p) static_cast<const T *>(p)
#define TO(T, p) static_cast<T *>(p)

template <typename T>
void norm_rows(Range rows, int64_t h, const T *x, const T *add, const T *weight, float eps, T *sum, T *y, float *rstd) {
  for (int64_t row = rows.first; row < rows.last; row++) {
    const T *a = x + row * h;
    float squares = 0;
    if (add) {
      const T *b = add + row * h;
      T *s = sum + row * h;
#pragma omp simd reduction(+ : squares)
      for (int64_t i = 0; i < h; i++) {
        put(s + i, get(a + i) + get(b + i));
        float v = get(s + i);
        squares += v * v;
      }
      a = s;
    } else {
#pragma omp simd reduction(+ : squares)
      for (int64_t i = 0; i < h; i++) squares += get(a + i) * get(a + i);
    }
    float r = 1.0f / std::sqrt(squares / float(h) + eps);
    rstd[row] = r;
    T *out = y + row * h;
#pragma omp simd
    for (int64_t i = 0; i < h; i++) put(out + i, get(a + i) * r * get(weight + i));
  }
}

void norm(bool half, Range rows, int64_t h, const void *x, const void *add, const void *weight, float eps, void *sum,
          void *y, float *rstd) {
  by_kind(half, [&](auto kind) {
    using T = decltype(kind);
    norm_rows(rows, h, AS(T, x), AS(T, add), AS(T, weight), eps, TO(T, sum), TO(T, y), rstd);
  });
}

template <typename T>
void norm_backward_rows(Range rows, int64_t h, const T *d_y, const T *d_sum, const T *s, const T *weight,
                        const float *rstd, T *d_s, float *d_weight) {
  for (int64_t row = rows.first; row < rows.last; row++) {
    const T *g = d_y + row * h, *x = s + row * h;
    float r = rstd[row], dot = 0;
#pragma omp simd reduction(+ : dot)
    for (int64_t i = 0; i < h; i++) {
      float scaled = get(x + i) * r;
      d_weight[i] += get(g + i) * scaled;
      dot += get(g + i) * get(weight + i) * scaled;
    }
    dot /= float(h);
    T *out = d_s + row * h;
    const T *own = d_sum ? d_sum + row * h : nullptr;
    if (own) {
#pragma omp simd
      for (int64_t i = 0; i < h; i++)
        put(out + i, r * (get(g + i) * get(weight + i) - get(x + i) * r * dot) + get(own + i));
    } else {
#pragma omp simd
      for (int64_t i = 0; i < h; i++) put(out + i, r * (get(g + i) * get(weight + i) - get(x + i) * r * dot));
    }
  }
}

void norm_backward(bool half, Range rows, int64_t h, const void *d_y, const void *d_sum, const void *s,
                   const void *weight, const float *rstd, void *d_s, float *d_weight) {
  by_kind(half, [&](auto kind) {
    using T = decltype(kind);
    norm_backward_rows(rows, h, AS(T, d_y), AS(T, d_sum), AS(T, s), AS(T, weight), rstd, TO(T, d_s), d_weight);
  });
}

void swiglu(bool half, Range numbers, const void *gate, const void *up, void *y) {
  by_kind(half, [&](auto kind) {
    using T = decltype(kind);
    const T *g = AS(T, gate), *u = AS(T, up);
    T *out = TO(T, y);
#pragma omp simd
    for (int64_t i = numbers.first; i < numbers.last; i++) {
      float x = get(g + i);
      put(out + i, x / (1.0f + exponential(-x)) * get(u + i));
    }
  });
}

void swiglu_backward(bool half, Range numbers, const void *d_y, const void *gate, const void *up, void *d_gate,
                     void *d_up) {
  by_kind(half, [&](auto kind) {
    using T = decltype(kind);
    const T *d = AS(T, d_y), *g = AS(T, gate), *u = AS(T, up);
    T *dg = TO(T, d_gate), *du = TO(T, d_up);
#pragma omp simd
    for (int64_t i = numbers.first; i < numbers.last; i++) {
      float x = get(g + i), dy = get(d + i);
      float sigmoid = 1.0f / (1.0f + exponential(-x));
      put(du + i, dy * x * sigmoid);
      put(dg + i, dy * get(u + i) * sigmoid * (1.0f + x * (1.0f - sigmoid)));
    }
  });
}

void split(bool half, bool backward, Range tokens, int64_t t, int64_t heads, int64_t d, const void *from,
           const float *cos, const float *sin, bool shared, float scale, void *to) {
  by_kind(half, [&](auto kind) {
    using T = decltype(kind);
    const T *in = AS(T, from);
    T *out = TO(T, to);
    int64_t pairs = d / 2;
    for (int64_t token = tokens.first; token < tokens.last; token++) {
      int64_t b = token / t, at = token % t;
      for (int64_t head = 0; head < heads; head++) {
        int64_t flat = (token * heads + head) * d, apart = ((b * heads + head) * t + at) * d;
        const T *x = in + (backward ? apart : flat);
        T *y = out + (backward ? flat : apart);
        if (!cos) {
#pragma omp simd
          for (int64_t i = 0; i < d; i++) put(y + i, get(x + i) * scale);
          continue;
        }
        const float *c = cos + (shared ? at : token) * pairs, *s = sin + (shared ? at : token) * pairs;
        float turn = backward ? -scale : scale;
#pragma omp simd
        for (int64_t i = 0; i < pairs; i++) {
          float a = get(x + i), z = get(x + pairs + i), cosine = c[i] * scale, sine = s[i] * turn;
          put(y + i, a * cosine - z * sine);
          put(y + pairs + i, z * cosine + a * sine);
        }
      }
    }
  });
}

void causal_softmax(bool half, Range rows, int64_t t, int64_t s, void *scores) {
  by_kind(half, [&](auto kind) {
    using T = decltype(kind);
    std::vector<float> e(s);
    for (int64_t row = rows.first; row < rows.last; row++) {
      T *x = TO(T, scores) + row * s;
      int64_t seen = s - t + row % t + 1;
      float most = -std::numeric_limits<float>::infinity(), total = 0;
#pragma omp simd reduction(max : most)
      for (int64_t i = 0; i < seen; i++) most = std::max(most, get(x + i));
#pragma omp simd reduction(+ : total)
      for (int64_t i = 0; i < seen; i++) {
        e[i] = exponential(get(x + i) - most);
        total += e[i];
      }
      float share = 1.0f / total;
#pragma omp simd
      for (int64_t i = 0; i < seen; i++) put(x + i, e[i] * share);
      for (int64_t i = seen; i < s; i++) put(x + i, 0.0f);
    }
  });
}

void causal_softmax_backward(bool half, Range rows, int64_t t, int64_t s, const void *weights, void *gradient) {
  by_kind(half, [&](auto kind) {
    using T = decltype(kind);
    for (int64_t row = rows.first; row < rows.last; row++) {
      const T *p = AS(T, weights) + row * s;
      T *g = TO(T, gradient) + row * s;
      int64_t seen = s - t + row % t + 1;
      float dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t i = 0; i < seen; i++) dot += get(p + i) * get(g + i);
#pragma omp simd
      for (int64_t i = 0; i < seen; i++) put(g + i, get(p + i) * (get(g + i) - dot));
      for (int64_t i = seen; i < s; i++) put(g + i, 0.0f);
    }
  });
}

// The largest of n numbers, or what is not a number if one is not.
template <typename T> float largest(const T *x, int64_t n) {
  float most = -std::numeric_limits<float>::infinity();
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < n; i++) most = std::max(most, get(x + i));
  return most;
}

void vocabulary(bool half, Range rows, int64_t v, const void *logits, const int64_t *targets, float scale,
                float *log_prob, float *entropy, float *log_sum) {
  by_kind(half, [&](auto kind) {
    using T = decltype(kind);
    for (int64_t row = rows.first; row < rows.last; row++) {
      const T *x = AS(T, logits) + row * v;
      float most = largest(x, v) * scale, total = 0, weighted = 0;
#pragma omp simd reduction(+ : total, weighted)
      for (int64_t i = 0; i < v; i++) {
        float below = get(x + i) * scale - most, e = exponential(below);
        total += e;
        weighted += e * std::max(below, -1e4f);
      }
      float log_total = std::log(total);
      log_sum[row] = most + log_total;
      log_prob[row] = get(x + targets[row]) * scale - most - log_total;
      entropy[row] = log_total - weighted / total;
    }
  });
}

void vocabulary_backward(bool half, Range rows, int64_t v, void *logits, const int64_t *targets, float scale,
                         const float *entropy, const float *log_sum, const float *d_log_prob, const float *d_entropy) {
  by_kind(half, [&](auto kind) {
    using T = decltype(kind);
    for (int64_t row = rows.first; row < rows.last; row++) {
      T *x = TO(T, logits) + row * v;
      float lse = log_sum[row], h = entropy[row];
      float chosen = d_log_prob ? d_log_prob[row] * scale : 0.0f, spread = d_entropy ? d_entropy[row] * scale : 0.0f;
      float target = get(x + targets[row]) * scale - lse;
#pragma omp simd
      for (int64_t i = 0; i < v; i++) {
        float log_p = std::max(get(x + i) * scale - lse, -1e4f), p = exponential(log_p);
        put(x + i, -p * (chosen + spread * (log_p + h)));
      }
      float p = exponential(target);
      put(x + targets[row], chosen - p * (chosen + spread * (std::max(target, -1e4f) + h)));
    }
  });
}

template <typename T> float sum_of_exponentials(const T *x, int64_t n, float scale, float most) {
  float total = 0;
#pragma omp simd reduction(+ : total)
  for (int64_t i = 0; i < n; i++) {
    float below = get(x + i) * scale - most;
    total += exponential(below);
  }
  return total;
}

void sample(bool half, Range rows, int64_t v, int64_t limit, const void *logits, float scale, const float *uniform,
            int64_t *token, float *log_prob) {
  constexpr int64_t BLOCK = 512;
  by_kind(half, [&](auto kind) {
    using T = decltype(kind);
    std::vector<float> blocks((v + BLOCK - 1) / BLOCK);
    for (int64_t row = rows.first; row < rows.last; row++) {
      const T *x = AS(T, logits) + row * v;
      float most = largest(x, v) * scale;
      double all = 0, allowed = 0;
      for (int64_t block = 0, first = 0; first < v; block++, first += BLOCK) {
        int64_t last = std::min(first + BLOCK, v), cut = std::min(std::max(limit, first), last);
        float own = sum_of_exponentials(x + first, cut - first, scale, most);
        blocks[block] = own;
        allowed += own;
        all += double(own) + sum_of_exponentials(x + cut, last - cut, scale, most);
      }
      int64_t pick = 0;
      if (uniform) {
        // Just below the total there still is a token that has mass.
        double share = std::min(double(uniform[row]), 1.0 - 1e-7) * allowed, before = 0;
        int64_t block = 0, last_block = (limit - 1) / BLOCK;
        while (block < last_block && !(before + blocks[block] > share)) before += blocks[block++];
        // Rounding may leave the share past the end: the last token that has mass then.
        int64_t end = std::min((block + 1) * BLOCK, limit);
        pick = -1;
        for (int64_t i = block * BLOCK; i < end; i++) {
          float e = exponential(get(x + i) * scale - most);
          before += e;
          if (e > 0) pick = i;
          if (before > share) break;
        }
        for (int64_t i = block * BLOCK - 1; pick < 0 && i >= 0; i--)
          if (exponential(get(x + i) * scale - most) > 0) pick = i;
        pick = pick < 0 ? limit - 1 : pick;
      } else {
        float best = largest(x, limit);
        while (pick + 1 < limit && get(x + pick) != best) pick++;
      }
      token[row] = pick;
      log_prob[row] = float(double(get(x + pick) * scale - most) - std::log(all));
    }
  });
}

// to[g][j] = sum over i of a[g][i] b[i][j], for G rows g, `inner` i and `count` j; rows of a are `a_stride` apart,
// those of b `b_stride`, those of `to` `to_stride`. A block of columns stays in registers.
template <int G, int B, typename T>
void product_block(int64_t inner, const float *a, int64_t a_stride, const T *b, int64_t b_stride, float *to,
                   int64_t to_stride) {
  float sums[G][B] = {};
  for (int64_t i = 0; i < inner; i++) {
#pragma GCC unroll 8
    for (int g = 0; g < G; g++) {
      float factor = a[g * a_stride + i];
#pragma omp simd
      for (int j = 0; j < B; j++) sums[g][j] += factor * get(b + i * b_stride + j);
    }
  }
  for (int g = 0; g < G; g++)
    for (int j = 0; j < B; j++) to[g * to_stride + j] = sums[g][j];
}

template <int G, typename T>
void products(int64_t count, int64_t inner, const float *a, int64_t a_stride, const T *b, int64_t b_stride, float *to,
              int64_t to_stride) {
#if defined(__AVX512F__)
  constexpr int WIDE = 64, VECTOR = 16;
#elif defined(__AVX__)
  constexpr int WIDE = 24, VECTOR = 8;
#else
  constexpr int WIDE = 8, VECTOR = 4;
#endif
  int64_t j = 0;
  for (; j + WIDE <= count; j += WIDE) product_block<G, WIDE>(inner, a, a_stride, b + j, b_stride, to + j, to_stride);
  for (; j + VECTOR <= count; j += VECTOR)
    product_block<G, VECTOR>(inner, a, a_stride, b + j, b_stride, to + j, to_stride);
  for (; j < count; j++) product_block<G, 1>(inner, a, a_stride, b + j, b_stride, to + j, to_stride);
}

// Calls `body(size, first)` for up to four of `count` rows at a time, `size` being known to the compiler.
template <typename F> void in_groups(int64_t count, F &&body) {
  int64_t first = 0;
  for (; first + 4 <= count; first += 4) body(std::integral_constant<int, 4>(), first);
  switch (count - first) {
  case 3: body(std::integral_constant<int, 3>(), first); break;
  case 2: body(std::integral_constant<int, 2>(), first); break;
  case 1: body(std::integral_constant<int, 1>(), first); break;
  }
}

void attend_one(bool half, Range pairs, int64_t n, int64_t k, int64_t d, int64_t slots, const int64_t *place,
                const int64_t *slot, const void *q, const void *new_k, const void *new_v, const float *cos,
                const float *sin, void *keys, void *values, void *y) {
  by_kind(half, [&](auto kind) {
    using T = decltype(kind);
    int64_t group = n / k, rotated = d / 2;
    std::vector<float> queries(group * d), scores(group * slots), mixed(group * d);
    float scale = 1.0f / std::sqrt(float(d));
    for (int64_t pair = pairs.first; pair < pairs.last; pair++) {
      int64_t row = pair / k, head = pair % k, count = slot[row] + 1;
      const float *c = cos + row * rotated, *s = sin + row * rotated;
      int64_t cache = (place[row] * k + head) * slots * d;
      T *key = TO(T, keys) + cache, *value = TO(T, values) + cache;
      {
        const T *from = AS(T, new_k) + pair * d, *other = AS(T, new_v) + pair * d;
        T *to = key + count - 1; // keys are columns
        for (int64_t i = 0; i < rotated; i++) {
          float a = get(from + i), z = get(from + rotated + i);
          put(to + i * slots, a * c[i] - z * s[i]);
          put(to + (rotated + i) * slots, z * c[i] + a * s[i]);
        }
        std::memcpy(value + (count - 1) * d, other, d * sizeof(T));
      }
      for (int64_t g = 0; g < group; g++) {
        const T *from = AS(T, q) + (row * n + head * group + g) * d;
        float *to = queries.data() + g * d;
        for (int64_t i = 0; i < rotated; i++) {
          float a = get(from + i), z = get(from + rotated + i);
          T turned[2];
          put(turned, a * c[i] - z * s[i]);
          put(turned + 1, z * c[i] + a * s[i]);
          to[i] = get(turned) * scale;
          to[rotated + i] = get(turned + 1) * scale;
        }
      }
      in_groups(group, [&](auto size, int64_t g) {
        products<size>(count, d, queries.data() + g * d, d, key, slots, scores.data() + g * slots, slots);
      });
      for (int64_t g = 0; g < group; g++) {
        float *e = scores.data() + g * slots, most = largest(e, count), total = 0;
#pragma omp simd reduction(+ : total)
        for (int64_t j = 0; j < count; j++) {
          e[j] = exponential(e[j] - most);
          total += e[j];
        }
        float share = 1.0f / total;
#pragma omp simd
        for (int64_t j = 0; j < count; j++) e[j] *= share;
      }
      in_groups(group, [&](auto size, int64_t g) {
        products<size>(d, count, scores.data() + g * slots, slots, value, d, mixed.data() + g * d, d);
      });
      T *out = TO(T, y) + (row * n + head * group) * d;
#pragma omp simd
      for (int64_t i = 0; i < group * d; i++) put(out + i, mixed[i]);
    }
  });
}
} // namespace

namespace ppo {
extern const Kernels PPO_TABLE;
const Kernels PPO_TABLE = {norm,    norm_backward,  swiglu,
                           swiglu_backward, split,  causal_softmax,
                           causal_softmax_backward, vocabulary, vocabulary_backward,
                           sample,  attend_one};
} // namespace ppo
