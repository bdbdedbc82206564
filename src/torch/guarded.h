// How C++ exceptions reach Rust: as a message that the caller frees with ppo_free, or null.

#pragma once
#include <cstring>
#include <exception>

template <typename F> char *guarded(F &&body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception &error) {
    return strdup(error.what());
  }
}
