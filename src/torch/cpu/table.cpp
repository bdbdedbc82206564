// Which set of instructions the loops use: the one that libtorch's own kernels use, of those that were compiled.

#include "kernels.h"

#include <ATen/Version.h>
#include <string>

namespace ppo {
extern const Kernels PLAIN;
#ifdef PPO_LEVELS
extern const Kernels AVX2;
extern const Kernels AVX512;
#endif

const Kernels &kernels() {
#ifdef PPO_LEVELS
  std::string used = at::get_cpu_capability();
  if (used == "AVX512") return AVX512;
  if (used == "AVX2") return AVX2;
#endif
  return PLAIN;
}
} // namespace ppo
