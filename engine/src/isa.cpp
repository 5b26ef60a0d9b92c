#include "isa.hpp"

#include <cstdlib>

#include "error.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif defined(__aarch64__)
#include <sys/auxv.h>
#endif

namespace tightrope {
namespace {

#if defined(__x86_64__)

struct Features {
  bool avx2 = false, avx_vnni = false, avx512 = false, avx512_vnni = false, bf16 = false, amx = false;
};

// What the system saves when it switches threads: without that, registers cannot be used however new the processor is.
std::uint64_t saved_states() {
  std::uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (static_cast<std::uint64_t>(high) << 32) | low;
}

// Linux gives the tiles' eight kilobytes a thread only to who asks (arch_prctl(2), ARCH_REQ_XCOMP_PERM).
bool may_use_tiles() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

Features features() {
  Features found;
  std::uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d)) return found;
  const bool saves = (c >> 27) & 1, fma = (c >> 12) & 1, f16c = (c >> 29) & 1;
  if (!saves) return found;
  const std::uint64_t states = saved_states();
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return found;
  const std::uint32_t b7 = b, c7 = c, d7 = d;
  std::uint32_t a71 = 0;
  if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) a71 = a;
  found.avx2 = (states & 0x6) == 0x6 && ((b7 >> 5) & 1) && fma && f16c;
  found.avx_vnni = found.avx2 && ((a71 >> 4) & 1);
  const bool f = (b7 >> 16) & 1, dq = (b7 >> 17) & 1, bw = (b7 >> 30) & 1, vl = (b7 >> 31) & 1;
  found.avx512 = found.avx2 && (states & 0xe0) == 0xe0 && f && dq && bw && vl;
  found.avx512_vnni = found.avx512 && ((c7 >> 11) & 1);
  found.bf16 = found.avx512_vnni && ((a71 >> 5) & 1);
  const bool tiles = ((d7 >> 24) & 1) && ((d7 >> 25) & 1) && ((d7 >> 22) & 1);
  found.amx = found.bf16 && tiles && (states & 0x60000) == 0x60000 && may_use_tiles();
  return found;
}

std::vector<const Kernels*> find() {
  const Features has = features();
  std::vector<const Kernels*> found;
  if (has.amx) found.push_back(&kAmx);
  if (has.avx512_vnni) found.push_back(&kAvx512Vnni);
  if (has.bf16) found.push_back(&kAvx512Bf16);  // no faster where it was measured, and rounds more: for who asks
  if (has.avx_vnni) found.push_back(&kAvxVnni);
  if (has.avx2) found.push_back(&kAvx2);
  found.push_back(&kPlain);
  return found;
}

constexpr const char* kKnown = "amx, avx512-vnni, avx512-bf16, avx-vnni, avx2, plain";

#elif defined(__aarch64__)

std::vector<const Kernels*> find() {
  constexpr unsigned long kDotProduct = 1UL << 20, kI8mm = 1UL << 13;  // HWCAP_ASIMDDP, HWCAP2_I8MM
  std::vector<const Kernels*> found;
  const bool dot = (getauxval(AT_HWCAP) & kDotProduct) != 0;
  if (dot && (getauxval(AT_HWCAP2) & kI8mm) != 0) found.push_back(&kNeonI8mm);
  if (dot) found.push_back(&kNeonDotProduct);
  found.push_back(&kNeon);
  found.push_back(&kPlain);
  return found;
}

constexpr const char* kKnown = "neon-i8mm, neon-dotprod, neon, plain";

#else

std::vector<const Kernels*> find() { return {&kPlain}; }

constexpr const char* kKnown = "plain";

#endif

const Kernels& choose() {
  const char* wanted = std::getenv("TIGHTROPE_ISA");
  if (wanted == nullptr || *wanted == '\0') return *available().front();
  std::string here;
  for (const Kernels* kernels : available()) {
    if (std::string(kernels->isa) == wanted) return *kernels;
    here += (here.empty() ? "" : ", ") + std::string(kernels->isa);
  }
  throw Error(Fault::unsupported,
              "TIGHTROPE_ISA asks for " + std::string(wanted) + ", which this processor does not have.",
              "It has: " + here + ". Known are: " + kKnown + ".");
}

}  // namespace

const std::vector<const Kernels*>& available() {
  static const std::vector<const Kernels*> found = find();
  return found;
}

const Kernels& chosen() {
  static const Kernels& kernels = choose();  // tried again at the next call if it throws
  return kernels;
}

}  // namespace tightrope
