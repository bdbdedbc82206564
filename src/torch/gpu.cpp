// What libtorch knows of GPUs, without CUDA's headers: through its registry of devices, so that this compiles
// everywhere and throws where there is no CUDA. Each function returns null, or a message that the caller frees with
// ppo_free.

#include "guarded.h"

#include <ATen/Context.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <torch/csrc/autograd/profiler_kineto.h>

#include <cstddef>
#include <map>
#include <string>

// What is used here of libtorch's graphs, whose own header needs CUDA's, over more bytes than they have. Where libtorch
// has no CUDA, neither has it these functions.
enum cudaStreamCaptureMode : int;

namespace at::cuda {
struct CUDAGraph {
  __attribute__((weak)) explicit CUDAGraph(bool keep_graph);
  __attribute__((weak)) ~CUDAGraph();
  __attribute__((weak)) void capture_begin(c10::MempoolId_t pool, cudaStreamCaptureMode mode);
  __attribute__((weak)) void capture_end();
  __attribute__((weak)) void replay();
  __attribute__((weak)) c10::MempoolId_t pool();

private:
  alignas(16) std::byte inside[4096];
};
} // namespace at::cuda

namespace {
namespace kineto = torch::autograd::profiler;
using torch::profiler::impl::ActivityType;

using at::cuda::CUDAGraph;

at::Device gpu(int64_t index) { return {at::kCUDA, static_cast<c10::DeviceIndex>(index)}; }

// While one records, other threads may do on the GPU what they like, but for waiting for all of it (`ppo_own_stream`).
constexpr auto this_thread = static_cast<cudaStreamCaptureMode>(1);
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

// Makes another stream than the default one this thread's current one on a GPU, once all that any thread gave to the
// GPU is done.
char *ppo_own_stream(int64_t device) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl cuda(at::kCUDA);
    cuda.setDevice(gpu(device));
    if (cuda.getStream(gpu(device)) != cuda.getDefaultStream(gpu(device))) return;
    cuda.synchronizeDevice(gpu(device).index());
    cuda.exchangeStream(cuda.getStreamFromGlobalPool(gpu(device)));
  });
}

// Whether this thread's current stream can be recorded.
bool ppo_can_record(int64_t device) {
  if (!ppo_has_cuda()) return false;
  c10::impl::VirtualGuardImpl cuda(at::kCUDA);
  return cuda.getStream(gpu(device)) != cuda.getDefaultStream(gpu(device));
}

// From here to ppo_graph_end what this thread gives to a GPU is recorded in the graph `out`, which may use the memory
// of the graph `before`.
char *ppo_graph_begin(int64_t device, CUDAGraph *before, CUDAGraph **out) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl(at::kCUDA).setDevice(gpu(device));
    // If it fails, the allocator may know the graph already, which then stays.
    auto *graph = new CUDAGraph(false);
    graph->capture_begin(before ? before->pool() : c10::MempoolId_t{0, 0}, this_thread);
    *out = graph;
  });
}

char *ppo_graph_end(CUDAGraph *graph) {
  return guarded([&] { graph->capture_end(); });
}

char *ppo_graph_replay(CUDAGraph *graph) {
  return guarded([&] { graph->replay(); });
}

void ppo_graph_free(CUDAGraph *graph) { delete graph; }

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
    auto result = kineto::disableProfiler();
    for (const auto &event : result->events()) {
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
