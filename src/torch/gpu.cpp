// What libtorch knows of GPUs, without CUDA's headers: through its registry of devices, so that this compiles
// everywhere and throws where there is no CUDA. Each function returns null, or a message that the caller frees with
// ppo_free.

#include "guarded.h"

#include <ATen/Context.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <map>
#include <string>

namespace {
namespace kineto = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

at::Device gpu(int64_t index) { return {at::kCUDA, static_cast<c10::DeviceIndex>(index)}; }
} // namespace

extern "C" {

// Whether this libtorch has CUDA, also on a machine without a GPU.
bool ppo_has_cuda() { return c10::impl::hasDeviceGuardImpl(at::kCUDA); }

// Bytes of a GPU's memory that tensors hold, now and at most so far, and that libtorch has taken for them, likewise.
char *ppo_device_memory(int64_t device, int64_t out[4]) {
  return guarded([&] {
    auto stats = c10::getDeviceAllocator(at::kCUDA)->getDeviceStats(gpu(device).index());
    auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    const auto &held = stats.allocated_bytes[all], &taken = stats.reserved_bytes[all];
    out[0] = held.current, out[1] = held.peak, out[2] = taken.current, out[3] = taken.peak;
  });
}

// Bytes of memory that a GPU has.
char *ppo_device_capacity(int64_t device, int64_t *out) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl(at::kCUDA).setDevice(gpu(device));
    *out = c10::getDeviceAllocator(at::kCUDA)->getMemoryInfo(gpu(device).index()).second;
  });
}

// A copy of a tensor of the host's in locked pages, in `out`.
char *ppo_pinned(at::Tensor *tensor, at::Tensor **out) {
  return guarded([&] { *out = new at::Tensor(tensor->pin_memory()); });
}

// Whether float32 products on a GPU may round their factors to TF32, and which fused kernels attention may use.
char *ppo_switches(bool tf32, bool flash, bool memory_efficient, bool cudnn) {
  return guarded([&] {
    auto &context = at::globalContext();
    context.setAllowTF32CuBLAS(tf32);
    context.setAllowTF32CuDNN(tf32);
    context.setSDPUseFlash(flash);
    context.setSDPUseMemEfficient(memory_efficient);
    context.setSDPUseCuDNN(cudnn);
  });
}

// Whether FlashAttention may be used.
bool ppo_flash_is_allowed() { return at::globalContext().userEnabledFlashSDP(); }

// FlashAttention over sequences one after another: q [T, N, D] over k and v [S, K, D], bfloat16; each sequence's begins
// at its place in starts_q and in starts_k, int32, and its queries are the last of it. The result [T, N, D] in y.
char *ppo_flash(at::Tensor *q, at::Tensor *k, at::Tensor *v, at::Tensor *starts_q, at::Tensor *starts_k,
                int64_t longest_q, int64_t longest_k, at::Tensor **y) {
  return guarded([&] {
    auto all = at::_flash_attention_forward(*q, *k, *v, *starts_q, *starts_k, longest_q, longest_k, /*dropout_p=*/0.0,
                                            /*is_causal=*/true, /*return_debug_mask=*/false);
    *y = new at::Tensor(std::get<0>(all));
  });
}

// From here to ppo_kernels_end, what GPUs do is timed.
char *ppo_kernels_begin() {
  return guarded([&] {
    torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO);
    kineto::prepareProfiler(config, {ActivityType::CUDA});
    kineto::enableProfiler(config, {ActivityType::CUDA});
  });
}

// Calls `take(state, name, calls, seconds)` for each kernel and each kind of copy.
char *ppo_kernels_end(void *state, void (*take)(void *, const char *, int64_t, double)) {
  return guarded([&] {
    std::map<std::string, std::pair<int64_t, double>> spent;
    for (const auto &event : kineto::disableProfiler()->events()) {
      if (event.deviceType() != at::kCUDA) continue;
      auto &[calls, seconds] = spent[event.name()];
      calls++;
      seconds += event.durationNs() * 1e-9;
    }
    for (const auto &[name, own] : spent) take(state, name.c_str(), own.first, own.second);
  });
}

// libtorch's current stream of a GPU, as CUDA knows it; the GPU becomes this thread's current one.
char *ppo_stream(int64_t device, void **out) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl cuda(at::kCUDA);
    cuda.setDevice(gpu(device));
    *out = cuda.getStreamNativeHandle(cuda.getStream(gpu(device)));
  });
}
}
