// What libtorch knows of GPUs, without CUDA's headers: through its registry of devices, so that this compiles
// everywhere and throws where there is no CUDA. Each function returns null, or a message that the caller frees with
// ppo_free.

#include "guarded.h"

#include <ATen/Context.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/impl/VirtualGuardImpl.h>

namespace {
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

// libtorch's current stream of a GPU, as CUDA knows it; the GPU becomes this thread's current one.
char *ppo_stream(int64_t device, void **out) {
  return guarded([&] {
    c10::impl::VirtualGuardImpl cuda(at::kCUDA);
    cuda.setDevice(gpu(device));
    *out = cuda.getStreamNativeHandle(cuda.getStream(gpu(device)));
  });
}
}
